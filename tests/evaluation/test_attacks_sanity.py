"""Flags: they hold where attacks work, each is raised by what it is there for, and the numbers are those of attacks."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from support.networks import Changed
from torch import nn

from vicinal.errors import InputError
from vicinal.evaluation import figures
from vicinal.evaluation.attacks import FGM, FGSM, PGD, Sanity, cross_entropy_against, robustness, sanity
from vicinal.networks import mlp

Untouched = Callable[[nn.Module], AbstractContextManager[None]]
NAMES = ["more steps", "larger radius", "many steps or one", "everything falls", "transfer", "gradients"]


@pytest.fixture(scope="module")
def other() -> nn.Module:
    """A network that has learnt nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        return mlp((1, 8, 8), 10, hidden=[16])


def flagged(network: nn.Module, batches: Any, **settings: Any) -> tuple[Sanity, list[str]]:
    """What was found, and the names of those that do not hold."""
    settings = {"norm": "linf", "epsilon": 0.1, "seed": 0, "steps": (10, 30), **settings}
    found = sanity(network, batches, **settings)
    return found, [flag.name for flag in found.flags if not flag.holds]


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.5)])
def test_an_ordinary_network_raises_none(norm: Any, epsilon: float, trained: Any, other: Any, digits: Any) -> None:
    found, raised = flagged(trained, digits, norm=norm, epsilon=epsilon, source=other)
    assert raised == []
    assert found.holds
    assert found.verdict == "no sign of gradient masking"
    assert [flag.name for flag in found.flags] == NAMES
    assert [flag.name for flag in flagged(trained, digits[:1])[0].flags] == [
        name for name in NAMES if name != "transfer"
    ]


@pytest.mark.parametrize(("norm", "one"), [("linf", FGSM), ("l2", FGM)])
def test_the_numbers_are_those_of_attacks(norm: Any, one: Any, trained: Any, other: Any, digits: Any) -> None:
    found, _ = flagged(trained, digits, norm=norm, epsilon=0.2, source=other)

    def error(attack: Any, epsilon: float = 0.2, **settings: Any) -> float:
        return robustness(trained, digits, attack, epsilons=(epsilon,), seed=0, **settings).errors[epsilon]

    few = PGD(norm=norm, epsilon=0, steps=10)
    reach = 1.0 if norm == "linf" else 8.0
    assert (found.n, found.clean_error) == (300, figures(trained, digits).error)
    assert [(flag.first, flag.second) for flag in found.flags] == [
        (error(few), error(PGD(norm=norm, epsilon=0, steps=30))),
        (error(few), error(few, 0.4)),
        (error(one(epsilon=0)), error(few)),
        (1 - error(few, reach), 0.01),
        (error(few, source=other), error(few)),
        (0.0, 0.0),
    ]
    assert len({flag.first for flag in found.flags}) > 3


def test_rounded_logits_are_found_out(trained: Any, digits: Any) -> None:
    """No gradient at all: what looks like robustness falls to the same network's gradients without the rounding."""
    rounded = Changed(trained, torch.round)
    found, raised = flagged(rounded, digits, source=trained)
    assert {"gradients", "everything falls", "transfer"} <= set(raised)
    assert found.flags[-1].first == 1.0
    assert not found.holds
    assert found.verdict.startswith("gradient masking suspected: ")


def test_sure_logits_are_found_out_by_the_loss_that_they_hide_from(trained: Any, other: Any, digits: Any) -> None:
    sure = Changed(trained, lambda logits: 1e4 * logits)
    found, raised = flagged(sure, digits, loss=cross_entropy_against, source=trained)
    assert {"gradients", "transfer"} <= set(raised)
    assert found.flags[-1].first > 0.5
    assert flagged(sure, digits, source=other)[1] == []  # the log-odds see through it


