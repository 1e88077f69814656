"""What MixMatch is made of: sharpening and interleaving, with the published constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.vicinity import interpolation

Check = Callable[[], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

torch.set_num_threads(1)
SIZES = [(64, 64, 64), (9, 9, 9), (5, 8, 8), (1, 1, 1), (2, 7, 7, 7), (4,)]

_interleave = interpolation.interleave


def patched(name: str, value: object) -> Mutation:
    """The mutation that replaces one function."""
    return lambda patch: patch.setattr(f"vicinal.vicinity.interpolation.{name}", value)


def rows(count: int = 6, classes: int = 5) -> Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(0)).softmax(dim=1)


def mix_16_published_value() -> None:
    found = interpolation.sharpen(torch.tensor([[0.6, 0.3, 0.1]]), 0.5)
    assert found[0].tolist() == pytest.approx([0.7826, 0.1957, 0.0217], abs=5e-5)
    torch.testing.assert_close(found, torch.tensor([[0.36, 0.09, 0.01]]) / 0.46)


def mix_16_temperature_one_is_the_identity() -> None:
    torch.testing.assert_close(interpolation.sharpen(rows(), 1.0), rows())


def mix_16_without_temperature_it_is_the_argmax() -> None:
    hard = F.one_hot(rows().argmax(dim=1), 5).float()
    for temperature in (1e-3, 1e-30):
        torch.testing.assert_close(interpolation.sharpen(rows(), temperature), hard)
    tied = interpolation.sharpen(torch.tensor([[0.4, 0.4, 0.2]]), 1e-3)
    assert tied[0].tolist() == [0.5, 0.5, 0]


def mix_16_zeros_are_safe_in_half_precision() -> None:
    """Also powers that underflow there: 1e-4 squared is below the smallest float16."""
    for dtype in (torch.float16, torch.bfloat16):
        p = torch.tensor([[1, 0, 0], [0.5, 0.5, 0], [1e-4, 2e-4, 2e-4]], dtype=dtype)
        found = interpolation.sharpen(p, 0.5)
        assert found.dtype == dtype
        assert found[:2].tolist() == [[1, 0, 0], [0.5, 0.5, 0]]
        torch.testing.assert_close(found[2].float(), torch.tensor([1.0, 4, 4]) / 9, atol=0.01, rtol=0)


def mix_16_rows_stay_on_the_simplex() -> None:
    for temperature in (0.1, 0.5, 3.0):
        found = interpolation.sharpen(rows(), temperature)
        torch.testing.assert_close(found.sum(dim=1), torch.ones(6))
        assert torch.equal(found.argsort(dim=1), rows().argsort(dim=1))


def composition(sizes: Sequence[int]) -> list[list[int]]:
    """Rows of each group in each block."""
    group = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return [group[block].bincount(minlength=len(sizes)).tolist() for block in interpolation.interleave(sizes)]


def mix_18_published_composition() -> None:
    """Rows of (x, u1, u2) in each block, for batches of 64."""
    assert composition((64, 64, 64)) == [[21, 21, 22], [21, 43, 0], [22, 0, 42]]


def mix_18_interleaving_twice_changes_nothing() -> None:
    for size in (64, 9, 1):
        order = torch.cat(interpolation.interleave((size,) * 3))
        assert torch.equal(order[order], torch.arange(3 * size))
        assert torch.equal(order.argsort(), order)


def mix_18_every_row_comes_once() -> None:
    for sizes in SIZES:
        blocks = interpolation.interleave(sizes)
        assert len(blocks) == len(sizes)
        assert torch.cat(blocks).sort().values.tolist() == list(range(sum(sizes)))


def mix_18_the_first_block_has_a_share_of_each_group() -> None:
    for sizes in ((64, 64, 64), (5, 8, 8), (30, 60, 60)):
        assert composition(sizes)[0] == pytest.approx([size / 3 for size in sizes], abs=1)


def _power(p: Tensor, temperature: float) -> Tensor:
    powers = p ** (1 / temperature)
    return powers / powers.sum(dim=1, keepdim=True)


def _as_they_are(sizes: Sequence[int]) -> tuple[Tensor, ...]:
    return torch.arange(sum(sizes)).split(list(sizes))


def _striped(sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Every third row: a share of every group, but no involution."""
    return tuple(torch.arange(sum(sizes))[k :: len(sizes)] for k in range(len(sizes)))


CHECKS = [
    pytest.param(
        mix_16_published_value, patched("sharpen", lambda p, t: _power(p, 1 / t)), id="16 value | T for its inverse"
    ),
    pytest.param(
        mix_16_temperature_one_is_the_identity,
        patched("sharpen", lambda p, t: (p / t).softmax(dim=1)),
        id="16 T = 1 | softmax of probabilities",
    ),
    pytest.param(
        mix_16_without_temperature_it_is_the_argmax, patched("sharpen", _power), id="16 T -> 0 | plain powers"
    ),
    pytest.param(mix_16_zeros_are_safe_in_half_precision, patched("sharpen", _power), id="16 zeros | plain powers"),
    pytest.param(
        mix_16_rows_stay_on_the_simplex,
        patched("sharpen", lambda p, t: p ** (1 / t)),
        id="16 simplex | not normalised",
    ),
    pytest.param(mix_18_published_composition, patched("interleave", _as_they_are), id="18 composition | as they are"),
    pytest.param(mix_18_published_composition, patched("interleave", _striped), id="18 composition | striped"),
    pytest.param(mix_18_interleaving_twice_changes_nothing, patched("interleave", _striped), id="18 twice | striped"),
    pytest.param(
        mix_18_every_row_comes_once,
        patched("interleave", lambda sizes: _interleave(sizes)[:-1]),
        id="18 every row | a block lost",
    ),
    pytest.param(
        mix_18_the_first_block_has_a_share_of_each_group,
        patched("interleave", _as_they_are),
        id="18 first block | as they are",
    ),
]


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_mixing_term(check: Check, mutate: Mutation) -> None:
    check()


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_mixing_term_fails_when_mutated(check: Check, mutate: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperatures_must_be_positive(temperature: float) -> None:
    with pytest.raises(InputError, match="temperature must be greater than 0"):
        interpolation.sharpen(rows(), temperature)
