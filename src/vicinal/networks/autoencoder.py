"""What an autoencoder is here: data to codes and back."""

from __future__ import annotations

from torch import Tensor, nn


class Autoencoder(nn.Module):
    """Maps data to codes and codes to data.

    Attributes:
        latent: size of a code, d_z.
        preprocess: layer that inputs go through on their way in, as in a classifier.
    """

    latent: int
    preprocess: nn.Module

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, d_z) of inputs (B, ...) in data space; the mean where the encoder is stochastic."""
        raise TypeError(f"{type(self).__name__} defines no encoder")

    def decode(self, z: Tensor) -> Tensor:
        """Data (B, ...) of codes (B, d_z)."""
        raise TypeError(f"{type(self).__name__} defines no decoder")

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions, ``decode(encode(x))``."""
        return self.decode(self.encode(x))
