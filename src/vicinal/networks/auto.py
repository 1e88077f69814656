"""The network that is taken when none is named."""

from __future__ import annotations

from vicinal.networks.classifier import Classifier
from vicinal.networks.mlp import mlp
from vicinal.networks.small_cnn import small_cnn


def auto_name(shape: tuple[int, ...]) -> str:
    """The name of the network that `auto` takes.

    >>> auto_name((3, 32, 32)), auto_name((2,))
    ('small_cnn', 'mlp')
    """
    return "small_cnn" if len(shape) == 3 else "mlp"


def auto(shape: tuple[int, ...], classes: int) -> Classifier:
    """`small_cnn` for images and `mlp` for feature vectors, with their defaults.

    Args:
        shape: shape of one example, (C, H, W) or (D,).
        classes: number of classes.
    """
    return small_cnn(shape, classes) if auto_name(shape) == "small_cnn" else mlp(shape, classes)
