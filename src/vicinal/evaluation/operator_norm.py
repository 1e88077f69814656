"""The spectral norm of a linear map that is given as a function, from above: ||A||_2 and the longest column.

The norm comes from k Lanczos steps on B = A^T A from a random direction x. As in power iteration, what they find is a
lower estimate of it that converges; but how far below the norm it can be is known. If the estimate of the largest
eigenvalue l of B is below t = (1 - e) l, then sum_i c_i^2 p(l_i)^2 (l_i - t) < 0 for every polynomial p of degree
k - 1, with c_i the components of x along the eigenvectors. Take for p(z) Chebyshev's T(2 z / t - 1), which is at most
1 below t: the component along the top eigenvector is then c^2 < (1 - e) / (e T((1 + e) / (1 - e))^2). In n dimensions
|c| < s has probability s sqrt(2 n / pi) at most. So there is a number of steps that is enough for a margin, at a stated
probability and whatever the gaps between the eigenvalues.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vicinal.vicinity import random_direction

FAILURE = 1e-9
"""Probability that a map's norm lies above what is given for it: small enough to add up over hundreds of maps."""

# Relative; float64 loses some 1e-13 in the largest maps.
_ROUNDING = 1e-9
# Columns are found one by one; maps of more inputs take their norm instead, which is never smaller.
_MOST_COLUMNS = 4096


def operator_norm(
    affine: Callable[[Tensor], Tensor], x: Tensor, *, tolerance: float, generator: torch.Generator
) -> float:
    """||A||_2 of x -> A x + b from above: at most (1 + tolerance) times too large, and exact for small maps.

    Args:
        affine: the map, from (1, ...) to (1, ...), of operations that autograd knows.
        x: float64 zeros of the shape of one input, (1, ...).
        tolerance: relative, > 0. Half of it costs sqrt(2) times as much.
        generator: CPU generator of the random start.

    Returns:
        A number below the norm with probability `FAILURE` at most.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        offset = affine(x)

    def squared(v: Tensor) -> Tensor:
        with torch.no_grad():
            image = affine(v.view_as(x)) - offset
        (back,) = torch.autograd.grad(offset, x, image, retain_graph=True)
        return back.flatten()

    start = random_direction(x.detach(), generator).flatten()
    top, exhausted = _largest_ritz_value(squared, start, min(_steps(x.numel(), tolerance), x.numel()))
    return math.sqrt(max(top, 0.0)) * (1 + (_ROUNDING if exhausted else tolerance))


def longest_column(affine: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """max_k ||A e_k||_2 of x -> A x + b; infinity where there are too many columns, or a length is no number.

    Args:
        affine: the map, from (B, ...) to (B, ...), rows independent of each other.
        x: float64 zeros of the shape of one input, (1, ...).
    """
    if x.numel() > _MOST_COLUMNS:
        return math.inf
    lengths = []
    with torch.no_grad():
        offset = affine(x)
        for rows in torch.eye(x.numel(), dtype=x.dtype, device=x.device).split(256):
            images = affine(rows.view(-1, *x.shape[1:])) - offset
            lengths.append(images.flatten(1).norm(dim=1).max())
    longest = float(torch.stack(lengths).max())
    return math.inf if math.isnan(longest) else longest * (1 + _ROUNDING)


def _steps(size: int, tolerance: float) -> int:
    """How many are enough in ``size`` dimensions, but for `FAILURE`."""
    e = 1 - (1 + tolerance) ** -2
    wanted = math.sqrt(2 * size / math.pi * (1 - e) / e) / FAILURE
    # T_j((1 + e) / (1 - e)) = cosh(2 j artanh(sqrt(e)))
    return 1 + math.ceil(math.acosh(max(wanted, 1.0)) / (2 * math.atanh(math.sqrt(e))))


def _largest_ritz_value(apply: Callable[[Tensor], Tensor], v: Tensor, steps: int) -> tuple[float, bool]:
    """Of a symmetric map, from the unit vector v; and whether no direction was left that could add to it."""
    basis = v.new_zeros(steps, len(v))
    diagonal: list[float] = []
    beside: list[float] = []
    exhausted = steps == len(v)
    for step in range(steps):
        basis[step] = v
        w = apply(v)
        diagonal.append(float(v @ w))
        if not math.isfinite(diagonal[-1]):
            return math.inf, True  # weights that diverged: nothing is bounded
        so_far = basis[: step + 1]
        for _ in range(2):  # once leaves what cancellation left
            w = w - so_far.T @ (so_far @ w)
        length = float(w.norm())
        if length <= 1e-12 * max(diagonal):
            exhausted = True
            break
        if step + 1 < steps:
            beside.append(length)
            v = w / length
    off = torch.diag(torch.tensor(beside, dtype=torch.float64), 1)
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + off + off.T
    return float(torch.linalg.eigvalsh(tridiagonal)[-1]), exhausted
