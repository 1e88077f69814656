"""Checks that labels are what the rest relies on, and the digest that names a data set's content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vicinal.data.types import Examples
from vicinal.errors import InputError


def as_labels(where: str, y: Any, rows: int, *, complete: bool = False) -> Tensor:
    """Labels as int64 (N,).

    Args:
        where: their name, for messages.
        y: (N,) or (N, 1) whole numbers of any numeric type, -1 where unknown.
        rows: N.
        complete: whether every label must be known.

    Raises:
        InputError: wrong shape or length, not whole numbers, below -1, or unknown although ``complete``.
    """
    values = np.asarray(y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"{where}: expected one label per example, shape (N,), got shape {values.shape}")
    if len(values) != rows:
        raise InputError(f"{where}: {len(values)} labels for {rows} examples; there must be one per example")
    if values.dtype.kind not in "biuf":
        raise InputError(f"{where}: labels must be whole numbers (class indices), got values of type {values.dtype}")
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise InputError(f"{where}: labels contain NaN or infinity; mark unlabelled examples by -1")
        if (values != np.round(values)).any():
            wrong = values[values != np.round(values)][0]
            raise InputError(f"{where}: labels must be whole numbers (class indices), got {wrong}")
    result = torch.from_numpy(values.astype(np.int64))
    if len(result) and int(result.min()) < -1:
        raise InputError(f"{where}: label {int(result.min())} is negative; only -1 (unlabelled) may be")
    if complete and bool((result == -1).any()):
        row = int((result == -1).nonzero()[0])
        raise InputError(f"{where}: row {row} has no label (-1); only training examples may be unlabelled")
    return result


def class_names(train: Tensor, others: Sequence[Tensor], classes: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the classes, ``"0"``, ``"1"``, ... if none are given.

    Args:
        train: training labels, int64, -1 where unknown.
        others: labels of the other parts.
        classes: names in the order of the class indices, if known.

    Raises:
        InputError: no label at all, only one class, a label without a name, or (without names) classes that no training
            label belongs to, since then the number of classes is a guess.
    """
    present = torch.unique(train[train >= 0])
    if not len(present):
        raise InputError("the training part has no labels at all; label a few examples of each class")
    if len(present) == 1:
        only = classes[int(present)] if classes is not None and int(present) < len(classes) else int(present)
        raise InputError(
            f"all labelled training examples belong to one class ({only}); at least two classes are needed"
        )
    top = max(int(y.max()) for y in (train, *others) if len(y))
    if classes is not None:
        if len(set(classes)) != len(classes):
            raise InputError("classes: two classes have the same name")
        if top >= len(classes):
            raise InputError(
                f"label {top} is out of range: there are {len(classes)} class names, so at most {len(classes) - 1}"
            )
        return tuple(classes)
    missing = sorted(set(range(top + 1)) - set(present.tolist()))
    if missing:
        raise InputError(
            f"no training example has label {missing[0]}, but labels go up to {top}; renumber the labels 0, 1, ... "
            "without gaps, or name all classes"
        )
    return tuple(str(c) for c in range(top + 1))


def content_digest(*parts: Examples | None) -> str:
    """32 hexadecimal digits that name inputs and labels; equal exactly for equal content.

    Args:
        parts: parts of a data set whose inputs are tensors.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if part is None:
            digest.update(b"none")
            continue
        for tensor in (part.x, part.y):
            if not isinstance(tensor, Tensor):
                raise TypeError("only inputs in memory have a content digest")
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
