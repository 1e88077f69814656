"""Running an experiment: data, split, network and method are put together, trained, and evaluated into a run directory."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import vicinal
from vicinal import machine
from vicinal.data import Dataset, Examples, SplitIndices, eval_batches, load, make_split
from vicinal.errors import InputError, require
from vicinal.evaluation import figures
from vicinal.experiment import Experiment
from vicinal.networks import Classifier, build_network, fit_preprocess
from vicinal.randomness import seed_of
from vicinal.runs import Run, write_atomic

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
            raise InputError("augment: crops and flips are for images, and these data are feature vectors; leave them off")
        self.split = make_split(self.dataset, experiment.split, experiment.seed)

    def network(self, purpose: str = "initialisation") -> Classifier:
        """A freshly initialised network: the same for the same experiment, another for another ``purpose``."""
        x = self.dataset.train.x
        rows = torch.cat([self.split.labelled, self.split.unlabelled]).unique()
        preprocess = fit_preprocess(self.experiment.preprocess, x[rows] if isinstance(x, torch.Tensor) else x)
        with torch.random.fork_rng():
            torch.manual_seed(seed_of(self.experiment.seed, purpose))
            return build_network(self.experiment.network, self.dataset.shape, len(self.dataset.classes), preprocess)

    def module(self) -> VicinalModule:
        """The LightningModule that trains a fresh network."""
        from vicinal.training.module import VicinalModule

        independent: Callable[[], nn.Module] = lambda: self.network("teacher initialisation")  # noqa: E731
        return VicinalModule(
            self.network(), self.method, self.experiment.training, augment=self.experiment.augment,
            teacher=self.experiment.teacher, seed=self.experiment.seed, independent=independent,
            about={"shape": list(self.dataset.shape), "classes": list(self.dataset.classes)},
        )


def fit(
    experiment: Experiment, output: str | os.PathLike[str], *, resume: bool = False, progress: bool = True,
    tensorboard: bool = False, command: str | None = None,
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
    parts = Assembled(experiment)  # before anything is written
    fresh = not run.path.exists()
    with run.locked():
        run.claim(experiment, resume=resume)
        try:
            if not (resume and run.last.exists() and _is_trained(run, experiment)):
                _train(parts, run, resume=resume, progress=progress, tensorboard=tensorboard)
        except Exception:
            # A run that failed before its first checkpoint leaves nothing that could be resumed, so it leaves nothing.
            if fresh and not run.last.exists():
                _remove(run)
            raise
        evaluate(run, parts, command=command)
    return run


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
    from safetensors.torch import save_file

    content = run.checkpoint("last")
    parts = parts or Assembled(run.experiment)
    experiment, training = parts.experiment, parts.experiment.training
    if not _is_trained(run, experiment):
        raise InputError(
            f"{run.path}: trained for {content['global_step']} of {training.steps} steps; go on with: vicinal fit --resume {run.path}"
        )
    state = next(value for key, value in content["callbacks"].items() if key.startswith("Checkpoints"))
    last = run.network("last")
    validation = parts.split.validation_examples(parts.dataset)
    best = None
    if validation is not None:
        error_last = _figures(last.network, validation)
        best = run.network("best_validation") if run.best.is_file() else last
        error_best = _figures(best.network, validation) if best is not last else error_last
        if error_last["error"] < error_best["error"]:  # the end of training need not fall on a validation
            best, error_best = last, error_last
    values: dict[str, Any] = {"test": None, "validation": None}
    if parts.dataset.test is not None:
        values["test"] = _columns(last, best, lambda network: _figures(network, parts.dataset.test))
    if validation is not None:
        values["validation"] = _columns(last, best, lambda network: error_last if network is last.network else error_best)
    previous = run.evaluation()["provenance"] if run.is_finished else {}
    values |= {
        "weights": "teacher" if parts.method.needs.teacher else "student",
        "steps": {"last": last.step, "best_validation": None if best is None else best.step},
        "provenance": _provenance(parts, last.network)
        | {
            "training_seconds": round(state["seconds"], 2),
            "command": previous.get("command") or command or shlex.join(["vicinal", *sys.argv[1:]]),
        },
    }
    weights = {name: tensor.contiguous() for name, tensor in last.network.state_dict().items()}
    about = {"experiment": experiment.to_yaml(), "shape": json.dumps(last.shape), "classes": json.dumps(last.classes)}
    save_file(weights, run.model_file, metadata=about)
    write_atomic(run.evaluation_file, json.dumps(values, indent=2) + "\n")
    return values


def _is_trained(run: Run, experiment: Experiment) -> bool:
    return int(run.checkpoint("last")["global_step"]) >= experiment.training.steps


def _train(parts: Assembled, run: Run, *, resume: bool, progress: bool, tensorboard: bool) -> None:
    from lightning.pytorch import Trainer

    from vicinal.training.callbacks import Checkpoints, MetricsFile, ProgressBar
    from vicinal.training.loading import TrainingData

    experiment, training = parts.experiment, parts.experiment.training
    checkpoint = None
    if resume and run.last.exists():
        run.checkpoint("last")  # says so if it is damaged
        if SplitIndices.load(run.split_file).digest != parts.split.digest:
            raise InputError(f"{run.split_file}: not the split that this experiment makes; the data have changed since the run began")
        checkpoint = str(run.last)
    else:
        parts.split.save(run.split_file)
    if training.threads is not None:
        torch.set_num_threads(training.threads)
    if training.tune_allocator:
        machine.tune_allocator()
    module = parts.module()
    data = TrainingData(
        parts.dataset, parts.split, training, seed=experiment.seed, unlabelled=parts.method.needs.views > 0
    )
    validate_every = None if data.validation is None else min(training.validate_every, training.steps)
    callbacks: list[Any] = [
        Checkpoints(run.checkpoints, every=training.checkpoint_every, validate_every=validate_every),
        MetricsFile(run.metrics_file),
    ]
    if progress:
        callbacks.append(ProgressBar(f"{experiment.data.name} {experiment.method.name}", training.steps))
    with _quiet_engine():
        try:
            trainer = Trainer(
                accelerator=training.device, devices=training.devices, precision=training.precision,
                strategy="auto" if training.devices == 1 else "ddp_spawn",
                max_steps=training.steps, max_epochs=1, val_check_interval=validate_every, check_val_every_n_epoch=None,
                limit_val_batches=None if validate_every else 0, num_sanity_val_steps=0, callbacks=callbacks,
                logger=_tensorboard(run) if tensorboard else False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
            )
        except (ValueError, RuntimeError, ImportError) as error:
            raise InputError(f"training: {' '.join(str(error).split())}") from error
        if training.compile:
            module.student.compile()
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)


def _tensorboard(run: Run) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(str(run.path), name="tensorboard", version="")


@contextmanager
def _quiet_engine() -> Iterator[None]:
    """Without the engine's tips and notes, which speak of its own calls and not of the user's."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _figures(network: nn.Module, examples: Examples | None) -> dict[str, Any]:
    assert examples is not None
    return dataclasses.asdict(figures(network, eval_batches(examples, EVALUATION_BATCH)))


def _columns(last: Any, best: Any, measure: Callable[[nn.Module], dict[str, Any]]) -> dict[str, Any]:
    """{"n": ..., "error": {"last": ..., "best_validation": ...}, ...}"""
    at_last = measure(last.network)
    at_best = None if best is None else measure(best.network)
    columns: dict[str, Any] = {"n": at_last["n"]}
    for name in ("error", "nll"):
        columns[name] = {"last": at_last[name], "best_validation": None if at_best is None else at_best[name]}
    return columns


def _provenance(parts: Assembled, network: nn.Module) -> dict[str, Any]:
    experiment = parts.experiment
    return {
        "experiment": experiment.key,
        "seed": experiment.seed,
        "labels": len(parts.split.labelled),
        "unlabelled": len(parts.split.unlabelled) if parts.method.needs.views else 0,
        "split": parts.split.digest,
        "data": {"name": experiment.data.name, **parts.dataset.source},
        "backbone": experiment.network.name,
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


def _remove(run: Run) -> None:
    import shutil

    shutil.rmtree(run.path, ignore_errors=True)

