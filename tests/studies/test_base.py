"""What studies are given."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from vicinal.data import Examples
from vicinal.errors import InputError
from vicinal.studies import Subject


def test_the_test_part_is_measured(images: Subject) -> None:
    assert images.part == "test"
    x, y = images.batches(size=7)[0]
    torch.testing.assert_close(x, images.dataset.test.x[:7])  # type: ignore[union-attr]
    assert y.tolist() == images.dataset.test.y[:7].tolist()  # type: ignore[union-attr]


def test_only_as_many_as_there_are(images: Subject) -> None:
    assert [len(y) for _, y in images.batches(50, size=20)] == [20, 20, 10]
    assert sum(len(y) for _, y in images.batches(10**6)) == images.count() == images.count(10**6)


def test_fewer_examples_are_spread_evenly(images: Subject) -> None:
    """The first rows of a folder would be of one class."""
    y = torch.arange(60) // 20
    dataset = dataclasses.replace(images.dataset, test=Examples(images.dataset.test.x, y))  # type: ignore[union-attr]
    sorted_by_class = dataclasses.replace(images, dataset=dataset)
    (_, found), *more = sorted_by_class.batches(6)
    assert not more
    assert found.bincount().tolist() == [2, 2, 2]
    assert sum(len(y) for _, y in sorted_by_class.stream(None, size=7)) == len(y)


def test_the_fast_network_is_the_network(images: Subject) -> None:
    x, _ = images.batches()[0]
    torch.testing.assert_close(images.fast(x), images.network(x))
    assert images.fast is images.fast is not images.network


def test_without_a_test_part_validation_is_measured(images: Subject) -> None:
    without = dataclasses.replace(images, dataset=dataclasses.replace(images.dataset, test=None))
    assert without.part == "validation"
    torch.testing.assert_close(without.batches(5)[0][0], images.dataset.validation.x[::12])  # type: ignore[union-attr]


def test_without_either_it_is_refused(images: Subject) -> None:
    dataset = dataclasses.replace(images.dataset, test=None, validation=None)
    with pytest.raises(InputError, match="no test and no validation part"):
        dataclasses.replace(images, dataset=dataset)


def test_scale_and_bounds(images: Subject, vectors: Subject) -> None:
    assert (images.scale, images.bounds) == (1.0, (0.0, 1.0))
    assert vectors.bounds is None
    test = vectors.dataset.test
    doubled = dataclasses.replace(
        vectors,
        dataset=dataclasses.replace(vectors.dataset, test=Examples(2 * test.x[:], test.y)),  # type: ignore[union-attr]
    )
    assert doubled.scale == pytest.approx(2 * vectors.scale)
    assert vectors.scale == pytest.approx(test.x[:].std(dim=0, correction=0).square().mean().sqrt().item())  # type: ignore[union-attr]
