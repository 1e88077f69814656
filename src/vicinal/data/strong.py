"""Strong random augmentation of image batches for FixMatch: a few operations per image, drawn at random, then cutout.

RandAugment (Cubuk et al. 2020) with random magnitudes, as FixMatch (Sohn et al. 2020) uses it. The list of operations
is the published one; their ranges are ours, in the spirit of the published list. A magnitude m in [0,1] means:

============================================  ===============================================================
``autocontrast``, ``equalise``, ``identity``  m is not used
``brightness``, ``colour``, ``contrast``,     the image keeps the share 0.95 − 0.9 m; the rest is black, its grey
``sharpness``                                 image, its mean grey, the smoothed image
``posterise``                                 8 to 4 bits: 8 − floor(5 m), at least 4
``solarise``                                  values from the threshold 1 − m on (8-bit levels) are inverted
``rotate``                                    by ±30 m degrees about the centre
``shear_x``, ``shear_y``                      by ±0.3 m pixels per pixel from the centre line
``translate_x``, ``translate_y``              by ±0.3 m of the width or the height
============================================  ===============================================================

The sign is drawn for each image and operation. What comes in from outside the image is grey (0.5). Everything runs on
the batch's device, each operation at once on all the images that drew it, and with draws from the CPU nothing waits for
the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.data.types import as_float
from vicinal.errors import InputError
from vicinal.settings import check

Operation = Callable[[Tensor, Tensor], Tensor]
"""Images (B, C, H, W), float32 in [0,1], and signed magnitudes (B,) in [-1,1] to images, up to rounding in [0,1]."""

_GREY = 0.5
_HIGHEST = 255  # level of an 8-bit image; the lowest is 0


@dataclass(frozen=True)
class Strong:
    """How strong views are made.

    Args:
        operations: number of operations applied to each image in turn, drawn with replacement from `OPERATIONS`.
            0 is none.
        magnitude: strength of every operation, in [0,1]; by default drawn uniformly for each image and operation.
        cutout: largest side of the grey square put somewhere on the image, as a share of its shorter side, in [0,1].
            The side is uniform from 0 to that and the centre uniform on the image, at whose border the square is cut
            off. 0 is none.
    """

    operations: int = 2
    magnitude: float | None = None
    cutout: float = 0.5

    def __post_init__(self) -> None:
        check("operations", self.operations, low=0)
        if self.magnitude is not None:
            check("magnitude", self.magnitude, low=0, high=1)
        check("cutout", self.cutout, low=0, high=1)

    @property
    def active(self) -> bool:
        """Whether anything is changed at all."""
        return self.operations > 0 or self.cutout > 0


def strong_augment(x: Tensor, config: Strong, generator: torch.Generator) -> Tensor:
    """One strongly augmented view of each image; crops and flips, the weak augmentation, come before.

    Args:
        x: images (B, C, H, W), uint8 or float in [0,1].
        config: what to do.
        generator: source of the draws, whose number depends on the settings and on B alone: an image's view depends on
            its own pixels and its place in the batch, not on the other images.

    Returns:
        Images (B, C, H, W), float32 in [0,1], on the device of ``x``. With nothing to do and ``x`` float32, ``x``
        itself.

    Raises:
        InputError: ``x`` holds feature vectors.

    >>> x = torch.ones(1, 1, 4, 4)
    >>> strong_augment(x, Strong(operations=0, cutout=1.0), torch.Generator().manual_seed(4)).unique().tolist()
    [0.5, 1.0]
    """
    if x.ndim != 4:
        raise InputError(
            f"strong views are for images (B, C, H, W), got shape {tuple(x.shape)}; "
            "choose a method that needs none for feature vectors"
        )
    made = as_float(x).to(torch.float32)
    if not config.active:
        return made
    shape, device = (config.operations, len(x)), generator.device
    which = torch.randint(len(OPERATIONS), shape, generator=generator, device=device).cpu()
    sign = torch.randint(2, shape, generator=generator, device=device) * 2.0 - 1
    if config.magnitude is None:
        magnitude = sign * torch.rand(shape, generator=generator, device=device)
    else:
        magnitude = sign * config.magnitude
    made = made.clone(memory_format=torch.contiguous_format) if made is x else made.contiguous()
    for k in range(config.operations):
        _apply_(made, which[k], magnitude[k])
    if config.cutout:
        square = torch.rand(3, len(x), generator=generator, device=device).to(x.device, non_blocking=True)
        _cutout_(made, square[0] * config.cutout, square[1:])
    return made.clamp_(0, 1)


def _apply_(x: Tensor, which: Tensor, magnitude: Tensor) -> None:
    """Operation ``which[b]`` on image b, in place: copies of the whole batch would cost more than the operations.

    ``which`` (B,) lies on the CPU, so that the groups' sizes are known there.
    """
    sizes = which.bincount(minlength=len(OPERATIONS)).tolist()
    order = which.argsort(stable=True).to(x.device, non_blocking=True)
    magnitudes = magnitude.to(x.device, non_blocking=True)[order].split(sizes)
    for operation, rows, strength in zip(OPERATIONS.values(), order.split(sizes), magnitudes, strict=True):
        if len(rows) and operation is not _identity:
            x.index_copy_(0, rows, operation(x.index_select(0, rows), strength))


def _cutout_(x: Tensor, side: Tensor, centre: Tensor) -> None:
    """Grey where a pixel's centre is in the square; ``side`` (B,) and ``centre`` (2, B) are shares of the image."""
    height, width = x.shape[2:]
    half = (side * (min(height, width) / 2))[:, None]
    row = (torch.arange(height, device=x.device) + 0.5 - centre[0, :, None] * height).abs() < half
    column = (torch.arange(width, device=x.device) + 0.5 - centre[1, :, None] * width).abs() < half
    x.masked_fill_((row[:, :, None] & column[:, None, :])[:, None], _GREY)


