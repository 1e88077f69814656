"""New examples to be labelled by a trained network: folders of images, single images, arrays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from vicinal.data.arrays import Layout, as_inputs, opened_npz
from vicinal.data.decode import Files, ImageRows, damaged, headers
from vicinal.data.folders import SUFFIXES, _images, _seen
from vicinal.data.types import Rows
from vicinal.errors import InputError

KEYS = ("x", "x_test")
"""Names of the array to label, the first that is there."""


class Inputs(NamedTuple):
    """Examples without labels.

    Attributes:
        names: of the examples: paths relative to the folder, the file's name, or row numbers.
        x: the examples; images are decoded when rows are asked for.
        damaged: what is wrong with each image that was left out, by name; empty unless they were to be left out.
    """

    names: list[str]
    x: Rows
    damaged: dict[str, str]


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
    return _read(source, shape, size, skip_damaged=False)[:2]


def read_sound_inputs(source: str | os.PathLike[str], shape: tuple[int, ...], *, size: int | None = None) -> Inputs:
    """As `read_inputs`, with damaged images left out and told. Every image is decoded once to find them.

    Raises:
        InputError: there is nothing to read, all images are damaged, or sizes or shapes are not the network's.
    """
    return _read(source, shape, size, skip_damaged=True)


def _read(source: str | os.PathLike[str], shape: tuple[int, ...], size: int | None, *, skip_damaged: bool) -> Inputs:
    path = Path(source).expanduser()
    if path.suffix.lower() == ".npz" and path.is_file():
        x = _array(path, shape)
        return Inputs([str(row) for row in range(len(x))], x, {})
    paths, root = _listed(path)
    if len(shape) != 3:
        raise InputError(f"{path}: images, but the run takes {_said(shape)}; give an .npz file with an array x")
    wrong = damaged(Files(paths), str(path)) if skip_damaged else {}
    if len(wrong) == len(paths):
        raise InputError(f"{path}: no image in it can be read; the first: {next(iter(wrong.values()))}")
    files = Files([path for row, path in enumerate(paths) if row not in wrong])
    if size is None:
        for header in headers(files, str(path)):
            if header.size != shape[1:]:
                raise InputError(
                    f"{header.name}: is {header.size[1]}x{header.size[0]} pixels (width x height), but the run takes "
                    f"{shape[2]}x{shape[1]}; resize it (the run's own images were not resized when they were read)"
                )
    names = [os.fsencode(path.relative_to(root)).decode("utf-8", "replace") for path in paths]
    left_out = {names[row]: message for row, message in wrong.items()}
    sound = [name for row, name in enumerate(names) if row not in wrong]
    return Inputs(sound, ImageRows(files, size, grey=shape[0] == 1), left_out)


def _listed(path: Path) -> tuple[list[Path], Path]:
    """The image files that a path means, and the folder that their names start from."""
    if path.is_dir():
        paths = _images(path)
        if not paths:
            raise InputError(f"{path}: no images in this folder{_seen(path)}; images end in {', '.join(SUFFIXES)}")
        return paths, path
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(
                f"{path}: neither an image ({', '.join(SUFFIXES)}) nor an .npz file; give a folder of images"
            )
        return [path], path.parent
    raise InputError(f"{path}: no such file or folder; give a folder of images, one image, or an .npz file")


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
        x = as_inputs(where, values, layout)
        if tuple(x.shape[1:]) == shape:
            return x
    raise InputError(f"{where}: has shape {values.shape}, but the run takes {_said(shape)}")


def _said(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"vectors of {shape[0]} numbers, (N, {shape[0]})"
    return f"images (N, {', '.join(map(str, shape))}) or (N, {shape[1]}, {shape[2]}, {shape[0]})"
