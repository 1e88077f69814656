"""What is said of one trained network: which assumptions hold, what applies, and that no other bound is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.networks import Classifier, mlp, small_cnn
from vicinal.networks.preprocess import Identity, Normalise, PerImage
from vicinal.theory import ASSUMPTIONS, MEASURED, NEEDS, Trained, check_assumptions, statements

Net = Callable[[], nn.Module]
BOUNDS = ("surrogate_bound", "class_surrogate_bound", "logistic_bound", "jensen_bound", "corollary")


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(build: Net, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


def net(*widths: int, classes: int = 2, activation: Any = nn.ReLU, bias: bool = False, norm: bool = False) -> nn.Module:
    """A classifier of 4 features."""

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        size = 4
        for width in widths:
            layers.append(nn.Linear(size, width, bias=bias))
            if norm:
                layers.append(nn.BatchNorm1d(width))
            layers.append(activation())
            size = width
        head = nn.Linear(size, classes, bias=bias)
        return Classifier(Identity(), nn.Sequential(*layers), head, feature_dim=size, classes=classes)

    made = seeded(build)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean = draws(len(module.weight), seed=3).float()
    return made


class Pulsing(nn.Module):
    """f(2x) = 2 f(x) for all x, and yet not grad f(x)^T x: only scaling by powers of two is seen through."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2] * (2 + torch.sin(2 * torch.pi * x.norm(dim=1, keepdim=True).log2()))


def sure(network: nn.Module) -> nn.Module:
    """With logits so large that each class that it gives has odds above 1."""
    assert isinstance(network, Classifier)
    assert isinstance(network.head, nn.Linear)
    network.head.weight.data *= 1000
    return network


