"""The averaged teacher: its weights in closed form, its buffers by policy, and its place in the training step."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.methods import MeanTeacher
from vicinal.networks import EVAL, FROZEN_STATS, TRAIN, mlp
from vicinal.training.config import Training
from vicinal.training.module import VicinalModule
from vicinal.training.teacher import Teacher, TeacherSettings

Mutation = Callable[[pytest.MonkeyPatch], None]

torch.set_num_threads(1)
_teacher_init = Teacher.__init__


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing."""
    return lambda patch: patch.setattr(f"vicinal.training.{target}", value)


def network(seed: int = 0) -> nn.Module:
    """Batch norm among linear layers, float64, so that averages are exact to rounding."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)).double()


def weights(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def statistics(module: nn.Module) -> list[object]:
    return [buffer.tolist() for buffer in module.buffers()]


def walk(student: nn.Module, steps: int, follow: Callable[[], None]) -> list[Tensor]:
    """Random steps of the student's weights and statistics, each followed by the teacher; the weights on the way."""
    draws = torch.Generator().manual_seed(1)
    seen = []
    for _ in range(steps):
        for parameter in student.parameters():
            parameter.data += torch.randn(parameter.shape, generator=draws, dtype=parameter.dtype)
        student(torch.randn(7, 3, generator=draws, dtype=torch.float64))
        follow()
        seen.append(weights(student))
    return seen


def decays_are_published() -> None:
    """1/2, 2/3, 3/4, ... and 0.999 from the 999th update on."""
    teacher = Teacher(nn.Linear(1, 1), TeacherSettings())
    assert [teacher.decay(k) for k in (1, 2, 3)] == pytest.approx([1 / 2, 2 / 3, 3 / 4], rel=1e-12)
    assert teacher.decay(998) < 0.999
    assert [teacher.decay(k) for k in (999, 1000, 10**6)] == pytest.approx([0.999] * 3, rel=1e-12)
    assert Teacher(nn.Linear(1, 1), TeacherSettings(warm_up=False)).decay(1) == 0.999


def warm_up_is_the_plain_mean() -> None:
    """(theta'_0 + theta_1 + ... + theta_n) / (n + 1): the initial weights count 1/(n + 1)."""
    student, initial = network(), network(1)
    teacher = Teacher(student, TeacherSettings(), initial)
    averages: list[Tensor] = []

    def follow() -> None:
        teacher.update(student)
        averages.append(weights(teacher.network))

    states = torch.stack([weights(initial), *walk(student, 12, follow)])
    for n, average in enumerate(averages, start=1):
        torch.testing.assert_close(average, states[: n + 1].mean(dim=0))


def a_foreign_start_fades() -> None:
    """The share of an independent initialisation after 1, 10, 999 and 1999 updates: 0.5, 0.091, 0.001, then a power."""
    student, initial = nn.Linear(1, 1, bias=False).double(), nn.Linear(1, 1, bias=False).double()
    student.weight.data.fill_(0)
    initial.weight.data.fill_(1)
    teacher = Teacher(student, TeacherSettings(), initial)
    share = {}
    for k in range(1, 2000):
        teacher.update(student)
        share[k] = float(teacher.network.weight)
    assert [share[k] for k in (1, 10, 999, 1999)] == pytest.approx([1 / 2, 1 / 11, 1e-3, 1e-3 * 0.999**1000], rel=1e-9)


def after_the_cap_it_is_exponential() -> None:
    """sum_k (1 - a_k) a_(k+1) ... a_n theta_k, with a_k = min(1 - 1/(k + 1), 0.7)."""
    student = network()
    teacher = Teacher(student, TeacherSettings(decay=0.7))
    expected = weights(student)
    for k, seen in enumerate(walk(copy.deepcopy(student), 8, lambda: None), start=1):
        a = min(1 - 1 / (k + 1), 0.7)
        expected = a * expected + (1 - a) * seen
    walk(student, 8, lambda: teacher.update(student))
    torch.testing.assert_close(weights(teacher.network), expected)


def without_decay_it_is_the_student() -> None:
    for warm_up in (True, False):
        student = network()
        teacher = Teacher(student, TeacherSettings(decay=0, warm_up=warm_up), network(1))
        walk(student, 3, lambda: teacher.update(student))  # noqa: B023
        assert torch.equal(weights(teacher.network), weights(student))


def a_constant_student_has_a_constant_teacher() -> None:
    student = network()
    for buffers in ("own", "copy", "average"):
        teacher = Teacher(student, TeacherSettings(decay=0.9, buffers=buffers))
        for _ in range(20):
            teacher.update(student)
        assert torch.equal(weights(teacher.network), weights(student))
        assert statistics(teacher.network) == statistics(student)


