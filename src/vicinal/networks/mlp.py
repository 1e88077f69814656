"""Multi-layer perceptron, for feature vectors, toys and small images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from vicinal.networks.classifier import Classifier
from vicinal.networks.layers import GaussianNoise, rate
from vicinal.networks.preprocess import Identity
from vicinal.settings import check

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "softplus": nn.Softplus,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
}


def mlp(
    shape: tuple[int, ...],
    classes: int,
    *,
    hidden: Sequence[int] = (64, 64),
    activation: Literal["relu", "leaky_relu", "softplus", "gelu", "tanh", "silu"] = "relu",
    norm: Literal["none", "batch", "layer"] = "none",
    dropout: float = 0.0,
    input_noise: float = 0.0,
) -> Classifier:
    """Linear, normalisation, activation and dropout for each width, then a linear head; images are flattened.

    Weights are drawn from the global generator (torch's defaults): seed it before.

    Args:
        shape: shape of one example, (D,) or (C, H, W).
        classes: number of classes C.
        hidden: widths of the hidden layers; none gives a linear softmax classifier.
        activation: between the layers; the slope of ``leaky_relu`` is 0.1. Smooth ones suit second-order work.
        norm: between linear layer and activation: none, over the batch, or over each sample's own features.
        dropout: share of activations dropped after each hidden layer, in [0, 1).
        input_noise: standard deviation of Gaussian noise on the preprocessed input in training.

    Raises:
        InputError: a width or rate is out of range.

    >>> mlp((2,), 3, hidden=[8])(torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    """
    layers: list[nn.Module] = [nn.Flatten()]
    if input_noise:
        layers.append(GaussianNoise(input_noise))
    width = torch.Size(shape).numel()
    stages = []
    for wanted in hidden:
        check("hidden", wanted, low=1)
        layers.append(nn.Linear(width, wanted))
        if norm != "none":
            layers.append(nn.BatchNorm1d(wanted) if norm == "batch" else nn.LayerNorm(wanted))
        layers.append(_ACTIVATIONS[activation]())
        if rate("dropout", dropout):
            layers.append(nn.Dropout(dropout))
        stages.append(len(layers))
        width = wanted
    head = nn.Linear(width, classes)
    return Classifier(Identity(), nn.Sequential(*layers), head, feature_dim=width, classes=classes, stages=stages)
