"""Labels as scikit-learn's users give them: classes of any kind, unlabelled marks, weights of classes."""

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vicinal.errors import InputError
from vicinal.randomness import generator

UNLABELLED = -1
# What NumPy makes of the marks when it turns a list of texts and marks into an array of texts.
_TEXTS_OF_MARKS = ("-1", "nan")
_LONGEST = 20


class Labels(NamedTuple):
    """What was read from ``y``.

    Attributes:
        codes: positions in ``classes``, int64 (n,); -1 where there is no label.
        classes: the classes, sorted, of the kind that they were given in.
    """

    codes: NDArray[np.int64]
    classes: NDArray[Any]


def read_labels(y: Any) -> Labels:
    """Tell labels from unlabelled marks.

    Unlabelled are: -1 among numbers; NaN among floats; None, NaN, ``pandas.NA`` and the number -1 among objects. The
    classes are whole numbers, truth values or texts, of the type that they were given in: floats stay floats, and
    pandas' nullable integers and truth values, which pandas.NA makes floats of, become what they were.

    Args:
        y: (n,), or (n, 1) with a warning.

    Raises:
        InputError: no labels at all, one class alone, infinity, marks that NumPy made texts of, or a mixture of texts
            and numbers.
        ValueError: another shape, or real numbers that are no classes (scikit-learn's words).

    >>> read_labels(["cat", None, "dog", None])
    Labels(codes=array([ 0, -1,  1, -1]), classes=array(['cat', 'dog'], dtype=object))
    """
    from sklearn.utils import column_or_1d
    from sklearn.utils.multiclass import check_classification_targets

    if y is None:
        raise InputError(
            "y: VicinalClassifier requires y to be passed, but the target y is None; give -1 where there is no label"
        )
    values = column_or_1d(y, warn=True)
    unlabelled = unlabelled_rows(values)
    known = values[~unlabelled]
    if not len(known):
        raise InputError("y: no example has a label; label a few examples of each class")
    if known.dtype.kind == "O":
        known = plain(known)
    check_classification_targets(known)
    given = getattr(getattr(y, "dtype", None), "numpy_dtype", known.dtype)  # of pandas' nullable types alone
    known = known if given.kind == "O" else known.astype(given)
    classes, inverse = np.unique(known, return_inverse=True)
    if len(classes) < 2:
        marks = "; -1 means unlabelled: if it is a class here, call it 0" if _is_minus_one(values).any() else ""
        raise InputError(f"y: all labels are of one class ({classes[0]}); label examples of at least one more{marks}")
    codes = np.full(len(values), UNLABELLED, dtype=np.int64)
    codes[~unlabelled] = inverse
    if values.dtype.kind == "O" and classes.dtype.kind == "U":
        classes = classes.astype(object)
    return Labels(codes, classes)


def unlabelled_rows(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which labels (n,) are unlabelled marks, see `read_labels`.

    Raises:
        InputError: infinity, or marks that NumPy made texts of.
    """
    kind = values.dtype.kind
    if kind == "f":
        if np.isinf(values).any():
            raise InputError("y: contains infinity; classes are whole numbers or texts")
        return cast("NDArray[np.bool_]", np.isnan(values) | (values == UNLABELLED))
    if kind in "US":
        for text in _TEXTS_OF_MARKS:
            if (values == text).any():
                raise InputError(
                    f"y: holds the text {text!r}, which NumPy makes of a mark among texts; use None for unlabelled, in "
                    "an array of objects (dtype=object)"
                )
        return np.zeros(len(values), dtype=np.bool_)
    if kind == "O":
        return np.array([_is_missing(value) for value in values], dtype=np.bool_) | _is_minus_one(values)
    return _is_minus_one(values)


def _is_missing(value: Any) -> bool:
    # pandas.NA compares to nothing; to ask for it by name saves importing pandas.
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, Real) and value != value)
    )


def _is_minus_one(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind == "O":
        return np.array([isinstance(v, Real) and v == UNLABELLED for v in values], dtype=np.bool_)
    return np.zeros(len(values), np.bool_) if values.dtype.kind not in "if" else values == UNLABELLED


def plain(known: NDArray[Any]) -> NDArray[Any]:
    """Objects as an array of texts or of numbers.

    Raises:
        InputError: they are of several kinds.
    """
    if all(isinstance(value, str) for value in known):
        return known.astype(np.str_)
    if all(isinstance(value, Real) for value in known):
        return np.array(known.tolist())
    kinds = sorted({type(value).__name__ for value in known})
    raise InputError(f"y: unknown label type: classes must be all texts or all numbers, got {', '.join(kinds)}")


def weighted_rows(codes: Tensor, rows: Tensor, weights: NDArray[np.float64], *, seed: int) -> Tensor:
    """Labelled rows, repeated so that a class is drawn in proportion to its weight.

    A pass over the result visits class c in a share w_c n_c / sum_k w_k n_k of its rows, so the expected gradient of
    every supervised term, mixed ones too, is that of the loss in which each example counts with its class's weight.
    Equal weights give each row once. The list is up to 20 times as long as ``rows`` (at least 1000): shares are exact
    to half a row of it, and a class whose share is below that is left out.

    Args:
        codes: classes of all rows, int64.
        rows: the labelled rows, int64 (n,).
        weights: one for each class, not negative, (K,).
        seed: names the order in which a class's rows are repeated.

    Raises:
        InputError: a weight is negative or not finite, or all labelled rows have weight 0.

    >>> weighted_rows(torch.tensor([0, 0, 0, 1]), torch.arange(4), np.array([1.0, 3.0]), seed=0).bincount().tolist()
    [1, 1, 1, 3]
    """
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise InputError(f"class_weight: weights must be finite and at least 0, got {weights.tolist()}")
    of_class = [rows[codes[rows] == c] for c in range(len(weights))]
    counts = np.array([len(found) for found in of_class])
    if not (weights * counts).sum() > 0:
        raise InputError("class_weight: every labelled example has weight 0; give at least one class a weight")
    shares = weights * counts / (weights * counts).sum()
    wanted = np.divide(counts, shares, out=np.zeros(len(counts)), where=shares > 0).max()
    length = min(round(wanted), max(_LONGEST * len(rows), 1000))
    parts = []
    for c, found in enumerate(of_class):
        order = torch.randperm(len(found), generator=generator(seed, "class weights", c))
        parts.append(found[order[torch.arange(round(shares[c] * length)) % max(len(found), 1)]])
    return torch.cat(parts).sort().values
