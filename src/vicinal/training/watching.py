"""Looking at a network while it is trained, at chosen steps, without leaving a trace in the training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import nn


class Watch(Callback):
    """Calls a function with a copy of the evaluated network at some steps.

    The copy is in eval mode on the CPU, so that what is done with it changes nothing; the function must draw from
    generators of its own.

    Args:
        look: called with the number of steps done and the copy.
        steps: when; 0 is before the first step.
    """

    def __init__(self, look: Callable[[int, nn.Module], None], steps: Collection[int]) -> None:
        self.look = look
        self.steps = frozenset(steps)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.global_step == 0:
            self._look(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        self._look(trainer, pl_module)

    def _look(self, trainer: Trainer, module: Any) -> None:
        if trainer.global_step in self.steps:
            self.look(trainer.global_step, copy.deepcopy(module.evaluated).cpu().eval())
