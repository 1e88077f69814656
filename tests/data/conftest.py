"""Small data sets, and image files in the published layouts."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


def random_pixels(seed: int, size: tuple[int, int] = (6, 5), channels: int = 3) -> np.ndarray:
    """Random uint8 pixels (H, W, 3), or (H, W) for one channel."""
    shape = size if channels == 1 else (*size, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def write_image() -> Callable[..., np.ndarray]:
    """Writes a random image file and returns its pixels."""
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

    def write(path: Path, seed: int = 0, size: tuple[int, int] = (6, 5), channels: int = 3) -> np.ndarray:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = random_pixels(seed, size, channels)
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


def image_cell(image: np.ndarray, path: str | None = None) -> dict[str, Any]:
    """An image as a cell of a table on the hub."""
    file = io.BytesIO()
    pytest.importorskip("PIL.Image", reason="Pillow is not installed").fromarray(image).save(file, "png")
    return {"bytes": file.getvalue(), "path": path}


@pytest.fixture
def as_cell() -> Callable[..., dict[str, Any]]:
    """Turns pixels into a cell of a table on the hub."""
    return image_cell


@pytest.fixture
def pixels() -> Callable[..., np.ndarray]:
    """Random pixels from a seed."""
    return random_pixels


@pytest.fixture
def write_table(datasets: Any) -> Callable[..., list[np.ndarray]]:
    """Writes a Parquet file as the hub has it and returns the pixels."""

    def write(
        path: Path,
        labels: list[Any],
        *,
        names: list[str] | None = None,
        columns: tuple[str, str] = ("image", "label"),
        channels: int = 3,
        first_seed: int = 0,
        label_type: Any = None,
    ) -> list[np.ndarray]:
        made = [random_pixels(first_seed + k, (4, 4), channels) for k in range(len(labels))]
        kind = label_type or (datasets.ClassLabel(names=names) if names else datasets.Value("int64"))
        features = datasets.Features({columns[0]: datasets.Image(), columns[1]: kind})
        path.parent.mkdir(parents=True, exist_ok=True)
        table = {columns[0]: [image_cell(image) for image in made], columns[1]: labels}
        datasets.Dataset.from_dict(table, features=features).to_parquet(str(path))
        return made

    return write
