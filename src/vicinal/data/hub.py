"""Tables of encoded images read through Hugging Face `datasets`: Parquet files, saved data sets, the hub."""

from __future__ import annotations

import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from vicinal.data.decode import Encoded, read_file
from vicinal.errors import InputError, nearest, require

_PARTS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
_UNLABELLED = ("unlabelled", "unlabeled", "unsupervised")


class RawPart(NamedTuple):
    """Encoded images of one part and their labels as they are written, None where there is none."""

    encoded: Encoded
    labels: Sequence[int | str | None]


class Column:
    """The image column of a table (`Encoded`).

    Args:
        table: a `datasets.Dataset` of that column alone, not decoding, in Arrow format.
        column: its name.
        label: what the rows are called in messages.
    """

    def __init__(self, table: Any, column: str, label: str) -> None:
        self._table, self._column, self._label = table, column, label

    def __len__(self) -> int:
        return len(self._table)

    def read(self, rows: Sequence[int]) -> list[tuple[str, bytes]]:
        """Names and encoded bytes; what the table holds as a path is read from there."""
        cells = self._table[rows][self._column].to_pylist()
        return [self._cell(row, cell) for row, cell in zip(rows, cells, strict=True)]

    def _cell(self, row: int, cell: Any) -> tuple[str, bytes]:
        name = f"{self._label}, row {row}"
        if not isinstance(cell, dict):
            cell = {"bytes": cell, "path": None}
        if cell["path"]:
            name = f"{name} ({cell['path']})"
        if cell["bytes"] is None and cell["path"] is None:
            raise InputError(f"{name}: there is no image in this row; remove it")
        return name, read_file(cell["path"]) if cell["bytes"] is None else cell["bytes"]


class Joined:
    """Two runs of encoded images, one after the other (`Encoded`)."""

    def __init__(self, first: Encoded, second: Encoded) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def read(self, rows: Sequence[int]) -> list[tuple[str, bytes]]:
        """Names and encoded bytes, from whichever run holds each row."""
        start = len(self._first)
        early = iter(self._first.read([row for row in rows if row < start]))
        late = iter(self._second.read([row - start for row in rows if row >= start]))
        return [next(early) if row < start else next(late) for row in rows]


def read_tables(
    path: str, image_column: str | None, label_column: str | None, config: str | None, revision: str | None
) -> tuple[dict[str, RawPart], tuple[str, ...] | None]:
    """Parts (``"train"``, ``"validation"``, ``"test"``) of a data set, and the class names if the data set has any.

    A part named ``unlabelled`` (or ``unsupervised``) is put behind the training part. Other parts are left out.

    Args:
        path: folder or file of Parquet, folder of a saved data set, or hub id.
        image_column: column of the images; None takes the only one that holds images.
        label_column: column of the classes; None takes the only one that holds class labels, or one that is called
            ``label``.
        config: one of several configurations of the data set.
        revision: commit, tag or branch on the hub.

    Raises:
        InputError: it cannot be loaded, or has no training part or no such columns.
    """
    tables = _load(path, config, revision)
    known = {name: _PARTS[name] for name in tables if name in _PARTS}
    if "train" not in known.values():
        raise InputError(f"{path}: there is no training part; its parts are {', '.join(tables)}")
    features = tables["train"].features
    images = _image_column(path, features, image_column)
    labels, names = _label_column(path, features, label_column)
    parts = {}
    for name, part in known.items():
        if part in parts:
            raise InputError(f"{path}: has two {part} parts; its parts are {', '.join(tables)}")
        parts[part] = RawPart(_encoded(tables[name], images, f"{path}, {name}"), _cells(tables[name], labels))
    for name in _UNLABELLED:
        if name in tables:
            more = _encoded(tables[name], images, f"{path}, {name}")
            train = parts["train"]
            parts["train"] = RawPart(Joined(train.encoded, more), [*train.labels, *[None] * len(more)])
    return parts, names


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by `datasets`' ``save_to_disk``."""
    return any((folder / name).exists() for name in ("dataset_dict.json", "state.json"))


