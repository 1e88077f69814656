"""MixupE: its derivative by differences, its limit in mixup, its scale; each check fails under its mutation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.lab import Lab
from support.properties import PROPERTIES, ledger_is
from torch import Tensor
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.methods import Method, Mixup
from vicinal.methods.mixup_e import MixupE
from vicinal.networks import FROZEN_STATS, TRAIN
from vicinal.vicinity import cross_entropy

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

METHODS = [MixupE(), MixupE(derivative="exact"), MixupE(eta=-0.5, lambda_per="sample", rescale=False)]


def without_strength_it_is_mixup(lab: Lab) -> None:
    """The gradient too, bit for bit, and the running statistics, with dropout."""
    for derivative in ("fast", "exact"):
        student, other = lab.network(dropout=0.5), lab.network(dropout=0.5)
        terms = lab.loss(MixupE(eta=0.0, derivative=derivative), student)
        expected = lab.total(lab.loss(Mixup(), other))
        assert torch.equal(lab.total(terms), expected)
        assert torch.equal(lab.gradient(lab.total(terms), student), lab.gradient(expected, other))
        assert all(torch.equal(*pair) for pair in zip(student.buffers(), other.buffers(), strict=True))


def partner_shares(lab: Lab) -> None:
    """m1 = E[1 - lambda] under Beta(alpha + 1, alpha): 1/7, 0.3, 1/3, 0.4, and by its own integral."""
    for alpha, published in ((0.2, 1 / 7), (0.75, 0.3), (1.0, 1 / 3), (2.0, 0.4)):
        assert MixupE(alpha=alpha).m1 == pytest.approx(published)
        mean = torch.distributions.Beta(alpha + 1, alpha).mean
        assert MixupE(alpha=alpha).m1 == pytest.approx(1 - float(mean))


def slope(lab: Lab, derivative: Any, network: Any) -> Tensor:
    return lab.terms(MixupE(derivative=derivative, rescale=False), network)["directional"].value


def held(lab: Lab) -> Any:
    """A network in float64 whose running statistics stay as they are."""
    network = lab.network(double=True)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = 0.0
    return network


def exact_derivative_is_that_of_the_loss(lab: Lab) -> None:
    """Of the mean CE along the batch's mean minus x, by central differences, one example at a time."""
    lab.x, h = lab.x.double(), 1e-5
    network = held(lab).eval()
    towards = lab.x.mean(dim=0) - lab.x
    with torch.no_grad():
        ends = [cross_entropy(lab.y, network(lab.x + k * h * towards)).mean().item() for k in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * h)
    assert abs(expected) > 0.1
    assert slope(lab, "exact", network.train()).item() == pytest.approx(expected, rel=1e-6)


def fast_form_is_exact_where_it_should_be(lab: Lab) -> None:
    """Centred inputs and a linear network without bias: the same value and gradient; with a bias they differ."""
    lab.x = (lab.x - lab.x.mean(dim=0)).double()
    network = lab.linear()
    network.head.bias.data.zero_()
    fast, exact = (slope(lab, derivative, copy.deepcopy(network)) for derivative in ("fast", "exact"))
    torch.testing.assert_close(fast, exact)
    network.head.bias.data.fill_(0.5)
    network.head.bias.data[0] = -1
    fast, exact = (slope(lab, derivative, copy.deepcopy(network)) for derivative in ("fast", "exact"))
    assert not torch.isclose(fast, exact)


def exact_gradient_is_a_derivative(lab: Lab) -> None:
    """By the parameters, central differences along a random direction in float64."""
    for derivative in ("fast", "exact"):
        network = held(lab)
        draws = torch.Generator().manual_seed(4)
        along = [torch.randn(p.shape, generator=draws, dtype=p.dtype) for p in network.parameters()]
        value = lab.loss(MixupE(derivative=derivative, rescale=False), network)["directional"].value
        gradient = torch.autograd.grad(value, list(network.parameters()))
        found = sum((g * v).sum().item() for g, v in zip(gradient, along, strict=True))
        ends = []
        for h in (1e-5, -1e-5):
            moved = copy.deepcopy(network)
            for p, v in zip(moved.parameters(), along, strict=True):
                p.data += h * v
            ends.append(slope(lab, derivative, moved).item())
        assert found == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


