"""Mixup as a data-dependent regulariser of generalised linear models, l = A(theta^T x) - y theta^T x.

With centred data, mixed inputs are rescaled so that their mean is the example (our reading; recalled, and the formulas
derived here). The term of second order is then a penalty on A''(theta^T x) theta^T Sigma theta.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

from torch import Tensor

from vicinal.errors import InputError, nearest
from vicinal.theory.exact import LOGISTIC, Family, problem
from vicinal.theory.moments import NODES, d_tilde_rule, mixup_moments, parameters

ScalingName = Literal["mean", "lambda"]


class Kappa(NamedTuple):
    """Coefficients of the regulariser 1/2 mean_i A''(z_i) [own z_i^2 + others theta^T Sigma theta].

    Attributes:
        own: of the example's own input.
        others: of the inputs that it is mixed with, kappa.
    """

    own: float
    others: float


def kappa(alpha: float, beta: float | None = None, *, scaling: ScalingName = "mean") -> Kappa:
    """Coefficients of the regulariser of generalised linear models, under lambda ~ D~.

    Args:
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.
        scaling: what a mixed input is divided by. ``"lambda"``: its own coefficient, kappa = E[(1 - lambda)^2 /
            lambda^2], which is (alpha + 1) / (alpha - 1) for equal parameters and infinite if one of them is at most 1,
            as it usually is. ``"mean"``: the mean coefficient, which is finite for all.

    Raises:
        InputError: a parameter is not positive, or an unknown scaling.

    Source: derived here.

    >>> kappa(3.0, scaling="lambda").others, kappa(1.0, scaling="lambda").others
    (2.0, inf)
    """
    _check_scaling(scaling)
    alpha, beta = parameters(alpha, beta)
    if scaling == "lambda":
        if min(alpha, beta) <= 1:
            return Kappa(0.0, math.inf)
        total = alpha + beta
        return Kappa(0.0, beta * (beta + 1) / (total * (alpha - 1)) + alpha * (alpha + 1) / (total * (beta - 1)))
    m1, m2 = mixup_moments(alpha, beta)[:2]
    return Kappa((m2 - m1**2) / (1 - m1) ** 2, m2 / (1 - m1) ** 2)


def glm_regulariser(
    theta: Tensor,
    x: Tensor,
    alpha: float,
    beta: float | None = None,
    *,
    scaling: ScalingName = "mean",
    family: Family = LOGISTIC,
) -> Tensor:
    """1/2 mean_i A''(z_i) [own z_i^2 + others mean_j z_j^2] with z = theta^T x, a scalar with a graph.

    Args:
        theta: weights (d,).
        x: centred inputs (n, d).
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.
        scaling: see `kappa`; with ``"lambda"`` it may be infinite.
        family: of the model, A is its h.

    Raises:
        InputError: a parameter is not positive, or an unknown scaling.
    """
    own, others = kappa(alpha, beta, scaling=scaling)
    squares = (x @ theta).square()
    return (family.second(x @ theta) * (own * squares + others * squares.mean())).mean() / 2


def rescaled_mixup_loss(
    theta: Tensor,
    x: Tensor,
    y: Tensor,
    alpha: float,
    beta: float | None = None,
    *,
    scaling: ScalingName = "mean",
    scale: float = 1.0,
    family: Family = LOGISTIC,
    nodes: int = NODES,
) -> Tensor:
    """The mixup loss whose second-order term the regulariser is: over D~ and all pairs, with rescaled mixed inputs.

    All n^2 * ``nodes`` logits are in memory at once.

    Args:
        theta: weights (d,).
        x: centred inputs (n, d), best in float64.
        y: labels (n,).
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.
        scaling: see `kappa`.
        scale: t in [0,1], by which the perturbation of each input is multiplied.
        family: of the model.
        nodes: quadrature nodes per Beta law, >= 1.

    Raises:
        InputError: the sample does not fit, or an argument is out of range.
    """
    _check_scaling(scaling)
    y = problem(lambda at: at @ theta, x, y, family, binary=True).y
    lam, weight = (values.to(x)[:, None, None] for values in d_tilde_rule(alpha, beta, nodes))
    z = x @ theta
    divisor = lam if scaling == "lambda" else (weight * lam).sum()
    moved = ((lam - divisor) * z[:, None] + (1 - lam) * z) / divisor
    losses = family(z[:, None] + scale * moved, y[:, None])
    return (weight * losses).sum() / len(z) ** 2


def class_size(theta: Tensor, x: Tensor, *, family: Family = LOGISTIC) -> Tensor:
    """E[A''(theta^T x)] theta^T Sigma theta, whose level sets {<= gamma} are the classes W_gamma; a scalar.

    Args:
        theta: weights (d,).
        x: inputs (n, d), whose mean stands for the expectation; Sigma is their second moment.
        family: of the model.
    """
    z = x @ theta
    return family.second(z).mean() * z.square().mean()


def retention(theta: Tensor, x: Tensor, *, family: Family = LOGISTIC) -> Tensor:
    """E[A''(theta^T x)] / min(1, E (theta^T x)^2), a scalar; a law is rho-retentive if this is >= rho for every theta.

    For the logistic family it tends to 0 as theta grows, so rho > 0 needs bounded weights.

    Args:
        theta: weights (d,), not zero.
        x: inputs (n, d), whose mean stands for the expectation.
        family: of the model.
    """
    z = x @ theta
    return family.second(z).mean() / z.square().mean().clamp(max=1)


def _check_scaling(scaling: str) -> None:
    if scaling not in get_args(ScalingName):
        raise InputError(f"scaling: unknown {scaling!r}; {nearest(scaling, get_args(ScalingName))}")
