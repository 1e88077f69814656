"""The adversarial search of Lipschitz regularisation on networks: checks 7 to 9 and 11, each with its controls."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.lipschitz import BATCH, CLASSES, FEATURES, fails, measured, normal, raw, searching, seeded
from torch import Tensor, nn

from vicinal.networks import EVAL, FROZEN_STATS, TRAIN, PassPolicy, run
from vicinal.vicinity import lipschitz
from vicinal.vicinity.lipschitz import LipschitzSettings

torch.set_num_threads(1)
_search, _autocast = lipschitz.adversarial_neighbour, torch.autocast


def divided(x: Tensor, fallback: Tensor | None = None) -> Tensor:
    return (x.flatten(1) / x.flatten(1).norm(dim=1, keepdim=True)).view_as(x)


def drawn(network: nn.Sequential, seed: int = 1) -> nn.Sequential:
    """The network with weights that no other test's draws can change, in float64."""
    for index, parameter in enumerate(network.double().parameters()):
        parameter.data = normal(*parameter.shape, seed=seed + index) / 2
    return network


def perceptron(seed: int = 1) -> nn.Sequential:
    return drawn(nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh(), nn.Linear(16, CLASSES)), seed)


NETWORKS = {
    "batch norm": lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)
    ),
    "layer norm": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 4)),
    "dropout": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.Dropout(), nn.Linear(16, 4)),
}
SHARED = PassPolicy(update_stats=False, dropout="shared")


@pytest.mark.parametrize("name", NETWORKS)
def test_alr_07_search_leaves_the_network_as_it_was(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = drawn(NETWORKS[name]()), normal(BATCH, 1, 6, 6)
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 7)

    def holds(*policies: PassPolicy) -> None:
        before = {key: value.clone() for key, value in network.state_dict().items()}
        for policy in policies:
            found, _ = measured(lambda v, p=policy: run(network, v, p, shared_seed=3), x)
            assert not found.r.requires_grad
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
        assert all(torch.equal(p.grad, torch.full_like(p, 7)) for p in network.parameters() if p.grad is not None)
        assert all(module.training for module in network.modules())

    def backward(outputs: Tensor, probe: Tensor) -> tuple[Tensor]:
        outputs.backward()
        return (probe.grad,)

    holds(SHARED, FROZEN_STATS, EVAL)
    if name == "batch norm":
        with pytest.raises(AssertionError):
            holds(TRAIN)
    monkeypatch.setattr(torch.autograd, "grad", backward)
    with pytest.raises(AssertionError):
        holds(SHARED)


def test_alr_07_dropout_masks_are_shared_by_the_clean_and_the_moved_pass() -> None:
    """Decided: shared. Fresh masks add a distance that is there without any step, and a small step divides it."""
    network, x = drawn(NETWORKS["dropout"]()), normal(BATCH, 1, 6, 6)
    steepest = {}
    for dropout in ("shared", "fresh"):
        torch.manual_seed(0)
        policy = PassPolicy(update_stats=False, dropout=dropout)  # type: ignore[arg-type]
        options = {"d_y": "l2_logits", "epsilon_min": 1e-3, "epsilon_max": 1e-3}
        steepest[dropout] = measured(lambda v, p=policy: run(network, v, p, shared_seed=3), x, **options)[
            1
        ].quotient.max()
    # With each unit kept and doubled, or dropped, no mask makes the network steeper than this.
    bound = 2 * torch.linalg.matrix_norm(network[1].weight, 2) * torch.linalg.matrix_norm(network[3].weight, 2)
    assert steepest["shared"] < 1.01 * bound < 0.1 * steepest["fresh"]


def test_alr_08_in_eval_mode_other_samples_do_not_matter() -> None:
    network, x = drawn(NETWORKS["batch norm"]()), normal(BATCH, 1, 6, 6)
    others = x.clone()
    others[1:] = 3 * others[1:].flip(0)

    def holds(policy: PassPolicy) -> None:
        first, second = (measured(lambda v: run(network, v, policy), batch)[0].r for batch in (x, others))
        torch.testing.assert_close(first[0], second[0], rtol=1e-10, atol=0)

    holds(EVAL)
    with pytest.raises(AssertionError):
        holds(FROZEN_STATS)


