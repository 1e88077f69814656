"""Subjects of studies: small trained-looking networks on small data."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vicinal.data import Dataset, Examples, SplitIndices
from vicinal.networks import Classifier
from vicinal.studies import Subject


def _subject(shape: tuple[int, ...], n: int = 60, classes: int = 3, **changes: object) -> Subject:
    draws = torch.Generator().manual_seed(0)
    x = torch.rand((3 * n, *shape), generator=draws)
    if len(shape) == 1:
        x = 4 * x - 2
    # A class is the third of the range that the mean of an example lies in, so that a linear network can learn it.
    level = x.flatten(1).mean(dim=1)
    y = torch.bucketize(level, level.quantile(torch.linspace(0, 1, classes + 1)[1:-1]))
    parts = [Examples(x[k * n : (k + 1) * n], y[k * n : (k + 1) * n]) for k in range(3)]
    names = tuple("abcdefghij"[:classes])
    dataset = Dataset("made", parts[0], parts[1], parts[2], names, shape, {"made": True})
    rows = torch.arange(n)
    split = SplitIndices(
        labelled=rows[: n // 2], unlabelled=rows[n // 2 :], validation=rows[:0], published_validation=True
    )
    given = {"network": fitted(x, y, classes), "dataset": dataset, "split": split, "preprocess": "none"} | changes
    return Subject(**given)  # type: ignore[arg-type]


def fitted(x: torch.Tensor, y: torch.Tensor, classes: int, seed: int = 0) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width = x[0].numel()
        body = nn.Sequential(nn.Flatten(), nn.Linear(width, 16), nn.ReLU())
        network = Classifier(nn.Identity(), body, nn.Linear(16, classes), feature_dim=16, classes=classes)
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimiser.step()
    optimiser.zero_grad()
    return network.eval()


@pytest.fixture(scope="session")
def images() -> Subject:
    """Images (1, 6, 6) in three classes."""
    return _subject((1, 6, 6))


@pytest.fixture(scope="session")
def vectors() -> Subject:
    """Feature vectors (4,) in three classes."""
    return _subject((4,))


@pytest.fixture(scope="session")
def plane() -> Subject:
    """Points in the plane in two classes."""
    return _subject((2,), classes=2)
