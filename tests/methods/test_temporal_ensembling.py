"""Temporal ensembling: its loss, what its bank stores, statistics and published constants; with mutations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.lab import Lab
from support.properties import PROPERTIES, ledger_is, passes_are_declared
from torch import Tensor

from vicinal.errors import InputError
from vicinal.methods import Context, Method, Supervised
from vicinal.methods.temporal_ensembling import TemporalEnsembling
from vicinal.networks import EVAL

torch.set_num_threads(1)

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

_targets = TemporalEnsembling.targets


def ready(lab: Lab, **settings: Any) -> TemporalEnsembling:
    """The method with an empty bank of 40 rows and 4 classes."""
    method = TemporalEnsembling(**settings)
    lab.prepare(method, lab.network(), again=True)
    return method


def probabilities(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)).softmax(dim=1)


def target_is_that_of_the_epochs_before(lab: Lab) -> None:
    """The loss of a step compares with the bank before it; then the step's own prediction is in."""
    method, student = ready(lab), lab.network()
    old = probabilities(8)
    method.update(lab.u_index, old)
    p = student(lab.u[0]).softmax(dim=1).detach()
    found = lab.terms(method, student)["consistency"].value
    torch.testing.assert_close(found, (p - old).square().mean())
    expected = (0.6 * 0.4 * old + 0.4 * p) / (1 - 0.6**2)
    torch.testing.assert_close(method.targets(lab.u_index)[0], expected)


def unseen_rows_are_left_out(lab: Lab) -> None:
    """The mean is over the rows with a target; with none it is 0, and has a graph."""
    method, student = ready(lab), lab.network()
    first = lab.loss(method, student)["consistency"].value
    assert first.item() == 0.0
    assert not lab.gradient(first, student).any()
    method, old = ready(lab), probabilities(3)
    method.update(lab.u_index[:3], old)
    p = student(lab.u[0]).softmax(dim=1).detach()
    found = lab.terms(method, student)["consistency"].value
    torch.testing.assert_close(found, (p[:3] - old).square().mean())


def stored_predictions_are_those_of_the_pass(lab: Lab) -> None:
    """Training-mode outputs, dropout and batch statistics included, and no further pass for them."""
    method, student = ready(lab), lab.network(dropout=0.5)
    kept: list[Tensor] = []
    student.register_forward_hook(lambda module, inputs, output: kept.append(output))
    lab.loss(method, student)
    assert len(kept) == 2
    torch.testing.assert_close(method.targets(lab.u_index)[0], kept[1].softmax(dim=1).detach())
    assert not method.predictions.requires_grad


def without_weight_it_is_supervised(lab: Lab) -> None:
    method, student, other = ready(lab, weight=0.0), lab.network(dropout=0.5), lab.network(dropout=0.5)
    for _ in range(2):
        terms = lab.terms(method, student)
    found = lab.gradient(lab.total(lab.loss(method, student)), student)
    assert terms["consistency"].value > 0
    assert torch.equal(found, lab.gradient(lab.total(lab.loss(Supervised(), other)), other))


def weights_follow_the_published_ramp(lab: Lab) -> None:
    method = ready(lab)
    weights = [lab.terms(method, lab.network(), at=at)["consistency"].weight for at in (0, 27, 99)]
    assert weights == pytest.approx([30 * math.exp(-5), 30, 30])


def duplicated_batch_changes_nothing(lab: Lab) -> None:
    method, student = ready(lab), lab.network()
    method.update(lab.u_index, probabilities(8))
    state = {name: buffer.clone() for name, buffer in method.named_buffers()}
    once = lab.terms(method, student)["consistency"].value
    method.load_state_dict(state)
    lab.u_index = lab.u_index.repeat(2)
    twice = lab.terms(method, student, u=(lab.u[0].repeat(2, 1),))["consistency"].value
    torch.testing.assert_close(once, twice)


def all_seen(self: TemporalEnsembling, rows: Tensor) -> tuple[Tensor, Tensor]:
    target, seen = _targets(self, rows)
    return target, torch.ones_like(seen)


