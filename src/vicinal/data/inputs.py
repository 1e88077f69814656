"""New examples to be labelled by a trained network: folders of images, single images, arrays."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from vicinal.data.arrays import Layout, _as_inputs, opened_npz
from vicinal.data.decode import Files, ImageRows, headers
from vicinal.data.folders import SUFFIXES, _images, _seen
from vicinal.data.types import Rows
from vicinal.errors import InputError

KEYS = ("x", "x_test")
"""Names of the array to label, the first that is there."""


def read_inputs(
    source: str | os.PathLike[str], shape: tuple[int, ...], *, size: int | None = None
) -> tuple[list[str], Rows]:
    """Examples without labels, as a network trained on examples of ``shape`` takes them.

    Args:
        source: a folder of images, searched at any depth; one image file; or an ``.npz`` file with an array ``x`` (or
            ``x_test``) of images (N, C, H, W), (N, H, W, C) or grey (N, H, W), uint8 or float in [0,1], or of feature
            vectors (N, D).
        shape: shape of one example, (C, H, W) or (D,).
        size: what images were resized to when the network's training data were read, or None if they were not.

    Returns:
        Names of the examples (paths relative to the folder, the file's name, or row numbers), and the examples. Images
        are decoded when rows are asked for.

    Raises:
        InputError: there is nothing to read, a file is damaged, or sizes or shapes are not the network's.
    """
    path = Path(source).expanduser()
    if path.suffix.lower() == ".npz" and path.is_file():
        x = _array(path, shape)
        return [str(row) for row in range(len(x))], x
    if path.is_dir():
        paths, root = _images(path), path
        if not paths:
            raise InputError(f"{path}: no images in this folder{_seen(path)}; images end in {', '.join(SUFFIXES)}")
    elif path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(
                f"{path}: neither an image ({', '.join(SUFFIXES)}) nor an .npz file; give a folder of images"
            )
        paths, root = [path], path.parent
    else:
        raise InputError(f"{path}: no such file or folder; give a folder of images, one image, or an .npz file")
    if len(shape) != 3:
        raise InputError(f"{path}: images, but the run takes {_said(shape)}; give an .npz file with an array x")
    files = Files(paths)
    if size is None:
        for header in headers(files, str(path)):
            if header.size != shape[1:]:
                raise InputError(
                    f"{header.name}: is {header.size[1]}x{header.size[0]} pixels (width x height), but the run takes "
                    f"{shape[2]}x{shape[1]}; resize it (the run's own images were not resized when they were read)"
                )
    names = [os.fsencode(path.relative_to(root)).decode("utf-8", "replace") for path in paths]
    return names, ImageRows(files, size, grey=shape[0] == 1)


def _array(path: Path, shape: tuple[int, ...]) -> Tensor:
    with opened_npz(path) as file:
        found = sorted(file.files)
        key = next((key for key in KEYS if key in found), None)
        values = None if key is None else file[key]
    if values is None:
        raise InputError(f"{path}: there is no array 'x' or 'x_test'; found: {', '.join(found) or 'nothing'}")
    where = f"{path}: {key}"
    layout: Layout = "auto"
    if values.ndim == 4 and len(shape) == 3:
        # The run tells which axis holds the channels, so that nothing is guessed; where both fit, the first.
        orders: dict[tuple[int, ...], Layout] = {(*shape[1:], shape[0]): "NHWC", shape: "NCHW"}
        layout = orders.get(values.shape[1:], "auto")
    if layout != "auto" or values.ndim != 4:
        x = _as_inputs(where, values, layout)
        if tuple(x.shape[1:]) == shape:
            return x
    raise InputError(f"{where}: has shape {values.shape}, but the run takes {_said(shape)}")


def _said(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"vectors of {shape[0]} numbers, (N, {shape[0]})"
    return f"images (N, {', '.join(map(str, shape))}) or (N, {shape[1]}, {shape[2]}, {shape[0]})"
