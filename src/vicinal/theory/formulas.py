"""Where each formula of this room comes from: derived here, or recalled from a paper; its function, and its test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

_ZHANG = "Zhang et al. 2021"
_CARRATINO = "Carratino et al. 2022"


class Formula(NamedTuple):
    """A formula.

    Attributes:
        source: paper that it is from or that its setting is from; theorem numbers are not given, as they could not be
            looked up.
        status: ``"derived"``: proved from the definitions, and needs no paper; ``"recalled"``: the statement (its form,
            its constants or its wording) is from memory of the paper, whether or not a proof is given here.
        function: import path of what computes it.
        test: file and function of what holds it against an independent computation, with a control.
    """

    source: str
    status: Literal["derived", "recalled"]
    function: str
    test: str


def _derived(source: str, function: str, test: str) -> Formula:
    return Formula(source, "derived", f"vicinal.theory.{function}", f"tests/theory/{test}")


def _recalled(source: str, function: str, test: str) -> Formula:
    return Formula(source, "recalled", f"vicinal.theory.{function}", f"tests/theory/{test}")


FORMULAS: Mapping[str, Formula] = {
    "moments of D~": _derived(_ZHANG, "moments.mixup_moments", "test_moments.py::test_t01_moments_and_density"),
    "mixup loss over D~": _derived(
        _ZHANG, "exact.mixup_loss_rewritten", "test_exact.py::test_t02_pairs_and_rewriting_agree"
    ),
    "L_std + R1 + R2 + R3": _derived(
        _ZHANG, "expansion.mixup_terms", "test_expansion.py::test_t03_orders_of_the_remainders"
    ),
    "expansion around shrunk points": _derived(
        f"{_CARRATINO}; for networks ours",
        "expansion.shrunk_terms",
        "test_expansion.py::test_t04b_the_shrunk_expansion_is_close",
    ),
    "second-order adversarial surrogate": _derived(
        _ZHANG, "adversarial.adv_surrogate", "test_adversarial.py::test_the_surrogate_is_the_loss_to_second_order"
    ),
    "radii eps_i, eps_mix": _recalled(
        _ZHANG, "adversarial.mixup_radius", "test_adversarial.py::test_radii_are_the_cosines_times_the_smallest_norm"
    ),
    "bound of the surrogate, logistic regression": _recalled(
        f"{_ZHANG}; proof derived",
        "bounds.surrogate_bound",
        "test_adversarial.py::test_t05_the_expansion_bounds_the_surrogate",
    ),
    "bound of the surrogate, networks without biases": _recalled(
        f"{_ZHANG}; proof derived", "bounds.surrogate_bound", "test_adversarial.py::test_t08_networks_without_biases"
    ),
    "bound of the surrogate, several classes": _derived(
        "ours", "attacked.surrogate_bound_figures", "test_attacked.py::test_the_bound_holds_for_several_classes"
    ),
    "bound of the true adversarial loss, logistic regression": _derived(
        "ours",
        "bounds.exact_logistic_bound",
        "test_adversarial.py::test_t07_the_mixup_loss_bounds_the_true_adversarial_loss",
    ),
    "Jensen's bound for affine logits": _derived(
        "ours", "attacked.jensen_figures", "test_attacked.py::test_jensen_for_affine_logits"
    ),
    "kappa, divided by lambda": _recalled(
        f"{_ZHANG}; coefficients derived", "regulariser.kappa", "test_regulariser.py::test_t10_kappa_against_quadrature"
    ),
    "kappa, divided by the mean of lambda": _derived(
        "ours", "regulariser.kappa", "test_regulariser.py::test_t10_kappa_against_quadrature"
    ),
    "regulariser of generalised linear models": _recalled(
        _ZHANG, "regulariser.glm_regulariser", "test_regulariser.py::test_t10_the_regulariser_is_the_second_order_term"
    ),
    "regulariser of several logits": _derived(
        "ours",
        "generalising.softmax_regulariser",
        "test_generalising.py::test_the_regulariser_of_two_logits_is_that_of_one",
    ),
    "complexity of an ellipsoid": _derived(
        "standard",
        "complexity.Ellipsoid.rademacher_bound",
        "test_complexity.py::test_t11_complexity_depends_on_the_rank",
    ),
    "factor 2 of a free intercept": _recalled(
        _ZHANG,
        "complexity.Ellipsoid.rademacher_bound",
        "test_generalising.py::test_a_free_intercept_costs_a_factor_of_two",
    ),
    "complexity of W_gamma": _recalled(
        f"{_ZHANG}; proof derived",
        "complexity.glm_rademacher_bound",
        "test_regulariser.py::test_a_small_class_is_a_small_ellipsoid",
    ),
    "generalisation corollary": _recalled(
        _ZHANG, "generalising.generalisation_bound", "test_generalising.py::test_the_corollary_by_hand"
    ),
    "mixup of least squares": _derived(
        "ours", "exact.mixup_least_squares", "test_exact.py::test_t13_linear_regression"
    ),
}
"""By what the formula is."""
