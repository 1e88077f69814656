"""Each kind of common corruption against its moments, its closed form or another library."""

from __future__ import annotations

import colorsys
import io
import math
import statistics
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from vicinal.errors import MissingExtraError
from vicinal.evaluation.corruptions import KINDS, SEVERITIES, _common, blur, corrupt


def constants(name: str, severity: int) -> tuple[float, ...]:
    return KINDS[name].severities[severity - 1]


def levels(*shape: int) -> Tensor:
    """Random 8-bit images in [0,1]."""
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0)) / 255


# --- noise: moments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("gaussian_noise", lambda constant, x: constant**2),
        ("shot_noise", lambda constant, x: x / constant),
        ("speckle_noise", lambda constant, x: (constant * x) ** 2),
    ],
)
def test_noise_has_its_mean_and_variance(name: str, severity: int, variance: Any) -> None:
    level, count = 0.5, 16 * 3 * 64 * 64
    made = corrupt(torch.full((16, 3, 64, 64), level), name, severity, seed=0)
    (constant,) = constants(name, severity)
    expected = variance(constant, level)
    # Four standard errors; a constant of the neighbouring severity is further away.
    assert abs(float(made.mean()) - level) < 4 * math.sqrt(expected / count)
    assert abs(float(made.var()) / expected - 1) < 4 * math.sqrt(2 / count) * 1.1
    (neighbour,) = KINDS[name].severities[severity - 2 if severity > 1 else 1]
    assert abs(float(made.var()) / variance(neighbour, level) - 1) > 0.2


def test_shot_noise_counts_photons() -> None:
    x = levels(2, 3, 16, 16)
    for severity, (photons,) in enumerate(KINDS["shot_noise"].severities, 1):
        counts = corrupt(x, "shot_noise", severity, seed=0) * photons
        torch.testing.assert_close(counts, counts.round(), atol=1e-4 * photons, rtol=0)
    assert torch.equal(corrupt(torch.zeros(1, 1, 8, 8), "shot_noise", 5, seed=0), torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulses_are_the_stated_share_half_of_them_white(severity: int) -> None:
    x = torch.full((16, 3, 64, 64), 0.5)
    made = corrupt(x, "impulse_noise", severity, seed=0)
    share, count = constants("impulse_noise", severity)[0], x.numel()
    for value in (0.0, 1.0):
        error = float((made == value).float().mean()) - share / 2
        assert abs(error) < 4 * math.sqrt(share / 2 / count)
    assert set(made.unique().tolist()) == {0.0, 0.5, 1.0}
    hit = made != 0.5  # per channel: otherwise all three channels are hit together
    assert float((hit[:, 0] & hit[:, 1]).float().mean()) == pytest.approx(share**2, rel=0.6)


# --- colour: closed forms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_shrinks_towards_the_mean_of_each_channel(severity: int) -> None:
    x = levels(3, 3, 16, 12)
    made = corrupt(x, "contrast", severity, seed=0)
    torch.testing.assert_close(made.mean((2, 3)), x.mean((2, 3)))
    torch.testing.assert_close(made.std((2, 3)), x.std((2, 3)) * constants("contrast", severity)[0])
    over_channels = (x - x.mean((1, 2, 3), keepdim=True)) * constants("contrast", severity)[0]
    assert not torch.allclose(made, over_channels + x.mean((1, 2, 3), keepdim=True), atol=1e-3)


def in_hsv(x: Tensor, change: Any) -> Tensor:
    """Each pixel of (1, 3, H, W) with hue, saturation and value changed by the standard library's rule."""
    rows = x[0].flatten(1).T.tolist()
    changed = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*row))) for row in rows]
    return torch.tensor(changed).T.reshape(x.shape)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_and_saturation_are_those_of_hsv(severity: int) -> None:
    x = torch.cat([levels(1, 3, 16, 12), torch.zeros(1, 3, 1, 12), torch.full((1, 3, 1, 12), 0.4)], dim=2)
    shift = constants("brightness", severity)[0]
    expected = in_hsv(x, lambda h, s, v: (h, s, min(v + shift, 1)))
    torch.testing.assert_close(corrupt(x, "brightness", severity, seed=0), expected)
    assert not torch.allclose((x + shift).clamp(max=1), expected, atol=1e-3)  # what grey images get
    grey = x[:, :1]
    torch.testing.assert_close(corrupt(grey, "brightness", severity, seed=0), (grey + shift).clamp(max=1))

    (factor,) = constants("saturate", severity)
    expected = in_hsv(x, lambda h, s, v: (h, min(s * factor, 1), v))
    torch.testing.assert_close(corrupt(x, "saturate", severity, seed=0), expected)
    assert torch.equal(corrupt(grey, "saturate", severity, seed=0), grey)


