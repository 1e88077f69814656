"""Manifold Mixup: its equation at every place, its limit in mixup, its losses; each check fails under its mutation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support.lab import Lab
from support.properties import PROPERTIES, ledger_is
from torch import Tensor
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.methods import Context, Method, Mixup
from vicinal.methods.base import Model
from vicinal.methods.manifold_mixup import ManifoldMixup, binary_cross_entropy
from vicinal.randomness import generator
from vicinal.vicinity import Mixing, cross_entropy, draw_mixing

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]
PARTNER = torch.tensor([2, 1, 4, 0, 3])  # row 1 is its own

ROWS = [
    pytest.param(ManifoldMixup(), "f+b", "f*", id="manifold_mixup"),
    pytest.param(ManifoldMixup(form="binary", lambda_per="sample"), "f+b", "f*", id="manifold_mixup binary"),
]


@contextmanager
def mixing(lam: float = 0.25, partner: Tensor = PARTNER) -> Iterator[None]:
    """Every mixing inside has this coefficient and these partners."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "vicinal.methods.manifold_mixup.draw_mixing",
            lambda count, *_, **__: Mixing(torch.full((count,), lam), partner),
        )
        yield


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing in the library."""
    return lambda patch: patch.setattr(f"vicinal.methods.{target}", value)


def value_of(lab: Lab, method: Method, **network: Any) -> Tensor:
    """The training loss of a step, without a graph."""
    return lab.total(lab.terms(method, lab.network(**network))).detach()


def at_the_input_it_is_mixup(lab: Lab) -> None:
    """Bit for bit, with dropout; at a hidden place it is not."""
    for settings in ({}, {"lambda_per": "sample", "fold": True}):
        expected = value_of(lab, Mixup(alpha=2.0, **settings), dropout=0.5)
        assert torch.equal(value_of(lab, ManifoldMixup(places=(0,), **settings), dropout=0.5), expected)
        assert not torch.isclose(value_of(lab, ManifoldMixup(places=(1,), **settings), dropout=0.5), expected)


def a_hidden_place_is_its_equation(lab: Lab) -> None:
    """The first stage on examples as they are, the rest on mixed activations."""
    network = lab.network(hidden=(16, 12), double=True)
    first, rest = network.body[: network.stages[0]], network.body[network.stages[0] :]
    hidden = first(lab.x.double())
    logits = network.head(rest(0.25 * hidden + 0.75 * hidden[PARTNER]))
    soft = 0.25 * F.one_hot(lab.y, 4) + 0.75 * F.one_hot(lab.y[PARTNER], 4)
    with mixing():
        found = lab.terms(ManifoldMixup(places=(1,)), lab.network(hidden=(16, 12), double=True))["supervised"].value
    # Coefficients are drawn in float32.
    torch.testing.assert_close(found, cross_entropy(soft, logits).mean(), rtol=1e-6, atol=0)


def places_are_drawn_evenly(lab: Lab) -> None:
    """From those that the network has, anew in each step; chi-square of three cells."""
    network = lab.network(hidden=(16, 12))
    counts = torch.zeros(4)
    with pytest.MonkeyPatch.context() as patch:

        def spy(self: Model, x: Tensor, *, place: int = 0, **rest: Any) -> Tensor:
            counts[place] += 1
            return torch.zeros(len(x), 4)

        patch.setattr(Model, "__call__", spy)
        for at in range(300):
            ManifoldMixup(places=(0, 1, 2, 7)).loss(lab.step(network, at=at))
    assert counts.sum() == 300
    assert counts[3] == 0
    assert float(((counts[:3] - 100) ** 2 / 100).sum()) < 23  # exceeded once in 100000


def mixed_at_every_place_alike(lab: Lab) -> None:
    """Of a network that is linear up to there, mixing hidden activations is mixing inputs."""
    network = lab.network(hidden=(16,), norm="none", double=True)
    for k, layer in enumerate(network.body):
        network.body[k] = torch.nn.Identity() if isinstance(layer, torch.nn.Tanh) else layer
    found = []
    for place in (0, 1):
        with mixing():
            found.append(lab.terms(ManifoldMixup(places=(place,)), network)["supervised"].value)
    torch.testing.assert_close(*found)


def binary_identity(lab: Lab) -> None:
    """(1/C) [ CE + sum_c -(1 - y_c) log(1 - p_c) ], which is torch's BCE of softmax outputs, also for mixed labels."""
    logits = lab.network(double=True)(lab.x)
    p = logits.softmax(dim=1)
    y, other = F.one_hot(lab.y, 4).double(), F.one_hot(lab.y[PARTNER], 4).double()
    expected = F.binary_cross_entropy(p, y, reduction="none").mean(dim=1)
    torch.testing.assert_close(binary_cross_entropy(lab.y, logits), expected)
    by_parts = (cross_entropy(lab.y, logits) - ((1 - y) * (1 - p).log()).sum(dim=1)) / 4
    torch.testing.assert_close(by_parts, expected)
    soft = 0.25 * y + 0.75 * other
    mixed = 0.25 * binary_cross_entropy(lab.y, logits) + 0.75 * binary_cross_entropy(lab.y[PARTNER], logits)
    torch.testing.assert_close(mixed.mean(), F.binary_cross_entropy(p, soft))


