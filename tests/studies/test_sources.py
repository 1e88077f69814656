"""Other networks as sources of black boxes: those that can lead, and why the others cannot."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from support.networks import Changed
from torch import Tensor, nn

from vicinal.networks import Classifier, Normalise
from vicinal.studies import Robustness, Subject, sources
from vicinal.studies.sources import black_box


def rotten(logits: Tensor) -> Tensor:
    """Finite logits with gradients that are no numbers."""
    return logits + 0 * (logits - logits.detach()).abs().sqrt()


TAKES = "the other network does not take these inputs, or gives other classes"
CANNOT: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "other shape": (lambda net: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), TAKES),
    "other classes": (lambda net: nn.Sequential(nn.Flatten(), nn.Linear(36, 10)), TAKES),
    "diverged": (lambda net: Changed(net, lambda logits: math.nan * logits), "logits are not finite"),
    "infinite": (lambda net: Changed(net, lambda logits: logits / 0), "logits are not finite"),
    "broken gradients": (lambda net: Changed(net, rotten), "gradients are not finite"),
    "masked gradients": (lambda net: Changed(net, torch.round), "gradients are all zero"),
    "no gradients": (lambda net: Changed(net, Tensor.detach), "no gradient of the other network reaches"),
    "chance": (lambda net: Changed(net, lambda logits: -logits), "no better than chance"),
}


@pytest.mark.parametrize("name", CANNOT)
def test_a_source_that_cannot_lead_is_left_out(name: str, images: Subject) -> None:
    make, reason = CANNOT[name]
    found, why_not = black_box(dataclasses.replace(images, source=make(images.network)))
    assert found is None
    assert why_not is not None
    assert reason in why_not
    assert "\n" not in why_not


def test_one_that_can_is_taken_and_left_as_it_is(images: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    source = copy.deepcopy(images.network).train()
    assert black_box(dataclasses.replace(images, source=source)) == (source, None)
    assert source.training
    assert all(parameter.grad is None for parameter in source.parameters())
    assert black_box(images) == (None, "no other network was given")
    diverged = dataclasses.replace(images, source=CANNOT["diverged"][0](source))
    monkeypatch.setattr(sources, "_why_not", lambda *given: None)  # negative control
    assert black_box(diverged)[0] is not None


@pytest.mark.parametrize("where", ["body.1", "head"])
def test_a_diverged_source_leads_nowhere_in_the_input_space(where: str, images: Subject) -> None:
    diverged = copy.deepcopy(images.network)
    nn.init.constant_(diverged.get_submodule(where).weight, math.nan)  # type: ignore[arg-type]
    why_not = black_box(dataclasses.replace(images, source=diverged), "input")[1]
    assert why_not == "the other network's logits are not finite; it diverged"


def test_a_source_for_the_input_space_keeps_the_shape(images: Subject) -> None:
    changed = copy.deepcopy(images.network)
    changed.preprocess = Normalise([0.0] * 3, [3.0] * 3)  # one channel becomes three
    wide: nn.Linear = changed.body[1]  # type: ignore[index, assignment]
    wide.weight = nn.Parameter(wide.weight.repeat(1, 3))
    subject = dataclasses.replace(images, source=changed)
    assert isinstance(changed, Classifier)
    assert black_box(subject) == (changed, None)
    assert black_box(subject, "input") == (None, TAKES)
    assert black_box(dataclasses.replace(images, source=nn.Sequential(images.network)), "input") == (
        None,
        "the other network has no preprocessing layer of its own",
    )


@pytest.mark.parametrize("name", ["other shape", "diverged"])
def test_without_a_fitting_source_there_are_white_boxes_alone(name: str, images: Subject) -> None:
    make, reason = CANNOT[name]
    subject = dataclasses.replace(images, source=make(images.network), source_name="it")
    without = Robustness(n=10, steps=2, sanity_n=5)(subject, 0)
    assert (without["source"], {c["box"] for c in without["curves"]}) == (None, {"white"})
    assert reason in without["why_not"]
