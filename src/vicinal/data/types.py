"""What a loaded data set is, and what a batch of it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Rows(Protocol):
    """Inputs addressed by row: a tensor in memory, or a store that decodes rows when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> Tensor:
        """Rows ``index`` (int64, (B,)) as (B, C, H, W) uint8 or float32 in [0,1], or as (B, D) float32."""
        ...


@dataclass(frozen=True)
class Examples:
    """Inputs and their labels.

    Args:
        x: images (N, C, H, W), uint8 in 0..255 or float32 in [0,1], or feature vectors (N, D) float32.
        y: class indices, int64 (N,); -1 where the label is unknown.
    """

    x: Rows
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def spread(self, n: int | None) -> Examples:
        """At most ``n`` of the examples, evenly spread over all of them (None: all).

        Folders and many tables hold one class after the other, where the first rows would be of one class alone.

        >>> Examples(torch.arange(10.0).view(10, 1), torch.arange(10)).spread(4).y
        tensor([0, 2, 5, 7])
        """
        if n is None or n >= len(self):
            return self
        rows = torch.arange(n) * len(self) // n
        return Examples(self.x[rows], self.y[rows])


@dataclass(frozen=True)
class Dataset:
    """A loaded data set.

    Args:
        name: how it was asked for.
        train: the training part; labels of -1 are unknown.
        test: the test part, or None where there is none (then test figures are not reported).
        validation: the published validation part, or None (then one is split off the training part).
        classes: class names, in the order of the class indices.
        shape: shape of one example: (C, H, W) for images, (D,) for feature vectors.
        source: what was read, for provenance: a path, hub id and revision, or generator and its seed.
    """

    name: str
    train: Examples
    test: Examples | None
    validation: Examples | None
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    source: dict[str, object] = field(default_factory=dict)

    @property
    def is_images(self) -> bool:
        """Whether the examples are images rather than feature vectors."""
        return len(self.shape) == 3


class Batch(NamedTuple):
    """One training step's raw material, before augmentation, on the training device.

    Attributes:
        step: index of the training step, from 0: it names the generators of every draw in this step.
        x: labelled inputs (B_l, ...), uint8 or float32.
        y: their classes, int64 (B_l,).
        x_index: their rows in the training part, int64 (B_l,).
        u: unlabelled inputs (B_u, ...), or None if the method uses none.
        u_index: their rows in the training part, int64 (B_u,), or None.
    """

    step: int
    x: Tensor
    y: Tensor
    x_index: Tensor
    u: Tensor | None
    u_index: Tensor | None


def as_float(x: Tensor) -> Tensor:
    """Images as float32 in [0,1]: uint8 is divided by 255, floats pass.

    >>> as_float(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([0., 1.])
    """
    return x.to(torch.float32) / 255 if x.dtype == torch.uint8 else x
