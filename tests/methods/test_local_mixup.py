"""Local Mixup: its weights pair by pair, and its limits; each check fails under its mutation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support.lab import Lab
from support.properties import PROPERTIES, ledger_is
from torch import Tensor

from vicinal.errors import InputError
from vicinal.methods import Method, Mixup
from vicinal.methods.local_mixup import LocalMixup
from vicinal.vicinity import Mixing, cross_entropy

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
PARTNER = torch.tensor([2, 1, 4, 0, 3])  # row 1 is its own

METHODS = [LocalMixup(), LocalMixup(lambda_per="sample", weighting="hard")]


@contextmanager
def mixing(partner: Tensor = PARTNER) -> Iterator[None]:
    """Every mixing inside has a coefficient of 1/4 and these partners."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "vicinal.methods.local_mixup.draw_mixing",
            lambda count, *_, **__: Mixing(torch.full((count,), 0.25), partner),
        )
        yield


def supervised(lab: Lab, method: Method, **network: Any) -> Tensor:
    return lab.terms(method, lab.network(**network))["supervised"].value.detach()


def values(lab: Lab) -> Tensor:
    """The pairs' mixed losses, in float64; the network's batch is the mixed one, whatever the weights are."""
    logits = lab.network(double=True)((0.25 * lab.x + 0.75 * lab.x[PARTNER]).double())
    return (0.25 * cross_entropy(lab.y, logits) + 0.75 * cross_entropy(lab.y[PARTNER], logits)).detach()


def all_pairs_alike_are_mixup(lab: Lab) -> None:
    """epsilon = infinity, and c = 0."""
    for method in (LocalMixup(weighting="hard", epsilon=math.inf), LocalMixup(c=0.0)):
        torch.testing.assert_close(supervised(lab, method), supervised(lab, Mixup()))


def near_pairs_alone_are_unmixed_examples(lab: Lab) -> None:
    """epsilon = 0, and c -> infinity: those that are their own partners."""
    for method in (LocalMixup(weighting="hard", epsilon=0.0), LocalMixup(c=1e6)):
        with mixing():
            found = supervised(lab, method, double=True)
        torch.testing.assert_close(found, values(lab)[1], rtol=1e-6, atol=0)


def without_a_near_pair_there_is_no_loss(lab: Lab) -> None:
    network = lab.network()
    with mixing(torch.arange(5).roll(1)):
        value = lab.loss(LocalMixup(weighting="hard", epsilon=0.0), network)["supervised"].value
    assert value.item() == 0
    assert not lab.gradient(value, network).any()


def weights_belong_to_pairs(lab: Lab) -> None:
    """Each by its own distance, in data space, normalised by the sum."""
    distances = [math.dist(x, x_) for x, x_ in zip(lab.x.tolist(), lab.x[PARTNER].tolist(), strict=True)]
    limit = sorted(distances)[2] + 1e-4
    for method, weights in (
        (LocalMixup(c=0.7), [math.exp(-0.7 * d) for d in distances]),
        (LocalMixup(weighting="hard", epsilon=limit), [float(d <= limit) for d in distances]),
    ):
        with mixing():
            found = supervised(lab, method, double=True).item()
        expected = sum(w * value for w, value in zip(weights, values(lab).tolist(), strict=True)) / sum(weights)
        assert found == pytest.approx(expected, rel=1e-5)


def _one_weight(self: LocalMixup, distances: Tensor) -> Tensor:
    """Mutation: one weight for the batch, as in one of the official scripts."""
    return torch.full_like(distances, torch.exp(-self.c * distances).mean().item() / len(distances))


def _unnormalised(self: LocalMixup, distances: Tensor) -> Tensor:
    near = (distances <= self.epsilon).float() if self.weighting == "hard" else torch.exp(-self.c * distances)
    return near / len(distances)


def _always_somebody(self: LocalMixup, distances: Tensor) -> Tensor:
    near = distances <= distances.min()
    return near / near.sum()


CHECKS = [
    pytest.param(all_pairs_alike_are_mixup, _always_somebody, id="all pairs | the nearest"),
    pytest.param(near_pairs_alone_are_unmixed_examples, _unnormalised, id="near pairs | no sum"),
    pytest.param(without_a_near_pair_there_is_no_loss, _always_somebody, id="no pair | the nearest"),
    pytest.param(weights_belong_to_pairs, _one_weight, id="pairs | one weight"),
    pytest.param(weights_belong_to_pairs, _unnormalised, id="pairs | no sum"),
]


@pytest.mark.parametrize(("check", "weights"), CHECKS)
def test_check_holds(check: Check, weights: Any, lab: Lab) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "weights"), CHECKS)
def test_check_fails_when_mutated(check: Check, weights: Any, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalMixup, "weights", weights)
    with pytest.raises(AssertionError):
        check(lab)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("holds", PROPERTIES)
def test_property(holds: Callable[[Lab, Method], None], method: Method, lab: Lab) -> None:
    holds(lab, method)


def test_ledger_and_cost(lab: Lab) -> None:
    for method in METHODS:
        assert str(method.passes()) == "f+b"
        ledger_is(lab, method, "f*")


@pytest.mark.parametrize("settings", [{"epsilon": -1.0}, {"c": -1.0}, {"alpha": 0.0}])
def test_bad_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        LocalMixup(**settings)  # type: ignore[arg-type]
