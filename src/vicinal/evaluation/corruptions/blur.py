"""Blur. Lengths are in units: pixels at a shorter side of up to 32, proportionally more of larger images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vicinal.evaluation.corruptions._common import (
    Generators,
    convolved,
    drawn,
    gaussian_blurred,
    kind,
    line,
    pixels,
    sampled,
    uniform,
    unit,
)


def defocus_blur(x: Tensor, _: Generators, radius: float) -> Tensor:
    """Convolution with a disc of ``radius`` units, whose rim falls off over one pixel. The constants are ours."""
    radius = radius * unit(x)
    reach = math.ceil(radius + 0.5) - 1
    place = torch.arange(-reach, reach + 1)
    disc = (radius + 0.5 - torch.hypot(place[:, None].float(), place[None].float())).clamp(0, 1)
    return convolved(x, disc / disc.sum())


def gaussian_blur(x: Tensor, _: Generators, sigma: float) -> Tensor:
    """Convolution with a Gaussian of standard deviation ``sigma`` units. The constants are ours."""
    return gaussian_blurred(x, sigma * unit(x))


def glass_blur(x: Tensor, generators: Generators, sigma: float, jitter: float) -> Tensor:
    """A slight Gaussian blur of ``sigma`` units, a local shuffle of the pixels, and the blur again.

    The shuffle, our own, reorders each row, then each column, by place plus uniform noise in ±``jitter`` units: pixels
    move by less than twice that and none is lost or doubled. Unlike neighbours exchanged one after the other, it runs
    on all pixels at once. The constants are ours.
    """
    size = unit(x)
    made = gaussian_blurred(x, sigma * size)
    noise = jitter * size * (2 * uniform(x, generators, 2) - 1)
    for dim, places in zip((3, 2), reversed(pixels(x)), strict=True):
        order = (noise[:, 3 - dim] + places).argsort(dim=dim - 1, stable=True)
        made = made.gather(dim, order[:, None].expand_as(made))
    return gaussian_blurred(made, sigma * size)


def motion_blur(x: Tensor, generators: Generators, length: float) -> Tensor:
    """Convolution with a straight line of ``length`` units, its direction uniform. The constants are ours."""
    angles = (math.pi * drawn(generators, lambda generator: torch.rand((), generator=generator))).tolist()
    return convolved(x, [line(length * unit(x), angle) for angle in angles])


def zoom_blur(x: Tensor, _: Generators, most: float) -> Tensor:
    """Mean of the image and of it magnified about its centre in steps of 0.02, up to ``most``. The constants are ours.

    Bilinear interpolation.
    """
    centre = [(side - 1) / 2 for side in x.shape[2:]]
    row, column = pixels(x)
    total, steps = x.clone(), round((most - 1) / 0.02)
    for step in range(1, steps + 1):
        factor = 1 + 0.02 * step
        down, right = centre[0] + (row - centre[0]) / factor, centre[1] + (column - centre[1]) / factor
        total += sampled(x, *torch.broadcast_tensors(down, right))
    return total / (steps + 1)


KINDS = (
    kind(defocus_blur, "ours", 0.8, 1.1, 1.4, 1.8, 2.3),
    kind(gaussian_blur, "ours", 0.5, 0.65, 0.8, 1.0, 1.3),
    kind(glass_blur, "ours", (0.3, 0.8), (0.35, 1.0), (0.4, 1.3), (0.45, 1.7), (0.5, 2.2)),
    kind(motion_blur, "ours", 2, 3, 4.5, 6, 8),
    kind(zoom_blur, "ours", 1.06, 1.10, 1.16, 1.22, 1.30),
)
