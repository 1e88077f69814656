"""Hessian norms, quotients and the mixup gap against closed forms; what each of them cannot see."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.evaluation import curvature, jacobian_norm, lipschitz_bound
from vicinal.evaluation.curvature import LowerEstimate, gradient_quotients, hessian_norm, mixup_gap, pair_quotients

Batches = list[tuple[Tensor, Tensor]]
# PyTorch scripts some decompositions when forward-mode differentiation is first used, which it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
Measure = Callable[[nn.Module, Batches, int], LowerEstimate]
Untouched = Callable[[nn.Module], AbstractContextManager[None]]

BENDS: dict[str, Measure] = {
    "hessian": lambda f, b, seed: hessian_norm(f, b, seed=seed),
    "gradients": lambda f, b, seed: gradient_quotients(f, b, neighbours=3, seed=seed),
    "near": lambda f, b, seed: gradient_quotients(f, b, radius=0.1, neighbours=3, seed=seed),
    "gap": lambda f, b, seed: mixup_gap(f, b, lambdas=[0.2, 0.5], neighbours=3, seed=seed),
}
MEASURES: dict[str, Measure] = {**BENDS, "pairs": lambda f, b, seed: pair_quotients(f, b, neighbours=3, seed=seed)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(n: int = 24, features: int = 5) -> Batches:
    x = torch.randn(n, features, generator=seeded(3), dtype=torch.float64)
    return list(zip(x.split(16), torch.zeros(n, dtype=torch.int64).split(16), strict=True))


class Quadratic(nn.Module):
    """x -> (scale x^T Q x / 2, 0) with eigenvalues of Q that are given, in a random basis."""

    def __init__(self, eigenvalues: list[float], scale: float = 1.0) -> None:
        super().__init__()
        size = len(eigenvalues)
        basis, _ = torch.linalg.qr(torch.randn(size, size, generator=seeded(1), dtype=torch.float64))
        self.top = basis[:, 0]
        self.q = scale * basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.T

    def forward(self, x: Tensor) -> Tensor:
        value = (x * (x @ self.q)).sum(dim=1) / 2
        return torch.stack([value, 0 * value], dim=1)


class Bump(nn.Module):
    """0, but for a smooth bump of radius 1/2 around a centre."""

    def __init__(self, centre: list[float]) -> None:
        super().__init__()
        self.centre = torch.tensor(centre, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        left = (1 - 4 * (x - self.centre).square().sum(dim=1)).clamp(min=0)
        return torch.stack([1000 * left**4, 0 * left], dim=1)


@pytest.mark.parametrize("name", list(BENDS))
@pytest.mark.parametrize("trainable", [True, False])
def test_affine_networks_do_not_bend(name: str, trainable: bool) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = nn.Linear(5, 3).double().requires_grad_(trainable)
    found = BENDS[name](network, points(), 0)
    assert found.largest < 1e-10
    assert found.kind == ("chords" if name in ("gradients", "gap") else "examples")
    # And the slope of pairs is at most the norm of the matrix; along its top direction that norm itself.
    sigma = torch.linalg.svd(network.weight.detach())
    assert 0.3 * float(sigma.S[0]) < pair_quotients(network, points(), neighbours=15, seed=0).largest < sigma.S[0]
    along = torch.stack([0 * sigma.Vh[0], sigma.Vh[0]])
    top = pair_quotients(network, [(along, torch.tensor([0, 0]))], seed=0)
    assert top == LowerEstimate(2, "chords", pytest.approx(float(sigma.S[0])), pytest.approx(float(sigma.S[0])))


def test_quadratics_have_the_norm_of_their_matrix() -> None:
    """The dominant eigenvalue is negative; a chord along its eigenvector sees it, other chords less."""
    network = Quadratic([-3.0, 2.0, 1.0, 0.5, -0.1])
    exact = hessian_norm(network, points(), iterations=60, seed=0)
    assert exact == LowerEstimate(24, "examples", pytest.approx(3, abs=1e-6), pytest.approx(3, abs=1e-6))
    assert hessian_norm(network, points(), iterations=1, starts=1, seed=0).mean < 2.9
    for name in ("gradients", "near", "gap"):
        assert BENDS[name](network, points(), 0).largest <= 3 * (1 + 1e-9)
    chord = [(torch.stack([0 * network.top, network.top]), torch.tensor([0, 0]))]
    for lambdas in ([0.5], [0.1, 0.9]):
        assert mixup_gap(network, chord, lambdas=lambdas, seed=0).largest == pytest.approx(3, rel=1e-9)
    assert gradient_quotients(network, chord, seed=0).largest == pytest.approx(3, rel=1e-9)


def test_the_gap_of_a_quadratic_tends_to_it_with_the_number_of_chords() -> None:
    network = Quadratic([-3.0, 1.0, 0.5])
    few, more, all_of_them = (
        mixup_gap(network, points(60, 3), neighbours=k, logit=0, seed=0).largest for k in (1, 4, 60)
    )
    assert few <= more <= all_of_them <= 3 * (1 + 1e-9)
    assert all_of_them > 2.98
    assert mixup_gap(network, points(60, 3), logit=1, seed=0).largest == 0


def test_each_pair_of_a_batch_is_a_chord_once_in_each_direction() -> None:
    x = points(16)[0][0]
    partners = torch.stack(list(curvature._partners(x, 99, seeded())))
    assert len(partners) == 15
    for row, others in enumerate(partners.T):
        assert sorted(others.tolist()) == [other for other in range(16) if other != row]
    twice = [(x[:1].expand(3, -1), torch.zeros(3, dtype=torch.int64)), points(16)[0]]
    for measure in (BENDS["gradients"], BENDS["gap"], MEASURES["pairs"]):
        assert measure(Quadratic([1.0] * 5), twice, 0).n == 48  # equal examples have no chord
        with pytest.raises(InputError, match="no chords"):
            measure(Quadratic([1.0] * 5), twice[:1], 0)


@pytest.mark.parametrize("name", list(MEASURES))
@pytest.mark.parametrize("factor", [1e-6, 7.0])
def test_scaled_networks_scale_what_is_measured(name: str, factor: float) -> None:
    plain, scaled = (MEASURES[name](Quadratic([-3.0, 2, 1, 1, 1], scale), points(), 0) for scale in (1.0, factor))
    assert scaled.largest == pytest.approx(factor * plain.largest, rel=1e-6)
    assert scaled.mean == pytest.approx(factor * plain.mean, rel=1e-6)
    assert (scaled.n, scaled.kind) == (plain.n, plain.kind)


def smooth_networks() -> list[tuple[nn.Module, tuple[int, ...]]]:
    """With convolutions, pooling, batch norm away from its start, and a shortcut; float64, random, in eval mode."""
    made: list[tuple[nn.Module, tuple[int, ...]]] = []
    with torch.random.fork_rng(devices=[]):
        for seed, activation in enumerate([nn.Softplus(), nn.Tanh(), nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.ELU()]):
            torch.default_generator.manual_seed(seed)
            layers = [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), activation, nn.AvgPool2d(2), Shortcut(4)]
            network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(36, 3))
            for p in network.parameters():
                p.data *= 2
            network(torch.rand(32, 2, 6, 6))
            made.append((network.double().eval(), (2, 6, 6)))
    return made


class Shortcut(nn.Module):
    """x -> x + a branch of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.Softplus())

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.branch(x)
        return found


