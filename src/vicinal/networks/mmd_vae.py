"""The MMD-VAE: an autoencoder whose codes follow a Gaussian as a whole, to mix them in."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.networks.autoencoder import Autoencoder
from vicinal.networks.layers import image_shape
from vicinal.networks.preprocess import Identity
from vicinal.settings import check


class Posterior(NamedTuple):
    """The encoder's law q(z|x), a Gaussian with independent coordinates.

    Attributes:
        mean: (B, d_z).
        log_variance: (B, d_z), or None where the code is deterministic.
    """

    mean: Tensor
    log_variance: Tensor | None

    def sample(self, generator: torch.Generator) -> Tensor:
        """One code for each row, (B, d_z), with a graph (mean + std * noise); the noise comes from a CPU generator."""
        if self.log_variance is None:
            return self.mean
        noise = torch.randn(self.mean.shape, generator=generator)
        return self.mean + (0.5 * self.log_variance).exp() * noise.to(self.mean, non_blocking=True)


class MMDVAE(Autoencoder):
    """A Gaussian encoder and a decoder; `mmd_vae` builds it, `vicinal.vicinity.info_vae_loss` is what it minimises.

    Images are reconstructed in [0,1], whatever the preprocessing layer makes of them on the way in. Feature vectors are
    reconstructed in the preprocessed (standardised) space and carried back through the layer's inverse.

    Args:
        encoder: from preprocessed inputs to means, and behind them log variances if ``stochastic``: (B, d_z) or
            (B, 2 d_z).
        decoder: from codes (B, d_z) to images in [0,1], or to preprocessed vectors.
        latent: d_z.
        image: whether examples are images.
        stochastic: whether the encoder gives log variances.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, latent: int, image: bool, stochastic: bool) -> None:
        super().__init__()
        self.preprocess: nn.Module = Identity()
        self.encoder = encoder
        self.decoder = decoder
        self.latent = latent
        self.image = image
        self.stochastic = stochastic

    def posterior(self, x: Tensor) -> Posterior:
        """The law of the codes of inputs (B, ...) in data space."""
        found: Tensor = self.encoder(self.preprocess(x))
        return Posterior(*found.chunk(2, dim=1)) if self.stochastic else Posterior(found, None)

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x).mean

    def decode(self, z: Tensor) -> Tensor:
        found: Tensor = self.decoder(z)
        return found if self.image else cast(Tensor, cast(Any, self.preprocess).inverse(found))

    def residual(self, x: Tensor, z: Tensor) -> Tensor:
        """What codes leave unexplained: decoded minus wanted, (B, ...), in pixels or standardised features.

        Args:
            x: inputs (B, ...) in data space.
            z: codes (B, d_z).
        """
        wanted = x if self.image else self.preprocess(x)
        return cast(Tensor, self.decoder(z)) - wanted


def mmd_vae(
    shape: tuple[int, ...],
    classes: int,  # noqa: ARG001 (every builder is called with it)
    *,
    latent: int | None = None,
    widths: Sequence[int] | None = None,
    stochastic: bool = True,
) -> MMDVAE:
    """MMD-VAE: strided convolutions to a Gaussian code, and mirrored transposed convolutions back to pixels.

    Images: a 4x4 convolution of stride 2, batch norm and ReLU for each width, then a linear layer to the code; the
    decoder mirrors it and ends with a sigmoid. Vectors: linear layers with ReLU, mirrored, without a sigmoid. The
    architecture of the VarMixup paper could not be recovered: this one is ours. Weights are drawn from the global
    generator (torch's defaults): seed it before.

    Args:
        shape: shape of one example, (C, H, W) in [0,1], or (D,).
        classes: not used.
        latent: size of the code; None for 128 (images of 64x64 and larger: 256, smaller than 16x16: 16), and for
            vectors 16, or D if that is less.
        widths: channels of each stage; None for 64, 128, 256, then 512, as many as leave a map of at least 2x2
            (one stage for images of 2 or 3 pixels). Of those given, stages that leave no such map are left out. For
            vectors widths of the hidden layers; None for 128, 128.
        stochastic: whether the encoder gives a variance too, else the code is deterministic.

    Raises:
        InputError: a size is out of range, or images have fewer than 2 pixels a side.

    >>> vae = mmd_vae((1, 8, 8), 10, latent=4, widths=[8, 16]).eval()
    >>> x = torch.rand(3, 1, 8, 8)
    >>> vae.encode(x).shape, vae(x).shape
    (torch.Size([3, 4]), torch.Size([3, 1, 8, 8]))
    """
    for width in widths or ():
        check("widths", width, low=1)
    image = len(shape) != 1
    size = _latent(shape) if latent is None else latent
    check("latent", size, low=1)
    pair = _convolutions if image else _perceptrons
    encoder, decoder = pair(shape, size, widths, size * (1 + stochastic))
    return MMDVAE(encoder, decoder, latent=size, image=image, stochastic=stochastic)


def _latent(shape: tuple[int, ...]) -> int:
    if len(shape) == 1:
        return min(16, shape[0])
    smallest = min(shape[1:])
    if smallest < 16:
        return 16
    return 128 if smallest < 64 else 256


def _convolutions(
    shape: tuple[int, ...], latent: int, widths: Sequence[int] | None, coded: int
) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of images; each stage halves a side of the map, rounding down."""
    channels, *size = image_shape("mmd_vae", shape, 2)
    sizes = [tuple(size)]
    wanted = itertools.chain((64, 128, 256), itertools.repeat(512)) if widths is None else iter(widths)
    stages = [channels]
    while len(stages) == 1 or min(sizes[-1]) >= 4:
        if (width := next(wanted, None)) is None:
            break
        stages.append(width)
        sizes.append(tuple(side // 2 for side in sizes[-1]))
    if len(stages) == 1:
        raise InputError("widths: at least one stage is needed")
    encoder: list[nn.Module] = []
    for before, after in itertools.pairwise(stages):
        encoder += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    last = (stages[-1], *sizes[-1])
    flat = torch.Size(last).numel()
    decoder: list[nn.Module] = [nn.Linear(latent, flat, bias=False), nn.Unflatten(1, last)]
    for stage in range(len(stages) - 1, 0, -1):
        # An odd side was rounded down, so its mirror has one more than twice the pixels.
        odd = [large - 2 * small for large, small in zip(sizes[stage - 1], sizes[stage], strict=True)]
        decoder += [nn.BatchNorm2d(stages[stage]), nn.ReLU()]
        decoder.append(
            nn.ConvTranspose2d(
                stages[stage], stages[stage - 1], 4, 2, 1, output_padding=(odd[0], odd[1]), bias=stage == 1
            )
        )
    return (
        nn.Sequential(*encoder, nn.Flatten(), nn.Linear(flat, coded)),
        nn.Sequential(*decoder, nn.Sigmoid()),
    )


def _perceptrons(
    shape: tuple[int, ...], latent: int, widths: Sequence[int] | None, coded: int
) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of vectors."""
    hidden = (128, 128) if widths is None else widths
    return _perceptron([shape[0], *hidden, coded]), _perceptron([latent, *reversed(hidden), shape[0]])


def _perceptron(sizes: Sequence[int]) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