# --- against Pillow -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 32, 32), (3, 20, 12), (1, 8, 8), (3, 96, 64)])
def test_jpeg_and_pixelate_are_pillows(shape: tuple[int, int, int], severity: int) -> None:
    image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
    channels, height, width = shape
    x = levels(2, *shape)
    stored = (x * 255).round().to(torch.uint8)
    made = (corrupt(x, "jpeg_compression", severity, seed=0) * 255).round().to(torch.uint8)
    for before, after in zip(stored, made, strict=True):
        picture = image.fromarray(before[0].numpy() if channels == 1 else before.permute(1, 2, 0).numpy())
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(constants("jpeg_compression", severity)[0]))
        read = torch.frombuffer(bytearray(image.open(file).tobytes()), dtype=torch.uint8)
        assert torch.equal(after, read.reshape(height, width, channels).permute(2, 0, 1))

    # At these sizes no centre lies on the border of a larger pixel, where rounding decides for Pillow.
    factor = constants("pixelate", severity)[0]
    small = (max(1, int(width * factor + 1e-9)), max(1, int(height * factor + 1e-9)))
    made = corrupt(x, "pixelate", severity, seed=0)
    for before, after in zip(x.flatten(0, 1), made.flatten(0, 1), strict=True):
        picture = image.fromarray(before.numpy())  # mode F: nothing is rounded
        shrunk = picture.resize(small, image.Resampling.BOX).resize((width, height), image.Resampling.BOX)
        expected = torch.frombuffer(bytearray(shrunk.tobytes()), dtype=torch.float32).reshape(height, width)
        torch.testing.assert_close(after, expected)


def test_jpeg_without_pillow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"jpeg_compression needs .*images"):
        corrupt(torch.zeros(1, 1, 8, 8), "jpeg_compression", 1, seed=0)


# --- blur and shape: what becomes of one white pixel ----------------------------------------------------------------


