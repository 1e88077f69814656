"""The adversarial side of the theory: mixup bounds a surrogate of the adversarial loss, under assumptions.

For one logit and binary labels (Zhang et al. 2021; derived here): with centred data, every training point on its right
side, and f(x) = grad f(x)^T x without curvature (linear models, ReLU networks without biases or batch norm),::

    L~ >= mean_i l_adv~(eps_i sqrt(d), z_i) >= mean_i l_adv~(eps_mix sqrt(d), z_i)
    eps_i = R_i c_x m1,  R_i = |cos(grad f(x_i), x_i)|,  eps_mix = min_i R_i c_x m1,  c_x sqrt(d) <= |x_i|

where l_adv~ is the second-order surrogate. For logistic regression there is a stronger statement without any expansion,
`exact_logistic_bound`; for networks there is none: the true mixup loss can lie below the loss of a real attack at the
same radii.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vicinal.errors import InputError
from vicinal.settings import check
from vicinal.theory.exact import LOGISTIC, Family, Function, problem, traced
from vicinal.theory.moments import mixup_moments
from vicinal.vicinity import projected_ascent, unit
from vicinal.vicinity.projected import input_gradient


@dataclass(frozen=True)
class Assumptions:
    """What the bound assumes, whether it holds on this sample, and the figures that say so.

    Args:
        centred: the inputs have mean zero.
        theta_in_theta: theta is in Theta = {y_i f_i + (y_i - 1) f_i >= 0 for all i}: no example on the wrong side.
        homogeneous: f(x) = grad f(x)^T x and f(2x) = 2 f(x) at the examples.
        flat: the Hessian of f vanishes at the examples, seen along the chords to their neighbours in the sample.
        offset: norm of the mean input over the root mean square norm of the inputs.
        wrong_side: share of the examples on the wrong side, in [0,1].
        homogeneity_error: largest violation of either equality, over the largest logit.
        curvature: largest norm of Hessian times chord, over the largest norm of a gradient.
    """

    centred: bool
    theta_in_theta: bool
    homogeneous: bool
    flat: bool
    offset: float
    wrong_side: float
    homogeneity_error: float
    curvature: float

    @property
    def hold(self) -> bool:
        """Whether all of them hold, so that the bound applies."""
        return not self.failing

    @property
    def failing(self) -> tuple[str, ...]:
        """One line for each assumption that does not hold, with its figure."""
        reasons = (
            (self.centred, f"the data are not centred: their mean is {self.offset:.3g} of their typical norm"),
            (self.theta_in_theta, f"{self.wrong_side:.1%} of the examples are on the wrong side"),
            (self.homogeneous, f"f is not homogeneous (biases, batch norm?): off by {self.homogeneity_error:.3g}"),
            (self.flat, f"f is curved between the examples: Hessian times chord is {self.curvature:.3g} of the slope"),
        )
        return tuple(reason for holds, reason in reasons if not holds)


@dataclass(frozen=True)
class Radii:
    """The radii of the bound, per dimension: the L2 balls have radius eps sqrt(d).

    Args:
        eps: eps_i, (n,).
        eps_mix: the smallest of them.
        cosine: R_i = |cos(grad f(x_i), x_i)|, (n,), in [0,1].
        c_x: lower bound of |x_i| / sqrt(d).
        dimension: d.
        assumptions: without which the radii bound nothing.
    """

    eps: Tensor
    eps_mix: float
    cosine: Tensor
    c_x: float
    dimension: int
    assumptions: Assumptions

    @property
    def l2(self) -> Tensor:
        """L2 radii eps_i sqrt(d), (n,), in units of the inputs."""
        return self.eps * math.sqrt(self.dimension)

    @property
    def l2_mix(self) -> float:
        """The smallest L2 radius, eps_mix sqrt(d)."""
        return self.eps_mix * math.sqrt(self.dimension)


def mixup_radius(
    f: Function,
    x: Tensor,
    y: Tensor,
    alpha: float,
    beta: float | None = None,
    *,
    c_x: float | None = None,
    tolerance: float = 1e-6,
) -> Radii:
    """The radii at which mixup bounds the adversarial surrogate, and which of the assumptions hold.

    The sample goes through ``f`` in one pass.

    Args:
        f: from inputs to one logit each, differentiable; a network in evaluation mode.
        x: inputs (n, ...), best in float64.
        y: labels 0 or 1, (n,).
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.
        c_x: lower bound of |x_i| / sqrt(d), >= 0; None for the largest that holds on the sample.
        tolerance: relative error up to which an equality counts as true, our choice.

    Raises:
        InputError: the sample does not fit, an argument is out of range, ``c_x`` is no lower bound, or no gradient
            reaches the inputs.
    """
    _, y, _ = problem(f, x, y, LOGISTIC, binary=True)
    logits, gradient, bent = _local(f, x)
    rows = x.flatten(1)
    smallest = float(rows.norm(dim=1).min()) / math.sqrt(rows.shape[1])
    if c_x is None:
        c_x = smallest
    check("c_x", c_x, low=0)
    if c_x > smallest:
        raise InputError(f"c_x: {c_x:.6g} is above the smallest norm, {smallest:.6g} sqrt(d); give a lower bound")
    with torch.no_grad():
        doubled = f(2 * x)
    tiny = torch.finfo(x.dtype).tiny
    off = torch.maximum((logits - (gradient * rows).sum(dim=1)).abs(), (doubled - 2 * logits).abs() / 2)
    offset = float(rows.mean(dim=0).norm() / rows.norm(dim=1).square().mean().sqrt().clamp(min=tiny))
    error = float(off.max() / logits.abs().max().clamp(min=tiny))
    curvature = float(bent.norm(dim=1).max() / gradient.norm(dim=1).max().clamp(min=tiny))
    wrong = float(((2 * y - 1) * logits < 0).double().mean())
    assumptions = Assumptions(
        centred=offset <= tolerance,
        theta_in_theta=wrong == 0,
        homogeneous=error <= tolerance,
        flat=curvature <= tolerance,
        offset=offset,
        wrong_side=wrong,
        homogeneity_error=error,
        curvature=curvature,
    )
    cosine = (unit(gradient) * unit(rows)).sum(dim=1).abs().clamp(max=1)
    eps = cosine * c_x * mixup_moments(alpha, beta).m1
    return Radii(eps, float(eps.min()), cosine, c_x, rows.shape[1], assumptions)


def _local(f: Function, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (n,), their gradients (n, d), and the Hessians times the chords to the next examples (n, d)."""
    at, values = traced(f, x)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(values.sum(), at, create_graph=True)
    bent = torch.zeros_like(x)
    if gradient.requires_grad:
        chord = x.roll(-1, dims=0) - x
        (bent,) = torch.autograd.grad(gradient, at, chord, materialize_grads=True)
    return values.detach(), gradient.detach().flatten(1), bent.flatten(1)


