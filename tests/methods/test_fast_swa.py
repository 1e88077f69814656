"""Mean Teacher + fast-SWA, the method half: two heads, their distance, published constants; with mutations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.lab import Lab
from support.properties import PROPERTIES, ledger_is, passes_are_declared
from torch import Tensor, nn

from vicinal.methods import Context, MeanTeacher, Method, Supervised
from vicinal.methods.fast_swa import MeanTeacherFastSWA
from vicinal.schedules import decay
from vicinal.training.averaging import AveragingSettings
from vicinal.training.config import Training
from vicinal.vicinity import squared_error

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]


def routed(lab: Lab) -> dict[str, dict[str, bool]]:
    """For each term, which parameters its gradient moves."""
    student, teacher = lab.pair(dropout=0.5)
    method = lab.prepare(MeanTeacherFastSWA(), student)
    groups = {
        "body": list(student.body.parameters()),
        "class head": list(student.head.parameters()),
        "second head": list(method.second.parameters()),
        "teacher": list(teacher.requires_grad_().parameters()),
    }

    def moves(value: Tensor, parameters: list[nn.Parameter]) -> bool:
        found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        return any(part is not None and bool(part.any()) for part in found)

    terms = lab.loss(method, student, teacher)
    return {name: {group: moves(term.value, p) for group, p in groups.items()} for name, term in terms.items()}


def gradients_go_their_way(lab: Lab) -> None:
    """Consistency teaches the second head and the body, labels the class head and the body, the distance all three."""
    assert routed(lab) == {
        "supervised": {"body": True, "class head": True, "second head": False, "teacher": False},
        "consistency": {"body": True, "class head": False, "second head": True, "teacher": False},
        "logit_distance": {"body": True, "class head": True, "second head": True, "teacher": False},
    }


def terms_are_the_equation(lab: Lab) -> None:
    student, teacher = lab.pair()
    method = lab.prepare(MeanTeacherFastSWA(), student)
    found = lab.terms(method, student, teacher)
    features = student.features(lab.u[0])
    first, second = student.head(features), method.second(features)
    expected = {
        "supervised": nn.functional.cross_entropy(student(lab.x), lab.y),
        "consistency": squared_error(teacher(lab.u[1]).softmax(dim=1), second).mean(),
        "logit_distance": ((first - second) ** 2).sum() / (8 * 4),
    }
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].value, value)


def distance_pulls_both_heads_alike(lab: Lab) -> None:
    """Its gradients on the two heads' biases are opposite, and not zero."""
    student, teacher = lab.pair()
    method = lab.prepare(MeanTeacherFastSWA(), student)
    value = lab.loss(method, student, teacher)["logit_distance"].value
    first, second = torch.autograd.grad(value, [student.head.bias, method.second.bias], allow_unused=True)
    assert first is not None
    assert second is not None
    assert first.abs().max() > 1e-3
    torch.testing.assert_close(first, -second)


def one_head_is_mean_teacher(lab: Lab) -> None:
    """With the class head as second head the loss is Mean Teacher's, to the bit, and the distance 0."""
    student, teacher = lab.pair(dropout=0.5)
    method = lab.prepare(MeanTeacherFastSWA(weight=100.0, ramp_length=0.27), student)
    method.second = student.head
    found = lab.terms(method, student, teacher)
    expected = lab.terms(MeanTeacher(), student, teacher)
    assert found.pop("logit_distance").value.item() == 0.0
    assert {name: (term.value.item(), term.weight) for name, term in found.items()} == {
        name: (term.value.item(), term.weight) for name, term in expected.items()
    }


def without_weights_it_is_supervised(lab: Lab) -> None:
    method = MeanTeacherFastSWA(weight=0.0, logit_weight=0.0)
    (student, teacher), other = lab.pair(dropout=0.5), lab.network(dropout=0.5)
    found = lab.gradient(lab.total(lab.loss(method, student, teacher)), student)
    assert torch.equal(found, lab.gradient(lab.total(lab.loss(Supervised(), other)), other))


def one_head(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: MeanTeacherFastSWA, context: Context) -> None:
        self.second = context.network.head

    patch.setattr(MeanTeacherFastSWA, "prepare", wrong)


def changed_logits(change: Callable[[Any], None]) -> Mutation:
    """The mutation of what the logit distance sees of the two heads."""
    original = MeanTeacher.loss

    def wrong(self: MeanTeacher, step: Any) -> Any:
        terms = original(self, step)
        if isinstance(self, MeanTeacherFastSWA):
            change(step.student)
        return terms

    return lambda patch: patch.setattr(MeanTeacher, "loss", wrong)


