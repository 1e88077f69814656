"""The Pi-model (Laine and Aila 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch

from vicinal.methods.base import Cost, Method, Needs, Origin, Step, Term
from vicinal.networks import FROZEN_STATS
from vicinal.schedules import RampName, ramp
from vicinal.settings import check
from vicinal.vicinity import cross_entropy, squared_error


class PiModel(Method):
    """Predict the same for two noisy views of an example.

    With two views u^a, u^b of each unlabelled example, each with noise and dropout masks of its own::

        L = mean_i CE(y_i, f(x_i)) + w(t) mean_{i,c} ( softmax f(u^a_i)_c - softmax f(u^b_i)_c )^2

    The gradient flows through both branches. The two views differ in translation and share their flip (the setting
    ``share_flip`` of the augmentation, from which experiments with this method start). Source: Laine and Aila 2017,
    ICLR; official code.

    The published weight is 100 times the labelled share of the training set, beside a cross-entropy that is summed
    over the labelled examples and divided by the whole batch: 100 beside a mean over labelled examples, as here. There,
    labelled and unlabelled examples share one batch; here they come apart, and the labelled pass updates running
    statistics too.

    Args:
        weight: maximal consistency weight, squared error as a mean over classes.
        detach: make branch b a constant target, which halves the expected gradient (published: no).
        stats: which branches update the running statistics of batch norm: branch b, the "second", alone (published), or
            "both".
        ramp: how the weight rises.
        ramp_length: share of the training that the rise takes (published: 80 of 300 epochs).
        delay: share of the training at whose beginning the weight is 0 (published: the first of 300 epochs).
    """

    needs: ClassVar[Needs] = Needs(views=2)
    cost: ClassVar[Cost] = Cost(f=1, F=2, b=1, B=2)
    source: ClassVar[str] = "Laine & Aila 2017 (ICLR)"
    origins: ClassVar[Mapping[str, Origin]] = {
        "weight": "official-code",
        "detach": "official-code",
        "stats": "official-code",
        "ramp": "official-code",
        "ramp_length": "official-code",
        "delay": "official-code",
    }
    experiment: ClassVar[Mapping[str, Any]] = {"augment": {"share_flip": True}}

    weight: float = 100.0
    detach: bool = False
    stats: Literal["second", "both"] = "second"
    ramp: RampName = "sigmoid"
    ramp_length: float = 80 / 300
    delay: float = 1 / 300

    def __post_init__(self) -> None:
        check("weight", self.weight, low=0)
        check("ramp_length", self.ramp_length, low=0, high=1)
        check("delay", self.delay, low=0, high=1)

    def passes(self) -> Cost:
        return self.cost._replace(B=1 if self.detach else 2)

    def loss(self, step: Step) -> dict[str, Term]:
        supervised = cross_entropy(step.y, step.student(step.x)).mean()
        first = step.student(step.u[0], FROZEN_STATS if self.stats == "second" else None)
        with torch.set_grad_enabled(not self.detach and torch.is_grad_enabled()):
            second = step.student(step.u[1])
        consistency = squared_error(second.softmax(dim=1), first).mean()
        waits = step.progress.fraction < self.delay
        weight = 0.0 if waits else self.weight * ramp(self.ramp, step.progress, self.ramp_length)
        return {"supervised": Term(supervised), "consistency": Term(consistency, weight)}
