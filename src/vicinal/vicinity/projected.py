"""Projected gradient ascent: points near each input, and within the data's bounds, where an objective is large.

Each step goes along the steepest direction of the norm (the gradient's sign for Linf, the unit gradient for L2) and
comes back into the ball and the bounds. From no start, with one step as long as the radius, it is the fast gradient
(sign) method. Only the sign or the direction of a sample's gradient counts, so any increasing function of an objective
has the same ascent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from vicinal.errors import InputError, nearest
from vicinal.settings import check
from vicinal.vicinity.adversary import full_precision, random_direction, unit

NormName = Literal["linf", "l2"]


def check_norm(norm: str) -> None:
    """Check the name of a norm.

    Raises:
        InputError: it is neither ``"linf"`` nor ``"l2"``.
    """
    if norm not in get_args(NormName):
        raise InputError(f"norm: unknown {norm!r}; {nearest(norm, get_args(NormName))}")


def check_bounds(bounds: tuple[float, float] | None) -> None:
    """Check that bounds, if there are any, are (low, high) with low < high.

    Raises:
        InputError: they are not.
    """
    if bounds is not None and not (len(bounds) == 2 and bounds[0] < bounds[1]):
        raise InputError(f"bounds: expected (low, high) with low < high, or None, got {bounds}")


def random_start(x: Tensor, norm: NormName, epsilon: float, generator: torch.Generator) -> Tensor:
    """A perturbation drawn uniformly from the ball, shaped like ``x``, in at least float32.

    Args:
        x: inputs (B, ...).
        norm: whose ball: ``"linf"`` a cube, ``"l2"`` a ball over all entries of a sample.
        epsilon: radius, in units of ``x``, >= 0.
        generator: CPU generator, so that every device draws the same.

    Raises:
        InputError: an unknown norm or a negative radius.
    """
    check_norm(norm)
    check("epsilon", epsilon, low=0)
    x = full_precision(x)
    if norm == "linf":
        u = torch.rand(x.shape, generator=generator).to(x.device, x.dtype, non_blocking=True)
        return epsilon * (2 * u - 1)
    d = random_direction(x, generator)
    u = torch.rand(len(x), generator=generator).to(x.device, x.dtype, non_blocking=True)
    # The share of a ball's volume within radius r grows as r to its dimension.
    radii: Tensor = epsilon * u ** (1 / x.shape[1:].numel())
    return radii.view(-1, *[1] * (x.dim() - 1)) * d


def steepest(gradient: Tensor, norm: NormName) -> Tensor:
    """The perturbation of norm 1 along which each sample's objective grows fastest.

    Args:
        gradient: (B, ...). Where it is zero or not a number, there is no such direction and the result is zero.
        norm: ``"linf"``: the sign of each entry; ``"l2"``: each row scaled to length 1.
    """
    return gradient.sign().nan_to_num(nan=0.0) if norm == "linf" else unit(gradient)


def project(x: Tensor, moved: Tensor, norm: NormName, epsilon: float, bounds: tuple[float, float] | None) -> Tensor:
    """Points brought back into the ball around ``x``, then into the bounds, like ``x``.

    Entries are clipped to the bounds after the projection. That does not leave the ball if ``x`` is within the bounds,
    as clipping then only shortens the perturbation; in L2 it need not be the nearest point of both.

    Args:
        x: centres (B, ...).
        moved: points (B, ...).
        norm: whose ball.
        epsilon: radius.
        bounds: smallest and largest value of the data, or None.
    """
    if norm == "linf":
        moved = torch.minimum(torch.maximum(moved, x - epsilon), x + epsilon)
    else:
        delta = moved - x
        lengths = delta.flatten(1).norm(dim=1).view(-1, *[1] * (x.dim() - 1))
        # Points that are inside stay as they are, to the bit.
        moved = torch.where(lengths > epsilon, x + delta * (epsilon / lengths.clamp(min=epsilon)), moved)
    return moved if bounds is None else moved.clamp(*bounds)


def input_gradient(values: Tensor, at: Tensor) -> Tensor:
    """The gradient of each sample's value by that sample's input; no parameter gets a ``.grad``.

    Args:
        values: (B,), with a graph that reaches ``at``.
        at: inputs (B, ...) that require a gradient.

    Raises:
        InputError: no gradient reaches the inputs.
    """
    if not values.requires_grad:
        raise InputError(
            "no gradient reaches the inputs; use a network that neither detaches them nor switches gradients off"
        )
    ones = torch.ones_like(values)  # and not values.sum(), which has no graph where the caller has gradients off
    (gradient,) = torch.autograd.grad(values, at, ones, allow_unused=True, materialize_grads=True)
    return gradient


def projected_ascent(
    objective: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    norm: NormName,
    epsilon: float,
    step_size: float,
    steps: int,
    start: Tensor | None = None,
    bounds: tuple[float, float] | None = None,
    keep_best: bool = False,
) -> Tensor:
    """Inputs perturbed within a ball to make an objective large.

    Args:
        objective: maps inputs (B, ...) to one number per sample (B,), with a graph.
        x: inputs (B, ...), within ``bounds``.
        norm: ``"linf"`` or ``"l2"`` (over all entries of a sample).
        epsilon: radius of the ball, in units of ``x``, >= 0; with 0 the inputs come back as they are, to the bit.
        step_size: length of each step in the same norm, > 0.
        steps: number of gradient steps, >= 0.
        start: perturbation to start from, like ``x``, brought into the ball and the bounds first; None starts at ``x``.
        bounds: smallest and largest value of the data, such as (0, 1) for images, or None.
        keep_best: return, per sample, the point with the largest objective of all that were visited, the start
            included (one forward pass more, for the last point); else the last point.

    Returns:
        Perturbed inputs, like ``x`` in at least float32, detached. Parameters and their ``.grad`` are left alone; the
        pass policy is the caller's.

    Raises:
        InputError: an argument is out of range, or no gradient reaches the inputs.

    Source: Madry et al. 2018 (PGD); one step is Goodfellow et al. 2015 (FGSM).

    >>> x = torch.tensor([[0.5, 0.5]])
    >>> projected_ascent(lambda v: v[:, 0] - v[:, 1], x, norm="linf", epsilon=0.25, step_size=0.25, steps=1)
    tensor([[0.7500, 0.2500]])
    """
    check_norm(norm)
    check_bounds(bounds)
    check("epsilon", epsilon, low=0)
    check("steps", steps, low=0)
    x = full_precision(x.detach())
    if epsilon == 0:
        return x.clone()
    check("step_size", step_size, above=0)
    point = x.clone() if start is None else project(x, x + start.detach(), norm, epsilon, bounds)
    best, highest = point, torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
    for step in range(steps + keep_best):
        with torch.set_grad_enabled(step < steps):
            at = point.detach().requires_grad_(step < steps)
            values = objective(at)
        if keep_best:
            better = values.detach().double() > highest  # which a value that is not a number never is
            highest = torch.where(better, values.detach().double(), highest)
            best = torch.where(better.view(-1, *[1] * (x.dim() - 1)), point, best)
        if step < steps:
            direction = steepest(input_gradient(values, at), norm)
            point = project(x, point + step_size * direction, norm, epsilon, bounds)
    return best if keep_best else point
