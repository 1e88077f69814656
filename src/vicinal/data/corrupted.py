"""Published sets of corrupted images, read as they are: CIFAR-10-C, CIFAR-100-C, Tiny-ImageNet-C.

Two layouts are known. Arrays: a file per corruption, ``gaussian_noise.npy``, uint8 (5 n, H, W, 3), in which the n test
images stand five times, severity 1 first, and ``labels.npy`` with the n labels five times. Folders: image files at
``corruption/severity/class/``. Nothing is read before it is asked for, and then one severity of one corruption.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vicinal.data.decode import decode, read_file
from vicinal.data.folders import _folders, _images, _seen, class_order
from vicinal.data.labels import as_labels
from vicinal.data.types import Examples
from vicinal.errors import InputError, nearest

SEVERITIES = (1, 2, 3, 4, 5)

_LABELS = "labels"


def read_corrupted(path: str | os.PathLike[str], *, classes: Sequence[str] | None = None) -> CorruptedSet:
    """Open a folder of corrupted images in one of the published layouts.

    Args:
        path: the folder, such as ``CIFAR-10-C`` or ``Tiny-ImageNet-C``.
        classes: class names in the order of the class indices that the network was trained with. In the layout of
            folders they name the class folders; by default these count in alphabetical order. In the layout of arrays
            only their number matters.

    Raises:
        InputError: no such folder, or its files are in neither layout.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the unpacked folder of a corrupted data set")
    kinds = sorted(file.stem for file in root.glob("*.npy") if not file.name.startswith("."))
    if kinds:
        return _Arrays(root, kinds, classes)
    if not _folders(root):
        raise InputError(f"{root}: neither .npy files nor folders of corruptions{_seen(root)}; is it unpacked?")
    return _Folders(root, classes)


class CorruptedSet(ABC):
    """Corrupted copies of one test set.

    Attributes:
        path: the folder that they lie in.
        kinds: the corruptions that are there, in alphabetical order; more than the 15 of the benchmark, or fewer.
        classes: class names in the order of their indices, or None where the files have no names.
    """

    def __init__(self, path: Path, kinds: Sequence[str], classes: Sequence[str] | None) -> None:
        self.path = path
        self.kinds = tuple(kinds)
        self.classes = None if classes is None else tuple(classes)

    def part(self, kind: str, severity: int) -> Examples:
        """The test set at one severity of one corruption.

        Args:
            kind: one of `kinds`.
            severity: 1 to 5.

        Returns:
            Images, uint8 (B, 3, H, W) when rows are asked for, and labels, int64 (n,).

        Raises:
            InputError: it is not there, or its files are damaged or not in the layout; for image files also when rows
                are asked for.
        """
        if kind not in self.kinds:
            raise InputError(f"{self.path}: there is no corruption {kind!r}; {nearest(kind, self.kinds)}")
        if severity not in SEVERITIES:
            raise InputError(f"{self.path}: severity {severity!r} of {kind} is none; choose one of 1, 2, 3, 4, 5")
        return self._read(kind, int(severity))

    @abstractmethod
    def _read(self, kind: str, severity: int) -> Examples: ...


class _Arrays(CorruptedSet):
    """The layout of CIFAR-10-C."""

    def __init__(self, path: Path, kinds: Sequence[str], classes: Sequence[str] | None) -> None:
        if _LABELS not in kinds:
            raise InputError(f"{path}: there is no labels.npy beside the corruptions; copy it there")
        super().__init__(path, [kind for kind in kinds if kind != _LABELS], classes)
        if not self.kinds:
            raise InputError(f"{path}: there is labels.npy, but no corruption such as gaussian_noise.npy")
        self._y = self._labels()
        for kind in self.kinds:
            self._checked(kind)

    def _read(self, kind: str, severity: int) -> Examples:
        self._checked(kind)
        return Examples(_ArrayRows(self.path / f"{kind}.npy", (severity - 1) * len(self._y), len(self._y)), self._y)

    def _labels(self) -> Tensor:
        """The labels of one severity, int64 (n,)."""
        where = str(self.path / "labels.npy")
        read = _mapped(self.path / "labels.npy")
        y = as_labels(where, read, len(read) if read.ndim else 0, complete=True)
        if not len(y) or len(y) % len(SEVERITIES):
            raise InputError(f"{where}: {len(y)} labels; expected those of the test set five times, for 5 severities")
        blocks = y.view(len(SEVERITIES), -1)
        if not bool((blocks == blocks[0]).all()):
            raise InputError(f"{where}: its five fifths differ; expected the test set's labels once for each severity")
        if self.classes is not None and int(y.max()) >= len(self.classes):
            raise InputError(f"{where}: label {int(y.max())}, but there are {len(self.classes)} classes from 0 on")
        return blocks[0].clone()

    def _checked(self, kind: str) -> None:
        """Check the header of an array, which is all that is read."""
        path, expected = self.path / f"{kind}.npy", len(SEVERITIES) * len(self._y)
        values = _mapped(path)
        if values.dtype != np.uint8 or values.ndim != 4 or values.shape[3] != 3:
            raise InputError(f"{path}: expected images uint8 (5 n, H, W, 3), got {values.dtype} {values.shape}")
        if len(values) != expected:
            raise InputError(f"{path}: {len(values)} images, but labels.npy has {expected} labels; there must be equal")


