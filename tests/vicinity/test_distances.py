"""Distances: reductions and scale, closed forms, and numbers at the edge of what floats can hold."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.vicinity import distances

Mutation = Callable[[pytest.MonkeyPatch], None]

torch.set_num_threads(1)
_kl, _entropy = distances.kl, distances.entropy


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing."""
    return lambda patch: patch.setattr(f"vicinal.vicinity.distances.{target}", value)


def pair(count: int = 6, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Target probabilities and logits, float64."""
    draws = torch.Generator().manual_seed(0)
    target, logits = (2 * torch.randn(count, classes, generator=draws, dtype=torch.float64) for _ in range(2))
    return target.softmax(dim=1), logits


def gradient(value: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    at = at.clone().requires_grad_()
    (result,) = torch.autograd.grad(value(at).sum(), at)
    return result


def one_number_per_sample() -> None:
    target, logits = pair()
    for row in range(len(target)):
        t, p = target[row].tolist(), logits[row].softmax(dim=0).tolist()
        squared = sum((a - b) ** 2 for a, b in zip(t, p, strict=True)) / len(t)
        divergence = sum(a * math.log(a / b) for a, b in zip(t, p, strict=True))
        crossed = -sum(a * math.log(b) for a, b in zip(t, p, strict=True))
        assert float(distances.squared_error(target, logits)[row]) == pytest.approx(squared)
        assert float(distances.kl(target, logits)[row]) == pytest.approx(divergence)
        assert float(distances.cross_entropy(target, logits)[row]) == pytest.approx(crossed)
    for name in ("mse", "kl"):
        assert distances.distance(name, target, logits).shape == (6,)
    assert torch.equal(distances.distance("mse", target, logits), distances.squared_error(target, logits))
    assert torch.equal(distances.distance("kl", target, logits), distances.kl(target, logits))


def brier_scale() -> None:
    """One-hot against uniform with ten classes is 0.09: 6.75 at MixMatch's weight of 75, 9 at ICT's of 100."""
    uniform = torch.full((1, 10), 1.7)
    value = float(distances.squared_error(F.one_hot(torch.tensor([3]), 10).float(), uniform))
    assert [value, 75 * value, 100 * value] == pytest.approx([0.09, 6.75, 9])


def impossible_classes_dilute_squared_error_only() -> None:
    target, logits = pair()
    wider = torch.cat([target, torch.zeros(6, 2, dtype=torch.float64)], dim=1)
    ruled_out = torch.cat([logits, torch.full((6, 2), -1e4, dtype=torch.float64)], dim=1)
    ratio = distances.squared_error(wider, ruled_out) / distances.squared_error(target, logits)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 4 / 6))
    torch.testing.assert_close(distances.kl(wider, ruled_out), distances.kl(target, logits))


def kl_near_uniform() -> None:
    """KL is about C^2/2 mean squared errors near the uniform prediction."""
    _, logits = pair(classes=10)
    uniform = torch.full_like(logits, 0.1)
    ratio = distances.kl(uniform, 1e-3 * logits) / distances.squared_error(uniform, 1e-3 * logits)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 50), rtol=1e-2, atol=0)


def kl_is_a_divergence_of_the_target_first() -> None:
    """KL >= 0, 0 at equality, and its gradient on the logits is p - target."""
    target, logits = pair()
    assert distances.kl(target, logits).min() > 0
    torch.testing.assert_close(distances.kl(logits.softmax(dim=1), logits), torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(gradient(lambda z: distances.kl(target, z), logits), logits.softmax(dim=1) - target)


def kl_of_one_hot_targets() -> None:
    """0 log 0 is 0, in the value and in the gradient: it equals the cross-entropy."""
    _, logits = pair()
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    target = F.one_hot(y, 4).double()
    torch.testing.assert_close(distances.kl(target, logits), distances.cross_entropy(y, logits))
    assert gradient(lambda z: distances.kl(target, z), logits).isfinite().all()


def kl_of_large_gaps() -> None:
    """In probabilities, a gap of 120 underflows in float32: infinite value, no gradient. In logs it is 60 - log 2."""
    target = torch.tensor([[0.5, 0.5]])
    for gap, expected in ((120.0, 59.3069), (1000.0, 499.3069)):
        logits = torch.tensor([[gap, 0.0]])
        assert float(distances.kl(target, logits)) == pytest.approx(expected, rel=1e-5)
        torch.testing.assert_close(gradient(lambda z: distances.kl(target, z), logits), torch.tensor([[0.5, -0.5]]))


def soft_labels() -> None:
    """Mixing two cross-entropies is the cross-entropy with the mixed label; class indices are one-hot labels."""
    _, logits = pair()
    y, other, lam = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([3, 1, 0, 2, 2, 0]), 0.3
    one_hot, one_hot_other = (F.one_hot(classes, 4).double() for classes in (y, other))
    mixed = lam * distances.cross_entropy(y, logits) + (1 - lam) * distances.cross_entropy(other, logits)
    torch.testing.assert_close(distances.cross_entropy(lam * one_hot + (1 - lam) * one_hot_other, logits), mixed)
    torch.testing.assert_close(distances.cross_entropy(one_hot, logits), distances.cross_entropy(y, logits))


def entropy_values() -> None:
    _, logits = pair()
    values = distances.entropy(logits)
    assert 0 < values.min() <= values.max() < math.log(4)
    assert float(distances.entropy(torch.zeros(1, 4))) == pytest.approx(math.log(4))
    assert float(distances.entropy(torch.tensor([[1e3, 0.0, 0.0]]))) == 0


def entropy_gradient() -> None:
    """-p (log p + H) on the logits: 0 at the uniform and at the certain prediction."""
    _, logits = pair()
    p = logits.softmax(dim=1)
    h = -(p * p.log()).sum(dim=1, keepdim=True)
    torch.testing.assert_close(gradient(lambda z: distances.entropy(z), logits), -p * (p.log() + h))
    for flat in (torch.zeros(1, 4), torch.tensor([[1e3, 0.0, 0.0]])):
        assert gradient(lambda z: distances.entropy(z), flat).abs().max() < 1e-7


def _reversed(target: Tensor, logits: Tensor) -> Tensor:
    return _kl(logits.softmax(dim=1), target.log())


def _in_probabilities(target: Tensor, logits: Tensor) -> Tensor:
    return (target * (target / logits.softmax(dim=1)).log()).sum(dim=1)


def _mean_kl(target: Tensor, logits: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(logits, dim=1), target, reduction="none").mean(dim=1)


def _summed(target: Tensor, logits: Tensor) -> Tensor:
    return (logits.softmax(dim=1) - target).square().sum(dim=1)


def _detached_weights(logits: Tensor) -> Tensor:
    log_p = F.log_softmax(logits, dim=1)
    return -(log_p.exp().detach() * log_p).sum(dim=1)


IDENTITIES = [
    pytest.param(one_number_per_sample, patched("kl", _mean_kl), id="reductions | KL as a mean over classes"),
    pytest.param(one_number_per_sample, patched("squared_error", _summed), id="reductions | squared error as a sum"),
    pytest.param(brier_scale, patched("squared_error", _summed), id="Brier scale | sum over classes"),
    pytest.param(
        impossible_classes_dilute_squared_error_only,
        patched("squared_error", _summed),
        id="impossible classes | sum over classes",
    ),
    pytest.param(
        impossible_classes_dilute_squared_error_only,
        patched("kl", _mean_kl),
        id="impossible classes | KL as a mean over classes",
    ),
    pytest.param(kl_near_uniform, patched("kl", _mean_kl), id="KL near uniform | mean over classes"),
    pytest.param(kl_is_a_divergence_of_the_target_first, patched("kl", _reversed), id="KL | arguments swapped"),
    pytest.param(kl_of_one_hot_targets, patched("kl", _in_probabilities), id="one-hot targets | 0 log 0 in numbers"),
    pytest.param(kl_of_large_gaps, patched("kl", _in_probabilities), id="large gaps | in probabilities"),
    pytest.param(
        soft_labels,
        patched("cross_entropy", lambda t, z: F.cross_entropy(z, t if t.dim() == 1 else t.argmax(1), reduction="none")),
        id="soft labels | hardened",
    ),
    pytest.param(entropy_values, patched("entropy", lambda z: -_entropy(z)), id="entropy | sign"),
    pytest.param(entropy_values, patched("entropy", lambda z: _entropy(z) / math.log(2)), id="entropy | in bits"),
    pytest.param(entropy_gradient, patched("entropy", _detached_weights), id="entropy gradient | half of it"),
]


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_holds(check: Callable[[], None], mutate: Mutation) -> None:
    check()


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_fails_when_mutated(
    check: Callable[[], None], mutate: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check()