def _load(path: str, config: str | None, revision: str | None) -> dict[str, Any]:
    """Tables by the names of their parts."""
    datasets = require("datasets", "images", "reading image data sets")
    here = Path(path).expanduser()
    try:
        with _quiet(datasets):
            if is_saved(here):
                read = datasets.load_from_disk(str(here))
            elif here.is_file():
                read = datasets.load_dataset("parquet", data_files=str(here))
            elif here.is_dir():
                read = datasets.load_dataset(str(here), config)
            else:
                with _offline_if_unreachable(datasets):
                    read = datasets.load_dataset(path, config, revision=revision)
    except Exception as error:
        # The loaders raise whatever their parsers, Arrow and the network raise, and wrap it: the cause says most.
        reason = str(error.__cause__ or error).splitlines() or [type(error).__name__]
        if here.exists():
            raise InputError(f"{path}: cannot be read as an image data set: {reason[0]}") from error
        raise InputError(
            f"{path}: no such file or folder, and the Hugging Face hub did not give it: {reason[0]}; "
            "name a local folder of its Parquet files or images instead (a preset takes it as --data.path)"
        ) from error
    return dict(read) if isinstance(read, dict) else {"train": read}


def _image_column(path: str, features: Mapping[str, Any], wanted: str | None) -> str:
    if wanted is not None:
        return _known_column(path, "image_column", features, wanted)
    datasets = require("datasets", "images", "reading image data sets")
    found = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    found = found or [name for name, feature in features.items() if _holds_bytes(feature)]
    if len(found) != 1:
        what = f"several columns hold images ({', '.join(found)})" if found else "no column holds images"
        raise InputError(f"{path}: {what}; set image_column to one of {', '.join(features)}")
    return found[0]


def _holds_bytes(feature: Any) -> bool:
    """Whether a column holds encoded files although the table does not say that they are images."""
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    return getattr(feature, "dtype", None) in ("binary", "large_binary")


def _label_column(path: str, features: Mapping[str, Any], wanted: str | None) -> tuple[str, tuple[str, ...] | None]:
    datasets = require("datasets", "images", "reading image data sets")
    if wanted is None:
        found = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
        found = found if len(found) == 1 else [name for name in ("label", "labels") if name in features]
        if not found:
            raise InputError(f"{path}: no column holds labels; set label_column to one of {', '.join(features)}")
        wanted = found[0]
    feature = features[_known_column(path, "label_column", features, wanted)]
    kind = str(getattr(feature, "dtype", feature))
    if not kind.startswith(("int", "uint", "bool", "string", "large_string")):
        raise InputError(f"{path}: column {wanted!r} holds {kind}, not class indices or class names")
    return wanted, tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def _known_column(path: str, setting: str, features: Mapping[str, Any], wanted: str) -> str:
    if wanted not in features:
        raise InputError(f"{path}: {setting}: there is no column {wanted!r}; {nearest(wanted, features)}")
    return wanted


def _encoded(table: Any, column: str, label: str) -> Column:
    datasets = require("datasets", "images", "reading image data sets")
    if column not in table.features:
        raise InputError(f"{label}: there is no column {column!r}; {nearest(column, table.features)}")
    table = table.select_columns([column])
    if isinstance(table.features[column], datasets.Image):
        table = table.cast_column(column, datasets.Image(decode=False))
    return Column(table.with_format("arrow"), column, label)


def _cells(table: Any, column: str) -> list[int | str | None]:
    """Labels of a table, None for all rows if it has no such column."""
    if column not in table.features:
        return [None] * len(table)
    cells: list[int | str | None] = table.select_columns([column]).with_format("arrow")[:][column].to_pylist()
    return cells


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """No progress bars of the loader's own."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextmanager
def _offline_if_unreachable(datasets: Any) -> Iterator[None]:
    """Use the hub's cache only, if the hub's address does not resolve.

    The hub's client would try for half a minute, and print each failure. Behind a proxy the address need not resolve.
    """
    constants: Any = require("huggingface_hub.constants", "images", "reading image data sets")
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    host = urllib.parse.urlparse(str(constants.ENDPOINT)).hostname
    if host and not urllib.request.getproxies():
        try:
            socket.getaddrinfo(host, 443)
        except OSError:
            constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
