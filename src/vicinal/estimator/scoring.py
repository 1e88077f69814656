"""Scores of partly labelled data: scikit-learn's, on the examples that have a label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vicinal.errors import InputError
from vicinal.estimator.labels import plain, unlabelled_rows


def labelled_part(X: Any, y: Any, sample_weight: Any = None) -> tuple[Any, Any, Any]:
    """Those examples, labels and weights that have a label; marks are those of `vicinal.estimator.labels.read_labels`.

    Args:
        X: examples (n, ...), of any kind that can be indexed.
        y: labels (n,).
        sample_weight: (n,), or None.

    Raises:
        InputError: none has a label.
    """
    from sklearn.utils import _safe_indexing, column_or_1d
    from sklearn.utils.validation import _num_samples

    values = column_or_1d(y)
    rows = np.flatnonzero(~unlabelled_rows(values))
    if not len(rows):
        raise InputError("y: no example has a label to score on; stratify the folds, or use fewer of them")
    known = values[rows]
    if known.dtype.kind == "O":
        numbers = plain(known)
        known = known if numbers.dtype.kind == "U" else numbers
    if len(rows) < _num_samples(X):
        X = _safe_indexing(X, rows)
        sample_weight = None if sample_weight is None else _safe_indexing(sample_weight, rows)
    return X, known, sample_weight


class _LabelledScorer:
    """A scorer that looks at labelled examples alone. A class, so that other processes can be sent it."""

    def __init__(self, scorer: Callable[..., float], name: str) -> None:
        self._scorer, self._name = scorer, name

    def __call__(self, estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
        X, y, sample_weight = labelled_part(X, y, sample_weight)
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        return self._scorer(estimator, X, y, **weights)

    def __repr__(self) -> str:
        return f"labelled_scorer({self._name})"


def labelled_scorer(scoring: str | Callable[..., float]) -> Callable[..., float]:
    """A scorer of scikit-learn that leaves unlabelled examples out, for ``cross_val_score`` and ``GridSearchCV``.

    Args:
        scoring: a name of `sklearn.metrics.get_scorer_names`, or a scorer.

    Returns:
        What ``scoring=`` takes. It raises `InputError` on a fold without any label.

    Raises:
        ValueError: an unknown name (scikit-learn's words).

    >>> labelled_scorer("neg_log_loss")
    labelled_scorer('neg_log_loss')
    """
    from sklearn.metrics import get_scorer

    return _LabelledScorer(get_scorer(scoring), repr(scoring))
