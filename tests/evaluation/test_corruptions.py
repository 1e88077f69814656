"""Common corruptions: what every kind must keep to. Each kind on its own is in test_corruption_kinds.py."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.evaluation import corruptions
from vicinal.evaluation.corruptions import CHEAP, CORRUPTIONS, EXTRA_CORRUPTIONS, KINDS, SEVERITIES, corrupt

PUBLISHED = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": (500, 250, 100, 75, 50),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": (80, 65, 58, 50, 40),
}
"""For 32x32 images."""
UNMOVED = ("defocus_blur", "gaussian_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform", "pixelate")
"""Kinds that move or average values, and so keep an image of one colour."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def natural(count: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth random images in [0,1] with structure at several scales, as photographs have; grey levels of 8 bits."""
    made = torch.zeros(count, channels, height, width)
    for scale in (3, 6, 12, 24):
        field = torch.randn(count, channels, scale, scale, generator=seeded(seed + scale))
        made += F.interpolate(field, (height, width), mode="bicubic", align_corners=False) * 3 / scale
    return (torch.sigmoid(made) * 255).round() / 255


def moved(x: Tensor, name: str, severity: int) -> float:
    """Mean squared change."""
    return float((corrupt(x, name, severity, seed=0) - x).square().mean())


# --- what every kind must keep to -----------------------------------------------------------------------------------


def test_there_are_fifteen_kinds_and_four() -> None:
    assert (len(CORRUPTIONS), len(EXTRA_CORRUPTIONS), len(KINDS)) == (15, 4, 19)
    assert tuple(KINDS) == CORRUPTIONS + EXTRA_CORRUPTIONS
    assert set(CHEAP) < set(CORRUPTIONS)
    assert all(name == kind.name and len(kind.severities) == len(SEVERITIES) for name, kind in KINDS.items())


def test_published_constants_are_used_and_all_others_are_called_ours() -> None:
    assert {name for name, kind in KINDS.items() if kind.source == "published constants"} == PUBLISHED.keys()
    assert {name: tuple(value for (value,) in KINDS[name].severities) for name in PUBLISHED} == PUBLISHED
    for kind in KINDS.values():
        said = " ".join((kind.apply.__doc__ or "").split())
        assert ("Published constants." in said) == (kind.source == "published constants")
        assert ("onstants are ours" in said) == (kind.source == "ours")


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 3, 8, 13), (2, 3, 33, 21), (1, 1, 70, 64)])
@pytest.mark.parametrize("name", KINDS)
def test_images_of_any_size_stay_images(name: str, shape: tuple[int, int, int, int]) -> None:
    x = natural(*shape)
    before = x.clone()
    state = torch.get_rng_state()
    for severity in SEVERITIES:
        made = corrupt(x, name, severity, seed=0)
        assert (made.shape, made.dtype) == (x.shape, torch.float32)
        assert bool(((made >= 0) & (made <= 1)).all())
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", KINDS)
def test_bytes_memory_formats_and_precisions_do_not_matter(name: str) -> None:
    x = natural(2, 3, 16, 12)
    made = corrupt(x, name, 3, seed=0)
    assert torch.equal(corrupt((x * 255).round().to(torch.uint8), name, 3, seed=0), made)
    assert torch.equal(corrupt(x.to(memory_format=torch.channels_last), name, 3, seed=0), made)
    assert torch.equal(corrupt(x.double().requires_grad_(), name, 3, seed=0), made)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(corrupt(x, name, 3, seed=0), made)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("name", KINDS)
def test_black_and_white_images_stay_finite(name: str, value: float) -> None:
    for channels in (1, 3):
        assert bool(corrupt(torch.full((1, channels, 9, 8), value), name, 5, seed=0).isfinite().all())


@pytest.mark.parametrize("name", KINDS)
def test_no_images_are_no_images(name: str) -> None:
    assert corrupt(torch.zeros(0, 3, 8, 8), name, 1, seed=0).shape == (0, 3, 8, 8)


def depends_on_batch(name: str, x: Tensor) -> bool:
    together = corrupt(x, name, 4, seed=1, first=10)
    parts = [
        corrupt(part, name, 4, seed=1, first=10 + i) for i, part in zip((0, 1, 4), x.split([1, 3, 1]), strict=True)
    ]
    other = corrupt(torch.cat([x[:2], 1 - x[2:]]), name, 4, seed=1, first=10)
    return not torch.equal(torch.cat(parts), together) or not torch.equal(other[:2], together[:2])


@pytest.mark.parametrize("name", KINDS)
def test_an_image_does_not_depend_on_its_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = natural(5, 3, 17, 13)
    assert not depends_on_batch(name, x)
    monkeypatch.setattr(corruptions, "_AT_ONCE", 2 * x[0].numel())  # work in portions of two images
    assert not depends_on_batch(name, x)


