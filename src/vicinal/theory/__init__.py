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
from vicinal.theory.bounds import ExactBound, SurrogateBound, exact_logistic_bound, surrogate_bound
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

__all__ = [
    "EXACT",
    "GAUSSIAN",
    "LOGISTIC",
    "Assumptions",
    "Ellipsoid",
    "Estimate",
    "ExactBound",
    "ExpansionReport",
    "Family",
    "FeatureLaw",
    "Folded",
    "Kappa",
    "MixupTerms",
    "Moments",
    "Radii",
    "Rule",
    "ScalingName",
    "ShrunkTerms",
    "SurrogateBound",
    "Trace",
    "TraceName",
    "adv_surrogate",
    "beta_rule",
    "class_size",
    "d_tilde_rule",
    "exact_logistic_bound",
    "expansion_report",
    "feature_law",
    "folded_moments",
    "glm_rademacher_bound",
    "glm_regulariser",
    "glm_shrunk_terms",
    "glm_terms",
    "kappa",
    "logistic_adversarial_loss",
    "mixup_least_squares",
    "mixup_loss_exact",
    "mixup_loss_rewritten",
    "mixup_moments",
    "mixup_radius",
    "mixup_terms",
    "pgd_loss",
    "relu_features",
    "rescaled_mixup_loss",
    "retention",
    "shrunk_terms",
    "squared_mixup_loss",
    "surrogate_bound",
]
