"""Statements that are measurements alone, and the parts that are told as they begin."""

from __future__ import annotations

from typing import Any

import torch

from vicinal.networks import Classifier, mlp
from vicinal.networks.preprocess import Normalise
from vicinal.theory import statements


def network(*hidden: int) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        made = mlp((4,), 2, hidden=list(hidden))
    assert isinstance(made, Classifier)
    return made


def report(made: Classifier, **settings: Any) -> dict[str, Any]:
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return statements(made, x, torch.arange(24) % 2, alpha=1.0, seed=0, nodes=24, draws=20, **settings)


def test_the_corollary_is_a_measurement_as_its_class_is_read_off_the_sample() -> None:
    plain = network()
    found = report(plain)
    corollary = found["statements"]["corollary"]
    assert not corollary["applies"]
    assert "read off the sample" in corollary["why"]
    assert corollary["values"]["ellipsoid"] > 0
    assert "preprocessing" not in found["assumptions"]["fixed_class"]["says"]
    plain.preprocess = Normalise([0.0] * 4, [1.0] * 4, image=False)
    assert "statistics of the preprocessing" in report(plain)["statements"]["corollary"]["why"]
    assert report(network(8))["statements"]["corollary"]["values"] is None


def test_each_part_is_told_as_it_begins() -> None:
    told: list[str] = []
    report(network(), told=told.append)
    assert told == ["assumptions", "mixup loss", "expansions", "losses under attack", "bounds and complexity"]
