"""Generator networks: from random codes to examples of a data set's shape."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from vicinal.errors import InputError, nearest
from vicinal.settings import check

OutputName = Literal["tanh", "sigmoid", "wide_tanh"]

_SMALLEST = 4  # pixels a side of the first map, as far as halving the image gives it


class Generator(nn.Module):
    """Random codes z, drawn from N(0, I), to images in data space, or to feature vectors.

    Images: a linear layer gives the first map, of at most 4x4 pixels; then transposed 4x4 convolutions of stride 2
    double it until it covers the image, which is cut out of it. Each but the last layer is followed by batch norm and
    ReLU. Vectors: two hidden ReLU layers, and no bounds. The generator's own layers are our reading (of CT-GAN's only
    the tanh at its end is known).

    Batch norm always uses the statistics of the batch and keeps none: a generator serves training alone, and a pass
    then changes no buffer. Weights are drawn from the global generator (torch's defaults): seed it before.

    Args:
        shape: shape of one example, (C, H, W) or (D,).
        latent: size of a code, >= 1.
        width: channels of the last hidden map, >= 1; each smaller map has twice as many, up to 8 times ``width``. For
            vectors, the hidden layers have ``4 * width`` units.
        output: how images are bounded. ``"tanh"``: (1 + tanh) / 2, onto the data's [0,1]; ``"sigmoid"``: the same range
            from half the slope; ``"wide_tanh"``: 1/2 + tanh, in [-0.5, 1.5]: CT-GAN's official code, where images lie
            in [-0.5, 0.5] and generated ones in [-1, 1], seen from data space.

    Raises:
        InputError: a shape that is neither an image's nor a vector's, or a setting out of range.

    >>> generator = Generator((1, 8, 8))
    >>> generator(torch.randn(5, generator.latent)).shape
    torch.Size([5, 1, 8, 8])
    """

    def __init__(
        self, shape: tuple[int, ...], *, latent: int = 100, width: int = 64, output: OutputName = "tanh"
    ) -> None:
        super().__init__()
        check("latent", latent, low=1)
        check("width", width, low=1)
        if output not in get_args(OutputName):
            raise InputError(f"output: unknown {output!r}; {nearest(output, get_args(OutputName))}")
        self.shape = tuple(shape)
        self.latent = latent
        self.output = output
        if len(shape) == 3:
            self.layers = nn.Sequential(*_deconvolutions(self.shape, latent, width))
        elif len(shape) == 1:
            hidden = 4 * width
            self.layers = nn.Sequential(
                nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, *shape)
            )
        else:
            raise InputError(f"generator: takes examples of shape (C, H, W) or (D,), got {self.shape}")

    def forward(self, z: Tensor) -> Tensor:
        """Examples (B, *shape) of codes (B, latent)."""
        x: Tensor = self.layers(z)
        if len(self.shape) == 1:
            return x
        x = x[..., : self.shape[1], : self.shape[2]]
        if self.output == "sigmoid":
            return x.sigmoid()
        return 0.5 + x.tanh() * (1.0 if self.output == "wide_tanh" else 0.5)

    def codes(self, count: int, generator: torch.Generator, like: Tensor) -> Tensor:
        """Codes (count, latent) from a CPU generator, on the device and of the floating-point type of ``like``."""
        return torch.randn(count, self.latent, generator=generator).to(like.device, like.dtype, non_blocking=True)


def _deconvolutions(shape: tuple[int, ...], latent: int, width: int) -> list[nn.Module]:
    colours, height, image_width = shape
    doublings = max(1, math.ceil(math.log2(max(height, image_width) / _SMALLEST)))
    channels = [min(width * 2**k, 8 * width) for k in reversed(range(doublings))]
    first = (channels[0], math.ceil(height / 2**doublings), math.ceil(image_width / 2**doublings))
    layers: list[nn.Module] = [
        nn.Linear(latent, math.prod(first), bias=False),
        nn.Unflatten(1, first),
    ]
    outputs = [*channels[1:], colours]
    for k, (inner, outer) in enumerate(zip(channels, outputs, strict=True)):
        layers += [nn.BatchNorm2d(inner, track_running_stats=False), nn.ReLU()]
        layers.append(nn.ConvTranspose2d(inner, outer, 4, stride=2, padding=1, bias=k == doublings - 1))
    return layers