def sample(network: nn.Module, n: int = 24, *, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """Centred inputs, and the classes that the network gives them."""
    x = draws(n, 4, seed=1)
    x = x - x.mean(dim=0) + shift
    with torch.no_grad():
        return x, seeded(lambda: network).double().eval()(x).argmax(dim=1)


def report(network: nn.Module, *, shift: float = 0.0, **settings: Any) -> dict[str, Any]:
    x, y = sample(network, shift=shift)
    values = {"alpha": 1.0, "seed": 0, "nodes": 24, "draws": 20, **settings}
    return statements(network, x, y, **values)


def failing(found: dict[str, Any]) -> set[str]:
    return {name for name, made in found["assumptions"].items() if not made["holds"]}


def applying(found: dict[str, Any]) -> set[str]:
    return {name for name, made in found["statements"].items() if made["applies"]}


FEATURES = {"fixed_features"}
KINKS = {"twice_differentiable"}

CASES = {
    "logistic": (net(), 0.0, set()),
    "logistic, bias": (net(bias=True), 0.0, {"homogeneous"}),
    "logistic, not centred": (net(), 0.5, {"centred"}),
    "linear softmax": (net(classes=3), 0.0, {"binary", "right_side"}),
    "relu": (net(8), 0.0, FEATURES | KINKS | {"affine"}),
    "relu, bias": (net(8, bias=True), 0.0, FEATURES | KINKS | {"affine", "homogeneous"}),
    "relu, not centred": (net(8), 0.5, FEATURES | KINKS | {"affine", "centred"}),
    "leaky, three layers": (net(8, 6, 5, activation=lambda: nn.LeakyReLU(0.1)), 0.0, FEATURES | KINKS | {"affine"}),
    "relu, batch norm": (net(8, norm=True), 0.0, FEATURES | KINKS | {"affine", "no_batch_norm", "homogeneous"}),
    "tanh": (net(8, activation=nn.Tanh), 0.0, FEATURES | {"affine", "homogeneous", "flat"}),
    "pulsing": (Pulsing(), 0.0, {"affine", "homogeneous", "flat", "linear_head"}),
    "softplus, bias": (net(8, activation=nn.Softplus, bias=True), 0.0, FEATURES | {"affine", "homogeneous", "flat"}),
}


@pytest.mark.parametrize(("network", "shift", "expected"), CASES.values(), ids=CASES)
def test_each_assumption_is_seen_to_hold_or_to_fail(network: nn.Module, shift: float, expected: set[str]) -> None:
    x, y = sample(network, shift=shift)
    checks, _ = check_assumptions(Trained(network, x, y), 1.0)
    assert {name for name, made in checks.items() if not made.holds} == expected | {"fixed_class"}
    assert list(checks) == list(ASSUMPTIONS)


@pytest.mark.parametrize(
    ("network", "bounds"),
    [
        (net(), {"surrogate_bound", "class_surrogate_bound", "logistic_bound", "jensen_bound"}),
        (net(bias=True), {"jensen_bound"}),
        (net(8), {"surrogate_bound", "class_surrogate_bound"}),
        (sure(net(8, classes=3)), {"class_surrogate_bound"}),
        (sure(net(classes=3)), {"class_surrogate_bound", "jensen_bound"}),
        (net(8, bias=True), set()),
        (net(8, norm=True), set()),
        (net(8, activation=nn.Tanh), set()),
    ],
    ids=[
        "logistic",
        "logistic, bias",
        "relu",
        "relu, 3 classes",
        "softmax, 3 classes",
        "relu, bias",
        "relu, batch norm",
        "tanh",
    ],
)
def test_a_bound_is_given_where_its_assumptions_hold_and_not_else(network: nn.Module, bounds: set[str]) -> None:
    found = report(network)
    assert applying(found) & set(BOUNDS) == bounds
    for name, made in found["statements"].items():
        failed = [need for need in NEEDS[name] if need in failing(found)]
        assert made["applies"] == (not failed)
        assert (made["why"] is None) == made["applies"]
        assert all(found["assumptions"][need]["says"] in made["why"] for need in failed)
        assert (made["values"] is not None) == (set(failed) <= set(MEASURED.get(name, ())))
    values = {name: found["statements"][name]["values"] for name in bounds}
    for name in bounds & {"surrogate_bound", "class_surrogate_bound"}:
        assert values[name]["approximation"] >= values[name]["surrogate"] - 1e-9
        assert values[name]["surrogate"] >= values[name]["surrogate_mix"] - 1e-9
    if "logistic_bound" in bounds:
        assert values["logistic_bound"]["mixup"] >= values["logistic_bound"]["adversarial"] - 1e-10
    if "jensen_bound" in bounds:
        assert values["jensen_bound"]["mixup"] >= values["jensen_bound"]["shrunk_logits"] - 1e-10


def test_a_convolutional_network_with_batch_norm_is_told_why() -> None:
    network = seeded(lambda: small_cnn((1, 8, 8), 3, widths=(4, 6)))
    x = draws(12, 1, 8, 8).float()
    with torch.no_grad():
        network(x)  # in training mode: the running statistics move
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = statements(network, x, torch.arange(12) % 3, alpha=1.0, seed=0, nodes=4, draws=20)
    made = found["statements"]["class_surrogate_bound"]
    assert not made["applies"]
    assert made["values"] is None
    assert "2 batch-norm layer(s)" in made["why"]
    assert "whole batch" in found["assumptions"]["no_batch_norm"]["more"]
    assert "2 LeakyReLU, 1 MaxPool2d" in found["assumptions"]["twice_differentiable"]["says"]
    assert found["statements"]["expansion"]["values"]["r3"] == 0
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_kinks_of_a_function_are_seen_without_a_layer_of_that_name() -> None:
    class Hinge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.outer(self.inner(x).clamp(min=0))
            return found

    network = seeded(Hinge)
    found = report(network)
    assert "Hessian is 0" in found["assumptions"]["twice_differentiable"]["says"]
    assert not found["assumptions"]["linear_head"]["holds"]
    assert found["statements"]["complexity"]["values"] is None


def test_a_network_that_looks_at_its_batch_has_no_statements() -> None:
    class Batchwise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - x.mean(dim=0))[:, :2]

    found = report(Batchwise())
    assert applying(found) == {name for name in NEEDS if "separate" not in NEEDS[name]} == set()
    assert all(made["values"] is None for made in found["statements"].values())
    assert found["train"] is None


