"""Tables of images in the layout of the hub, presets of well-known sets, and what is refused."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vicinal.data import Dataset, load
from vicinal.data import images as image_module
from vicinal.errors import InputError
from vicinal.settings import Choice

pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def pixels(seed: int, channels: int = 3, size: int = 4) -> np.ndarray:
    shape = (size, size, channels) if channels == 3 else (size, size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def cell(image: np.ndarray, path: str | None = None) -> dict[str, Any]:
    file = io.BytesIO()
    pil.fromarray(image).save(file, "png")
    return {"bytes": file.getvalue(), "path": path}


def write_table(
    datasets: Any,
    path: Path,
    labels: list[Any],
    *,
    names: list[str] | None = None,
    columns: tuple[str, str] = ("image", "label"),
    channels: int = 3,
    first_seed: int = 0,
    label_type: Any = None,
) -> list[np.ndarray]:
    """A Parquet file as the hub has it; returns the pixels."""
    made = [pixels(first_seed + k, channels) for k in range(len(labels))]
    kind = label_type or (datasets.ClassLabel(names=names) if names else datasets.Value("int64"))
    features = datasets.Features({columns[0]: datasets.Image(), columns[1]: kind})
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {columns[0]: [cell(image) for image in made], columns[1]: labels}
    datasets.Dataset.from_dict(table, features=features).to_parquet(str(path))
    return made


def read(name: Path | str, /, **settings: Any) -> Dataset:
    return load(Choice(str(name), settings))


def picture(data: Dataset, row: int) -> np.ndarray:
    return data.train.x[torch.tensor([row])][0].permute(1, 2, 0).numpy()


def test_one_file_is_a_training_part(datasets: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = write_table(datasets, tmp_path / "data.parquet", [1, 0, -1, 1], names=["cat", "dog"])
    capsys.readouterr()
    data = read(tmp_path / "data.parquet")
    assert capsys.readouterr() == ("", ""), "nothing of the loader's own is printed"
    assert (data.classes, data.shape, data.test) == (("cat", "dog"), (3, 4, 4), None)
    assert data.train.y.tolist() == [1, 0, -1, 1]
    for row, expected in enumerate(made):
        assert np.array_equal(picture(data, row), expected)


@pytest.mark.parametrize("under", ["", "plain_text", "data"])
def test_parts_and_shards_in_the_layout_of_the_hub(datasets: Any, tmp_path: Path, under: str) -> None:
    folder, names = tmp_path / "set" / under, ["cat", "dog"]
    first = write_table(datasets, folder / "train-00000-of-00002.parquet", [0, 1], names=names)
    second = write_table(datasets, folder / "train-00001-of-00002.parquet", [1, 1], names=names, first_seed=2)
    write_table(datasets, folder / "validation-00000-of-00001.parquet", [1], names=names, first_seed=4)
    tested = write_table(datasets, folder / "test-00000-of-00001.parquet", [0], names=names, first_seed=5)
    data = read(tmp_path / "set")
    assert data.test is not None
    assert data.validation is not None
    assert (data.train.y.tolist(), data.validation.y.tolist(), data.test.y.tolist()) == ([0, 1, 1, 1], [1], [0])
    for row, expected in enumerate(first + second):
        assert np.array_equal(picture(data, row), expected)
    assert np.array_equal(data.test.x[torch.tensor([0])][0].permute(1, 2, 0).numpy(), tested[0])


def test_an_unlabelled_part_joins_the_training_part(
    datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_table(datasets, tmp_path / "train-0.parquet", [0, 1])
    more = write_table(datasets, tmp_path / "unsupervised-0.parquet", [5, 5], first_seed=9)
    saved = datasets.DatasetDict(
        {
            "train": datasets.Dataset.from_parquet(str(tmp_path / "train-0.parquet")),
            "unsupervised": datasets.Dataset.from_parquet(str(tmp_path / "unsupervised-0.parquet")),
        }
    )
    saved.save_to_disk(str(tmp_path / "saved"))
    for limit in (image_module.RESIDENT_LIMIT, 0):
        monkeypatch.setattr(image_module, "RESIDENT_LIMIT", limit)
        data = read(tmp_path / "saved")
        assert data.train.y.tolist() == [0, 1, -1, -1]
        rows = data.train.x[torch.tensor([3, 0, 2, 1])].permute(0, 2, 3, 1).numpy()
        assert np.array_equal(rows, np.stack([more[1], made[0], more[0], made[1]]))


def test_labels_may_be_names_or_missing(datasets: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    write_table(datasets, path, ["dog", None, "cat", ""], label_type=datasets.Value("string"))
    data = read(path)
    assert data.classes == ("cat", "dog")
    assert data.train.y.tolist() == [1, -1, 0, -1]
    write_table(datasets, path, [1, None, 0, 2])
    numbered = read(path)
    assert numbered.classes == ("0", "1", "2")
    assert numbered.train.y.tolist() == [1, -1, 0, 2]


@pytest.mark.usefixtures("datasets")
def test_plain_bytes_are_taken_for_images(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    made = [pixels(k, 1) for k in range(2)]
    table = pyarrow.table({"jpg": [cell(image)["bytes"] for image in made], "labels": [0, 1], "width": [4, 4]})
    pyarrow.parquet.write_table(table, tmp_path / "data.parquet")
    data = read(tmp_path / "data.parquet")
    assert data.shape == (1, 4, 4)
    assert np.array_equal(picture(data, 1)[..., 0], made[1])


def test_streamed_rows_are_the_same_and_travel_to_workers(
    datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(datasets, tmp_path / "data.parquet", [0, 1, 0, 1])
    resident = read(tmp_path / "data.parquet")
    monkeypatch.setattr(image_module, "RESIDENT_LIMIT", 0)
    streamed = read(tmp_path / "data.parquet")
    assert not isinstance(streamed.train.x, torch.Tensor)
    rows = torch.tensor([2, 0, 3])
    assert torch.equal(pickle.loads(pickle.dumps(streamed.train.x))[rows], resident.train.x[rows])
    assert read(tmp_path / "data.parquet").source == streamed.source


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
    datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, by: str
) -> None:
    folder, columns, names, channels, tested = LAYOUTS[name]
    labels = list(range(len(names)))
    made = write_table(
        datasets,
        tmp_path / folder / "train-00000-of-00001.parquet",
        labels,
        names=names,
        columns=columns,
        channels=channels,
    )
    write_table(
        datasets,
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


def test_cifar100_takes_the_fine_labels(datasets: Any, tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "fine_label": datasets.ClassLabel(names=["apple", "bear"]),
            "coarse_label": datasets.ClassLabel(names=["fruit", "animal", "tree"]),
        }
    )
    table = {"img": [cell(pixels(k)) for k in range(2)], "fine_label": [0, 1], "coarse_label": [2, 0]}
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


def test_wrong_columns_and_labels_are_refused(datasets: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    write_table(datasets, path, [0, 1], names=["cat", "dog"])
    with pytest.raises(InputError, match=r"image_column: there is no column 'images'; did you mean 'image'"):
        read(path, image_column="images")
    with pytest.raises(InputError, match=r"label_column: there is no column 'lable'; did you mean 'label'"):
        read(path, label_column="lable")
    with pytest.raises(InputError, match=r"there is no column 'img'; did you mean"):
        read("cifar10", path=str(path))
    with pytest.raises(InputError, match=r"column 'image' holds .* not class indices"):
        read(path, label_column="image")
    write_table(datasets, path, [0.5, 1.5], label_type=datasets.Value("float32"))
    with pytest.raises(InputError, match=r"column 'label' holds float32, not class indices"):
        read(path)
    write_table(datasets, path, [0, 0], names=["cat", "dog"])
    with pytest.raises(InputError, match=r"data.parquet: all labelled training examples belong to one class \(cat\)"):
        read(path)
    write_table(datasets, path, [0, 2])
    with pytest.raises(InputError, match=r"data.parquet: no training example has label 1"):
        read(path)
    write_table(datasets, path, [None, None])
    with pytest.raises(InputError, match=r"data.parquet: the training part has no labels at all"):
        read(path)
    datasets.Dataset.from_dict({"text": ["a"], "label": [0]}).to_parquet(str(path))
    with pytest.raises(InputError, match=r"no column holds images; set image_column to one of text, label"):
        read(path)


def test_damaged_and_missing_images_are_named_by_row(datasets: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})

    def write(second: Any) -> None:
        table = {"image": [cell(pixels(0)), second], "label": [0, 1]}
        datasets.Dataset.from_dict(table, features=features).to_parquet(str(path))

    write({"bytes": b"oops", "path": "dog.png"})
    with pytest.raises(InputError, match=r"data.parquet, train, row 1 \(dog.png\): not an image"):
        read(path)
    write({"bytes": cell(pixels(1, size=32))["bytes"][:-40], "path": None})
    with pytest.raises(InputError, match=r"differ in size: .*row 0 is 4x4, .*row 1 is 32x32"):
        read(path)
    with pytest.raises(InputError, match=r"data.parquet, train, row 1: damaged image"):
        read(path, size=4)
    write(None)
    with pytest.raises(InputError, match=r"data.parquet, train, row 1: there is no image in this row"):
        read(path)


def test_unreadable_tables_are_refused(datasets: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(InputError, match=r"data.parquet: cannot be read as an image data set") as caught:
        read(path)
    assert "\n" not in str(caught.value)
    write_table(datasets, tmp_path / "only" / "test-00000-of-00001.parquet", [0, 1])
    with pytest.raises(InputError, match=r"there is no training part; its parts are test"):
        read(tmp_path / "only")


def test_the_hub_out_of_reach_is_one_line(datasets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def unknown(*_: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.delenv("VICINAL_DATA", raising=False)
    for proxy in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    for name in ("someone/something", "cifar10"):
        with pytest.raises(InputError, match=r"the Hugging Face hub did not give it: .*--data.path") as caught:
            read(name)
        assert "\n" not in str(caught.value)
    assert not datasets.config.HF_HUB_OFFLINE
    assert not datasets.are_progress_bars_disabled()


def test_places_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VICINAL_DATA", raising=False)
    with pytest.raises(InputError, match=r"data: path: there is no file or folder 'nowhere'"):
        read("cifar10", path="nowhere")
    with pytest.raises(InputError, match=r"pneumoniamnist has no default place: give --data.path"):
        read("pneumoniamnist")
    with pytest.raises(InputError, match=r"data.image_column: unknown setting"):
        read("cifar10", image_column="img")


def test_without_the_extra_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from vicinal.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "data.parquet").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"pip install 'vicinal\[images\]'"):
        read(tmp_path / "data.parquet")
