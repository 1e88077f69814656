"""Each operation of the strong augmentation against Pillow or explicit loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vicinal.data.strong import OPERATIONS

Image: Any = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
ImageEnhance: Any = pytest.importorskip("PIL.ImageEnhance")
ImageOps: Any = pytest.importorskip("PIL.ImageOps")

AFFINE = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
LEVEL = 1 / 255


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(*shape: int, low: int = 0, high: int = 256) -> torch.Tensor:
    """Random images, smooth but for some noise, of the 8-bit levels from ``low`` to ``high`` - 1, float in [0,1]."""
    coarse = torch.rand(shape[0], shape[1], 4, 4, generator=seeded(0))
    fine = torch.rand(shape, generator=seeded(1))
    x = 0.8 * F.interpolate(coarse, shape[2:], mode="bilinear") + 0.2 * fine
    return (low + x * (high - 1 - low)).round() / 255


def as_pil(x: torch.Tensor) -> Any:
    levels = (x * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)


def of_pil(image: Any) -> torch.Tensor:
    levels = np.array(image)
    return torch.from_numpy(levels.reshape(*levels.shape[:2], -1)).permute(2, 0, 1) / 255


def share(m: float) -> float:
    return 0.95 - 0.9 * m


PILLOW: dict[str, Callable[[Any, float], Any]] = {
    "autocontrast": lambda image, m: ImageOps.autocontrast(image),
    "brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(share(m)),
    "colour": lambda image, m: ImageEnhance.Color(image).enhance(share(m)),
    "contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(share(m)),
    "identity": lambda image, m: image,
    "posterise": lambda image, m: ImageOps.posterize(image, 8 - min(int(5 * m), 4)),
    "sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(share(m)),
    "solarise": lambda image, m: ImageOps.solarize(image, round(256 * (1 - m))),
}
# Pillow rounds the grey or smoothed image to a level and the result down; these round nothing.
TOLERANCE = {"posterise": 1e-6, "solarise": 1e-6, "identity": 0.0, "brightness": 1.01 * LEVEL, "autocontrast": LEVEL}
# Solarising takes 8-bit thresholds: magnitudes are multiples of 1/256.
MAGNITUDES = (0.0, 0.25, 0.5, 0.8125, 1.0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PILLOW)
def test_operations_on_values_are_pillows(name: str, channels: int) -> None:
    x = pixels(len(MAGNITUDES), channels, 17, 12, low=20, high=230)
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    out = OPERATIONS[name](x, torch.tensor(MAGNITUDES) * sign)
    expected = torch.stack([of_pil(PILLOW[name](as_pil(x[i]), m)) for i, m in enumerate(MAGNITUDES)])
    tolerance = TOLERANCE.get(name, 2 * LEVEL)
    error = (out - expected).abs().amax((1, 2, 3))
    assert (error <= tolerance + 1e-6).all(), error
    if name == "identity" or (name == "colour" and channels == 1):
        assert torch.equal(out, x)
        return
    # The tolerance is tight enough to tell the result from the input, and from that of other magnitudes.
    assert ((x - expected).abs().amax((1, 2, 3)) > 2 * tolerance)[1:].all()
    if name != "autocontrast":
        other = OPERATIONS[name](x, torch.tensor(MAGNITUDES).flip(0))
        assert ((other - expected).abs().amax((1, 2, 3)) > 2 * tolerance)[torch.tensor([0, 1, 3, 4])].all()


@pytest.mark.parametrize("name", ["equalise", "posterise", "solarise"])
def test_what_compares_values_does_not_see_rounding(name: str) -> None:
    # Levels from 20 to 229, and thresholds that are whole levels.
    x, magnitudes = pixels(64, 3, 8, 8, low=20, high=230), torch.arange(64) / 64
    noise = torch.rand(x.shape, generator=seeded(1)) - 0.5

    def difference(scale: float) -> float:
        return float((OPERATIONS[name](x + scale * noise, magnitudes) - OPERATIONS[name](x, magnitudes)).abs().max())

    assert difference(1e-6) < 2e-6
    assert difference(3 * LEVEL) > 0.02


def test_magnitude_0_solarises_and_posterises_nothing_and_1_inverts_all() -> None:
    x = torch.arange(256.0).reshape(1, 1, 16, 16) / 255
    for name in ("solarise", "posterise"):
        torch.testing.assert_close(OPERATIONS[name](x, torch.zeros(1)), x, rtol=0, atol=1e-6)
    assert torch.equal(OPERATIONS["solarise"](x, torch.ones(1)), 1 - x)
    assert len(OPERATIONS["posterise"](x, torch.ones(1)).unique()) == 16


@pytest.mark.parametrize("channels", [1, 3])
def test_equalise_is_the_share_of_lower_pixels(channels: int) -> None:
    x = pixels(3, channels, 7, 5)
    out = OPERATIONS["equalise"](x, torch.zeros(3))
    for image, result in zip(x.flatten(0, 1), out.flatten(0, 1), strict=True):
        top = int((image < image.max()).sum())
        lower = [[int((image < value).sum()) / top for value in row] for row in image]
        torch.testing.assert_close(result, torch.tensor(lower))
    assert (out - x).abs().amax() > 0.1


def test_equalise_nears_pillows_where_its_integer_steps_are_fine() -> None:
    # Pillow's step is (pixels below the top level) // 255: with 256 x 256 pixels its flooring costs at most 1/256.
    x = pixels(1, 3, 256, 256, low=40, high=170)
    out, expected = OPERATIONS["equalise"](x, torch.zeros(1))[0], of_pil(ImageOps.equalize(as_pil(x[0])))
    assert (out - expected).abs().max() <= 2 * LEVEL
    assert (x[0] - expected).abs().max() > 20 * LEVEL
    # Of an image of 64 pixels Pillow makes nothing; ours still spreads it from 0 to 1.
    small = pixels(1, 1, 8, 8, low=100, high=150)
    assert torch.equal(of_pil(ImageOps.equalize(as_pil(small[0]))), small[0])
    spread = OPERATIONS["equalise"](small, torch.zeros(1))
    assert (float(spread.min()), float(spread.max())) == (0, 1)


@pytest.mark.parametrize("name", ["autocontrast", "equalise"])
def test_a_channel_of_one_level_stays(name: str) -> None:
    x = torch.tensor([0.0, 0.2, 1.0])[None, :, None, None].expand(1, 3, 6, 6).contiguous()
    assert torch.equal(OPERATIONS[name](x, torch.ones(1)), x)
    rounding = x + 1e-7 * torch.rand(x.shape, generator=seeded(0))
    assert (OPERATIONS[name](rounding, torch.ones(1)) - x).abs().max() < 1e-6
    two = x.clone()
    two[0, :, 0, 0] = torch.tensor([1, 52, 254]) / 255  # one level more is a contrast, and becomes the largest one
    assert (OPERATIONS[name](two, torch.ones(1)) - two).abs().max() > 0.5


def source(name: str, m: float, u: float, v: float, height: int, width: int) -> tuple[float, float]:
    """Where the output pixel at (u, v), to the right and downwards from the centre, takes its value."""
    angle = math.radians(30 * m)
    return {
        "rotate": (u * math.cos(angle) - v * math.sin(angle), u * math.sin(angle) + v * math.cos(angle)),
        "shear_x": (u + 0.3 * m * v, v),
        "shear_y": (u, v + 0.3 * m * u),
        "translate_x": (u + 0.3 * m * width, v),
        "translate_y": (u, v + 0.3 * m * height),
    }[name]


def warped(name: str, x: torch.Tensor, m: float) -> torch.Tensor:
    """Bilinear interpolation with loops over the pixels; a pixel outside counts as grey."""
    channels, height, width = x.shape
    out = torch.zeros_like(x)

    def at(c: int, row: int, column: int) -> float:
        return float(x[c, row, column]) if 0 <= row < height and 0 <= column < width else 0.5

    for i in range(height):
        for j in range(width):
            u, v = source(name, m, j - (width - 1) / 2, i - (height - 1) / 2, height, width)
            column, row = u + (width - 1) / 2, v + (height - 1) / 2
            left, top = math.floor(column), math.floor(row)
            a, b = column - left, row - top
            for c in range(channels):
                upper = (1 - a) * at(c, top, left) + a * at(c, top, left + 1)
                lower = (1 - a) * at(c, top + 1, left) + a * at(c, top + 1, left + 1)
                out[c, i, j] = (1 - b) * upper + b * lower
    return out


@pytest.mark.parametrize("name", AFFINE)
def test_affine_operations_are_the_loops(name: str) -> None:
    magnitudes = torch.tensor([-1.0, -0.37, 0.0, 0.61, 1.0])
    x = pixels(5, 2, 9, 6)
    out = OPERATIONS[name](x, magnitudes)
    expected = torch.stack([warped(name, x[i], float(m)) for i, m in enumerate(magnitudes)])
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
    assert (out[2] - x[2]).abs().max() < 1e-5, "magnitude 0 leaves the image as it is"
    assert ((out.flip(0) - expected).abs().amax((1, 2, 3)) > 0.05)[[0, 1, 3, 4]].all(), "the sign counts"


@pytest.mark.parametrize("name", AFFINE)
def test_affine_operations_are_pillows_away_from_the_border(name: str) -> None:
    x, m = pixels(1, 3, 24, 30), 0.7
    image, (height, width) = as_pil(x[0]), x.shape[2:]
    # Pillow's coefficients (a, b, c, d, e, f) take (column, row) to the source, measured from the corner.
    coefficients = {
        "shear_x": (1, 0.3 * m, -0.3 * m * height / 2, 0, 1, 0),
        "shear_y": (1, 0, 0, 0.3 * m, 1, -0.3 * m * width / 2),
        "translate_x": (1, 0, 0.3 * m * width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, 0.3 * m * height),
    }
    how = {"resample": Image.Resampling.BILINEAR, "fillcolor": (128, 128, 128)}
    if name == "rotate":
        turned, against = image.rotate(30 * m, **how), image.rotate(-30 * m, **how)
    else:
        turned = image.transform(image.size, Image.Transform.AFFINE, coefficients[name], **how)
        against = image
    out = OPERATIONS[name](x, torch.tensor([m]))[0]
    where = (slice(None), slice(9, 15), slice(10, 20))  # in reach of no border
    assert (out - of_pil(turned))[where].abs().max() <= 1.01 * LEVEL
    assert (out - of_pil(against))[where].abs().max() > 0.1
