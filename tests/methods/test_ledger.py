"""The ledger of batch norm: which pass of which method may move running statistics, and that nothing else moves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support import properties
from torch import Tensor, nn

from vicinal.methods import ICT, METHODS, VAT, AdvMixup, MeanTeacher, Mixup, Supervised, VATEntMin
from vicinal.methods.base import Method
from vicinal.networks import run
from vicinal.training.teacher import Teacher, TeacherSettings

Check = Callable[[Any], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def statistics(update: bool) -> Mutation:
    """The mutation under which every pass updates running statistics, or none does."""

    def wrong(network: nn.Module, x: Tensor, policy: Any, **rest: Any) -> Tensor:
        return run(network, x, replace(policy, update_stats=update), **rest)

    return lambda patch: patch.setattr("vicinal.methods.step.run", wrong)


frozen, thawed = statistics(False), statistics(True)

# Passes in their order: f on the labelled batch, F on the unlabelled one; a star where running statistics move.
LEDGER = [
    ("supervised", Supervised(), "f*", "", frozen),
    ("mixup", Mixup(), "f*", "", frozen),
    ("mean teacher", MeanTeacher(), "f* F*", "F*", frozen),
    ("vat", VAT(), "f* F F F", "", thawed),
    ("vat, two steps", VAT(iterations=2), "f* F F F F", "", thawed),
    ("vat, exact", VAT(search="gauss_newton"), "f* F F F", "", thawed),
    ("vat, fresh masks", VAT(masks="fresh"), "f* F F F", "", thawed),
    ("vat+entmin", VATEntMin(), "f* F F F", "", thawed),
    ("ict", ICT(), "f* F*", "F*", frozen),
    ("ict, labelled not mixed", ICT(mix_labelled=False), "f* F*", "F*", frozen),
    ("ict, logging", ICT(logging_passes=True), "f* F* f* F*", "F* f*", frozen),
    ("advmixup", AdvMixup(), "f* F F*", "F*", thawed),
    ("advmixup, three steps", AdvMixup(iterations=3, space="input"), "f* F F F F*", "F*", thawed),
    ("advmixup, both adversarial", AdvMixup(pairing="adversarial-adversarial"), "f* F F*", "F*", thawed),
    ("advmixup, no radius", AdvMixup(epsilon=0), "f* F*", "F*", frozen),
]


def ledger(method: Method, student_row: str, teacher_row: str) -> Check:
    """The passes are those, and each star is one more batch in the counters of batch norm."""
    return lambda lab: properties.ledger_is(lab, copy.deepcopy(method), student_row, teacher_row)


def teachers_keep_their_books(lab: Any) -> None:
    """A teacher gathers its own statistics only where it is told to."""
    for settings, row in (
        (TeacherSettings(), "F*"),
        (TeacherSettings(buffers="copy"), "F"),
        (TeacherSettings(buffers="average"), "F"),
        (TeacherSettings(mode="eval"), "F"),
    ):
        for name in ("mean_teacher", "ict", "advmixup"):
            student = lab.network()
            teacher = Teacher(student, settings).network
            made = lab.record(METHODS[name](), student, teacher, teacher_policy=settings.policy)
            assert properties.rows(made)[1] == row


def vat_statistics_are_the_labelled_ones(lab: Any) -> None:
    """After VAT, the running statistics are bit-equal to those after one plain pass on the labelled batch."""
    for method in (VAT(), VAT(iterations=3, masks="fresh"), VAT(search="gauss_newton"), VATEntMin()):
        student, plain = lab.network(), lab.network()
        lab.loss(method, student)
        plain(lab.x)
        assert buffers(student) == buffers(plain)


def advmixup_statistics_are_labelled_then_mixed(lab: Any) -> None:
    """And after AdvMixup, to those after plain passes on the labelled and on the mixed batch."""
    student, teacher = lab.pair()
    plain = copy.deepcopy(student)
    mixed = lab.record(AdvMixup(iterations=2), student, teacher)[-1].x
    plain(lab.x)
    plain(mixed)
    assert buffers(student) == buffers(plain)


def buffers(network: nn.Module) -> list[Any]:
    return [buffer.tolist() for buffer in network.buffers()]


def nothing_else_changes(lab: Any) -> None:
    """In any method: momentum, flags, parameters and their gradients are what they were before the loss."""
    for kind in METHODS.values():
        if kind.trains != "classifier":
            continue
        method = kind()
        properties.nothing_else_changes(lab.suited(method), method)


def momentum_reset(patch: pytest.MonkeyPatch) -> None:
    """Mutation: freeze as published codes do, by momentum 0, and set it back to 0.1 whatever it was."""

    def wrong(network: nn.Module, x: Tensor, policy: Any, **rest: Any) -> Tensor:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.momentum = 0.1
        return run(network, x, policy, **rest)

    patch.setattr("vicinal.methods.step.run", wrong)


def search_through_grad(patch: pytest.MonkeyPatch) -> None:
    """Mutation: search by a backward pass that also reaches the parameters."""

    def wrong(outputs: Tensor, inputs: Tensor) -> tuple[Tensor]:
        outputs.backward()
        assert inputs.grad is not None
        return (inputs.grad,)

    patch.setattr(torch.autograd, "grad", wrong)


IDENTITIES = [
    *(pytest.param(ledger(*row), mutate, id=name) for name, *row, mutate in LEDGER),
    pytest.param(teachers_keep_their_books, thawed, id="teacher's policies | all update"),
    pytest.param(teachers_keep_their_books, frozen, id="teacher's policies | none updates"),
    pytest.param(vat_statistics_are_the_labelled_ones, thawed, id="VAT's statistics | all passes update"),
    pytest.param(advmixup_statistics_are_labelled_then_mixed, thawed, id="AdvMixup's statistics | the search updates"),
    pytest.param(nothing_else_changes, momentum_reset, id="nothing else | momentum set to 0.1"),
    pytest.param(nothing_else_changes, search_through_grad, id="nothing else | search fills .grad"),
]


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_holds(check: Check, mutate: Mutation, lab: Any) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_fails_when_mutated(check: Check, mutate: Mutation, lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(lab)
