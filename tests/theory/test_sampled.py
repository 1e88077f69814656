"""The mixup loss and its expansions of a trained network: sampled against exact, and gaps that are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.networks import mlp
from vicinal.theory import (
    Trained,
    expansion_figures,
    glm_terms,
    mixup_loss_exact,
    mixup_loss_figures,
    mixup_loss_sampled,
    sampled,
)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def model(scale: float = 1.0, n: int = 20, hidden: tuple[int, ...] = (8,)) -> Trained:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = mlp((3,), 3, hidden=hidden, activation="softplus")
    for parameter in network.parameters():
        parameter.data *= scale
    return Trained(network, draws(n, 3), torch.arange(n) % 3)


def ratios(alpha: float, mutate: bool = False) -> list[float]:
    """Errors of sampled losses over their standard errors, on 20 seeds."""
    made = model(3.0)
    truth = float(mixup_loss_exact(made.logits, made.x, made.y, alpha))
    found = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        x = made.x[:19] if mutate else made.x
        estimate = mixup_loss_sampled(made.logits, x, made.y[: len(x)], alpha, permutations=64, generator=generator)
        found.append((estimate.mean - truth) / estimate.standard_error)
    return found


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_permutations_are_unbiased_and_say_how_far_off_they_may_be(alpha: float) -> None:
    found = torch.tensor(ratios(alpha))
    assert float(found.abs().max()) < 4
    assert abs(float(found.mean())) * 20**0.5 < 3
    assert 0.6 < float(found.std()) < 1.5


def test_permutations_control(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another law of the coefficient the mean is off."""
    drawn = sampled.draw_mixing
    monkeypatch.setattr(sampled, "draw_mixing", lambda n, alpha, g, per: drawn(n, 4 * alpha, g, per=per))
    assert abs(float(torch.tensor(ratios(1.0)).mean())) * 20**0.5 > 3


def test_the_budget_decides_what_is_exact() -> None:
    made = model()
    rich, poor = (mixup_loss_figures(made, 1.0, seed=0, nodes=8, budget=budget) for budget in (1e9, 1e3))
    assert (rich["pairs"], rich["passes"], rich["standard_error"]) == ("all", 20 * 20 * 8, 0)
    assert (poor["pairs"], poor["passes"]) == ("sampled", 20 * 128)
    assert abs(poor["value"] - rich["value"]) < 4 * poor["standard_error"]
    exact, probed = (expansion_figures(made, 1.0, rich, seed=0, budget=budget) for budget in (1e9, 1e3))
    for here, there in zip(exact, probed, strict=True):
        assert (here["trace"], there["trace"]) == ("exact", "hutchinson")
        assert here["standard_error"] == 0 < there["standard_error"]
        assert abs(here["total"] - there["total"]) < 5 * there["standard_error"]
        assert there["gap_standard_error"] == pytest.approx(there["standard_error"])
        assert "give or take" in there["says"]


def test_a_constant_network_has_no_gap() -> None:
    made = model(0.0)
    mixup = mixup_loss_figures(made, 2.0, seed=0)
    assert mixup["value"] == pytest.approx(math.log(3))
    for found in expansion_figures(made, 2.0, mixup, seed=0):
        assert found["total"] == pytest.approx(math.log(3))
        assert found["gap"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("alpha", "least"), [(0.2, 0.02), (1.0, 0.05), (4.0, 0.05)])
def test_the_gap_is_told_as_it_is(alpha: float, least: float) -> None:
    """Of a linear model with large logits: that of the closed form, far from zero, and with its sign in words."""
    theta, x = 3 * draws(3, seed=5), draws(24, 3)
    x = x - x.mean(dim=0)
    network = nn.Linear(3, 1, bias=False).double()
    network.weight.data = theta[None]
    made = Trained(network, x, (x @ theta > 0).long())
    mixup = mixup_loss_figures(made, alpha, seed=0)
    found, shrunk = expansion_figures(made, alpha, mixup, seed=0)
    closed = float(glm_terms(theta, x, made.y.double(), alpha).total)
    assert found["total"] == pytest.approx(closed)
    assert found["gap"] == pytest.approx(closed - mixup["value"])
    assert found["relative_gap"] == pytest.approx(closed / mixup["value"] - 1)
    assert abs(found["relative_gap"]) > least
    word = "large" if found["gap"] > 0 else "small"
    assert found["says"].endswith(f"{abs(found['relative_gap']):.2%} too {word}")
    assert abs(shrunk["relative_gap"]) < abs(found["relative_gap"])


def test_operations_are_counted() -> None:
    assert model(hidden=(8,)).flops() == 2 * (3 * 8 + 8 * 3) + 30


def test_bad_input() -> None:
    with pytest.raises(InputError, match="permutations must be at least 2"):
        mixup_loss_figures(model(), 1.0, seed=0, permutations=1, budget=1)