def binary_is_finite_when_certain(lab: Lab) -> None:
    """Value and gradient, where p rounds to 1: the wrong class costs its gap of logits, (90 + 90) / 3."""
    logits = torch.tensor([[90.0, 0.0, -90.0]] * 2, requires_grad=True)
    values = binary_cross_entropy(torch.tensor([0, 1]), logits)
    assert values.tolist() == pytest.approx([0, 60])
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert gradient[1].tolist() == pytest.approx([2 / 3, -2 / 3, 0], abs=1e-6)
    assert float(gradient[0].abs().max()) < 1e-30


def _naive_binary(y: Tensor, logits: Tensor) -> Tensor:
    p, y = logits.softmax(dim=1), F.one_hot(y, logits.shape[1])
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean(dim=1)


def _without_others(y: Tensor, logits: Tensor) -> Tensor:
    return cross_entropy(y, logits) / logits.shape[1]


def everywhere_the_first(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ManifoldMixup, "_offered", lambda self, network: [self.places[0]])


def labels_not_mixed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("vicinal.methods.manifold_mixup.cross_entropy", lambda y, z: cross_entropy(y.sort().values, z))


def mixed_at_the_input(patch: pytest.MonkeyPatch) -> None:
    call = Model.__call__
    patch.setattr(Model, "__call__", lambda self, x, *a, place=0, **rest: call(self, x, *a, place=0, **rest))


def mixed_by_squares(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "vicinal.methods.manifold_mixup.mix",
        lambda a, b, lam: lam[0] * a + (1 - lam[0]) * b if a.dim() == 1 else a * b,
    )


def other_purpose(patch: pytest.MonkeyPatch) -> None:
    """Mutation: the coefficients come from other draws than mixup's."""
    patch.setattr(
        "vicinal.methods.manifold_mixup.draw_mixing",
        lambda count, alpha, _, **rest: draw_mixing(count, alpha, generator(8, "other"), **rest),
    )


CHECKS = [
    pytest.param(at_the_input_it_is_mixup, other_purpose, id="manifold at 0 | other draws"),
    pytest.param(at_the_input_it_is_mixup, mixed_at_the_input, id="manifold at 0 | always at 0"),
    pytest.param(a_hidden_place_is_its_equation, mixed_at_the_input, id="manifold hidden | always at 0"),
    pytest.param(a_hidden_place_is_its_equation, labels_not_mixed, id="manifold hidden | other labels"),
    pytest.param(places_are_drawn_evenly, everywhere_the_first, id="places | always the first"),
    pytest.param(mixed_at_every_place_alike, mixed_by_squares, id="linear stages | a product"),
    pytest.param(
        binary_identity,
        lambda patch: patch.setitem(globals(), "binary_cross_entropy", _without_others),
        id="binary | CE",
    ),
    pytest.param(
        binary_is_finite_when_certain,
        lambda patch: patch.setitem(globals(), "binary_cross_entropy", _naive_binary),
        id="binary certain | in probabilities",
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


@pytest.mark.parametrize(("method", "cost", "ledger"), ROWS)
def test_ledger_and_cost(method: Method, cost: str, ledger: str, lab: Lab) -> None:
    assert str(method.passes()) == cost
    ledger_is(lab, method, ledger)


@pytest.mark.parametrize(("method", "cost", "ledger"), ROWS)
@pytest.mark.parametrize("holds", PROPERTIES)
def test_property(holds: Callable[[Lab, Method], None], method: Method, cost: str, ledger: str, lab: Lab) -> None:
    if holds.__name__ == "settings_are_explained":
        method = type(method)()
    holds(lab, method)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ManifoldMixup(places=()), "places"),
        (lambda: ManifoldMixup(places=(-1, 0)), "places"),
        (lambda: ManifoldMixup(alpha=0.0), "alpha"),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], Method], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_network_without_the_places_is_refused(lab: Lab) -> None:
    with pytest.raises(InputError, match="none of"):
        ManifoldMixup(places=(2, 3)).prepare(Context(lab.network(), lab.shape, lab.rows))
    ManifoldMixup(places=(1, 3)).prepare(Context(lab.network(), lab.shape, lab.rows))
