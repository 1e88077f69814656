"""The step of CT-GAN's generator: what it moves, what it costs, and that a resumed one is the same; with mutations."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.lab import ImageLab, Lab
from support.recorder import Recorder
from torch import nn

from vicinal.errors import InputError
from vicinal.methods import Cost
from vicinal.methods.ct_gan import CTGAN
from vicinal.networks import TRAIN

torch.set_num_threads(1)

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

SMALL = {"latent": 5, "width": 4}


def followed(lab: Lab, method: CTGAN, student: nn.Module, **step: Any) -> None:
    """The generator's step on its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        method.after_step(lab.step(student, **step))


def the_generators_step_is_its_own(lab: Lab) -> None:
    """Parameters, gradients, buffers and flags of the student stay; every parameter of the generator moves."""
    student = lab.network(dropout=0.5)
    method = lab.prepare(CTGAN(**SMALL), student)
    for parameter in student.parameters():
        parameter.grad = torch.full_like(parameter, 3)
    before, old = copy.deepcopy(student), copy.deepcopy(method.generator)
    followed(lab, method, student)
    for name, value in before.state_dict().items():
        assert torch.equal(student.state_dict()[name], value), name
    assert all(torch.equal(p.grad, torch.full_like(p, 3)) for p in student.parameters())
    assert [m.training for m in student.modules()] == [m.training for m in before.modules()]
    for (name, parameter), was in zip(method.generator.named_parameters(), old.parameters(), strict=True):
        assert not torch.equal(parameter, was), name
        assert parameter.grad is None


def the_generator_matches_features(lab: Lab) -> None:
    """Its first step is Adam's, 3e-4 against the sign of the gradient of mean_d | mean h(u) - mean h(G(z)) |."""
    student = lab.network()
    method = lab.prepare(CTGAN(**SMALL), student)
    old = [parameter.clone() for parameter in method.generator.parameters()]
    followed(lab, method, student)
    fresh = lab.network()
    again = lab.prepare(CTGAN(**SMALL), student)
    for parameter, was in zip(again.generator.parameters(), old, strict=True):
        assert torch.equal(parameter, was)
    draws = lab.step(student).generator("generated examples, the generator's step")
    z = again.generator.codes(8, draws, lab.u[0])
    distance = (fresh.features(lab.u[0]).mean(dim=0) - fresh.features(again.generator(z)).mean(dim=0)).abs().mean()
    gradients = torch.autograd.grad(distance, list(again.generator.parameters()))
    checked = 0
    for parameter, was, gradient in zip(method.generator.parameters(), old, gradients, strict=True):
        clear = gradient.abs() > 1e-5  # Adam's own epsilon is 1e-8
        torch.testing.assert_close((parameter - was)[clear], -3e-4 * gradient.sign()[clear], rtol=2e-3, atol=1e-7)
        checked += int(clear.sum())
    assert checked > 100


def resuming_changes_nothing(lab: Lab) -> None:
    """Generator after 6 steps, and after 3 and 3 with a file between: equal to the bit."""

    def steps(method: CTGAN, first: int, last: int) -> None:
        for at in range(first, last):
            followed(lab, method, student, at=at)

    student = lab.network(dropout=0.5)
    through, saved, loaded = (CTGAN(**SMALL) for _ in range(3))
    for method in (through, saved, loaded):
        lab.prepare(method, student)
    steps(through, 0, 6)
    steps(saved, 0, 3)
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    steps(saved, 3, 5)  # what happens after saving does not reach the file, nor those that read it
    file.seek(0)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    again = io.BytesIO()
    torch.save(loaded.state_dict(), again)  # saved before its first step, too
    again.seek(0)
    loaded.load_state_dict(torch.load(again, weights_only=True))
    steps(loaded, 3, 6)
    for name, value in through.generator.state_dict().items():
        assert torch.equal(loaded.generator.state_dict()[name], value), name


