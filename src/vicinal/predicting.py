"""Labelling new examples with a trained run."""

from __future__ import annotations

import csv
import io
import os

import torch
from torch import Tensor

from vicinal.data import as_float, read_inputs
from vicinal.evaluation import probabilities
from vicinal.runs import Run, WhichName

BATCH = 500


def predict(run: Run, source: str | os.PathLike[str], *, which: WhichName = "last") -> str:
    """Labels and probabilities of new examples, as CSV: name, label, probability.

    Args:
        run: a trained run.
        source: a folder of images, one image, or an ``.npz`` file with an array ``x``.
        which: weights at the end of training, or at the lowest validation error.

    Raises:
        InputError: there is nothing to read, an image is damaged, or shapes do not fit the run's.
    """
    trained = run.network(which)
    names, x = read_inputs(source, trained.shape)
    parts: list[Tensor] = [as_float(x[start : start + BATCH]) for start in range(0, len(x), BATCH)]
    p = probabilities(trained.network, parts)
    best = torch.max(p, dim=1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "label", "probability"))
    for name, probability, label in zip(names, best.values.tolist(), best.indices.tolist(), strict=True):
        writer.writerow((name, trained.classes[label], f"{probability:.6f}"))
    return text.getvalue()
