"""Smoothness of a subject: the same figures as the functions', what cannot be had and why, and flags that can fail."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.data import Examples
from vicinal.errors import InputError
from vicinal.evaluation import (
    gradient_quotients,
    hessian_norm,
    jacobian_norm,
    lipschitz_bound,
    lipschitz_quotients,
    local_linearity,
    mixup_gap,
    pair_quotients,
)
from vicinal.networks import Classifier, Identity
from vicinal.studies import Subject, smoothness
from vicinal.studies.smoothness import Smoothness

# PyTorch scripts some decompositions when forward-mode differentiation is first used, which it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

SLOPES = ("Lipschitz quotient, adversarial", "Lipschitz quotient, pairs", "Jacobian norm")
BENDS = ("Hessian norm", "gradient quotient, pairs", "mixup gap")
NAMES = ("local linearity error", "slope term", *SLOPES, "Lipschitz bound", *BENDS, "gradient's Lipschitz bound")
QUICK = Smoothness(n=30, steps=3, starts=1, iterations=5, power_starts=1, neighbours=3)


def with_network(subject: Subject, *layers: nn.Module) -> Subject:
    """The subject with a small random network that ends in its classes."""
    classes = len(subject.dataset.classes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        width = math.prod(subject.dataset.shape)
        ends = (nn.Linear(width, 8), nn.Linear(8, classes))
        for layer in ends:
            nn.init.normal_(layer.weight)
    body = nn.Sequential(nn.Flatten(), ends[0], *layers)
    network = Classifier(Identity(), body, ends[1], feature_dim=8, classes=classes)
    return dataclasses.replace(subject, network=network.eval())


def rows_of(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in found["rows"]}


@pytest.mark.parametrize(("name", "radius"), [("images", 8 / 255), ("vectors", None)])
def test_rows_are_what_the_functions_give(name: str, radius: float | None, request: Any) -> None:
    subject = with_network(request.getfixturevalue(name), nn.Softplus())
    found = Smoothness()(subject, 5)
    radius = radius or 0.05 * subject.scale
    length = radius * math.sqrt(math.prod(subject.dataset.shape))
    f, b, exact = subject.network, subject.batches(), [(x.double(), y) for x, y in subject.batches()]
    bound = lipschitz_bound(f, subject.dataset.shape, seed=5)
    (linear,) = local_linearity(f, b, epsilons=[radius], seed=5)
    slopes = {
        "Lipschitz quotient, adversarial": lipschitz_quotients(f, b, epsilon=length, seed=5),
        "Lipschitz quotient, pairs": pair_quotients(f, b, neighbours=10, seed=5),
        "Jacobian norm": jacobian_norm(f, b, seed=5),
    }
    f = f.double()
    bends = {
        "Hessian norm": hessian_norm(f, exact, seed=5),
        "gradient quotient, pairs": gradient_quotients(f, exact, neighbours=10, seed=5),
        "mixup gap": mixup_gap(f, exact, lambdas=(0.25, 0.5, 0.75), neighbours=10, seed=5),
    }
    rows = rows_of(found)
    assert tuple(rows) == NAMES
    assert (rows["local linearity error"]["value"], rows["slope term"]["value"]) == (linear.gamma, linear.slope)
    for name, lower in (slopes | bends).items():
        assert (rows[name]["value"], rows[name]["largest"], rows[name]["n"]) == (lower.mean, lower.largest, lower.n)
    assert rows["Lipschitz bound"]["value"] == bound.lipschitz
    assert rows["gradient's Lipschitz bound"]["value"] == bound.gradient
    assert [row["epsilon"] for row in rows.values()] == [radius, radius, length, *[None] * 7]
    assert all(row["value"] > 0 and row["why_not"] is None for row in rows.values())


def test_rows_say_what_they_are_and_where_they_hold(images: Subject) -> None:
    found = QUICK(with_network(images, nn.Softplus()), 0)
    rows = rows_of(found)
    assert {tuple(row) for row in rows.values()} == {
        ("name", "symbol", "value", "largest", "kind", "over", "n", "why_not", "epsilon")
    }
    chords, balls = "90 chords between 30 test examples", "30 test examples, Linf balls of radius 0.031"
    steps = "30 test examples, L2 steps of length 0.19"
    assert [row["over"] for row in rows.values()] == [
        *(balls, balls, steps, chords, "30 test examples", "all inputs"),
        *("30 test examples", chords, chords, "all inputs"),
    ]
    assert [row["kind"] for row in rows.values()] == [
        *("mean of a search (lower)", "mean", *["lower estimate"] * 3, "upper bound"),
        *(*["lower estimate"] * 3, "upper bound"),
    ]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    without = dataclasses.replace(images, dataset=dataclasses.replace(images.dataset, test=None))
    assert rows_of(QUICK(without, 0))["Jacobian norm"]["over"] == "30 validation examples"


@pytest.mark.parametrize("name", ["images", "vectors"])
@pytest.mark.parametrize("layer", [nn.Softplus(), nn.Tanh(), nn.GELU(), nn.Sequential()])
def test_estimates_are_at_most_their_bounds(name: str, layer: nn.Module, request: Any) -> None:
    """Affine networks too, where the bound of the gradient is 0 and float32 would find some gap."""
    flags = QUICK(with_network(request.getfixturevalue(name), layer), 0)["flags"]
    assert [flag["name"] for flag in flags] == [*SLOPES, *BENDS]
    assert [flag["claim"] for flag in flags] == [
        *["at most the Lipschitz bound"] * 3,
        *["at most the gradient's Lipschitz bound"] * 3,
    ]
    assert [flag["name"] for flag in flags if not flag["holds"]] == []


def no_bound(patch: pytest.MonkeyPatch) -> None:
    def half(network: nn.Module, *args: Any, **settings: Any) -> Any:
        found = lipschitz_bound(network, *args, **settings)
        return dataclasses.replace(found, lipschitz=found.lipschitz / 20, gradient=found.gradient / 200)

    patch.setattr(smoothness, "lipschitz_bound", half)


def single(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(nn.Module, "double", nn.Module.float)
    patch.setattr(Tensor, "double", lambda x: x)


@pytest.mark.parametrize(("mutate", "layer"), [(no_bound, nn.Tanh()), (single, nn.Sequential())])
def test_flags_can_fail(
    mutate: Callable[[pytest.MonkeyPatch], None], layer: nn.Module, images: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the bound is none; where second differences are those of float32."""
    subject = with_network(images, layer)
    bound = lipschitz_bound(subject.network, (1, 6, 6))
    mutate(monkeypatch)
    if mutate is single:
        monkeypatch.setattr(smoothness, "lipschitz_bound", lambda *args, **settings: bound)
    flags = QUICK(subject, 0)["flags"]
    failed = [flag["name"] for flag in flags if not flag["holds"]]
    assert failed == (["mixup gap"] if mutate is single else [*SLOPES, *BENDS])