def _level(x: Tensor) -> Tensor:
    """Values as 8-bit levels: what compares values must not see the rounding of earlier operations."""
    return (x * _HIGHEST).round()


def _identity(x: Tensor, _: Tensor) -> Tensor:
    return x


def _autocontrast(x: Tensor, _: Tensor) -> Tensor:
    """Each channel stretched to [0,1]. One of a single 8-bit level stays: its spread would be rounding, blown up."""
    low, high = (bound[..., None] for bound in x.flatten(2).aminmax(dim=2, keepdim=True))
    flat = high - low < 0.5 / _HIGHEST
    return torch.where(flat, x, (x - low) / torch.where(flat, 1.0, high - low))


def _equalise(x: Tensor, _: Tensor) -> Tensor:
    """Each channel's value to the share of pixels of a lower 8-bit level, so that its highest level is 1.

    Pillow's rule without its integer steps, which leave images of fewer than 256 pixels as they are and let those of
    a few hundred saturate. A channel of a single level stays.
    """
    level = _level(x).to(torch.int64).flatten(2)
    # Counts are integers: on a GPU, sums of floats depend on their order.
    count = torch.zeros(*x.shape[:2], _HIGHEST + 1, dtype=torch.int32, device=x.device)
    count = count.scatter_add_(2, level, torch.ones_like(level, dtype=torch.int32))
    lower = (count.cumsum(2) - count).gather(2, level)
    most = lower.amax(dim=2, keepdim=True)
    return torch.where(most == 0, x.flatten(2), lower / most.clamp(min=1)).reshape(x.shape)


def _posterise(x: Tensor, magnitude: Tensor) -> Tensor:
    dropped = (5 * magnitude.abs()).floor().clamp(max=4)
    step = torch.exp2(dropped)[:, None, None, None]
    return (_level(x) / step).floor() * step / _HIGHEST


def _solarise(x: Tensor, magnitude: Tensor) -> Tensor:
    # On the scale of 256 levels: magnitude 0 leaves white as it is, 1 inverts everything.
    threshold = (1 - magnitude.abs())[:, None, None, None] * (_HIGHEST + 1)
    return torch.where(_level(x) < threshold, x, 1 - x)


