"""Running an experiment: its parts are put together, trained, and evaluated into a run directory."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from vicinal import machine
from vicinal.assembling import Assembled
from vicinal.companions import autoencoder_of, bring
from vicinal.data import Dataset, SplitIndices
from vicinal.errors import InputError, require
from vicinal.evaluating import evaluate
from vicinal.experiment import Experiment
from vicinal.runs import Run


def fit(
    experiment: Experiment,
    output: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: bool = True,
    tensorboard: bool = False,
    command: str | None = None,
    dataset: Dataset | None = None,
) -> Run:
    """Train and evaluate one experiment into a run directory.

    Args:
        experiment: what to do.
        output: the run directory: new or empty, or an unfinished run of the same experiment if ``resume``.
        resume: go on from the last checkpoint. On the CPU the result is the uninterrupted run's to the bit.
        progress: show a progress bar on standard error.
        tensorboard: also write TensorBoard logs (extra ``tensorboard``).
        command: the command to record as provenance; the process's own by default.
        dataset: its data, if loaded already.

    Raises:
        InputError: bad data, split or settings, or the directory is not free.
        KeyboardInterrupt: stopped by SIGINT or SIGTERM, after the state was saved.
    """
    if tensorboard:
        require("tensorboard", "tensorboard", "writing TensorBoard logs")
    run = Run(output)
    made = [path for path in (run.path, *run.path.parents) if not path.exists()]
    with run.locked():
        _run(
            experiment,
            run,
            resume=resume,
            made=made,
            progress=progress,
            tensorboard=tensorboard,
            command=command,
            dataset=dataset,
        )
    return run


def finish(
    experiment: Experiment,
    output: str | os.PathLike[str],
    *,
    store: str | os.PathLike[str] | None = None,
    progress: bool = False,
    command: str | None = None,
) -> Run:
    """Bring a run to its end from wherever it stands: start it, go on with it, or find it finished.

    Waits while another process is at it. Arguments and errors are those of `fit`.

    Args:
        experiment: what to do.
        output: the run directory.
        store: folder where runs that this one needs are kept and shared; inside its own directory by default.
        progress: show a progress bar on standard error.
        command: the command to record as provenance.
    """
    run = Run(output)
    made = [path for path in (run.path, *run.path.parents) if not path.exists()]
    with run.locked(wait=True):
        if not run.is_finished:
            resume = run.experiment_file.is_file()
            _run(experiment, run, resume=resume, made=made, store=store, progress=progress, command=command)
    return run


def replay(
    run: Run,
    output: str | os.PathLike[str],
    *,
    look: Callable[[int, nn.Module], None],
    steps: Collection[int],
    dataset: Dataset | None = None,
    progress: bool = False,
) -> Run:
    """Train a run's experiment once more, in another directory, and look at its network on the way.

    A run is determined by its experiment, so that on the CPU of the machine that made it, with as many threads, the
    weights come out the same to the bit. Nothing is evaluated, and the run is not written to.

    Args:
        run: the run; its autoencoder, if it has one, is used again.
        output: the other directory, new or empty.
        look: see `vicinal.training.watching.Watch`.
        steps: when to look; 0 is before the first step.
        dataset: its data, if loaded already.
        progress: show a progress bar on standard error.

    Raises:
        InputError: the run was trained by several processes, or as for `fit`.
        KeyboardInterrupt: stopped by SIGINT or SIGTERM.
    """
    from vicinal.training.watching import Watch

    experiment, again = run.experiment, Run(output)
    if experiment.training.devices != 1:
        raise InputError(f"{run.path}: was trained by {experiment.training.devices} processes, which nobody can watch")
    with again.locked(), machine.threads(experiment.training.threads):
        again.claim(experiment, resume=False)
        parts = Assembled(experiment, dataset, autoencoder=autoencoder_of(run))
        _train(parts, again, progress=progress, watchers=[Watch(look, steps)])
    return again


def _run(
    experiment: Experiment,
    run: Run,
    *,
    resume: bool,
    made: list[Path],
    store: str | os.PathLike[str] | None = None,
    progress: bool = False,
    tensorboard: bool = False,
    command: str | None = None,
    dataset: Dataset | None = None,
) -> None:
    run.claim(experiment, resume=resume)
    with machine.threads(experiment.training.threads):
        try:
            bring(experiment, run, functools.partial(finish, store=store, progress=progress, command=command), store)
            parts = Assembled(experiment, dataset, autoencoder=autoencoder_of(run))
            if not _is_trained(run, experiment):
                _train(parts, run, progress=progress, tensorboard=tensorboard)
        except Exception:
            # A run that failed before its first checkpoint leaves nothing that could be resumed, so it leaves nothing;
            # but an autoencoder that was trained for it is worth keeping.
            if not resume and not run.last.exists() and not (run.path / "autoencoder").exists():
                run.clear()
                for path in made:
                    with contextlib.suppress(OSError):  # another run may lie beside it by now
                        path.rmdir()
            raise
        evaluate(run, parts, command=command)


def _is_trained(run: Run, experiment: Experiment) -> bool:
    return run.last.exists() and int(run.checkpoint("last")["global_step"]) >= experiment.training.steps


def _train(
    parts: Assembled, run: Run, *, progress: bool, tensorboard: bool = False, watchers: Sequence[Any] = ()
) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger

    from vicinal.training.callbacks import MetricsFile, ProgressBar
    from vicinal.training.engine import train
    from vicinal.training.loading import TrainingData

    experiment, training = parts.experiment, parts.experiment.training
    module = parts.module(fitted=not run.last.exists())
    if progress and parts.start is not None:
        print(f"vicinal: network {parts.start}", file=sys.stderr)
    if run.last.exists():
        if SplitIndices.load(run.split_file).digest != parts.split.digest:
            raise InputError(
                f"{run.split_file}: not the split that this experiment makes; the data have changed since the run began"
            )
        try:
            module.load_state_dict(run.checkpoint("last")["state_dict"])
        except RuntimeError as error:
            raise InputError(f"{run.last}: does not fit the networks of its experiment") from error
    else:
        parts.split.save(run.split_file)
    data = TrainingData(
        parts.dataset, parts.split, training, seed=experiment.seed, unlabelled=parts.method.needs.views > 0
    )
    callbacks: list[Any] = [MetricsFile(run.metrics_file), *watchers]
    if progress:
        callbacks.append(ProgressBar(f"{Path(experiment.data.name).name} {experiment.method.name}", training.steps))
    train(
        module,
        data,
        run.checkpoints,
        watchers=callbacks,
        loggers=[TensorBoardLogger(str(run.path), name="tensorboard", version="")] if tensorboard else [],
        resume_from=run.last if run.last.exists() else None,
    )
