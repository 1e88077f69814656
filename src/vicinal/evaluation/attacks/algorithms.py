"""The attacks: single gradient steps, projected gradient ascent, the same with momentum, and with adapted steps.

Each is a value with its settings. Called on a network and batches it gives the error at its radius, with the network's
own gradients in data space; `robustness` and `perturb` take it where more is asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.evaluation.attacks.search import Bounds, CountName, Rows
from vicinal.evaluation.attacks.tables import AttackFigures, robustness
from vicinal.settings import check
from vicinal.vicinity.projected import NormName, check_bounds, check_norm, project, steepest


@dataclass(frozen=True, kw_only=True)
class GradientAttack(ABC):
    """What all attacks have in common.

    Args:
        norm: of the ball: ``"linf"``, or ``"l2"`` over all entries of an input.
        epsilon: radius, >= 0, in units of the inputs: of pixels in [0,1] for images, whose preprocessing is in the
            network. With 0 nothing is attacked.
        steps: gradient steps, >= 1.
        restarts: attempts from different random starts, >= 1.
        random_start: start uniformly in the ball, or at the input itself.
        bounds: smallest and largest value an input may take, (0, 1) for images; None for data without bounds. They
            hold in data space alone.

    Raises:
        InputError: a setting is out of range.
    """

    norm: NormName
    epsilon: float
    steps: int = 20
    restarts: int = 1
    random_start: bool = True
    bounds: Bounds = (0.0, 1.0)

    count: ClassVar[CountName] = "visited"
    keeps_best: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_norm(self.norm)
        check_bounds(self.bounds)
        check("epsilon", self.epsilon, low=0)
        check("steps", self.steps, low=1)
        check("restarts", self.restarts, low=1)
        if self.restarts > 1 and not self.random_start:
            raise InputError("restarts: without random starts they are all alike; set random_start or restarts=1")

    def __call__(self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], seed: int) -> AttackFigures:
        """Error in eval mode with and without the attack; parameters, ``.grad``, flags and buffers stay as they were.

        Args:
            network: from inputs in data space to logits (B, C), C >= 2.
            batches: inputs and true classes, int64 (B,); the numbering of batches is part of the random starts.
            seed: of the random starts.

        Raises:
            InputError: there are no examples, inputs lie outside of ``bounds``, or no gradient reaches them.
        """
        table = robustness(network, batches, self, epsilons=(self.epsilon,), seed=seed)
        return AttackFigures(table.n, table.clean_error, table.errors[self.epsilon])

    def observe(self, rows: Rows, step: int) -> None:  # noqa: B027
        """Take note of the value at the point after so many steps."""

    @abstractmethod
    def advance(self, rows: Rows, step: int, bounds: Bounds) -> None:
        """Move ``rows["point"]`` by one step, inside the ball and the bounds."""

    def inside(self, x: Tensor, moved: Tensor, bounds: Bounds) -> Tensor:
        """Points brought back into the ball around ``x`` and the bounds, like ``x``."""
        return project(x, moved, self.norm, self.epsilon, bounds)


@dataclass(frozen=True, kw_only=True)
class FGM(GradientAttack):
    """Fast gradient method: one step of length epsilon along the gradient, x + epsilon g / ||g||_2.

    The loss is that of the true class, all examples are perturbed, also those that are wrong as they are, and the error
    is that of the perturbed ones. For tables like AdvMixup's give ``space="input"`` to `robustness`: then radii are in
    units of the preprocessed input and nothing is clipped.

    A figure after one step says little: a network can hide from single steps. Read it beside one after many steps.

    Source: the L2 form of Goodfellow et al. 2015. The counting is that of AdvMixup's code; that its table was made so
    is our reading.
    """

    norm: NormName = field(default="l2", init=False)
    steps: int = field(default=1, init=False)
    restarts: int = field(default=1, init=False)
    random_start: bool = field(default=False, init=False)

    count: ClassVar[CountName] = "last"

    def advance(self, rows: Rows, step: int, bounds: Bounds) -> None:
        moved = rows["point"] + self.epsilon * steepest(rows["gradient"], self.norm)
        rows["point"] = self.inside(rows["x"], moved, bounds)


@dataclass(frozen=True, kw_only=True)
class FGSM(FGM):
    """Fast gradient sign method: one step in Linf, x + epsilon sign(g), counted like `FGM`.

    Source: Goodfellow et al. 2015.
    """

    norm: NormName = field(default="linf", init=False)


@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Projected gradient ascent on the cross-entropy of the true class, with restarts.

    Inputs that are fooled leave the batch, so later steps and restarts cost only what is left; with the same seed and
    step size, more steps or restarts can therefore never lower the error.

    Args:
        step_size: length of a step, > 0, in the same norm and units; None for 2.5 epsilon / steps.

    Source: Madry et al. 2018. That every visited point counts is our choice.

    >>> network, batch = nn.Linear(1, 2, bias=False), (torch.tensor([[0.1], [0.5]]), torch.tensor([1, 1]))
    >>> network.weight.data = torch.tensor([[-1.0], [1.0]])
    >>> PGD(norm="linf", epsilon=0.2, bounds=None)(network, [batch], seed=0)
    AttackFigures(n=2, clean_error=0.0, error=0.5)
    """

    step_size: float | None = None

    travel: ClassVar[float] = 2.5
    """How many radii all steps together are long by default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size is not None:
            check("step_size", self.step_size, above=0)

    @property
    def length(self) -> float:
        """Length of a step."""
        return self.travel * self.epsilon / self.steps if self.step_size is None else self.step_size

    def advance(self, rows: Rows, step: int, bounds: Bounds) -> None:
        moved = rows["point"] + self.length * steepest(rows["gradient"], self.norm)
        rows["point"] = self.inside(rows["x"], moved, bounds)


@dataclass(frozen=True, kw_only=True)
class MomentumPGD(PGD):
    """Projected gradient ascent along a velocity v <- momentum v + g / ||g||_1, meant to transfer better.

    The step is along the steepest direction of v: its sign for Linf, v / ||v||_2 for L2.

    Args:
        momentum: share of the velocity that is kept, in [0,1].
        random_start: start uniformly in the ball, or at the input itself, as the paper does.
        step_size: length of a step, > 0; None for epsilon / steps, the paper's.

    Source: Dong et al. 2018 (MI-FGSM). That every visited point counts is our choice.
    """

    momentum: float = 1.0
    random_start: bool = False

    travel: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check("momentum", self.momentum, low=0, high=1)

    def advance(self, rows: Rows, step: int, bounds: Bounds) -> None:
        velocity = _of_l1_norm_one(rows["gradient"])
        if step:
            velocity = self.momentum * rows["velocity"] + velocity
        moved = rows["point"] + self.length * steepest(velocity, self.norm)
        rows["velocity"], rows["point"] = velocity, self.inside(rows["x"], moved, bounds)


@dataclass(frozen=True, kw_only=True)
class APGD(GradientAttack):
    """Auto-PGD: steps start at 2 epsilon and halve at checkpoints where the ascent does not get on.

    With z the projected gradient step from x_k, the next point is the projection of
    x_k + a (z - x_k) + (1 - a) (x_k - x_{k-1}), a = 1 in the first step. At each checkpoint a sample's step is halved,
    and its ascent goes on from its best point, if fewer than a share ``rho`` of the steps since the last checkpoint
    raised the loss, or if neither step nor best loss changed since then. It ends with the best point.

    Args:
        momentum: a, in (0,1].
        rho: share of steps that must raise the loss, in [0,1].

    Source: Croce and Hein 2020, algorithm 1. Our reading: a checkpoint looks at the point that it is reached with,
    before a step from there is spent; starts are uniform in the ball; the loss is a monotone function of theirs.
    """

    momentum: float = 0.75
    rho: float = 0.75

    keeps_best: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check("momentum", self.momentum, above=0, high=1)
        check("rho", self.rho, low=0, high=1)

    def observe(self, rows: Rows, step: int) -> None:
        if not step:
            rows["best"], rows["best_value"], rows["best_gradient"] = rows["point"], rows["value"], rows["gradient"]
            return
        better = rows["value"] > rows["best_value"]
        for kept, now in (("best", "point"), ("best_value", "value"), ("best_gradient", "gradient")):
            rows[kept] = _where(better, rows[now], rows[kept])

    def advance(self, rows: Rows, step: int, bounds: Bounds) -> None:
        value, weight = rows["value"], self.momentum if step else 1.0
        if step:
            rows["rises"] = rows["rises"] + (value > rows["last_value"])
            self._check(rows, step)
        else:
            rows["previous"], rows["checked_value"] = rows["point"], value
            rows["size"] = torch.full_like(value, 2 * self.epsilon)
            rows["rises"], rows["halved"] = torch.zeros_like(value), torch.zeros_like(value, dtype=torch.bool)
        x, point = rows["x"], rows["point"]
        size = rows["size"].to(x.dtype).view(-1, *[1] * (x.dim() - 1))
        z = self.inside(x, point + size * steepest(rows["gradient"], self.norm), bounds)
        moved = point + weight * (z - point) + (1 - weight) * (point - rows["previous"])
        rows["previous"], rows["last_value"] = point, rows["value"]
        rows["point"] = self.inside(x, moved, bounds) if step else z

    def _check(self, rows: Rows, step: int) -> None:
        """Halve steps and go back to the best points, if ``step`` is a checkpoint."""
        marks = checkpoints(self.steps)
        if step not in marks:
            return
        since = step - max((mark for mark in marks if mark < step), default=0)
        unchanged = ~rows["halved"] & (rows["best_value"] == rows["checked_value"])
        stuck = (rows["rises"] < self.rho * since) | unchanged
        rows["size"] = torch.where(stuck, rows["size"] / 2, rows["size"])
        for now, kept in (("point", "best"), ("value", "best_value"), ("gradient", "best_gradient")):
            rows[now] = _where(stuck, rows[kept], rows[now])
        rows["halved"], rows["checked_value"] = stuck, rows["best_value"]
        rows["rises"] = torch.zeros_like(rows["rises"])


def checkpoints(steps: int) -> tuple[int, ...]:
    """Steps after which Auto-PGD looks back: w_j = ceil(p_j steps), p_1 = 0.22, gaps shrinking by 0.03 down to 0.06.

    >>> checkpoints(100)
    (22, 41, 57, 70, 80, 87, 93, 99)
    """
    # In hundredths, which are whole numbers: in floats 0.41 * 100 could round to more than 41.
    last, now, found = 0, 22, []
    while now <= 100:
        found.append(-(-now * steps // 100))
        last, now = now, now + max(now - last - 3, 6)
    return tuple(found)


def _of_l1_norm_one(gradient: Tensor) -> Tensor:
    """Each row over its L1 norm; zero where that is zero or not finite."""
    rows = gradient.flatten(1)
    largest = rows.abs().amax(dim=1, keepdim=True)
    usable = (largest > 0) & torch.isfinite(largest)
    rows = torch.where(usable, rows / torch.where(usable, largest, 1), 0)  # first, or the sum could underflow
    return (rows / torch.where(usable, rows.abs().sum(dim=1, keepdim=True), 1)).view_as(gradient)


def _where(chosen: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """`torch.where` by row, (B, ...)."""
    return torch.where(chosen.view(-1, *[1] * (yes.dim() - 1)), yes, no)
