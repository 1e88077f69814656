"""Initialisation from data, for weight normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.parametrize import is_parametrized

from vicinal.networks.layers import GaussianNoise
from vicinal.networks.passes import FROZEN_STATS, applied

_RANDOM = (_DropoutNd, GaussianNoise)


def initialise_from_data(network: nn.Module, x: Tensor) -> None:
    """Scale weight-normalised layers so that on these inputs each of their channels has mean 0 and variance 1.

    One pass, layer after layer, each seeing the layers before it as already initialised; without dropout and noise, and
    without moving running statistics. Layers without a bias are only scaled (their batch norm subtracts the mean).

    Args:
        network: its convolutions and linear layers with weight normalisation are changed in place, in the order they
            run.
        x: clean inputs (B, ...), some hundred.

    Source: Salimans and Kingma 2016 (weight normalisation); the tempens code does it, the PyTorch codes do not.
    """
    layers = [
        module
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and is_parametrized(module, "weight")
    ]
    hooks = [layer.register_forward_hook(_rescale) for layer in layers]
    try:
        with torch.no_grad(), applied(network, FROZEN_STATS):
            random = [module for module in network.modules() if isinstance(module, _RANDOM) and module.training]
            try:
                for module in random:
                    module.training = False
                network(x)
            finally:
                for module in random:
                    module.training = True
    finally:
        for hook in hooks:
            hook.remove()


def _rescale(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Forward hook: change the layer's length and bias, and give the output that the changed layer has."""
    dims = [0, *range(2, output.dim())]
    std, mean = torch.std_mean(output, dim=dims)
    std = torch.where(std > 1e-8, std, 1)
    length: Tensor = layer.parametrizations.weight.original0  # type: ignore[union-attr, assignment]
    length.div_(std.view(-1, *[1] * (length.dim() - 1)))
    per_channel = (1, -1, *[1] * (output.dim() - 2))
    bias = layer.bias
    if isinstance(bias, Tensor):
        bias.sub_(mean).div_(std)
        output = output - mean.view(per_channel)
    return output / std.view(per_channel)
