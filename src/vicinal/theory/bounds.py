"""The inequalities themselves: both sides of each, side by side, with the assumptions that they need."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vicinal.theory.adversarial import (
    Assumptions,
    Radii,
    adv_surrogate,
    logistic_adversarial_loss,
    mixup_radius,
)
from vicinal.theory.complexity import Estimate
from vicinal.theory.exact import LOGISTIC, Function, mixup_loss_exact, problem
from vicinal.theory.expansion import mixup_terms
from vicinal.theory.moments import NODES, mixup_moments


@dataclass(frozen=True)
class SurrogateBound:
    """L~ >= mean l_adv~(eps_i sqrt(d)) >= mean l_adv~(eps_mix sqrt(d)), true where the assumptions hold.

    Args:
        approximation: L~, the expansion of the mixup loss around the examples, not that loss itself.
        surrogate: mean second-order surrogate at the radii of each example.
        surrogate_mix: the same at the smallest radius.
        radii: and their assumptions.
    """

    approximation: float
    surrogate: float
    surrogate_mix: float
    radii: Radii


@dataclass(frozen=True)
class ExactBound:
    """L_mix >= mean l at (1 - m1) z_i + m1 z_bar, always; and >= the adversarial loss, where the assumptions hold.

    Args:
        mixup: L_mix, exact.
        jensen: mean loss at the logits drawn towards their mean, with the examples' own labels.
        adversarial: mean of the true adversarial loss at the radii ``l2``, in closed form.
        l2: L2 radii |x_i| R_i m1, at least as large as those of the surrogate, (n,).
        assumptions: of the second inequality.
        standard_error: of ``mixup``, from random permutations; 0 over all pairs.
    """

    mixup: float
    jensen: float
    adversarial: float
    l2: Tensor
    assumptions: Assumptions
    standard_error: float = 0.0


def surrogate_bound(f: Function, x: Tensor, y: Tensor, alpha: float, beta: float | None = None) -> SurrogateBound:
    """Both sides of the bound of the adversarial surrogate, for one logit and binary labels.

    Args:
        f: from inputs to one logit each, twice differentiable (off the kinks of a ReLU network).
        x: inputs (n, ...), best in float64.
        y: labels 0 or 1, (n,).
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.

    Raises:
        InputError: the sample does not fit, a parameter is not positive, or no gradient reaches the inputs.

    Source: Zhang et al. 2021; derived here.
    """
    radii = mixup_radius(f, x, y, alpha, beta)
    return SurrogateBound(
        float(mixup_terms(f, x, y, alpha, beta, loss=LOGISTIC).total),
        float(adv_surrogate(f, x, y, radii.l2).mean()),
        float(adv_surrogate(f, x, y, radii.l2_mix).mean()),
        radii,
    )


def exact_logistic_bound(
    theta: Tensor,
    x: Tensor,
    y: Tensor,
    alpha: float,
    beta: float | None = None,
    *,
    nodes: int = NODES,
    mixup: Estimate | None = None,
) -> ExactBound:
    """The mixup loss of logistic regression without bias against its adversarial loss, with no expansion.

    The loss is convex in the logit: Jensen's inequality over the partner r, then over lambda, moves each logit to
    (1 - m1) z_i + m1 z_bar. With centred inputs, on the right side, that is what an attack of radius |x_i| R_i m1 does.

    Args:
        theta: weights (d,).
        x: inputs (n, d), best in float64.
        y: labels 0 or 1, (n,).
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.
        nodes: quadrature nodes, >= 1.
        mixup: the mixup loss, if it was computed already; None for that over all pairs.

    Raises:
        InputError: the sample does not fit, or an argument is out of range.

    Source: derived here.
    """
    radii = mixup_radius(lambda at: at @ theta, x, y, alpha, beta)
    y = problem(lambda at: at @ theta, x, y, LOGISTIC, binary=True).y
    m1 = mixup_moments(alpha, beta).m1
    with torch.no_grad():
        z = x @ theta
        if mixup is None:
            # The logits of mixes are mixes of logits.
            exact = mixup_loss_exact(lambda at: at[:, 0], z[:, None], y, alpha, beta, loss=LOGISTIC, nodes=nodes)
            mixup = Estimate(float(exact), 0.0)
        l2 = x.norm(dim=1) * radii.cosine * m1
        return ExactBound(
            mixup.mean,
            float(LOGISTIC((1 - m1) * z + m1 * z.mean(), y).mean()),
            float(logistic_adversarial_loss(theta, x, y, l2).mean()),
            l2,
            radii.assumptions,
            mixup.standard_error,
        )
