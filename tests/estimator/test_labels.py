"""What counts as a label, and how weights of classes become rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from vicinal.errors import InputError
from vicinal.estimator.labels import read_labels, unlabelled_rows, weighted_rows

NAN = float("nan")


@pytest.mark.parametrize(
    ("y", "codes", "classes"),
    [
        ([0, 1, -1], [0, 1, -1], [0, 1]),
        ([7, 3, -1, 7], [1, 0, -1, 1], [3, 7]),
        ([2.0, NAN, 5.0, -1.0], [0, -1, 1, -1], [2.0, 5.0]),
        ([True, False], [1, 0], [False, True]),
        (["b", "a"], [1, 0], ["a", "b"]),
        (np.array(["b", None, "a", NAN, -1], dtype=object), [1, -1, 0, -1, -1], ["a", "b"]),
        (np.array([1, None, 0, -1], dtype=object), [1, -1, 0, -1], [0, 1]),
        (pd.Series([1, None, 0], dtype="Int64"), [1, -1, 0], [0, 1]),
        (pd.Series(["x", None, "y"], dtype="category"), [0, -1, 1], ["x", "y"]),
        (torch.tensor([1, -1, 0]), [1, -1, 0], [0, 1]),
    ],
    ids=str,
)
def test_labels_and_marks(y: Any, codes: list[int], classes: list[Any]) -> None:
    found = read_labels(y)
    assert found.codes.tolist() == codes
    assert found.classes.tolist() == classes


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (None, "requires y to be passed, but the target y is None"),
        ([-1, -1], "no example has a label"),
        ([NAN, NAN], "no example has a label"),
        ([1, 1, 1], "of one class"),
        ([1, -1, 1], "call it 0"),
        ([0.5, 1.25, 2.75], "Unknown label type"),
        ([0.0, float("inf")], "infinity"),
        (np.array(["a", "b", -1]), "dtype=object"),
        (np.array(["a", "b", np.nan]), "dtype=object"),
        (np.array(["a", 1, None], dtype=object), "all texts or all numbers"),
        ([[0, 1], [1, 0]], "1d array"),
    ],
    ids=str,
)
def test_what_is_no_labels(y: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_labels(y)


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        (pd.Series([1, None, 0], dtype="Int64"), "i"),
        (pd.array([1, None, 0], dtype="UInt8"), "u"),
        (pd.Series([True, None, False], dtype="boolean"), "b"),
        (pd.Series([1.0, None, 0.0], dtype="Float64"), "f"),
        (np.array([1.0, NAN, 0.0]), "f"),
        (pd.Series([1, 0, -1]), "i"),
    ],
)
def test_classes_have_the_type_that_they_were_given_in(y: Any, kind: str) -> None:
    assert read_labels(y).classes.dtype.kind == kind


def test_labels_that_are_known_are_not_marks() -> None:
    assert not unlabelled_rows(np.array([0, -2, 5])).any()
    assert not unlabelled_rows(np.array([None, "None"], dtype=object))[1]


def shares(codes: torch.Tensor, weights: list[float]) -> np.ndarray[Any, Any]:
    rows = weighted_rows(codes, torch.nonzero(codes >= 0).flatten(), np.array(weights), seed=0)
    counts = codes[rows].bincount(minlength=len(weights)).double()
    return np.asarray(counts / counts.sum())


@pytest.mark.parametrize(
    ("counts", "weights"),
    [((30, 10), (1, 3)), ((97, 3), (100 / 194, 100 / 6)), ((5, 6, 7), (1, 2, 3)), ((3, 3), (1000, 0.0001))],
)
def test_rows_are_in_proportion_to_the_weights(counts: tuple[int, ...], weights: tuple[float, ...]) -> None:
    codes = torch.repeat_interleave(torch.tensor([-1, *range(len(counts))]), torch.tensor([4, *counts]))
    wanted = np.multiply(counts, weights) / np.dot(counts, weights)
    assert np.allclose(shares(codes, list(weights)), wanted, atol=2e-3)
    assert not np.allclose(shares(codes, [1.0] * len(counts)), wanted, atol=2e-2) or counts == (3, 3)


def test_equal_weights_take_each_labelled_row_once() -> None:
    codes = torch.tensor([-1, 0, 1, 1, -1, 0, 1])
    labelled = torch.nonzero(codes >= 0).flatten()
    assert weighted_rows(codes, labelled, np.array([0.3, 0.3]), seed=1).tolist() == labelled.tolist()


def test_every_row_of_a_class_comes_about_equally_often() -> None:
    codes = torch.tensor([0] * 90 + [1] * 7)
    counts = weighted_rows(codes, torch.arange(97), np.array([1.0, 90 / 7]), seed=0).bincount(minlength=97)
    assert set(counts[:90].tolist()) == {1}
    assert counts[90:].max() - counts[90:].min() <= 1


@pytest.mark.parametrize("weights", [[-1.0, 1.0], [0.0, 0.0], [NAN, 1.0]])
def test_weights_that_are_none(weights: list[float]) -> None:
    with pytest.raises(InputError, match="class_weight"):
        weighted_rows(torch.tensor([0, 1]), torch.arange(2), np.array(weights), seed=0)