def adv_surrogate(f: Function, x: Tensor, y: Tensor, eta: Tensor | float, *, family: Family = LOGISTIC) -> Tensor:
    """l + eta |h'(f) - y| |grad f| + eta^2/2 h''(f) |grad f|^2, the adversarial loss to second order, (n,).

    On the right side, and for logistic regression at the radii of `exact_logistic_bound`, it is an under-estimate of
    the adversarial loss.

    Args:
        f: from inputs to one logit each, differentiable.
        x: inputs (n, ...).
        y: labels (n,).
        eta: L2 radius, one for all or (n,), >= 0.
        family: the loss.

    Raises:
        InputError: the sample does not fit, or no gradient reaches the inputs.

    Source: Zhang et al. 2021; derived here.

    >>> x, y = torch.tensor([[3.0, 4.0]]), torch.tensor([1.0])
    >>> adv_surrogate(lambda x: 0 * x.sum(dim=1), x, y, eta=0.5)
    tensor([0.6931])
    """
    _, y, _ = problem(f, x, y, family, binary=True)
    at, values = traced(f, x)
    slope = input_gradient(values, at).flatten(1).norm(dim=1)
    logits, moved = values.detach(), eta * slope
    first = moved * (family.first(logits) - y).abs()
    surrogate: Tensor = family(logits, y) + first + moved.square() / 2 * family.second(logits)
    return surrogate


def logistic_adversarial_loss(theta: Tensor, x: Tensor, y: Tensor, eta: Tensor | float) -> Tensor:
    """The adversarial loss of logistic regression, max over |delta|_2 <= eta: log(1 + exp(-m + eta |theta|)), (n,).

    Args:
        theta: weights (d,).
        x: inputs (n, d).
        y: labels 0 or 1, (n,); the margin is m = (2y - 1) theta^T x.
        eta: L2 radius, one for all or (n,), >= 0.
    """
    margin = (2 * y - 1) * (x @ theta)
    return LOGISTIC.h(eta * theta.norm() - margin)


def pgd_loss(f: Function, x: Tensor, y: Tensor, eta: Tensor, *, steps: int = 20, family: Family = LOGISTIC) -> Tensor:
    """The loss after a projected gradient ascent in L2 balls of their own radii, a lower estimate of its maximum, (n,).

    Steps are 2.5 / ``steps`` radii long, from the example itself, and the best visited point counts.

    Args:
        f: from inputs to one logit each, differentiable.
        x: inputs (n, ...).
        y: labels (n,).
        eta: L2 radii (n,), >= 0.
        steps: of the ascent, >= 1.
        family: the loss.

    Raises:
        InputError: the sample does not fit, ``steps`` is out of range, or no gradient reaches the inputs.
    """
    _, y, _ = problem(f, x, y, family, binary=True)
    check("steps", steps, low=1)
    radius = eta.view(-1, *[1] * (x.dim() - 1))

    def objective(u: Tensor) -> Tensor:
        return family(f(x + radius * u), y)

    still = torch.zeros_like(x)
    u = projected_ascent(objective, still, norm="l2", epsilon=1, step_size=2.5 / steps, steps=steps, keep_best=True)
    with torch.no_grad():
        return objective(u)
