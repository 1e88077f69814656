"""Folders of image files: classes, parts, unlabelled images, metadata.csv, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vicinal.data import Dataset, Examples, Split, load, make_split
from vicinal.data import images as image_module
from vicinal.errors import InputError
from vicinal.settings import Choice

Writer = Callable[..., np.ndarray]


def read(folder: Path, **settings: Any) -> Dataset:
    return load(Choice(str(folder), settings))


def picture(part: Examples | None, row: int) -> np.ndarray:
    assert part is not None
    return part.x[torch.tensor([row])][0].permute(1, 2, 0).numpy()


def two_classes(folder: Path, write: Writer, **options: Any) -> list[np.ndarray]:
    return [
        write(folder / name / f"{k}.png", seed=10 * c + k, **options) for c, name in enumerate("ab") for k in range(2)
    ]


def test_a_class_per_folder(tmp_path: Path, write_image: Writer) -> None:
    made = two_classes(tmp_path, write_image)
    write_image(tmp_path / "unlabelled" / "deep" / "u.PNG", seed=99)
    (tmp_path / "README.txt").write_text("not an image")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "._0.png").write_bytes(b"x")
    data = read(tmp_path)
    assert (data.classes, data.shape, data.test, data.validation) == (("a", "b"), (3, 6, 5), None, None)
    assert data.train.y.tolist() == [0, 0, 1, 1, -1]
    for row, expected in enumerate(made):
        assert np.array_equal(picture(data.train, row), expected)
    assert data.source["data"] == str(tmp_path)
    split = make_split(data, Split(labels=2, validation=0), 0)
    assert 4 in split.unlabelled.tolist()
    assert 4 not in split.labelled.tolist()


@pytest.mark.parametrize("validation", ["validation", "valid", "val"])
def test_parts_by_the_names_of_their_folders(tmp_path: Path, write_image: Writer, validation: str) -> None:
    two_classes(tmp_path / "train", write_image)
    write_image(tmp_path / "train" / "unlabelled" / "u.png")
    write_image(tmp_path / "unlabelled" / "v.png")
    chosen = write_image(tmp_path / validation / "b" / "x.png", seed=5)
    tested = write_image(tmp_path / "test" / "a" / "y.png", seed=6)
    data = read(tmp_path)
    assert data.test is not None
    assert data.validation is not None
    assert data.train.y.tolist() == [0, 0, 1, 1, -1, -1]
    assert (data.validation.y.tolist(), data.test.y.tolist()) == ([1], [0])
    assert np.array_equal(picture(data.validation, 0), chosen)
    assert np.array_equal(picture(data.test, 0), tested)


def test_words_in_file_names_do_not_choose_the_part(tmp_path: Path, write_image: Writer) -> None:
    for name in ("test_1.png", "train-2.png"):
        for c in "ab":
            write_image(tmp_path / c / name)
    data = read(tmp_path)
    assert (len(data.train), data.test) == (4, None)


def test_numbered_classes_keep_their_numbers(tmp_path: Path, write_image: Writer) -> None:
    for c in range(11):
        write_image(tmp_path / str(c) / "x.png")
    data = read(tmp_path)
    assert data.classes == tuple(str(c) for c in range(11))
    # The rows come in the alphabetical order of the folders.
    assert data.train.y.tolist() == [0, 1, 10, *range(2, 10)]


def test_labels_from_a_table(tmp_path: Path, write_image: Writer) -> None:
    made = {
        name: write_image(tmp_path / name, seed=k) for k, name in enumerate(["x.png", "sub/y.png", "z.png", "w.png"])
    }
    write_image(tmp_path / "unlabelled" / "u.png")
    table = "file_name,age,label\nw.png,1,cat\nx.png,2,dog\nz.png,3,\nsub/y.png,4, dog \n"
    (tmp_path / "metadata.csv").write_text(table, encoding="utf-8-sig")
    data = read(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.train.y.tolist() == [0, 1, -1, 1, -1]
    for row, name in enumerate(["w.png", "x.png", "z.png", "sub/y.png"]):
        assert np.array_equal(picture(data.train, row), made[name])


def test_channels_follow_the_images(tmp_path: Path, write_image: Writer) -> None:
    made = two_classes(tmp_path, write_image, channels=1)
    data = read(tmp_path)
    assert data.shape == (1, 6, 5)
    assert np.array_equal(picture(data.train, 0)[..., 0], made[0])
    assert read(tmp_path, grey=False).shape == (3, 6, 5)
    write_image(tmp_path / "b" / "colour.png")
    assert read(tmp_path).shape == (3, 6, 5)
    assert read(tmp_path, grey=True).shape == (1, 6, 5)


def test_size_makes_all_images_equal(tmp_path: Path, write_image: Writer) -> None:
    two_classes(tmp_path, write_image)
    write_image(tmp_path / "b" / "wide.png", size=(6, 12))
    with pytest.raises(InputError, match=r"differ in size: .*a/0.png is 5x6, .*b/wide.png is 12x6 .*set size"):
        read(tmp_path)
    data = read(tmp_path, size=4)
    assert data.shape == (3, 4, 4)
    assert data.source["size"] == 4
    assert read(tmp_path, size=4, grey=True).shape == (1, 4, 4)


@pytest.mark.parametrize("settings", [{}, {"size": 3}, {"size": 3, "grey": True}])
def test_rows_that_do_not_fit_memory_are_the_same_rows(
    tmp_path: Path, write_image: Writer, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    two_classes(tmp_path, write_image)
    resident = read(tmp_path, **settings)
    rows = torch.tensor([3, 0, 1])
    size = torch.tensor(resident.shape).prod() * 4
    monkeypatch.setattr(image_module, "RESIDENT_LIMIT", int(size))
    assert isinstance(read(tmp_path, **settings).train.x, torch.Tensor)
    monkeypatch.setattr(image_module, "RESIDENT_LIMIT", int(size) - 1)
    streamed = read(tmp_path, **settings)
    assert not isinstance(streamed.train.x, torch.Tensor)
    assert streamed.shape == resident.shape
    assert torch.equal(streamed.train.x[rows], resident.train.x[rows])
    again = read(tmp_path, **settings)
    assert again.source == streamed.source
    write_image(tmp_path / "b" / "1.png", seed=77)
    assert read(tmp_path, **settings).source["content"] != streamed.source["content"]


def test_a_test_part_without_labels_is_left_out_and_said_so(tmp_path: Path, write_image: Writer) -> None:
    two_classes(tmp_path / "train", write_image)
    write_image(tmp_path / "test" / "unlabelled" / "x.png")
    data = read(tmp_path)
    assert data.test is None
    assert data.source["parts_without_labels_left_out"] == ["test"]


def nothing(folder: Path, _: Writer) -> None:
    folder.mkdir()


def text_only(folder: Path, _: Writer) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("hello")


def one_class(folder: Path, write: Writer) -> None:
    write(folder / "a" / "x.png")
    write(folder / "unlabelled" / "y.png")


def no_labels(folder: Path, write: Writer) -> None:
    write(folder / "unlabelled" / "y.png")


def loose(folder: Path, write: Writer) -> None:
    two_classes(folder, write)
    write(folder / "loose.png")


def empty_class(folder: Path, write: Writer) -> None:
    two_classes(folder, write)
    (folder / "c").mkdir()


def damaged(folder: Path, write: Writer) -> None:
    two_classes(folder, write)
    file = folder / "b" / "1.png"
    file.write_bytes(file.read_bytes()[:-60])


def not_an_image(folder: Path, write: Writer) -> None:
    two_classes(folder, write)
    (folder / "b" / "1.png").write_text("hello")


def no_train(folder: Path, write: Writer) -> None:
    two_classes(folder / "test", write)


def beside(folder: Path, write: Writer) -> None:
    two_classes(folder / "train", write)
    two_classes(folder / "more", write)


def new_class(folder: Path, write: Writer) -> None:
    two_classes(folder / "train", write)
    write(folder / "test" / "bb" / "x.png")


def partly_labelled_test(folder: Path, write: Writer) -> None:
    two_classes(folder / "train", write)
    write(folder / "test" / "a" / "x.png")
    write(folder / "test" / "unlabelled" / "x.png")


def table(text: str | bytes) -> Callable[[Path, Writer], None]:
    def make(folder: Path, write: Writer) -> None:
        write(folder / "x.png")
        write(folder / "y.png")
        (folder / "metadata.csv").write_bytes(text if isinstance(text, bytes) else text.encode())

    return make


def two_test_parts(folder: Path, write: Writer) -> None:
    two_classes(folder / "train", write)
    (folder / "Test").mkdir()
    (folder / "test").mkdir(exist_ok=True)
    if len(list(folder.iterdir())) == 2:
        pytest.skip("the file system does not tell capitals apart")


def table_beside_parts(folder: Path, write: Writer) -> None:
    two_classes(folder / "train", write)
    (folder / "metadata.csv").write_text("file_name,label\n")


BAD: dict[str, tuple[Callable[[Path, Writer], None], str]] = {
    "empty": (nothing, r"data: .*set: no images in this folder \(it is empty\)"),
    "no images": (text_only, r"no images in this folder \(found notes.txt\); images end in .bmp"),
    "one class": (one_class, r"set: all labelled training examples belong to one class \(a\)"),
    "no labels": (no_labels, "set: the training part has no labels at all"),
    "loose image": (loose, "set/loose.png: has no label; put the images of each class"),
    "empty class": (empty_class, r"set/c: no images in this folder \(it is empty\)"),
    "damaged": (damaged, "set/b/1.png: damaged image"),
    "text as image": (not_an_image, "set/b/1.png: not an image"),
    "no train": (no_train, "has a folder 'test' but none named 'train'"),
    "beside the parts": (beside, "set/more: images beside the parts"),
    "new class": (new_class, "class 'bb' in the test part is not in the training part"),
    "partly labelled test": (partly_labelled_test, "labels of the test part: row 1 has no label"),
    "missing file": (table("file_name,label\nx.png,a\nz.png,b\n"), "metadata.csv: line 3: there is no file 'z.png'"),
    "listed outside": (
        table("file_name,label\nx.png,a\n../outside.png,b\n"),
        "metadata.csv: line 3: '../outside.png' lies outside the folder; move it inside",
    ),
    "two test parts": (two_test_parts, "set/test: a second test part beside 'Test'"),
    "listed twice": (table("file_name,label\nx.png,a\nx.png,b\n"), "line 3: 'x.png' is listed twice"),
    "not listed": (table("file_name,label\nx.png,a\n"), "set/y.png: not listed in metadata.csv"),
    "no label column": (table("file_name,class\nx.png,a\ny.png,b\n"), "there is no column 'label'"),
    "empty table": (table(""), "there is no column 'file_name'"),
    "short line": (table("label,file_name\na\n"), "line 2: there is no file"),
    "not text": (table(b"\xff\xfe\x00file_name"), "metadata.csv: not a readable CSV"),
    "table beside parts": (table_beside_parts, "metadata.csv: move it into the folders of the parts"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_unfit_folders_are_refused(
    tmp_path: Path, write_image: Writer, make: Callable[[Path, Writer], None], message: str
) -> None:
    folder = tmp_path / "set"
    make(folder, write_image)
    with pytest.raises(InputError, match=message) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_settings_of_tables_are_refused(tmp_path: Path, write_image: Writer) -> None:
    two_classes(tmp_path, write_image)
    with pytest.raises(InputError, match="label_column is for tables"):
        read(tmp_path, label_column="label")
    with pytest.raises(InputError, match="revision is for tables"):
        read(tmp_path, revision="main")
    with pytest.raises(InputError, match="size must be at least 1"):
        read(tmp_path, size=0)
