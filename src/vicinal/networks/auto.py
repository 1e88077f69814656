"""The network that is taken when none is named."""

from __future__ import annotations

from vicinal.networks.classifier import Classifier
from vicinal.networks.mlp import mlp
from vicinal.networks.small_cnn import small_cnn


def auto(shape: tuple[int, ...], classes: int) -> Classifier:
    """`small_cnn` for images and `mlp` for feature vectors, with their defaults.

    Args:
        shape: shape of one example, (C, H, W) or (D,).
        classes: number of classes.
    """
    return small_cnn(shape, classes) if len(shape) == 3 else mlp(shape, classes)
