"""Interpolation paths: expectations over all pairs in closed form, and what the study says of its ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.evaluation import figures, paths
from vicinal.evaluation.attacks import FGM, PGD, perturb
from vicinal.evaluation.paths import LAMBDAS, InterpolationPaths, interpolation_paths
from vicinal.networks import mlp
from vicinal.vicinity.projected import projected_ascent

RR, RA = "real-real", "real-adversarial"
N, COPIES, SEEDS = 24, 10, 40


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network() -> nn.Module:
    """Four classes in the plane."""
    made = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    for parameter in made.parameters():
        parameter.data = 1.5 * torch.randn(parameter.shape, generator=seeded(parameter.numel()), dtype=torch.float64)
    return made


def examples() -> tuple[Tensor, Tensor]:
    """Points and labels, about a third of which the network gets wrong."""
    x = 2 * torch.randn(N, 2, generator=seeded(1), dtype=torch.float64)
    y = network()(x).argmax(dim=1)
    y[::3] = torch.randint(4, (len(y[::3]),), generator=seeded(2))
    return x, y


def moved(net: nn.Module, x: Tensor, y: Tensor, _draws: torch.Generator) -> Tensor:
    """A long gradient step."""

    def loss(at: Tensor) -> Tensor:
        return F.cross_entropy(net(at), y, reduction="none")

    return projected_ascent(loss, x, norm="l2", epsilon=1.5, step_size=1.5, steps=1)


def over_all_pairs(lam: float, kind: str) -> float:
    """The expectation over a random partner: the mean over all pairs (i, j)."""
    net, (x, y) = network(), examples()
    end = x if kind == RR else moved(net, x, y, seeded())
    with torch.no_grad():
        predicted = net((lam * x.unsqueeze(1) + (1 - lam) * end.unsqueeze(0)).flatten(0, 1)).argmax(dim=1).view(N, N)
    return float(((predicted != y.unsqueeze(1)) & (predicted != y.unsqueeze(0))).double().mean())


def averaged(lambdas: list[float]) -> dict[str, Tensor]:
    """Errors averaged over many partners: each example several times in the batch, and many seeds."""
    x, y = (item.repeat(COPIES, *[1] * (item.dim() - 1)) for item in examples())
    found = [interpolation_paths(network(), [(x, y)], moved, lambdas, seed=seed).errors for seed in range(SEEDS)]
    return {kind: torch.tensor([errors[kind] for errors in found]).double().mean(dim=0) for kind in (RR, RA)}


WEIGHTS = [0.0, 0.25, 0.5, 0.75, 1.0]


def check_expectations() -> None:
    found = averaged(WEIGHTS)
    for kind in (RR, RA):
        expected = torch.tensor([over_all_pairs(lam, kind) for lam in WEIGHTS]).double()
        torch.testing.assert_close(found[kind], expected, atol=0.012, rtol=0)


def test_errors_are_those_over_all_pairs() -> None:
    check_expectations()


def test_the_facts_of_the_study() -> None:
    """Over all pairs, which the errors are: symmetric or not, and what stands at the ends."""
    x, y = examples()
    for lam in (0.0, 0.2, 0.4):
        assert over_all_pairs(lam, RR) == over_all_pairs(1 - lam, RR)
        assert abs(over_all_pairs(lam, RA) - over_all_pairs(1 - lam, RA)) > 0.03
    assert over_all_pairs(1, RR) == over_all_pairs(1, RA)
    assert over_all_pairs(0, RA) > over_all_pairs(0, RR) + 0.05
    guess = network()(x).argmax(dim=1)
    wrong = (guess != y).double()
    partner_has_it = (guess.unsqueeze(1) == y).double().mean(dim=1)
    assert over_all_pairs(1, RR) == pytest.approx(float((wrong * (1 - partner_has_it)).mean()), abs=1e-12)
    plain = figures(network(), [(x, y)]).error
    assert over_all_pairs(1, RR) < plain - 0.02


def own_label_only(patch: pytest.MonkeyPatch) -> None:
    def wrong(net: nn.Module, x: Tensor, end: Tensor, y: Tensor, lam: float, draws: torch.Generator) -> Tensor:
        partner = torch.randperm(len(y), generator=draws)
        return (net(lam * x + (1 - lam) * end[partner]).argmax(dim=1) != y).sum()

    patch.setattr(paths, "_wrong", wrong)


def swapped_weights(patch: pytest.MonkeyPatch) -> None:
    mix = paths.mix
    patch.setattr(paths, "mix", lambda first, second, lam: mix(second, first, lam))


def no_partner(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "randperm", lambda count, generator: torch.arange(count))


@pytest.mark.parametrize("mutate", [own_label_only, swapped_weights, no_partner])
def test_another_study_is_told_apart(mutate: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check_expectations()


class Recorder(nn.Module):
    """Remembers what it was shown."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(x.detach())
        found: Tensor = self.network(x)
        return found


def test_each_lambda_has_a_fresh_permutation_and_each_kind_the_same() -> None:
    net, (x, y) = Recorder(network()), examples()
    interpolation_paths(net, [(x, y)], lambda net, x, y, draws: 10 + x, [0.0, 0.0, 0.0, 1.0], seed=0)
    real, adversarial = net.shown[:3], net.shown[4:7]
    for a, b in zip(real, adversarial, strict=True):
        assert torch.equal(a.sort(dim=0).values, x.sort(dim=0).values)
        torch.testing.assert_close(10 + a, b)
    assert not any(torch.equal(a, b) for a, b in [(real[0], real[1]), (real[1], real[2]), (real[0], real[2])])
    assert torch.equal(net.shown[3], x)
    assert torch.equal(net.shown[7], x)


