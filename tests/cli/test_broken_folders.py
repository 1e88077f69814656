"""A folder as a new user has it, with one thing wrong: read as it was meant, or refused in one line."""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vicinal.runs import Run

PIL: Any = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
FEW = ("--training.steps", "2", "--training.threads", "1", "--training.device", "cpu", "--quiet")


def pixels(seed: int, channels: int = 1) -> np.ndarray:
    shape = (8, 8) if channels == 1 else (8, 8, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes and some images without label; it is called "data" in the folder where one is."""
    monkeypatch.chdir(tmp_path)
    for k in range(12):
        path = tmp_path / "data" / ("a", "b", "unlabelled")[k % 3] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.fromarray(pixels(k)).save(path)
    return tmp_path / "data"


def table(folder: Path, *lines: str, encoding: str = "utf-8") -> None:
    """All images in one folder, and a table instead of folders of classes."""
    for path in sorted(folder.rglob("*.png")):
        path.rename(folder / path.name)
    labels = [f"{k}.png,{('a', 'b', '')[k % 3]}" for k in range(12)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,label", *labels, *lines]) + "\n", encoding=encoding)


def cmyk(folder: Path) -> None:
    PIL.fromarray(pixels(1, 3)).convert("CMYK").save(folder / "a" / "print.jpg")


def deep(folder: Path) -> None:
    PIL.fromarray(pixels(1).astype(np.uint16) * 257).save(folder / "a" / "deep.png")
    PIL.fromarray(pixels(2).astype(np.uint16) * 257).save(folder / "b" / "deep.tiff")


def jpeg_called_png(folder: Path) -> None:
    PIL.fromarray(pixels(1)).save(folder / "a" / "photo.jpg")
    (folder / "a" / "photo.jpg").rename(folder / "a" / "photo.png")


def image_called_something(folder: Path) -> None:
    (folder / "a" / "0.png").rename(folder / "a" / "0.dat")


def same_name_in_both(folder: Path) -> None:
    PIL.fromarray(pixels(50)).save(folder / "b" / "0.png")


def class_in_unlabelled(folder: Path) -> None:
    (folder / "unlabelled" / "c").mkdir()
    (folder / "unlabelled" / "2.png").rename(folder / "unlabelled" / "c" / "2.png")


def other_letters(folder: Path) -> None:
    (folder / "a").rename(folder / "Übergrößen 猫")
    (folder / "b" / "1.png").rename(folder / "b" / "é ж.png")


HANDLED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nothing": (lambda folder: None, "4 examples without label"),
    "CMYK": (cmyk, "RGB"),
    "16 bits": (deep, "grey"),
    "a JPEG called .png": (jpeg_called_png, "grey"),
    "an image called .dat": (image_called_something, "no images by their names, left out: .dat (1)"),
    "the same name in two classes": (same_name_in_both, "4 examples without label"),
    "a class among the unlabelled": (class_in_unlabelled, "unlabelled/ holds folders (c): their names are not taken"),
    "other letters": (other_letters, "Übergrößen 猫"),
    "a table": (table, "4 examples without label"),
}


@pytest.mark.parametrize("name", HANDLED)
def test_what_can_be_read_is(name: str, folder: Path, cli: Any) -> None:
    change, said = HANDLED[name]
    change(folder)
    answer = cli("fit", "data", *FEW)
    assert answer.code == 0, answer.err
    assert said in answer.out
    labelled = cli("predict", "runs/data-vat", "data")
    assert labelled.code == 0, labelled.err
    rows = list(csv.DictReader(labelled.out.splitlines()))
    images = [path for path in folder.rglob("*") if path.suffix in (".png", ".jpg", ".tiff")]
    assert {row["name"] for row in rows} == {path.relative_to(folder).as_posix() for path in images}
    assert {row["label"] for row in rows} <= set(Run("runs/data-vat").network().classes)


REFUSED: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "a zero-byte image": (
        lambda folder: (folder / "a" / "0.png").write_bytes(b""),
        ("0.png", "an empty file", "replace or remove it"),
    ),
    "a text called .png": (
        lambda folder: (folder / "a" / "0.png").write_text("no image", encoding="utf-8"),
        ("0.png", "not an image", "replace or remove it"),
    ),
    "a folder called .png": (
        lambda folder: (folder / "a" / "folder.png").mkdir(),
        ("folder.png", "cannot be read", "directory"),
    ),
    "a class without images": (
        lambda folder: (folder / "c").mkdir(),
        ("c: no images in this folder", "fill or remove"),
    ),
    "a class without labels": (
        lambda folder: [path.rename(folder / "unlabelled" / path.name) for path in (folder / "b").iterdir()],
        ("b: no images in this folder", "it is empty", "fill or remove"),
    ),
    "a class of the test part alone": (
        lambda folder: [
            (folder / "train").mkdir(),
            *((folder / name).rename(folder / "train" / name) for name in ("a", "b", "unlabelled")),
            (folder / "test" / "c").mkdir(parents=True),
            PIL.fromarray(pixels(1)).save(folder / "test" / "c" / "x.png"),
        ],
        ("class 'c' in the test part is not in the training part",),
    ),
    "no labels at all": (
        lambda folder: (
            [path.rename(folder / "unlabelled" / path.name) for path in folder.glob("[ab]/*")]
            + [(folder / name).rmdir() for name in "ab"]
        ),
        ("no labels at all", "label a few"),
    ),
    "a table that names an image twice": (
        lambda folder: table(folder, "0.png,b"),
        ("line 14", "'0.png'", "listed twice"),
    ),
    "a table that names it by two ways": (
        lambda folder: table(folder, "./x/../0.png,b"),
        ("line 14", "'./x/../0.png'", "listed twice"),
    ),
    "a table that names what is not there": (lambda folder: table(folder, "99.png,b"), ("line 14", "no file '99.png'")),
    "a table in another encoding": (
        lambda folder: table(folder, "é.png,é", encoding="latin-1"),
        ("metadata.csv", "not a readable CSV file"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(name: str, folder: Path, cli: Any) -> None:
    change, says = REFUSED[name]
    change(folder)
    answer = cli("fit", "data", *FEW)
    assert answer.code == 2, answer.out
    assert answer.out == ""
    (line,) = answer.err.splitlines()
    assert line.startswith("vicinal: error: ")
    assert [text for text in says if text not in line] == [], line
    assert not Path("runs").exists()


@pytest.fixture
def run(folder: Path, cli: Any) -> Path:
    assert cli("fit", "data", "--output", "run", *FEW).code == 0
    return Path("run")


TARGETS = {
    "fit": ("fit", "data", "--output", "locked/new", *FEW),
    "predict": ("predict", "run", "data", "--output", "locked/labels.csv"),
    "suggest": ("suggest", "run", "--output", "locked/next.csv"),
    "export": ("export", "run", "--format", "safetensors", "--output", "locked/model.safetensors"),
    "export a folder": ("export", "run", "--format", "hub-folder", "--output", "locked/model"),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("how", ["read-only", "a file"])
def test_a_target_that_cannot_be_written(
    name: str, how: str, run: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "a file":
        Path("locked").touch()
    else:
        # The rights of a folder do not bind who tests as root: so that the system's answer is played.
        Path("locked").mkdir()

        def locked(call: Callable[..., Any]) -> Callable[..., Any]:
            def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:
                if "locked" in str(path) and str(path) != "locked":
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
                return call(path, *args, **kwargs)

            return refuse

        for method in ("mkdir", "write_bytes", "write_text", "touch"):
            monkeypatch.setattr(Path, method, locked(getattr(Path, method)))
    answer = cli(*TARGETS[name])
    assert answer.code == 2, answer.out
    (line,) = answer.err.splitlines()
    assert line.startswith("vicinal: error: ")
    assert "locked" in line
    wanted = ("Read-only file system",) if how == "read-only" else ("Not a directory", "no folder", "is a file")
    assert any(text in line for text in wanted), line
    assert Path("locked").is_file() or list(Path("locked").iterdir()) == []


def test_the_targets_can_be_written_otherwise(run: Path, cli: Any) -> None:
    """The control."""
    Path("locked").mkdir()
    for words in TARGETS.values():
        answer = cli(*words)
        assert answer.code == 0, answer.err
    assert len(list(Path("locked").iterdir())) == 6
