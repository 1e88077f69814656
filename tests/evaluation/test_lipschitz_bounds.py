"""Upper bounds of Lipschitz constants: closed forms, and that no lower estimate is above them."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from support.networks import drawn, seeded, used
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.evaluation import jacobian_norm, lipschitz_quotients
from vicinal.evaluation.curvature import gradient_quotients, hessian_norm, mixup_gap, pair_quotients
from vicinal.evaluation.lipschitz_bounds import LipschitzBound, lipschitz_bound
from vicinal.networks import (
    Classifier,
    Identity,
    Normalise,
    PerImage,
    mlp,
    preact_resnet18,
    small_cnn,
    wide_resnet,
)

Batches = list[tuple[Tensor, Tensor]]
Untouched = Callable[[nn.Module], AbstractContextManager[None]]
# PyTorch scripts some decompositions when forward-mode differentiation is first used, which it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


ACTIVATIONS: list[tuple[nn.Module, float, float]] = [
    (nn.Softplus(), 1, 0.25),
    (nn.Softplus(beta=3), 1, 0.75),
    (nn.Tanh(), 1, 0.7698),
    (nn.GELU(), 1.1289, 0.7979),
    (nn.GELU(approximate="tanh"), 1.1290, 0.7979),
    (nn.SiLU(), 1.0998, 0.5),
    (nn.Sigmoid(), 0.25, 0.0962),
    (nn.ELU(), 1, 1),
    (nn.ReLU(), 1, math.inf),
    (nn.ReLU6(), 1, math.inf),
    (nn.LeakyReLU(0.1), 1, math.inf),
    (nn.LeakyReLU(-3), 3, math.inf),
    (nn.ELU(2.0), 2, math.inf),
]


@pytest.mark.parametrize(("activation", "slope", "bend"), ACTIVATIONS)
def test_activations_have_their_constants(activation: nn.Module, slope: float, bend: float) -> None:
    """To the printed digits, never below what a grid finds, and not far above it."""
    bound = lipschitz_bound(activation, (1,))
    assert bound.lipschitz == pytest.approx(slope, abs=6e-5)
    assert bound.gradient == pytest.approx(bend, abs=6e-5)
    grid = torch.linspace(-8, 8, 320_002, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(activation(grid).sum(), grid, create_graph=True)
    assert 0.999 * bound.lipschitz <= float(first.detach().abs().max()) <= bound.lipschitz * (1 + 1e-12)
    if bend < math.inf:
        (second,) = torch.autograd.grad(first.sum(), grid)
        assert 0.999 * bound.gradient <= float(second.abs().max()) <= bound.gradient * (1 + 1e-12)


def test_two_layers_have_the_closed_form() -> None:
    """max|phi''| max_k |v_k| ||W||_2^2 for one output; scaling the output scales all."""
    with drawn():
        network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)).double()
    first, last = network[0].weight.detach(), network[2].weight.detach()
    sigma = float(torch.linalg.matrix_norm(first, 2))
    bound = lipschitz_bound(network, (5,))
    assert bound.lipschitz == pytest.approx(sigma * float(last.norm()), rel=1e-6)
    assert bound.gradient == pytest.approx(4 / 27**0.5 * float(last.abs().max()) * sigma**2, rel=1e-6)
    network[2].weight.data *= -7
    scaled = lipschitz_bound(network, (5,))
    assert scaled.lipschitz == pytest.approx(7 * bound.lipschitz, rel=1e-6)
    assert scaled.gradient == pytest.approx(7 * bound.gradient, rel=1e-6)
    network[2].weight.data *= 0
    assert lipschitz_bound(nn.Sequential(network[0], nn.ReLU(), network[2]), (5,)).gradient == 0


class Residual(nn.Module):
    """x -> shortcut(x) + branch(x)."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.shortcut(x) + self.branch(x)
        return torch.flatten(found, 1)


