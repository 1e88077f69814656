"""Presets of well-known sets, in the layouts in which they are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vicinal.data import Dataset, load
from vicinal.errors import InputError
from vicinal.settings import Choice


def read(name: Path | str, /, **settings: Any) -> Dataset:
    return load(Choice(str(name), settings))


def picture(data: Dataset, row: int) -> np.ndarray:
    return data.train.x[torch.tensor([row])][0].permute(1, 2, 0).numpy()


LAYOUTS: dict[str, tuple[str, tuple[str, str], list[str], int, str]] = {
    "cifar10": ("cifar10/plain_text", ("img", "label"), [str(c) for c in range(10)], 3, "test"),
    "svhn": ("svhn", ("image", "label"), [str(c) for c in range(10)], 3, "test"),
    "tiny_imagenet": ("tiny-imagenet/data", ("image", "label"), [f"n{c:08d}" for c in range(200)], 3, "valid"),
    "mnist": ("mnist/mnist", ("image", "label"), [str(c) for c in range(10)], 1, "test"),
    "fashion_mnist": ("fashion-mnist/fashion_mnist", ("image", "label"), [f"kind {c}" for c in range(10)], 1, "test"),
    "pneumoniamnist": ("pneumoniamnist", ("image", "label"), ["normal", "pneumonia"], 1, "test"),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("by", ["path", "variable"])
def test_presets_read_local_copies_of_what_is_published(
    write_table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, by: str
) -> None:
    folder, columns, names, channels, tested = LAYOUTS[name]
    labels = list(range(len(names)))
    made = write_table(
        tmp_path / folder / "train-00000-of-00001.parquet",
        labels,
        names=names,
        columns=columns,
        channels=channels,
    )
    write_table(
        tmp_path / folder / f"{tested}-00000-of-00001.parquet",
        [1],
        names=names,
        columns=columns,
        channels=channels,
    )
    root = str(tmp_path / folder.split("/")[0])
    settings = {}
    if by == "path":
        monkeypatch.delenv("VICINAL_DATA", raising=False)
        settings = {"path": root}
    else:
        monkeypatch.setenv("VICINAL_DATA", str(tmp_path))
    data = read(name, **settings)
    assert data.name == name
    assert data.classes == tuple(names)
    assert data.train.y.tolist() == labels
    assert data.shape == (channels, 4, 4)
    assert data.test is not None
    assert (data.test.y.tolist(), data.validation) == ([1], None)
    assert np.array_equal(picture(data, 1).squeeze(), made[1])
    assert data.source["data"] == (root if by == "path" else f"$VICINAL_DATA/{folder.split('/')[0]}")
    assert read(name, **settings, size=8).shape == (channels, 8, 8)


def test_cifar100_takes_the_fine_labels(pixels: Any, as_cell: Any, datasets: Any, tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "fine_label": datasets.ClassLabel(names=["apple", "bear"]),
            "coarse_label": datasets.ClassLabel(names=["fruit", "animal", "tree"]),
        }
    )
    table = {"img": [as_cell(pixels(k)) for k in range(2)], "fine_label": [0, 1], "coarse_label": [2, 0]}
    datasets.Dataset.from_dict(table, features=features).to_parquet(str(tmp_path / "train-00000-of-00001.parquet"))
    data = read("cifar100", path=str(tmp_path))
    assert (data.classes, data.train.y.tolist()) == (("apple", "bear"), [0, 1])
    with pytest.raises(InputError, match=r"no column holds labels; set label_column to one of img, fine_label"):
        read(tmp_path)
    assert read(tmp_path, label_column="coarse_label").classes == ("fruit", "animal", "tree")


def test_a_preset_may_be_a_folder_of_images(tmp_path: Path, write_image: Any) -> None:
    for c in "ab":
        write_image(tmp_path / c / "x.png")
    data = read("mnist", path=str(tmp_path))
    assert (data.name, data.classes) == ("mnist", ("a", "b"))


def test_places_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VICINAL_DATA", raising=False)
    with pytest.raises(InputError, match=r"data: path: there is no file or folder 'nowhere'"):
        read("cifar10", path="nowhere")
    with pytest.raises(InputError, match=r"pneumoniamnist has no default place: give --data.path"):
        read("pneumoniamnist")
    with pytest.raises(InputError, match=r"data.image_column: unknown setting"):
        read("cifar10", image_column="img")
