"""FixMatch: its equation on recorded predictions, its gradient, its ledger; each check fails under its mutation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import cos, pi
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.lab import Lab
from support.properties import PROPERTIES, ledger_is, passes_are_declared
from torch import Tensor

from vicinal.methods import Method, Supervised
from vicinal.methods.fixmatch import FixMatch
from vicinal.networks import FROZEN_STATS, TRAIN
from vicinal.schedules import decay
from vicinal.training.averaging import AveragingSettings
from vicinal.training.config import Training
from vicinal.vicinity import cross_entropy

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]


def views(lab: Lab) -> tuple[Tensor, Tensor]:
    return lab.u[0], lab.strong[0]


def halfway(lab: Lab) -> float:
    """A threshold that half of the weak views pass, clearly; without dropout, predictions depend on the batch alone."""
    confidence = lab.network()(views(lab)[0]).detach().softmax(dim=1).amax(dim=1).sort().values
    return float(confidence[3:5].mean())


def the_loss_is_the_equation(lab: Lab) -> None:
    """At a threshold that half of the examples pass: a mean over all, with hard labels of the weak view."""
    threshold = halfway(lab)
    network = lab.network()
    weak, strong = (network(view).log_softmax(dim=1).detach().tolist() for view in views(lab))
    values = []
    for row, other in zip(weak, strong, strict=True):
        label = row.index(max(row))
        values.append(-other[label] if torch.tensor(max(row)).exp() >= threshold else 0.0)
    assert 0 < values.count(0.0) < len(values)
    found = lab.terms(FixMatch(threshold=threshold), lab.network())["consistency"]
    torch.testing.assert_close(found.value.detach(), torch.tensor(sum(values) / len(values)))
    assert found.weight == 1.0


def nobody_sure_no_gradient(lab: Lab) -> None:
    """Above every confidence, loss and gradient are exactly 0; at 0 the term is plain cross-entropy."""
    student = lab.network()
    value = lab.terms(FixMatch(threshold=1.0), student)["consistency"].value
    assert value.item() == 0.0
    value = lab.loss(FixMatch(threshold=1.0), student)["consistency"].value
    assert not lab.gradient(value, student).any()
    label = lab.network()(views(lab)[0]).argmax(dim=1)
    everyone = lab.terms(FixMatch(threshold=0.0), lab.network())["consistency"].value.detach()
    torch.testing.assert_close(everyone, cross_entropy(label, lab.network()(views(lab)[1])).mean().detach())


def pseudo_labels_are_constants(lab: Lab) -> None:
    passes = lab.record(FixMatch(threshold=0.0), lab.network())
    assert [item.backward for item in passes] == [["loss"], [], ["loss"]]
    assert torch.equal(passes[1].x, views(lab)[0])
    assert torch.equal(passes[2].x, views(lab)[1])


def statistics_are_of_labelled_and_weak_views(lab: Lab) -> None:
    student, plain = lab.network(), lab.network()
    lab.loss(FixMatch(), student)
    plain(lab.x)
    plain(views(lab)[0])
    assert [b.tolist() for b in student.buffers()] == [b.tolist() for b in plain.buffers()]


def without_weight_it_is_supervised(lab: Lab) -> None:
    """Gradients are equal to the bit, with dropout too."""
    student, other = lab.network(dropout=0.5), lab.network(dropout=0.5)
    found = lab.gradient(lab.total(lab.loss(FixMatch(weight=0.0, threshold=0.0), student)), student)
    assert torch.equal(found, lab.gradient(lab.total(lab.loss(Supervised(), other)), other))


def duplicates_change_nothing(lab: Lab) -> None:
    """Unlabelled examples given twice leave the term as it is."""
    method = FixMatch(threshold=halfway(lab))
    once = lab.terms(method, lab.network())["consistency"].value
    double = copy.copy(lab)
    double.u, double.strong = (tuple(view.repeat(2, 1) for view in group) for group in (lab.u, lab.strong))
    torch.testing.assert_close(double.terms(method, lab.network())["consistency"].value, once)


def replaced_cross_entropy(change: Callable[[Any, Tensor], Tensor]) -> Mutation:
    """The mutation of what becomes of the unlabelled examples' values."""

    def wrong(target: Tensor, logits: Tensor) -> Tensor:
        return cross_entropy(target, logits) if len(target) == Lab.labelled else change(target, logits)

    return lambda patch: patch.setattr("vicinal.methods.fixmatch.cross_entropy", wrong)


