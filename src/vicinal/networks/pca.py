"""Principal components as an autoencoder: the linear special case, fitted and not trained."""

from __future__ import annotations

from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from vicinal.data.types import Rows, as_float
from vicinal.errors import InputError
from vicinal.networks.autoencoder import Autoencoder
from vicinal.networks.preprocess import Identity
from vicinal.settings import check

# Principal directions with a smaller share of the largest variance are rounding noise of the data.
_RANK_TOLERANCE = 1e-12


class PCAAutoencoder(Autoencoder):
    """Principal components: the linear autoencoder. Mixing its codes is mixing reconstructions, exactly.

    A code holds the projections on the first d_z principal directions, each divided by its standard deviation, so
    that codes have variance 1 in each coordinate as under the prior of an MMD-VAE. With d_z equal to the number of
    values of an example, reconstructions are the inputs, up to rounding.

    Args:
        shape: shape of one example, (C, H, W) or (D,).
        latent: d_z.

    Raises:
        InputError: ``latent`` is not in 1..D.
    """

    constant_buffers = True
    mean: Tensor
    directions: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...], latent: int) -> None:
        super().__init__()
        size = torch.Size(shape).numel()
        check("latent", latent, low=1, high=size)
        self.preprocess: nn.Module = Identity()
        self.shape = tuple(shape)
        self.latent = latent
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("directions", torch.zeros(size, latent))
        self.register_buffer("std", torch.ones(latent))

    @torch.no_grad()
    def fit(self, x: Rows) -> Self:
        """Fit on examples, all at once in float64; the result has the inputs' precision, at least float32.

        Args:
            x: clean training inputs, (N, ...) uint8 or float, N at least 2. Memory: some three (N, D) and two (D, D)
                matrices in float64.

        Raises:
            InputError: fewer than two examples, another shape, or values that are not finite.
        """
        if len(x) < 2:
            raise InputError(f"pca: at least 2 examples are needed to fit, got {len(x)}")
        given = as_float(x[torch.arange(len(x))])
        if tuple(given.shape[1:]) != self.shape:
            raise InputError(f"pca: made for examples of shape {self.shape}, got {tuple(given.shape[1:])}")
        rows = self.preprocess(given).double().flatten(1)
        if not bool(torch.isfinite(rows).all()):
            raise InputError("pca: the training inputs hold values that are not finite")
        mean = rows.mean(dim=0)
        rows = rows - mean
        variances, directions = torch.linalg.eigh(rows.T @ rows / len(rows))
        variances = variances.flip(0)[: self.latent]
        kept = variances > _RANK_TOLERANCE * variances[0].clamp(min=0)
        dtype = torch.float64 if given.dtype == torch.float64 else torch.float32
        self.mean = mean.to(dtype)
        self.directions = directions.flip(1)[:, : self.latent].to(dtype).contiguous()
        # A direction without variance keeps its unit: its codes are rounding noise, not to be blown up.
        self.std = torch.where(kept, variances, 1).sqrt().to(dtype)
        return self

    def encode(self, x: Tensor) -> Tensor:
        rows: Tensor = self.preprocess(x).flatten(1)
        return (rows.to(self.mean.dtype) - self.mean) @ self.directions / self.std

    def decode(self, z: Tensor) -> Tensor:
        rows = (z * self.std) @ self.directions.T + self.mean
        return cast(Tensor, cast(Any, self.preprocess).inverse(rows.view(-1, *self.shape)))


def pca(
    shape: tuple[int, ...],
    classes: int,  # noqa: ARG001 (every builder is called with it)
    *,
    latent: int | None = None,
) -> PCAAutoencoder:
    """Principal components as an autoencoder: cheap and exact for small data; it is fitted, not trained.

    Args:
        shape: shape of one example, (C, H, W) or (D,).
        classes: not used.
        latent: number of components; None for as many as an example has values, which loses nothing.

    Raises:
        InputError: more components than values, or none.
    """
    return PCAAutoencoder(shape, torch.Size(shape).numel() if latent is None else latent)


def fit_pca(x: Tensor, latent: int) -> PCAAutoencoder:
    """A `PCAAutoencoder` of examples.

    Args:
        x: examples (N, ...), uint8 or float.
        latent: number of components, 1..D.

    Raises:
        InputError: fewer than two examples, values that are not finite, or ``latent`` out of range.

    >>> line = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
    >>> torch.allclose(fit_pca(line, 1)(line), line, atol=1e-6)
    True
    """
    return PCAAutoencoder(tuple(x.shape[1:]), latent).fit(x)
