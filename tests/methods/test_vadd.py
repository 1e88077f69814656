"""VAdD: its equation, the search's divergence, gradients, statistics, published constants; with mutations."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.lab import Lab
from support.properties import PROPERTIES, ledger_is, passes_are_declared
from torch import Tensor, nn

from vicinal.methods import Method, Step, Supervised
from vicinal.methods.base import Model
from vicinal.methods.vadd import VAdD, VAdDVAT
from vicinal.networks import TRAIN, PassPolicy
from vicinal.vicinity import entropy, kl, output_distance, squared_error
from vicinal.vicinity.dropout_adversary import adversarial_mask

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

_terms, _mask = VAdD.unsupervised, VAdD.mask


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing in the library."""
    return lambda patch: patch.setattr(f"vicinal.{target}", value)


def searched(student: Any, u: tuple[Tensor, ...], delta: float, reverse: bool = True) -> Tensor:
    """Masks by the equations alone: the k steepest entries of the derivative by the mask, by brute force."""
    target, h = student(u[0]).detach().softmax(dim=1), student.features(u[1]).detach()
    mask = torch.ones_like(h, requires_grad=True)
    p = student.head(mask * h).softmax(dim=1)
    divergence = (p * (p / target).log()).sum() if reverse else (target * (target / p).log()).sum()
    (slope,) = torch.autograd.grad(divergence, mask)
    gain = (-slope).clamp(min=0)
    k = math.floor(delta * h.shape[1])
    found = torch.where(gain > gain.sort(dim=1, descending=True).values[:, k : k + 1], 0.0, 1.0)
    return found * (h.shape[1] / found.sum(dim=1, keepdim=True))


def is_its_equation(lab: Lab) -> None:
    """The search has the adversarial output first, the loss the clean one."""
    student = lab.network(double=True)
    mask = searched(student, lab.u, 0.25)
    assert not torch.equal(mask, searched(student, lab.u, 0.25, reverse=False))
    assert ((mask == 0).sum(dim=1) <= 4).all()
    first = student(lab.u[0]).detach()
    dropped = student.head(mask * student.features(lab.u[1])).detach()
    p, q = first.softmax(dim=1), dropped.softmax(dim=1)
    found = lab.terms(VAdD(delta=0.25), student)
    assert list(found) == ["supervised", "consistency", "entropy"]
    torch.testing.assert_close(found["consistency"].value, (p * (p / q).log()).sum(dim=1).mean())
    torch.testing.assert_close(found["entropy"].value, -(p * p.log()).sum(dim=1).mean())
    assert "entropy" not in lab.terms(VAdD(entropy_weight=0.0), student)


def squared_error_is_a_mean_over_classes(lab: Lab) -> None:
    student = lab.network(double=True)
    method = VAdD(distance="mse", delta=0.25)
    clean, h = student(lab.u[0]), student.features(lab.u[1])
    mask = method.mask(lab.step(copy.deepcopy(student), views=2), clean, h)
    difference = clean.softmax(dim=1) - student.head(mask * h).softmax(dim=1)
    found = lab.terms(method, student)["consistency"].value
    torch.testing.assert_close(found, (difference**2).sum() / (8 * 4))
    assert found < lab.terms(VAdD(delta=0.25), student)["consistency"].value


def below_one_feature_it_is_two_views(lab: Lab) -> None:
    """delta D < 1: the plain KL between the predictions on two views, bit for bit."""
    student = lab.network()
    expected = output_distance("kl", student(lab.u[0]), student(lab.u[1])).mean()
    for delta in (0.0, 0.05, 0.99 / 16):
        assert torch.equal(lab.terms(VAdD(delta=delta), student)["consistency"].value, expected)
    assert lab.terms(VAdD(delta=1 / 16), student)["consistency"].value > expected


def equal_views_have_nothing_to_search(lab: Lab) -> None:
    """u^1 = u^2 without other noise, or with the same: no flips and no loss, by either distance."""
    (u, v) = lab.u
    for dropout, policy in ((0.0, TRAIN), (0.5, PassPolicy(dropout="shared"))):
        student = lab.network(dropout=dropout)
        for name in ("kl", "mse"):
            method = VAdD(distance=name, delta=0.25)
            values = []
            for views in ((u, u), (u, v)):
                step = lab.step(student, views=2, u=views)
                step = replace(step, student=Model(student, shared_seed=1, policy=policy))
                values.append(method.loss(step)["consistency"].value.item())
            assert values[0] == 0.0
            assert values[1] > 1e-3