def test_affine_networks_do_not_bend(vectors: Subject) -> None:
    rows = rows_of(QUICK(with_network(vectors), 0))
    assert rows["Hessian norm"]["value"] == rows["gradient's Lipschitz bound"]["value"] == 0
    assert rows["Hessian norm"]["n"] == 30
    assert max(rows[name]["largest"] for name in BENDS) < 1e-9
    assert rows["Jacobian norm"]["largest"] == pytest.approx(rows["Lipschitz bound"]["value"], rel=0.01)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.ReLU(), "ReLU"),
        (nn.LeakyReLU(0.1), "LeakyReLU"),
        (nn.Sequential(nn.LayerNorm(8), nn.ReLU()), "LayerNorm, ReLU"),
    ],
)
def test_kinks_have_no_bound_on_curvature_and_no_hessian(layer: nn.Module, named: str, images: Subject) -> None:
    found = QUICK(with_network(images, layer), 0)
    rows = rows_of(found)
    last = rows["gradient's Lipschitz bound"]
    assert (last["value"], last["n"]) == (None, 0)
    assert last["why_not"] == f"infinite: no bound on the second derivative of {named}"
    hessian = rows["Hessian norm"]
    if "LayerNorm" in named:
        assert hessian["largest"] > 0
    else:
        assert (hessian["value"], hessian["largest"], hessian["n"]) == (None, None, 0)
        assert hessian["why_not"] == "zero beside the kinks of a piecewise linear network, and undefined at them"
    assert rows["mixup gap"]["largest"] > 0
    assert [flag["name"] for flag in found["flags"]] == list(SLOPES)


