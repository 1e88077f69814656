"""Folders of image files: a class per folder, or labels in ``metadata.csv``.

The files are listed here rather than by `datasets`' own folder loader, because that one takes ``unlabelled`` for a
class, and moves files to the test part when "test" is a word of their name.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vicinal.errors import InputError

SUFFIXES = (".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
PARTS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
UNLABELLED = ("unlabelled", "unlabeled")


def is_unlabelled(name: str) -> bool:
    """Whether a folder of this name holds images without label; in capitals as well.

    >>> is_unlabelled("Unlabelled"), is_unlabelled("unlabelled 2")
    (True, False)
    """
    return name.casefold() in UNLABELLED


class Listed(NamedTuple):
    """Image files of one part, and the class name of each, None where unlabelled."""

    paths: list[Path]
    labels: list[str | None]


def list_folder(root: Path) -> dict[str, Listed]:
    """Image files of each part (``"train"``, ``"validation"``, ``"test"``) of a folder.

    The parts are its folders of these names (``valid`` and ``val`` do as well); without a ``train`` folder all of it is
    the training part. A part has a folder per class, or a ``metadata.csv`` with columns file_name and label. Images in
    a folder ``unlabelled``, or with an empty label, have no label. Capitals make no difference to these names. What is
    not an image file is ignored. Links are followed, except those to a folder that they lie in.

    Raises:
        InputError: there are no images, or some have no place in this layout.
    """
    folders: dict[str, Path] = {}
    for path in _folders(root):
        part = PARTS.get(path.name.casefold())
        if part in folders:
            raise InputError(f"{path}: a second {part} part beside {folders[part].name!r}; keep one of them")
        if part is not None:
            folders[part] = path
    if not folders:
        return {"train": _part(root)}
    if "train" not in folders:
        raise InputError(f"{root}: has a folder {next(iter(folders))!r} but none named 'train'")
    if (root / "metadata.csv").exists():
        raise InputError(f"{root / 'metadata.csv'}: move it into the folders of the parts, with paths relative to them")
    listed = {part: _part(path) for part, path in folders.items()}
    for path in _folders(root):
        if is_unlabelled(path.name):
            _add(listed["train"], _images(path), None)
        elif path.name.casefold() not in PARTS and _images(path):
            raise InputError(
                f"{path}: images beside the parts; move them into one of {', '.join(folders)}, or unlabelled"
            )
    return listed


def class_order(names: set[str]) -> tuple[str, ...]:
    """Class names in the order of their indices: by number if all are numbers, else alphabetically.

    >>> class_order({"10", "9"}), class_order({"cat", "Dog"})
    (('9', '10'), ('Dog', 'cat'))
    """
    numbers = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name) if numbers else (0, name)))


def _part(folder: Path) -> Listed:
    images = _images(folder)
    if not images:
        raise InputError(f"{folder}: no images in this folder{_seen(folder)}; images end in {', '.join(SUFFIXES)}")
    table = folder / "metadata.csv"
    if table.exists():
        return _from_table(folder, table, images)
    listed = Listed([], [])
    loose = [path for path in images if path.parent == folder]
    if loose:
        raise InputError(
            f"{loose[0]}: has no label; put the images of each class into a folder of their own, "
            "or list them in metadata.csv"
        )
    for path in _folders(folder):
        inside = _images(path)
        if not inside:
            raise InputError(f"{path}: no images in this folder{_seen(path)}; fill or remove it")
        _add(listed, inside, None if is_unlabelled(path.name) else path.name)
    return listed


def _from_table(folder: Path, table: Path, images: Sequence[Path]) -> Listed:
    listed = Listed([], [])
    seen: set[Path] = set()
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for column in ("file_name", "label"):
                if column not in (reader.fieldnames or ()):
                    raise InputError(f"{table}: there is no column {column!r} in its first line")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: not a readable CSV file ({error})") from error
    for line, row in enumerate(rows, start=2):
        inside = os.path.relpath(os.path.normpath(folder / (row["file_name"] or "")), folder)
        if Path(inside).parts[:1] == ("..",):
            raise InputError(f"{table}: line {line}: {row['file_name']!r} lies outside the folder; move it inside")
        path = folder / inside
        if not path.is_file():
            raise InputError(f"{table}: line {line}: there is no file {row['file_name']!r}")
        if path in seen:
            raise InputError(f"{table}: line {line}: {row['file_name']!r} is listed twice")
        seen.add(path)
        _add(listed, [path], (row["label"] or "").strip() or None)
    for path in images:
        if path in seen:
            continue
        if not is_unlabelled(path.relative_to(folder).parts[0]):
            raise InputError(
                f"{path}: not listed in {table.name}; list it (an empty label means unlabelled) or remove it"
            )
        _add(listed, [path], None)
    return listed


def _add(listed: Listed, paths: Sequence[Path], label: str | None) -> None:
    listed.paths.extend(paths)
    listed.labels.extend([label] * len(paths))


def _images(folder: Path) -> list[Path]:
    """Image files at any depth, in alphabetical order."""
    return sorted(path for path in _walk(folder, frozenset()) if path.suffix.lower() in SUFFIXES)


def _walk(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    """All below a folder that is not hidden. Links are followed, but never back to a folder that they lie in.

    Args:
        folder: the folder.
        above: the real paths of the folders that are being walked.
    """
    above = above | {os.path.realpath(folder)}
    try:
        found = list(os.scandir(folder))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
    for entry in found:
        if _hidden(entry.name):
            continue
        path = folder / entry.name
        yield path
        if entry.is_dir() and not (entry.is_symlink() and (_leads_up(path) or os.path.realpath(path) in above)):
            yield from _walk(path, above)


def _leads_up(path: Path) -> bool:
    """Whether this is a link to a folder that it lies in: followed, it would bring all classes into one."""
    return path.is_symlink() and Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(path))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _hidden(path.name) and not _leads_up(path))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _seen(folder: Path) -> str:
    """What is there instead of images."""
    names = [path.name for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    return f" (found {', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else " (it is empty)"
