"""The averaged teacher of Mean Teacher, ICT and AdvMixup."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from vicinal.networks import EVAL, FROZEN_STATS, TRAIN, PassPolicy
from vicinal.settings import check


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """How the teacher follows the student.

    Args:
        decay: the average's decay, in [0,1]; 0 makes the teacher the student.
        warm_up: use min(1 - 1/(k+1), decay) at the k-th update, k from 1 (the PyTorch codes of Mean Teacher, ICT and
            AdvMixup), which is the plain mean of all states so far until the cap.
        buffers: batch norm statistics. "own": the teacher gathers them from its own training-mode passes (published);
            "copy": the student's; "average": averaged like the parameters.
        mode: mode of the teacher's passes while it teaches: "train" (published: batch statistics, dropout active) or
            "eval".
        init: "student": a copy; "independent": a random initialisation of its own, which keeps weight 1/(k+1)
            after k updates (the published PyTorch codes).
    """

    decay: float = 0.999
    warm_up: bool = True
    buffers: Literal["own", "copy", "average"] = "own"
    mode: Literal["train", "eval"] = "train"
    init: Literal["student", "independent"] = "student"

    def __post_init__(self) -> None:
        check("decay", self.decay, low=0, high=1)

    @property
    def policy(self) -> PassPolicy:
        """Pass policy of the teacher's passes."""
        if self.mode == "eval":
            return EVAL
        return TRAIN if self.buffers == "own" else FROZEN_STATS


class Teacher(nn.Module):
    """An exponential moving average of a network: theta'_k = a_k theta'_{k-1} + (1 - a_k) theta_k.

    Args:
        student: the network to follow; the teacher starts as a copy of it, or of ``initial`` if given.
        settings: decay, buffers, mode.
        initial: a network of the same structure whose weights to start from.
    """

    def __init__(self, student: nn.Module, settings: TeacherSettings, initial: nn.Module | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.network = copy.deepcopy(initial if initial is not None else student).requires_grad_(False)
        self.updates = 0

    def decay(self, update: int) -> float:
        """a_k of the k-th update, k from 1.

        >>> teacher = Teacher(nn.Linear(1, 1), TeacherSettings(decay=0.7))
        >>> [round(teacher.decay(k), 3) for k in (1, 2, 3)]
        [0.5, 0.667, 0.7]
        """
        cap = self.settings.decay
        return min(1 - 1 / (update + 1), cap) if self.settings.warm_up else cap

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Follow the student by one step; call it after the optimiser's."""
        self.updates += 1
        weight = 1 - self.decay(self.updates)
        _lerp(list(self.network.parameters()), list(student.parameters()), weight)
        if self.settings.buffers == "own":
            return
        pairs = list(zip(self.network.buffers(), student.buffers(), strict=True))
        if self.settings.buffers == "average":
            floating = [(own, other) for own, other in pairs if own.is_floating_point()]
            if floating:
                _lerp([own for own, _ in floating], [other for _, other in floating], weight)
            pairs = [(own, other) for own, other in pairs if not own.is_floating_point()]
        for own, other in pairs:
            own.copy_(other)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the averaged network."""
        return cast(Tensor, self.network(x))

    def get_extra_state(self) -> dict[str, int]:
        """The number of updates, saved with the weights."""
        return {"updates": self.updates}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take up counting where the saved teacher stood."""
        self.updates = state["updates"]


def _lerp(own: list[Tensor], other: list[Tensor], weight: float) -> None:
    # One call for all tensors: a Python loop over a hundred of them costs as much as a small network's forward pass.
    torch._foreach_lerp_(own, [tensor.detach() for tensor in other], weight)
