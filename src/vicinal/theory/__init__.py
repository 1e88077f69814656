"""How mixup helps, as functions: what the mixup loss equals, what it bounds, and when.

Formulas are derived in the docstrings that say so; those that are recalled from a paper say that instead.
"""

from vicinal.theory.adversarial import (
    Assumptions,
    Radii,
    adv_surrogate,
    logistic_adversarial_loss,
    mixup_radius,
    pgd_loss,
)
from vicinal.theory.attacked import Attack, adversarial_curve
from vicinal.theory.bounds import ExactBound, SurrogateBound, exact_logistic_bound, surrogate_bound
from vicinal.theory.checks import ASSUMPTIONS, Check, check_assumptions
from vicinal.theory.complexity import (
    Ellipsoid,
    Estimate,
    FeatureLaw,
    feature_law,
    glm_rademacher_bound,
    relu_features,
)
from vicinal.theory.curvature import EXACT, Trace, TraceName
from vicinal.theory.exact import (
    GAUSSIAN,
    LOGISTIC,
    Family,
    mixup_least_squares,
    mixup_loss_exact,
    mixup_loss_rewritten,
    squared_mixup_loss,
)
from vicinal.theory.expansion import (
    ExpansionReport,
    MixupTerms,
    ShrunkTerms,
    expansion_report,
    glm_shrunk_terms,
    glm_terms,
    mixup_terms,
    shrunk_terms,
)
from vicinal.theory.formulas import FORMULAS, Formula
from vicinal.theory.generalising import generalisation_bound, softmax_regulariser
from vicinal.theory.moments import Folded, Moments, Rule, beta_rule, d_tilde_rule, folded_moments, mixup_moments
from vicinal.theory.regulariser import (
    Kappa,
    ScalingName,
    class_size,
    glm_regulariser,
    kappa,
    rescaled_mixup_loss,
    retention,
)
from vicinal.theory.sampled import expansion_figures, mixup_loss_figures, mixup_loss_sampled
from vicinal.theory.statements import MEASURED, NEEDS, statements
from vicinal.theory.trained import SpaceName, Trained

__all__ = [
    "ASSUMPTIONS",
    "EXACT",
    "FORMULAS",
    "GAUSSIAN",
    "LOGISTIC",
    "MEASURED",
    "NEEDS",
    "Assumptions",
    "Attack",
    "Check",
    "Ellipsoid",
    "Estimate",
    "ExactBound",
    "ExpansionReport",
    "Family",
    "FeatureLaw",
    "Folded",
    "Formula",
    "Kappa",
    "MixupTerms",
    "Moments",
    "Radii",
    "Rule",
    "ScalingName",
    "ShrunkTerms",
    "SpaceName",
    "SurrogateBound",
    "Trace",
    "TraceName",
    "Trained",
    "adv_surrogate",
    "adversarial_curve",
    "beta_rule",
    "check_assumptions",
    "class_size",
    "d_tilde_rule",
    "exact_logistic_bound",
    "expansion_figures",
    "expansion_report",
    "feature_law",
    "folded_moments",
    "generalisation_bound",
    "glm_rademacher_bound",
    "glm_regulariser",
    "glm_shrunk_terms",
    "glm_terms",
    "kappa",
    "logistic_adversarial_loss",
    "mixup_least_squares",
    "mixup_loss_exact",
    "mixup_loss_figures",
    "mixup_loss_rewritten",
    "mixup_loss_sampled",
    "mixup_moments",
    "mixup_radius",
    "mixup_terms",
    "pgd_loss",
    "relu_features",
    "rescaled_mixup_loss",
    "retention",
    "shrunk_terms",
    "softmax_regulariser",
    "squared_mixup_loss",
    "statements",
    "surrogate_bound",
]
