"""The Pi-model: its equation, symmetry, gradients, statistics and published constants; with mutations."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.lab import Lab
from support.properties import PROPERTIES, ledger_is, passes_are_declared
from torch import Tensor, nn

from vicinal.data import Augment, views
from vicinal.methods import Method, Supervised
from vicinal.methods.pi_model import PiModel
from vicinal.networks import EVAL
from vicinal.schedules import Progress
from vicinal.vicinity import kl, squared_error

torch.set_num_threads(1)

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing in the library."""
    return lambda patch: patch.setattr(f"vicinal.{target}", value)


def consistency(lab: Lab, method: PiModel, **step: Any) -> tuple[float, Tensor]:
    """The term and its gradient."""
    student = lab.network()
    value = lab.loss(method, student, **step)["consistency"].value
    return value.item(), lab.gradient(value, student)


def is_its_equation(lab: Lab) -> None:
    student = lab.network()
    (a, b), found = lab.u, lab.terms(PiModel(), student)
    difference = student(a).softmax(dim=1) - student(b).softmax(dim=1)
    assert list(found) == ["supervised", "consistency"]
    torch.testing.assert_close(found["consistency"].value, (difference**2).sum() / (8 * 4))
    torch.testing.assert_close(found["supervised"].value, nn.functional.cross_entropy(student(lab.x), lab.y))


def without_noise_it_is_zero(lab: Lab) -> None:
    """One view, no dropout: no loss and no gradient, though batch norm uses the statistics of the batch."""
    (u, _) = lab.u
    value, gradient = consistency(lab, PiModel(), u=(u, u))
    assert value == 0.0
    assert not gradient.any()
    assert lab.terms(PiModel(), lab.network(dropout=0.5), u=(u, u))["consistency"].value > 1e-3


def branches_are_symmetric(lab: Lab) -> None:
    (a, b) = lab.u
    (value, gradient), (swapped, other) = (consistency(lab, PiModel(), u=u) for u in ((a, b), (b, a)))
    assert value == pytest.approx(swapped, rel=1e-6)
    torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-8)


def detaching_halves_the_expected_gradient(lab: Lab) -> None:
    """Published check: ratio 1.999. Here the expectation is the mean over both orders of the views."""
    (a, b) = lab.u
    whole = consistency(lab, PiModel(), u=(a, b))[1]
    halves = [consistency(lab, PiModel(detach=True), u=u)[1] for u in ((a, b), (b, a))]
    expected = (halves[0] + halves[1]) / 2
    assert float(whole @ expected / expected.square().sum()) == pytest.approx(1.999, abs=2e-3)
    assert not torch.allclose(halves[0], halves[1], rtol=0.1)


def detached_target_is_a_constant(lab: Lab) -> None:
    student = lab.network()
    target = copy.deepcopy(student)(lab.u[1]).detach().softmax(dim=1)
    expected = lab.gradient(squared_error(target, student(lab.u[0])).mean(), student)
    torch.testing.assert_close(consistency(lab, PiModel(detach=True))[1], expected)


def weight_starts_at_zero_and_rises(lab: Lab) -> None:
    """0 in the first of 300 epochs, where the ramp alone would be exp(-5) = 0.0067; 100 from the 80th on."""

    def weight(at: int) -> float:
        step = lab.step(lab.network(), views=2)
        object.__setattr__(step, "progress", Progress(at, 300))
        return PiModel().loss(step)["consistency"].weight

    assert weight(0) == 0.0
    assert weight(1) == pytest.approx(100 * math.exp(-5 * (79 / 80) ** 2))
    assert weight(80) == weight(299) == 100.0
    assert PiModel(delay=0.0).loss(lab.step(lab.network(), views=2, at=0))["consistency"].weight == pytest.approx(
        100 * 0.0067, abs=5e-3
    )


def without_weight_it_is_supervised(lab: Lab) -> None:
    student, other = lab.network(dropout=0.5), lab.network(dropout=0.5)
    found = lab.gradient(lab.total(lab.loss(PiModel(weight=0.0), student)), student)
    assert torch.equal(found, lab.gradient(lab.total(lab.loss(Supervised(), other)), other))


def statistics_are_those_of_labels_and_second_branch(lab: Lab) -> None:
    """Running statistics are bit-equal to those after plain passes on these batches."""
    for method, batches in (
        (PiModel(), (lab.x, lab.u[1])),
        (PiModel(detach=True), (lab.x, lab.u[1])),
        (PiModel(stats="both"), (lab.x, *lab.u)),
    ):
        student, plain = lab.network(), lab.network()
        lab.loss(method, student)
        for batch in batches:
            plain(batch)
        assert [buffer.tolist() for buffer in student.buffers()] == [buffer.tolist() for buffer in plain.buffers()]


