"""Kinks of a function that no layer gives away: jumps of its gradient along chords between examples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vicinal.randomness import generator
from vicinal.theory.exact import traced
from vicinal.theory.trained import Trained

CHORDS = 32
"""Chords that are looked along, at most, our choice."""
POINTS = 32
"""Intervals of each chord at first, our choice."""
HALVINGS = 24
"""Of the interval that is looked into, our choice; float64 still tells its ends apart."""


class Jumps(NamedTuple):
    """What was found along the chords.

    Attributes:
        chords: how many were looked along.
        jumping: those on which the gradient jumps.
        largest: jump, over the largest gradient on any chord.
    """

    chords: int
    jumping: int
    largest: float


def jumps(model: Trained, *, tolerance: float = 1e-6) -> Jumps:
    """Look for jumps of the gradient on chords from examples to the next ones.

    On each chord the two neighbouring intervals with the largest second difference of the gradient are halved again and
    again, towards the half over which the gradient changes more. Where it is continuous its change shrinks with the
    interval, some 4000-fold in the second half of the halvings; a jump stays as it is. Jumps of the second derivative
    alone, and kinks that no chord crosses, are not seen.

    Args:
        model: network and sample.
        tolerance: jump, over the largest gradient, up to which it counts as rounding.

    Raises:
        InputError: no gradient reaches the inputs.
    """
    start, end = model.x[:CHORDS], model.x.roll(-1, dims=0)[:CHORDS]
    # One random combination of the logits: whatever kink one of them has is in it.
    weight = torch.randn(model.classes, generator=generator(0, "theory kinks"), dtype=torch.float64)

    def gradient(t: Tensor) -> Tensor:
        """By the inputs at the shares t (m,) of their chords, (m, d)."""
        share = t.view(-1, *[1] * (start.dim() - 1))
        at, z = traced(model.logits, start + share * (end - start))
        (found,) = torch.autograd.grad((z @ weight).sum(), at)
        slopes: Tensor = found.flatten(1)
        return slopes

    def change(low: Tensor, high: Tensor) -> Tensor:
        apart: Tensor = (high - low).norm(dim=1)
        return apart

    largest, seconds = start.new_zeros(()), []
    before: list[Tensor] = []
    for step in range(POINTS + 1):
        now = gradient(start.new_full((len(start),), step / POINTS))
        largest = torch.maximum(largest, now.norm(dim=1).max())
        if len(before) == 2:
            seconds.append((now - 2 * before[1] + before[0]).norm(dim=1))
        before = [*before[-1:], now]
    low = torch.stack(seconds).argmax(dim=0).to(start) / POINTS
    high = low + 2 / POINTS
    at_low, at_high = gradient(low), gradient(high)
    halfway = change(at_low, at_high)
    for step in range(HALVINGS):
        middle = (low + high) / 2
        at_middle = gradient(middle)
        left = change(at_low, at_middle) >= change(at_middle, at_high)
        low, high = torch.where(left, low, middle), torch.where(left, middle, high)
        at_low = torch.where(left[:, None], at_low, at_middle)
        at_high = torch.where(left[:, None], at_middle, at_high)
        if step == HALVINGS // 2 - 1:
            halfway = change(at_low, at_high)
    left_over = change(at_low, at_high)
    jumping = (left_over > tolerance * largest) & (left_over > halfway / 2)
    share = float((left_over * jumping).max() / largest.clamp(min=torch.finfo(largest.dtype).tiny))
    return Jumps(len(start), int(jumping.sum()), share)
