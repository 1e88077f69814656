"""Folders of image files: names in capitals, links between folders, roots that are written in another way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vicinal.data.folders import list_folder
from vicinal.errors import InputError

Writer = Callable[..., np.ndarray]


def listed(root: Path) -> dict[str, dict[str, str | None]]:
    """Label by name of each part."""
    parts = list_folder(root).items()
    return {
        part: {str(path.relative_to(root)): label for path, label in zip(found.paths, found.labels, strict=True)}
        for part, found in parts
    }


def test_capitals_make_no_difference_to_the_names_that_mean_something(tmp_path: Path, write_image: Writer) -> None:
    for name in ("Train/Cat/0.png", "Train/UNLABELLED/1.png", "Unlabeled/2.png", "VAL/Cat/3.png", "Test/Cat/4.png"):
        write_image(tmp_path / name)
    assert listed(tmp_path) == {
        "train": {"Train/Cat/0.png": "Cat", "Train/UNLABELLED/1.png": None, "Unlabeled/2.png": None},
        "validation": {"VAL/Cat/3.png": "Cat"},
        "test": {"Test/Cat/4.png": "Cat"},
    }


def test_unlabelled_in_capitals_need_not_be_in_the_table(tmp_path: Path, write_image: Writer) -> None:
    for name in ("x.png", "Unlabelled/u.png"):
        write_image(tmp_path / name)
    (tmp_path / "metadata.csv").write_text("file_name,label\nx.png,a\n", encoding="utf-8")
    assert listed(tmp_path) == {"train": {"x.png": "a", "Unlabelled/u.png": None}}


def test_links_are_followed_but_not_in_circles(tmp_path: Path, write_image: Writer) -> None:
    data = tmp_path / "data"
    write_image(tmp_path / "elsewhere" / "deep" / "0.png")
    write_image(data / "a" / "1.png")
    (data / "b").symlink_to(tmp_path / "elsewhere")
    (data / "a" / "more").symlink_to(tmp_path / "elsewhere" / "deep")
    expected: dict[str, str | None] = {"a/1.png": "a", "a/more/0.png": "a", "b/deep/0.png": "b"}
    assert listed(data) == {"train": expected}
    # Up, to itself, and two that lead to each other: each would go on for ever, or bring one class into another.
    (data / "a" / "up").symlink_to(data)
    (data / "a" / "self").symlink_to(data / "a")
    (data / "c").symlink_to(data)
    (tmp_path / "elsewhere" / "deep" / "back").symlink_to(tmp_path / "elsewhere")
    assert listed(data) == {"train": expected}


def test_classes_may_all_be_links(tmp_path: Path, write_image: Writer) -> None:
    for name in "ab":
        write_image(tmp_path / "elsewhere" / name / "0.png")
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere" / name)
    assert listed(tmp_path / "data") == {"train": {"a/0.png": "a", "b/0.png": "b"}}


@pytest.mark.parametrize("root", ["data", "other/../data", "./data", "."])
def test_roots_may_be_written_in_any_way(
    tmp_path: Path, write_image: Writer, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    for name in ("x.png", "sub/y.png", "unlabelled/z.png"):
        write_image(tmp_path / "data" / name)
    (tmp_path / "other").mkdir()
    table = f"file_name,label\n{tmp_path / 'data' / 'x.png'},a\n../data/sub/./y.png,b\n"
    (tmp_path / "data" / "metadata.csv").write_text(table, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "data" if root == "." else tmp_path)
    assert listed(Path(root)) == {"train": {"x.png": "a", "sub/y.png": "b", "unlabelled/z.png": None}}
    (tmp_path / "outside.png").touch()
    (tmp_path / "data" / "metadata.csv").write_text(f"{table}../outside.png,b\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 4: '\.\./outside\.png' lies outside the folder"):
        list_folder(Path(root))
