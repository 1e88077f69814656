"""Labelling new examples with a trained run, and how sure it may be of each label."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vicinal.data import (
    Dataset,
    Examples,
    Inputs,
    SplitIndices,
    as_float,
    load,
    make_split,
    read_inputs,
    read_sound_inputs,
)
from vicinal.errors import InputError, MissingExtraError
from vicinal.evaluating import check_data
from vicinal.evaluation import fit_temperature
from vicinal.evaluation.temperature import BOUNDS
from vicinal.measuring import store, stored
from vicinal.networks import EVAL, Classifier, applied
from vicinal.runs import Run, TrainedNetwork, WhichName

BATCH = 500


class Calibration(NamedTuple):
    """How the confidences of a run are calibrated.

    Attributes:
        temperature: what logits are divided by, or None if they are not calibrated.
        n: number of validation examples that it was chosen on.
        wrong: how many of them the network has wrong.
        why_not: why there is no temperature, in one line; None if there is one.
    """

    temperature: float | None
    n: int
    wrong: int
    why_not: str | None

    def __str__(self) -> str:
        """What it is, in one line."""
        if self.temperature is None:
            return f"not calibrated: {self.why_not}"
        return (
            f"softmax(logits / {self.temperature:.3g}), the temperature that fits {self.n} validation examples best, "
            f"{self.wrong} of them wrong"
        )


class Labelled(NamedTuple):
    """Labels of new examples.

    Attributes:
        csv: a line for each: name, label, probability, confidence.
        calibration: how the confidences came about.
        damaged: what is wrong with each image that was skipped, by name.
    """

    csv: str
    calibration: Calibration
    damaged: dict[str, str]


def predict(
    run: Run, source: str | os.PathLike[str], *, which: WhichName = "last", skip_damaged: bool = False
) -> Labelled:
    """Labels of new examples, with the probability that the network gives them and a calibrated confidence.

    Args:
        run: a trained run.
        source: a folder of images, one image, or an ``.npz`` file with an array ``x``; see `vicinal.data.read_inputs`.
        which: weights at the end of training, or at the lowest validation error.
        skip_damaged: leave out images that cannot be read, instead of refusing.

    Returns:
        The labels. The probability is softmax's; the confidence is softmax's of the logits divided by the temperature
        that the validation part of the run chose (`calibration`), and empty where none could be chosen.

    Raises:
        InputError: there is nothing to read, an image is damaged, or shapes do not fit the run's.
    """
    trained = classifier(run, which)
    inputs = new_inputs(run, trained, source, skip_damaged=skip_damaged)
    found = calibration(run, which, trained)
    logits = logits_of(trained.network, (as_float(inputs.x[rows]) for rows in in_batches(len(inputs.names))))
    best = logits.softmax(dim=1).max(dim=1)
    sure = None
    if found.temperature is not None:
        sure = (logits / found.temperature).softmax(dim=1).gather(1, best.indices[:, None])[:, 0].tolist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "label", "probability", "confidence"))
    for row, (label, probability) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True)):
        confidence = "" if sure is None else f"{sure[row]:.6f}"
        writer.writerow((inputs.names[row], trained.classes[label], f"{probability:.6f}", confidence))
    return Labelled(text.getvalue(), found, inputs.damaged)


def classifier(run: Run, which: WhichName = "last") -> TrainedNetwork:
    """The run's network.

    Raises:
        InputError: it is no classifier.
    """
    trained = run.network(which)
    if not isinstance(trained.network, Classifier):
        raise InputError(f"{run.path}: trained an autoencoder, which labels nothing; name the run of a classifier")
    return trained


def new_inputs(run: Run, trained: TrainedNetwork, source: str | os.PathLike[str], *, skip_damaged: bool) -> Inputs:
    """New examples, read as the run's own were.

    Raises:
        InputError: as for `predict`.
    """
    size = run.experiment.data.settings.get("size")
    if skip_damaged:
        return read_sound_inputs(source, trained.shape, size=size)
    return Inputs(*read_inputs(source, trained.shape, size=size), {})


def calibration(run: Run, which: WhichName = "last", trained: TrainedNetwork | None = None) -> Calibration:
    """The temperature of a run's confidences, fitted on its validation part once and kept in its directory.

    Where the network has all of the validation part right, the likelihood only asks for larger and larger confidences;
    and where it does no better than chance, for none at all. Neither is a measurement, so there is no temperature then.

    Args:
        run: a trained run.
        which: weights at the end of training, or at the lowest validation error.
        trained: its network, if it is loaded already.
    """
    trained = trained or classifier(run, which)
    key = {"which": which, "weights": _digest(trained.network)}
    kept = stored(run, "temperature", key)
    if kept is not None:
        return Calibration(**kept["figures"])
    try:
        validation = _validation(run)
    except (InputError, MissingExtraError, OSError) as error:
        return Calibration(None, 0, 0, " ".join(str(error).splitlines()))  # another time they may be there
    found = _fitted(trained.network, validation)
    with contextlib.suppress(OSError):  # a directory that is read only; it is fitted again next time
        store(run, "temperature", key, {**key, "figures": found._asdict()})
    return found


def _fitted(network: nn.Module, validation: Examples | None) -> Calibration:
    if validation is None:
        return Calibration(None, 0, 0, "the run has no validation part")
    logits = logits_of(network, (as_float(validation.x[rows]) for rows in in_batches(len(validation))))
    wrong = int((logits.argmax(dim=1) != validation.y).sum())
    n = len(validation)
    if not wrong:
        return Calibration(None, n, wrong, f"all {n} validation examples are right, which sets no limit to confidence")
    try:
        value = fit_temperature(logits, validation.y).value
    except InputError as error:
        return Calibration(None, n, wrong, str(error))
    if value >= BOUNDS[1]:
        return Calibration(None, n, wrong, f"{wrong} of {n} validation examples are wrong, no better than by chance")
    return Calibration(value, n, wrong, None)


def data_of(run: Run) -> tuple[Dataset, SplitIndices]:
    """The data of a run, and which of their training examples were labelled, unlabelled, and kept for validation.

    Raises:
        InputError: its data are not there, or are others by now.
    """
    experiment = run.experiment
    dataset = load(experiment.data)
    split = make_split(dataset, experiment.split, experiment.seed)
    check_data(run, dataset, split)
    return dataset, split


def _validation(run: Run) -> Examples | None:
    """The examples that selected the model of a run; its data are read only if there are any."""
    split = SplitIndices.load(run.split_file)
    if not split.published_validation and not len(split.validation):
        return None
    dataset, split = data_of(run)
    return split.validation_examples(dataset)


def in_batches(rows: int) -> list[Tensor]:
    """Row numbers 0 to ``rows`` - 1, int64, `BATCH` at a time."""
    return list(torch.arange(rows).split(BATCH))


def logits_of(network: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Logits in eval mode, float64 (N, C): in float32 two next to each other can become equal once they are divided."""
    with torch.no_grad(), applied(network, EVAL):
        return torch.cat([network(x).double() for x in batches])


def _digest(network: nn.Module) -> str:
    """16 hexadecimal digits that name the weights, so that others are calibrated anew."""
    from safetensors.torch import save

    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    return hashlib.blake2b(save(weights), digest_size=8).hexdigest()
