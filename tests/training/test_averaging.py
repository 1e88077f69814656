"""Averages of weights: means of snapshots and moving averages in closed form, which teach nothing; with mutations."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.data import Batch
from vicinal.errors import InputError
from vicinal.methods import ICT, MeanTeacher, Method, Supervised
from vicinal.networks import mlp
from vicinal.training.averaging import AveragingSettings, SnapshotAverage
from vicinal.training.config import Training
from vicinal.training.module import VicinalModule
from vicinal.training.teacher import Teacher, TeacherSettings

Mutation = Callable[[pytest.MonkeyPatch], None]

torch.set_num_threads(1)
_update, _is_due = SnapshotAverage.update, AveragingSettings.is_due


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing."""
    return lambda patch: patch.setattr(f"vicinal.training.{target}", value)


def network(seed: int = 0, **settings: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return mlp((3,), 2, **{"hidden": (4,), "norm": "batch", **settings})


def weights(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def same(one: nn.Module, other: nn.Module) -> bool:
    """Bit-equal parameters and buffers, equal counters."""
    saved = other.state_dict()
    return all(
        torch.equal(value, saved[name]) if isinstance(value, Tensor) else value == saved[name]
        for name, value in one.state_dict().items()
    )


def states(count: int) -> list[nn.Module]:
    """Networks on a random walk of weights and running statistics."""
    draws = torch.Generator().manual_seed(1)
    student, seen = network(), []
    for _ in range(count):
        for parameter in student.parameters():
            parameter.data += torch.randn(parameter.shape, generator=draws)
        student(torch.randn(7, 3, generator=draws))
        seen.append(copy.deepcopy(student))
    return seen


def trained(
    method: Method, kind: str, *, steps: int = 6, after: Callable[[VicinalModule], object] = lambda _: None, **more: Any
) -> VicinalModule:
    """A module after some steps of SGD without a Trainer."""
    given = {"start": 0.5, "every": 0.2, "refresh": 2, "decay": 0.7, "buffers": "copy", **more}
    averaging = AveragingSettings(kind=kind, **given)
    draws = torch.Generator().manual_seed(0)
    module = VicinalModule(
        network(dropout=0.3), method, Training(steps=steps, batch_unlabelled=5), averaging=averaging,
        teacher=TeacherSettings(decay=0.7, buffers="copy"), pool=torch.randn(30, 3, generator=draws),
    )  # fmt: skip
    optimizer = module.configure_optimizers()["optimizer"]
    for step in range(steps):
        x, u = torch.randn(6, 3, generator=draws), torch.randn(8, 3, generator=draws)
        batch = Batch(step, x, (x[:, 0] > 0).long(), torch.arange(6), u, torch.arange(8))
        optimizer.zero_grad()
        module.training_step(batch, step).backward()
        module.optimizer_step(0, step, optimizer, None)
        after(module)
    return module


def the_average_is_the_arithmetic_mean() -> None:
    seen = states(9)
    average = SnapshotAverage(network(7))  # whatever it starts from does not count
    for n, state in enumerate(seen, start=1):
        average.update(state)
        mean = torch.stack([weights(one) for one in seen[:n]]).double().mean(dim=0)
        torch.testing.assert_close(weights(average.network).double(), mean, atol=1e-6, rtol=0)
    assert average.updates == 9


def the_first_snapshot_is_the_network() -> None:
    """Parameters, running statistics and the integer counter, bit for bit."""
    (state,) = states(1)
    average = SnapshotAverage(network(7))
    average.update(state)
    assert same(average.network, state)


def later_snapshots_bring_their_statistics() -> None:
    first, second = states(2)
    average = SnapshotAverage(first)
    for state in (first, second):
        average.update(state)
    assert dict(average.network.named_buffers()).keys() == dict(second.named_buffers()).keys()
    for one, other in zip(average.network.buffers(), second.buffers(), strict=True):
        assert torch.equal(one, other)


def equal_snapshots_change_nothing() -> None:
    average = SnapshotAverage(state := network())
    for _ in range(7):
        average.update(state)
        assert same(average.network, state)


def one_snapshot_is_the_student() -> None:
    module = trained(MeanTeacher(), "swa", start=1.0)
    assert module.average.updates == 1
    assert torch.equal(weights(module.average.network), weights(module.student))


def snapshots_are_taken_when_due() -> None:
    """At the start, every so often, and at the end; fast-SWA: 3 epochs of 1200 from 150 on."""
    seen = []
    trained(Supervised(), "swa", steps=10, start=0.4, every=0.25, after=lambda m: seen.append(m.average.updates))
    assert seen == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4]  # round(2.5) = 2
    published = AveragingSettings(kind="swa")
    due = [epoch for epoch in range(1, 1201) if published.is_due(epoch, 1200)]
    assert due == list(range(150, 1201, 3))
    assert [done for done in range(1, 8) if AveragingSettings(start=0, every=1).is_due(done, 7)] == [1, 7]
    assert [done for done in range(1, 8) if AveragingSettings(start=1).is_due(done, 7)] == [7]


def it_stands_apart_from_the_student() -> None:
    (state,) = states(1)
    average = SnapshotAverage(state)
    average.update(state)
    before = weights(average.network)
    for parameter in state.parameters():
        parameter.data.fill_(3)
    assert torch.equal(weights(average.network), before)
    assert not any(parameter.requires_grad for parameter in average.parameters())


def counting_goes_on_after_a_reload() -> None:
    first, second, third = states(3)
    average, other = SnapshotAverage(first), SnapshotAverage(network(5))
    average.update(first)
    average.update(second)
    other.load_state_dict(average.state_dict())
    assert (other.updates, other.stale) == (2, True)
    for one in (average, other):
        one.update(third)
    assert same(average, other)


def a_moving_average_is_the_teachers_arithmetic() -> None:
    """In one training, an average with the teacher's settings is the teacher, and by hand min(1 - 1/(k+1), decay)."""
    seen: list[Tensor] = [weights(network(dropout=0.3))]
    module = trained(MeanTeacher(), "ema", after=lambda m: seen.append(weights(m.student)))
    assert same(module.average.network, module.teacher.network)
    expected = seen[0]
    for k, state in enumerate(seen[1:], start=1):
        decay = min(1 - 1 / (k + 1), 0.7)
        expected = decay * expected + (1 - decay) * state
    torch.testing.assert_close(weights(module.average.network), expected)
    plain = trained(MeanTeacher(), "ema", warm_up=False, decay=0.25)
    assert isinstance(plain.average, Teacher)
    assert plain.average.settings == TeacherSettings(decay=0.25, warm_up=False, buffers="copy")


def statistics_beside_a_moving_average() -> None:
    for buffers, copied in (("copy", True), ("average", False)):
        module = trained(Supervised(), "ema", buffers=buffers)
        pairs = list(zip(module.average.network.buffers(), module.student.buffers(), strict=True))
        assert all(torch.equal(one, other) for one, other in pairs) is copied
        whole = [(one, other) for one, other in pairs if not one.is_floating_point()]
        assert whole
        assert all(torch.equal(one, other) for one, other in whole)  # counters are never averaged


def it_teaches_nothing() -> None:
    """Student and teacher are to the bit what they are without an average."""
    plain = trained(ICT(weight=10), "none")
    assert plain.average is None
    for kind in ("ema", "swa"):
        module = trained(ICT(weight=10), kind)
        assert same(module.student, plain.student)
        assert same(module.teacher, plain.teacher)


def the_average_is_what_counts() -> None:
    """Before the first snapshot the teacher, or without one the student; the average from then on."""
    for method, before in ((MeanTeacher(), "teacher"), (Supervised(), "student")):
        seen: list[bool] = []

        def look(module: VicinalModule, before: str = before, seen: list[bool] = seen) -> None:
            other = module.student if before == "student" else module.teacher.network
            assert module.evaluated is (module.average.network if module.average.updates else other)
            seen.append(module.average.updates > 0)

        module = trained(method, "swa", after=look)
        assert seen == [False, False, True, True, True, True]
        assert next(iter(module._networks())) == "student"
        assert list(module._networks())[-1] == "average"


def _exponential(self: SnapshotAverage, student: nn.Module) -> None:
    _update(self, student)
    self.updates = 1  # the next snapshot counts one half


def _without_buffers(self: SnapshotAverage, student: nn.Module) -> None:
    kept = [buffer.clone() for buffer in self.network.buffers()]
    _update(self, student)
    for buffer, old in zip(self.network.buffers(), kept, strict=True):
        buffer.copy_(old)


def _sum(self: SnapshotAverage, student: nn.Module) -> None:
    for mean, parameter in zip(self.network.parameters(), student.parameters(), strict=True):
        mean += parameter / 3
    self.updates += 1


def _sharing(self: SnapshotAverage, student: nn.Module) -> None:
    nn.Module.__init__(self)
    self.network, self.updates, self.stale = student, 0, False


def _teaching(self: VicinalModule, done: int) -> None:
    if self.average is not None:
        self.average.update(self.student)
        self.student.load_state_dict(self.average.network.state_dict())


exponential = patched("averaging.SnapshotAverage.update", _exponential)
without_buffers = patched("averaging.SnapshotAverage.update", _without_buffers)
is_due = "averaging.AveragingSettings.is_due"
early = patched(is_due, lambda self, done, steps: _is_due(self, done + 1, steps))
no_end = patched(is_due, lambda self, done, steps: done < steps and _is_due(self, done, steps))
undecayed = patched(
    "averaging.AveragingSettings.average", lambda self, student: Teacher(student, TeacherSettings(buffers="copy"))
)

CASES: list[tuple[str, Callable[..., None], Mutation]] = [
    ("mean | exponential", the_average_is_the_arithmetic_mean, exponential),
    ("first | parameters alone", the_first_snapshot_is_the_network, without_buffers),
    ("later | parameters alone", later_snapshots_bring_their_statistics, without_buffers),
    ("equal | a sum", equal_snapshots_change_nothing, patched("averaging.SnapshotAverage.update", _sum)),
    ("one snapshot | none at the end", one_snapshot_is_the_student, no_end),
    ("due | a step early", snapshots_are_taken_when_due, early),
    ("due | none at the end", snapshots_are_taken_when_due, no_end),
    ("apart | no copy", it_stands_apart_from_the_student, patched("averaging.SnapshotAverage.__init__", _sharing)),
    ("reload | count lost", counting_goes_on_after_a_reload,
     patched("averaging.SnapshotAverage.set_extra_state", lambda self, state: None)),
    ("moving | another decay", a_moving_average_is_the_teachers_arithmetic, undecayed),
    ("statistics | always copied", statistics_beside_a_moving_average, undecayed),
    ("teaches nothing | taken over", it_teaches_nothing, patched("module.VicinalModule._follow", _teaching)),
    ("counts | the student", the_average_is_what_counts,
     patched("module.VicinalModule.evaluated", property(lambda self: self.student))),
]  # fmt: skip
IDENTITIES = [pytest.param(check, mutate, id=name) for name, check, mutate in CASES]


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_holds(check: Callable[[], None], mutate: Mutation) -> None:
    check()


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_fails_when_mutated(
    check: Callable[[], None], mutate: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check()


OUTSIDE = [("decay", 1.5), ("decay", float("nan")), ("start", -0.1), ("start", 2), ("every", 0), ("every", 2)]


@pytest.mark.parametrize(("setting", "value"), [*OUTSIDE, ("refresh", -1)])
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    with pytest.raises(InputError, match=f"^{setting} "):
        dataclasses.replace(AveragingSettings(), **{setting: value})


@pytest.mark.parametrize(("kind", "expected"), [("none", None), ("ema", Teacher), ("swa", SnapshotAverage)])
def test_each_kind_has_its_average(kind: Any, expected: type | None) -> None:
    made = AveragingSettings(kind=kind).average(network())
    assert made is None if expected is None else type(made) is expected