def test_residual_branches_add_to_their_shortcut() -> None:
    with drawn():
        one, two, three = (nn.Linear(4, 4).double() for _ in range(3))
    a, b, c = (lipschitz_bound(layer, (4,)).lipschitz for layer in (one, two, three))
    plain = Residual(nn.Sequential(one, nn.ReLU(), two), nn.Identity())
    assert lipschitz_bound(plain, (4,)).lipschitz == pytest.approx(1 + a * b)
    changed = Residual(nn.Sequential(one, nn.Softplus(), two), three)
    bound = lipschitz_bound(nn.Sequential(changed, nn.Softplus(), nn.Linear(4, 3).double()), (4,))
    assert bound.lipschitz < math.inf
    assert bound.gradient < math.inf
    assert lipschitz_bound(changed, (4,)).lipschitz == pytest.approx(c + a * b)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.MaxPool2d(2), 1),
        (nn.MaxPool2d(3, stride=2, padding=1), 2),
        (nn.MaxPool2d(3, stride=1), 3),
        (nn.MaxPool2d((1, 3), stride=(1, 2)), 2**0.5),
        (nn.MaxPool2d(2, stride=1, dilation=2), 2),
    ],
)
def test_max_pooling_counts_how_often_an_input_is_looked_at(layer: nn.Module, expected: float) -> None:
    """And an input that is the largest of all its windows attains that."""
    bound = lipschitz_bound(layer, (1, 9, 9))
    assert bound.lipschitz == pytest.approx(expected)
    assert bound.gradient == math.inf
    attained = []
    for place in range(81):
        x = torch.zeros(1, 81, dtype=torch.float64)
        x[0, place] = 1
        attained.append(float(layer(x.view(1, 1, 9, 9)).norm()))
    assert max(attained) == pytest.approx(expected)


def softplus_net(seed: int) -> tuple[nn.Sequential, Batches]:
    """A random one of 1 to 3 hidden layers, 4 inputs and 3 logits, all hidden layers of one width."""
    draws = seeded(seed)
    depth, width = int(torch.randint(1, 4, (), generator=draws)), int(torch.randint(4, 9, (), generator=draws))
    layers: list[nn.Module] = []
    for inside, outside in zip([4] + [width] * depth, [width] * depth + [3], strict=True):
        layer = nn.utils.skip_init(nn.Linear, inside, outside).double()
        scale = 0.5 + 2 * float(torch.rand((), generator=draws))
        layer.weight.data = scale * torch.randn(outside, inside, generator=draws, dtype=torch.float64) / inside**0.5
        layer.bias.data = torch.randn(outside, generator=draws, dtype=torch.float64)
        layers += [layer, nn.Softplus()]
    x = torch.randn(12, 4, generator=draws, dtype=torch.float64)
    return nn.Sequential(*layers[:-1]), [(x, torch.arange(12) % 3)]


def test_no_lower_estimate_is_above_its_bound_on_300_random_networks() -> None:
    """The control leaves the first layer's norm out, and is no bound."""
    ratios: dict[str, list[float]] = {}
    broken = {"lipschitz": 0, "gradient": 0}
    for seed in range(300):
        network, batches = softplus_net(seed)
        logit = seed % 3
        bound, one = lipschitz_bound(network, (4,)), lipschitz_bound(network, (4,), logit=logit)
        width = network[0].out_features
        without = lipschitz_bound(network[1:], (width,))
        slopes = {
            "jacobian": jacobian_norm(network, batches, iterations=4, starts=1, seed=seed),
            "quotient": lipschitz_quotients(network, batches, epsilon=0.1, iterations=2, seed=seed),
            "pairs": pair_quotients(network, batches, neighbours=11, seed=seed),
        }
        bends = {
            "hessian": hessian_norm(network, batches, logit=logit, iterations=6, starts=1, seed=seed),
            "gradients": gradient_quotients(network, batches, logit=logit, neighbours=4, seed=seed),
            "near": gradient_quotients(network, batches, radius=0.1, logit=logit, seed=seed),
            "gap": mixup_gap(network, batches, lambdas=[0.3, 0.5], logit=logit, neighbours=11, seed=seed),
        }
        whole = mixup_gap(network, batches, neighbours=11, seed=seed)
        for name, found in slopes.items():
            ratios.setdefault(name, []).append(found.largest / bound.lipschitz)
        for name, found in bends.items():
            ratios.setdefault(name, []).append(found.largest / one.gradient)
        ratios.setdefault("gap of all", []).append(whole.largest / bound.gradient)
        assert one.lipschitz <= bound.lipschitz * (1 + 1e-6)
        assert one.gradient <= bound.gradient * (1 + 1e-6)
        broken["lipschitz"] += max(found.largest for found in slopes.values()) > without.lipschitz
        broken["gradient"] += whole.largest > without.gradient
    assert len(ratios) == 8
    for name, values in ratios.items():
        assert max(values) <= 1, name
        assert sum(values) / 300 > 0.03, name  # no vacuous bounds either
    assert broken["lipschitz"] > 30
    assert broken["gradient"] > 3


