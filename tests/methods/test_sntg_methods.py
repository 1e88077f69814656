"""What each of SNTG's four methods gives it, and what it adds to them; with mutations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.lab import Lab
from support.properties import PROPERTIES, ledger_is, passes_are_declared
from torch import Tensor

from vicinal.methods import MeanTeacher, Method, Supervised, VATEntMin
from vicinal.methods.pi_model import PiModel
from vicinal.methods.sntg import (
    SNTG,
    MeanTeacherSNTG,
    PiSNTG,
    TemporalEnsemblingSNTG,
    VATEntMinSNTG,
    neighbour_loss,
)
from vicinal.methods.temporal_ensembling import TemporalEnsembling
from vicinal.networks import Parts

torch.set_num_threads(1)

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

FAMILY: dict[type[Method], type[Method]] = {
    PiSNTG: PiModel,
    TemporalEnsemblingSNTG: TemporalEnsembling,
    MeanTeacherSNTG: MeanTeacher,
    VATEntMinSNTG: VATEntMin,
}


def base_terms_are_unchanged(lab: Lab) -> None:
    """Bit for bit, dropout included; one term more, which weighs 0.4 times as much as the method's own."""
    for kind, base in FAMILY.items():
        student, teacher = lab.pair(dropout=0.5)
        found, expected = lab.terms(kind(), student, teacher), lab.terms(base(), student, teacher)
        assert list(found) == [*expected, "neighbours"]
        assert all(torch.equal(found[name].value, term.value) for name, term in expected.items())
        own = "smoothness" if "smoothness" in found else "consistency"
        assert found["neighbours"].weight == pytest.approx(0.4 * expected[own].weight)
        assert found["neighbours"].weight > 0


def weights_rise_with_the_consistency(lab: Lab) -> None:
    """0.4 of 100 exp(-5) at the start (Mean Teacher), 0 in the Pi-model's first epoch, 0.4 throughout with VAT."""
    student, teacher = lab.pair()
    weights = {
        kind: [lab.terms(kind(), student, teacher, at=at)["neighbours"].weight for at in (0, 99)] for kind in FAMILY
    }
    assert weights[PiSNTG] == pytest.approx([0, 40])
    assert weights[TemporalEnsemblingSNTG] == pytest.approx([12 * math.exp(-5), 12])
    assert weights[MeanTeacherSNTG] == pytest.approx([40 * math.exp(-5), 40])
    assert weights[VATEntMinSNTG] == pytest.approx([0.4, 0.4])


def given(lab: Lab, kind: type[Method], student: Any, teacher: Any) -> tuple[Tensor, Tensor]:
    """Features and classes that the pair loss gets, in the order before the permutation."""
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(features: Tensor, classes: Tensor, margin: float) -> Tensor:
        seen.append((features, classes))
        return neighbour_loss(features, classes, margin)

    method = kind()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vicinal.methods.sntg.neighbour_loss", spy)
        lab.terms(method, student, teacher)
        if isinstance(method, TemporalEnsembling):
            assert seen.pop()[1].sort().values.tolist()[:8] == [-1] * 8
            method.times[lab.u_index[0]] = 0
            lab.terms(method, student, teacher, u=lab.other_u)
    order = torch.randperm(13, generator=lab.step(student).generator("pairs"))
    (drawn, classes), back = seen[0], order.argsort()
    return drawn[back], classes[back]


def classes_are_labels_and_teachers_output(lab: Lab) -> None:
    """Pi: second branch; temporal ensembling: the bank before this step; Mean Teacher: the average; VAT: clean."""
    student, teacher = lab.pair()
    (a, b) = lab.u
    bank = student(a).argmax(dim=1)
    bank[0] = -1
    outputs = {
        PiSNTG: student(b).argmax(dim=1),
        TemporalEnsemblingSNTG: bank,
        MeanTeacherSNTG: teacher(b).argmax(dim=1),
        VATEntMinSNTG: student(a).argmax(dim=1),
    }
    for kind, expected in outputs.items():
        assert torch.equal(given(lab, kind, student, teacher)[1], torch.cat([lab.y, expected]))


def features_are_those_of_the_first_passes(lab: Lab) -> None:
    """The student's on labelled and unlabelled examples, with a gradient to both."""
    student, teacher = lab.pair()
    for kind in FAMILY:
        u = lab.other_u[0] if kind is TemporalEnsemblingSNTG else lab.u[0]
        found, _ = given(lab, kind, student, teacher)
        torch.testing.assert_close(found, torch.cat([student.features(lab.x), student.features(u)]))
        assert found.requires_grad


def pairs_teach_the_body_alone(lab: Lab) -> None:
    """No gradient through the classes to any head, none to the teacher; labelled and unlabelled features get one."""
    for kind in FAMILY:
        method = kind()
        student, teacher = lab.pair()
        lab.loss(method, student, teacher)
        x, u = lab.x.clone().requires_grad_(), [u.clone().requires_grad_() for u in lab.u]
        kept, lab.x = lab.x, x
        value = lab.loss(method, student, teacher.requires_grad_(), u=tuple(u))["neighbours"].value
        lab.x = kept
        assert value.requires_grad
        value.backward()
        assert all(p.grad is None for p in (*teacher.parameters(), *student.head.parameters()))
        assert all(p.grad is not None and p.grad.any() for p in student.body.parameters() if p.dim() > 1)
        assert x.grad is not None
        assert u[0].grad is not None


