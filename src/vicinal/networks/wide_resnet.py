"""Wide residual networks (pre-activation), as the MixMatch family trains them."""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.networks.classifier import Classifier
from vicinal.networks.layers import GaussianNoise, image_shape, rate
from vicinal.networks.preprocess import Identity
from vicinal.settings import check


class _Unit(nn.Module):
    """x -> shortcut + conv(act(norm(conv(act(norm(x)))))).

    Args:
        inside: input channels.
        outside: output channels.
        stride: of the first convolution and the shortcut.
        activated_shortcut: whether the shortcut, too, starts from the activated input.
        raw_input: the port's bug: the first convolution gets the raw input, and ``bn1`` nothing to do.
    """

    def __init__(
        self,
        inside: int,
        outside: int,
        stride: int,
        *,
        activated_shortcut: bool,
        raw_input: bool,
        slope: float,
        dropout: float,
        momentum: float,
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside, momentum=momentum)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside, momentum=momentum)
        self.drop = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.act = nn.LeakyReLU(slope)
        self.shortcut = nn.Identity() if inside == outside else nn.Conv2d(inside, outside, 1, stride, bias=False)
        self.activated_shortcut = activated_shortcut
        self.raw_input = raw_input

    def forward(self, x: Tensor) -> Tensor:
        """From (B, inside, H, W) to (B, outside, H / stride, W / stride)."""
        active = x if self.raw_input else self.act(self.bn1(x))
        residual: Tensor = self.conv2(self.drop(self.act(self.bn2(self.conv1(active)))))
        shortcut: Tensor = self.shortcut(active if self.activated_shortcut else x)
        return residual + shortcut


def wide_resnet(
    shape: tuple[int, ...],
    classes: int,
    *,
    depth: int = 28,
    width: int = 2,
    slope: float = 0.1,
    dropout: float = 0.0,
    input_noise: float = 0.0,
    bn_momentum: float = 0.1,
    faithful_port: bool = False,
) -> Classifier:
    """WRN-depth-width: a stem of 16 channels, three blocks of (depth - 4)/6 units, width times 16, 32, 64 channels.

    The arrangement is that of the MixMatch code: in the very first unit the shortcut, too, starts from the activated
    input, in the others from the raw one. Published running decays: 0.999 (MixMatch), which is a ``bn_momentum`` of
    0.001. 1 467 610 parameters for WRN-28-2 on 3x32x32 and 10 classes. Weights are drawn from the global generator (He
    for convolutions, Glorot for the head): seed it before.

    Args:
        shape: shape of one example, (C, H, W), at least 4 pixels a side.
        classes: number of classes.
        depth: number of layers, 6 n + 4.
        width: factor of the channels.
        slope: negative slope of the leaky ReLU: 0.1 in the MixMatch family; 0 is the ReLU of the WRN paper.
        dropout: share of activations dropped between the two convolutions of a unit, in [0, 1).
        input_noise: standard deviation of Gaussian noise on the preprocessed input in training.
        bn_momentum: weight of the newest batch in the running statistics.
        faithful_port: reproduce the bug of the PyTorch port of MixMatch (also in Mixup-LR's code): the first units of
            blocks 2 and 3 feed the raw input to their first convolution, and ``body.block2.0.bn1`` and
            ``body.block3.0.bn1`` are not used, so they get no gradient. For comparison
            with numbers made by that code only.

    Raises:
        InputError: inputs are no images or too small, or a setting is out of range.

    Source: Zagoruyko and Komodakis 2016; Berthelot et al. 2019 (MixMatch).
    """
    channels, *_ = image_shape("wide_resnet", shape, 4)
    if depth < 10 or (depth - 4) % 6:
        raise InputError(f"depth must be 6 n + 4 with n at least 1 (10, 16, 22, 28, ...), got {depth}")
    check("width", width, low=1)
    check("slope", slope, low=0)
    check("bn_momentum", bn_momentum, low=0, high=1)
    unit = partial(_Unit, slope=slope, dropout=rate("dropout", dropout), momentum=bn_momentum)
    body = nn.Sequential()
    if input_noise:
        body.add_module("noise", GaussianNoise(input_noise))
    body.add_module("stem", nn.Conv2d(channels, 16, 3, padding=1, bias=False))
    inside = 16
    stages = []
    for block, outside in enumerate((16 * width, 32 * width, 64 * width), start=1):
        units = []
        for index in range((depth - 4) // 6):
            first = index == 0
            units.append(
                unit(
                    inside,
                    outside,
                    stride=2 if first and block > 1 else 1,
                    activated_shortcut=first and block == 1,
                    raw_input=faithful_port and first and block > 1,
                )
            )
            inside = outside
        body.add_module(f"block{block}", nn.Sequential(*units))
        stages.append(len(body))
    body.add_module("norm", nn.BatchNorm2d(inside, momentum=bn_momentum))
    body.add_module("act", nn.LeakyReLU(slope))
    body.add_module("pool", nn.AdaptiveAvgPool2d(1))
    body.add_module("flatten", nn.Flatten())
    head = nn.Linear(64 * width, classes)
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size)
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    nn.init.xavier_normal_(head.weight)
    nn.init.zeros_(head.bias)
    return Classifier(Identity(), body, head, feature_dim=64 * width, classes=classes, stages=stages)


def wrn_28_2(
    shape: tuple[int, ...],
    classes: int,
    *,
    slope: float = 0.1,
    dropout: float = 0.0,
    input_noise: float = 0.0,
    bn_momentum: float = 0.1,
    faithful_port: bool = False,
) -> Classifier:
    """`wide_resnet` of depth 28 and width 2, the usual one of semi-supervised work on CIFAR-10 and SVHN.

    Args:
        shape: shape of one example, (C, H, W), at least 4 pixels a side.
        classes: number of classes.
        slope: negative slope of the leaky ReLU.
        dropout: share of activations dropped between the two convolutions of a unit, in [0, 1).
        input_noise: standard deviation of Gaussian noise on the preprocessed input in training.
        bn_momentum: weight of the newest batch in the running statistics.
        faithful_port: reproduce the bug of the PyTorch port of MixMatch, see `wide_resnet`.
    """
    return wide_resnet(
        shape,
        classes,
        slope=slope,
        dropout=dropout,
        input_noise=input_noise,
        bn_momentum=bn_momentum,
        faithful_port=faithful_port,
    )


def wrn_28_10(
    shape: tuple[int, ...],
    classes: int,
    *,
    slope: float = 0.0,
    dropout: float = 0.0,
    input_noise: float = 0.0,
    bn_momentum: float = 0.1,
) -> Classifier:
    """`wide_resnet` of depth 28 and width 10, the one of the supervised mixup papers.

    Args:
        shape: shape of one example, (C, H, W), at least 4 pixels a side.
        classes: number of classes.
        slope: negative slope of the leaky ReLU.
        dropout: share of activations dropped between the two convolutions of a unit, in [0, 1).
        input_noise: standard deviation of Gaussian noise on the preprocessed input in training.
        bn_momentum: weight of the newest batch in the running statistics.
    """
    return wide_resnet(
        shape,
        classes,
        width=10,
        slope=slope,
        dropout=dropout,
        input_noise=input_noise,
        bn_momentum=bn_momentum,
    )
