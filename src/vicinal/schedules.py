"""Ramps and decays as pure functions of the step; nothing here keeps state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

RampName = Literal["none", "linear", "sigmoid"]
DecayName = Literal["constant", "cosine", "linear", "multistep", "cyclic"]


class Progress(NamedTuple):
    """Where training stands.

    Attributes:
        step: index of the current step, from 0.
        steps: number of steps of the whole training.
    """

    step: int
    steps: int

    @property
    def fraction(self) -> float:
        """Share of the training that lies behind, in [0,1)."""
        return self.step / self.steps


def sigmoid_ramp(position: float) -> float:
    """exp(-5 (1 - t)^2) for t in [0,1], 1 after: starts at 0.0067, not at 0 (Laine and Aila 2017).

    >>> round(sigmoid_ramp(0), 4), sigmoid_ramp(1), sigmoid_ramp(7)
    (0.0067, 1.0, 1.0)
    """
    return math.exp(-5 * (1 - min(max(position, 0.0), 1.0)) ** 2)


def linear_ramp(position: float) -> float:
    """The position itself in [0,1], 1 after (MixMatch).

    >>> linear_ramp(0.5)
    0.5
    """
    return min(max(position, 0.0), 1.0)


def ramp(name: RampName, progress: Progress, length: float) -> float:
    """Weight factor in [0,1] that has risen to 1 after a share ``length`` of the training.

    Args:
        name: ``"none"`` is 1 throughout.
        progress: where training stands.
        length: share of the training that the ramp takes, in [0,1]; 0 is no ramp.
    """
    if name == "none" or length == 0:
        return 1.0
    position = progress.step / (length * progress.steps)
    return sigmoid_ramp(position) if name == "sigmoid" else linear_ramp(position)


class Cycle(NamedTuple):
    """The cyclic schedule of fast-SWA, in shares of the training; the defaults are its 1200 epochs' on CIFAR-10.

    Attributes:
        half_period: of the cosine, which would reach 0 there.
        start: where the first descent ends and the cycles begin.
        length: of one cycle; each repeats the stretch of the cosine from ``start - length`` to ``start``.
    """

    half_period: float = 210 / 1200
    start: float = 180 / 1200
    length: float = 30 / 1200

    def factor(self, t: float) -> float:
        """Learning-rate factor at a share ``t`` of the training.

        >>> cycle = Cycle()
        >>> [round(0.1 * cycle.factor(epoch / 1200), 4) for epoch in (0, 150, 179.999, 180, 209.999, 210)]
        [0.1, 0.0188, 0.005, 0.0188, 0.005, 0.0188]
        """
        cycles = (t - self.start) / self.length
        if cycles > -1e-9:  # so that rounding does not move a cycle's beginning to its end
            t = self.start - self.length * (1 - max(cycles - math.floor(cycles + 1e-9), 0.0))
        return 0.5 * (1 + math.cos(math.pi * min(t / self.half_period, 1.0)))


def decay(
    name: DecayName, *, steps: int, full: float = 1.0, warmup: int = 0, cycle: Cycle | None = None
) -> Callable[[int], float]:
    """Learning-rate factor as a function of the step.

    Args:
        name: ``"cosine"`` is (1 + cos(pi t / full)) / 2 and reaches 0 at t = ``full`` (ICT's published schedule stops
            at t = 1 with full = 450/400); ``"linear"`` falls to 0 at t = ``full``; ``"multistep"`` divides by ten at
            half and at three quarters of the training; ``"cyclic"`` is a cosine whose end is repeated; ``"constant"``
            is 1.
        steps: number of steps of the whole training.
        full: where cosine and linear reach 0, as a multiple of the training's length, at least 1.
        warmup: number of first steps over which the factor rises linearly from near 0.
        cycle: the cyclic schedule's times.

    >>> factor = decay("cosine", steps=400, full=450 / 400)
    >>> round(0.1 * factor(400), 4)
    0.003
    """

    def factor(step: int) -> float:
        t = step / steps
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        if name == "cosine":
            return rise * 0.5 * (1 + math.cos(math.pi * min(t / full, 1.0)))
        if name == "linear":
            return rise * max(0.0, 1 - t / full)
        if name == "cyclic":
            return rise * (cycle or Cycle()).factor(t)
        if name == "multistep":
            return rise * (1.0 if t < 0.5 else 0.1 if t < 0.75 else 0.01)
        return rise

    return factor