def slope(value: Callable[[], Tensor], network: nn.Module) -> tuple[float, float]:
    """The derivative along a random direction in parameter space: from the gradient, and by central differences."""
    draws = torch.Generator().manual_seed(4)
    parameters = list(network.parameters())
    along = [torch.randn(p.shape, generator=draws, dtype=p.dtype) for p in parameters]
    gradient = torch.autograd.grad(value(), parameters)
    exact = sum(float((g * v).sum()) for g, v in zip(gradient, along, strict=True))
    ends = []
    with torch.no_grad():
        for h in (1e-5, -2e-5, 1e-5):
            for parameter, v in zip(parameters, along, strict=True):
                parameter += h * v
            ends.append(value().item())
    return exact, (ends[0] - ends[1]) / 2e-5


def clean_prediction_has_a_gradient(lab: Lab) -> None:
    """With the mask held fixed, the gradient is the loss's derivative: no stop-gradient on p(u^1)."""
    student = lab.network(double=True)
    method = VAdD(delta=0.25)
    held = searched(student, lab.u, 0.25)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VAdD, "mask", lambda *args: held)
        for name in ("consistency", "entropy"):
            exact, differences = slope(lambda: lab.loss(method, student)[name].value, student)  # noqa: B023
            assert exact == pytest.approx(differences, rel=1e-6)


def search_leaves_statistics_alone(lab: Lab) -> None:
    """A head with batch norm of its own sees labelled, first view, masked second view; the search leaves no trace."""
    for method in (VAdD(delta=0.25), VAdDVAT(delta=0.25)):
        student = lab.network()
        student.head = nn.Sequential(student.head, nn.BatchNorm1d(4))
        plain = copy.deepcopy(student)
        mask = method.mask(lab.step(student), student(lab.u[0]), student.features(lab.u[1]))
        student = copy.deepcopy(plain)
        lab.loss(method, student)
        plain(lab.x)
        plain(lab.u[0])
        plain.head(mask * plain.features(lab.u[1]))
        assert [b.tolist() for b in student.buffers()] == [b.tolist() for b in plain.buffers()]
        assert int(student.head[1].num_batches_tracked) == 3
        counters = [int(b) for name, b in student.body.named_buffers() if name.endswith("tracked")]
        assert counters == [3]


def without_weights_they_are_supervised(lab: Lab) -> None:
    other = lab.network(dropout=0.5)
    expected = lab.gradient(lab.total(lab.loss(Supervised(), other)), other)
    zero = {"weight": 0.0, "entropy_weight": 0.0}
    for method in (VAdD(**zero), VAdDVAT(**zero, smoothness_weight=0.0)):
        student = lab.network(dropout=0.5)
        assert torch.equal(lab.gradient(lab.total(lab.loss(method, student)), student), expected)


def duplicated_batch_changes_nothing(lab: Lab) -> None:
    method, student = VAdD(delta=0.25), lab.network(double=True)
    once = lab.terms(method, student)["consistency"].value
    twice = lab.terms(method, student, u=tuple(u.repeat(2, 1) for u in lab.u))["consistency"].value
    torch.testing.assert_close(once, twice)


def forward_search(self: VAdD, step: Step, clean: Tensor, features: Tensor) -> Tensor:
    """Mutation: the clean output first in the search too."""
    target = clean.detach()
    return adversarial_mask(lambda h: output_distance("kl", target, step.student.head(h)), features, delta=self.delta)


def random_base(divergence: Any, features: Tensor, *, delta: float) -> Tensor:
    """Mutation: from a random mask."""
    base = (torch.rand(features.shape, generator=torch.Generator().manual_seed(0)) < 0.5).to(features.dtype)
    return adversarial_mask(divergence, features, delta=delta, base=base)


def constant_target(self: VAdD, step: Step, clean: Tensor) -> Any:
    return _terms(self, step, clean.detach())


