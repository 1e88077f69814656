"""Which training rows carry a label, which are used without one, and which select the model.

A split depends on the seed and, through the balancing, on the labels; it never sees the test part. The rows of a class
are put in one random order per seed: the validation rows are its first, the labelled rows the ones after. So two label
counts with the same seed and validation share their validation rows, and the smaller labelled set lies in the larger.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vicinal.data.types import Dataset, Examples, Rows
from vicinal.errors import InputError
from vicinal.randomness import generator

DEFAULT_VALIDATION = 0.1


@dataclass(frozen=True)
class Split:
    """How the training part is divided.

    Args:
        labels: number of labelled rows in all; none given means every labelled row that is left after validation.
        validation: rows taken out of the training part for model selection, a count or a fraction of its labelled rows
            in [0,1). They are stratified by class. None given means the published validation part where there is one,
            else a tenth.
        balanced: draw the same number of labels per class; a remainder goes to classes drawn by the seed.
        labelled_in_unlabelled: keep the labelled rows in the unlabelled pool as well.
        seed: seed of this split; none given means the seed of the experiment.
    """

    labels: int | None = None
    validation: int | float | None = None
    balanced: bool = True
    labelled_in_unlabelled: bool = True
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and self.labels < 1:
            raise InputError(f"labels must be at least 1, got {self.labels}")
        if self.validation is None:
            return
        if not self.validation >= 0:
            raise InputError(f"validation must be at least 0, got {self.validation}")
        if isinstance(self.validation, float) and not self.validation < 1:
            raise InputError(
                f"validation: a fraction must be below 1, got {self.validation}; give a whole number for a count"
            )


@dataclass(frozen=True)
class SplitIndices:
    """Rows of the training part, each list ascending, int64. Says nothing about labels.

    Args:
        labelled: rows used with their label.
        unlabelled: rows used without one.
        validation: rows that select the model; disjoint from both others.
        published_validation: the published validation part selects the model, and ``validation`` is empty.
    """

    labelled: Tensor
    unlabelled: Tensor
    validation: Tensor
    published_validation: bool = False

    def validation_examples(self, dataset: Dataset) -> Examples | None:
        """The examples that select the model, or None if there are none."""
        if self.published_validation:
            return dataset.validation
        if not len(self.validation):
            return None
        x = dataset.train.x
        picked: Rows = x[self.validation] if isinstance(x, Tensor) else Subset(x, self.validation)
        return Examples(picked, dataset.train.y[self.validation])

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that name these lists."""
        return hashlib.blake2b(self._text().encode(), digest_size=16).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the lists as JSON."""
        Path(path).write_text(self._text() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SplitIndices:
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing or is not a split.
        """
        try:
            read = json.loads(Path(path).read_text(encoding="utf-8"))
            lists = {
                key: torch.tensor(read[key], dtype=torch.int64) for key in ("labelled", "unlabelled", "validation")
            }
            published = bool(read["published_validation"])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{path}: not a readable split: {str(error).splitlines()[0]}") from error
        return cls(**lists, published_validation=published)

    def _text(self) -> str:
        return json.dumps(
            {
                "labelled": self.labelled.tolist(),
                "unlabelled": self.unlabelled.tolist(),
                "validation": self.validation.tolist(),
                "published_validation": self.published_validation,
            }
        )


class Subset:
    """Some rows of other rows, addressed from 0 (`vicinal.data.types.Rows`)."""

    def __init__(self, rows: Rows, index: Tensor) -> None:
        self._rows = rows
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self._rows[self._index[index.cpu()]]


