"""The search of adversarial masks against its rule, closed forms and exhaustive search; with wrong variants."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.vicinity import kl, output_distance
from vicinal.vicinity.dropout_adversary import adversarial_mask

torch.set_num_threads(1)

Divergence = Callable[[Tensor], Tensor]
Search = Callable[..., Tensor]
BATCH, WIDTH, CLASSES = 6, 128, 10


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def head(width: int = WIDTH) -> nn.Linear:
    layer = nn.Linear(width, CLASSES)
    for seed, parameter in enumerate(layer.parameters()):
        parameter.data = normal(*parameter.shape, seed=10 + seed) / width**0.5
    return layer


def from_other_view(width: int = WIDTH, seed: int = 1) -> tuple[Divergence, Tensor]:
    """KL( softmax head(h) || p ) to the prediction on other features, and the features to mask."""
    layer = head(width)
    target = layer(normal(BATCH, width, seed=seed)).detach()
    return lambda h: output_distance("kl", layer(h), target), normal(BATCH, width)


def slopes(divergence: Divergence, features: Tensor, base: Tensor | None = None) -> Tensor:
    """J: the derivative by the mask itself."""
    mask = (torch.ones_like(features) if base is None else base).clone().requires_grad_()
    (found,) = torch.autograd.grad(divergence(mask * features).sum(), mask)
    return found


def flips(mask: Tensor, base: Tensor | None = None) -> Tensor:
    """Which entries differ from the base mask."""
    return (mask > 0) != (torch.ones_like(mask) if base is None else base > 0)


def at_most_six_of_128(search: Search) -> None:
    """Published: delta 0.05 of 128 features flips floor(6.4) = 6, and exactly these with enough candidates."""
    divergence, features = from_other_view()
    flipped = flips(search(divergence, features, delta=0.05))
    assert flipped.sum(dim=1).tolist() == [6] * BATCH
    gain = (-slopes(divergence, features)).clamp(min=0)
    expected = torch.zeros_like(flipped).scatter_(1, gain.topk(6, dim=1).indices, value=True)
    assert torch.equal(flipped, expected)


def few_candidates_are_all(search: Search) -> None:
    """Only flips that raise the divergence: two of eight here, though delta allows four."""
    along = torch.tensor([[1.0, -3, 2, 4, 1, -1, 2, 5]])
    mask = search(lambda h: (h * along).sum(dim=1), torch.ones(1, 8), delta=0.5)
    assert flips(mask).flatten().nonzero().flatten().tolist() == [1, 5]


def ties_at_the_end_stay(search: Search) -> None:
    """Strictly larger than the (k + 1)-th: of -4, -2, -2 with k = 2 only the first is flipped."""
    along = torch.tensor([[1.0, -2, -4, -2, 0, 3, 1, 1]])
    mask = search(lambda h: (h * along).sum(dim=1), torch.ones(1, 8), delta=0.25)
    assert flips(mask).flatten().nonzero().flatten().tolist() == [2]


def first_order_gain_is_the_largest(search: Search) -> None:
    """For a divergence linear in the mask: the sum of the k largest -J, more than any other choice of at most k."""
    along, features = normal(1, 7, seed=3), normal(1, 7, seed=4)
    flipped = flips(search(lambda h: (h * along).sum(dim=1), features, delta=3 / 7)).flatten()
    slope = (along * features).flatten()
    best = max(-sum(float(slope[k]) for k in chosen) for count in range(4) for chosen in combinations(range(7), count))
    assert float(-slope[flipped].sum()) == pytest.approx(best)
    assert best > 0


def slope_is_of_the_mask(search: Search) -> None:
    """J = h * dL/dh: an entry with a large gradient and a small activation counts little."""
    along, features = torch.tensor([[-5.0, -1, 1, 1]]), torch.tensor([[0.1, 4.0, 1, 1]])
    mask = search(lambda h: (h * along).sum(dim=1), features, delta=0.25)
    assert flips(mask).tolist() == [[False, True, False, False]]


def masks_sum_to_the_width(search: Search) -> None:
    divergence, features = from_other_view()
    for delta in (0.0, 0.05, 0.3, 0.99):
        mask = search(divergence, features, delta=delta)
        torch.testing.assert_close(mask.sum(dim=1), torch.full((BATCH,), float(WIDTH)))
        assert not mask.requires_grad


def dropped_entries_come_back(search: Search) -> None:
    """From a base mask with zeros: where m = 0, a flip raises the divergence if J > 0."""
    along, base = torch.tensor([[3.0, -1, 2, -4, 1, 1]]), torch.tensor([[0.0, 1, 0, 0, 1, 1]])
    mask = search(lambda h: (h * along).sum(dim=1), torch.ones(1, 6), delta=0.5, base=base)
    torch.testing.assert_close(mask, 6 / 4 * torch.tensor([[1.0, 0, 1, 0, 1, 1]]))


def below_one_entry_nothing_changes(search: Search) -> None:
    divergence, features = from_other_view()
    assert torch.equal(search(divergence, features, delta=0.99 / WIDTH), torch.ones(BATCH, WIDTH))
    assert flips(search(divergence, features, delta=1.01 / WIDTH)).sum(dim=1).tolist() == [1] * BATCH


def equal_outputs_give_no_flip(search: Search) -> None:
    """Against its own prediction J is 0 (published check: 7e-8, and 9e-2 for another view), so nothing is flipped."""
    layer, features = head(), normal(BATCH, WIDTH)
    target = layer(features).detach()
    own: Divergence = lambda h: output_distance("kl", layer(h), target)  # noqa: E731
    assert slopes(own, features).abs().max() < 1e-7
    assert torch.equal(search(own, features, delta=0.05), torch.ones(BATCH, WIDTH))
    assert slopes(*from_other_view()).abs().max() > 1e-2


def divergence_rises(search: Search) -> None:
    """The masked features, scaled, are further from the target than the scaled features themselves."""
    divergence, features = from_other_view()
    mask = search(divergence, features, delta=0.05)
    scale = mask.amax(dim=1, keepdim=True)
    assert (divergence(mask * features) > divergence(scale * features)).all()


def plainly(
    divergence: Divergence,
    features: Tensor,
    *,
    delta: float,
    base: Tensor | None = None,
    sign: float = 1.0,
    of_mask: bool = True,
    strict: bool = True,
    only_gains: bool = True,
    signs_of_base: bool = True,
    scaled: bool = True,
    least: int = 0,
) -> Tensor:
    """The rule, sample by sample; each option makes it wrong in one way."""
    base = torch.ones_like(features) if base is None else base
    slope = sign * slopes(divergence, features, base)
    slope = slope if of_mask else slope / features
    mask, width = base.clone(), features.shape[1]
    count = max(int(delta * width), least)
    for i in range(len(features)):
        gains = [
            (-j if m or not signs_of_base else j) for m, j in zip(base[i].tolist(), slope[i].tolist(), strict=True)
        ]
        sizes = [max(g, 0.0) if only_gains else abs(g) for g in gains]
        limit = sorted(sizes, reverse=True)[count] if count < width else 0.0
        for k, size in enumerate(sizes):
            if size > limit or (not strict and size == limit and size > 0):
                mask[i, k] = 1 - base[i, k]
    return mask * (width / mask.sum(dim=1, keepdim=True)) if scaled else mask


def variant(**options: Any) -> Search:
    return lambda *args, **settings: plainly(*args, **settings, **options)


def naive(divergence: Divergence, features: Tensor, **settings: Any) -> Tensor:
    """Wrong: KL from probabilities, whose gradient at equality is rounding and not 0."""
    layer = head()
    target = layer(features).detach()
    return adversarial_mask(lambda h: kl(layer(h).softmax(dim=1), target), features, **settings)


CHECKS = [
    pytest.param(at_most_six_of_128, variant(sign=-1.0), id="six of 128 | descends"),
    pytest.param(few_candidates_are_all, variant(only_gains=False), id="candidates | losses too"),
    pytest.param(ties_at_the_end_stay, variant(strict=False), id="ties | not strict"),
    pytest.param(first_order_gain_is_the_largest, variant(sign=-1.0), id="gain | descends"),
    pytest.param(slope_is_of_the_mask, variant(of_mask=False), id="J | gradient without the activation"),
    pytest.param(masks_sum_to_the_width, variant(scaled=False), id="sum | not rescaled"),
    pytest.param(dropped_entries_come_back, variant(signs_of_base=False), id="base | sign of ones everywhere"),
    pytest.param(below_one_entry_nothing_changes, variant(least=1), id="below one | at least one"),
    pytest.param(equal_outputs_give_no_flip, naive, id="equal outputs | KL from probabilities"),
    pytest.param(divergence_rises, variant(sign=-1.0), id="rises | descends"),
]


@pytest.mark.parametrize(("check", "wrong"), CHECKS)
def test_check_holds(check: Callable[[Search], None], wrong: Search) -> None:
    check(adversarial_mask)
    check(plainly)


@pytest.mark.parametrize(("check", "wrong"), CHECKS)
def test_check_fails_of_wrong_variant(check: Callable[[Search], None], wrong: Search) -> None:
    with pytest.raises(AssertionError):
        check(wrong)


def test_parameters_and_their_gradients_are_left_alone() -> None:
    layer, features = head(), normal(BATCH, WIDTH).requires_grad_()
    target = layer(normal(BATCH, WIDTH, seed=1)).detach()
    with torch.no_grad():
        mask = adversarial_mask(lambda h: output_distance("kl", layer(h), target), features, delta=0.05)
    assert flips(mask).any()
    assert features.grad is None
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_half_precision_is_searched_in_full() -> None:
    seen: list[torch.dtype] = []
    adversarial_mask(lambda h: seen.append(h.dtype) or h.sum(dim=1), torch.ones(2, 4).bfloat16(), delta=0.5)
    assert seen == [torch.float32]


def test_share_is_not_lost_to_rounding() -> None:
    """0.29 of 100 is 29, though the product of floats is less."""
    assert math.floor(0.29 * 100) == 28
    mask = adversarial_mask(lambda h: -(h * torch.arange(1.0, 101)).sum(dim=1), torch.ones(1, 100), delta=0.29)
    assert flips(mask).sum() == 29


def test_mask_without_entries_stays_zero() -> None:
    mask = adversarial_mask(lambda h: -h.sum(dim=1), torch.ones(1, 4), delta=1.0)
    assert mask.tolist() == [[0.0] * 4]


@pytest.mark.parametrize("delta", [-0.1, 1.5])
def test_share_is_checked(delta: float) -> None:
    with pytest.raises(InputError, match="delta must be"):
        adversarial_mask(lambda h: h.sum(dim=1), torch.ones(1, 4), delta=delta)