class _ArrayRows:
    """Rows ``first`` to ``first + count`` of an array of images (N, H, W, 3), read from its file when asked for.

    The file is opened anew each time, so that worker processes are sent its name and not its content.
    """

    def __init__(self, path: Path, first: int, count: int) -> None:
        self._path, self._first, self._count = path, first, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Tensor) -> Tensor:
        """Rows ``index`` (int64, (B,)) as uint8 (B, 3, H, W)."""
        rows = np.arange(self._count)[index.numpy()]  # which refuses rows of another severity
        pixels = _mapped(self._path)[self._first + rows]
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


class _Folders(CorruptedSet):
    """The layout of Tiny-ImageNet-C."""

    def __init__(self, path: Path, classes: Sequence[str] | None) -> None:
        kinds = [folder.name for folder in _folders(path)]
        for kind in kinds:
            for severity in SEVERITIES:
                if not (path / kind / str(severity)).is_dir():
                    raise InputError(
                        f"{path / kind}: there is no folder {str(severity)!r}; expected corruption/severity/class with "
                        "severities 1 to 5"
                    )
        if classes is None:
            first = path / kinds[0] / "1"
            classes = class_order({folder.name for folder in _folders(first)})
            if not classes:
                raise InputError(f"{first}: there are no class folders{_seen(first)}")
        super().__init__(path, kinds, classes)

    def _read(self, kind: str, severity: int) -> Examples:
        folder, names = self.path / kind / str(severity), self.classes or ()
        found = {each.name for each in _folders(folder)}
        if unknown := sorted(found - set(names)):
            raise InputError(f"{folder / unknown[0]}: none of the {len(names)} classes; give those of the training set")
        paths: list[Path] = []
        y: list[int] = []
        for index, name in enumerate(names):
            inside = _images(folder / name) if name in found else []
            if not inside:
                raise InputError(f"{folder / name}: no images of this class; is the archive unpacked completely?")
            paths += inside
            y += [index] * len(inside)
        return Examples(_FileRows(paths), torch.tensor(y))


class _FileRows:
    """Image files, decoded when asked for; all have to be as large as the first."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = [str(path) for path in paths]
        self._shape: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Rows ``index`` (int64, (B,)) as uint8 (B, 3, H, W).

        Raises:
            InputError: an image is damaged, or of another size.
        """
        if self._shape is None:
            self._shape = self._decoded(0).shape
        made = np.empty((len(index), *self._shape), dtype=np.uint8)
        for place, row in enumerate(index.tolist()):
            pixels = self._decoded(row)
            if pixels.shape != self._shape:
                raise InputError(
                    f"{self._paths[row]}: is {pixels.shape[2]}x{pixels.shape[1]} pixels (width x height), but "
                    f"{self._paths[0]} is {self._shape[2]}x{self._shape[1]}; all images must have one size"
                )
            made[place] = pixels
        return torch.from_numpy(made)

    def _decoded(self, row: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        path = self._paths[row]
        return decode(path, read_file(path), None, grey=False)


def _mapped(path: Path) -> np.ndarray[Any, Any]:
    """An array whose content is read from its file as it is needed.

    Raises:
        InputError: it is no ``.npy`` file of a plain array, or cut off.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a readable .npy file of a plain array ({str(error).splitlines()[0]})") from error
