"""Random translations and flips of image batches by index arithmetic: one gather per batch, on the batch's device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vicinal.errors import InputError
from vicinal.settings import check


@dataclass(frozen=True)
class Augment:
    """Which random changes the training images get.

    Args:
        crop: largest translation in pixels, in both directions: the image is padded by ``crop`` on every side and
            cropped to its size at offsets drawn uniformly from 0..2 crop, both ends included. 0 is none.
        padding: ``"reflect"`` mirrors the image at its border, without repeating the border pixel; ``"zero"`` pads with
            black pixels (before any normalisation, as ICT's code does).
        flip: mirror each image left-right with probability 1/2.
        share_flip: give all views of an image the same flip (Pi-model).
    """

    crop: int = 0
    padding: Literal["reflect", "zero"] = "reflect"
    flip: bool = False
    share_flip: bool = False

    def __post_init__(self) -> None:
        check("crop", self.crop, low=0)
        if self.padding not in ("reflect", "zero"):
            raise InputError(f"padding must be 'reflect' or 'zero', got {self.padding!r}")

    @property
    def active(self) -> bool:
        """Whether anything is changed at all."""
        return self.crop > 0 or self.flip


def augment(x: Tensor, config: Augment, generator: torch.Generator) -> Tensor:
    """One augmented view of each image: translated, then flipped.

    Args:
        x: images (B, C, H, W), uint8 or float. With nothing to do, ``x`` itself is returned.
        config: what to do.
        generator: source of the draws; on the device of ``x`` no draw has to travel.

    Returns:
        New images of the same shape and type on the device of ``x``.

    Raises:
        InputError: ``x`` holds feature vectors, or is too small for the translation.

    >>> x = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 1, 4)
    >>> augment(x, Augment(flip=True), torch.Generator().manual_seed(3)).flatten().tolist()
    [3, 2, 1, 0]
    >>> augment(x, Augment(), torch.Generator()) is x
    True
    """
    return views(x, config, 1, [generator])[0]


def views(x: Tensor, config: Augment, n: int, generators: Sequence[torch.Generator]) -> tuple[Tensor, ...]:
    """``n`` independently augmented views of each image, view k drawn from ``generators[k]``.

    View k equals ``augment(x, config, generators[k])``, except that with ``share_flip`` all take the flips of view 0.

    Raises:
        InputError: as for `augment`.
    """
    if not config.active:
        return (x,) * n
    _check_images(x, config)
    drawn = [_draw(x, config, generators[k]) for k in range(n)]
    flips = [drawn[0][0] if config.share_flip else flip for flip, _ in drawn]
    return tuple(_gather(x, config, flip, offset) for flip, (_, offset) in zip(flips, drawn, strict=True))


def _check_images(x: Tensor, config: Augment) -> None:
    if x.ndim != 4:
        raise InputError(
            f"augmentation (crop, flip) is for images (B, C, H, W), got shape {tuple(x.shape)}; "
            "set crop to 0 and flip to false"
        )
    if config.crop >= min(x.shape[2:]):
        raise InputError(f"crop must be smaller than the image, got {config.crop} for {x.shape[2]}x{x.shape[3]} pixels")


def _draw(x: Tensor, config: Augment, generator: torch.Generator) -> tuple[Tensor | None, Tensor | None]:
    """Flips (B,) bool and offsets (2, B) in -crop..crop, each None if switched off; flips first."""
    device, flip, offset = generator.device, None, None
    if config.flip:
        flip = (torch.rand(len(x), generator=generator, device=device) < 0.5).to(x.device, non_blocking=True)
    if config.crop:
        size = 2 * config.crop + 1
        offset = (
            torch.randint(size, (2, len(x)), generator=generator, device=device).to(x.device, non_blocking=True)
            - config.crop
        )
    return flip, offset


def _gather(x: Tensor, config: Augment, flip: Tensor | None, offset: Tensor | None) -> Tensor:
    """Output pixel (i, j) of image b is input pixel (row[b, i], column[b, j])."""
    batch, channels, height, width = x.shape
    row = torch.arange(height, device=x.device).expand(batch, height)
    column = torch.arange(width, device=x.device).expand(batch, width)
    if flip is not None:
        column = torch.where(flip[:, None], width - 1 - column, column)
    if offset is not None:
        row, column = row + offset[0, :, None], column + offset[1, :, None]
    inside = None
    if offset is not None and config.padding == "zero":
        inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
    row, column = _mirror(row, height), _mirror(column, width)
    index = (row[:, :, None] * width + column[:, None, :]).reshape(batch, 1, height * width)
    out = x.reshape(batch, channels, height * width).gather(2, index.expand(batch, channels, height * width))
    out = out.reshape(x.shape)
    return out if inside is None else out.masked_fill_(~inside[:, None], 0)


def _mirror(position: Tensor, size: int) -> Tensor:
    """Positions outside 0..size-1 mirrored at the border pixel, which is not repeated."""
    return (size - 1) - ((size - 1) - position.abs()).abs()
