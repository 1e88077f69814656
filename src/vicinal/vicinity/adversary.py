"""Adversarial neighbours: x + r with r in the L2 ball, in the direction that moves a divergence most.

The search leaves parameters, their ``.grad``, buffers and flags as they were: it differentiates with respect to the
perturbation alone, and the caller's pass policy keeps running statistics out of it.

Two regimes (both occur in published work, and they are not the same method):

* *second order*: the target comes from the same weights, mode and dropout masks as the searched passes. Then the
  gradient at r = 0 vanishes and each iteration is one power step on the divergence's Hessian; the random start and
  the size of ``xi`` matter.
* *first order*: the target comes from anything else (an averaged teacher, fresh masks). Then the gradient at r = 0
  does not vanish, the direction is that of the fast gradient method, and more iterations or other starts change
  nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

Regime = Literal["first order", "second order"]
SearchName = Literal["finite_difference", "gauss_newton"]


def unit(x: Tensor, fallback: Tensor | None = None) -> Tensor:
    """Each row scaled to L2 norm 1, without underflow for tiny rows.

    Args:
        x: (B, ...).
        fallback: rows to take where a row of ``x`` is exactly zero or not finite, same shape; else zeros stay zeros.

    >>> unit(torch.tensor([[3e-30, 4e-30]]))
    tensor([[0.6000, 0.8000]])
    """
    rows = x.flatten(1)
    largest = rows.abs().amax(dim=1, keepdim=True)
    usable = (largest > 0) & torch.isfinite(largest)
    rows = torch.where(usable, rows / torch.where(usable, largest, 1), 0)
    rows = rows / torch.where(usable, rows.norm(dim=1, keepdim=True), 1)
    if fallback is not None:
        rows = torch.where(usable, rows, fallback.flatten(1))
    return rows.view_as(x)


def full_precision(x: Tensor) -> Tensor:
    """Half-precision numbers as float32; others as they are. Searches take differences that half precision loses."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def random_direction(x: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian directions of norm 1, shaped and typed like ``x``, from a CPU generator."""
    return unit(torch.randn(x.shape, generator=generator).to(x.device, x.dtype, non_blocking=True))


def adversarial_direction(
    divergence: Callable[[Tensor], Tensor], x: Tensor, *, xi: float, iterations: int, generator: torch.Generator
) -> Tensor:
    """Unit directions d, repeated ``iterations`` times: d <- unit(grad of divergence(x + xi d) by the perturbation).

    Args:
        divergence: maps perturbed inputs (B, ...) to one number per sample (B,), with a graph.
        x: inputs (B, ...).
        xi: length of the probing step. With 1e-6 in float32 most inputs do not change at all and a second-order
            direction is noise; 1e-2 is accurate for inputs of order 1.
        iterations: number of power steps, K; with 0 the random start is returned.
        generator: CPU generator of the random start.

    Returns:
        Directions of norm 1, like ``x`` in at least float32, detached. Where the gradient is exactly zero the last
        direction stays.

    Source: Miyato et al. 2018 (VAT), which the AdvMixup slides cite for r.
    """
    x = full_precision(x.detach())
    d = random_direction(x, generator)
    for _ in range(iterations):
        r = (xi * d).requires_grad_()
        with torch.enable_grad():
            total = divergence(x + r).sum()
        (gradient,) = torch.autograd.grad(total, r)
        d = unit(gradient, fallback=d)
    return d


def gauss_newton_direction(
    logits_of: Callable[[Tensor], Tensor], x: Tensor, *, iterations: int, generator: torch.Generator
) -> Tensor:
    """Power steps on the exact Hessian of KL(p(x) || p(x + r)) at r = 0, which is J^T (diag p - p p^T) J.

    One forward pass with a tangent gives J d, one backward pass the rest, so there is no ``xi`` to tune and no
    cancellation in float32. Valid in the second-order regime only.

    Args:
        logits_of: maps inputs (B, ...) to logits (B, C); the same function for every call (same masks).
        x: inputs (B, ...).
        iterations: number of power steps, K.
        generator: CPU generator of the random start.

    Returns:
        Directions of norm 1, like ``x`` in at least float32, detached.
    """
    x = full_precision(x.detach())
    d = random_direction(x, generator)
    for _ in range(iterations):
        base = x.detach().requires_grad_()
        with torch.enable_grad(), forward_ad.dual_level():
            logits, moved = forward_ad.unpack_dual(logits_of(forward_ad.make_dual(base, d)))
            p = logits.detach().softmax(dim=1)
            moved = moved.detach()
            weight = p * (moved - (p * moved).sum(dim=1, keepdim=True))
            (gradient,) = torch.autograd.grad((logits * weight).sum(), base)
        d = unit(gradient, fallback=d)
    return d