class Doubling(torch.autograd.Function):
    """Without a forward mode."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = Doubling.apply(x)
        return found


def test_unknown_layers_cost_the_rows_that_need_them(images: Subject) -> None:
    found = QUICK(with_network(images, Unknown(), nn.Tanh()), 0)
    rows = rows_of(found)
    reasons = {name: row["why_not"] for name, row in rows.items() if row["value"] is None}
    assert list(reasons) == ["Jacobian norm", "Lipschitz bound", "gradient's Lipschitz bound"]
    assert reasons["Jacobian norm"] == "a layer of the network does not know forward-mode differentiation"
    assert "none is known for the" in reasons["Lipschitz bound"] == reasons["gradient's Lipschitz bound"]
    assert found["flags"] == []


def test_a_network_that_diverged_has_no_figures(images: Subject) -> None:
    subject = with_network(images, nn.Tanh())
    nn.init.constant_(subject.network.head.weight, math.nan)
    found = QUICK(subject, 0)
    assert all(row["value"] is None and row["largest"] is None and row["why_not"] for row in found["rows"])
    assert rows_of(found)["Lipschitz bound"]["why_not"] == "infinite: the network's weights are not finite"
    assert found["flags"] == []
    json.dumps(found, allow_nan=False)


def test_one_example_has_no_chords_and_constant_features_no_radius(vectors: Subject) -> None:
    rows = rows_of(dataclasses.replace(QUICK, n=1)(with_network(vectors, nn.Tanh()), 0))
    without = [name for name, row in rows.items() if row["value"] is None]
    assert without == ["Lipschitz quotient, pairs", "gradient quotient, pairs", "mixup gap"]
    assert all("there are no chords" in rows[name]["why_not"] for name in without)
    test = vectors.dataset.test
    same = Examples(torch.zeros_like(test.x), test.y)  # type: ignore[union-attr]
    constant = dataclasses.replace(vectors, dataset=dataclasses.replace(vectors.dataset, test=same))
    row = rows_of(QUICK(constant, 0))["Lipschitz quotient, adversarial"]
    assert (row["value"], row["why_not"]) == (None, "epsilon must be greater than 0, got 0.0")


def test_settings_reach_the_figures(images: Subject) -> None:
    subject = with_network(images, nn.Softplus())
    plain = rows_of(QUICK(subject, 0))
    for changes, names in [
        ({"epsilon": 0.1, "length": 0.188}, ["local linearity error", "slope term"]),
        ({"steps": 1}, ["local linearity error"]),
        ({"length": 1.0}, ["Lipschitz quotient, adversarial"]),
        ({"search": 0}, ["Lipschitz quotient, adversarial"]),
        ({"iterations": 1}, ["Jacobian norm", "Hessian norm"]),
        ({"neighbours": 4}, ["Lipschitz quotient, pairs", "gradient quotient, pairs", "mixup gap"]),
        ({"tolerance": 1.0}, []),  # small maps are exact
        ({"n": 20}, [name for name in NAMES if "bound" not in name]),
    ]:
        changed = rows_of(dataclasses.replace(QUICK, **changes)(subject, 0))  # type: ignore[arg-type]
        different = [name for name in NAMES if changed[name]["value"] != pytest.approx(plain[name]["value"], 5e-3)]
        assert set(different) <= set(names), changes
        assert len(different) >= min(len(names), 1), changes
    assert QUICK(subject, 0) == QUICK(subject, 0) != QUICK(subject, 1)


def test_nothing_is_left_behind_and_memory_formats_do_not_matter(images: Subject) -> None:
    subject = with_network(images, nn.Softplus())
    before = {name: tensor.clone() for name, tensor in subject.network.state_dict().items()}
    state = torch.get_rng_state()
    QUICK(subject, 0)
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in subject.network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(p.grad is None and p.requires_grad and p.dtype == torch.float32 for p in subject.network.parameters())
    with torch.random.fork_rng(devices=[]):
        body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        network = Classifier(Identity(), body, nn.Linear(4, 3), feature_dim=4, classes=3).eval()
    first = QUICK(dataclasses.replace(images, network=network), 0)
    second = QUICK(dataclasses.replace(images, network=network.to(memory_format=torch.channels_last)), 0)
    for one, other in zip(first["rows"], second["rows"], strict=True):
        assert one["value"] == pytest.approx(other["value"], rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"epsilon": 0.0}, "epsilon must be greater than 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"starts": 0}, "starts must be at least 1"),
        ({"length": -1.0}, "length must be greater than 0"),
        ({"search": -1}, "search must be at least 0"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"power_starts": 0}, "power_starts must be at least 1"),
        ({"neighbours": 0}, "neighbours must be at least 1"),
        ({"tolerance": 0.0}, "tolerance must be greater than 0"),
    ],
)
def test_bad_settings_are_one_clear_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        Smoothness(**settings)
    assert "\n" not in str(raised.value)
