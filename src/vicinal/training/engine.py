"""One training from its start, or from a checkpoint, to its end: Lightning's Trainer, set up and spoken for."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from vicinal.errors import InputError
from vicinal.training.callbacks import Checkpoints, Interrupted, Stopped
from vicinal.training.config import Training
from vicinal.training.loading import TrainingData
from vicinal.training.module import VicinalModule

_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "torch.multiprocessing.spawn")


def train(
    module: VicinalModule,
    data: TrainingData,
    folder: Path,
    *,
    watchers: list[Callback],
    loggers: list[Any] | None = None,
    resume_from: Path | None = None,
) -> None:
    """Train a module to the end of its schedule.

    Args:
        module: what to train; in a distributed training the module of this process keeps its first weights, and the
            trained ones are in the checkpoint.
        data: its batches.
        folder: where ``last.ckpt`` and ``best.ckpt`` go.
        watchers: callbacks that are called before each checkpoint.
        loggers: Lightning loggers.
        resume_from: a checkpoint to go on from.

    Raises:
        InputError: the device, precision or number of processes is not to be had, torch.compile does not work here, or
            the loss is not finite.
        Interrupted: stopped by SIGINT or SIGTERM, after ``last.ckpt`` was saved.
    """
    settings = module.training_settings
    validate_every = None if data.validation is None else min(settings.validate_every, settings.steps)
    checkpoints = Checkpoints(folder, every=settings.checkpoint_every, validate_every=validate_every)
    with _quiet():
        trainer = _trainer(settings, validate_every, [_QuietChild(), *watchers, checkpoints], loggers)
        # What dropout draws from is seeded at each step; nobody else should notice.
        with torch.random.fork_rng(devices=[]), _forwarded_signals(trainer) as forwarded:
            try:
                trainer.fit(module, datamodule=data, ckpt_path=None if resume_from is None else str(resume_from))
            except Stopped as stopped:
                raise Interrupted from stopped
            except SystemExit as ended:  # Lightning's answer to a KeyboardInterrupt, and to an early SIGTERM
                raise Interrupted from ended
            except (ProcessRaisedException, ProcessExitedException) as failed:
                raise _told_by_child(failed, stopped=bool(forwarded)) from failed
            except Exception as error:
                if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    raise InputError(
                        f"training.compile: torch.compile fails here ({_line(error)}); leave it off, or install the "
                        "compiler that it needs"
                    ) from error
                raise


def _trainer(
    settings: Training, validate_every: int | None, callbacks: list[Callback], loggers: list[Any] | None
) -> Trainer:
    try:
        trainer = Trainer(
            accelerator=settings.device,
            devices=settings.devices,
            precision=settings.precision,
            strategy="auto" if settings.devices == 1 else "ddp_spawn",
            max_steps=settings.steps,
            max_epochs=1,
            val_check_interval=validate_every,
            check_val_every_n_epoch=None,
            limit_val_batches=None if validate_every else 0,
            num_sanity_val_steps=0,
            callbacks=callbacks,
            logger=loggers or False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError, RuntimeError, ImportError) as error:
        raise InputError(f"training: {_line(error)}") from error
    if settings.precision == "16-mixed" and trainer.strategy.root_device.type == "cpu":
        raise InputError("training.precision: '16-mixed' needs a GPU; on the CPU take 'bf16-mixed' or '32-true'")
    return trainer


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the engine's tips and notes, which speak of its own calls and not of the user's."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        with warnings.catch_warnings():
            _silence()
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _silence() -> _QuietChild:
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.")
    # With float16 the first steps may overflow and be left out, which the scale of the loss is there for.
    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
    return _QuietChild()


class _QuietChild(Callback):
    """Silences a spawned process, which inherits nothing, as soon as the trainer and its callbacks arrive there."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _silence, ()


@contextmanager
def _forwarded_signals(trainer: Trainer) -> Iterator[list[int]]:
    """In a distributed training this process only waits: the first signal that it gets goes to those that train.

    Yields:
        The signals that were passed on.
    """
    passed: list[int] = []
    if trainer.world_size == 1 or threading.current_thread() is not threading.main_thread():
        yield passed
        return

    def forward(number: int, _: object) -> None:
        if passed:
            raise KeyboardInterrupt
        passed.append(number)
        for process in getattr(trainer.strategy.launcher, "procs", []):
            process.terminate()

    handlers = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield passed
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _told_by_child(failed: Exception, *, stopped: bool) -> BaseException:
    """What went wrong in a spawned process, which can hand over the text alone."""
    last = str(failed).strip().splitlines()[-1]
    if stopped or last.startswith(f"{Stopped.__module__}.{Stopped.__name__}"):
        return Interrupted()
    _, found, message = last.partition(f"{InputError.__module__}.{InputError.__name__}: ")
    return InputError(message) if found else failed


def _line(error: BaseException) -> str:
    return " ".join(next(iter(str(error).strip().splitlines()), type(error).__name__).split())