def never_weightless(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: VAdD, step: Step, clean: Tensor) -> Any:
        return {name: term._replace(weight=max(term.weight, 1e-3)) for name, term in _terms(self, step, clean).items()}

    patch.setattr(VAdD, "unsupervised", wrong)


def summed(target: Tensor, logits: Tensor) -> Tensor:
    return squared_error(target, logits) * logits.shape[1]


def from_probabilities(name: str, clean: Tensor, moved: Tensor) -> Tensor:
    """Mutation: a KL whose gradient at equality is rounding and not 0."""
    return kl(clean.softmax(dim=1), moved)


CHECKS = [
    pytest.param(
        is_its_equation, lambda patch: patch.setattr(VAdD, "mask", forward_search), id="equation | search not reversed"
    ),
    pytest.param(
        is_its_equation, patched("methods.vadd.adversarial_mask", random_base), id="equation | random base mask"
    ),
    pytest.param(
        is_its_equation,
        patched("methods.vadd.output_distance", lambda name, p, q: output_distance(name, q, p)),
        id="equation | arguments swapped",
    ),
    pytest.param(
        squared_error_is_a_mean_over_classes, patched("methods.vadd.squared_error", summed), id="QE | sum over classes"
    ),
    pytest.param(
        below_one_feature_it_is_two_views,
        patched("methods.vadd.adversarial_mask", random_base),
        id="two views | random base mask",
    ),
    pytest.param(
        equal_views_have_nothing_to_search,
        patched("methods.vadd.output_distance", from_probabilities),
        id="equal views | flips of rounding",
    ),
    pytest.param(
        clean_prediction_has_a_gradient,
        lambda patch: patch.setattr(VAdD, "unsupervised", constant_target),
        id="p(u1) | detached",
    ),
    pytest.param(
        search_leaves_statistics_alone, patched("methods.vadd._SEARCH", TRAIN), id="statistics | the search updates"
    ),
    pytest.param(without_weights_they_are_supervised, never_weightless, id="supervised limit | weight above 0"),
    pytest.param(
        duplicated_batch_changes_nothing,
        patched("methods.vadd.output_distance", lambda *args: output_distance(*args) * len(args[1])),
        id="scale | sum over examples",
    ),
]


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_holds(check: Check, mutate: Mutation, lab: Lab) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_fails_when_mutated(check: Check, mutate: Mutation, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(lab)


METHODS = [VAdD(), VAdD(delta=0.25), VAdD(distance="mse", weight=25.0)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{type(method).__name__} {method.delta}")
@pytest.mark.parametrize("holds", PROPERTIES)
def test_property(holds: Callable[[Lab, Method], None], method: VAdD, lab: Lab) -> None:
    holds(lab, method)


ROWS = [
    (VAdD(), "f+2F+2h+b+2B", "f* F* F* h h"),
    (VAdD(delta=0.0), "f+2F+h+b+2B", "f* F* F* h"),
    (VAdD(entropy_weight=0.0), "f+2F+2h+b+2B", "f* F* F* h h"),
]


@pytest.mark.parametrize(("method", "cost", "student"), ROWS)
def test_ledger_and_cost(method: VAdD, cost: str, student: str, lab: Lab) -> None:
    assert str(method.passes()) == cost
    passes_are_declared(lab, method)
    ledger_is(lab, method, student)


def test_a_full_pass_for_the_search_is_noticed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def wasteful(self: VAdD, step: Step, clean: Tensor, features: Tensor) -> Tensor:
        return _mask(self, step, clean, step.student.features(step.u[1]))

    monkeypatch.setattr(VAdD, "mask", wasteful)
    with pytest.raises(AssertionError):
        passes_are_declared(lab, VAdD())


def test_published_constants(lab: Lab) -> None:
    method = VAdD()
    assert (method.weight, method.entropy_weight) == (1.0, 1.0)
    assert math.floor(method.delta * 128) == 6
    assert method.ramp_length * 300 == pytest.approx(80)
    assert method.regime is None


def test_entropy_goes_through_the_clean_pass(lab: Lab) -> None:
    student = lab.network()
    expected = lab.gradient(entropy(student(lab.u[0])).mean(), student)
    torch.testing.assert_close(lab.gradient(lab.loss(VAdD(), student)["entropy"].value, student), expected)
