"""Adversarial training: the ball, the bounds, closed forms for linear models; each check fails under its mutation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.lab import ImageLab, Lab
from support.properties import PROPERTIES, ledger_is, passes_are_declared
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.methods import Method, Supervised
from vicinal.methods.adversarial_training import FGSMTraining, PGDTraining
from vicinal.networks import TRAIN, run
from vicinal.settings import parse_settings
from vicinal.vicinity import cross_entropy
from vicinal.vicinity.projected import projected_ascent

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

EPSILON = 0.3
ROWS = [
    (PGDTraining(), "11f+b+10x", "f f f f f f f f f f f*"),
    (PGDTraining(steps=3, norm="l2", search="eval"), "4f+b+3x", "f f f f*"),
    (FGSMTraining(), "2f+b+x", "f f*"),
    (PGDTraining(epsilon=0), "f+b", "f*"),
]


def images() -> Lab:
    """A lab whose labelled images lie in [0,1], some pixels at the bounds."""
    lab = ImageLab()
    lab.x = (0.5 + lab.x).clamp(0, 1)
    return lab


def seen(lab: Lab, method: Method, student: nn.Module) -> Tensor:
    """The examples that the student learns from."""
    return lab.record(method, student)[-1].x.detach()


def losses(lab: Lab, network: nn.Module, x: Tensor) -> Tensor:
    return cross_entropy(lab.y, network(x)).detach()


def examples_stay_in_the_ball_and_the_bounds(lab: Lab) -> None:
    for norm in ("linf", "l2"):
        for steps in (1, 4):
            lab = images()
            x = seen(lab, PGDTraining(epsilon=EPSILON, norm=norm, steps=steps), lab.network())
            moved = (x - lab.x).flatten(1)
            sizes = moved.abs().amax(dim=1) if norm == "linf" else moved.norm(dim=1)
            assert (sizes <= EPSILON + 1e-6).all()
            assert (sizes > EPSILON / 2).all()
            assert x.min() >= 0
            assert x.max() <= 1


def fast_gradient_of_a_linear_model(lab: Lab) -> None:
    """r = epsilon sign( W^T (p - e_y) ) and, in L2, epsilon times its direction."""
    student = lab.linear()
    p = student(lab.x).detach().softmax(dim=1)
    gradient = (p - nn.functional.one_hot(lab.y, 4)) @ student.head.weight.detach()
    for norm, r in (("linf", gradient.sign()), ("l2", gradient / gradient.norm(dim=1, keepdim=True))):
        found = seen(lab, FGSMTraining(epsilon=EPSILON, norm=norm), student) - lab.x
        torch.testing.assert_close(found, (EPSILON * r).float(), atol=1e-5, rtol=0)


def two_classes_fall_within_epsilon_of_the_boundary(lab: Lab) -> None:
    """A binary linear model errs on adversarial examples exactly where the margin is less than epsilon |w|_1."""
    lab = Lab(labelled=8)
    lab.y = lab.y % 2
    student = lab.linear()
    student.head.weight.data[2:], student.head.bias.data[2:] = 0.0, -1e3  # the other classes are out
    w = (student.head.weight[1] - student.head.weight[0]).detach()
    margin = (student(lab.x)[:, 1] - student(lab.x)[:, 0]).detach() * (2 * lab.y - 1)
    reach = (margin / w.abs().sum()).sort().values.tolist()
    epsilon = (max(reach[0], 0.0) + reach[-1]) / 2
    expected = margin < epsilon * w.abs().sum()
    assert 0 < expected.sum() < 8
    for method in (FGSMTraining(epsilon=epsilon), PGDTraining(epsilon=epsilon)):
        wrong = student(seen(lab, method, student)).argmax(dim=1) != lab.y
        assert torch.equal(wrong, expected)


def more_steps_find_worse(lab: Lab) -> None:
    """Mean loss: clean < FGSM < PGD, in eval mode, where nothing but the input varies."""
    student = lab.network(norm="none")
    settings = {"epsilon": 1.0, "search": "eval"}
    clean = losses(lab, student, lab.x).mean()
    one = losses(lab, student, seen(lab, FGSMTraining(**settings), student)).mean()
    many = losses(lab, student, seen(lab, PGDTraining(**settings), student)).mean()
    assert clean < one < many


def no_radius_is_supervised(lab: Lab) -> None:
    """Bit for bit, and only then: dropout draws and running statistics are those of the plain step too."""
    for method in (PGDTraining(epsilon=0), FGSMTraining(epsilon=0)):
        student, other = lab.network(dropout=0.5), lab.network(dropout=0.5)
        found = lab.gradient(lab.total(lab.loss(method, student)), student)
        assert torch.equal(found, lab.gradient(lab.total(lab.loss(Supervised(), other)), other))
        assert [b.tolist() for b in student.buffers()] == [b.tolist() for b in other.buffers()]


def random_starts_are_the_steps_own(lab: Lab) -> None:
    """Where no gradient leads anywhere, the start is what remains: inside the ball, by the step's seed, or none."""
    student = lab.network(norm="none")
    for parameter in student.parameters():
        parameter.data.zero_()
    first, again, other = (
        lab.record(PGDTraining(epsilon=EPSILON), student, seed=seed)[-1].x - lab.x for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0 < first.abs().max() <= EPSILON + 1e-6
    assert torch.equal(seen(lab, PGDTraining(epsilon=EPSILON, random_start=False), student), lab.x)


def searches_run_in_their_mode(lab: Lab) -> None:
    for search in ("train", "eval"):
        modes: list[bool] = []
        student = lab.network(dropout=0.5)
        student.register_forward_pre_hook(lambda network, _, modes=modes: modes.append(network.training))
        lab.loss(PGDTraining(search=search, steps=2), student)
        assert modes == [search == "train"] * 2 + [True]


def steps_add_up(lab: Lab) -> None:
    """On a linear model ten steps of 0.25 epsilon reach the fast gradient's corner from any start in the ball."""
    student = lab.linear()
    corner = seen(lab, FGSMTraining(epsilon=EPSILON), student)
    torch.testing.assert_close(seen(lab, PGDTraining(epsilon=EPSILON), student), corner, atol=1e-5, rtol=0)


def ascent(**changed: Any) -> Mutation:
    """The mutation of an argument of the search; ``sign`` turns its objective round."""
    sign = changed.pop("sign", 1)

    def wrong(objective: Any, x: Tensor, **given: Any) -> Tensor:
        changes = {name: value(given[name]) for name, value in changed.items()}
        return projected_ascent(lambda v: sign * objective(v), x, **{**given, **changes})

    return lambda patch: patch.setattr("vicinal.methods.adversarial_training.projected_ascent", wrong)


def always_searching(patch: pytest.MonkeyPatch) -> None:
    original = PGDTraining.loss

    def wrong(self: PGDTraining, step: Any) -> Any:
        step.student(step.x)
        return original(self, step)

    patch.setattr(PGDTraining, "loss", wrong)


def trained_mode(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("vicinal.methods.step.run", lambda n, x, p, **rest: run(n, x, replace(p, mode="train"), **rest))


def another_seed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "vicinal.methods.adversarial_training.random_start", lambda x, norm, epsilon, _: epsilon * torch.rand_like(x)
    )


CHECKS = [
    pytest.param(
        examples_stay_in_the_ball_and_the_bounds, ascent(bounds=lambda _: None), id="bounds | images are not clipped"
    ),
    pytest.param(
        examples_stay_in_the_ball_and_the_bounds, ascent(epsilon=lambda e: 2 * e), id="ball | of twice the radius"
    ),
    pytest.param(fast_gradient_of_a_linear_model, ascent(sign=-1), id="closed form | descent"),
    pytest.param(fast_gradient_of_a_linear_model, ascent(norm=lambda _: "linf"), id="closed form | sign throughout"),
    pytest.param(
        two_classes_fall_within_epsilon_of_the_boundary, ascent(step_size=lambda s: s / 10), id="margins | short steps"
    ),
    pytest.param(more_steps_find_worse, ascent(steps=lambda _: 1), id="more steps | one step"),
    pytest.param(no_radius_is_supervised, always_searching, id="radius 0 | a pass more"),
    pytest.param(random_starts_are_the_steps_own, another_seed, id="random start | from the global generator"),
    pytest.param(searches_run_in_their_mode, trained_mode, id="mode | always train"),
    pytest.param(steps_add_up, ascent(steps=lambda s: s // 3), id="steps | too few to cross the ball"),
]


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_holds(check: Check, mutate: Mutation, lab: Lab) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_fails_when_mutated(check: Check, mutate: Mutation, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(lab)


@pytest.mark.parametrize("kind", [PGDTraining, FGSMTraining])
@pytest.mark.parametrize("holds", PROPERTIES)
def test_property(holds: Callable[[Lab, Method], None], kind: type[Method], lab: Lab) -> None:
    holds(lab, kind())


@pytest.mark.parametrize(("method", "cost", "row"), ROWS)
def test_ledger_and_cost(method: Method, cost: str, row: str, lab: Lab) -> None:
    assert str(method.passes()) == cost
    passes_are_declared(lab, method)
    ledger_is(lab, method, row)


def test_ledger_sees_a_search_that_updates(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vicinal.methods.adversarial_training.PassPolicy", lambda **_: TRAIN)
    with pytest.raises(AssertionError):
        ledger_is(lab, FGSMTraining(), "f f*")


@pytest.mark.parametrize(
    ("given", "shape", "expected"),
    [
        ("auto", ImageLab.shape, (0.0, 1.0)),
        ("auto", Lab.shape, None),
        ("none", ImageLab.shape, None),
        ([-1, 1], Lab.shape, (-1.0, 1.0)),
    ],
)
def test_bounds(given: Any, shape: tuple[int, ...], expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def noted(objective: Any, x: Tensor, **settings: Any) -> Tensor:
        found.append(settings["bounds"])
        return x

    monkeypatch.setattr("vicinal.methods.adversarial_training.projected_ascent", noted)
    lab = ImageLab() if len(shape) == 3 else Lab()
    lab.loss(PGDTraining(**parse_settings("method", PGDTraining, {"bounds": given})), lab.network())
    assert found == [expected]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"epsilon": -1}, "epsilon"),
        ({"steps": 0}, "steps"),
        ({"step_size": 0}, "step_size"),
        ({"norm": "l1"}, "norm"),
        ({"bounds": (1.0, 0.0)}, "bounds"),
    ],
)
def test_bad_settings(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        PGDTraining(**settings)
