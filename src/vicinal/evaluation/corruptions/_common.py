"""What the kinds share: how one is described, draws, kernels and colours.

Lengths are in units: one pixel of an image whose shorter side is at most 32, and that many times more of a larger one.
What adds up numbers is done image by image, since the order of a sum may depend on how many images are in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Generators = Sequence[torch.Generator]
"""One for each image of the batch, on the CPU."""

Apply = Callable[..., Tensor]
"""Images (B, C, H, W), float32 in [0,1] on the CPU, generators and the constants of a severity to images of the same
shape, which are then cut off at 0 and 1."""

_UNIT_SIDE = 32


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption.

    Args:
        name: of the kind.
        apply: what does it.
        severities: for each severity from 1 to 5, the constants that ``apply`` takes.
        source: where these constants are from: those published for CIFAR-10-C, or ours. What a constant means is in the
            docstring of ``apply``.
    """

    name: str
    apply: Apply
    severities: tuple[tuple[float, ...], ...]
    source: Literal["published constants", "ours"]


def kind(
    apply: Apply, source: Literal["published constants", "ours"], *severities: float | tuple[float, ...]
) -> Corruption:
    """A kind named like the function that does it; constants that stand alone need no tuple."""
    constants = tuple(each if isinstance(each, tuple) else (each,) for each in severities)
    return Corruption(apply.__name__, apply, constants, source)


def unit(x: Tensor) -> float:
    """Pixels per unit of length in images (..., H, W). Below 32 pixels, shrinking would leave blurs without effect."""
    return max(1.0, min(x.shape[-2:]) / _UNIT_SIDE)


def drawn(generators: Generators, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
    """One draw for each image, stacked."""
    return torch.stack([draw(generator) for generator in generators])


def normal(x: Tensor, generators: Generators) -> Tensor:
    """A standard normal value for each value of ``x``."""
    return drawn(generators, lambda generator: torch.randn(x.shape[1:], generator=generator))


def uniform(x: Tensor, generators: Generators, count: int) -> Tensor:
    """``count`` uniform values in [0,1) for each pixel of ``x``: (B, count, H, W)."""
    return drawn(generators, lambda generator: torch.rand(count, *x.shape[2:], generator=generator))


def smooth_noise(x: Tensor, generators: Generators, cell: float, fields: int = 1) -> Tensor:
    """Random fields (B, fields, H, W) for images ``x``: standard normal at nodes, cubic interpolation between them.

    Args:
        x: the images, for their size.
        generators: sources of the draws.
        cell: distance of the nodes in pixels, up to rounding; there are at least 2 along each side.
        fields: number of independent fields for each image.
    """
    nodes = [max(2, round(side / cell) + 1) for side in x.shape[2:]]
    size = list(x.shape[2:])

    def field(generator: torch.Generator) -> Tensor:
        values = torch.randn(1, fields, *nodes, generator=generator)
        return F.interpolate(values, size, mode="bicubic", align_corners=True)[0]

    return drawn(generators, field)


def convolved(x: Tensor, kernels: Tensor | Sequence[Tensor]) -> Tensor:
    """Each channel convolved with a symmetric kernel of odd sides; images are mirrored at their borders.

    Args:
        x: images (B, C, H, W).
        kernels: one kernel (h, w) for all, or a sequence of B kernels of one shape. Smaller than twice the image.
    """
    if isinstance(kernels, Tensor):
        kernels = [kernels] * len(x)
    height, width = kernels[0].shape
    padded = F.pad(x, [width // 2, width // 2, height // 2, height // 2], mode="reflect")
    return torch.stack(
        [F.conv2d(image[:, None], kernel[None, None])[:, 0] for image, kernel in zip(padded, kernels, strict=True)]
    )


def gaussian_blurred(x: Tensor, sigma: float) -> Tensor:
    """Blurred by a Gaussian of standard deviation ``sigma`` pixels, cut off at three of them (at least one pixel)."""
    reach = math.ceil(3 * sigma)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weight /= weight.sum()
    return convolved(convolved(x, weight[None]), weight[:, None])


def line(length: float, angle: float) -> Tensor:
    """Kernel of a straight line through the centre, anti-aliased and of sum 1.

    Points close to each other along the line, each spread over the four pixels around it.

    Args:
        length: in pixels.
        angle: in radians, from the horizontal.

    Returns:
        Kernel (k, k) whose odd side k depends on the length alone.
    """
    reach = math.floor(length / 2) + 1
    along = torch.linspace(-length / 2, length / 2, 4 * math.ceil(length) + 1)
    place = torch.arange(-reach, reach + 1)
    rows = (1 - (along[:, None] * math.sin(angle) - place).abs()).clamp(min=0)
    columns = (1 - (along[:, None] * math.cos(angle) - place).abs()).clamp(min=0)
    return (rows[:, :, None] * columns[:, None, :]).mean(0)


def sampled(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Bilinear values of images at places (B or 1, H, W) in pixels from the first one; mirrored beyond the borders."""
    height, width = x.shape[2:]
    places = torch.stack([(2 * right + 1) / width - 1, (2 * down + 1) / height - 1], dim=-1)
    return F.grid_sample(x, places.expand(len(x), -1, -1, -1), padding_mode="reflection", align_corners=False)


def pixels(x: Tensor) -> tuple[Tensor, Tensor]:
    """Row (1, H, 1) and column (1, 1, W) of every pixel, float32."""
    height, width = x.shape[2:]
    return torch.arange(height, dtype=x.dtype)[None, :, None], torch.arange(width, dtype=x.dtype)[None, None, :]


def grey(x: Tensor) -> Tensor:
    """Luma (ITU-R BT.601) of RGB images, or the images themselves if they have one channel: (B, 1, H, W)."""
    return 0.299 * x[:, 0:1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3] if x.shape[1] == 3 else x


def colour(x: Tensor, red: float, green: float, blue: float) -> Tensor:
    """A colour (1, C, 1, 1) for images ``x``: its luma where they have one channel."""
    made = torch.tensor([red, green, blue]).reshape(1, 3, 1, 1)
    return made if x.shape[1] == 3 else grey(made)


def blended(x: Tensor, other: Tensor, weight: Tensor | float) -> Tensor:
    """From ``x`` (weight 0) to ``other`` (weight 1)."""
    return x + weight * (other - x)
