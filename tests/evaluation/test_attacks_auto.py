"""AutoAttack by another library: what it finds, that it is the library's own, and what it refuses."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from vicinal.errors import InputError
from vicinal.evaluation import figures
from vicinal.evaluation.attacks import APGD, PGD, AutoAttack, peer_perturb, peer_robustness
from vicinal.randomness import seed_of
from vicinal.vicinity.projected import NormName


def ball(norm: NormName) -> Any:
    return {"norm": norm, "epsilon": 0.08 if norm == "linf" else 0.6}


AUTO = AutoAttack(**ball("linf"), steps=5, queries=50)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_auto_attack_finds_what_ours_find_and_more(norm: NormName, trained: Any, digits: Any) -> None:
    pytest.importorskip("torchattacks")
    attack = replace(AUTO, **ball(norm))
    found = peer_robustness("torchattacks", trained, digits, attack, epsilons=(0, attack.epsilon), seed=0)
    assert (found.attack, found.norm, found.count) == ("AutoAttack (torchattacks)", norm, "last")
    assert found.clean_error == found.errors[0] == figures(trained, digits).error
    for ours in (PGD(**ball(norm), steps=20), APGD(**ball(norm), steps=20)):
        assert found.errors[attack.epsilon] >= ours(trained, digits, seed=0).error > 0.1
    assert found.errors[attack.epsilon] < 0.6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_auto_attack_is_the_librarys_own_with_its_number_of_steps(norm: NormName, trained: Any, digits: Any) -> None:
    library = pytest.importorskip("torchattacks")
    x, y = (part[:16] for part in digits[0])
    attack = replace(AUTO, **ball(norm), steps=10)
    ours = peer_perturb("torchattacks", trained, x, y, attack, seed=3)
    network = copy.deepcopy(trained).eval().requires_grad_(False)
    seed = seed_of(3, "torchattacks", 0) % 2**31
    theirs = library.AutoAttack(network, norm="Linf" if norm == "linf" else "L2", eps=attack.epsilon, seed=seed)
    kinds = [type(part).__name__ for part in theirs._autoattack.attacks]
    assert kinds == ["APGD", "APGDT", "FAB", "Square"]
    theirs._autoattack.attacks[3].n_queries = attack.queries
    with torch.random.fork_rng(devices=[]):
        assert torch.equal(ours.x, theirs(x, y))
    assert 0 < int(ours.wrong.sum()) < len(y)
    assert not torch.equal(ours.x, peer_perturb("torchattacks", trained, x, y, replace(attack, steps=5), seed=3).x)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": "l1"}, "norm: unknown 'l1'"),
        ({"epsilon": -1}, "epsilon must be at least 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"queries": 0}, "queries must be at least 1"),
    ],
)
def test_bad_settings_of_auto_attack_are_one_clear_line(wrong: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        replace(AUTO, **wrong)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_auto_attack_needs_four_classes() -> None:
    pytest.importorskip("torchattacks")
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(InputError, match="compares the 4 largest logits, and there are 3; use APGD"):
        peer_perturb("torchattacks", network, torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), AUTO, seed=0)
