"""Layers that the published networks use and torch does not have."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from vicinal.errors import InputError
from vicinal.settings import check

NormName = Literal["batch", "mean_only", "weight", "weight+mean_only", "weight+batch", "none"]


class GaussianNoise(nn.Module):
    """Adds Gaussian noise in training mode, drawn from the global generator as dropout does.

    Args:
        std: standard deviation, in units of the input, at least 0.

    Raises:
        InputError: ``std`` is negative.

    Source: the codes of the Pi model and Mean Teacher (TensorFlow), which put 0.15 on the preprocessed input.
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        check("input_noise", std, low=0)
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (any shape) plus noise in training mode, ``x`` itself otherwise."""
        return x + self.std * torch.randn_like(x) if self.training and self.std else x

    def extra_repr(self) -> str:
        """The settings, for printing."""
        return f"std={self.std}"


class MeanOnlyBatchNorm(nn.Module):
    """Subtracts the mean of the batch, per channel, and adds a learnt bias; variances are left alone.

    Made to go with weight normalisation, which already sets the scale (Salimans and Kingma 2016). The flags
    mean what they mean in torch's batch norm: with ``track_running_stats`` False in training mode, batch means are used
    and no buffer changes.

    Args:
        num_features: number of channels C.
        momentum: weight of the newest mean in the running one (torch's convention: a published running decay of 0.999
            is 0.001); None for the plain average over all batches.
        affine: learn a bias.
        track_running_stats: keep running means; without them, eval mode uses the batch's own.

    Raises:
        InputError: in training mode, one value per channel: its mean is itself, and the output would be constant.

    Under several processes each uses and tracks the means of its own part of the batch.
    """

    running_mean: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self, num_features: int, *, momentum: float | None = 0.1, affine: bool = True, track_running_stats: bool = True
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.momentum = momentum
        self.track_running_stats = track_running_stats
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_features) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", torch.tensor(0) if track_running_stats else None)

    def forward(self, x: Tensor) -> Tensor:
        """From (B, C) or (B, C, ...) to the same shape and dtype; means are taken in float32 or better."""
        if self.training or self.running_mean is None:
            if self.training and x.numel() <= x.shape[1]:
                raise InputError(
                    f"batch norm needs more than one value per channel in training, got {tuple(x.shape)}; "
                    "use a larger batch"
                )
            exact = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            mean = exact.mean(dim=[0, *range(2, x.dim())])
            if self.training and self.track_running_stats:
                self._track(mean.detach())
        else:
            mean = self.running_mean
        shift = -mean if self.bias is None else self.bias - mean
        return x + shift.to(x.dtype).view(1, -1, *[1] * (x.dim() - 2))

    def _track(self, mean: Tensor) -> None:
        if self.running_mean is None or self.num_batches_tracked is None:
            return
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)

    def extra_repr(self) -> str:
        """The settings, for printing."""
        return f"{self.num_features}, momentum={self.momentum}, track_running_stats={self.track_running_stats}"


def normalised(layer: nn.Conv2d | nn.Linear, norm: NormName, momentum: float | None = 0.1) -> list[nn.Module]:
    """A convolution or linear layer, followed by (and reparametrised for) its normalisation.

    Args:
        layer: the layer; its output channels are normalised.
        norm: ``"batch"``, ``"mean_only"`` (batch norm of the mean alone), ``"weight"`` (weight normalisation:
            direction and length of each output channel's weights are separate parameters), both of two joined by
            ``+``, or ``"none"``.
        momentum: of the running statistics, in torch's convention.
    """
    channels = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
    weight, _, batch = norm.rpartition("+")
    made: list[nn.Module] = [parametrizations.weight_norm(layer) if "weight" in (weight, batch) else layer]
    if batch == "mean_only":
        made.append(MeanOnlyBatchNorm(channels, momentum=momentum))
    elif batch == "batch":
        kind = nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d
        made.append(kind(channels, momentum=momentum))
    return made


def rate(name: str, value: float) -> float:
    """A dropout rate, checked to be in [0, 1).

    Raises:
        InputError: it is not.
    """
    check(name, value, low=0)
    if value >= 1:
        raise InputError(f"{name} must be less than 1, got {value}")
    return value


def image_shape(where: str, shape: tuple[int, ...], smallest: int) -> tuple[int, int, int]:
    """The shape of one example, checked to be an image (C, H, W) of at least ``smallest`` pixels a side.

    Raises:
        InputError: it is not.
    """
    if len(shape) != 3:
        raise InputError(f"{where} takes images (C, H, W), got examples of shape {tuple(shape)}; use 'mlp' for vectors")
    channels, height, width = shape
    if min(height, width) < smallest:
        raise InputError(
            f"{where} needs images of at least {smallest}x{smallest}, got {height}x{width}; "
            "use a smaller network ('small_cnn', 'mlp') or larger images"
        )
    return channels, height, width