def _blend(x: Tensor, other: Tensor | float, magnitude: Tensor) -> Tensor:
    keep = (0.95 - 0.9 * magnitude.abs())[:, None, None, None]
    return other + keep * (x - other)


def _grey(x: Tensor) -> Tensor:
    """Luma (ITU-R BT.601) of RGB images, the mean of other numbers of channels: (B, 1, H, W)."""
    if x.shape[1] == 3:
        return 0.299 * x[:, 0:1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3]
    return x.mean(1, keepdim=True)


def _brightness(x: Tensor, magnitude: Tensor) -> Tensor:
    return _blend(x, 0.0, magnitude)


def _colour(x: Tensor, magnitude: Tensor) -> Tensor:
    """Towards grey; images of one channel stay as they are."""
    return _blend(x, _grey(x), magnitude)


def _contrast(x: Tensor, magnitude: Tensor) -> Tensor:
    return _blend(x, _grey(x).mean((2, 3), keepdim=True), magnitude)


def _sharpness(x: Tensor, magnitude: Tensor) -> Tensor:
    """Towards the mean over 3x3 pixels in which the middle counts five times; the border pixels stay."""
    smooth = x.clone()
    smooth[..., 1:-1, 1:-1] = ((9 * F.avg_pool2d(x, 3, 1, 1) + 4 * x) / 13)[..., 1:-1, 1:-1]
    return _blend(x, smooth, magnitude)


def _from_centre(x: Tensor) -> tuple[Tensor, Tensor]:
    """Places of the pixels' centres, in pixels from the image's: to the right (1, W), downwards (H, 1)."""
    height, width = x.shape[2:]
    u = torch.arange(width, device=x.device, dtype=x.dtype) - (width - 1) / 2
    v = torch.arange(height, device=x.device, dtype=x.dtype) - (height - 1) / 2
    return u, v[:, None]


def _sample(x: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Bilinear values at places (B or 1, H or 1, W or 1), in pixels from the centre; grey outside.

    The places are worked out element by element: ``affine_grid`` multiplies matrices, which autocast and TF32 round.
    """
    height, width = x.shape[2:]
    places = torch.broadcast_tensors(u * (2 / width), v * (2 / height), x[:, 0])[:2]
    return F.grid_sample(x - _GREY, torch.stack(places, dim=3), align_corners=False) + _GREY


def _rotate(x: Tensor, magnitude: Tensor) -> Tensor:
    """Anticlockwise for positive magnitudes."""
    u, v = _from_centre(x)
    angle = (magnitude * math.radians(30))[:, None, None]
    return _sample(x, angle.cos() * u - angle.sin() * v, angle.sin() * u + angle.cos() * v)


def _shear_x(x: Tensor, magnitude: Tensor) -> Tensor:
    u, v = _from_centre(x)
    return _sample(x, u + 0.3 * magnitude[:, None, None] * v, v)


def _shear_y(x: Tensor, magnitude: Tensor) -> Tensor:
    u, v = _from_centre(x)
    return _sample(x, u, v + 0.3 * magnitude[:, None, None] * u)


def _translate_x(x: Tensor, magnitude: Tensor) -> Tensor:
    u, v = _from_centre(x)
    return _sample(x, u + 0.3 * x.shape[3] * magnitude[:, None, None], v)


def _translate_y(x: Tensor, magnitude: Tensor) -> Tensor:
    u, v = _from_centre(x)
    return _sample(x, u, v + 0.3 * x.shape[2] * magnitude[:, None, None])


OPERATIONS: Mapping[str, Operation] = {
    "autocontrast": _autocontrast,
    "brightness": _brightness,
    "colour": _colour,
    "contrast": _contrast,
    "equalise": _equalise,
    "identity": _identity,
    "posterise": _posterise,
    "rotate": _rotate,
    "sharpness": _sharpness,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "solarise": _solarise,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
"""The operations by name; each is drawn with the same probability."""