def test_gradients_that_are_no_numbers_are_found_out(trained: Any, digits: Any) -> None:
    broken = Changed(trained, lambda logits: logits + 0 * (logits - logits.detach()).abs().sqrt())
    found, raised = flagged(broken, digits)
    assert "gradients" in raised
    assert (found.flags[-1].first, found.flags[-1].second) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("name", "when"),
    [
        pytest.param("more steps", lambda attack: attack.steps == 30, id="more steps"),
        pytest.param("larger radius", lambda attack: attack.epsilon == 0.2, id="larger radius"),
        pytest.param("many steps or one", lambda attack: attack.epsilon == 0.1, id="many steps or one"),
        pytest.param("everything falls", lambda attack: attack.epsilon == 1, id="everything falls"),
    ],
)
def test_each_is_raised_by_what_it_is_there_for(
    name: str, when: Any, trained: Any, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attack that stands still with these settings."""

    @dataclass(frozen=True, kw_only=True)
    class Lame(PGD):
        def advance(self, rows: Any, step: int, bounds: Any) -> None:
            if when(self):
                rows["point"] = rows["x"]
            else:
                super().advance(rows, step, bounds)

    monkeypatch.setattr(sys.modules[Sanity.__module__], "PGD", Lame)
    assert flagged(trained, digits)[1] == [name]


def test_a_slack_is_allowed(trained: Any, digits: Any) -> None:
    sure = Changed(trained, lambda logits: 1e4 * logits)
    hidden = flagged(sure, digits, loss=cross_entropy_against)[0].flags[-1].first
    assert "gradients" in flagged(sure, digits, loss=cross_entropy_against, slack=hidden - 0.01)[1]
    assert "gradients" not in flagged(sure, digits, loss=cross_entropy_against, slack=hidden + 0.01)[1]


def test_a_flag_prints_its_numbers_and_is_plain(trained: Any, digits: Any) -> None:
    found, _ = flagged(trained, digits[:1])
    flag = found.flags[0]
    assert str(flag) == f"more steps: error after 10 steps <= after 30: {flag.first:.4f}, {flag.second:.4f}: yes"
    assert str(dataclasses.replace(flag, holds=False)).endswith(": NO")
    assert all(type(value) in (str, float, bool, int) for flag in found.flags for value in vars(flag).values())


@pytest.mark.parametrize(
    ("norm", "epsilon", "claims"),
    [
        ("linf", 16 / 255, ["error at 16/255 <= at 32/255", "accuracy at radius 1 is at most 1 %"]),
        ("linf", 0.1, ["error at 0.1 <= at 0.2", "accuracy at radius 1 is at most 1 %"]),
        ("l2", 0.5, ["error at 0.5 <= at 1", "accuracy at radius 8 is at most 1 %"]),
    ],
)
def test_claims_name_radii_as_readers_know_them(
    norm: Any, epsilon: float, claims: Any, trained: Any, digits: Any
) -> None:
    flags = flagged(trained, digits[:1], norm=norm, epsilon=epsilon)[0].flags
    assert [flag.claim for flag in flags if flag.name in ("larger radius", "everything falls")] == claims
    assert {flag.n for flag in flags} == {len(digits[0][1])}


def test_in_the_input_space(trained: Any, digits: Any) -> None:
    assert flagged(trained, digits, space="input", large=2.0)[1] == []


def test_nothing_is_left_behind(trained: Any, other: Any, digits: Any, untouched: Untouched) -> None:
    with untouched(trained), untouched(other), torch.no_grad():
        first = flagged(trained, iter(digits), source=other)
    assert first == flagged(trained, digits, source=other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be greater than 0"),
        ({"steps": (20, 20)}, "steps: expected a smaller and a larger number"),
        ({"bounds": None}, "large: there are no bounds"),
        ({"space": "input"}, "large: there are no bounds"),
        ({"bounds": (1.0, 0.0)}, "bounds: expected (low, high)"),
        ({"batches": []}, "there are no examples"),
    ],
)
def test_what_cannot_be_checked_is_one_clear_line(settings: Any, message: str, trained: Any, digits: Any) -> None:
    with pytest.raises(InputError) as raised:
        flagged(trained, **{"batches": digits, **settings})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