NETWORKS: list[Callable[[], Classifier]] = [
    lambda: mlp((1, 8, 8), 10, hidden=[16, 16], norm="batch", dropout=0.2, input_noise=0.1),
    lambda: mlp((1, 8, 8), 10, hidden=[16], activation="gelu", norm="layer"),
    lambda: small_cnn((1, 8, 8), 10, widths=[4, 8]),
    lambda: small_cnn((1, 8, 8), 10, widths=[4, 8], norm="weight+mean_only"),
    lambda: wide_resnet((1, 8, 8), 10, depth=10, width=1),
    lambda: wide_resnet((1, 8, 8), 10, depth=10, width=1, faithful_port=True),
    lambda: preact_resnet18((1, 8, 8), 10, width=2, stem="conv-bn-relu"),
]


@pytest.mark.parametrize("make", NETWORKS)
def test_networks_of_this_package_have_bounds(make: Callable[[], Classifier], untouched: Untouched) -> None:
    with drawn():
        network = used(make(), (1, 8, 8)).train()
    x = torch.rand(6, 1, 8, 8, generator=seeded(), dtype=torch.float64)
    with untouched(network):
        bound = lipschitz_bound(network, (1, 8, 8), tolerance=0.2)
        assert lipschitz_bound(network, (1, 8, 8), tolerance=0.2) == bound
    assert jacobian_norm(network, [(x, x)], iterations=2, starts=1, seed=0).largest <= bound.lipschitz < math.inf
    network.preprocess = Normalise([0.0], [0.01])
    assert lipschitz_bound(network, (1, 8, 8), tolerance=0.2).lipschitz > 5 * bound.lipschitz


class Choosy(nn.Module):
    """Its steps depend on values."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Doubled(nn.Linear):
    """A linear layer only by name."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) ** 2


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return x + x


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_steps_that_are_no_modules() -> None:
    with drawn():
        network = Functional().double()
    bound = lipschitz_bound(network, (6,))
    assert bound.lipschitz == pytest.approx(2 * lipschitz_bound(network.first, (6,)).lipschitz)
    assert bound.gradient == math.inf


@pytest.mark.parametrize(
    ("network", "settings", "message"),
    [
        (nn.Sequential(nn.Linear(6, 4), nn.Softmax(dim=1)), {}, "layer Softmax"),
        (nn.Sequential(nn.Linear(6, 4), Choosy()), {}, "module Choosy"),
        (nn.Sequential(Doubled(6, 4)), {}, "of Doubled"),
        (nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False)), {}, "BatchNorm1d without running statistics"),
        (Classifier(PerImage(), nn.Linear(6, 4), Identity(), feature_dim=4, classes=4), {}, "of PerImage"),
        (Pair(), {}, "step 'output'"),
        (nn.Linear(5, 4), {}, "Linear does not map what it gets, (1, 6)"),
        (nn.Linear(6, 4), {"logit": 4}, "no logit 4"),
        (nn.Linear(6, 4), {"tolerance": 0}, "tolerance must be greater than 0"),
    ],
)
def test_what_has_no_bound_is_one_clear_line(network: nn.Module, settings: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        lipschitz_bound(network, (6,), **settings)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bounds_are_plain_records() -> None:
    """Also of networks that do nothing, and of those that diverged."""
    bound = lipschitz_bound(nn.Identity(), (3,))
    assert bound == LipschitzBound(0, "everywhere", pytest.approx(1), 0.0, 0.01, 1e-9)
    network = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2))
    nn.init.constant_(network[0].weight, math.nan)
    assert lipschitz_bound(network, (3,)).lipschitz == math.inf
