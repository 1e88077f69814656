"""Small data that several files fit on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.datasets import make_blobs


class Few(NamedTuple):
    """Examples, what is known of their labels, and all labels."""

    X: Any
    y: Any
    truth: Any


@pytest.fixture(scope="session")
def blobs() -> Few:
    """Three blobs of 40 vectors, 3 labels each."""
    X, truth = make_blobs(120, centers=3, n_features=4, random_state=0)
    y = np.full(120, -1)
    for c in range(3):
        rows = np.flatnonzero(truth == c)[:3]
        y[rows] = c
    return Few(X, y, truth)


@pytest.fixture(scope="session")
def stripes() -> Few:
    """Grey images 8x8, uint8: horizontal or vertical stripes; 4 labels of each."""
    rng = np.random.default_rng(0)
    truth = np.arange(40) % 2
    waves = 120 + 100 * np.sin(np.arange(8) * 1.6 + rng.uniform(0, 6, 40)[:, None])
    X = np.where(truth[:, None, None] == 0, waves[:, :, None], waves[:, None, :]) + rng.normal(0, 10, (40, 8, 8))
    return Few(X.clip(0, 255).astype(np.uint8), np.where(np.arange(40) < 8, truth, -1), truth)
