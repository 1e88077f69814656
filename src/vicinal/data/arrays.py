"""Data sets from arrays, in memory or in an ``.npz`` file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vicinal.data.labels import as_labels, class_names, content_digest
from vicinal.data.types import Dataset, Examples
from vicinal.errors import InputError

Layout = Literal["auto", "NCHW", "NHWC"]

_CHANNELS = (1, 3)
# Names of the arrays in files as they are published: Keras' and our own on the right, MedMNIST's on the left.
_ALIASES = {
    "x": "x_train",
    "y": "y_train",
    "train_images": "x_train",
    "train_labels": "y_train",
    "val_images": "x_validation",
    "val_labels": "y_validation",
    "test_images": "x_test",
    "test_labels": "y_test",
}
_KEYS = ("x_train", "y_train", "x_test", "y_test", "x_validation", "y_validation")


def arrays(path: str, *, layout: Layout = "auto") -> Dataset:
    """Read arrays from an ``.npz`` file.

    Its keys are x_train and y_train (or x and y), and if there are such parts x_test, y_test, x_validation and
    y_validation; MedMNIST's names (train_images, train_labels, val_..., test_...) work as well. What they hold is said
    at `from_arrays`.

    Args:
        path: the file.
        layout: position of the image channels; ``"auto"`` finds the axis of length 1 or 3.

    Raises:
        InputError: the file cannot be read, lacks a key, or holds wrong arrays.
    """
    with opened_npz(path) as file:
        read = {_ALIASES.get(key, key): file[key] for key in file.files}
    for key in ("x_train", "y_train"):
        if key not in read:
            raise InputError(f"{path}: there is no array {key!r}; found: {', '.join(sorted(read)) or 'nothing'}")
    given = {key: read.get(key) for key in _KEYS}
    try:
        return _dataset(Path(path).name, given, layout, None, {"data": path})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


@contextmanager
def opened_npz(path: str | Path) -> Iterator[Any]:
    """An ``.npz`` file of plain arrays, open for reading one array after another.

    Raises:
        InputError: it cannot be read, also where that shows only on reading an array.
    """
    try:
        # Opened here, since NumPy leaves the file open when it is broken.
        with Path(path).expanduser().open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            yield file
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a readable .npz file of plain arrays ({str(error).splitlines()[0]})") from error


def from_arrays(
    x: Any,
    y: Any,
    x_test: Any = None,
    y_test: Any = None,
    x_validation: Any = None,
    y_validation: Any = None,
    *,
    layout: Layout = "auto",
    classes: Sequence[str] | None = None,
    name: str = "arrays",
) -> Dataset:
    """A data set from arrays in memory (NumPy arrays, tensors, lists of lists); they are copied.

    Args:
        x: training inputs: images (N, C, H, W), (N, H, W, C) or grey (N, H, W), uint8 or float in [0,1]; or feature
            vectors (N, D), any finite numbers.
        y: their classes (N,), whole numbers from 0, -1 where unlabelled.
        x_test: test inputs, like ``x``, or None.
        y_test: their classes, all known.
        x_validation: validation inputs, like ``x``, or None.
        y_validation: their classes, all known.
        layout: position of the image channels; ``"auto"`` finds the axis of length 1 or 3.
        classes: class names; by default the class indices.
        name: name of the data set.

    Raises:
        InputError: wrong shapes, lengths or types, NaN or infinity, float images outside [0,1], labels that are not
            whole numbers, fewer than two classes, or a class without training example (unless ``classes`` names it).

    >>> data = from_arrays([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [0, 1, -1])
    >>> data.shape, data.classes
    ((2,), ('0', '1'))
    """
    given = {
        "x_train": x,
        "y_train": y,
        "x_test": x_test,
        "y_test": y_test,
        "x_validation": x_validation,
        "y_validation": y_validation,
    }
    return _dataset(name, given, layout, classes, {"data": name})


def _dataset(
    name: str,
    given: Mapping[str, Any],
    layout: Layout,
    classes: Sequence[str] | None,
    source: dict[str, object],
) -> Dataset:
    parts: dict[str, Examples | None] = {}
    for part in ("train", "test", "validation"):
        x, y = given[f"x_{part}"], given[f"y_{part}"]
        if x is None and y is None:
            parts[part] = None
            continue
        if x is None or y is None:
            raise InputError(f"{'x' if x is None else 'y'}_{part} is missing: inputs and labels go together")
        inputs = as_inputs(f"x_{part}", x, layout)
        parts[part] = Examples(inputs, as_labels(f"y_{part}", y, len(inputs), complete=part != "train"))
    train, test, validation = parts["train"], parts["test"], parts["validation"]
    if train is None:
        raise InputError("x_train and y_train are missing")
    shape = _shape(train)
    for part, examples in (("test", test), ("validation", validation)):
        if examples is not None and _shape(examples) != shape:
            raise InputError(f"x_{part}: examples have shape {_shape(examples)}, but in x_train {shape}")
    others = [part.y for part in (test, validation) if part is not None]
    names = class_names(train.y, others, classes)
    content = content_digest(train, test, validation)
    return Dataset(name, train, test, validation, names, shape, {**source, "content": content})


def _shape(examples: Examples) -> tuple[int, ...]:
    assert isinstance(examples.x, Tensor)
    return tuple(examples.x.shape[1:])


def as_inputs(where: str, x: Any, layout: Layout) -> Tensor:
    """Inputs as a fresh tensor: images (N, C, H, W) uint8 or float32 in [0,1], or vectors (N, D) float32."""
    try:
        values = np.asarray(x)
    except ValueError as error:
        raise InputError(f"{where}: the examples differ in shape; all must have the same") from error
    if values.dtype.kind not in "biuf":
        raise InputError(f"{where}: expected numbers, got values of type {values.dtype}")
    if values.ndim not in (2, 3, 4):
        raise InputError(
            f"{where}: expected images (N, C, H, W), (N, H, W, C) or (N, H, W), or vectors (N, D), "
            f"got shape {values.shape}"
        )
    if 0 in values.shape:
        raise InputError(f"{where}: there are no examples (shape {values.shape})")
    if values.ndim == 2 or values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise InputError(f"{where}: example {row} contains NaN or infinity (as float32); replace or remove it")
    if values.ndim == 2:
        return torch.from_numpy(np.ascontiguousarray(values))
    if values.ndim == 3:
        values = values[:, None]
    elif _channels_last(where, values.shape, layout):
        values = values.transpose(0, 3, 1, 2)
    if values.dtype != np.uint8 and values.dtype.kind != "f":
        raise InputError(f"{where}: images must be uint8 in 0..255 or float in [0,1], got {values.dtype}")
    if values.dtype.kind == "f" and (values.min() < 0 or values.max() > 1):
        raise InputError(
            f"{where}: float images must lie in [0,1], got values from {values.min():.4g} to {values.max():.4g}; "
            "rescale them, or give uint8 in 0..255"
        )
    return torch.from_numpy(np.array(values, order="C"))


def _channels_last(where: str, shape: tuple[int, ...], layout: Layout) -> bool:
    """Whether images of this shape (N, ., ., .) have their channels last."""
    if layout != "auto":
        return layout == "NHWC"
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first == last:
        problem = "both could be the channels" if first else "neither has 1 or 3 channels"
        raise InputError(
            f"{where}: cannot tell whether shape {shape} is (N, C, H, W) or (N, H, W, C), {problem}; "
            "set layout to NCHW or NHWC"
        )
    return last