def steps_cost_what_is_declared(lab: Lab) -> None:
    """Of the loss and of the generator's step, student and generator."""
    student = lab.network(dropout=0.5)
    method = lab.prepare(CTGAN(**SMALL), student)
    recorder, generator = Recorder(lab.labelled), Recorder(lab.labelled)
    recorder.watch("student", student)
    generator.watch("generator", method.generator)
    recorder.phase = generator.phase = "loss"
    lab.total(lab.loss(method, student)).backward()
    recorder.phase = generator.phase = "search"
    followed(lab, method, student)
    backward = [(item.batch, phase) for item in recorder.passes for phase in item.backward]
    assert (
        Cost(
            f=sum(item.batch == "f" for item in recorder.passes),
            F=sum(item.batch == "F" for item in recorder.passes),
            d=len(generator.passes),
            b=backward.count(("f", "loss")),
            B=backward.count(("F", "loss")),
            X=backward.count(("F", "search")),
            y=sum(len(item.backward) for item in generator.passes),
        )
        == method.passes()
    )
    written = " ".join(item.batch + "*" * item.updated for item in recorder.passes)
    assert written == "f* F* F F F F"


def statistics_move(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("vicinal.methods.ct_gan.FROZEN_STATS", TRAIN)


def plain_backward(patch: pytest.MonkeyPatch) -> None:
    """Mutation: the generator's gradient by ``backward``, which leaves one on the student too."""

    def wrong(value: torch.Tensor, parameters: Any) -> Any:
        value.backward()
        return [parameter.grad for parameter in parameters]

    changed = SimpleNamespace(**{**vars(torch), "autograd": SimpleNamespace(grad=wrong)})
    patch.setattr("vicinal.methods.ct_gan.torch", changed)


def other_rate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CTGAN, "_optimizer", lambda self: torch.optim.SGD(self.generator.parameters(), 1e-2))


def forgetful(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CTGAN, "set_extra_state", lambda self, state: None)


def a_pass_more(patch: pytest.MonkeyPatch) -> None:
    original = CTGAN.after_step

    def wrong(self: CTGAN, step: Any) -> None:
        original(self, step)
        step.student.features(step.u[0])

    patch.setattr(CTGAN, "after_step", wrong)


CHECKS = [
    pytest.param(the_generators_step_is_its_own, statistics_move, id="own step | statistics move"),
    pytest.param(the_generators_step_is_its_own, plain_backward, id="own step | backward through the student"),
    pytest.param(the_generator_matches_features, other_rate, id="own step | SGD"),
    pytest.param(resuming_changes_nothing, forgetful, id="resuming | without Adam's state"),
    pytest.param(steps_cost_what_is_declared, a_pass_more, id="cost | a pass more"),
    pytest.param(steps_cost_what_is_declared, statistics_move, id="ledger | statistics move"),
]


@pytest.fixture(params=[Lab, ImageLab], ids=["vectors", "images"])
def lab(request: pytest.FixtureRequest) -> Lab:
    made: Lab = request.param()
    return made


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_holds(check: Check, mutate: Mutation, lab: Lab) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_fails_when_mutated(check: Check, mutate: Mutation, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(lab)


def test_the_generator_learns(lab: Lab) -> None:
    """Thirty steps on a student that stands still bring the mean features of generated examples nearer."""
    student = lab.network()
    method = lab.prepare(CTGAN(**SMALL, generator_learning_rate=1e-2), student)
    z = torch.randn(64, 5)

    def distance() -> float:
        with torch.no_grad():
            means = [student.features(x).mean(dim=0) for x in (lab.u[0], method.generator(z))]
        return float((means[0] - means[1]).abs().mean())

    before = distance()
    for at in range(30):
        followed(lab, method, student, at=at)
    assert distance() < 0.7 * before


def test_copies_have_optimisers_of_their_own(lab: Lab) -> None:
    student = lab.network()
    method = lab.prepare(CTGAN(**SMALL), student)
    followed(lab, method, student)
    other = copy.deepcopy(method)
    followed(lab, other, student, at=31)
    assert not torch.equal(*(next(m.generator.parameters()) for m in (method, other)))
    followed(lab, method, student, at=31)
    assert torch.equal(*(next(m.generator.parameters()) for m in (method, other)))


@pytest.mark.parametrize("hook", ["prepare", "after_step"])
def test_several_processes_are_refused(hook: str, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    student = lab.network()
    method = lab.prepare(CTGAN(**SMALL), student)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    followed(lab, method, student)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(InputError, match="one process"):
        followed(lab, method, student) if hook == "after_step" else lab.prepare(method, student, again=True)
