"""Interpolation paths of a subject: figures of the function, in the right space, at the right radius."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from torch import nn

from vicinal.errors import InputError
from vicinal.evaluation import FGM, interpolation_paths
from vicinal.evaluation.paths import LAMBDAS
from vicinal.settings import build
from vicinal.studies import Subject
from vicinal.studies.fgm import SingleStep
from vicinal.studies.paths import BATCH, Paths


def by_hand(subject: Subject, epsilon: float, space: Any, seed: int = 0, size: int = BATCH) -> dict[str, list[float]]:
    attack = FGM(epsilon=epsilon, bounds=subject.bounds)
    found = interpolation_paths(subject.network, subject.batches(size=size), attack, seed=seed, space=space)
    return {kind: list(errors) for kind, errors in found.errors.items()}


@pytest.mark.parametrize(
    ("name", "preprocess", "radius"),
    [("images", "normalise", 0.32), ("images", "minus_one_to_one", 0.12), ("vectors", "normalise", 0.11)],
)
def test_by_default_they_run_in_the_preprocessed_input(name: str, preprocess: str, radius: float, request: Any) -> None:
    """At the middle radius of the study of single steps: 3 sqrt(d / 3072) where features are standardised."""
    subject = dataclasses.replace(request.getfixturevalue(name), preprocess=preprocess)
    found = Paths()(subject, 0)
    assert found == {
        "n": 60,
        "space": "input",
        "attack": f"FGM, radius {radius} in the preprocessed input",
        "epsilon": radius,
        "lambdas": list(LAMBDAS),
        "errors": by_hand(subject, radius, "input"),
    }
    assert radius == SingleStep().radii(subject)[0][2]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["lambdas"] == [k / 20 for k in range(21)]


def test_in_pixels_the_radius_does_not_follow_the_preprocessing(images: Subject, vectors: Subject) -> None:
    for subject, radius in ((images, 0.061), (vectors, SingleStep().radii(vectors)[0][2])):
        for preprocess in ("normalise", "none", "minus_one_to_one"):
            seen = dataclasses.replace(subject, preprocess=preprocess)
            assert Paths(space="pixels", n=10)(seen, 0)["epsilon"] == radius
            foreign = dataclasses.replace(seen, network=nn.Sequential(subject.network))
            assert Paths(n=10)(foreign, 0)["epsilon"] == radius


def test_attacked_ends_are_worse_the_larger_the_radius(images: Subject) -> None:
    errors = [Paths(epsilon=epsilon)(images, 0)["errors"] for epsilon in (0, 0.5, 2)]
    assert errors[0]["real-adversarial"] == errors[0]["real-real"] == errors[1]["real-real"]
    at_zero = [kinds["real-adversarial"][0] for kinds in errors]
    assert at_zero == sorted(at_zero)
    assert at_zero[2] > at_zero[0] + 0.2
    assert all(kinds["real-adversarial"][-1] == kinds["real-real"][-1] for kinds in errors)


def test_partners_come_from_batches_of_100(vectors: Subject) -> None:
    assert BATCH == 100
    train = vectors.dataset.train
    more = dataclasses.replace(vectors, dataset=dataclasses.replace(vectors.dataset, test=_repeated(train, 3)))
    found = Paths(epsilon=0.5)(more, 0)
    assert found["n"] == 180
    assert found["errors"] == by_hand(more, 0.5, "input") != by_hand(more, 0.5, "input", size=180)


def _repeated(examples: Any, times: int) -> Any:
    return type(examples)(torch.cat([examples.x] * times), torch.cat([examples.y] * times))


@pytest.mark.parametrize("name", ["images", "vectors"])
def test_other_networks_are_measured_in_data_space(name: str, request: Any) -> None:
    """Feature vectors have no bounds there; images are clipped to theirs."""
    subject = request.getfixturevalue(name)
    foreign = dataclasses.replace(subject, network=nn.Sequential(subject.network))
    found = Paths(epsilon=0.9)(foreign, 0)
    assert found["space"] == "pixels"
    assert found["attack"] == "FGM, radius 0.9 in data space"
    assert (
        found["errors"] == by_hand(subject, 0.9, "pixels") == Paths(epsilon=0.9, space="pixels")(subject, 0)["errors"]
    )
    with pytest.raises(InputError, match="needs a network with a preprocessing layer"):
        Paths(space="input")(foreign, 0)


def test_settings(images: Subject) -> None:
    found = Paths(n=20, lambdas=[0.0, 0.5])(images, 0)
    assert (found["n"], found["lambdas"]) == (20, [0.0, 0.5])
    assert {kind: len(errors) for kind, errors in found["errors"].items()} == {"real-real": 2, "real-adversarial": 2}
    read = build("paths", Paths, {"n": "20", "lambdas": "[0, 0.5]", "epsilon": "null", "space": "pixels"})
    assert read == Paths(n=20, lambdas=(0.0, 0.5), space="pixels")
    assert Paths().refusal(images) is None


def test_the_seed_draws_partners(images: Subject) -> None:
    assert Paths()(images, 0) == Paths()(images, 0) != Paths()(images, 1)


@pytest.mark.parametrize("settings", [{"n": 0}, {"epsilon": -1.0}])
def test_bad_settings_are_one_clear_line(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be at least") as raised:
        Paths(**settings)
    assert "\n" not in str(raised.value)
