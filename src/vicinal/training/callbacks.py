"""What keeps a training: checkpoints to resume from, and the metrics file. The progress bar is in `progress`."""

from __future__ import annotations

import csv
import signal
import threading
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from vicinal.errors import InputError
from vicinal.training.progress import ProgressBar, Rate

__all__ = ["Checkpoints", "Interrupted", "MetricsFile", "ProgressBar", "Stopped"]

_LAST, _BEST = "last.ckpt", "best.ckpt"
_VALIDATION = (
    "validation_error",
    "validation_error_student",
    "validation_error_teacher",
    "validation_error_average",
)


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal, after its state was saved."""


class Stopped(Exception):  # noqa: N818
    """A signal asked for the end of training and the state is saved; `vicinal.training.engine` makes it `Interrupted`.

    It is no KeyboardInterrupt, because Lightning answers one by ending the process.
    """


class Checkpoints(Callback):
    """Saves ``last.ckpt`` every so often and ``best.ckpt`` (weights alone) at each new lowest validation error.

    State is saved between steps only, after the teacher's update and after the validation that falls on the step, so a
    run resumed from it goes on exactly as the uninterrupted one. SIGINT and SIGTERM save before they stop; a second
    signal stops at once. Must be the last callback: what others do at a step belongs to its checkpoint.

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
        self._started: float | None = None
        self._saved_at: int | None = None
        self._stopping = False
        self._distributed = False
        self._handlers: dict[int, Any] = {}

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, over all resumed parts."""
        return self.seconds + (0.0 if self._started is None else time.perf_counter() - self._started)

    def state_dict(self) -> dict[str, Any]:
        return {"best_error": self.best_error, "best_step": self.best_step, "seconds": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_error, self.best_step = state_dict["best_error"], state_dict["best_step"]
        self.seconds = state_dict["seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()
        self._distributed = trainer.world_size > 1
        if trainer.is_global_zero:
            for name in (_LAST, _BEST):  # what a kill in the middle of a save left
                self._partial(name).unlink(missing_ok=True)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._stop)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._saved_at != trainer.global_step:
            self._save_last(trainer)
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
            self._save(trainer, _BEST, weights_only=True)
        self._boundary(trainer)

    def _boundary(self, trainer: Trainer) -> None:
        stopping = self._stopping
        if self._distributed:
            # Signals reach the processes at different steps, and saving needs all of them.
            stopping = trainer.strategy.reduce_boolean_decision(stopping, all=False)
        if stopping or trainer.global_step % self.every == 0:
            self._save_last(trainer)
        if stopping:
            raise Stopped

    def _save_last(self, trainer: Trainer) -> None:
        self._save(trainer, _LAST, weights_only=False)
        self._saved_at = trainer.global_step

    def _save(self, trainer: Trainer, name: str, *, weights_only: bool) -> None:
        # Lightning copies its temporary file where that lies on another file system: a kill would leave a part of it.
        partial = self._partial(name)
        trainer.save_checkpoint(partial, weights_only=weights_only)
        if trainer.is_global_zero:
            partial.replace(self.folder / name)

    def _partial(self, name: str) -> Path:
        return self.folder / f".{name}.partial"

    def _stop(self, number: int, frame: object) -> None:
        if self._stopping and not self._distributed:
            raise KeyboardInterrupt
        self._stopping = True

    def _leave(self) -> None:
        self.seconds, self._started = self.elapsed, None
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()


class MetricsFile(Callback):
    """Appends a row to a CSV file at each step that the module logs and at each validation.

    A resumed run drops the rows of steps that it does again, and a last row that a kill cut off.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] = []
        self._rate = Rate()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._rate.start(trainer, pl_module)
        if not trainer.is_global_zero or not self.path.exists():
            return
        try:
            header, *rows = self.path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
            kept = [row for row in rows if row.endswith("\n") and int(row.split(",")[0]) <= trainer.global_step]
        except ValueError as error:
            raise InputError(f"{self.path}: not a metrics file of this library; move it away") from error
        if not kept:
            self.path.unlink()
            return
        self._columns = next(csv.reader([header]))
        partial = self.path.with_name(f".{self.path.name}.partial")
        partial.write_text("".join([header, *kept]), encoding="utf-8")
        partial.replace(self.path)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if pl_module.logged:
            rate = self._rate.since_last(trainer.global_step)
            self._append(trainer, {**pl_module.logged, "images_per_second": round(rate, 1)})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        self._append(trainer, {name: float(f"{metrics[name]:.7g}") for name in _VALIDATION if name in metrics})

    def _append(self, trainer: Trainer, values: dict[str, float]) -> None:
        if not trainer.is_global_zero:
            return
        new = not self._columns
        if new:
            self._columns = ["step", *values, *(name for name in _VALIDATION if name not in values)]
        # One write for each row, and nothing is kept open: a killed run leaves whole rows.
        with self.path.open("w" if new else "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, extrasaction="ignore", lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow({"step": trainer.global_step, **values})
