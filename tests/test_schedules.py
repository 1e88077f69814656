"""Ramps and decays: published values, and that a wrong constant would be noticed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vicinal import schedules
from vicinal.schedules import Cycle, DecayName, Progress

Mutation = Callable[[pytest.MonkeyPatch], None]

_decay, _factor = schedules.decay, Cycle.factor


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing."""
    return lambda patch: patch.setattr(target, value)


def sigmoid_values() -> None:
    """exp(-5 (1 - t)^2): 0.0067 at the start (not 0), e^-1.25 halfway, 1 at the end and after it."""
    values = [schedules.ramp("sigmoid", Progress(step, 400), 0.25) for step in (0, 50, 100, 399)]
    assert values == pytest.approx([math.exp(-5), math.exp(-1.25), 1, 1], rel=1e-12)
    assert values[0] == pytest.approx(0.0067, abs=5e-5)


def linear_values() -> None:
    """MixMatch's ramp starts at 0 and is one half halfway."""
    values = [schedules.ramp("linear", Progress(step, 200), 0.5) for step in (0, 25, 50, 100, 199)]
    assert values == pytest.approx([0, 0.25, 0.5, 1, 1], abs=1e-12)


def no_ramp_is_one() -> None:
    assert schedules.ramp("none", Progress(0, 10), 0.5) == 1
    assert schedules.ramp("sigmoid", Progress(0, 10), 0) == 1
    assert schedules.ramp("linear", Progress(0, 10), 0) == 1


def ict_learning_rate() -> None:
    """ICT: 0.1 (1 + cos(pi e / 450)) / 2, stopped at epoch 400 of 450: starts at 0.1, ends at 0.0030."""
    factor = schedules.decay("cosine", steps=400, full=450 / 400)
    assert 0.1 * factor(0) == pytest.approx(0.1)
    assert 0.1 * factor(225) == pytest.approx(0.05)
    assert 0.1 * factor(400) == pytest.approx(0.0030, abs=5e-5)


def decays_end_where_they_should() -> None:
    steps = 200
    ends = {"constant": 1.0, "cosine": 0.0, "linear": 0.0, "multistep": 0.01, "cyclic": 0.1882551}  # a cycle begins
    assert set(ends) == set(get_args(DecayName))
    for name in get_args(DecayName):
        assert schedules.decay(name, steps=steps)(steps) == pytest.approx(ends[name], abs=1e-7)
        assert schedules.decay(name, steps=steps)(0) == 1