def test_the_check_of_batches_sees_shared_draws_and_sums_over_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    x = natural(5, 3, 17, 13)
    noise, contrast = KINDS["gaussian_noise"], KINDS["contrast"]
    one_for_all = dataclasses.replace(
        noise, apply=lambda x, generators, sigma: x + sigma * torch.randn(x.shape, generator=generators[0])
    )
    over_all = dataclasses.replace(contrast, apply=lambda x, _, factor: (x - x.mean()) * factor + x.mean())
    monkeypatch.setattr(corruptions, "KINDS", {"gaussian_noise": one_for_all, "contrast": over_all})
    assert depends_on_batch("gaussian_noise", x)
    assert depends_on_batch("contrast", x)


DRAWN = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur", "motion_blur"),
    *("snow", "frost", "fog", "elastic_transform", "spatter"),
)


@pytest.mark.parametrize("name", KINDS)
def test_draws_are_named_by_seed_kind_severity_and_number(name: str) -> None:
    x = natural(1, 3, 16, 16)
    made = corrupt(x, name, 3, seed=0)
    assert torch.equal(corrupt(x, name, 3, seed=0), made)
    assert torch.equal(corrupt(x, name, 3, seed=1), made) == (name not in DRAWN)
    assert torch.equal(corrupt(x, name, 3, seed=0, first=1), made) == (name not in DRAWN)
    assert not torch.equal(corrupt(x, name, 2, seed=0), made)


def test_severities_of_a_kind_draw_independently() -> None:
    x = torch.full((4, 1, 32, 32), 0.5)
    mild, strong = (corrupt(x, "gaussian_noise", severity, seed=0) - x for severity in (1, 2))
    assert abs(float(torch.corrcoef(torch.stack([mild.flatten(), strong.flatten()]))[0, 1])) < 0.06


def grows(x: Tensor, name: str) -> bool:
    changes = [moved(x, name, severity) for severity in SEVERITIES]
    return changes[0] > 1e-5 and all(a < b for a, b in pairwise(changes))


@pytest.mark.parametrize("name", KINDS)
def test_higher_severities_change_more(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = natural(48, 3, 32, 32)
    assert grows(x, name)
    kind = KINDS[name]
    first, second, *rest = kind.severities
    swapped = dataclasses.replace(kind, severities=(second, first, *rest))
    monkeypatch.setattr(corruptions, "KINDS", {name: swapped})
    assert not grows(x, name)


@pytest.mark.parametrize("name", CHEAP)
def test_on_tiny_grey_images_the_cheap_kinds_still_grow(name: str) -> None:
    x = natural(48, 1, 8, 8)
    changes = [moved(x, name, severity) for severity in SEVERITIES]
    assert changes[0] > 1e-3 * 0.9
    assert changes == sorted(changes)


@pytest.mark.parametrize("name", UNMOVED)
def test_an_image_of_one_colour_keeps_it(name: str) -> None:
    x = torch.tensor([0.2, 0.5, 0.7]).reshape(1, 3, 1, 1).expand(1, 3, 15, 24)
    torch.testing.assert_close(corrupt(x, name, 5, seed=0), x)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [
        ("gausian_noise", 1, "unknown kind 'gausian_noise'; did you mean 'gaussian_noise'"),
        ("jpeg", 1, "unknown kind 'jpeg'; known: brightness, .*zoom_blur"),
        ("fog", 0, "severity 0 of fog is none; choose one of 1, 2, 3, 4, 5"),
        ("fog", 6, "severity 6"),
        ("fog", 2.5, "severity 2.5"),
    ],
)
def test_unknown_kinds_and_severities(name: str, severity: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        corrupt(torch.zeros(1, 1, 8, 8), name, severity, seed=0)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 8, 8), "shape .3, 8, 8."),
        (torch.zeros(1, 2, 8, 8), "C = 1 or 3"),
        (torch.zeros(1, 3, 8, 7), "at least 8 pixels"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int64), "images of torch.int64"),
        (torch.full((1, 1, 8, 8), 1.01), "outside .0,1."),
        (torch.full((1, 1, 8, 8), -0.01), "outside"),
        (torch.full((1, 1, 8, 8), math.nan), "outside"),
    ],
)
def test_what_is_no_image(x: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        corrupt(x, "contrast", 1, seed=0)


def test_numbers_of_images_begin_at_zero() -> None:
    with pytest.raises(InputError, match="first must be at least 0"):
        corrupt(torch.zeros(1, 1, 8, 8), "fog", 1, seed=0, first=-1)
