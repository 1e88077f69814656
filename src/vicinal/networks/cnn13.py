"""CNN-13, the 13-layer network of the semi-supervised literature, with the variants of the published codes."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from vicinal.networks.classifier import Classifier
from vicinal.networks.layers import GaussianNoise, NormName, image_shape, normalised, rate
from vicinal.networks.preprocess import Identity
from vicinal.settings import check

# 3x3 valid convolution after two 2x2 poolings.
_SMALLEST = 12


def cnn13(
    shape: tuple[int, ...],
    classes: int,
    *,
    norm: Literal["batch", "mean_only", "weight", "weight+mean_only", "weight+batch"] = "batch",
    top_norm: Literal["none", "batch", "mean_only", "weight", "weight+mean_only"] = "none",
    slope: float = 0.1,
    dropout: float = 0.5,
    input_noise: float = 0.0,
    bias: bool = True,
    bn_momentum: float = 0.1,
) -> Classifier:
    """Three 3x3 convolutions of 128, three of 256, then 512 (valid), 256 (1x1), 128 (1x1); global average; linear.

    Each convolution is followed by normalisation and leaky ReLU; after the third and the sixth come 2x2 max pooling
    and dropout. The 128 averages are the features. 3 123 850 parameters with the defaults on 3x32x32 and 10 classes.

    Settings of the published codes (their running decays are 1 - ``bn_momentum``):

    | code | norm | top_norm | dropout | input_noise | bias | bn_momentum |
    |---|---|---|---|---|---|---|
    | tempens, SNTG, Mean Teacher (TF) | weight+mean_only | weight+mean_only | 0.5 | 0.15 | | 0.001 |
    | VAT (TF) on CIFAR-10 | batch | none | 0.5 | 0 | False | 0.01 |
    | VAT (TF) on SVHN | batch | batch | 0.5 | 0 | False | 0.01 |
    | VAdD on CIFAR-10 | mean_only | none | 0.5 | 0.15 | | |
    | VAdD on SVHN | batch | batch | 0.5 | 0 | | |
    | AdvMixup | batch | batch | 0.5 | 0 | True | 0.1 |
    | ICT | weight+batch | weight | 0 | 0 | | |
    | fast-SWA | weight+batch | weight | 0.5 | 0 | | |

    Empty cells are not known; the bias has no effect before a normalisation, but for weight decay. tempens also
    initialises from data: `vicinal.networks.initialise_from_data`. CT-GAN's variant (strided convolutions, slope 0.2)
    is another network; fast-SWA has two heads. Weights are drawn from the global generator: seed it before.

    Args:
        shape: shape of one example, (C, H, W), at least 12 pixels a side.
        classes: number of classes.
        norm: normalisation after each convolution: batch norm, batch norm of the mean alone, or either of them on
            weight-normalised convolutions.
        top_norm: normalisation of the logits, by the same names.
        slope: negative slope of the leaky ReLU.
        dropout: share of activations dropped after each of the two poolings, in [0, 1).
        input_noise: standard deviation of Gaussian noise on the preprocessed input in training.
        bias: whether convolutions have a bias, though the normalisation takes it out again.
        bn_momentum: weight of the newest batch in the running statistics.

    Raises:
        InputError: inputs are no images or too small, or a setting is out of range.

    Source: Laine and Aila 2017 (temporal ensembling); variants read from the codes.
    """
    channels, *_ = image_shape("cnn13", shape, _SMALLEST)
    check("slope", slope, low=0)
    check("bn_momentum", bn_momentum, low=0, high=1)
    layers: list[nn.Module] = [GaussianNoise(input_noise)] if input_noise else []
    stages = []
    for width, kernel, padding, pool in (
        (128, 3, 1, False),
        (128, 3, 1, False),
        (128, 3, 1, True),
        (256, 3, 1, False),
        (256, 3, 1, False),
        (256, 3, 1, True),
        (512, 3, 0, False),
        (256, 1, 0, False),
        (128, 1, 0, False),
    ):
        convolution = nn.Conv2d(channels, width, kernel, padding=padding, bias=bias)
        layers += [*normalised(convolution, norm, bn_momentum), nn.LeakyReLU(slope)]
        if pool:
            stages.append(len(layers))
            layers.append(nn.MaxPool2d(2))
            if rate("dropout", dropout):
                layers.append(nn.Dropout(dropout))
        channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    make_head = partial(_head, channels, classes, top_norm, bn_momentum)
    return Classifier(
        Identity(),
        nn.Sequential(*layers),
        make_head(),
        feature_dim=channels,
        classes=classes,
        stages=stages,
        make_head=make_head,
    )


def _head(channels: int, classes: int, norm: NormName, momentum: float) -> nn.Module:
    made = normalised(nn.Linear(channels, classes), norm, momentum)
    return made[0] if len(made) == 1 else nn.Sequential(*made)