def spread(name: str, severity: int, side: int = 31) -> tuple[Tensor, float, float, float]:
    """Kernel (the image of one white pixel), and its variances: down, right, and between the two."""
    x = torch.zeros(1, 1, side, side)
    x[0, 0, side // 2, side // 2] = 1
    kernel = corrupt(x, name, severity, seed=0)[0, 0].double()
    place = torch.arange(side, dtype=torch.float64) - side // 2
    down, right = place[:, None] ** 2, place[None] ** 2
    between = place[:, None] * place[None]
    return kernel, *(float((kernel * weight).sum()) for weight in (down, right, between))


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", ["defocus_blur", "gaussian_blur", "motion_blur"])
def test_blurs_have_their_kernels(name: str, severity: int) -> None:
    kernel, down, right, between = spread(name, severity)
    (constant,) = constants(name, severity)
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(kernel, kernel.flip(0, 1), atol=1e-6, rtol=0)
    if name == "gaussian_blur":
        # A Gaussian taken at whole pixels is narrower than itself where it is narrower than they are.
        assert down == pytest.approx(constant**2, rel=0.15 if constant < 0.6 else 0.03)
        assert between == pytest.approx(0, abs=1e-5)
    elif name == "defocus_blur":
        assert down == pytest.approx(right)
        assert int((kernel > kernel.max() * 0.999).sum()) >= (5 if constant >= 1.5 else 1)  # flat, not a peak
        # A rim falling over r ± 1/2 has second moment about r²/4 + 1/8 along an axis.
        assert down == pytest.approx(constant**2 / 4 + 1 / 8, rel=0.25)
    else:
        # Uniform on a line: L²/12 along it; bilinear spreading adds up to 1/4 along each axis.
        assert constant**2 / 12 <= down + right <= constant**2 / 12 * 1.25 + 0.5
        assert down * right - between**2 < 0.35 * (down + right) * 0.5 + 0.02


def test_lines_have_the_angle_and_the_sum() -> None:
    for degrees in (0, 30, 90, 135):
        kernel = _common.line(9.0, math.radians(degrees)).double()
        place = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
        across, along = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        distance = (place[:, None] * across - place[None] * along).abs()  # rows count downwards
        assert float(kernel.sum()) == pytest.approx(1)
        assert float(distance[kernel > 1e-6].max()) < 1.42
    assert int((_common.line(9.0, 0.0) > 1e-6).any(1).sum()) == 1


def test_lengths_grow_with_images_above_32_pixels_and_never_shrink() -> None:
    sizes = {(8, 8): 1.0, (32, 32): 1.0, (64, 96): 2.0, (96, 64): 2.0, (48, 32): 1.0}
    assert {size: _common.unit(torch.zeros(1, 1, *size)) for size in sizes} == sizes
    small, large = (spread("gaussian_blur", 5, side)[1] for side in (31, 127))
    assert large / small == pytest.approx((127 / 32) ** 2, rel=0.05)


def test_the_shuffle_of_glass_loses_no_pixel_and_stays_local(monkeypatch: pytest.MonkeyPatch) -> None:
    blurred = []

    def plain(x: Tensor, sigma: float) -> Tensor:
        blurred.append(sigma)
        return x

    monkeypatch.setattr(blur, "gaussian_blurred", plain)
    row, column = torch.meshgrid(torch.arange(24.0), torch.arange(20.0), indexing="ij")
    x = torch.stack([row, column, row * 20 + column])[None]
    before = 0.05
    for severity, (sigma, jitter) in enumerate(KINDS["glass_blur"].severities, 1):
        made = corrupt(x / 480, "glass_blur", severity, seed=0) * 480
        assert blurred[-2:] == [sigma, sigma]
        assert torch.equal(made[0, 2].round().flatten().sort().values, torch.arange(480.0))
        torch.testing.assert_close(made[0, 2], made[0, 0] * 20 + made[0, 1])  # channels move together
        away = (made - x)[0, :2].abs()
        assert float(away.mean()) > before
        before = float(away.mean())
        assert float(away.max()) < 2 * jitter


def test_zoom_blur_is_the_mean_of_magnified_images() -> None:
    row, column = torch.meshgrid(torch.linspace(-1, 1, 33), torch.linspace(-1, 1, 33), indexing="ij")
    ramp = 0.5 + 0.3 * row + 0.1 * column
    for severity, ((most,), steps) in enumerate(zip(KINDS["zoom_blur"].severities, (3, 5, 8, 11, 15), strict=True), 1):
        factors = [1 + (most - 1) * step / steps for step in range(steps + 1)]
        expected = 0.5 + (ramp - 0.5) * statistics.mean(1 / factor for factor in factors)
        torch.testing.assert_close(corrupt(ramp[None, None], "zoom_blur", severity, seed=0)[0, 0], expected)


def test_elastic_transform_moves_pixels_by_its_amplitude() -> None:
    column = torch.arange(64.0).expand(64, 64) / 64
    for severity, (amplitude, _) in enumerate(KINDS["elastic_transform"].severities, 1):
        made = corrupt(column.expand(8, 1, 64, 64), "elastic_transform", severity, seed=0)
        moved = ((made - column) * 64)[..., 8:-8, 8:-8]
        # Between nodes a cubic field varies less than at them.
        assert 0.6 * amplitude * 2 < float(moved.std()) < amplitude * 2
        neighbours = moved[..., 1:] - moved[..., :-1]
        assert float(neighbours.std()) < 0.35 * float(moved.std())


# --- weather --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog_and_frost_hide_what_they_say(severity: int) -> None:
    """The same draws before black and before white: the difference is what shines through."""
    through = {}
    for name in ("fog", "frost"):
        black, white = (corrupt(torch.full((2, 3, 32, 32), level), name, severity, seed=0) for level in (0.0, 1.0))
        through[name] = white - black
    (weight,) = constants("frost", severity)
    torch.testing.assert_close(through["frost"], torch.full_like(through["frost"], 1 - weight))
    (thickness,) = constants("fog", severity)
    for image in through["fog"]:
        assert float(image.min()) == pytest.approx(1 - thickness, abs=1e-5)
        assert float(image.max()) == pytest.approx(1 - 0.5 * thickness, abs=1e-5)


def test_snow_covers_with_its_density_and_falls_downwards() -> None:
    black = torch.zeros(64, 1, 32, 32)
    covered = [float((corrupt(black, "snow", s, seed=0) > 0.3).float().mean()) for s in SEVERITIES]
    assert covered == sorted(covered)
    density, length, whitening = KINDS["snow"].severities[0]
    flakes = corrupt(black, "snow", 1, seed=0) > 0.5 * whitening + 0.1
    assert density < float(flakes.float().mean()) < density * 3 * (length + 2)
    # Streaks near the vertical: neighbours below each other are alike more often than those beside each other.
    layer = corrupt(black, "snow", 3, seed=0)
    layer = layer - layer.amin()
    below = float((layer[..., 1:, :] * layer[..., :-1, :]).mean())
    beside = float((layer[..., 1:] * layer[..., :-1]).mean())
    assert below > 1.3 * beside


def test_spatter_is_water_then_mud_on_a_growing_share() -> None:
    grey = torch.full((32, 3, 32, 32), 0.5)
    shares = []
    for severity in SEVERITIES:
        change = corrupt(grey, "spatter", severity, seed=0) - grey
        wet = change.abs().amax(1) > 1e-3
        shares.append(float(wet.float().mean()))
        assert bool((change.mean(1)[wet] > 0).all()) == (severity <= 3)
        threshold, _, _ = constants("spatter", severity)
        # The field is normal, of standard deviation 1 at its nodes and less between them.
        assert 0.2 < shares[-1] / (1 - statistics.NormalDist().cdf(threshold)) < 1.1
    assert shares[0] < shares[1] < shares[2] < shares[4]
