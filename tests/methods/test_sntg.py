"""SNTG's loss of pairs against its limits; with wrong variants."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vicinal.methods.sntg import neighbour_loss

torch.set_num_threads(1)

Loss = Callable[[Tensor, Tensor, float], Tensor]


def features(count: int = 8, *, scale: float = 1.0, seed: int = 0) -> Tensor:
    return scale * torch.randn(count, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def equal_classes_give_the_mean_squared_distance(loss: Loss) -> None:
    """d^2 is a mean over features, and the loss a mean over pairs (j, j + N/2)."""
    h = features()
    expected = sum(float((h[j] - h[j + 4]).square().mean()) for j in range(4)) / 4
    assert loss(h, torch.full((8,), 2), 1.0).item() == pytest.approx(expected)


def equal_features_of_other_classes_cost_the_margin_squared(loss: Loss) -> None:
    """Exactly, at every margin; and no gradient is lost to NaN (published code: zeroed by its optimiser)."""
    for margin in (1.0, 2.0):
        h = features(1).repeat(8, 1).requires_grad_()
        value = loss(h, torch.arange(8), margin)
        assert value.item() == margin**2
        (gradient,) = torch.autograd.grad(value, h)
        assert gradient.isfinite().all()
    h = features(1).repeat(8, 1).requires_grad_()
    value = loss(h, torch.zeros(8, dtype=torch.int64), 1.0)
    (gradient,) = torch.autograd.grad(value, h)
    assert value.item() == 0.0
    assert not gradient.any()


def halves_may_be_swapped(loss: Loss) -> None:
    h, classes = features(scale=0.5), torch.tensor([0, 1, 2, 0, 0, 2, 2, 1])
    found = loss(h, classes, 1.0)
    torch.testing.assert_close(found, loss(h.roll(4, dims=0), classes.roll(4), 1.0))
    assert found > 0.01


def far_pairs_of_other_classes_have_no_gradient(loss: Loss) -> None:
    """d > margin: none; nearer ones are pushed apart, equal classes pulled together."""
    h = torch.stack([features(1)[0] * s for s in (0, 0, 0, 9, 0.5, 0.5)]).requires_grad_()
    value = loss(h, torch.tensor([0, 0, 0, 1, 1, 0]), 1.0)
    (gradient,) = torch.autograd.grad(value, h)
    assert not gradient[[0, 3]].any()
    toward = (gradient[[1, 2]] * (h[[4, 5]] - h[[1, 2]])).sum(dim=1)
    assert toward[0] > 0.01
    assert toward[1] < -0.01


def is_its_equation(loss: Loss) -> None:
    h, classes = features(scale=0.7), torch.tensor([0, 1, 2, 0, 0, 2, 2, 1])
    total = 0.0
    for j in range(4):
        d = math.sqrt(float((h[j] - h[j + 4]).square().mean()))
        total += d**2 if classes[j] == classes[j + 4] else max(0.0, 1.5 - d) ** 2
    assert loss(h, classes, 1.5).item() == pytest.approx(total / 4)


def unknown_classes_are_left_out(loss: Loss) -> None:
    """-1 equals nothing, not even -1; with no pair left the loss is 0, with a graph."""
    h, classes = features(), torch.tensor([0, -1, 2, -1, 1, 1, 2, -1])
    known = torch.tensor([0, 2, 4, 6])
    torch.testing.assert_close(loss(h, classes, 3.0), loss(h[known], classes[known], 3.0))
    none = loss(h.requires_grad_(), torch.full((8,), -1), 1.0)
    assert none.item() == 0.0
    assert not torch.autograd.grad(none, h)[0].any()


def plainly(
    *, power: float = 0.5, summed: bool = False, hinge: bool = True, halves: bool = True, unknown: bool = True
) -> Loss:
    """The equation; each option makes it wrong in one way."""

    def loss(h: Tensor, classes: Tensor, margin: float) -> Tensor:
        n = len(h) // 2
        first, second = (slice(0, n), slice(n, 2 * n)) if halves else (slice(0, n), slice(1, n + 1))
        square = (h[first] - h[second]).square()
        squared = square.sum(dim=1) if summed else square.mean(dim=1)
        gap = margin - squared**power
        other = (gap.clamp(min=0) if hinge else gap) ** 2
        same = classes[first] == classes[second]
        usable = (classes[first] >= 0) & (classes[second] >= 0) if unknown else torch.ones_like(same)
        return ((same * squared + ~same * other) * usable).sum() / usable.sum().clamp(min=1)

    return loss


LIMITS = [
    pytest.param(equal_classes_give_the_mean_squared_distance, plainly(summed=True), id="equal | summed over features"),
    pytest.param(equal_features_of_other_classes_cost_the_margin_squared, plainly(), id="m^2 | root of 0"),
    pytest.param(halves_may_be_swapped, plainly(halves=False), id="halves | neighbours in order"),
    pytest.param(far_pairs_of_other_classes_have_no_gradient, plainly(hinge=False), id="far pairs | no hinge"),
    pytest.param(is_its_equation, plainly(power=1.0), id="equation | hinge on d^2"),
    pytest.param(unknown_classes_are_left_out, plainly(unknown=False), id="unknown | as a class"),
]


@pytest.mark.parametrize(("check", "wrong"), LIMITS)
def test_limit_holds(check: Callable[[Loss], None], wrong: Loss) -> None:
    check(neighbour_loss)


@pytest.mark.parametrize(("check", "wrong"), LIMITS)
def test_limit_fails_of_wrong_variant(check: Callable[[Loss], None], wrong: Loss) -> None:
    with pytest.raises(AssertionError):
        check(wrong)


def test_example_left_over_has_no_pair() -> None:
    h, classes = features(9), torch.arange(9) % 2
    assert torch.equal(neighbour_loss(h, classes, 1.0), neighbour_loss(h[:8], classes[:8], 1.0))
    assert neighbour_loss(h.bfloat16(), classes, 1.0).dtype == torch.float32