def detached(student: Any) -> None:
    student.first = student.first.detach()


def probabilities(student: Any) -> None:
    student.first, student.other = student.first.softmax(dim=1), student.other.softmax(dim=1)


def biased(student: Any) -> None:
    student.first = student.first + 0.1


def first_head_learns(patch: pytest.MonkeyPatch) -> None:
    """Mutation: consistency on the class head."""
    patch.setattr("vicinal.methods.fast_swa._TwoHeaded.__call__", _class_head)


def _class_head(self: Any, x: Tensor) -> Tensor:
    parts = self.parts(x)
    self.first, self.other = parts.logits, self.second_head(parts.features)
    return self.first


def never_weightless(patch: pytest.MonkeyPatch) -> None:
    original = MeanTeacherFastSWA.loss

    def wrong(self: MeanTeacherFastSWA, step: Any) -> Any:
        terms = original(self, step)
        terms["logit_distance"] = terms["logit_distance"]._replace(weight=1e-3)
        return terms

    patch.setattr(MeanTeacherFastSWA, "loss", wrong)


CHECKS = [
    pytest.param(gradients_go_their_way, one_head, id="routing | one head for both"),
    pytest.param(gradients_go_their_way, first_head_learns, id="routing | consistency on the class head"),
    pytest.param(gradients_go_their_way, changed_logits(detached), id="routing | distance one way"),
    pytest.param(terms_are_the_equation, changed_logits(probabilities), id="equation | distance of probabilities"),
    pytest.param(terms_are_the_equation, first_head_learns, id="equation | consistency on the class head"),
    pytest.param(distance_pulls_both_heads_alike, changed_logits(detached), id="both ways | one way"),
    pytest.param(one_head_is_mean_teacher, changed_logits(biased), id="Mean Teacher | heads apart"),
    pytest.param(without_weights_it_is_supervised, never_weightless, id="supervised limit | distance stays"),
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
    holds(lab, MeanTeacherFastSWA())


def test_ledger_and_cost(lab: Lab) -> None:
    method = MeanTeacherFastSWA()
    assert str(method.passes()) == "f+F+T+b+B"
    passes_are_declared(lab, method)
    ledger_is(lab, method, "f* F*", "F*")


def test_ledger_sees_a_pass_more(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    changed_logits(lambda student: student(lab.u[0].clone()))(monkeypatch)
    with pytest.raises(AssertionError):
        ledger_is(lab, MeanTeacherFastSWA(), "f* F*", "F*")


def test_published_weights_beside_a_mean_over_labelled_examples() -> None:
    """Published: cross-entropy over 50 labelled examples, divided by the batch of 100."""
    method = MeanTeacherFastSWA()
    assert (method.weight, method.logit_weight) == (100 * 100 / 50, 0.01 * 100 / 50)
    assert method.ramp_length * 1200 == pytest.approx(5)
    assert MeanTeacher().weight != method.weight


def test_published_schedule_and_snapshots() -> None:
    """The cosine's end from epoch 150 to 180 is repeated every 30; snapshots every 3 epochs from 150."""
    training = Training(steps=1200, learning_rate=0.1, **MeanTeacherFastSWA.experiment["training"])
    averaging = AveragingSettings(**MeanTeacherFastSWA.experiment["averaging"])
    assert averaging.kind == "swa"
    assert averaging.refresh == 101
    due = [done for done in range(1, 1201) if averaging.is_due(done, 1200)]
    assert due[:3] == [150, 153, 156]
    assert due[-1] == 1200
    rate = decay(training.schedule, steps=1200, cycle=training.cycle)
    assert [round(0.1 * rate(epoch), 4) for epoch in (150, 180, 210, 1170)] == [0.0188] * 4
    assert round(0.1 * rate(179), 3) == 0.005
    assert round(0.1 * decay("cosine", steps=1200)(180), 4) != 0.0188


def test_its_head_trains_with_the_network(lab: Lab) -> None:
    student = lab.network()
    method = lab.prepare(MeanTeacherFastSWA(), student)
    assert {name for name, _ in method.named_parameters()} == {"second.weight", "second.bias"}
    assert [p.shape for p in method.trained()] == [p.shape for p in student.head.parameters()]
    first = method.second
    lab.prepare(method, student, again=True)
    assert method.second is not first
    assert not any(own is other for own in method.parameters() for other in student.parameters())