def the_value_is_mixups(lab: Lab) -> None:
    """Rescaled: mixup's value and the direction of the other gradient; else the sum of both terms."""
    plain = lab.total(lab.terms(Mixup(), lab.network())).detach()
    gradients = []
    for rescale in (True, False):
        student = lab.network()
        total = lab.total(lab.loss(MixupE(eta=0.7, rescale=rescale), student))
        assert torch.isclose(total, plain) == rescale
        gradients.append(lab.gradient(total, student))
    assert torch.cosine_similarity(*gradients, dim=0) == pytest.approx(1)
    assert not torch.allclose(*gradients)


def the_sign_is_minus(lab: Lab) -> None:
    """A positive eta takes away: a descent step on the loss alone lowers f'(y - p) less than one of mixup does."""
    terms = lab.terms(MixupE(eta=0.7, alpha=1.0, rescale=False), lab.network())
    assert terms["directional"].weight == pytest.approx(-0.7 / 3)
    logits = lab.network()(lab.x)
    y = F.one_hot(lab.y, 4)
    expected = (logits * (y - logits.softmax(dim=1))).sum(dim=1).mean()
    torch.testing.assert_close(terms["directional"].value, expected)


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing in the library."""
    return lambda patch: patch.setattr(f"vicinal.methods.{target}", value)


def other_scale(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MixupE, "m1", 0.5)


def other_slope(change: Callable[[Tensor], Tensor]) -> Mutation:
    plain = MixupE._slope
    return lambda patch: patch.setattr(MixupE, "_slope", lambda self, step: change(plain(self, step)))


def never_rescaled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("vicinal.methods.mixup_e.torch", SimpleNamespace(where=lambda *_: 1.0))


def tangent_to_the_origin(patch: pytest.MonkeyPatch) -> None:
    dual = torch.autograd.forward_ad.make_dual
    patch.setattr("vicinal.methods.mixup_e.forward_ad.make_dual", lambda x, v: dual(x, -x))


def tangent_from_elsewhere(patch: pytest.MonkeyPatch) -> None:
    dual = torch.autograd.forward_ad.make_dual
    patch.setattr("vicinal.methods.mixup_e.forward_ad.make_dual", lambda x, v: dual(x, v + 1))


CHECKS = [
    pytest.param(
        without_strength_it_is_mixup, patched("mixup_e.FROZEN_STATS", TRAIN), id="eta 0 | statistics of both passes"
    ),
    pytest.param(partner_shares, other_scale, id="m1 | a half"),
    pytest.param(
        exact_derivative_is_that_of_the_loss, patched("mixup_e.EVAL", FROZEN_STATS), id="exact | batch statistics"
    ),
    pytest.param(exact_gradient_is_a_derivative, patched("mixup_e.EVAL", FROZEN_STATS), id="dR | batch statistics"),
    pytest.param(exact_derivative_is_that_of_the_loss, tangent_to_the_origin, id="exact | to the origin"),
    pytest.param(fast_form_is_exact_where_it_should_be, tangent_from_elsewhere, id="fast | tangent from elsewhere"),
    pytest.param(exact_gradient_is_a_derivative, other_slope(lambda r: r * r.detach()), id="dR | half of it"),
    pytest.param(the_value_is_mixups, never_rescaled, id="rescaled | not at all"),
    pytest.param(the_sign_is_minus, other_slope(torch.neg), id="sign | plus"),
]


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_holds(check: Check, mutate: Mutation, lab: Lab) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_fails_when_mutated(check: Check, mutate: Mutation, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(lab)


@pytest.mark.parametrize("method", METHODS)
def test_ledger_and_cost(method: Method, lab: Lab) -> None:
    assert str(method.passes()) == "2f+2b"
    ledger_is(lab, method, "f* f")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("holds", PROPERTIES)
def test_property(holds: Callable[[Lab, Method], None], method: Method, lab: Lab) -> None:
    if holds.__name__ == "settings_are_explained":
        method = type(method)()
    holds(lab, method)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match="alpha must be greater than 0"):
        MixupE(alpha=0.0)


@pytest.mark.parametrize("method", METHODS)
def test_half_precision(method: Method, lab: Lab) -> None:
    """Under autocast, values and gradients stay what they are up to its rounding."""
    student, plain = lab.network(norm="none"), lab.network(norm="none")
    with torch.autocast("cpu", torch.bfloat16):
        found = lab.loss(method, student)["directional"].value
    expected = lab.loss(method, plain)["directional"].value
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)
    cosine = torch.cosine_similarity(lab.gradient(found, student), lab.gradient(expected, plain), dim=0)
    assert cosine.item() > 0.99
