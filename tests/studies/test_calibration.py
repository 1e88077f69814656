"""Calibration of a subject before and after temperature scaling, and where no temperature can be chosen."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.data import Examples
from vicinal.errors import InputError
from vicinal.evaluation import Tempered, calibration_figures, fit_temperature
from vicinal.studies import Subject
from vicinal.studies import calibration as module
from vicinal.studies.calibration import Reliability


@pytest.fixture(scope="module")
def sure(vectors: Subject) -> Subject:
    """A network that errs and is too confident, so that the temperature is above 1."""
    dataset, draws = vectors.dataset, torch.Generator().manual_seed(1)
    parts = {}
    for name in ("test", "validation"):
        part = getattr(dataset, name)
        noise = 1.5 * torch.randn(len(part), 4, generator=draws)
        parts[name] = Examples(part.x[torch.arange(len(part))] + noise, part.y)
    return dataclasses.replace(vectors, dataset=dataclasses.replace(dataset, **parts))


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(value), allow_nan=False))


def check_before_and_after(subject: Subject) -> None:
    found = Reliability(bins=7)(subject, 0)
    validation = subject.validation
    assert validation is not None
    held = validation.x[torch.arange(len(validation))]
    temperature = fit_temperature(subject.network(held), validation.y)
    scaled = Tempered(subject.network, temperature.value)
    before, after = (calibration_figures(each, subject.batches(), bins=7) for each in (subject.network, scaled))
    assert found == {
        "n": 60,
        "bins": 7,
        "before": as_json(before),
        "after": as_json(after),
        "temperature": as_json(temperature),
        "why_not": None,
        "validation_n": 60,
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["after"]["error"] == found["before"]["error"] > 0
    assert found["after"]["nll"] != found["before"]["nll"]
    bars = found["before"]["reliability"]
    assert [bar["count"] for bar in bars] == [bar.count for bar in before.reliability]
    assert set(bars[0]) == {"low", "high", "count", "confidence", "accuracy"}


def test_before_and_after(sure: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    check_before_and_after(sure)
    monkeypatch.setattr(module, "_SIZE", 60)  # that batches add up otherwise changes no more than the last bits
    check_before_and_after(sure)


@pytest.mark.parametrize("wrong", ["on the test part", "bins"])
def test_other_figures_are_told_apart(wrong: str, sure: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    scaling = module.temperature_scaling

    def other(network: nn.Module, validation: Any, test: Any, *, bins: int) -> Any:
        if wrong == "bins":
            return scaling(network, validation, test)
        return scaling(network, sure.batches(), test, bins=bins)

    monkeypatch.setattr(module, "temperature_scaling", other)
    with pytest.raises(AssertionError):
        check_before_and_after(sure)


def test_the_first_examples(sure: Subject) -> None:
    found = Reliability(n=25)(sure, 0)
    assert (found["n"], found["validation_n"]) == (25, 60)
    assert found["before"] == as_json(calibration_figures(sure.network, sure.batches(25)))
    assert found["bins"] == len(found["before"]["reliability"]) == 15
    assert Reliability(n=10**6)(sure, 0) == Reliability()(sure, 0)


def without(subject: Subject, **parts: None) -> Subject:
    return dataclasses.replace(subject, dataset=dataclasses.replace(subject.dataset, **parts))


def test_without_validation_there_is_no_temperature(sure: Subject) -> None:
    found = Reliability()(without(sure, validation=None), 0)
    assert found["before"] == Reliability()(sure, 0)["before"]
    assert (found["after"], found["temperature"], found["validation_n"]) == (None, None, 0)
    assert found["why_not"] == "there is no validation part to choose a temperature on"


def test_the_validation_part_is_not_scaled_by_itself(sure: Subject) -> None:
    subject = without(sure, test=None)
    found = Reliability()(subject, 0)
    assert found["before"] == as_json(calibration_figures(sure.network, subject.batches()))
    assert (found["after"], found["temperature"], found["validation_n"]) == (None, None, 60)
    assert found["why_not"].startswith("the figures are of the validation part")


class Diverged(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 3), math.nan)


def test_a_network_that_diverged_has_no_figures(sure: Subject) -> None:
    found = Reliability()(dataclasses.replace(sure, network=Diverged()), 0)
    assert "not finite" in found["why_not"]
    assert (found["after"], found["before"]["nll"], found["before"]["ece"]) == (None, None, None)
    assert found["before"]["n"] == 60
    json.dumps(found, allow_nan=False)


def test_batches_are_not_gathered(sure: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is measured before the next one is made, and none is larger than asked."""
    monkeypatch.setattr(module, "_SIZE", 16)
    made: list[int] = []

    class Rows:
        def __len__(self) -> int:
            return 60

        def __getitem__(self, index: Tensor) -> Tensor:
            made.append(len(index))
            return sure.examples.x[index]

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert len(x) == made[-1]
            seen.append(len(x))
            assert len(seen) == len(made)
            return sure.network(x)

    seen: list[int] = []
    dataset = dataclasses.replace(sure.dataset, test=Examples(Rows(), sure.examples.y), validation=None)
    Reliability()(dataclasses.replace(sure, network=Counting(), dataset=dataset), 0)
    assert seen == made == [16, 16, 16, 12]


@pytest.mark.parametrize(("settings", "message"), [({"n": 0}, "n must be"), ({"bins": 0}, "bins must be")])
def test_settings_are_checked(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Reliability(**settings)
