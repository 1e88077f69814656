"""Normalisation and whitening as layers inside the network, so that every attack sees data space.

No layer here has trainable parameters. What was fitted is in persistent buffers, so it travels with the weights. Each
says whether it is ``affine``: then mixing commutes with it (preprocess(mix) = mix(preprocess), up to rounding), and
adding a perturbation in one space is adding its image in the other.

Published epsilons live in different spaces: CIFAR-10 is whitened in four different ways in the codes that this package
compares with, and SVHN scaled in three. `PreprocessName` lists them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from vicinal.errors import InputError, nearest

PreprocessName = Literal[
    "none",
    "normalise",
    "minus_one_to_one",
    "per_image",
    "zca",
    "zca_tempens",
    "zca_ict",
    "zca_vat",
    "zca_mean_teacher",
]

MEAN_TEACHER_LENGTH = 55.0
"""Length to which Mean Teacher's code scales each CIFAR-10 image before it whitens."""

# Keeps the gradient finite where an image is constant; a pixel variance of images in [0,1] is some 1e-2.
_TINY = 1e-8
# Rounding the matrix to float32 (6e-8) times this would leave nothing of the inverse.
_ILL_CONDITIONED = 1e7


class Identity(nn.Module):
    """Inputs as they are."""

    affine = True
    constant_buffers = True

    def forward(self, x: Tensor) -> Tensor:
        """``x``, any shape."""
        return x

    def inverse(self, z: Tensor) -> Tensor:
        """``z``, any shape."""
        return z


class Normalise(nn.Module):
    """(x - mean) / std, per channel of images or per feature of vectors.

    Args:
        mean: C or D numbers, in units of the data ([0,1] for images).
        std: as many, greater than 0.
        image: whether inputs are images (B, C, H, W), else vectors (B, D).

    Raises:
        InputError: lengths differ, or a standard deviation is not greater than 0.

    >>> layer = Normalise([0.5], [0.5])  # SVHN in the ICT and AdvMixup codes: [0,1] becomes [-1,1]
    >>> layer(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)).flatten()
    tensor([-1.,  1.])
    """

    affine = True
    constant_buffers = True
    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor, *, image: bool = True) -> None:
        super().__init__()
        mean, std = torch.as_tensor(mean, dtype=torch.float32), torch.as_tensor(std, dtype=torch.float32)
        if mean.shape != std.shape or mean.dim() != 1:
            raise InputError(f"normalise: mean and std need one number per channel, got {len(mean)} and {len(std)}")
        if not bool((std > 0).all()):
            raise InputError(f"normalise: every std must be greater than 0, got {std.tolist()}")
        shape = (-1, 1, 1) if image else (-1,)
        self.register_buffer("mean", mean.reshape(shape).clone())
        self.register_buffer("std", std.reshape(shape).clone())

    def forward(self, x: Tensor) -> Tensor:
        """From data space to normalised space, same shape: (B, C, H, W) or (B, D)."""
        return (x - self.mean) / self.std

    def inverse(self, z: Tensor) -> Tensor:
        """From normalised space back to data space, same shape."""
        return z * self.std + self.mean


class PerImage(nn.Module):
    """Each image on its own: its mean over all pixels and channels is subtracted, and its spread divided out.

    Not affine: mixing two images and then standardising is not mixing the standardised ones. Constant images become 0.

    Args:
        length: L2 norm of the result (contrast normalisation; Mean Teacher uses 55 before its whitening); None for
            variance 1, which is a length of sqrt(C H W) (temporal ensembling and Mean Teacher on SVHN).
    """

    affine = False
    constant_buffers = True

    def __init__(self, length: float | None = None) -> None:
        super().__init__()
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        """From (B, ...) in data space to the same shape."""
        rows = x.flatten(1)
        rows = rows - rows.mean(dim=1, keepdim=True)
        rows = rows / (rows.square().mean(dim=1, keepdim=True) + _TINY).sqrt()
        return (rows if self.length is None else rows * (self.length / rows.shape[1] ** 0.5)).view_as(x)

    def inverse(self, _z: Tensor) -> Tensor:
        """There is none.

        Raises:
            InputError: always.
        """
        raise InputError(
            "per_image: brightness and contrast of each image are gone, so there is no way back to data space"
        )

    def extra_repr(self) -> str:
        """The settings, for printing."""
        return f"length={self.length}"