def make_split(dataset: Dataset, split: Split, seed: int) -> SplitIndices:
    """Divide the training part of ``dataset``.

    Args:
        dataset: rows of its training part with label -1 only ever go to the unlabelled pool.
        split: how to divide it.
        seed: the experiment's seed, used unless ``split.seed`` is given.

    Raises:
        InputError: there are not enough labels for what ``split`` asks, or a class would be left without any.
    """
    seed = seed if split.seed is None else split.seed
    y, names = dataset.train.y, dataset.classes
    orders = []
    for c, name in enumerate(names):
        rows = torch.nonzero(y == c).flatten()
        if not len(rows):
            raise InputError(f"class {name!r} has no labelled training example; label some, or leave the class out")
        orders.append(rows[torch.randperm(len(rows), generator=generator(seed, "split", c))])
    counts = [len(order) for order in orders]
    published = split.validation is None and dataset.validation is not None
    held_out = [0] * len(names) if published else _validation_counts(split.validation, counts, seed)
    left = [count - held for count, held in zip(counts, held_out, strict=True)]
    taken = _label_counts(split, left, names, seed)
    labelled = torch.cat([o[h : h + t] for o, h, t in zip(orders, held_out, taken, strict=True)]).sort().values
    validation = torch.cat([o[:h] for o, h in zip(orders, held_out, strict=True)]).sort().values
    pool = torch.ones(len(y), dtype=torch.bool)
    pool[validation] = False
    if not split.labelled_in_unlabelled:
        pool[labelled] = False
    return SplitIndices(labelled, torch.nonzero(pool).flatten(), validation, published)


def _validation_counts(asked: float | None, counts: list[int], seed: int) -> list[int]:
    """Validation rows per class, in proportion to the classes; at least one row of each class stays for training."""
    total, room = sum(counts), sum(counts) - len(counts)
    asked = DEFAULT_VALIDATION if asked is None else asked
    wanted = round(asked * total) if isinstance(asked, float) else asked
    if wanted > room:
        raise InputError(
            f"validation: {wanted} of {total} labelled training examples leave too few to train on: at most {room} "
            "can be taken, so that every class keeps one; lower validation"
        )
    held = [min(wanted * count // total, count - 1) for count in counts]
    # Largest remainder first; ties in an order drawn by the seed, so that no class is favoured.
    tie = torch.randperm(len(counts), generator=generator(seed, "split-validation")).tolist()
    order = sorted(range(len(counts)), key=lambda c: (-(wanted * counts[c] / total - held[c]), tie[c]))
    while sum(held) < wanted:
        for c in order:
            if sum(held) < wanted and held[c] < counts[c] - 1:
                held[c] += 1
    return held


def _label_counts(split: Split, left: list[int], names: tuple[str, ...], seed: int) -> list[int]:
    """Labelled rows per class."""
    if split.labels is None:
        return left
    labels, total, classes = split.labels, sum(left), len(left)
    if labels > total:
        raise InputError(
            f"labels: {labels} asked for, but only {total} labelled training examples are left after validation; "
            "lower labels or validation"
        )
    order = torch.randperm(classes, generator=generator(seed, "split-remainder")).tolist()
    if not split.balanced:
        return _unbalanced_counts(labels, left, names, seed)
    if labels < classes:
        raise InputError(
            f"labels: {labels} cannot be balanced over {classes} classes; ask for at least {classes}, "
            "or set balanced to false"
        )
    taken = [labels // classes] * classes
    for c in order[: labels % classes]:
        taken[c] += 1
    for c in range(classes):
        if taken[c] > left[c]:
            raise InputError(
                f"labels: class {names[c]!r} has {left[c]} labelled examples left after validation, but {taken[c]} are "
                f"needed for {labels} balanced labels; lower labels or set balanced to false"
            )
    return taken


def _unbalanced_counts(labels: int, left: list[int], names: tuple[str, ...], seed: int) -> list[int]:
    """Counts per class of the first ``labels`` rows of one permutation over all classes (VAT's SVHN protocol)."""
    owner = torch.repeat_interleave(torch.arange(len(left)), torch.tensor(left))
    first = owner[torch.randperm(len(owner), generator=generator(seed, "split-unbalanced"))[:labels]]
    taken: list[int] = torch.bincount(first, minlength=len(left)).tolist()
    for c, count in enumerate(taken):
        if not count:
            raise InputError(
                f"labels: the {labels} drawn with seed {seed} leave class {names[c]!r} without any; "
                "ask for more, or set balanced to true"
            )
    return taken
