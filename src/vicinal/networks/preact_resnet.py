"""PreActResNet-18, the network of the supervised mixup papers."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from vicinal.networks.classifier import Classifier
from vicinal.networks.layers import image_shape
from vicinal.networks.preprocess import Identity
from vicinal.settings import check


class _Block(nn.Module):
    """x -> shortcut + conv(relu(bn(conv(relu(bn(x)))))); a shortcut that changes shape starts from relu(bn(x))."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.relu = nn.ReLU()
        changes = stride != 1 or inside != outside
        self.shortcut = nn.Conv2d(inside, outside, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """From (B, inside, H, W) to (B, outside, H / stride, W / stride)."""
        active = self.relu(self.bn1(x))
        residual: Tensor = self.conv2(self.relu(self.bn2(self.conv1(active))))
        return residual + (x if self.shortcut is None else self.shortcut(active))


def preact_resnet18(
    shape: tuple[int, ...],
    classes: int,
    *,
    stem: Literal["conv", "conv-bn-relu"] = "conv",
    final_norm: bool = True,
    width: int = 64,
) -> Classifier:
    """A 3x3 stem without pooling, eight pre-activated blocks of 64, 128, 256, 512 channels, global average, linear.

    The published codes differ: mixup puts batch norm and ReLU behind the stem (``stem="conv-bn-relu"``); Manifold Mixup
    leaves out the last batch norm and ReLU (``final_norm=False``, 11 171 146 parameters on 3x32x32 and 10 classes), so
    its features are a sum that nothing normalises. The default is the arrangement of He et al. 2016: a bare
    convolution as the stem, batch norm and ReLU before the average. Weights are drawn from the global generator
    (torch's defaults): seed it before.

    Args:
        shape: shape of one example, (C, H, W), at least 8 pixels a side.
        classes: number of classes.
        stem: what the first layer is made of.
        final_norm: batch norm and ReLU after the last block.
        width: channels of the first stage.

    Raises:
        InputError: inputs are no images or too small, or a setting is out of range.
    """
    channels, *_ = image_shape("preact_resnet18", shape, 8)
    check("width", width, low=1)
    body = nn.Sequential()
    body.add_module("stem", nn.Conv2d(channels, width, 3, padding=1, bias=False))
    if stem == "conv-bn-relu":
        body.add_module("stem_norm", nn.Sequential(nn.BatchNorm2d(width), nn.ReLU()))
    inside = width
    stages = []
    for stage in range(4):
        outside = width * 2**stage
        blocks = nn.Sequential(_Block(inside, outside, 2 if stage else 1), _Block(outside, outside, 1))
        body.add_module(f"stage{stage + 1}", blocks)
        stages.append(len(body))
        inside = outside
    if final_norm:
        body.add_module("final_norm", nn.Sequential(nn.BatchNorm2d(inside), nn.ReLU()))
    body.add_module("pool", nn.AdaptiveAvgPool2d(1))
    body.add_module("flatten", nn.Flatten())
    head = nn.Linear(inside, classes)
    return Classifier(Identity(), body, head, feature_dim=inside, classes=classes, stages=stages)
