"""A method of one's own: one short file, nothing of the package touched, and everything works with it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.lab import Lab
from support.properties import PROPERTIES

from vicinal.cli import main
from vicinal.methods import Method

SOURCE = '''
"""Gaussian vicinal risk: the plainest neighbourhood there is."""

from collections.abc import Mapping
from typing import ClassVar

import torch

from vicinal.methods import Cost, Method, Needs, Origin, Step, Term
from vicinal.vicinity import cross_entropy, kl


class NoiseConsistency(Method):
    """Keep the prediction under Gaussian noise on the input.

    Args:
        sigma: standard deviation of the noise, in units of the inputs.
        weight: weight of the consistency term.
    """

    needs: ClassVar[Needs] = Needs(views=1)
    cost: ClassVar[Cost] = Cost(f=1, F=2, b=1, B=1)
    source: ClassVar[str] = "ours"
    origins: ClassVar[Mapping[str, Origin]] = {"sigma": "ours", "weight": "ours"}

    sigma: float = 0.1
    weight: float = 1.0

    def loss(self, step: Step) -> dict[str, Term]:
        supervised = cross_entropy(step.y, step.student(step.x)).mean()
        u = step.u[0]
        with torch.no_grad():
            target = step.student(u).softmax(dim=1)
        noise = torch.randn(u.shape, generator=step.generator("noise")).to(u)
        smoothness = kl(target, step.student(u + self.sigma * noise)).mean()
        return {"supervised": Term(supervised), "smoothness": Term(smoothness, self.weight)}
'''


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], type[Method]]]:
    """Writes the file into the working folder and imports the method."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def write(source: str) -> type[Method]:
        (tmp_path / "my_noise_method.py").write_text(source.lstrip())
        found: type[Method] = importlib.import_module("my_noise_method").NoiseConsistency
        return found

    yield write
    sys.modules.pop("my_noise_method", None)


@pytest.fixture
def method(written: Callable[[str], type[Method]]) -> type[Method]:
    return written(SOURCE)


def test_it_is_short(method: type[Method]) -> None:
    assert len(SOURCE.strip().splitlines()) <= 40


@pytest.mark.parametrize("holds", PROPERTIES)
def test_it_has_every_property(holds: Callable[[Lab, Method], None], method: type[Method]) -> None:
    made = method()
    holds(Lab.suited(made), made)


@pytest.mark.parametrize(
    ("right", "wrong", "fails"),
    [
        ("F=2", "F=3", "passes_are_declared"),
        ("self.weight)}", "0.0)}", "unlabelled_data_moves_the_gradient"),
        ('generator=step.generator("noise")', "", "draws_are_the_steps_own"),
        ('"sigma": "ours", ', "", "settings_are_explained"),
        ("kl(target, ", "kl(target / 0, ", "terms_are_finite"),
    ],
)
def test_a_mistake_in_it_is_noticed(right: str, wrong: str, fails: str, written: Callable[[str], type[Method]]) -> None:
    assert right in SOURCE
    made = written(SOURCE.replace(right, wrong))()
    (holds,) = (item for item in PROPERTIES if item.__name__ == fails)
    with pytest.raises(AssertionError):
        holds(Lab.suited(made), made)


def test_it_is_trained_evaluated_and_explained(
    method: type[Method], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "digits", "--method", "my_noise_method:NoiseConsistency", "--method.sigma", "0.2", "--labels", "50"]
    sizes = ["--training.steps", "20", "--training.device", "cpu", "--training.threads", "1", "--quiet"]
    assert main([*words, *sizes, "--output", "run"]) == 0
    values = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert values["provenance"]["method"] == "my_noise_method:NoiseConsistency"
    assert 0 < values["test"]["error"]["last"] < 1
    assert main(["evaluate", "run"]) == 0
    assert main(["methods", "my_noise_method:NoiseConsistency"]) == 0
    assert "standard deviation of the noise" in capsys.readouterr().out
