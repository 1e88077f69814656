"""Measuring a trained run: its figures at the last and at the selected step, with their provenance."""

from __future__ import annotations

import dataclasses
import functools
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

import vicinal
from vicinal import machine
from vicinal.assembling import Assembled
from vicinal.companions import autoencoder_of, companion
from vicinal.data import Dataset, Examples, SplitIndices, eval_batches
from vicinal.errors import InputError
from vicinal.evaluation import figures
from vicinal.evaluation.reconstruction import reconstruction
from vicinal.networks import Autoencoder, auto_name
from vicinal.runs import Run, evaluated_weights, write_atomic
from vicinal.training import Training

EVALUATION_BATCH = 500


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

    content = trained(run)
    parts = parts or Assembled(run.experiment)
    check_data(run, parts.dataset, parts.split)
    experiment = parts.experiment
    last = run.network("last")
    validation, test = parts.split.validation_examples(parts.dataset), parts.dataset.test
    measure = functools.partial(_figures, device=device_of(experiment.training))
    values: dict[str, Any] = {"test": None, "validation": None}
    best = None
    if validation is not None:
        best = run.network("best_validation")
        at_last, at_best = measure(last.network, validation), measure(best.network, validation)
        criterion = _criterion(last.network)
        if getattr(at_last, criterion) < getattr(at_best, criterion):  # the end need not fall on a validation
            best, at_best = last, at_last
        values["validation"] = _columns(at_last, at_best)
    if test is not None:
        values["test"] = _columns(measure(last.network, test), None if best is None else measure(best.network, test))
    gate = _gate(run, parts)
    values |= {} if gate is None else {"gate": gate}
    values |= {
        "weights": evaluated_weights(content["state_dict"])[0],
        "steps": {"last": last.step, "best_validation": None if best is None else best.step},
        "provenance": _provenance(parts, last.network, content["vicinal"].get("start"))
        | {"training_seconds": round(content["callbacks"]["Checkpoints"]["seconds"], 2), **_made_by(run, command)},
    }
    weights = {name: tensor.cpu().contiguous() for name, tensor in last.network.state_dict().items()}
    about = {"experiment": experiment.to_yaml(), "shape": json.dumps(last.shape), "classes": json.dumps(last.classes)}
    write_atomic(run.model_file, save(weights, metadata=about))
    write_atomic(run.evaluation_file, json.dumps(values, indent=2) + "\n")
    return values


def trained(run: Run) -> dict[str, Any]:
    """The checkpoint at the end of a run's training.

    Raises:
        InputError: training is not complete, or the checkpoint is damaged.
    """
    content, steps = run.checkpoint("last"), run.experiment.training.steps
    if content["global_step"] < steps:
        raise InputError(
            f"{run.path}: trained for {content['global_step']} of {steps} steps; "
            f"go on with: vicinal fit --resume {run.path}"
        )
    return content


def device_of(training: Training) -> str:
    """Where to measure: where it was trained, if this machine has the like."""
    return "cuda" if training.device in ("auto", "cuda") and torch.cuda.is_available() else "cpu"


def _figures(network: nn.Module, examples: Examples, *, device: str) -> Any:
    batches = eval_batches(examples, EVALUATION_BATCH, device)
    if isinstance(network, Autoencoder):
        return reconstruction(network.to(device), batches)
    return figures(network.to(device), batches)


def _criterion(network: nn.Module) -> str:
    return "squared_error" if isinstance(network, Autoencoder) else "error"


def _columns(last: Any, best: Any | None) -> dict[str, Any]:
    """Each figure at the last and at the selected step."""
    columns: dict[str, Any] = {"n": last.n}
    for name, value in dataclasses.asdict(last).items():
        if name != "n" and value is not None:
            columns[name] = {"last": value, "best_validation": None if best is None else getattr(best, name)}
    return columns


def _gate(run: Run, parts: Assembled) -> dict[str, Any] | None:
    """Whether reconstructions are good enough for figures of latent mixing to mean something; None without mixing."""
    autoencoder, judge = autoencoder_of(run), companion(run, "judge")
    examples = parts.dataset.test or parts.split.validation_examples(parts.dataset)
    if autoencoder is None or judge is None or examples is None:
        return None
    device = device_of(parts.experiment.training)
    batches = eval_batches(examples, EVALUATION_BATCH, device)
    found = reconstruction(autoencoder.to(device), batches, judge.network("last").network.to(device))
    return {**dataclasses.asdict(found), "passed": found.passed}


def check_data(run: Run, dataset: Dataset, split: SplitIndices) -> None:
    """Refuse data that are not what a run was trained on, or examples that trained would count as never seen.

    Args:
        run: the run.
        dataset: its data as they are now.
        split: what its experiment makes of them.

    Raises:
        InputError: they are others by now.
    """
    before, now = _earlier(run).get("data", {}).get("content"), dataset.source.get("content")
    same = before is None or before == now
    if not same or (run.split_file.is_file() and SplitIndices.load(run.split_file).digest != split.digest):
        raise InputError(
            f"{run.path}: the data ({dataset.name}) have changed since the run was trained; restore them, or train anew"
        )


def _earlier(run: Run) -> dict[str, Any]:
    """The provenance in an earlier evaluation, which may be damaged: then it is written anew."""
    try:
        return dict(run.evaluation()["provenance"])
    except (InputError, KeyError, TypeError, ValueError):
        return {}


def _made_by(run: Run, command: str | None) -> dict[str, Any]:
    """By what a run was trained, which a later evaluation does not change, and by what it was evaluated."""
    now = {
        "version": vicinal.__version__,
        "commit": machine.commit(),
        "machine": machine.describe(),
        "command": command or shlex.join([Path(sys.argv[0]).name or "python", *sys.argv[1:]]),
    }
    earlier = _earlier(run)
    if not earlier:
        return now
    return {**now, **{name: earlier[name] for name in now if name in earlier}, "evaluated": now}


def _provenance(parts: Assembled, network: nn.Module, start: dict[str, Any] | None) -> dict[str, Any]:
    """Where the figures come from; with ``start`` those of a network that did not start from random weights."""
    experiment = parts.experiment
    return ({} if start is None else {"start": start}) | {
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
    }
