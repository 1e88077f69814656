"""Running an experiment: its parts are put together, trained, and evaluated into a run directory."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import vicinal
from vicinal import machine
from vicinal.data import Dataset, Examples, SplitIndices, Subset, eval_batches, load, make_split
from vicinal.errors import InputError, require
from vicinal.evaluation import Figures, figures
from vicinal.experiment import Experiment
from vicinal.networks import Classifier, auto_name, build_network, fit_preprocess, unfitted_preprocess
from vicinal.randomness import seed_of
from vicinal.runs import Run, write_atomic
from vicinal.training import Training

if TYPE_CHECKING:
    from vicinal.training.module import VicinalModule

EVALUATION_BATCH = 500


class Assembled:
    """An experiment's parts, loaded and built.

    Args:
        experiment: the experiment.
        dataset: its data, if loaded already.
    """

    def __init__(self, experiment: Experiment, dataset: Dataset | None = None) -> None:
        self.experiment = experiment
        self.method = experiment.build_method()
        self.dataset = dataset or load(experiment.data)
        if experiment.augment.active and not self.dataset.is_images:
            raise InputError("augment: crops and flips are for images, and these are feature vectors; leave them off")
        self.split = make_split(self.dataset, experiment.split, experiment.seed)

    @functools.cached_property
    def preprocess(self) -> nn.Module:
        """The preprocessing layer, fitted on the clean training images, those of validation left out."""
        rows = torch.cat([self.split.labelled, self.split.unlabelled]).unique()
        return fit_preprocess(self.experiment.preprocess, Subset(self.dataset.train.x, rows))

    def network(self, purpose: str = "initialisation", *, fitted: bool = True) -> Classifier:
        """A freshly initialised network: the same for the same experiment, another for another ``purpose``.

        Args:
            purpose: names the draws.
            fitted: with the fitted preprocessing; without, its buffers wait for saved weights.
        """
        name, shape = self.experiment.preprocess, self.dataset.shape
        preprocess = copy.deepcopy(self.preprocess) if fitted else unfitted_preprocess(name, shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.experiment.seed, purpose))
            return build_network(self.experiment.network, shape, len(self.dataset.classes), preprocess)

    def module(self, *, fitted: bool = True) -> VicinalModule:
        """The LightningModule that trains a fresh network, or with ``fitted=False`` one that takes saved weights."""
        from vicinal.training.module import VicinalModule

        independent: Callable[[], nn.Module] = lambda: self.network("teacher initialisation", fitted=fitted)  # noqa: E731
        return VicinalModule(
            self.network(fitted=fitted),
            self.method,
            self.experiment.training,
            augment=self.experiment.augment,
            teacher=self.experiment.teacher,
            seed=self.experiment.seed,
            independent=independent,
            about={"shape": list(self.dataset.shape), "classes": list(self.dataset.classes)},
        )


def fit(
    experiment: Experiment,
    output: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: bool = True,
    tensorboard: bool = False,
    command: str | None = None,
) -> Run:
    """Train and evaluate one experiment into a run directory.

    Args:
        experiment: what to do.
        output: the run directory: new or empty, or an unfinished run of the same experiment if ``resume``.
        resume: go on from the last checkpoint. On the CPU the result is the uninterrupted run's to the bit.
        progress: show a progress bar on standard error.
        tensorboard: also write TensorBoard logs (extra ``tensorboard``).
        command: the command to record as provenance; the process's own by default.

    Raises:
        InputError: bad data, split or settings, or the directory is not free.
        KeyboardInterrupt: stopped by SIGINT or SIGTERM, after the state was saved.
    """
    if tensorboard:
        require("tensorboard", "tensorboard", "writing TensorBoard logs")
    run = Run(output)
    made = [path for path in (run.path, *run.path.parents) if not path.exists()]
    with run.locked():
        _run(experiment, run, resume=resume, made=made, progress=progress, tensorboard=tensorboard, command=command)
    return run


def finish(experiment: Experiment, output: str | os.PathLike[str], *, command: str | None = None) -> Run:
    """Bring a run to its end from wherever it stands: start it, go on with it, or find it finished.

    Waits while another process is at it. Arguments and errors are those of `fit`.
    """
    run = Run(output)
    made = [path for path in (run.path, *run.path.parents) if not path.exists()]
    with run.locked(wait=True):
        if not run.is_finished:
            _run(experiment, run, resume=run.experiment_file.is_file(), made=made, command=command)
    return run


def _run(
    experiment: Experiment,
    run: Run,
    *,
    resume: bool,
    made: list[Path],
    progress: bool = False,
    tensorboard: bool = False,
    command: str | None = None,
) -> None:
    run.claim(experiment, resume=resume)
    with machine.threads(experiment.training.threads):
        try:
            parts = Assembled(experiment)
            if not _is_trained(run, experiment):
                _train(parts, run, progress=progress, tensorboard=tensorboard)
        except Exception:
            # A run that failed before its first checkpoint leaves nothing that could be resumed, so it leaves nothing.
            if not resume and not run.last.exists():
                run.clear()
                for path in made:
                    with contextlib.suppress(OSError):  # another run may lie beside it by now
                        path.rmdir()
            raise
        evaluate(run, parts, command=command)


def evaluate(run: Run, parts: Assembled | None = None, *, command: str | None = None) -> dict[str, Any]:
    """Measure a trained run and write ``evaluation.json`` and ``model.safetensors``.

    Selection sees the validation part alone; the test part is read here, after it.

    Args:
        run: a run whose training is complete.
        parts: its parts, if they are assembled already.
        command: as for `fit`; a run that is evaluated again keeps the command that trained it.

    Raises:
        InputError: training is not complete, or a checkpoint is damaged.
    """
    from safetensors.torch import save

    parts = parts or Assembled(run.experiment)
    experiment = parts.experiment
    content = run.checkpoint("last")
    if content["global_step"] < experiment.training.steps:
        raise InputError(
            f"{run.path}: trained for {content['global_step']} of {experiment.training.steps} steps; "
            f"go on with: vicinal fit --resume {run.path}"
        )
    last = run.network("last")
    validation, test = parts.split.validation_examples(parts.dataset), parts.dataset.test
    measure = functools.partial(_figures, device=_device(experiment.training))
    values: dict[str, Any] = {"test": None, "validation": None}
    best = None
    if validation is not None:
        best = run.network("best_validation")
        at_last, at_best = measure(last.network, validation), measure(best.network, validation)
        if at_last.error < at_best.error:  # the end of training need not fall on a validation
            best, at_best = last, at_last
        values["validation"] = _columns(at_last, at_best)
    if test is not None:
        values["test"] = _columns(measure(last.network, test), None if best is None else measure(best.network, test))
    values |= {
        "weights": "teacher" if parts.method.needs.teacher else "student",
        "steps": {"last": last.step, "best_validation": None if best is None else best.step},
        "provenance": _provenance(parts, last.network)
        | {
            "training_seconds": round(content["callbacks"]["Checkpoints"]["seconds"], 2),
            "command": _command_of(run) or command or shlex.join([Path(sys.argv[0]).name or "python", *sys.argv[1:]]),
        },
    }
    weights = {name: tensor.cpu().contiguous() for name, tensor in last.network.state_dict().items()}
    about = {"experiment": experiment.to_yaml(), "shape": json.dumps(last.shape), "classes": json.dumps(last.classes)}
    write_atomic(run.model_file, save(weights, metadata=about))
    write_atomic(run.evaluation_file, json.dumps(values, indent=2) + "\n")
    return values


def _is_trained(run: Run, experiment: Experiment) -> bool:
    return run.last.exists() and int(run.checkpoint("last")["global_step"]) >= experiment.training.steps


def _train(parts: Assembled, run: Run, *, progress: bool, tensorboard: bool) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger

    from vicinal.training.callbacks import MetricsFile, ProgressBar
    from vicinal.training.engine import train
    from vicinal.training.loading import TrainingData

    experiment, training = parts.experiment, parts.experiment.training
    module = parts.module(fitted=not run.last.exists())
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
    watchers: list[Any] = [MetricsFile(run.metrics_file)]
    if progress:
        watchers.append(ProgressBar(f"{experiment.data.name} {experiment.method.name}", training.steps))
    train(
        module,
        data,
        run.checkpoints,
        watchers=watchers,
        loggers=[TensorBoardLogger(str(run.path), name="tensorboard", version="")] if tensorboard else [],
        resume_from=run.last if run.last.exists() else None,
    )


def _device(training: Training) -> str:
    """Where to measure: where it was trained, if this machine has the like."""
    return "cuda" if training.device in ("auto", "cuda") and torch.cuda.is_available() else "cpu"


def _figures(network: nn.Module, examples: Examples, *, device: str) -> Figures:
    return figures(network.to(device), eval_batches(examples, EVALUATION_BATCH, device))


def _columns(last: Figures, best: Figures | None) -> dict[str, Any]:
    """Each figure at the last and at the selected step."""
    columns: dict[str, Any] = {"n": last.n}
    for name in ("error", "nll"):
        at_best = None if best is None else getattr(best, name)
        columns[name] = {"last": getattr(last, name), "best_validation": at_best}
    return columns


def _command_of(run: Run) -> str | None:
    """The command in an earlier evaluation, which may be damaged: then it is written anew."""
    try:
        command: str | None = run.evaluation()["provenance"]["command"]
    except (InputError, KeyError, TypeError):
        return None
    return command


def _provenance(parts: Assembled, network: nn.Module) -> dict[str, Any]:
    experiment = parts.experiment
    return {
        "experiment": experiment.key,
        "seed": experiment.seed,
        "labels": len(parts.split.labelled),
        "unlabelled": len(parts.split.unlabelled) if parts.method.needs.views else 0,
        "split": parts.split.digest,
        "data": {"name": experiment.data.name, **parts.dataset.source},
        "backbone": auto_name(parts.dataset.shape) if experiment.network.name == "auto" else experiment.network.name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "preprocess": experiment.preprocess,
        "method": experiment.method.name,
        "recipe": experiment.recipe,
        "space": experiment.method.settings.get("space"),
        "regime": parts.method.regime,
        "steps": experiment.training.steps,
        "version": vicinal.__version__,
        "commit": machine.commit(),
        "machine": machine.describe(),
    }