def multistep_drops() -> None:
    factor = schedules.decay("multistep", steps=200)
    assert [factor(step) for step in (0, 99, 100, 149, 150, 199)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def fast_swa_learning_rate() -> None:
    """0.1 (1 + cos(pi e / 210)) / 2 to epoch 180; then 150 to 180 again, every 30 epochs: 0.0188 falls to 0.005."""
    factor = schedules.decay("cyclic", steps=1200)
    rate = [0.1 * factor(epoch) for epoch in range(1200)]
    cosine = [0.05 * (1 + math.cos(math.pi * epoch / 210)) for epoch in range(180)]
    assert rate[:180] == pytest.approx(cosine, rel=1e-9)
    assert [rate[150], rate[180], rate[210], rate[1170]] == pytest.approx([0.0188] * 4, abs=5e-5)
    assert rate[180] == pytest.approx(rate[150], rel=1e-9)
    for start in range(180, 1200, 30):
        assert rate[start : start + 30] == pytest.approx(rate[150:180], rel=1e-9)
    fine = schedules.decay("cyclic", steps=1_104_000)  # 920 steps an epoch
    for end in (180, 210, 1200):
        assert 0.1 * fine(920 * end - 1) == pytest.approx(0.0050, abs=5e-5)
        assert 0.1 * fine(920 * end) == pytest.approx(0.0188, abs=5e-5)


def cycles_repeat_their_stretch() -> None:
    """Other times and numbers of steps, whole cycles or not; past the half period the cosine stays at 0."""
    for steps in (7, 100, 333):
        factor = schedules.decay("cyclic", steps=steps, cycle=Cycle(half_period=0.5, start=0.6, length=0.2))
        for step in range(steps):
            t = step / steps
            place = t if t < 0.6 else 0.4 + math.fmod(round(t - 0.6, 12), 0.2)
            assert factor(step) == pytest.approx(0.5 * (1 + math.cos(math.pi * min(place / 0.5, 1))), abs=1e-9)
    warmed = schedules.decay("cyclic", steps=100, warmup=10)
    plain = schedules.decay("cyclic", steps=100)
    assert [warmed(4), warmed(50)] == pytest.approx([plain(4) / 2, plain(50)])


def warmup_rises_linearly() -> None:
    factor = schedules.decay("constant", steps=100, warmup=4)
    assert [factor(step) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def _restarting(self: Cycle, t: float) -> float:
    return _factor(self, (t - self.start) % self.length if t >= self.start else t)


IDENTITIES = [
    pytest.param(
        sigmoid_values,
        patched("vicinal.schedules.sigmoid_ramp", lambda t: math.exp(-12.5 * (1 - min(t, 1)) ** 2)),
        id="sigmoid ramp | constant 12.5",
    ),
    pytest.param(
        sigmoid_values,
        patched("vicinal.schedules.sigmoid_ramp", lambda t: math.exp(-5 * (1 - t) ** 2)),
        id="sigmoid ramp | not held at 1 after its end",
    ),
    pytest.param(
        linear_values, patched("vicinal.schedules.linear_ramp", schedules.sigmoid_ramp), id="linear ramp | sigmoid"
    ),
    pytest.param(
        no_ramp_is_one,
        patched("vicinal.schedules.ramp", lambda name, progress, length: progress.fraction),
        id="no ramp | rises all the same",
    ),
    pytest.param(
        ict_learning_rate,
        patched("vicinal.schedules.decay", lambda name, *, steps, full=1.0: _decay(name, steps=steps)),
        id="ICT's cosine | reaches 0 at the end",
    ),
    pytest.param(
        decays_end_where_they_should,
        patched("vicinal.schedules.decay", lambda name, *, steps: _decay(name, steps=steps, full=1.5)),
        id="ends of the decays | stretched",
    ),
    pytest.param(
        multistep_drops,
        patched("vicinal.schedules.decay", lambda name, *, steps: _decay("linear", steps=steps)),
        id="multistep | linear",
    ),
    pytest.param(
        fast_swa_learning_rate,
        patched("vicinal.schedules.Cycle.factor", lambda self, t: _factor(self._replace(start=210 / 1200), t)),
        id="fast-SWA's cycles | begin when the cosine is at 0",
    ),
    pytest.param(
        fast_swa_learning_rate,
        patched("vicinal.schedules.Cycle.factor", lambda self, t: _factor(self._replace(length=2), t)),
        id="fast-SWA's cycles | none",
    ),
    pytest.param(
        fast_swa_learning_rate,
        patched("vicinal.schedules.Cycle.factor", lambda self, t: _factor(self, t - 1e-8)),
        id="fast-SWA's cycles | begin a step late",
    ),
    pytest.param(
        cycles_repeat_their_stretch,
        patched("vicinal.schedules.Cycle.factor", _restarting),
        id="cycles | restart from the top",
    ),
    pytest.param(
        warmup_rises_linearly,
        patched("vicinal.schedules.decay", lambda name, *, steps, warmup: _decay(name, steps=steps, warmup=warmup + 1)),
        id="warm-up | a step too long",
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


def test_fraction_is_what_lies_behind() -> None:
    assert [Progress(step, 4).fraction for step in range(4)] == [0, 0.25, 0.5, 0.75]


@settings(max_examples=50, deadline=None)
@given(name=st.sampled_from(["none", "linear", "sigmoid"]), steps=st.integers(1, 500), length=st.floats(0, 1))
def test_ramps_rise_within_the_unit_interval(name: schedules.RampName, steps: int, length: float) -> None:
    values = [schedules.ramp(name, Progress(step, steps), length) for step in range(steps)]
    assert all(0 <= value <= 1 for value in values)
    assert values == sorted(values)
    assert schedules.ramp(name, Progress(steps, steps), length) == pytest.approx(1)


@settings(max_examples=50, deadline=None)
@given(name=st.sampled_from(get_args(DecayName)), steps=st.integers(1, 500), full=st.floats(1, 3))
def test_decays_fall_within_the_unit_interval(name: DecayName, steps: int, full: float) -> None:
    factor = schedules.decay(name, steps=steps, full=full)
    values = [factor(step) for step in range(steps + 1)]
    assert all(0 <= value <= 1 for value in values)
    if name == "cyclic":
        assert min(values) >= values[0] * 0.04  # it never comes to rest
    else:
        assert values == sorted(values, reverse=True)
