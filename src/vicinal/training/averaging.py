"""Averages of the student's weights that teach nothing: they only decide what is evaluated."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vicinal.data import Rows
from vicinal.networks import MeanOnlyBatchNorm, run
from vicinal.randomness import generator, seed_global, seed_of
from vicinal.settings import check
from vicinal.training.teacher import Teacher, TeacherSettings


@dataclass(frozen=True, kw_only=True)
class AveragingSettings:
    """Which average of the student's weights is evaluated in its place (and in the teacher's).

    Args:
        kind: "none"; "ema", an exponential moving average (MixMatch, FixMatch, SNTG, CT-GAN); or "swa", the equally
            weighted mean of snapshots. Snapshots at the ends of the learning rate's cycles are stochastic weight
            averaging, several in each cycle are fast-SWA (Athiwaratkun et al. 2019).
        decay: the moving average's decay, in [0,1].
        warm_up: whether the moving average starts as the plain mean of all states so far, see the teacher's.
        buffers: running statistics beside the moving average: averaged too ("average"; MixMatch's PyTorch port), or the
            student's ("copy"; its official code), which do not fit while the average still lags behind.
        start: share of the training after which the first snapshot is taken (fast-SWA, CIFAR-10: 150 of 1200 epochs).
        every: share of the training between snapshots (fast-SWA: 3 of 1200 epochs).
        refresh: passes over augmented training batches that renew the running statistics of the mean of snapshots
            before it is measured (fast-SWA's code: 101, at the network's own momentum).
    """

    kind: Literal["none", "ema", "swa"] = "none"
    decay: float = 0.999
    warm_up: bool = True
    buffers: Literal["copy", "average"] = "average"
    start: float = 0.125
    every: float = 0.0025
    refresh: int = 101

    def __post_init__(self) -> None:
        for name in ("decay", "start"):
            check(name, getattr(self, name), low=0, high=1)
        check("every", self.every, above=0, high=1)
        check("refresh", self.refresh, low=0)

    def average(self, student: nn.Module) -> Teacher | SnapshotAverage | None:
        """The average of this student's weights, or None."""
        if self.kind == "none":
            return None
        if self.kind == "swa":
            return SnapshotAverage(student)
        return Teacher(student, TeacherSettings(decay=self.decay, warm_up=self.warm_up, buffers=self.buffers))

    def is_due(self, done: int, steps: int) -> bool:
        """Whether a snapshot is taken after ``done`` of ``steps`` steps: at ``start``, every ``every``, and at the end.

        >>> settings = AveragingSettings(kind="swa", start=0.5, every=0.25)
        >>> [done for done in range(1, 9) if settings.is_due(done, 8)]
        [4, 6, 8]
        """
        first, interval = max(round(self.start * steps), 1), max(round(self.every * steps), 1)
        return done >= first and ((done - first) % interval == 0 or done == steps)


class SnapshotAverage(nn.Module):
    """The mean of snapshots of a network: parameters exactly, running statistics until they are renewed from the last.

    Args:
        student: a network of the structure to average.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.updates = 0
        self.stale = False

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Take one snapshot more: mean_n = mean_{n-1} + (student - mean_{n-1}) / n; buffers are copied."""
        self.updates += 1
        for mean, parameter in zip(self.network.parameters(), student.parameters(), strict=True):
            mean.lerp_(parameter.detach(), 1 / self.updates)
        for copied, buffer in zip(self.network.buffers(), student.buffers(), strict=True):
            copied.copy_(buffer)
        self.stale = any(isinstance(module, (_BatchNorm, MeanOnlyBatchNorm)) for module in self.network.modules())

    @torch.no_grad()
    def renew_statistics(
        self,
        pool: Rows,
        view: Callable[[Tensor, torch.Generator], Tensor],
        *,
        count: int,
        passes: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Renew running statistics by training passes of the mean network, at its own momentum; weights stay.

        Args:
            pool: training inputs.
            view: an augmented view of a batch of them, from draws.
            count: size of a batch, drawn without replacement; at most the size of the pool.
            passes: number of batches.
            seed: with the number of snapshots it names every draw: rows, views, dropout.
            device: where the network is.
        """
        for k in range(passes):
            place = ("renewed statistics", self.updates, k)
            draws = generator(seed, *place)
            x = pool[torch.randperm(len(pool), generator=draws)[:count]].to(device)
            seed_global(seed_of(seed, *place), x.device)
            run(self.network, view(x, draws))
        self.stale = False

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the mean network."""
        return cast(Tensor, self.network(x))

    def get_extra_state(self) -> dict[str, int]:
        """The number of snapshots, and whether running statistics wait to be renewed; saved with the weights."""
        return {"updates": self.updates, "stale": int(self.stale)}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take up counting where the saved average stood."""
        self.updates, self.stale = state["updates"], bool(state["stale"])
