"""The progress bar of a training."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Rate:
    """Examples per second between two looks at the step."""

    def __init__(self) -> None:
        self._count = 0
        self._step = 0
        self._time = 0.0

    def start(self, trainer: Trainer, module: Any) -> None:
        """Begin at the trainer's step."""
        settings = module.training_settings
        self._count = settings.batch_labelled + (settings.batch_unlabelled if module.method.needs.views else 0)
        self._step, self._time = trainer.global_step, time.perf_counter()

    def since_last(self, step: int) -> float:
        """Labelled and unlabelled examples per second since the last call, or since the start."""
        now = time.perf_counter()
        rate = self._count * (step - self._step) / max(now - self._time, 1e-9)
        self._step, self._time = step, now
        return rate


class ProgressBar(Callback):
    """Steps done, loss terms, validation accuracy, examples per second and time left; lines where there is no terminal.

    Args:
        title: what is trained.
        steps: number of steps.
        every: seconds between lines; the bar moves ten times a second.
    """

    def __init__(self, title: str, steps: int, *, every: float = 10.0) -> None:
        self.title = title
        self.steps = steps
        self.every = every
        self._bar: Any = None
        self._task: Any = None
        self._text = ""
        self._validation: list[str] = []
        self._rate = Rate()
        self._shown = 0.0
        self._first = (0, 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._rate.start(trainer, pl_module)
        self._shown = time.perf_counter()
        self._first = (trainer.global_step, self._shown)
        console = Console(stderr=True)
        if trainer.is_global_zero and console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=console)
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.steps, completed=trainer.global_step, text="")

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if pl_module.logged:
            hidden = ("_weight", "learning_rate")
            terms = [f"{name} {value:.3g}" for name, value in pl_module.logged.items() if not name.endswith(hidden)]
            rate = f"{self._rate.since_last(trainer.global_step):.0f} img/s"
            self._text = " ".join([*terms, *self._validation, rate])
        now = time.perf_counter()
        # Drawing costs as much as a step of a small network.
        if now - self._shown >= (0.1 if self._bar is not None else self.every):
            self._shown = now
            self._show(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        error = float(trainer.callback_metrics["validation_error"])
        told = f"accuracy {1 - error:.1%}" if pl_module.method.trains == "classifier" else f"error {error:.3g}"
        self._validation = [f"validation {told}"]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._show(trainer)
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _show(self, trainer: Trainer) -> None:
        step = trainer.global_step
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=self._text)
        elif trainer.is_global_zero:
            first, started = self._first
            left = (time.perf_counter() - started) / max(step - first, 1) * (self.steps - step)
            print(
                f"{self.title}: step {step} of {self.steps}, {self._text}, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