def test_the_report_is_plain_and_repeats() -> None:
    network = net(8, classes=3, bias=True)
    x, y = sample(network)
    other = (draws(30, 4, seed=5), torch.arange(30) % 3)

    def made(seed: int) -> str:
        found = statements(network, x, y, alpha=0.4, seed=seed, test=other, budget=1e3, permutations=4, probes=3)
        assert found["statements"]["mixup_loss"]["values"]["pairs"] == "sampled"
        assert found["statements"]["expansion"]["values"]["trace"] == "hutchinson"
        return json.dumps(found, allow_nan=False)

    first = made(0)
    assert first == made(0) != made(1)
    found = json.loads(first)
    assert (found["n"], found["dimension"], found["classes"], found["alpha"]) == (24, 4, 3, 0.4)
    assert found["gap"]["loss"] == pytest.approx(found["test"]["loss"] - found["train"]["loss"])
    with torch.no_grad():
        z = network(other[0])
    assert found["test"]["loss"] == pytest.approx(float(F.cross_entropy(z, other[1])), rel=1e-5)
    assert found["test"]["error"] == pytest.approx(float((z.argmax(dim=1) != other[1]).double().mean()))


def test_one_logit_is_two() -> None:
    """A network with one logit f is one with logits 0 and f."""
    two = net(8)
    one = seeded(lambda: net(8))
    assert isinstance(one, Classifier)
    assert isinstance(two, Classifier)
    head = nn.Linear(8, 1, bias=False)
    head.weight.data = (two.head.weight[1:] - two.head.weight[:1]).detach()  # type: ignore[operator,index,union-attr]
    one.head = head
    x, y = sample(two)
    first, second = (
        statements(network, x, y, alpha=1.0, seed=0, nodes=8, draws=20)["statements"] for network in (two, one)
    )

    def numbers(values: Any) -> list[float]:
        if isinstance(values, dict):
            return [number for name in values for number in numbers(values[name])]
        return [float(values)] if isinstance(values, (int, float)) else []

    for name in ("expansion", "shrunk_expansion", "radii", "attack", "surrogate_bound", "regulariser", "complexity"):
        assert numbers(first[name]["values"]) == pytest.approx(numbers(second[name]["values"]), rel=1e-5), name


def test_spaces() -> None:
    """Behind affine preprocessing mixing is the same, and means are others."""
    network = net(8)
    assert isinstance(network, Classifier)
    x, y = sample(network)
    network.preprocess = Normalise([0.5, 1.0, 1.5, 2.0], [2.0, 2.0, 2.0, 2.0], image=False)
    inputs = network.preprocess.inverse(x)
    outside, inside = (
        statements(network, inputs, y, alpha=1.0, seed=0, nodes=8, draws=20, space=space)
        for space in ("pixels", "input")
    )
    for name, key in (("mixup_loss", "value"), ("expansion", "total"), ("shrunk_expansion", "total")):
        values = (found["statements"][name]["values"][key] for found in (outside, inside))
        assert next(values) == pytest.approx(next(values), abs=1e-6)
    assert "centred" in failing(outside)
    assert not outside["statements"]["surrogate_bound"]["applies"]
    assert failing(inside) == {"twice_differentiable", "affine", "fixed_features", "fixed_class"}
    network.preprocess = PerImage()
    with pytest.raises(InputError, match="space: mixing commutes with affine"):
        Trained(network, x, y, space="input")


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((draws(8, 4), torch.zeros(8, dtype=torch.int64)), {"alpha": 0.0}, "alpha must be greater than 0"),
        ((draws(8, 4), torch.zeros(8)), {}, "y: expected classes int64"),
        ((draws(8, 4), torch.full((8,), 7)), {}, r"y: classes must be in 0\.\.1"),
        ((draws(1, 4), torch.zeros(1, dtype=torch.int64)), {}, "x: expected at least two"),
        ((draws(8, 4), torch.zeros(8, dtype=torch.int64)), {"space": "pixel"}, "did you mean 'pixels'"),
        ((draws(8, 4), torch.zeros(8, dtype=torch.int64)), {"tolerance": 0.0}, "tolerance must be greater"),
        (
            (draws(8, 4), torch.zeros(8, dtype=torch.int64)),
            {"test": (draws(3, 4), torch.zeros(2, dtype=torch.int64))},
            "test: expected inputs and as many classes",
        ),
    ],
)
def test_bad_input(arguments: Sequence[Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        statements(net(), *arguments, **{"alpha": 1.0, "seed": 0, **settings})


def test_a_network_of_another_kind() -> None:
    with pytest.raises(InputError, match=r"network: expected logits \(B, C\)"):
        Trained(nn.Unflatten(1, (2, 2)), draws(8, 4), torch.zeros(8, dtype=torch.int64))
    assert Trained(mlp((4,), 5), draws(8, 4), torch.zeros(8, dtype=torch.int64)).classes == 5
