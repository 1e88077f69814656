"""Labelling new examples with a trained run."""

from __future__ import annotations

import csv
import io
import os

import torch

from vicinal.data import as_float, read_inputs
from vicinal.errors import InputError
from vicinal.evaluation import probabilities
from vicinal.networks import Autoencoder
from vicinal.runs import Run, WhichName

BATCH = 500


def predict(run: Run, source: str | os.PathLike[str], *, which: WhichName = "last") -> str:
    """Labels and probabilities of new examples, as CSV: name, label, probability.

    Args:
        run: a trained run.
        source: a folder of images, one image, or an ``.npz`` file with an array ``x``; see `vicinal.data.read_inputs`.
        which: weights at the end of training, or at the lowest validation error.

    Raises:
        InputError: there is nothing to read, an image is damaged, or shapes do not fit the run's.
    """
    trained = run.network(which)
    if isinstance(trained.network, Autoencoder):
        raise InputError(f"{run.path}: trained an autoencoder, which labels nothing; name the run of a classifier")
    names, x = read_inputs(source, trained.shape, size=run.experiment.data.settings.get("size"))
    batches = (as_float(x[rows]) for rows in torch.arange(len(names)).split(BATCH))
    best = probabilities(trained.network, batches).max(dim=1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "label", "probability"))
    for name, label, probability in zip(names, best.indices.tolist(), best.values.tolist(), strict=True):
        writer.writerow((name, trained.classes[label], f"{probability:.6f}"))
    return text.getvalue()
