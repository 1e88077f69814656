"""Which labels next? The unlabelled examples whose labels would help a trained run most.

Two things are wanted of a batch of examples to label: the network is unsure of each, and no two are alike. The first
without the second asks for the same ambiguous image fifty times.

1. The candidates are the ``10 n`` examples of greatest uncertainty (pre-filtering by a multiple of the batch: Zhdanov
   2019). Uncertainty is 1 minus the margin between the two largest probabilities (Scheffer et al. 2001), or the entropy
   of the probabilities divided by log K (see Settles 2009 on both).
2. From them one after the other is taken: always the one of greatest uncertainty times squared distance, in the space
   of the network's features, to the nearest example that is labelled or taken already. Without the uncertainty this is
   the greedy k-centre choice of Sener and Savarese 2018. Drawing with these weights instead of taking the greatest
   would be k-means++ seeding (Arthur and Vassilvitskii 2007), which Ash et al. 2020 use on gradients; that the same
   run suggests the same examples is our choice.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from vicinal.data import Rows, Subset, as_float
from vicinal.data.folders import list_folder
from vicinal.data.images import is_image_folder
from vicinal.errors import InputError, MissingExtraError
from vicinal.networks import EVAL, Parts, applied
from vicinal.predicting import BATCH, classifier, data_of, in_batches, logits_of, new_inputs
from vicinal.reporting import Table
from vicinal.reporting.contact_sheet import Section, contact_sheet
from vicinal.runs import Run, WhichName

Score = Literal["margin", "entropy"]
CANDIDATES = 10
"""Candidates per suggestion."""
HEADER = ("rank", "name", "label", "probability", "second", "margin", "entropy")
"""Columns of the list."""


class Suggestion(NamedTuple):
    """An example to label.

    Attributes:
        name: its file, relative to the folder that it lies in, or the number of its row.
        label: the class that the network thinks it is.
        probability: how probable, in [0,1].
        second: the next class.
        margin: probability minus that of the next class, in [0,1].
        entropy: of all probabilities, divided by log K, in [0,1].
        picture: the example, (C, H, W) or (D,).
    """

    name: str
    label: str
    probability: float
    second: str
    margin: float
    entropy: float
    picture: Tensor


class Suggestions(NamedTuple):
    """Examples to label, the most helpful first.

    Attributes:
        items: the examples.
        pool: number of examples that they were chosen from.
        source: where those are.
        damaged: what is wrong with each image that was skipped, by name.
    """

    items: tuple[Suggestion, ...]
    pool: int
    source: str
    damaged: dict[str, str]

    def csv(self) -> str:
        """A line for each: rank, name, label, probability, second, margin, entropy."""
        rows = []
        for rank, each in enumerate(self.items, 1):
            probability, margin, entropy = (f"{value:.6f}" for value in (each.probability, each.margin, each.entropy))
            rows.append((str(rank), each.name, each.label, probability, each.second, margin, entropy))
        return Table("", HEADER, tuple(rows)).csv()

    def sheet(self) -> bytes | None:
        """The examples as a contact sheet (PNG), or None where they are no pictures.

        Raises:
            MissingExtraError: Pillow is not installed.
        """
        if not self.items or self.items[0].picture.dim() != 3 or self.items[0].picture.shape[0] not in (1, 3):
            return None
        captions = [
            f"{rank}: {each.label} or {each.second}, {each.probability:.2f}" for rank, each in enumerate(self.items, 1)
        ]
        title = f"{len(self.items)} of {self.pool} examples without label, {self.source}"
        return contact_sheet([Section(title, [each.picture for each in self.items], captions)])


def suggest(
    run: Run,
    n: int = 50,
    source: str | os.PathLike[str] | None = None,
    *,
    score: Score = "margin",
    which: WhichName = "last",
    skip_damaged: bool = False,
) -> Suggestions:
    """The examples to label next.

    Args:
        run: a trained run of a classifier.
        n: how many, at least 1; fewer where there are fewer.
        source: a folder of images, or an ``.npz`` file; by default the run's own examples without label. What the run
            has labels of counts as labelled here too, if its data are still what they were.
        score: what uncertainty is.
        which: weights at the end of training, or at the lowest validation error.
        skip_damaged: of a folder, leave out images that cannot be read, instead of refusing.

    Raises:
        InputError: there is nothing to choose from, or it does not fit the run.
    """
    trained = classifier(run, which)
    names, x, labelled, damaged = _pool(run, source, which, skip_damaged=skip_damaged)
    p = logits_of(trained.network, (as_float(x[rows]) for rows in in_batches(len(x)))).softmax(dim=1)
    top, entropy = p.topk(2, dim=1), -torch.special.xlogy(p, p).sum(dim=1) / math.log(p.shape[1])
    margin = top.values[:, 0] - top.values[:, 1]
    uncertainty = 1 - margin if score == "margin" else entropy
    candidates = uncertainty.argsort(descending=True, stable=True)[: CANDIDATES * n]
    features = _features(trained.network, x, candidates)
    known = None if labelled is None else _features(trained.network, *labelled)
    chosen = candidates[diverse(features, uncertainty[candidates], n, known)].tolist()
    items = tuple(
        Suggestion(
            names[row],
            trained.classes[int(top.indices[row, 0])],
            float(top.values[row, 0]),
            trained.classes[int(top.indices[row, 1])],
            float(margin[row]),
            float(entropy[row]),
            x[torch.tensor([row])][0],
        )
        for row in chosen
    )
    return Suggestions(items, len(names), str(source if source is not None else run.experiment.data.name), damaged)


def diverse(features: Tensor, uncertainty: Tensor, n: int, known: Tensor | None = None) -> Tensor:
    """Rows that are uncertain and far from each other and from what is known, greedily.

    Args:
        features: (N, D).
        uncertainty: at least 0, (N,).
        n: how many rows, at least 1; all where there are fewer.
        known: features (M, D) of examples that are labelled already, or None.

    Returns:
        Rows, int64 (min(n, N),), in the order in which they were taken. Where all that is left has uncertainty 0 or
        equals what was taken, the first rows come first.

    >>> line = torch.tensor([[0.0], [0.1], [5.0], [9.0]])
    >>> diverse(line, torch.tensor([1.0, 0.9, 0.3, 0.8]), 3)
    tensor([0, 3, 2])
    """
    features, gain = features.double(), uncertainty.double()
    nearest = torch.full((len(features),), math.inf, dtype=torch.float64)
    if known is not None and len(known):
        for part in known.double().split(10_000):
            nearest = torch.minimum(nearest, torch.cdist(features, part).square().min(dim=1).values)
    taken: list[int] = []
    free = torch.ones(len(features), dtype=torch.bool)
    for _ in range(min(n, len(features))):
        # Where nothing is known and nothing taken, all are equally far.
        worth = gain * (torch.ones(()) if bool(nearest.isinf().all()) else nearest)
        row = int(worth.masked_fill(~free, -1).argmax())
        taken.append(row)
        free[row] = False
        nearest = torch.minimum(nearest, (features - features[row]).square().sum(dim=1))
    return torch.tensor(taken, dtype=torch.int64)


def _pool(
    run: Run, source: str | os.PathLike[str] | None, which: WhichName, *, skip_damaged: bool
) -> tuple[list[str], Rows, tuple[Rows, Tensor] | None, dict[str, str]]:
    """What to choose from: names and inputs; rows that are labelled already (of other inputs); what was skipped."""
    if source is not None:
        names, x, damaged = new_inputs(run, classifier(run, which), source, skip_damaged=skip_damaged)
        try:
            dataset, split = data_of(run)
        except (InputError, MissingExtraError, OSError):  # the new images can be chosen from all the same
            return names, x, None, damaged
        return names, x, (dataset.train.x, split.labelled), damaged
    dataset, split = data_of(run)
    rows = split.unlabelled[~torch.isin(split.unlabelled, split.labelled)]
    if not len(rows):
        raise InputError(f"{run.path}: the run has no examples without label; give a folder of them with --input")
    path = str(dataset.source.get("data", ""))
    names = [str(row) for row in rows.tolist()]
    if path and is_image_folder(path):
        root = Path(path).expanduser()
        files = list_folder(root)["train"].paths
        names = [os.fsencode(files[row].relative_to(root)).decode("utf-8", "replace") for row in rows.tolist()]
    return names, Subset(dataset.train.x, rows), (dataset.train.x, split.labelled), {}


def _features(network: nn.Module, x: Rows, rows: Tensor) -> Tensor:
    """Features (n, D) of some rows; the logits of a network that has no features to offer."""
    with torch.no_grad(), applied(network, EVAL):
        parts = [cast(Parts, network(as_float(x[part]), part="all")) for part in rows.split(BATCH)]
    return torch.cat([part.features for part in parts])
