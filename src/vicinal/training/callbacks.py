"""What watches a training: checkpoints to resume from, the metrics file, the progress bar."""

from __future__ import annotations

import csv
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from vicinal.errors import InputError


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal, after its state was saved."""


class Checkpoints(Callback):
    """Saves ``last.ckpt`` every so often and ``best.ckpt`` (weights alone) at each new lowest validation error.

    State is saved between steps only, after the teacher's update and after the validation that falls on the step, so a run
    resumed from it goes on exactly as the uninterrupted one. SIGINT and SIGTERM save before they stop.

    Args:
        folder: where the checkpoints go.
        every: steps between saves of ``last.ckpt``.
        validate_every: steps between validations, or None without validation data.
    """

    def __init__(self, folder: Path, *, every: int, validate_every: int | None) -> None:
        self.folder = folder
        self.every = every
        self.validate_every = validate_every
        self.best_error: float | None = None
        self.best_step: int | None = None
        self.seconds = 0.0
        self._started = 0.0
        self._stopping = False
        self._handlers: dict[int, Any] = {}

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, over all resumed parts."""
        return self.seconds + (time.perf_counter() - self._started if self._started else 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {"best_error": self.best_error, "best_step": self.best_step, "seconds": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_error, self.best_step = state_dict["best_error"], state_dict["best_step"]
        self.seconds = state_dict["seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._stop)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)
        self._leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._leave()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if self.validate_every is None or trainer.global_step % self.validate_every:
            self._boundary(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        error = float(trainer.callback_metrics["validation_error"])
        if self.best_error is None or error < self.best_error:
            self.best_error, self.best_step = error, trainer.global_step
            trainer.save_checkpoint(self.folder / "best.ckpt", weights_only=True)
        self._boundary(trainer)

    def _boundary(self, trainer: Trainer) -> None:
        if self._stopping or trainer.global_step % self.every == 0:
            self._save(trainer)
        if self._stopping:
            raise Interrupted

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.folder / "last.ckpt")

    def _stop(self, number: int, frame: object) -> None:
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True

    def _leave(self) -> None:
        self.seconds, self._started = self.elapsed, 0.0
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()


class MetricsFile(Callback):
    """Appends a row to a CSV file every ``log_every`` steps and at each validation; a resumed run drops rows it redoes.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] = []
        self._clock = (0, 0.0)
        self._count = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._clock = (trainer.global_step, time.perf_counter())
        settings: Any = pl_module.training_settings
        self._count = settings.batch_labelled + (settings.batch_unlabelled if pl_module.method.needs.views else 0)  # type: ignore[union-attr]
        if self.path.exists() and trainer.is_global_zero:
            try:
                with self.path.open(newline="", encoding="utf-8") as file:
                    rows = list(csv.DictReader(file))
                kept = [row for row in rows if int(row["step"]) <= trainer.global_step]
            except (KeyError, ValueError, TypeError) as error:
                raise InputError(f"{self.path}: not a metrics file of this library; move it away") from error
            if rows:
                self._columns = list(rows[0])
                with self.path.open("w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, self._columns)
                    writer.writeheader()
                    writer.writerows(kept)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if pl_module.logged:
            step, now = trainer.global_step, time.perf_counter()
            since, then = self._clock
            rate = self._count * (step - since) / (now - then)
            self._clock = (step, now)
            learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
            self._append(trainer, pl_module, {**pl_module.logged, "learning_rate": learning_rate, "images_per_second": round(rate, 1)})
            for logger in trainer.loggers:
                logger.log_metrics({**pl_module.logged, "learning_rate": learning_rate}, step=step)
            pl_module.logged = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._append(trainer, pl_module, {name: float(value) for name, value in trainer.callback_metrics.items()})

    def _append(self, trainer: Trainer, pl_module: Any, values: dict[str, float]) -> None:
        if not trainer.is_global_zero:
            return
        new = not self._columns
        if new:
            validation = ["validation_error", "validation_error_student", "validation_error_teacher"]
            self._columns = ["step", *values, *(name for name in validation if name not in values)]
        with self.path.open("w" if new else "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            if new:
                writer.writeheader()
            writer.writerow({"step": trainer.global_step, **{name: values[name] for name in values if name in self._columns}})


class ProgressBar(Callback):
    """Steps done, loss terms, validation error, images per second and time left; plain lines where there is no terminal.

    Args:
        title: what is trained.
        steps: number of steps.
    """

    def __init__(self, title: str, steps: int) -> None:
        self.title = title
        self.steps = steps
        self._bar: Any = None
        self._task: Any = None
        self._text = ""
        self._validation = ""
        self._clock = (0, 0.0)
        self._printed = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._clock = (trainer.global_step, time.perf_counter())
        self._printed = time.perf_counter()
        console = Console(stderr=True)
        if trainer.is_global_zero and console.is_terminal:
            columns = (
                TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=console)
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.steps, completed=trainer.global_step, text="")

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if pl_module.logged:
            self._text = self._describe(trainer, pl_module)
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, text=self._text)
        elif trainer.is_global_zero and time.perf_counter() - self._printed > 10:
            self._printed = time.perf_counter()
            print(f"{self.title}: step {trainer.global_step} of {self.steps}, {self._text}", file=sys.stderr, flush=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        accuracy = 1 - float(trainer.callback_metrics["validation_error"])
        self._validation = f" validation accuracy {accuracy:.1%}"

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _describe(self, trainer: Trainer, pl_module: Any) -> str:
        logged, settings = pl_module.logged, pl_module.training_settings
        terms = " ".join(f"{name} {value:.3g}" for name, value in logged.items() if not name.endswith("_weight"))
        count = settings.batch_labelled + (settings.batch_unlabelled if pl_module.method.needs.views else 0)
        since, then = self._clock
        now = time.perf_counter()
        rate = count * (trainer.global_step - since) / max(now - then, 1e-9)
        self._clock = (trainer.global_step, now)
        return f"{terms}{self._validation} {rate:.0f} img/s"

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