def updated_first(patch: pytest.MonkeyPatch) -> None:
    """Mutation: the step's own prediction is in its target."""
    original = TemporalEnsembling.loss

    def wrong(self: TemporalEnsembling, step: Any) -> Any:
        with torch.no_grad():
            logits = step.student(step.u[0])
        self.update(step.u_index, logits.softmax(dim=1))
        return original(self, step)

    patch.setattr(TemporalEnsembling, "loss", wrong)


def clean_predictions(patch: pytest.MonkeyPatch) -> None:
    """Mutation: eval-mode predictions are stored."""
    original = TemporalEnsembling.loss

    def wrong(self: TemporalEnsembling, step: Any) -> Any:
        clean = step.student(step.u[0], EVAL).detach()
        terms = original(self, step)
        self.predictions[step.u_index] = (1 - self.alpha) * clean.softmax(dim=1)
        return terms

    patch.setattr(TemporalEnsembling, "loss", wrong)


def never_weightless(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TemporalEnsembling, "weight", property(lambda self: 1e-3, lambda self, value: None), raising=False)


CHECKS = [
    pytest.param(target_is_that_of_the_epochs_before, updated_first, id="old target | updated first"),
    pytest.param(
        unseen_rows_are_left_out,
        lambda patch: patch.setattr(TemporalEnsembling, "targets", all_seen),
        id="unseen | zeros as targets",
    ),
    pytest.param(stored_predictions_are_those_of_the_pass, clean_predictions, id="training mode | a pass in eval"),
    pytest.param(without_weight_it_is_supervised, never_weightless, id="supervised limit | weight above 0"),
    pytest.param(
        weights_follow_the_published_ramp,
        lambda patch: patch.setattr("vicinal.schedules.sigmoid_ramp", lambda t: min(t, 1)),
        id="ramp | linear",
    ),
    pytest.param(
        duplicated_batch_changes_nothing,
        lambda patch: patch.setattr(
            "vicinal.methods.temporal_ensembling.squared_error",
            lambda target, logits: (logits.softmax(dim=1) - target).square().mean(dim=1) * len(target),
        ),
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


@pytest.mark.parametrize("holds", PROPERTIES)
def test_property(holds: Callable[[Lab, Method], None], lab: Lab) -> None:
    holds(lab, TemporalEnsembling())


def test_ledger_and_cost(lab: Lab) -> None:
    method = TemporalEnsembling()
    assert str(method.passes()) == "f+F+b+B"
    passes_are_declared(lab, method)
    ledger_is(lab, method, "f* F*")


def test_ledger_sees_a_pass_more(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    clean_predictions(monkeypatch)
    with pytest.raises(AssertionError):
        ledger_is(lab, TemporalEnsembling(), "f* F*")


@pytest.mark.parametrize(("stated", "labelled", "rows"), [(2.4, 4000, 50000), (0.205, 500, 73257)])
def test_published_weight_beside_a_mean_over_labelled_examples(stated: float, labelled: int, rows: int) -> None:
    assert stated * rows / labelled == pytest.approx(TemporalEnsembling().weight, rel=2e-3)
    assert TemporalEnsembling().ramp_length * 300 == pytest.approx(80)


def test_bank_is_state_and_preparing_again_empties_it(lab: Lab) -> None:
    method, other = ready(lab), ready(lab)
    lab.loss(method, lab.network())
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.predictions, method.predictions)
    assert other.times.sum() == 8
    assert list(method.parameters()) == []
    lab.prepare(method, lab.network(), again=True)
    assert not method.predictions.any()
    assert not method.times.any()


def test_bad_input_is_explained(lab: Lab) -> None:
    with pytest.raises(InputError, match="how many"):
        TemporalEnsembling().prepare(Context(lab.network(), lab.shape, 0))
    with pytest.raises(InputError, match="alpha must be less than 1"):
        TemporalEnsembling(alpha=1.0)
