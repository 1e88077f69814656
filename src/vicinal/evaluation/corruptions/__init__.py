"""Common corruptions of images: 15 kinds to test with and 4 more to tune with, each at severities 1 to 5.

The kinds are those of CIFAR-10-C (Hendrycks and Dietterich 2019). Where its constants for 32×32 images are published
in a form that we could read, they are used, for images of any size; the others are ours, and `KINDS` says which are
which. The textures of frost, snow, fog and spatter are ours too, and nothing is rounded to 8 bits: these are not the
published arrays, and errors on them are not to be compared with published ones.

Every image has its own generator, and no sum runs over more than one image: what becomes of an image depends on its
pixels, its number, the kind, the severity and the seed, to the bit, and not on the rest of its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from vicinal.data.types import as_float
from vicinal.errors import InputError, nearest
from vicinal.evaluation.corruptions import blur, digital, noise, weather
from vicinal.evaluation.corruptions._common import Corruption
from vicinal.randomness import generator
from vicinal.settings import check

__all__ = ["CHEAP", "CORRUPTIONS", "EXTRA_CORRUPTIONS", "KINDS", "SEVERITIES", "Corruption", "corrupt"]

SEVERITIES = (1, 2, 3, 4, 5)

CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The kinds to test with, in the order of the published tables."""

EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""More kinds, to choose settings with, so that those above stay unseen."""

CHEAP = ("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "brightness", "contrast", "pixelate")
"""Those of `CORRUPTIONS` that mean something on tiny images: on the bundled digits they are "digits-C (ours)"."""

_MADE = {each.name: each for each in (*noise.KINDS, *blur.KINDS, *weather.KINDS, *digital.KINDS)}

KINDS: Mapping[str, Corruption] = MappingProxyType({name: _MADE[name] for name in CORRUPTIONS + EXTRA_CORRUPTIONS})
"""Every kind by name: what does it, the constants of its severities, and where these are from."""

_SMALLEST = 8  # side in pixels: kernels must not reach past the mirrored image
_AT_ONCE = 2**20  # values worked on at a time: the temporaries stay in the processor's cache


@torch.no_grad()
def corrupt(x: Tensor, kind: str, severity: int, *, seed: int, first: int = 0) -> Tensor:
    """Corrupt each image of a batch.

    Args:
        x: images (B, C, H, W), float in [0,1] or uint8, with C = 1 or 3 and sides of at least 8 pixels.
        kind: one of `KINDS`.
        severity: 1 (slight) to 5 (strong).
        seed: seed of all draws.
        first: number of the first image of this batch in its data set. Image i draws from a generator named by
            ``(seed, kind, severity, first + i)``.

    Returns:
        Images of the same shape, float32 in [0,1], on the device of ``x``. They are worked out on the CPU, so that a
        machine's other devices change no bit.

    Raises:
        InputError: unknown kind, a severity out of range, a negative ``first``, or no such images.
        MissingExtraError: the kind needs a package that is not installed (JPEG needs Pillow).

    >>> corrupt(torch.full((1, 1, 8, 8), 0.5), "brightness", 3, seed=0)[0, 0, 0, :2]
    tensor([0.6500, 0.6500])
    """
    if kind not in KINDS:
        raise InputError(f"corruption: unknown kind {kind!r}; {nearest(kind, KINDS)}")
    if severity not in SEVERITIES:
        raise InputError(f"corruption: severity {severity!r} of {kind} is none; choose one of 1, 2, 3, 4, 5")
    check("first", first, low=0)
    images = _checked(x)
    level = int(severity)  # 3.0 is 3, for the generators too
    apply, constants = KINDS[kind].apply, KINDS[kind].severities[level - 1]
    size = max(1, _AT_ONCE // images[:1].numel()) if len(images) else 1
    made = torch.empty_like(images)
    with torch.autocast("cpu", enabled=False):
        for start in range(0, len(images), size):
            part = images[start : start + size]
            numbers = range(first + start, first + start + len(part))
            generators = [generator(seed, f"corruption {kind}", level, number) for number in numbers]
            made[start : start + size] = apply(part, generators, *constants).clamp_(0, 1)
    return made.to(x.device)


def _checked(x: Tensor) -> Tensor:
    """The images as contiguous float32 on the CPU; they may be ``x`` itself."""
    if x.ndim != 4 or x.shape[1] not in (1, 3) or min(x.shape[2:]) < _SMALLEST:
        raise InputError(
            f"corruption: got shape {tuple(x.shape)}; give images (B, C, H, W) with C = 1 or 3 and sides of at least "
            f"{_SMALLEST} pixels"
        )
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise InputError(f"corruption: images of {x.dtype}; give float in [0,1] or uint8")
    images = as_float(x.detach().cpu()).to(torch.float32).contiguous()
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise InputError("corruption: images have values outside [0,1]; scale them, as networks take [0,1] too")
    return images
