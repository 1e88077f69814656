"""Brightness, contrast, colour, and what handling images as files does to them."""

from __future__ import annotations

import io
import math

import torch
from torch import Tensor

from vicinal.errors import require
from vicinal.evaluation.corruptions._common import Generators, kind, pixels, sampled, smooth_noise, unit


def brightness(x: Tensor, _: Generators, shift: float) -> Tensor:
    """Adds ``shift`` to the value of HSV, cut off at 1; hue and saturation stay. Published constants.

    The value is the largest channel, so that a pixel is multiplied by (value + shift) / value; black becomes grey.
    """
    value = x.amax(1, keepdim=True)
    return torch.where(value > 0, x / value, 1) * (value + shift).clamp(max=1)


def contrast(x: Tensor, _: Generators, factor: float) -> Tensor:
    """Shrinks towards the mean by ``factor``: (x - mean) factor + mean. Published constants.

    Our reading: the mean over the pixels, for each image and channel.
    """
    mean = torch.stack([image.mean((1, 2), keepdim=True) for image in x])
    return (x - mean) * factor + mean


def saturate(x: Tensor, _: Generators, factor: float) -> Tensor:
    """Multiplies the saturation of HSV by ``factor``, cut off at 1. The constants are ours.

    Grey pixels stay, and so do images of one channel.
    """
    value = x.amax(1, keepdim=True)
    spread = value - x.amin(1, keepdim=True)  # saturation times value
    return value - (value - x) * (value / spread.clamp(min=1e-6)).clamp(max=factor)


def elastic_transform(x: Tensor, generators: Generators, amplitude: float, cell: float) -> Tensor:
    """Every pixel is taken from a place nearby, the displacement being a smooth random field. The constants are ours.

    Args:
        x: images.
        generators: sources of the draws.
        amplitude: standard deviation of either component at the field's nodes, in units: pixels at a shorter side of
            up to 32, proportionally more of larger images.
        cell: distance of the nodes in units. The field is cubic between them, and the image bilinear between pixels.
    """
    size = unit(x)
    down, right = (amplitude * size * smooth_noise(x, generators, cell * size, fields=2)).unbind(1)
    row, column = pixels(x)
    return sampled(x, row + down, column + right)


def pixelate(x: Tensor, _: Generators, factor: float) -> Tensor:
    """Shrinks both sides by ``factor`` (rounded down), then enlarges to the old size. Published constants.

    Our reading: shrinks with a box filter, the mean of the pixels whose centres lie within the larger pixel, and
    enlarges by repeating the nearest pixel, as Pillow's ``BOX`` does both. A centre on a border counts to the left or
    above, where rounding decides for Pillow.
    """
    for dim in (2, 3):
        side = x.shape[dim]
        small = max(1, math.floor(side * factor + 1e-9))  # 0.95 of 20 is 19, whatever the rounding
        # Larger pixel j covers (j, j + 1] side / small, and has the pixels i whose centre i + 1/2 lies in there.
        bounds = [math.floor(j * side / small - 0.5 + 1e-9) + 1 for j in range(small + 1)]
        first, count = torch.tensor(bounds[:-1]), torch.tensor(bounds).diff()
        shape = [-1 if each == dim else 1 for each in range(4)]
        shrunk = torch.zeros(())
        for k in range(int(count.max())):
            taken = (k < count).to(x.dtype).reshape(shape)
            shrunk = shrunk + taken * x.index_select(dim, (first + k).clamp(max=side - 1))
        shrunk = shrunk / count.reshape(shape)
        x = shrunk.index_select(dim, torch.arange(side).mul(2).add(1).mul(small).div(2 * side, rounding_mode="floor"))
    return x


def jpeg_compression(x: Tensor, _: Generators, quality: float) -> Tensor:
    """Rounded to 8 bits, stored as JPEG of a ``quality`` up to 100 by Pillow, and read back. Published constants.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    pillow = require("PIL.Image", "images", "jpeg_compression")
    mode = "L" if x.shape[1] == 1 else "RGB"
    levels = (x * 255).round().to(torch.uint8).movedim(1, 3)
    made = torch.empty_like(levels)
    size = (x.shape[3], x.shape[2])
    for before, after in zip(levels, made, strict=True):
        file = io.BytesIO()
        pillow.frombytes(mode, size, before.contiguous().numpy().tobytes()).save(file, "JPEG", quality=int(quality))
        read = bytearray(pillow.open(file).tobytes())
        after.copy_(torch.frombuffer(read, dtype=torch.uint8).view_as(after))
    return made.movedim(3, 1).to(x.dtype) / 255


KINDS = (
    kind(brightness, "published constants", 0.05, 0.1, 0.15, 0.2, 0.3),
    kind(contrast, "published constants", 0.75, 0.5, 0.4, 0.3, 0.15),
    kind(saturate, "ours", 1.5, 2, 3, 5, 10),
    kind(elastic_transform, "ours", (0.3, 4), (0.5, 4), (0.7, 4), (1.0, 4), (1.4, 4)),
    kind(pixelate, "published constants", 0.95, 0.9, 0.85, 0.75, 0.65),
    kind(jpeg_compression, "published constants", 80, 65, 58, 50, 40),
)