class ZCA(nn.Module):
    """Whitening: flatten, subtract the mean, multiply by a matrix, and back to the shape of the input.

    The result is computed in float32 also under autocast: whitening subtracts large, nearly equal numbers.

    Args:
        mean: float32 (D,), with D = C*H*W for images.
        matrix: float32 (D, D), applied from the right to row vectors.

    Raises:
        InputError: the shapes do not fit together.
    """

    affine = True
    constant_buffers = True
    mean: Tensor
    matrix: Tensor

    def __init__(self, mean: Tensor, matrix: Tensor) -> None:
        super().__init__()
        if mean.dim() != 1 or matrix.shape != (len(mean), len(mean)):
            raise InputError(
                f"zca: a mean (D,) needs a matrix (D, D), got {tuple(mean.shape)} and {tuple(matrix.shape)}"
            )
        self.register_buffer("mean", mean.float())
        self.register_buffer("matrix", matrix.float())

    def forward(self, x: Tensor) -> Tensor:
        """From data space (B, C, H, W) or (B, D) to whitened space, same shape."""
        with torch.autocast(x.device.type, enabled=False):
            rows = x.flatten(1).to(self.matrix.dtype)
            if rows.shape[1] != len(self.mean):
                raise InputError(f"zca: fitted on {len(self.mean)} values per example, got {tuple(x.shape[1:])}")
            return ((rows - self.mean) @ self.matrix).view_as(x)

    def inverse(self, z: Tensor) -> Tensor:
        """From whitened space back to data space, same shape.

        Directions that the whitening dropped come back as the mean. Every call inverts the matrix (seconds for 3072
        values): give it all inputs at once.
        """
        return (z.flatten(1).to(self.mean.dtype) @ _inverse(self.matrix) + self.mean).view_as(z)


def _inverse(matrix: Tensor) -> Tensor:
    """The inverse, or where the matrix has none to the precision it is stored in, the pseudo-inverse."""
    exact = matrix.double()
    inverse: Tensor
    inverse, failed = torch.linalg.inv_ex(exact)
    if int(failed) or float((exact.abs() @ inverse.abs()).max()) > _ILL_CONDITIONED:
        inverse = torch.linalg.pinv(exact, rtol=1e-6)
    return inverse.to(matrix.dtype)


class Stack(nn.Sequential):
    """Preprocessing layers one after the other; affine if all of them are."""

    constant_buffers = True

    @property
    def affine(self) -> bool:
        """Whether mixing commutes with the whole."""
        return all(bool(layer.affine) for layer in self)

    def inverse(self, z: Tensor) -> Tensor:
        """Back through all layers, last to first, same shape."""
        for layer in reversed(list(self)):
            z = cast(Any, layer).inverse(z)
        return z


def unfitted_preprocess(name: PreprocessName, shape: tuple[int, ...]) -> nn.Module:
    """A preprocessing layer whose buffers still have to be loaded, for weights that were saved with a fitted one.

    Args:
        name: as for `fit_preprocess`.
        shape: shape of one example, (C, H, W) or (D,).

    Raises:
        InputError: the name is not known.
    """
    known = get_args(PreprocessName)
    if name not in known:
        raise InputError(f"preprocess: unknown {name!r}; {nearest(name, known)}")
    if name == "none":
        return Identity()
    if name == "normalise":
        return Normalise([0.0] * shape[0], [1.0] * shape[0], image=len(shape) == 3)
    if name == "minus_one_to_one":
        return Normalise([0.5] * shape[0], [0.5] * shape[0], image=len(shape) == 3)
    if name == "per_image":
        return PerImage()
    size = torch.Size(shape).numel()
    zca = ZCA(torch.zeros(size), torch.zeros(size, size))
    if name == "zca_mean_teacher":
        return Stack(PerImage(length=MEAN_TEACHER_LENGTH), zca)
    return Stack(unfitted_preprocess("normalise", shape), zca) if name == "zca_ict" else zca
