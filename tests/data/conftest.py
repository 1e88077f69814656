"""Small data sets, and image files in the published layouts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


def _pixels(seed: int, size: tuple[int, int] = (6, 5), channels: int = 3) -> np.ndarray:
    """Random uint8 pixels (H, W, 3), or (H, W) for one channel."""
    shape = size if channels == 1 else (*size, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def write_image() -> Callable[..., np.ndarray]:
    """Writes a random image file and returns its pixels."""
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

    def write(path: Path, seed: int = 0, size: tuple[int, int] = (6, 5), channels: int = 3) -> np.ndarray:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = _pixels(seed, size, channels)
        pil.fromarray(made).save(path)
        return made

    return write


@pytest.fixture(scope="session")
def table_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `datasets` keeps its copies during the tests."""
    return tmp_path_factory.mktemp("datasets-cache")


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, table_cache: Path):  # type: ignore[no-untyped-def]
    """The module `datasets`, caching in a temporary folder."""
    module = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(module.config, "HF_DATASETS_CACHE", table_cache)
    return module


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets."""
    root = os.environ.get("VICINAL_DATA")
    if not root:
        pytest.skip("VICINAL_DATA is not set")
    return Path(root)
