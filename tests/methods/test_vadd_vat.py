"""VAdD+VAT: the terms of both on one clean prediction, statistics, weights; with mutations."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from support.lab import Lab
from support.properties import PROPERTIES, ledger_is, passes_are_declared
from torch import Tensor

from vicinal.methods import VAT, Method
from vicinal.methods.vadd import VAdD, VAdDVAT
from vicinal.networks import TRAIN
from vicinal.vicinity import kl

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing in the library."""
    return lambda patch: patch.setattr(f"vicinal.{target}", value)


def joint_terms_are_those_of_both(lab: Lab) -> None:
    """VAdD+VAT is VAdD and VAT's term on the first view, bit for bit."""
    student = lab.network()
    found = lab.terms(VAdDVAT(delta=0.25, smoothness_weight=0.7), student)
    assert list(found) == ["supervised", "consistency", "entropy", "smoothness"]
    for name, term in lab.terms(VAdD(delta=0.25), student).items():
        assert torch.equal(found[name].value, term.value)
        assert found[name].weight == term.weight
    assert torch.equal(found["smoothness"].value, lab.terms(VAT(), student)["smoothness"].value)
    assert found["smoothness"].weight == 0.7


def smoothness_has_a_constant_target(lab: Lab) -> None:
    """Though its clean prediction is the one that the dropout term teaches."""
    held = torch.randn(8, lab.features, generator=torch.Generator().manual_seed(1))
    student = lab.network(double=True)
    target = copy.deepcopy(student)(lab.u[0]).detach().softmax(dim=1)
    expected = lab.gradient(kl(target, student(lab.u[0] + held)).mean(), student)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VAT, "_direction", lambda *args: held)
        found = lab.gradient(lab.loss(VAdDVAT(), student)["smoothness"].value, student)
    torch.testing.assert_close(found, expected)


def masks_are_shared_on_the_first_view(lab: Lab) -> None:
    """With dropout and no radius the smoothness term is 0 if its passes share their masks, and else not."""
    student = lab.network(dropout=0.5)
    assert abs(lab.terms(VAdDVAT(epsilon=0.0), student)["smoothness"].value.item()) < 1e-6
    assert lab.terms(VAdDVAT(epsilon=0.0, masks="fresh"), student)["smoothness"].value > 1e-3


def only_the_dropout_term_rises(lab: Lab) -> None:
    """exp(-5) of its weight at the start, all of it after 80 of 300 epochs; the others have weight 1 throughout."""
    for at, factor in ((0, math.exp(-5)), (27, 1.0), (99, 1.0)):
        weights = {name: term.weight for name, term in lab.terms(VAdDVAT(), lab.network(), at=at).items()}
        assert weights == pytest.approx({"supervised": 1, "consistency": factor, "entropy": 1, "smoothness": 1})


def clean_from_elsewhere(patch: pytest.MonkeyPatch) -> None:
    """Mutation: the smoothness term starts from another prediction."""
    original = VAT.smoothness
    wrong = lambda self, step, u, clean: original(self, step, u, 2 * clean)  # noqa: E731
    patch.setattr(VAdDVAT, "smoothness", wrong, raising=False)


CHECKS = [
    pytest.param(joint_terms_are_those_of_both, clean_from_elsewhere, id="VAdD+VAT | other clean prediction"),
    pytest.param(
        smoothness_has_a_constant_target,
        lambda patch: patch.setattr(Tensor, "detach", lambda self: self),
        id="VAT's target | with a graph",
    ),
    pytest.param(
        masks_are_shared_on_the_first_view,
        patched("methods.vadd.PassPolicy", lambda **settings: TRAIN),
        id="shared masks | not by the clean pass",
    ),
    pytest.param(
        only_the_dropout_term_rises, patched("schedules.sigmoid_ramp", lambda t: min(t, 1)), id="ramp | linear"
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


@pytest.mark.parametrize("method", [VAdDVAT(), VAdDVAT(delta=0.25)], ids=["defaults", "more dropped"])
@pytest.mark.parametrize("holds", PROPERTIES)
def test_property(holds: Callable[[Lab, Method], None], method: VAdDVAT, lab: Lab) -> None:
    holds(lab, method)


ROWS = [
    (VAdDVAT(), "f+4F+2h+b+3B+X", "f* F* F* h h F F"),
    (VAdDVAT(iterations=2, masks="fresh"), "f+5F+2h+b+3B+2X", "f* F* F* h h F F F"),
    (VAdDVAT(space="input", search="gauss_newton"), "f+4F+2h+b+3B+X", "f* F* F* h h F F"),
]


@pytest.mark.parametrize(("method", "cost", "student"), ROWS)
def test_ledger_and_cost(method: VAdDVAT, cost: str, student: str, lab: Lab) -> None:
    assert str(method.passes()) == cost
    passes_are_declared(lab, method)
    ledger_is(lab, method, student)


def test_ledger_sees_statistics_that_move(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vicinal.methods.vat.PassPolicy", lambda **settings: TRAIN)
    with pytest.raises(AssertionError):
        ledger_is(lab, VAdDVAT(), "f* F* F* h h F F")


def test_published_constants() -> None:
    assert (VAdDVAT().weight, VAdDVAT().smoothness_weight, VAdDVAT().iterations) == (1.0, 1.0, 1)
    assert VAdDVAT().regime == "second order"
    assert VAdDVAT(masks="fresh").regime == "first order"
