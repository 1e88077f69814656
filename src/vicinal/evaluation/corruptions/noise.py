"""Noise: each value of each channel on its own."""

from __future__ import annotations

import torch
from torch import Tensor

from vicinal.evaluation.corruptions._common import Generators, drawn, kind, normal


def gaussian_noise(x: Tensor, generators: Generators, sigma: float) -> Tensor:
    """Adds normal noise of standard deviation ``sigma``. Published constants."""
    return x + sigma * normal(x, generators)


def shot_noise(x: Tensor, generators: Generators, photons: float) -> Tensor:
    """Each value counted in photons, of which white has ``photons`` on average: Poisson(photons x) / photons.

    Mean x, variance x / photons. Published constants.
    """
    counts = [torch.poisson(photons * image, generator) for image, generator in zip(x, generators, strict=True)]
    return torch.stack(counts) / photons


def impulse_noise(x: Tensor, generators: Generators, share: float) -> Tensor:
    """A share of the values, drawn independently, becomes 0 or 1 with equal probability.

    Published constants. Our reading: values of single channels and not whole pixels, so that the impulses of RGB images
    are coloured.
    """
    draw = drawn(generators, lambda generator: torch.rand(x.shape[1:], generator=generator))
    return torch.where(draw < share, (draw < share / 2).to(x.dtype), x)


def speckle_noise(x: Tensor, generators: Generators, sigma: float) -> Tensor:
    """Multiplies by 1 plus normal noise of standard deviation ``sigma``. The constants are ours."""
    return x + x * (sigma * normal(x, generators))


KINDS = (
    kind(gaussian_noise, "published constants", 0.04, 0.06, 0.08, 0.09, 0.10),
    kind(shot_noise, "published constants", 500, 250, 100, 75, 50),
    kind(impulse_noise, "published constants", 0.01, 0.02, 0.03, 0.05, 0.07),
    kind(speckle_noise, "ours", 0.06, 0.10, 0.14, 0.18, 0.22),
)
