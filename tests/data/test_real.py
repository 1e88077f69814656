"""Published facts of real data sets, read by the presets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vicinal.data import Dataset, Examples, load
from vicinal.settings import Choice

pytestmark = pytest.mark.usefixtures("datasets")


def moments(part: Examples) -> list[tuple[float, float]]:
    """Mean and standard deviation of each channel, in [0,1], from the counts of the 256 values."""
    assert isinstance(part.x, torch.Tensor)
    found = []
    for c in range(part.x.shape[1]):
        share = part.x[:, c].flatten().bincount(minlength=256).double() / part.x[:, c].numel()
        level = torch.arange(256).double() / 255
        mean = (share * level).sum()
        found.append((round(mean.item(), 4), round((share * (level - mean) ** 2).sum().sqrt().item(), 4)))
    return found


def counts(part: Examples | None) -> list[int]:
    assert part is not None
    return part.y.bincount().tolist()


def read(name: str, folder: str, vicinal_data: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    if not (vicinal_data / folder).is_dir():
        pytest.skip(f"VICINAL_DATA has no folder {folder}")
    monkeypatch.setenv("VICINAL_DATA", str(vicinal_data))
    return load(Choice(name))


def test_cifar10(vicinal_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read("cifar10", "cifar10", vicinal_data, monkeypatch)
    assert data.shape == (3, 32, 32)
    assert data.classes[0] == "airplane"
    assert (counts(data.train), counts(data.test), data.validation) == ([5000] * 10, [1000] * 10, None)
    assert [mean for mean, _ in moments(data.train)] == [0.4914, 0.4822, 0.4465]


def test_fashion_mnist(vicinal_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read("fashion_mnist", "fashion-mnist", vicinal_data, monkeypatch)
    assert data.shape == (1, 28, 28)
    assert (counts(data.train), counts(data.test)) == ([6000] * 10, [1000] * 10)
    assert moments(data.train) == [(0.286, 0.353)]


def test_pneumoniamnist(vicinal_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read("pneumoniamnist", "pneumoniamnist", vicinal_data, monkeypatch)
    assert data.validation is not None
    assert data.test is not None
    assert (data.shape, data.classes) == ((1, 28, 28), ("normal", "pneumonia"))
    assert counts(data.train) == [1214, 3494]
    assert (len(data.validation), len(data.test)) == (524, 624)
    assert moments(data.train)[0][0] == 0.5719