def without_weights_they_are_supervised(lab: Lab) -> None:
    other = lab.network(dropout=0.5)
    expected = lab.gradient(lab.total(lab.loss(Supervised(), other)), other)
    for kind in FAMILY:
        student, teacher = lab.pair(dropout=0.5)
        zero = {"weight": 0.0, **({"entropy_weight": 0.0} if kind is VATEntMinSNTG else {})}
        assert torch.equal(lab.gradient(lab.total(lab.loss(kind(**zero), student, teacher)), student), expected)


def another_pass(patch: pytest.MonkeyPatch) -> None:
    """Mutation: features from a pass of their own."""
    original = SNTG.loss
    patch.setattr(
        SNTG, "loss", lambda self, step: step.student.features(step.u[0]) is not None and original(self, step)
    )


def with_judge(wrong: Callable[..., Any]) -> Mutation:
    """The mutation of what counts as the teacher's output."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        for kind in FAMILY:
            patch.setattr(kind, "_judge", wrong)

    return mutate


def by_first_branch(self: SNTG, step: Any, student: Any, teacher: Any) -> Callable[[], Tensor]:
    return lambda: student.judged(1)


def keeping(change: Callable[[Parts], Parts]) -> Mutation:
    """The mutation of what is kept of each pass."""

    def wrong(self: Any, x: Tensor, *args: Any, **settings: Any) -> Tensor:
        made = self.parts(x, *args, **settings)
        self.made.append(change(made))
        return made.logits

    return lambda patch: patch.setattr("vicinal.methods.sntg._Kept.__call__", wrong)


def another_weight(patch: pytest.MonkeyPatch) -> None:
    original = SNTG.__post_init__

    def wrong(self: SNTG) -> None:
        original(self)
        self.neighbour_weight = 1.0

    patch.setattr(SNTG, "__post_init__", wrong)


def constant_weight(patch: pytest.MonkeyPatch) -> None:
    original = SNTG.loss

    def wrong(self: SNTG, step: Any) -> Any:
        terms = original(self, step)
        return terms | {"neighbours": terms["neighbours"]._replace(weight=0.4)}

    patch.setattr(SNTG, "loss", wrong)


CHECKS = [
    pytest.param(base_terms_are_unchanged, another_pass, id="base | a pass more moves the masks"),
    pytest.param(base_terms_are_unchanged, another_weight, id="base | weight 1"),
    pytest.param(weights_rise_with_the_consistency, constant_weight, id="weights | constant"),
    pytest.param(classes_are_labels_and_teachers_output, with_judge(by_first_branch), id="classes | first branch"),
    pytest.param(
        features_are_those_of_the_first_passes,
        keeping(lambda made: made._replace(features=2 * made.features)),
        id="features | others",
    ),
    pytest.param(
        pairs_teach_the_body_alone,
        keeping(lambda made: made._replace(features=made.logits)),
        id="routing | logits as features",
    ),
    pytest.param(
        pairs_teach_the_body_alone,
        keeping(lambda made: made._replace(features=made.features.detach())),
        id="routing | detached",
    ),
    pytest.param(without_weights_they_are_supervised, constant_weight, id="supervised limit | weight stays"),
]


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_holds(check: Check, mutate: Mutation, lab: Lab) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_fails_when_mutated(check: Check, mutate: Mutation, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(lab)


ROWS = [
    (PiSNTG(), "f+2F+b+2B", "f* F F*", ""),
    (PiSNTG(detach=True), "f+2F+b+B", "f* F F*", ""),
    (TemporalEnsemblingSNTG(), "f+F+b+B", "f* F*", ""),
    (MeanTeacherSNTG(), "f+F+T+b+B", "f* F*", "F*"),
    (VATEntMinSNTG(), "f+3F+b+2B+X", "f* F F F", ""),
    (VATEntMinSNTG(entropy_weight=0.0), "f+3F+b+2B+X", "f* F F F", ""),
    (VATEntMinSNTG(space="input", iterations=2), "f+4F+b+2B+2X", "f* F F F F", ""),
]


@pytest.mark.parametrize(("method", "cost", "student", "teacher"), ROWS)
def test_ledger_and_cost(method: Method, cost: str, student: str, teacher: str, lab: Lab) -> None:
    """No pass more than the method itself makes."""
    assert str(method.passes()) == cost
    passes_are_declared(lab, method)
    ledger_is(lab, method, student, teacher)


def test_ledger_sees_a_pass_more(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    another_pass(monkeypatch)
    with pytest.raises(AssertionError):
        ledger_is(lab, PiSNTG(), "f* F F*")


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("holds", PROPERTIES)
def test_property(holds: Callable[[Lab, Method], None], kind: type[Method], lab: Lab) -> None:
    holds(lab, kind())


def test_what_is_evaluated() -> None:
    """A moving average of the weights, where no teacher is one; the Pi-model keeps its shared flips."""
    assert all(kind.needs.features for kind in FAMILY)
    averaged = {kind for kind in FAMILY if kind.experiment.get("averaging") == {"kind": "ema"}}
    assert averaged == {PiSNTG, TemporalEnsemblingSNTG, VATEntMinSNTG}
    assert PiSNTG.experiment["augment"] == PiModel.experiment["augment"]
    assert not PiModel.experiment.get("averaging")


def test_settings_are_checked_by_both() -> None:
    for kind in FAMILY:
        for settings, message in (({"margin": 0.0}, "margin must"), ({"weight": -1.0}, "weight must")):
            with pytest.raises(ValueError, match=message):
                kind(**settings)
