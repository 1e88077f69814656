"""A method makes exactly the passes that it says it makes: counted by hooks, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.properties import passes_are_declared
from torch import Tensor, nn

from vicinal.methods import ICT, VAT, AdvMixup, MeanTeacher, Mixup, Supervised, VATEntMin
from vicinal.methods.base import Method
from vicinal.networks import run

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

SETTINGS: list[Method] = [
    Supervised(),
    Mixup(),
    MeanTeacher(),
    MeanTeacher(distance="kl"),
    VAT(),
    VAT(iterations=2),
    VAT(iterations=2, entropy_weight=0.1),
    VAT(search="gauss_newton", iterations=2),
    VAT(masks="fresh"),
    VAT(epsilon=0),
    VATEntMin(),
    VATEntMin(iterations=3),
    VATEntMin(entropy_weight=0),
    ICT(),
    ICT(mix_labelled=False),
    ICT(logging_passes=True),
    ICT(mix_space="logits"),
    AdvMixup(),
    AdvMixup(iterations=2),
    AdvMixup(epsilon=0),
    AdvMixup(pairing="real-real"),
    AdvMixup(pairing="adversarial-adversarial", iterations=2),
    AdvMixup(partner="own", space="input"),
]


def named(method: Method) -> str:
    defaults = type(method)().settings()
    changed = [f"{name}={value}" for name, value in method.settings().items() if value != defaults[name]]
    return f"{type(method).__name__}({', '.join(changed)})"


@pytest.mark.parametrize("method", SETTINGS, ids=named)
def test_passes_are_those_declared(method: Method, lab: Any) -> None:
    passes_are_declared(lab, method)


@pytest.mark.parametrize("method", SETTINGS, ids=named)
def test_a_wasted_pass_is_noticed(method: Method, lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def wasteful(network: nn.Module, x: Tensor, *policy: Any, **rest: Any) -> Tensor:
        run(network, x, *policy, **rest)
        return run(network, x, *policy, **rest)

    monkeypatch.setattr("vicinal.methods.step.run", wasteful)
    with pytest.raises(AssertionError):
        passes_are_declared(lab, method)


def test_a_search_with_every_gradient_is_noticed(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target computed with a graph, and a backward pass through it, would be one B too many."""
    monkeypatch.setattr(VAT, "_detached", lambda self, step, u, policy: step.student(u, policy))
    monkeypatch.setattr(Tensor, "detach", lambda self: self)
    with pytest.raises(AssertionError):
        passes_are_declared(lab, VAT())


def test_logging_passes_are_what_the_official_code_wastes() -> None:
    assert str(ICT(logging_passes=True).passes()) == "2f+2F+T+t+b+B"
