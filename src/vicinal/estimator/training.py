"""An experiment on arrays, trained in memory: nothing is left on disk, and nothing changed in the process."""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vicinal import machine
from vicinal.assembling import Assembled
from vicinal.data import Dataset, as_float
from vicinal.errors import InputError
from vicinal.estimator.labels import weighted_rows
from vicinal.evaluating import device_of
from vicinal.experiment import Experiment
from vicinal.networks import EVAL, Classifier, applied, build_network, unfitted_preprocess
from vicinal.runs import evaluated_weights

_BATCH = 500


def trained(
    experiment: Experiment,
    dataset: Dataset,
    *,
    weights: NDArray[np.float64] | None = None,
    start: Classifier | None = None,
    progress: bool = False,
) -> Classifier:
    """Train on arrays.

    Args:
        experiment: what to do.
        dataset: the arrays.
        weights: how much an example of each class counts, (K,), or None.
        start: a network whose weights to start from, preprocessing included.
        progress: show a progress bar on standard error.

    Returns:
        The network that counts (the average's or teacher's weights where there is one; those of the lowest validation
        error where there is a validation part), on the CPU and in eval mode.

    Raises:
        InputError: data, settings and method do not fit together, or ``start`` is of another structure.
    """
    from vicinal.training.engine import train
    from vicinal.training.loading import TrainingData
    from vicinal.training.progress import ProgressBar

    with machine.threads(experiment.training.threads), tempfile.TemporaryDirectory(prefix="vicinal-") as folder:
        parts = Assembled(experiment, dataset)
        if weights is not None:
            rows = weighted_rows(dataset.train.y, parts.split.labelled, weights, seed=experiment.seed)
            parts.split = replace(parts.split, labelled=rows)
        module = parts.module()
        if progress and parts.start is not None:
            print(f"vicinal: network {parts.start}", file=sys.stderr)
        if start is not None:
            followers = [follower.network for follower in (module.teacher, module.average) if follower is not None]
            for network in (module.student, *followers):
                _take_weights(cast(Any, network), start)
        data = TrainingData(
            dataset, parts.split, experiment.training, seed=experiment.seed, unlabelled=parts.method.needs.views > 0
        )
        bars = [ProgressBar(f"vicinal {experiment.method.name}", experiment.training.steps)] if progress else []
        train(module, data, Path(folder), watchers=list(bars))
        found = Path(folder, "best.ckpt")
        saved = torch.load(
            found if found.exists() else Path(folder, "last.ckpt"), map_location="cpu", weights_only=True
        )["state_dict"]
    prefix = f"{evaluated_weights(saved)[1]}."
    state = {name.removeprefix(prefix): value for name, value in saved.items() if name.startswith(prefix)}
    return with_weights(experiment, dataset.shape, len(dataset.classes), state)


def with_weights(experiment: Experiment, shape: tuple[int, ...], classes: int, state: dict[str, Tensor]) -> Classifier:
    """An experiment's network with these weights, in eval mode."""
    preprocess = unfitted_preprocess(experiment.preprocess, shape)
    with torch.random.fork_rng(devices=[]):  # for the first weights, which are replaced
        network = cast(Classifier, build_network(experiment.network, shape, classes, preprocess))
    network.load_state_dict(state)
    return network.requires_grad_(False).eval()


def _take_weights(network: Classifier, start: Classifier) -> None:
    try:
        network.load_state_dict(start.state_dict())
    except RuntimeError as error:
        raise InputError(
            "warm_start: the network of the last fit is of another structure; keep network and preprocess, or set "
            "warm_start to False"
        ) from error


def logits_of(network: Classifier, x: Tensor, experiment: Experiment) -> NDArray[np.float64]:
    """Logits, float64 (n, K), of inputs (n, ...) as the network takes them.

    Feature vectors are computed in float64, so that no result depends on which other examples it was asked for with:
    in float32 a sum's rounding depends on the size of the batch. For images that would cost several times as much.
    """
    device = device_of(experiment.training)
    dtype = torch.float64 if x.dim() == 2 else torch.float32
    with machine.threads(experiment.training.threads), torch.no_grad():
        used = copy.deepcopy(network).to(device=device, dtype=dtype)
        with applied(used, EVAL):
            parts = [used(as_float(rows).to(device=device, dtype=dtype)).double().cpu() for rows in x.split(_BATCH)]
    return cast("NDArray[np.float64]", torch.cat(parts).numpy())


def described(experiment: Experiment, facts: Sequence[str]) -> str:
    """What is about to be trained, in a few lines."""
    training = experiment.training
    lines = [
        *facts,
        f"method {_said(experiment.method)}",
        f"network {_said(experiment.network)}, preprocessing {experiment.preprocess}",
        f"{training.steps} steps of {training.batch_labelled} labelled"
        + f" and {training.batch_unlabelled} unlabelled examples (where the method uses them),"
        + f" {training.optimizer}, learning rate {training.learning_rate:g}, weight decay {training.weight_decay:g},"
        + f" on {training.device}",
        f"validation share {experiment.split.validation:g}, seed {experiment.seed}",
    ]
    return "\n".join(f"vicinal: {line}" for line in lines)


def _said(choice: Any) -> str:
    shown = (
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in choice.settings.items()
    )
    return f"{choice.name}({', '.join(shown)})"