def test_no_lower_estimate_is_above_its_bound_on_convolutional_networks() -> None:
    """The control leaves out what comes before the first activation, and is no bound."""
    broken = {"slopes": 0, "bends": 0}
    for network, shape in smooth_networks():
        x = torch.rand(16, *shape, generator=seeded(), dtype=torch.float64)
        batch = [(x, torch.arange(16) % 3)]
        bound, rest = lipschitz_bound(network, shape), lipschitz_bound(network[2:], (4, 6, 6))
        slopes = [jacobian_norm(network, batch, seed=0).largest, MEASURES["pairs"](network, batch, 0).largest]
        bends = [measure(network, batch, 0).largest for measure in BENDS.values()]
        assert 0 < min(slopes) <= max(slopes) <= bound.lipschitz < math.inf
        assert 0 < min(bends) <= max(bends) <= bound.gradient < math.inf
        broken["slopes"] += max(slopes) > rest.lipschitz
        broken["bends"] += max(bends) > rest.gradient
    assert min(broken.values()) > 0


@pytest.mark.parametrize("factor", [0.01, 5.0])
def test_scaled_inputs_scale_slopes_once_and_bends_twice(factor: float) -> None:
    """x -> f(c x) at points / c, chords and radii / c: the same values, in another unit."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = nn.Sequential(nn.Linear(5, 7), nn.Softplus(), nn.Linear(7, 2)).double()
    unit = nn.Linear(5, 5, bias=False).double()
    unit.weight.data = factor * torch.eye(5, dtype=torch.float64)
    scaled, near = nn.Sequential(unit, *network), [(x / factor, y) for x, y in points()]
    for name in MEASURES:
        plain, found = MEASURES[name](network, points(), 0), MEASURES[name](scaled, near, 0)
        if name == "near":
            found = gradient_quotients(scaled, near, radius=0.1 / factor, neighbours=3, seed=0)
        times = factor if name == "pairs" else factor**2
        assert found.largest == pytest.approx(times * plain.largest, rel=1e-6)
    plain_bound, bound = lipschitz_bound(network, (5,)), lipschitz_bound(scaled, (5,))
    assert bound.lipschitz == pytest.approx(factor * plain_bound.lipschitz, rel=1e-6)
    assert bound.gradient == pytest.approx(factor**2 * plain_bound.gradient, rel=1e-6)


def test_a_bump_off_the_chords_is_not_seen_from_them() -> None:
    """Small gaps do not mean small curvature: the chords of a triangle's corners miss its middle."""
    corners = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    batch = [(corners, torch.zeros(3, dtype=torch.int64))]
    lambdas = [k / 20 for k in range(1, 20)]
    hidden, seen = Bump([1.2, 1.2]), Bump([2.0, 0.2])
    assert mixup_gap(hidden, batch, lambdas=lambdas, neighbours=2, seed=0) == LowerEstimate(6, "chords", 0.0, 0.0)
    assert mixup_gap(seen, batch, lambdas=lambdas, neighbours=2, seed=0).largest > 100
    for network in (hidden, seen):
        middle = [(network.centre[None], torch.tensor([0]))]
        assert hessian_norm(network, middle, seed=0).largest == pytest.approx(32000)


