"""Tables of images in the layout of the hub, presets of well-known sets, and what is refused."""

from __future__ import annotations

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


def read(name: Path | str, /, **settings: Any) -> Dataset:
    return load(Choice(str(name), settings))


def picture(data: Dataset, row: int) -> np.ndarray:
    return data.train.x[torch.tensor([row])][0].permute(1, 2, 0).numpy()


def test_one_file_is_a_training_part(write_table: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = write_table(tmp_path / "data.parquet", [1, 0, -1, 1], names=["cat", "dog"])
    capsys.readouterr()
    data = read(tmp_path / "data.parquet")
    assert capsys.readouterr() == ("", ""), "nothing of the loader's own is printed"
    assert (data.classes, data.shape, data.test) == (("cat", "dog"), (3, 4, 4), None)
    assert data.train.y.tolist() == [1, 0, -1, 1]
    for row, expected in enumerate(made):
        assert np.array_equal(picture(data, row), expected)


@pytest.mark.parametrize("under", ["", "plain_text", "data"])
def test_parts_and_shards_in_the_layout_of_the_hub(write_table: Any, tmp_path: Path, under: str) -> None:
    folder, names = tmp_path / "set" / under, ["cat", "dog"]
    first = write_table(folder / "train-00000-of-00002.parquet", [0, 1], names=names)
    second = write_table(folder / "train-00001-of-00002.parquet", [1, 1], names=names, first_seed=2)
    write_table(folder / "validation-00000-of-00001.parquet", [1], names=names, first_seed=4)
    tested = write_table(folder / "test-00000-of-00001.parquet", [0], names=names, first_seed=5)
    data = read(tmp_path / "set")
    assert data.test is not None
    assert data.validation is not None
    assert (data.train.y.tolist(), data.validation.y.tolist(), data.test.y.tolist()) == ([0, 1, 1, 1], [1], [0])
    for row, expected in enumerate(first + second):
        assert np.array_equal(picture(data, row), expected)
    assert np.array_equal(data.test.x[torch.tensor([0])][0].permute(1, 2, 0).numpy(), tested[0])


def test_an_unlabelled_part_joins_the_training_part(
    write_table: Any, datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_table(tmp_path / "train-0.parquet", [0, 1])
    more = write_table(tmp_path / "unsupervised-0.parquet", [5, 5], first_seed=9)
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


def test_labels_may_be_names_or_missing(write_table: Any, datasets: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    write_table(path, ["dog", None, "cat", ""], label_type=datasets.Value("string"))
    data = read(path)
    assert data.classes == ("cat", "dog")
    assert data.train.y.tolist() == [1, -1, 0, -1]
    write_table(path, [1, None, 0, 2])
    numbered = read(path)
    assert numbered.classes == ("0", "1", "2")
    assert numbered.train.y.tolist() == [1, -1, 0, 2]


@pytest.mark.usefixtures("datasets")
def test_plain_bytes_are_taken_for_images(pixels: Any, as_cell: Any, write_table: Any, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    made = [pixels(k, channels=1) for k in range(2)]
    table = pyarrow.table({"jpg": [as_cell(image)["bytes"] for image in made], "labels": [0, 1], "width": [4, 4]})
    pyarrow.parquet.write_table(table, tmp_path / "data.parquet")
    data = read(tmp_path / "data.parquet")
    assert data.shape == (1, 6, 5)
    assert np.array_equal(picture(data, 1)[..., 0], made[1])


def test_streamed_rows_are_the_same_and_travel_to_workers(
    write_table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path / "data.parquet", [0, 1, 0, 1])
    resident = read(tmp_path / "data.parquet")
    monkeypatch.setattr(image_module, "RESIDENT_LIMIT", 0)
    streamed = read(tmp_path / "data.parquet")
    assert not isinstance(streamed.train.x, torch.Tensor)
    rows = torch.tensor([2, 0, 3])
    assert torch.equal(pickle.loads(pickle.dumps(streamed.train.x))[rows], resident.train.x[rows])
    assert read(tmp_path / "data.parquet").source == streamed.source


def test_wrong_columns_and_labels_are_refused(write_table: Any, datasets: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    write_table(path, [0, 1], names=["cat", "dog"])
    with pytest.raises(InputError, match=r"image_column: there is no column 'images'; did you mean 'image'"):
        read(path, image_column="images")
    with pytest.raises(InputError, match=r"label_column: there is no column 'lable'; did you mean 'label'"):
        read(path, label_column="lable")
    with pytest.raises(InputError, match=r"there is no column 'img'; did you mean"):
        read("cifar10", path=str(path))
    with pytest.raises(InputError, match=r"column 'image' holds .* not class indices"):
        read(path, label_column="image")
    write_table(path, [0.5, 1.5], label_type=datasets.Value("float32"))
    with pytest.raises(InputError, match=r"column 'label' holds float32, not class indices"):
        read(path)
    write_table(path, [0, 0], names=["cat", "dog"])
    with pytest.raises(InputError, match=r"data.parquet: all labelled training examples belong to one class \(cat\)"):
        read(path)
    write_table(path, [0, 2])
    with pytest.raises(InputError, match=r"data.parquet: no training example has label 1"):
        read(path)
    write_table(path, [None, None])
    with pytest.raises(InputError, match=r"data.parquet: the training part has no labels at all"):
        read(path)
    datasets.Dataset.from_dict({"text": ["a"], "label": [0]}).to_parquet(str(path))
    with pytest.raises(InputError, match=r"no column holds images; set image_column to one of text, label"):
        read(path)


def test_damaged_and_missing_images_are_named_by_row(pixels: Any, as_cell: Any, datasets: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})

    def write(second: Any) -> None:
        table = {"image": [as_cell(pixels(0)), second], "label": [0, 1]}
        datasets.Dataset.from_dict(table, features=features).to_parquet(str(path))

    write({"bytes": b"oops", "path": "dog.png"})
    with pytest.raises(InputError, match=r"data.parquet, train, row 1 \(dog.png\): not an image"):
        read(path)
    write({"bytes": as_cell(pixels(1, size=(32, 32)))["bytes"][:-40], "path": None})
    with pytest.raises(InputError, match=r"differ in size: .*row 0 is 5x6, .*row 1 is 32x32"):
        read(path)
    with pytest.raises(InputError, match=r"data.parquet, train, row 1: damaged image"):
        read(path, size=4)
    write(None)
    with pytest.raises(InputError, match=r"data.parquet, train, row 1: there is no image in this row"):
        read(path)


def test_unreadable_tables_are_refused(write_table: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(InputError, match=r"data.parquet: cannot be read as an image data set") as caught:
        read(path)
    assert "\n" not in str(caught.value)
    write_table(tmp_path / "only" / "test-00000-of-00001.parquet", [0, 1])
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


def test_without_the_extra_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from vicinal.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "data.parquet").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"pip install 'vicinal\[images\]'"):
        read(tmp_path / "data.parquet")
