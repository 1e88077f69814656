"""Strong augmentation as a whole: draws, range, cutout, and what a view may depend on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vicinal.data import Strong, strong, strong_augment
from vicinal.data.strong import OPERATIONS
from vicinal.errors import InputError


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(*shape: int) -> torch.Tensor:
    """Random images of 8-bit levels, float in [0,1]."""
    return torch.randint(256, shape, generator=seeded(0)) / 255


def test_cutout_is_the_square_of_the_draws() -> None:
    x = torch.ones(40, 2, 10, 7)
    out = strong_augment(x, Strong(operations=0, cutout=0.8), seeded(3))
    side, row, column = torch.rand(3, 40, generator=seeded(3)) * torch.tensor([[0.8 * 7], [10.0], [7.0]])
    for b in range(40):
        for i in range(10):
            for j in range(7):
                inside = abs(i + 0.5 - row[b]) < side[b] / 2 and abs(j + 0.5 - column[b]) < side[b] / 2
                assert out[b, :, i, j].tolist() == ([0.5, 0.5] if inside else [1.0, 1.0])


def test_the_cutouts_side_is_uniform_up_to_the_given_share() -> None:
    config = Strong(operations=0, cutout=0.5)
    grey = strong_augment(torch.ones(4000, 1, 32, 32), config, seeded(0))[:, 0] == 0.5
    rows, columns = grey.any(2).sum(1), grey.any(1).sum(1)
    assert (int(rows.max()), int(columns.max())) == (16, 16)
    assert int(rows.min()) == 0
    # Uncut squares, those with a centre in the middle half: side uniform on 0..16, mean 8, standard deviation 4.6.
    whole = grey[(rows > 0) & ~grey[:, [0, -1], :].any((1, 2)) & ~grey[:, :, [0, -1]].any((1, 2))]
    square = whole.any(2).sum(1)
    assert ((square - whole.any(1).sum(1)).abs() <= 1).all()
    assert 5 < square.float().mean() < 9
    assert grey.float().mean((1, 2)).max() == 0.25
    larger = strong_augment(torch.ones(4000, 1, 32, 32), Strong(operations=0, cutout=1.0), seeded(0))[:, 0] == 0.5
    assert larger.any(2).sum(1).max() > 16


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 20), st.sampled_from([1, 2, 3]), st.integers(1, 9), st.integers(1, 9)),
    operations=st.integers(0, 4),
    magnitude=st.sampled_from([None, 0.0, 0.5, 1.0]),
    cutout=st.sampled_from([0.0, 0.5, 1.0]),
    floats=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_views_are_float_images_in_range(shape, operations, magnitude, cutout, floats, seed) -> None:  # type: ignore[no-untyped-def]
    x = torch.randint(256, shape, generator=seeded(seed), dtype=torch.uint8)
    x = x.double() / 255 if floats else x
    before = x.clone()
    out = strong_augment(x, Strong(operations, magnitude, cutout), seeded(seed + 1))
    assert out.dtype == torch.float32
    assert out.shape == x.shape
    assert ((out >= 0) & (out <= 1)).all()
    assert torch.equal(x, before), "the input is left as it is"


def test_each_operation_keeps_the_range() -> None:
    """The last clamp hides no more than rounding. The control enhances contrast instead of taking it away."""
    x, magnitudes = pixels(200, 3, 8, 8), 2 * torch.rand(200, generator=seeded(1)) - 1

    def excess(operation: strong.Operation) -> float:
        return float(((operation(x, magnitudes) - 0.5).abs() - 0.5).max())

    assert max(excess(operation) for operation in OPERATIONS.values()) < 1e-6
    black = torch.zeros(500, 1, 9, 7)
    assert OPERATIONS["rotate"](black, torch.linspace(-1, 1, 500)).min() < 0, "rounding, which the view has not"
    assert strong_augment(black, Strong(operations=4), seeded(0)).min() == 0
    assert excess(lambda x, magnitude: 0.5 + (1.05 + 0.9 * magnitude.abs())[:, None, None, None] * (x - 0.5)) > 0.1


def test_nothing_to_do_returns_the_input_and_draws_nothing() -> None:
    draws, x = seeded(0), pixels(2, 3, 4, 4)
    state = draws.get_state()
    assert strong_augment(x, Strong(operations=0, cutout=0), draws) is x
    levels = (x * 255).round().to(torch.uint8)
    assert torch.equal(strong_augment(levels, Strong(operations=0, cutout=0), draws), levels / 255)
    assert torch.equal(draws.get_state(), state)
    assert not torch.equal(strong_augment(x, Strong(), draws), x)
    assert strong_augment(x[:0], Strong(), draws).shape == (0, 3, 4, 4)


def test_the_generator_alone_decides() -> None:
    x = pixels(64, 3, 8, 8)
    first, draws = strong_augment(x, Strong(), seeded(5)), seeded(5)
    torch.manual_seed(1)
    assert torch.equal(strong_augment(x, Strong(), draws), first)
    assert torch.equal(strong_augment(x.to(memory_format=torch.channels_last), Strong(), seeded(5)), first)
    assert not torch.equal(strong_augment(x, Strong(), draws), first), "the next draws are others"


def batch_contrast(x: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    return x.mean() + (0.95 - 0.9 * magnitude.abs())[:, None, None, None] * (x - x.mean())


@pytest.mark.parametrize("mixed_up", [False, True])
def test_an_image_does_not_depend_on_the_others(mixed_up: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if mixed_up:  # the control: one operation that uses the mean of the batch
        monkeypatch.setattr(strong, "OPERATIONS", {**OPERATIONS, "contrast": batch_contrast})
    x = pixels(120, 3, 8, 8)
    permutation = torch.randperm(120, generator=seeded(2))
    fixed = permutation == torch.arange(120)
    fixed[::4] = True  # every fourth image stays in its place, the others change theirs
    moved = torch.where(fixed[:, None, None, None], x, x[permutation])
    one, other = (strong_augment(images, Strong(operations=3), seeded(3)) for images in (x, moved))
    assert torch.equal(one[fixed], other[fixed]) is not mixed_up
    assert not torch.equal(one[~fixed], other[~fixed])


@pytest.mark.parametrize("right", [True, False])
def test_the_batch_is_its_images_one_by_one(right: bool) -> None:
    """Draws: operations, signs, magnitudes, then sides and centres of the squares. The control swaps the order."""
    x, count = pixels(90, 3, 8, 8), 3
    out = strong_augment(x, Strong(operations=count, cutout=0), seeded(7))
    draws = seeded(7)
    which = torch.randint(14, (count, 90), generator=draws)
    sign = torch.randint(2, (count, 90), generator=draws) * 2 - 1
    magnitude = sign * torch.rand(count, 90, generator=draws)
    expected = x.clone()
    for b in range(90):
        for k in range(count) if right else reversed(range(count)):
            operation = list(OPERATIONS.values())[int(which[k, b])]
            expected[b : b + 1] = operation(expected[b : b + 1], magnitude[k, b : b + 1])
    worst = (out - expected).abs().amax((1, 2, 3))
    # Rounding may put a value on the other side of a level or threshold: in a few pixels of a few images.
    assert (worst < 1e-5).float().mean() > 0.95 if right else (worst < 1e-5).float().mean() < 0.5


def record(monkeypatch: pytest.MonkeyPatch, config: Strong, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which operation each image gets (operations, B), and the magnitudes: the batch's pixels carry both."""

    def marker(number: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        def mark(x: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
            x = x.roll(1, dims=1)
            x[:, 0, 0, 0], x[:, 0, 0, 1] = number / 14, (magnitude + 1) / 2
            return x

        return mark

    monkeypatch.setattr(strong, "OPERATIONS", {name: marker(k) for k, name in enumerate(OPERATIONS)})
    out = strong_augment(torch.zeros(size, config.operations, 1, 2), config, seeded(0))
    return (out[:, :, 0, 0].T.flip(0) * 14).round().long(), out[:, :, 0, 1].T.flip(0) * 2 - 1


def chi_square(which: torch.Tensor, classes: int) -> float:
    counts = which.flatten().bincount(minlength=classes).double()
    return float(((counts - counts.mean()) ** 2 / counts.mean()).sum())


def test_operations_are_drawn_uniformly_and_with_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    which, magnitude = record(monkeypatch, Strong(operations=2, cutout=0), 14_000)
    # 99.9 % points of chi-square with 13 and with 195 degrees of freedom: 34.5 and 262.
    assert chi_square(which, 14) < 34.5
    assert chi_square(which[0] * 14 + which[1], 196) < 262
    assert (which[0] == which[1]).any()
    # Controls: a list drawn less evenly, and pairs drawn without replacement.
    assert chi_square(torch.minimum(which, which.flip(1)), 14) > 34.5
    assert chi_square((which[0] * 14 + which[1])[which[0] != which[1]], 196) > 262
    # Magnitudes are uniform on -1..1 (19 degrees of freedom: 43.8); their cubes are not.
    assert chi_square(((magnitude + 1) * 10).long(), 20) < 43.8
    assert chi_square(((magnitude**3 + 1) * 10).long(), 20) > 43.8


def test_a_given_magnitude_is_everyones(monkeypatch: pytest.MonkeyPatch) -> None:
    _, magnitude = record(monkeypatch, Strong(operations=2, magnitude=0.25, cutout=0), 1000)
    torch.testing.assert_close(magnitude.abs(), torch.full((2, 1000), 0.25))
    assert 400 < (magnitude > 0).sum(1).min() <= (magnitude > 0).sum(1).max() < 600
    _, drawn = record(monkeypatch, Strong(operations=2, cutout=0), 1000)
    assert drawn.abs().std() > 0.2


def test_nothing_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without data stand for a device whose values are not there yet."""
    x = torch.empty(64, 3, 8, 8, device="meta")
    out = strong_augment(x, Strong(), seeded(0))
    assert (out.shape, out.device) == (x.shape, x.device)
    waiting = {name: lambda x, magnitude: x / x.max().item() for name in OPERATIONS}
    monkeypatch.setattr(strong, "OPERATIONS", waiting)
    with pytest.raises(RuntimeError, match="meta"):
        strong_augment(x, Strong(), seeded(0))


def test_autocast_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = pixels(64, 3, 16, 16)

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            cast = strong_augment(x, Strong(), seeded(0))
        return strong_augment(x, Strong(), seeded(0)), cast

    plain, cast = both()
    assert torch.equal(plain, cast)

    def by_matrix(x: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
        return (torch.eye(16) + 0.1 * magnitude[:, None, None, None]) @ x

    monkeypatch.setattr(strong, "OPERATIONS", {**OPERATIONS, "rotate": lambda x, m: by_matrix(x, m).float()})
    plain, cast = both()
    assert not torch.equal(plain, cast)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"operations": -1}, "operations must be at least 0, got -1"),
        ({"magnitude": 1.5}, r"magnitude must be at most 1, got 1\.5"),
        ({"magnitude": -0.1}, r"magnitude must be at least 0, got -0\.1"),
        ({"cutout": 1.1}, r"cutout must be at most 1, got 1\.1"),
    ],
)
def test_settings_out_of_range_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Strong(**given)


def test_feature_vectors_are_refused() -> None:
    with pytest.raises(InputError, match=r"strong views are for images \(B, C, H, W\), got shape \(4, 7\); choose"):
        strong_augment(torch.zeros(4, 7), Strong(), seeded(0))
