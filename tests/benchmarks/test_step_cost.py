"""The step computes what its floor computes, and nothing beside: counted, so that it holds on every machine."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from step_floor import Counts, Subject, count

from vicinal.methods import ICT, METHODS, VAT, AdvMixup, Cost, Method, Step, Term
from vicinal.networks import small_cnn

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

SHAPE = (3, 8, 8)


class OnePassMore(ICT):
    """ICT that looks at the clean labelled batch, as its official code does, and does not say so."""

    def loss(self, step: Step) -> dict[str, Term]:
        with torch.no_grad():
            step.student(step.x)
        return super().loss(step)


class Boasting(AdvMixup):
    """AdvMixup that says it searches without a backward pass."""

    cost: ClassVar[Cost] = AdvMixup.cost

    def passes(self) -> Cost:
        return super().passes()._replace(X=0)


def counted(method: Method) -> tuple[Counts, Counts]:
    """Step and floor of a method on a tiny network; batches differ in size, so that f is not mistaken for F."""
    torch.manual_seed(0)
    subject = Subject(method, small_cnn(SHAPE, 10, widths=(4, 4)), shape=SHAPE, labelled=4, unlabelled=6)
    counts = []
    for run in (subject.step, subject.floor):
        subject.clear()
        counts.append(count(run))
    return counts[0], counts[1]


@pytest.mark.parametrize("name", METHODS)
def test_a_step_computes_what_its_floor_computes(name: str) -> None:
    step, floor = counted(METHODS[name]())
    assert step.flops == floor.flops
    assert step.calls > floor.calls


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (AdvMixup, {"iterations": 2}),
        (AdvMixup, {"pairing": "real-real"}),
        (AdvMixup, {"epsilon": 0}),
        (AdvMixup, {"space": "input", "distance": "kl", "partner": "own"}),
        (VAT, {"iterations": 3}),
        (VAT, {"entropy_weight": 0.5, "masks": "fresh"}),
        (ICT, {"logging_passes": True}),
        (ICT, {"mix_labelled": False, "mix_space": "logits"}),
    ],
    ids=str,
)
def test_settings_change_step_and_floor_alike(method: type[Method], settings: dict[str, Any]) -> None:
    step, floor = counted(method(**settings))
    assert step.flops == floor.flops


def test_a_pass_that_is_not_declared_shows() -> None:
    step, floor = counted(OnePassMore())
    assert step.flops > floor.flops


def test_a_pass_that_is_declared_and_not_made_shows() -> None:
    step, floor = counted(Boasting())
    assert step.flops > floor.flops


def test_the_floor_is_as_cheap_as_counted_by_hand() -> None:
    """f + b of the tiny network, two operations per multiplication and addition."""
    _, floor = counted(METHODS["supervised"]())
    first, second, head = 64 * 27 * 4, 16 * 36 * 4, 4 * 10
    # Backward: gradients of weights and of inputs, except of the images.
    assert floor.flops == 2 * 4 * (first + second + head + first + 2 * second + 2 * head)
