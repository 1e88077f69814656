"""Image data sets: folders of image files, Parquet files, the Hugging Face hub."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from vicinal.data.decode import Files, Header, ImageRows, decode_all, headers
from vicinal.data.folders import class_order, list_folder
from vicinal.data.hub import RawPart, is_saved, read_tables
from vicinal.data.labels import as_labels, class_names, content_digest
from vicinal.data.types import Dataset, Examples, Rows
from vicinal.errors import InputError, nearest
from vicinal.settings import check

RESIDENT_LIMIT = 4 * 2**30
"""Data sets of at most this many bytes once decoded are kept in memory; larger ones are decoded row by row."""

_SAMPLED_ROWS = 64


def images(
    path: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    size: int | None = None,
    grey: bool | None = None,
) -> Dataset:
    """Read an image data set from a folder, a Parquet file or the Hugging Face hub.

    A folder holds Parquet files, or a data set saved by `datasets`, or image files (see
    `vicinal.data.folders.list_folder`). Images become uint8: (1, H, W) if all of the set are grey, else (3, H, W).

    Args:
        path: the folder, the ``.parquet`` file, or the hub id.
        image_column: column of the images in a table; by default the one that holds images.
        label_column: column of the classes in a table; by default the one that holds class labels. Empty is unlabelled.
        config: configuration of a data set that has several.
        revision: commit, tag or branch on the hub.
        size: height and width in pixels to resize the shorter side to and cut out of the centre; by default images
            are taken as they are, and must all have the same size.
        grey: read all images as grey, or all as RGB; by default grey only if all are.

    Raises:
        InputError: nothing there, no or unfit labels, a damaged image, images of different sizes, unknown columns.
    """
    if size is not None:
        check("size", size, low=1)
    settings = {"config": config, "revision": revision, "size": size, "grey": grey}
    source: dict[str, object] = {"data": path, **{key: value for key, value in settings.items() if value is not None}}
    if not is_image_folder(path):
        parts, names = read_tables(path, image_column, label_column, config, revision)
        return _assemble(path, parts, names, size, grey, source)
    tables = {"image_column": image_column, "label_column": label_column, "config": config, "revision": revision}
    for name, value in tables.items():
        if value is not None:
            raise InputError(f"{name} is for tables, but {path} is a folder of image files; leave it out")
    listed = list_folder(Path(path).expanduser())
    parts = {part: RawPart(Files(files.paths), files.labels) for part, files in listed.items()}
    return _assemble(path, parts, None, size, grey, source)


def is_image_folder(path: str) -> bool:
    """Whether ``path`` is a folder without tables, so that its image files are what is asked for."""
    folder = Path(path).expanduser()
    return folder.is_dir() and not is_saved(folder) and next(folder.rglob("*.parquet"), None) is None


def _assemble(
    name: str,
    parts: Mapping[str, RawPart],
    names: tuple[str, ...] | None,
    size: int | None,
    grey: bool | None,
    source: dict[str, object],
) -> Dataset:
    """The data set made of encoded images and labels as they are written."""
    labelled = {part: raw for part, raw in parts.items() if part == "train" or any(_known(x) for x in raw.labels)}
    left_out = sorted(set(parts) - set(labelled))
    try:
        if names is None and any(isinstance(label, str) for label in labelled["train"].labels):
            names = class_order({str(label) for label in labelled["train"].labels if _known(label)})
        y = {part: _indices(part, raw, names) for part, raw in labelled.items()}
        classes = class_names(y["train"], [labels for part, labels in y.items() if part != "train"], names)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    shape = _shape(name, labelled, size, grey)
    resident = sum(len(labels) for labels in y.values()) * shape[0] * shape[1] * shape[2] <= RESIDENT_LIMIT
    examples: dict[str, Examples] = {}
    for part, raw in labelled.items():
        x: Rows
        if resident:
            x = decode_all(raw.encoded, shape, size, f"{name}, {part}")
        else:
            x = ImageRows(raw.encoded, size, grey=shape[0] == 1)
        examples[part] = Examples(x, y[part])
    train, test, validation = examples["train"], examples.get("test"), examples.get("validation")
    source["content"] = content_digest(train, test, validation) if resident else _sampled_digest(labelled, y)
    if left_out:
        source["parts_without_labels_left_out"] = left_out
    return Dataset(name, train, test, validation, classes, shape, source)


def _known(label: int | str | None) -> bool:
    return label is not None and label != "" and label != -1


def _indices(part: str, raw: RawPart, names: tuple[str, ...] | None) -> Tensor:
    """Labels as class indices, -1 where unknown."""
    index = {name: c for c, name in enumerate(names or ())}
    indices = []
    for label in raw.labels:
        if isinstance(label, str) and _known(label) and label not in index:
            raise InputError(f"class {label!r} in the {part} part is not in the training part; {nearest(label, index)}")
        indices.append(-1 if not _known(label) else index[label] if isinstance(label, str) else label)
    return as_labels(f"labels of the {part} part", indices, len(raw.encoded), complete=part != "train")


def _shape(name: str, parts: Mapping[str, RawPart], size: int | None, grey: bool | None) -> tuple[int, int, int]:
    """(C, H, W) of every image once it is read as asked."""
    if size is not None and grey is not None:
        return (1 if grey else 3, size, size)
    seen = [header for part, raw in parts.items() for header in headers(raw.encoded, f"{name}, {part}")]
    if grey is None:
        grey = all(header.grey for header in seen)
    if size is not None:
        return (1 if grey else 3, size, size)
    first = seen[0]
    for header in seen:
        if header.size != first.size:
            raise InputError(
                f"{name}: images differ in size: {_sized(first)}, {_sized(header)} (width x height); "
                "set size to resize and crop all of them"
            )
    return (1 if grey else 3, *first.size)


def _sized(header: Header) -> str:
    return f"{header.name} is {header.size[1]}x{header.size[0]}"


def _sampled_digest(parts: Mapping[str, RawPart], y: Mapping[str, Tensor]) -> str:
    """Digest of all labels and of some encoded images, for sets that are too large to be read whole."""
    digest = hashlib.blake2b(digest_size=16)
    for part in sorted(parts):
        digest.update(y[part].numpy().data)
        digest.update(f"{part}{len(y[part])}".encode())
        for _, data in parts[part].encoded.read(_spread(len(y[part]))):
            digest.update(data)
    return digest.hexdigest()


def _spread(total: int) -> Sequence[int]:
    """Up to `_SAMPLED_ROWS` rows, evenly spread."""
    count = min(total, _SAMPLED_ROWS)
    return [k * total // count for k in range(count)]