def other_loss(wrong: Any) -> Mutation:
    return lambda patch: patch.setattr(FixMatch, "loss", wrong(FixMatch.loss))


def over_the_sure_alone(loss: Any) -> Any:
    """Mutation: the mean over those that pass the threshold."""

    def wrong(self: FixMatch, step: Any) -> Any:
        terms = loss(self, step)
        sure = (step.student(step.u[0], FROZEN_STATS).softmax(dim=1).amax(dim=1) >= self.threshold).float().mean()
        term = terms["consistency"]
        return {**terms, "consistency": term._replace(value=term.value / sure.clamp(min=1e-6))}

    return wrong


def never_without_weight(loss: Any) -> Any:
    return lambda self, step: {
        name: term._replace(weight=max(term.weight, 1e-3)) for name, term in loss(self, step).items()
    }


def summed(loss: Any) -> Any:
    def wrong(self: FixMatch, step: Any) -> Any:
        terms = loss(self, step)
        term = terms["consistency"]
        return {**terms, "consistency": term._replace(value=term.value * len(step.u[0]))}

    return wrong


def with_a_graph(patch: pytest.MonkeyPatch) -> None:
    """Mutation: the weak pass keeps its graph, and the confidence weighs the values."""
    patch.setattr("vicinal.methods.fixmatch.torch", SimpleNamespace(no_grad=torch.enable_grad))
    patch.setattr(Tensor, "__ge__", lambda self, other: self)


def never_masked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tensor, "__ge__", lambda self, other: torch.ones_like(self))


def strong_updates(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("vicinal.methods.fixmatch.FROZEN_STATS", TRAIN)


CHECKS = [
    pytest.param(the_loss_is_the_equation, other_loss(over_the_sure_alone), id="equation | mean over the sure"),
    pytest.param(
        the_loss_is_the_equation,
        replaced_cross_entropy(lambda target, logits: cross_entropy(logits.argmax(dim=1), logits)),
        id="equation | own labels of the strong view",
    ),
    pytest.param(nobody_sure_no_gradient, never_masked, id="threshold | ignored"),
    pytest.param(pseudo_labels_are_constants, with_a_graph, id="pseudo-labels | with a graph"),
    pytest.param(statistics_are_of_labelled_and_weak_views, strong_updates, id="statistics | of the strong view too"),
    pytest.param(without_weight_it_is_supervised, other_loss(never_without_weight), id="supervised limit | weight > 0"),
    pytest.param(duplicates_change_nothing, other_loss(summed), id="duplicates | a sum"),
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
    holds(lab, FixMatch(threshold=0.0))


def test_ledger_and_cost(lab: Lab) -> None:
    method = FixMatch()
    assert str(method.passes()) == "f+2F+b+B"
    passes_are_declared(lab, method)
    ledger_is(lab, method, "f* F* F")


def test_ledger_sees_an_update(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    strong_updates(monkeypatch)
    with pytest.raises(AssertionError):
        ledger_is(lab, FixMatch(), "f* F* F")


def test_the_schedule_ends_at_a_fifth() -> None:
    """And follows cos(7 pi t / 16), which this library's cosine is not, within 0.07 of the start."""
    training = Training(**FixMatch.experiment["training"])
    factor = decay(training.schedule, steps=1000, full=training.schedule_full)
    assert factor(1000) == pytest.approx(cos(7 * pi / 16), abs=1e-3)
    assert max(abs(factor(t) - cos(7 * pi * t / 16000)) for t in range(1001)) < 0.07
    assert decay("cosine", steps=1000)(1000) == pytest.approx(0)
    assert AveragingSettings(**FixMatch.experiment["averaging"]).decay == 0.999
