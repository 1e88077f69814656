"""Weather, and drops on the lens. All textures are generated here: no photograph is needed.

Lengths are in units: pixels at a shorter side of up to 32, proportionally more of larger images. All constants are
ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.evaluation.corruptions._common import (
    Generators,
    blended,
    colour,
    convolved,
    drawn,
    grey,
    kind,
    line,
    pixels,
    smooth_noise,
    unit,
)


def snow(x: Tensor, generators: Generators, density: float, length: float, whitening: float) -> Tensor:
    """Streaks of falling snow before a whitened image. Model and constants are ours.

    Args:
        x: images.
        generators: sources of the draws.
        density: probability of a flake at each place of a grid of one unit.
        length: of a flake's streak in units; its direction is within 30 degrees of the vertical, one for each image.
        whitening: weight of the image's bright grey version behind the flakes.
    """
    size = unit(x)
    cells = [round(side / size) for side in x.shape[2:]]

    def streaks(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chance, brightness = torch.rand(2, *cells, generator=generator)
        angle = math.pi / 2 + math.radians(30) * (2 * float(torch.rand((), generator=generator)) - 1)
        flakes = torch.where(chance < density, 0.5 + 0.5 * brightness, 0.0)
        streak = line(length * size, angle)
        # A flake is as bright along its streak as it is: snow at a distance, not snow that fades as it falls.
        flakes = F.interpolate(flakes[None, None], list(x.shape[2:]), mode="bilinear", align_corners=False)
        return flakes[0], streak / streak.max() / size

    flakes, kernels = zip(*(streaks(generator) for generator in generators), strict=True)
    layer = convolved(torch.stack(flakes), kernels).clamp(max=1)
    behind = blended(x, torch.maximum(x, 0.5 + 0.5 * grey(x)), whitening)
    return blended(behind, torch.ones(()), layer)


def frost(x: Tensor, generators: Generators, weight: float) -> Tensor:
    """The image behind ice crystals, which hide the share ``weight`` of it. Constants are ours, and so is the texture.

    The texture has twelve crystals at random places. A pixel belongs to the nearest; it is bright on one of that
    crystal's six arms, along the seams between crystals, and where fine noise is high.
    """
    texture = blended(0.35 * torch.ones(()), torch.ones(()), _crystals(x, generators).clamp(0, 1))
    return blended(x, texture * colour(x, 0.86, 0.94, 1.0), weight)


def _crystals(x: Tensor, generators: Generators, count: int = 12) -> Tensor:
    """Brightness of the crystals (B, 1, H, W), from about 0 to about 1.

    Only products, quotients and roots, whose rounding is the same in batches of any size.
    """
    places = drawn(generators, lambda generator: torch.rand(3, count, generator=generator))
    angles = [2 * math.pi * phase for phase in places[:, 2].flatten().tolist()]
    facing = torch.tensor([(math.sin(angle), math.cos(angle)) for angle in angles]).reshape(-1, count, 2, 1, 1)
    row, column = pixels(x)
    down = row - places[:, 0, :, None, None] * x.shape[2]  # (B, count, H, 1)
    right = column - places[:, 1, :, None, None] * x.shape[3]
    distance = (down * down + right * right).sqrt()
    near, nearest = distance.topk(2, dim=1, largest=False)
    across = (down * facing[:, :, 0] + right * facing[:, :, 1]) / distance.clamp(min=1e-6)
    cosine = across.gather(1, nearest[:, :1])
    six = cosine * (4 * cosine * cosine - 3)  # cos 3a, whose square has six peaks
    seam = 1 - ((near[:, 1:] - near[:, :1]) / (1.5 * unit(x))).clamp(max=1)
    return 0.5 * six * six * six * six + 0.5 * seam + 0.1 * smooth_noise(x, generators, 1.5 * unit(x))


def fog(x: Tensor, generators: Generators, thickness: float) -> Tensor:
    """Fog of uneven density: x (1 - t) + 0.9 t, where t is ``thickness`` times a random field in [0.5,1].

    Model and constants are ours. The field is fractal: noise of five scales from the whole image to two pixels or more,
    each half as strong as the one before, stretched to the range.
    """
    field = torch.zeros(())
    for octave in range(5):
        field = field + smooth_noise(x, generators, max(2.0, min(x.shape[2:]) / 2**octave)) / 2**octave
    low, high = field.amin((2, 3), keepdim=True), field.amax((2, 3), keepdim=True)
    return blended(x, torch.tensor(0.9), thickness * (0.5 + 0.5 * (field - low) / (high - low)))


def spatter(x: Tensor, generators: Generators, threshold: float, opacity: float, mud: float) -> Tensor:
    """Drops on the lens, where a random field of standard deviation about 1 exceeds ``threshold``. Constants are ours.

    Args:
        x: images.
        generators: sources of the draws.
        threshold: lower is more drops. Their rim is soft.
        opacity: of a drop.
        mud: share of mud (dark brown) in the water (pale blue).
    """
    drops = ((smooth_noise(x, generators, 4 * unit(x)) - threshold) / 0.4).clamp(0, 1)
    liquid = blended(colour(x, 0.80, 0.93, 0.97), colour(x, 0.22, 0.15, 0.08), mud)
    return blended(x, liquid, opacity * drops)


KINDS = (
    kind(snow, "ours", (0.01, 2, 0.1), (0.02, 2.5, 0.2), (0.035, 3, 0.3), (0.05, 3.5, 0.4), (0.07, 4, 0.5)),
    kind(frost, "ours", 0.15, 0.25, 0.35, 0.45, 0.55),
    kind(fog, "ours", 0.2, 0.35, 0.5, 0.65, 0.8),
    kind(spatter, "ours", (1.2, 0.4, 0), (0.9, 0.5, 0), (0.6, 0.6, 0), (0.6, 0.8, 1), (0.3, 0.9, 1)),
)
