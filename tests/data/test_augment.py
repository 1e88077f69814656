"""Augmentation against a reference with explicit loops over images and pixels."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vicinal.data import Augment, augment, views
from vicinal.errors import InputError


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mirrored(position: int, size: int) -> int:
    """Walk back from the border, one pixel at a time, without repeating the border pixel."""
    while not 0 <= position < size:
        position = -position if position < 0 else 2 * (size - 1) - position
    return position


def reference(x: torch.Tensor, config: Augment, seed: int) -> torch.Tensor:
    """Pad, crop at the drawn offset, flip: pixel by pixel. Draws: flips, then vertical and horizontal offsets."""
    draws, out = seeded(seed), torch.zeros_like(x)
    batch, channels, height, width = x.shape
    flips = torch.rand(batch, generator=draws) < 0.5 if config.flip else torch.zeros(batch, dtype=torch.bool)
    offsets = torch.zeros(2, batch, dtype=torch.int64)
    if config.crop:
        offsets = torch.randint(2 * config.crop + 1, (2, batch), generator=draws) - config.crop
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                row, column = i + int(offsets[0, b]), (width - 1 - j if flips[b] else j) + int(offsets[1, b])
                inside = 0 <= row < height and 0 <= column < width
                if inside or config.padding == "reflect":
                    for c in range(channels):
                        out[b, c, i, j] = x[b, c, mirrored(row, height), mirrored(column, width)]
    return out


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.sampled_from([1, 3]), st.integers(4, 7), st.integers(4, 6)),
    crop=st.integers(0, 3),
    padding=st.sampled_from(["reflect", "zero"]),
    flip=st.booleans(),
    floats=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_the_batched_gather_equals_the_loops(shape, crop, padding, flip, floats, seed) -> None:  # type: ignore[no-untyped-def]
    x = torch.randint(1, 256, shape, generator=seeded(seed), dtype=torch.uint8)
    x = x / 255 if floats else x
    before, config = x.clone(), Augment(crop=crop, padding=padding, flip=flip)
    out = augment(x, config, seeded(seed + 1))
    assert out.dtype == x.dtype
    assert torch.equal(out, reference(x, config, seed + 1))
    assert torch.equal(x, before), "the input is left as it is"


def test_images_in_any_memory_format_are_taken() -> None:
    x = torch.rand(3, 3, 5, 5, generator=seeded(0))
    config = Augment(crop=2, flip=True)
    expected = augment(x, config, seeded(1))
    assert torch.equal(augment(x.to(memory_format=torch.channels_last), config, seeded(1)), expected)


def test_nothing_to_do_returns_the_input_itself_and_draws_nothing() -> None:
    x, draws = torch.rand(2, 1, 4, 4, generator=seeded(0)), seeded(1)
    state = draws.get_state()
    assert augment(x, Augment(), draws) is x
    assert all(view is x for view in views(x, Augment(share_flip=True), 2, [draws, draws]))
    assert torch.equal(draws.get_state(), state)
    vectors = torch.rand(2, 4, generator=seeded(0))
    assert augment(vectors, Augment(), draws) is vectors


def test_offsets_are_uniform_with_both_ends_and_drawn_per_image() -> None:
    # A single lit pixel in the middle shows where the window was put.
    x = torch.zeros(5000, 1, 7, 7)
    x[:, 0, 3, 3] = 1
    out = augment(x, Augment(crop=2, padding="zero"), seeded(0))
    where = Counter(tuple(place) for place in out.nonzero()[:, 2:].tolist())
    assert set(where) == {(i, j) for i in range(1, 6) for j in range(1, 6)}
    # 25 places, 200 expected in each, standard deviation 13.9.
    assert all(130 < count < 270 for count in where.values())


def test_half_of_the_images_are_flipped() -> None:
    x = torch.tensor([0.0, 1.0]).expand(4000, 1, 1, 2)
    flipped = augment(x, Augment(flip=True), seeded(0))[:, 0, 0, 0].sum().item()
    assert abs(flipped - 2000) < 160  # 5 standard deviations


def test_views_differ_and_each_is_the_view_of_its_generator() -> None:
    x = torch.rand(16, 3, 8, 8, generator=seeded(0))
    config = Augment(crop=2, flip=True)
    one, other = views(x, config, 2, [seeded(1), seeded(2)])
    assert not torch.equal(one, other)
    assert torch.equal(one, augment(x, config, seeded(1)))
    assert torch.equal(other, augment(x, config, seeded(2)))


def test_shared_flips_change_the_flips_only() -> None:
    # Columns tell the flip, rows the vertical offset.
    x = torch.arange(6.0).expand(400, 1, 6, 6)
    flip_only = Augment(flip=True, share_flip=True)
    one, other = views(x, flip_only, 2, [seeded(1), seeded(2)])
    assert torch.equal(one, other)
    apart = views(x, Augment(flip=True), 2, [seeded(1), seeded(2)])
    assert not torch.equal(*apart)
    rows = x.transpose(2, 3)
    shared = views(rows, Augment(crop=1, flip=True, share_flip=True), 2, [seeded(1), seeded(2)])
    free = views(rows, Augment(crop=1, flip=True), 2, [seeded(1), seeded(2)])
    assert torch.equal(shared[1], free[1]), "translations are drawn as without sharing"
    assert not torch.equal(*shared)


@pytest.mark.parametrize(
    ("shape", "config", "message"),
    [
        ((4, 2), {"flip": True}, r"for images \(B, C, H, W\), got shape \(4, 2\)"),
        ((4, 2), {"crop": 1}, "set crop to 0"),
        ((4, 1, 4, 9), {"crop": 4}, "crop must be smaller than the image, got 4 for 4x9"),
        ((4, 1, 4, 4), {"crop": -1}, "crop must be at least 0"),
        ((4, 1, 4, 4), {"padding": "edge"}, "padding must be 'reflect' or 'zero'"),
    ],
)
def test_what_cannot_be_augmented_is_refused(shape: tuple[int, ...], config: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        augment(torch.zeros(shape), Augment(**config), seeded(0))  # type: ignore[arg-type]