def zero_gradient() -> None:
    found, penalty = measured(lambda v: 0 * v[:, :CLASSES], normal(BATCH, FEATURES), K=0.1)
    torch.testing.assert_close(found.r.norm(dim=1), found.epsilon)
    assert torch.equal(penalty.value, torch.zeros(BATCH, dtype=torch.float64))


def not_a_number() -> None:
    f, x = perceptron(), normal(BATCH, FEATURES)
    expected = measured(f, x)
    x[0, 0] = math.nan
    found, penalty = measured(f, x)
    torch.testing.assert_close(found.r[0].norm(), found.epsilon[0])
    torch.testing.assert_close(found.r[1:], expected[0].r[1:])
    assert penalty.excluded() == 1
    torch.testing.assert_close(penalty.mean(), expected[1].value[1:].mean())


def large_gaps() -> None:
    """The steepest samples must be trained: a gradient that is finite and not zero."""
    W = (300 * normal(CLASSES, FEATURES)).float().requires_grad_()
    _, penalty = measured(lambda v: v @ W.T, normal(BATCH, FEATURES, seed=1).float(), epsilon_min=5)
    assert penalty.excluded() == 0
    (gradient,) = torch.autograd.grad(penalty.mean(), W)
    assert gradient.isfinite().all()
    assert gradient.norm() > 0.1


def shapes() -> None:
    for shape in ((1, FEATURES), (BATCH, 1), (BATCH, 3, 5), (1, 2, 2, 2, 2)):
        f = drawn(nn.Sequential(nn.Linear(math.prod(shape[1:]), CLASSES)))
        found, penalty = measured(lambda v, f=f: f(v.flatten(1)), normal(*shape))
        assert (found.r.shape, penalty.value.shape) == (shape, shape[:1])
        torch.testing.assert_close(found.r.flatten(1).norm(dim=1), found.epsilon)


def half_precision() -> None:
    f, x, settings = perceptron().float(), normal(BATCH, FEATURES).bfloat16(), LipschitzSettings(xi=1e-2)
    expected = lipschitz.adversarial_neighbour(f, x.float(), settings, seeded())
    with _autocast("cpu", torch.bfloat16):
        found = lipschitz.adversarial_neighbour(f, x, settings, seeded())
    assert found.r.dtype == torch.float32
    assert torch.equal(found.r, expected.r)


@pytest.mark.parametrize(
    ("holds", "mutation"),
    [
        pytest.param(zero_gradient, {"unit": divided}, id="zero gradient | 0 / 0"),
        pytest.param(not_a_number, {"unit": divided}, id="NaN input | NaN / NaN"),
        pytest.param(
            large_gaps,
            {"_kl": lambda p, q: (p.exp() * (p.exp().log() - q.exp().log())).sum(dim=1)},
            id="logit gaps of 1e3 | KL of probabilities",
        ),
        pytest.param(shapes, {"unit": raw}, id="any shape | not normalised"),
    ],
)
def test_alr_09_edges(holds: Callable[[], None], mutation: dict[str, object]) -> None:
    holds()
    fails(holds, **mutation)


def test_alr_09_search_leaves_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    half_precision()
    monkeypatch.setattr(torch, "autocast", lambda *args, **kw: contextlib.nullcontext())
    with pytest.raises(AssertionError):
        half_precision()


def test_alr_11_searched_steps_are_steeper_than_random_ones_on_a_trained_network() -> None:
    y = torch.arange(200) % CLASSES
    x = 2 * nn.functional.one_hot(y, FEATURES) + normal(200, FEATURES)
    f = perceptron()
    optimiser = torch.optim.Adam(f.parameters(), lr=0.02)
    for _ in range(100):
        optimiser.zero_grad()
        nn.functional.cross_entropy(f(x), y).backward()
        optimiser.step()

    def holds() -> None:
        for d_y in ("kl", "sqrt_2kl", "l2_logits", "l2_probs"):
            options: dict[str, Any] = {"d_y": d_y, "epsilon_min": 0.1, "epsilon_max": 2.0, "xi": 1.0}
            searched, at_random = (measured(f, x, iterations=ip, **options)[1].quotient for ip in (2, 0))
            gain = searched - at_random
            assert gain.mean() > 5 * gain.std() / math.sqrt(len(gain))

    holds()
    stranger = perceptron(seed=20)
    fails(holds, adversarial_neighbour=lambda f, x, *rest, **kw: _search(stranger, x, *rest, clean_logits=stranger(x)))
    fails(holds, adversarial_neighbour=searching(iterations=0))