def buffers_follow_the_policy() -> None:
    """Own: the teacher's, untouched by updates. Copy: the student's. Average: averaged, counters copied."""
    for policy in ("own", "copy", "average"):
        student, initial = network(), network(1)
        initial(torch.randn(7, 3, generator=torch.Generator().manual_seed(8), dtype=torch.float64))
        teacher = Teacher(student, TeacherSettings(buffers=policy), initial)
        means = [initial[1].running_mean.clone()]
        for seed in range(3):
            student(torch.randn(7, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
            teacher.update(student)
            means.append(student[1].running_mean.clone())
        if policy == "own":
            assert statistics(teacher.network) == statistics(initial)
        elif policy == "copy":
            assert statistics(teacher.network) == statistics(student)
        else:
            torch.testing.assert_close(teacher.network[1].running_mean, torch.stack(means).mean(dim=0))
            assert int(teacher.network[1].num_batches_tracked) == 3


def policies_of_the_passes() -> None:
    assert TeacherSettings().policy == TRAIN
    assert TeacherSettings(buffers="copy").policy == TeacherSettings(buffers="average").policy == FROZEN_STATS
    assert all(TeacherSettings(mode="eval", buffers=buffers).policy == EVAL for buffers in ("own", "copy", "average"))


def it_stands_apart_from_the_student() -> None:
    """A copy: no shared memory, no gradient wanted, and an update changes nothing of the student."""
    student = network()
    teacher = Teacher(student, TeacherSettings(decay=0.5))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert {p.data_ptr() for p in student.parameters()}.isdisjoint(p.data_ptr() for p in teacher.parameters())
    student[0].weight.data += 1
    before, books = weights(student), statistics(student)
    teacher.update(student)
    assert torch.equal(weights(student), before)
    assert statistics(student) == books
    assert all(parameter.requires_grad for parameter in student.parameters())


def counting_goes_on_after_a_reload() -> None:
    student = network()
    teacher = Teacher(student, TeacherSettings(buffers="average"))
    walk(student, 3, lambda: teacher.update(student))
    again = Teacher(network(2), TeacherSettings(buffers="average"))
    again.load_state_dict(copy.deepcopy(teacher.state_dict()))
    assert again.updates == 3
    for follower in (teacher, again):
        walk(copy.deepcopy(student), 2, functools.partial(follower.update, student))
    assert torch.equal(weights(teacher.network), weights(again.network))


def it_follows_after_the_optimiser() -> None:
    """Each update takes the weights that the optimiser has just made, not the ones before (no lag of a step)."""
    module = VicinalModule(
        mlp((3,), 2, hidden=(4,)), MeanTeacher(), Training(steps=5), teacher=TeacherSettings(decay=0)
    )
    optimizer = module.configure_optimizers()["optimizer"]
    assert module.teacher is not None
    for _ in range(3):
        before = weights(module.student)
        module.student(torch.ones(2, 3)).sum().backward()
        module.optimizer_step(0, 0, optimizer, None)
        assert not torch.equal(weights(module.student), before)
        assert torch.equal(weights(module.teacher.network), weights(module.student))
    assert module.teacher.updates == 3


def _wrong_decay(self: Teacher, update: int) -> float:
    return min(1 - 1 / (update + 2), self.settings.decay)


def _lagging(self: VicinalModule, *args: object) -> None:
    assert self.teacher is not None
    self.teacher.update(self.student)
    args[2].step()


def _sharing(self: Teacher, student: nn.Module, settings: TeacherSettings, initial: nn.Module | None = None) -> None:
    nn.Module.__init__(self)
    self.settings, self.network, self.updates = settings, student, 0


def _copying(self: Teacher, student: nn.Module, settings: TeacherSettings, initial: nn.Module | None = None) -> None:
    _teacher_init(self, student, replace(settings, buffers="copy"), initial)


no_warm_up = patched("teacher.Teacher.decay", lambda self, update: self.settings.decay)
off_by_one = patched("teacher.Teacher.decay", _wrong_decay)
no_follow = patched("teacher._lerp", lambda own, other, weight: None)
unnormalised = patched("teacher._lerp", lambda own, other, weight: torch._foreach_add_(own, other, alpha=weight))

IDENTITIES = [
    pytest.param(decays_are_published, no_warm_up, id="decays | no warm-up"),
    pytest.param(decays_are_published, off_by_one, id="decays | counted from 2"),
    pytest.param(warm_up_is_the_plain_mean, no_warm_up, id="plain mean | no warm-up"),
    pytest.param(warm_up_is_the_plain_mean, off_by_one, id="plain mean | counted from 2"),
    pytest.param(a_foreign_start_fades, no_warm_up, id="foreign start | no warm-up"),
    pytest.param(after_the_cap_it_is_exponential, no_warm_up, id="exponential | no warm-up"),
    pytest.param(
        after_the_cap_it_is_exponential,
        patched("teacher.Teacher.decay", lambda self, k: 1 - 1 / (k + 1)),
        id="exponential | no cap",
    ),
    pytest.param(without_decay_it_is_the_student, no_follow, id="decay 0 | does not follow"),
    pytest.param(a_constant_student_has_a_constant_teacher, unnormalised, id="constant | weights do not sum to 1"),
    pytest.param(
        buffers_follow_the_policy, patched("teacher.Teacher.__init__", _copying), id="buffers | always copied"
    ),
    pytest.param(
        policies_of_the_passes, patched("teacher.TeacherSettings.policy", TRAIN), id="policies | always training"
    ),
    pytest.param(it_stands_apart_from_the_student, patched("teacher.Teacher.__init__", _sharing), id="apart | no copy"),
    pytest.param(
        counting_goes_on_after_a_reload,
        patched("teacher.Teacher.set_extra_state", lambda self, state: None),
        id="reload | count lost",
    ),
    pytest.param(
        it_follows_after_the_optimiser, patched("module.VicinalModule.optimizer_step", _lagging), id="order | lags"
    ),
]


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


@pytest.mark.parametrize("decay", [-0.1, 1.1, float("nan")])
def test_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(InputError, match="decay"):
        TeacherSettings(decay=decay)


def test_an_independent_start_is_taken_or_asked_for() -> None:
    settings, training = TeacherSettings(init="independent"), Training(steps=5)
    foreign = mlp((3,), 2, hidden=(4,))
    module = VicinalModule(
        mlp((3,), 2, hidden=(4,)), MeanTeacher(), training, teacher=settings, independent=lambda: foreign
    )
    assert module.teacher is not None
    assert torch.equal(weights(module.teacher.network), weights(foreign))
    with pytest.raises(InputError, match=r"teacher\.init"):
        VicinalModule(mlp((3,), 2), MeanTeacher(), training, teacher=settings)
