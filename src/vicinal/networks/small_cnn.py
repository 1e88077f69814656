"""Small convolutional network, for 8x8 digits and for quick work on 32x32 images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from vicinal.errors import InputError
from vicinal.networks.classifier import Classifier
from vicinal.networks.layers import GaussianNoise, image_shape, normalised, rate
from vicinal.networks.preprocess import Identity
from vicinal.settings import check


def small_cnn(
    shape: tuple[int, ...],
    classes: int,
    *,
    widths: Sequence[int] = (32, 64, 128),
    norm: Literal["batch", "mean_only", "weight", "weight+mean_only", "weight+batch", "none"] = "batch",
    dropout: float = 0.0,
    input_noise: float = 0.0,
) -> Classifier:
    """A 3x3 convolution, normalisation, leaky ReLU (0.1) per width; 2x2 max pooling between; global average; linear.

    With the default widths on 3x32x32 images and 10 classes it has 94 762 parameters. Widths 16, 32, 64 suit the
    digits. Weights are drawn from the global generator (torch's defaults): seed it before.

    Args:
        shape: shape of one example, (C, H, W).
        classes: number of classes.
        widths: channels of each stage; the last is the number of features.
        norm: normalisation after each convolution; convolutions have a bias only without one that brings its own.
        dropout: share of activations dropped after each pooling, in [0, 1).
        input_noise: standard deviation of Gaussian noise on the preprocessed input in training.

    Raises:
        InputError: inputs are no images or too small for the poolings, or a width or rate is out of range.

    >>> sum(p.numel() for p in small_cnn((3, 32, 32), 10).parameters())
    94762
    """
    if not widths:
        raise InputError("widths: at least one stage is needed")
    channels, *_ = image_shape("small_cnn", shape, 2 ** (len(widths) - 1))
    layers: list[nn.Module] = [GaussianNoise(input_noise)] if input_noise else []
    stages = []
    for stage, width in enumerate(widths):
        check("widths", width, low=1)
        if stage:
            layers.append(nn.MaxPool2d(2))
            if rate("dropout", dropout):
                layers.append(nn.Dropout(dropout))
        convolution = nn.Conv2d(channels, width, 3, padding=1, bias=norm in ("none", "weight"))
        layers += [*normalised(convolution, norm), nn.LeakyReLU(0.1)]
        stages.append(len(layers))
        channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    head = nn.Linear(channels, classes)
    return Classifier(Identity(), nn.Sequential(*layers), head, feature_dim=channels, classes=classes, stages=stages)
