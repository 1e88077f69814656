"""Studies where there is little to measure: networks that diverged, features that do not vary, many examples."""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
import math
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.data import Examples
from vicinal.errors import InputError
from vicinal.studies import STUDIES, Paths, Robustness, SingleStep, Smoothness, Study, Subject

# PyTorch scripts some decompositions when forward-mode differentiation is first used, which it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

QUICK: dict[str, dict[str, Any]] = {
    "robustness": {"n": 10, "steps": 2, "sanity_n": 5, "apgd": True},
    "corruptions": {"n": 5, "severities": (1,)},
    "smoothness": {"n": 10, "steps": 2, "iterations": 2},
    "regions": {"resolution": 5, "side": 50},
}


def study(name: str) -> Study:
    return STUDIES[name](**QUICK.get(name, {}))


def diverged(subject: Subject, value: float) -> Subject:
    network = copy.deepcopy(subject.network)
    for parameter in network.parameters():
        nn.init.constant_(parameter, value)
    return dataclasses.replace(subject, network=network, source=network)


@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38])
@pytest.mark.parametrize("data", ["images", "vectors", "plane"])
@pytest.mark.parametrize("name", STUDIES)
def test_of_a_network_that_diverged_figures_are_plain(name: str, data: str, value: float, request: Any) -> None:
    subject = diverged(request.getfixturevalue(data), value)
    if name == "corruptions" and data == "images":
        x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        dataset = dataclasses.replace(subject.dataset, shape=(1, 8, 8), test=Examples(x, torch.arange(20) % 3))
        subject = dataclasses.replace(subject, dataset=dataset, network=nn.Sequential(nn.Flatten(), Diverged(value)))
    if study(name).refusal(subject) is None:
        found = study(name)(subject, 0)
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert found.get("black") is None


class Diverged(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3] * self.value


@pytest.fixture(params=["one example", "constant"])
def still(request: Any, vectors: Subject) -> Subject:
    x, y = vectors.examples.x[torch.arange(60)], vectors.examples.y
    test = Examples(x[:1], y[:1]) if request.param == "one example" else Examples(x[:1].expand(60, -1), y)
    return dataclasses.replace(vectors, dataset=dataclasses.replace(vectors.dataset, test=test))


@pytest.mark.parametrize(
    ("kind", "name", "given"),
    [
        (Robustness, "linf and l2", {"linf": (0.0, 0.1), "l2": (0.0, 0.1)}),
        (SingleStep, "epsilons", {"epsilons": (0.1,)}),
        (Paths, "epsilon", {"epsilon": 0.1}),
        (Smoothness, "epsilon", {"epsilon": 0.1}),
    ],
)
def test_features_that_do_not_vary_give_no_radii(
    kind: type[Study], name: str, given: Any, still: Subject, vectors: Subject, images: Subject
) -> None:
    message = f"the features do not vary, so that there is no unit for radii; give {name}"
    assert kind().refusal(still) == message
    assert kind().refusal(vectors) is kind().refusal(images) is kind(**given).refusal(still) is None
    found = kind(**given)(still, 0)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    if kind is Robustness:
        assert Robustness(linf=(0.0, 0.1)).refusal(still) == message
        with pytest.raises(InputError, match="robustness: the features do not vary"):
            Robustness()(still, 0)


def most_held(subject: Subject, name: str, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> int:
    """How many batches that the data gave were there at once."""
    there: weakref.WeakSet[Tensor] = weakref.WeakSet()
    stream, most = Subject.stream, 0

    def watched(self: Subject, n: int | None = None, size: int = 200) -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal most
        for x, y in stream(self, n, 5 if n is None else size):  # the whole set in small batches
            held = x.clone()
            if n is None:
                there.add(held)
                most = max(most, len(there))
            yield held, y
            del held

    with monkeypatch.context() as patch:
        patch.setattr(Subject, "stream", watched)
        STUDIES[name](**{**QUICK.get(name, {}), **settings})(subject, 0)  # type: ignore[arg-type]
    gc.collect()
    return most


@pytest.mark.parametrize("name", ["robustness", "fgm", "paths", "smoothness", "calibration"])
def test_what_is_held_does_not_grow_with_the_examples(
    name: str, vectors: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"apgd": False} if name == "robustness" else {}
    assert 0 < most_held(vectors, name, monkeypatch, n=None, **settings) <= 3
    monkeypatch.setattr(Subject, "again", Subject.batches)  # negative control
    if name in ("robustness", "smoothness"):
        assert most_held(vectors, name, monkeypatch, n=None, **settings) == 12
