"""Neighbours between examples: convex combinations of a batch with a permutation of itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vicinal.settings import check
from vicinal.vicinity.adversary import full_precision

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


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """p_c^(1/T) / sum_k p_k^(1/T), row by row: T = 1 gives p itself, T -> 0 its most probable class.

    From logarithms, relative to each row's largest: no power underflows, whatever the type of ``p``, and classes of
    probability 0 keep it. Classes that tie stay tied.

    Args:
        p: probabilities (B, C).
        temperature: T > 0.

    Raises:
        InputError: a temperature that is not positive.

    Source: Berthelot et al. 2019 (MixMatch).

    >>> sharpen(torch.tensor([[0.6, 0.3, 0.1]]), 0.5)
    tensor([[0.7826, 0.1957, 0.0217]])
    """
    check("temperature", temperature, above=0)
    log_p = full_precision(p).log()
    return ((log_p - log_p.amax(dim=1, keepdim=True)) / temperature).softmax(dim=1).to(p.dtype)


def interleave(sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """As many blocks of rows as there are groups of rows, each block with a share of every group.

    MixMatch runs the blocks through the network one after the other and lets the first alone move running statistics,
    so these describe labelled and unlabelled rows alike. Each group is cut into as many parts as there are groups, the
    last parts one row larger where that does not come out even. Block 0 takes part k of group k, for every k; group
    k's place for it in block k goes to part k of group 0. Groups of equal sizes give blocks of that size, and the order
    of all rows is then its own inverse.

    Args:
        sizes: number of rows of each group, which follow each other.

    Returns:
        Row numbers, int64, of each block; together every row once.

    Source: Berthelot et al. 2019 (MixMatch), official code; for groups of different sizes our reading.

    >>> [block.tolist() for block in interleave([2, 2])]
    [[0, 3], [2, 1]]
    """
    count = len(sizes)
    parts = [
        list(rows.split([len(rows) // count + (k >= count - len(rows) % count) for k in range(count)]))
        for rows in torch.arange(sum(sizes)).split(list(sizes))
    ]
    for k in range(1, count):
        parts[0][k], parts[k][k] = parts[k][k], parts[0][k]
    return tuple(torch.cat(block) for block in parts)
