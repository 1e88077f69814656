"""Every draw is named by a seed, a purpose and counters, and by nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vicinal import randomness

Mutation = Callable[[pytest.MonkeyPatch], None]

torch.set_num_threads(1)


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing."""
    return lambda patch: patch.setattr(target, value)


def draw(seed: int, purpose: str, *counters: int) -> tuple[float, ...]:
    return tuple(torch.rand(4, generator=randomness.generator(seed, purpose, *counters)).tolist())


def equal_names_draw_equally() -> None:
    assert draw(3, "mixing", 7) == draw(3, "mixing", 7)


def other_names_draw_otherwise() -> None:
    names = [
        (0, "mixing"),
        (1, "mixing"),
        (0, "split"),
        (0, "mixing", 0),
        (0, "mixing", 1),
        (0, "mixing", 0, 0),
        (0, "mixing", 0, 1),
        (0, "mixing", 1, 0),
        (1, "mixing", 0),
        (0, "mixing", 10),
        (0, "mixing", 1, 1),
    ]
    assert len({draw(*name) for name in names}) == len(names)


def the_global_state_plays_no_part() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = draw(0, "adversary", 1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert draw(0, "adversary", 1) == first


def a_run_draws_the_same_tomorrow() -> None:
    """Pinned: another way to make seeds changes every experiment's result, and must be said in the change log."""
    assert randomness.seed_of(0, "split") == 7808932479262376786
    assert randomness.seed_of(7, "unlabelled mixing", 123) == 35082819149993691


IDENTITIES = [
    pytest.param(
        equal_names_draw_equally,
        patched("vicinal.randomness.seed_of", lambda *name: int(torch.randint(2**62, ()))),
        id="equal names | seeded from the global generator",
    ),
    pytest.param(
        other_names_draw_otherwise,
        patched("vicinal.randomness.seed_of", lambda seed, purpose, *counters: seed + len(purpose) + sum(counters)),
        id="other names | sum of the parts",
    ),
    pytest.param(
        the_global_state_plays_no_part,
        patched("vicinal.randomness.generator", lambda *name: torch.default_generator),
        id="global state | the global generator",
    ),
    pytest.param(
        a_run_draws_the_same_tomorrow,
        patched("vicinal.randomness.seed_of", lambda *name: abs(hash(name))),
        id="pinned seeds | Python's hash",
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


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**40), purpose=st.text(max_size=12), counters=st.lists(st.integers(0, 2**40), max_size=3))
def test_seeds_fit_a_generator(seed: int, purpose: str, counters: list[int]) -> None:
    made = randomness.seed_of(seed, purpose, *counters)
    assert 0 <= made < 2**63
    assert randomness.generator(seed, purpose, *counters).initial_seed() == made


def test_neighbouring_steps_are_uncorrelated() -> None:
    first, second = (torch.rand(4000, generator=randomness.generator(0, "adversary", step)) for step in (5, 6))
    correlation = torch.corrcoef(torch.stack([first, second]))[0, 1]
    assert abs(float(correlation)) < 4 / 4000**0.5
