"""Neighbours between examples: convex combinations of a batch with a permutation of itself."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

PerName = Literal["batch", "sample"]


class Mixing(NamedTuple):
    """How a batch is mixed: x_i becomes lam_i x_i + (1 - lam_i) x_partner(i). Inputs and labels share it.

    Attributes:
        lam: coefficients in [0,1], float32 (B,); equal entries if drawn per batch.
        partner: a permutation of 0..B-1, int64 (B,).
    """

    lam: Tensor
    partner: Tensor


def draw_beta(alpha: float, count: int, generator: torch.Generator) -> Tensor:
    """Draws from Beta(alpha, alpha), float64 (count,), by inverting its distribution function.

    ``torch.distributions`` takes no generator; the inverse does, and it stays exact for the small alpha that ICT uses.
    """
    from scipy.special import betaincinv

    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    return torch.from_numpy(betaincinv(alpha, alpha, uniform.numpy()))


def draw_mixing(
    count: int,
    alpha: float,
    generator: torch.Generator,
    *,
    per: PerName = "batch",
    fold: bool = False,
    device: torch.device | str = "cpu",
) -> Mixing:
    """Draw lambda ~ Beta(alpha, alpha) and a uniformly random partner for each of ``count`` examples.

    Args:
        count: B.
        alpha: Beta parameter, > 0.
        generator: CPU generator of the draws.
        per: one lambda for the batch (mixup, ICT and AdvMixup's code) or one per sample.
        fold: replace lambda by max(lambda, 1 - lambda) (MixMatch), so that the first part dominates.
        device: where the result is wanted.
    """
    lam = draw_beta(alpha, 1 if per == "batch" else count, generator).expand(count)
    if fold:
        lam = torch.maximum(lam, 1 - lam)
    partner = torch.randperm(count, generator=generator)
    # Not blocking: on a GPU the step goes on without waiting for the copy.
    return Mixing(lam.to(device, torch.float32, non_blocking=True), partner.to(device, non_blocking=True))


def mix(first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
    """Convex combinations lam * first + (1 - lam) * second, row by row.

    Args:
        first: (B, ...).
        second: like ``first``, already in its partners' order.
        lam: (B,) in [0,1]; exactly 1 gives ``first`` and exactly 0 ``second``, bit for bit.

    >>> mix(torch.tensor([[2.0]]), torch.tensor([[6.0]]), torch.tensor([0.25]))
    tensor([[5.]])
    """
    lam = lam.to(first.dtype).view(-1, *[1] * (first.dim() - 1))
    return lam * first + (1 - lam) * second