def duplicated_batch_changes_nothing(lab: Lab) -> None:
    """Each example twice in both views: the same loss and gradient, batch statistics included."""
    value, gradient = consistency(lab, PiModel())
    again, other = consistency(lab, PiModel(), u=tuple(torch.cat([u, u]) for u in lab.u))
    assert again == pytest.approx(value, rel=1e-5)
    torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-7)


def flips_are_shared(lab: Lab) -> None:
    """The experiment starts from an augmentation under which both views are flipped alike, and moved each its own."""
    x = torch.randn(64, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    config = Augment(flip=True, **PiModel.experiment["augment"])
    draws = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    first, second = views(x, config, 2, draws)
    assert torch.equal(first, second)
    assert not torch.equal(first, x)
    moved = views(x, Augment(flip=True, crop=1, share_flip=True), 2, draws)
    assert not torch.equal(*moved)


def summed(target: Tensor, logits: Tensor) -> Tensor:
    return squared_error(target, logits) * logits.shape[1]


def total(target: Tensor, logits: Tensor) -> Tensor:
    return squared_error(target, logits).sum()


def halved(target: Tensor, logits: Tensor) -> Tensor:
    return squared_error(target.detach(), logits)


def never_weightless(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("vicinal.methods.pi_model.ramp", lambda *args: 1.0)
    patch.setattr(PiModel, "weight", property(lambda self: 1e-3, lambda self, value: None), raising=False)


CHECKS = [
    pytest.param(is_its_equation, patched("methods.pi_model.squared_error", summed), id="equation | sum over classes"),
    pytest.param(without_noise_it_is_zero, patched("methods.pi_model.FROZEN_STATS", EVAL), id="no noise | a in eval"),
    pytest.param(branches_are_symmetric, patched("methods.pi_model.squared_error", kl), id="symmetry | KL"),
    pytest.param(branches_are_symmetric, patched("methods.pi_model.squared_error", halved), id="symmetry | detached"),
    pytest.param(
        detaching_halves_the_expected_gradient,
        patched("methods.pi_model.squared_error", halved),
        id="ratio 1.999 | always detached",
    ),
    pytest.param(
        detached_target_is_a_constant,
        patched(
            "methods.pi_model.torch",
            SimpleNamespace(set_grad_enabled=lambda flag: nullcontext(), is_grad_enabled=lambda: True),
        ),
        id="detach | ignored",
    ),
    pytest.param(
        weight_starts_at_zero_and_rises,
        patched("schedules.Progress.fraction", property(lambda self: 1.0)),
        id="w(0) = 0 | the ramp alone",
    ),
    pytest.param(without_weight_it_is_supervised, never_weightless, id="supervised limit | weight above 0"),
    pytest.param(
        statistics_are_those_of_labels_and_second_branch,
        patched("methods.pi_model.FROZEN_STATS", None),
        id="statistics | both branches",
    ),
    pytest.param(
        duplicated_batch_changes_nothing,
        patched("methods.pi_model.squared_error", total),
        id="scale | sum over examples",
    ),
    pytest.param(
        flips_are_shared,
        lambda patch: patch.setattr(PiModel, "experiment", {"augment": {"share_flip": False}}),
        id="flips | each its own",
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
@pytest.mark.parametrize("settings", [{}, {"detach": True}, {"stats": "both"}], ids=str)
def test_property(holds: Callable[[Lab, Method], None], settings: dict[str, Any], lab: Lab) -> None:
    holds(lab, PiModel(**settings))


ROWS = [
    (PiModel(), "f+2F+b+2B", "f* F F*"),
    (PiModel(detach=True), "f+2F+b+B", "f* F F*"),
    (PiModel(stats="both"), "f+2F+b+2B", "f* F* F*"),
]


@pytest.mark.parametrize(("method", "cost", "student"), ROWS)
def test_ledger_and_cost(method: PiModel, cost: str, student: str, lab: Lab) -> None:
    assert str(method.passes()) == cost
    passes_are_declared(lab, method)
    ledger_is(lab, method, student)


def test_ledger_sees_the_first_branch(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vicinal.methods.pi_model.FROZEN_STATS", None)
    with pytest.raises(AssertionError):
        ledger_is(lab, PiModel(), "f* F F*")


@pytest.mark.parametrize(("stated", "labelled", "rows"), [(8.0, 4000, 50000), (0.683, 500, 73257)])
def test_published_weight_beside_a_mean_over_labelled_examples(stated: float, labelled: int, rows: int) -> None:
    """Stated weights stand beside a cross-entropy over the labelled share of a batch: CIFAR-10 and SVHN."""
    assert stated * rows / labelled == pytest.approx(PiModel().weight, rel=1e-3)


def test_published_times() -> None:
    assert PiModel().ramp_length * 300 == pytest.approx(80)
    assert PiModel().delay * 300 == pytest.approx(1)