def test_the_same_seed_repeats_and_batches_differ(trained: nn.Module, digits: Any, untouched: Any) -> None:
    def noisy(net: nn.Module, x: Tensor, y: Tensor, draws: torch.Generator) -> Tensor:
        assert not any(module.training for module in net.modules())
        return (x + 0.5 * torch.randn(x.shape, generator=draws)).clamp(0, 1)

    with untouched(trained):
        first = interpolation_paths(trained, digits, noisy, seed=0)
        again = interpolation_paths(trained, digits, noisy, seed=0)
    assert first == again != interpolation_paths(trained, digits, noisy, seed=1)
    assert (first.n, first.space, first.lambdas) == (300, "pixels", LAMBDAS)
    assert {kind: len(errors) for kind, errors in first.errors.items()} == {RR: 21, RA: 21}
    assert all(type(value) is float for errors in first.errors.values() for value in errors)
    assert first.errors[RR][-1] == first.errors[RA][-1]
    assert first.errors[RA][0] > first.errors[RR][0]
    alone = interpolation_paths(trained, digits, seed=0)
    assert alone.errors == {RR: first.errors[RR]}
    net, batch = Recorder(trained), digits[0]
    interpolation_paths(net, [batch, batch], lambdas=[0.0], seed=0)
    assert not torch.equal(*net.shown)


def test_gradients_reach_an_attack_and_leave_no_trace(trained: nn.Module, digits: Any, untouched: Any) -> None:
    with untouched(trained), torch.no_grad():
        found = interpolation_paths(trained, digits[:1], moved, [0.0, 0.5], seed=0)
    assert found.errors[RA][0] > found.errors[RR][0] + 0.05


def test_spaces() -> None:
    """In input space points are preprocessed first: the same paths for an affine layer, but another unit."""
    made = mlp((4,), 3, hidden=[8])
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(parameter.numel())))
    made.preprocess = _Stretched()
    x, y = torch.rand(60, 4, generator=seeded()), torch.randint(3, (60,), generator=seeded(1))
    seen: list[Tensor] = []

    def shifted(net: nn.Module, x: Tensor, y: Tensor, draws: torch.Generator) -> Tensor:
        seen.append(x)
        torch.testing.assert_close(net(x), made(x if len(seen) == 1 else x / 4))
        return x + 1

    pixels = interpolation_paths(made, [(x, y)], shifted, [0.0, 0.3], seed=0)
    inside = interpolation_paths(made, [(x, y)], shifted, [0.0, 0.3], seed=0, space="input")
    assert (pixels.space, inside.space) == ("pixels", "input")
    assert torch.equal(seen[0], x)
    assert torch.equal(seen[1], 4 * x)
    assert pixels.errors[RR] == inside.errors[RR]
    assert pixels.errors[RA] != inside.errors[RA]


@pytest.mark.parametrize("space", ["pixels", "input"])
def test_gradient_attacks_perturb_everybody(trained: nn.Module, digits: Any, untouched: Any, space: Any) -> None:
    """At lambda 0 the partner stands alone: with one label for all, its error is the attack's."""
    x, y = digits[0][0], torch.full((len(digits[0][1]),), 3)  # most of them wrong as they are
    attack = FGM(epsilon=1.0)
    with untouched(trained):
        found = interpolation_paths(trained, [(x, y)], attack, [0.0, 1.0], seed=0, space=space)
    lost = perturb(trained, x, y, attack, seed=0, space=space, count="last").wrong
    assert found.errors[RA] == (float(lost.double().mean()), found.errors[RR][1])


def test_gradient_attacks_that_count_visited_points_perturb_everybody_too(trained: nn.Module, digits: Any) -> None:
    x, y = digits[0][0], torch.full((len(digits[0][1]),), 3)
    attack, shown = PGD(norm="l2", epsilon=1.0, steps=3), Recorder(trained)
    interpolation_paths(shown, [(x, y)], attack, [0.0], seed=0)
    partners = {tuple(row) for row in x.flatten(1).tolist()}
    assert not any(tuple(row) in partners for row in shown.shown[-1].flatten(1).tolist())
    by_itself = perturb(trained, x, y, attack, seed=0).x
    assert bool((by_itself == x).flatten(1).all(dim=1).any())


class _Stretched(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 4 * x


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batches": []}, "no examples to measure"),
        ({"lambdas": []}, "there are none"),
        ({"lambdas": [0.5, 1.5]}, "lambdas must be at most 1"),
        ({"lambdas": [-0.1]}, "lambdas must be at least 0"),
        ({"space": "zca"}, "unknown 'zca'; known: input, pixels"),
        ({"space": "input"}, "needs a network with a preprocessing layer, not Sequential"),
        ({"attack": lambda net, x, y, draws: x[:1]}, "keep their shape"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        interpolation_paths(network(), **{"batches": [examples()], "seed": 0, **settings})
    assert "\n" not in str(raised.value)


def test_the_result_is_plain() -> None:
    found = interpolation_paths(network(), [examples()], lambdas=[1], seed=0)
    assert found == InterpolationPaths(N, "pixels", (1.0,), {RR: found.errors[RR]})