def test_kinks_have_no_hessian_but_a_gap_and_quotients_that_grow_as_the_radius_shrinks() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)).double()
    for p in network.parameters():
        nn.init.constant_(p, 1.0)
    x = torch.tensor([[-1.0001], [2.0], [-3.0]], dtype=torch.float64)  # the first lies at the kink
    batch = [(x, torch.zeros(3, dtype=torch.int64))]
    assert hessian_norm(network, batch, seed=0).largest == 0
    assert mixup_gap(network, batch, neighbours=2, seed=0).largest > 0.3
    steep = [gradient_quotients(network, batch, radius=r, neighbours=8, seed=0).largest for r in (0.1, 0.01, 0.001)]
    assert steep == [pytest.approx(10), pytest.approx(100), pytest.approx(1000)]


@pytest.mark.parametrize("name", list(MEASURES))
def test_nothing_is_left_behind_and_the_seed_decides(
    name: str, trained: nn.Module, digits: Any, untouched: Untouched
) -> None:
    batches = [(x[:20], y[:20]) for x, y in digits[:2]]
    with untouched(trained), torch.no_grad():
        first = MEASURES[name](trained, batches, 0)
    torch.rand(1)
    assert MEASURES[name](trained, batches, 0) == first
    assert all(type(value) in (int, float, str) for value in vars(first).values())
    if name != "hessian":  # which is 0 here, beside the kinks
        assert MEASURES[name](trained, batches, 1) != first
    with pytest.raises(InputError, match="there are no"):
        MEASURES[name](trained, [], 0)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda f, b: hessian_norm(f, b, iterations=0, seed=0), "iterations must be at least 1"),
        (lambda f, b: hessian_norm(f, b, starts=0, seed=0), "starts must be at least 1"),
        (lambda f, b: hessian_norm(f, b, logit=2, seed=0), "logit must be one of 0 to 1"),
        (lambda f, b: gradient_quotients(f, b, radius=0, seed=0), "radius must be greater than 0"),
        (lambda f, b: gradient_quotients(f, b, neighbours=0, seed=0), "neighbours must be at least 1"),
        (lambda f, b: pair_quotients(f, b, neighbours=0, seed=0), "neighbours must be at least 1"),
        (lambda f, b: mixup_gap(f, b, neighbours=0, seed=0), "neighbours must be at least 1"),
        (lambda f, b: mixup_gap(f, b, lambdas=[], seed=0), "lambdas must lie between"),
        (lambda f, b: mixup_gap(f, b, lambdas=[0.5, 1], seed=0), "lambdas must lie between"),
        (lambda f, b: mixup_gap(f, b, logit=-1, seed=0), "logit must be one of 0 to 1"),
    ],
)
def test_bad_settings_are_one_clear_line(measure: Callable[[nn.Module, Batches], Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        measure(Quadratic([1.0] * 5), points())
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
