"""Mean Teacher (Tarvainen and Valpola 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vicinal.methods.base import Cost, Method, Needs, Origin, Step, Term
from vicinal.schedules import RampName, ramp
from vicinal.settings import check
from vicinal.vicinity import DistanceName, cross_entropy, distance


class MeanTeacher(Method):
    """Agree with an exponential moving average of oneself under other noise.

    With two views u^a, u^b of each unlabelled example and theta' the moving average of theta::

        L = mean_i CE(y_i, f(x_i)) + w(t) mean_{i,c} ( f_theta(u^a_i)_c - f_theta'(u^b_i)_c )^2

    No gradient reaches the teacher. Augmentation, noise and dropout are drawn separately for the two branches.
    Source: Tarvainen and Valpola 2017, NeurIPS.

    Args:
        weight: maximal consistency weight, for squared error as a mean over classes (published: 100 x labelled share
            of the training set in their normalisation, which is 100 here).
        distance: "mse" as published, or "kl" of the teacher's from the student's probabilities.
        ramp: how the weight rises.
        ramp_length: share of the training that the rise takes (published: 40000 of 150000 steps).
    """

    needs: ClassVar[Needs] = Needs(views=2, teacher=True)
    cost: ClassVar[Cost] = Cost(f=1, F=1, T=1, b=1, B=1)
    source: ClassVar[str] = "Tarvainen & Valpola 2017 (NeurIPS)"
    origins: ClassVar[Mapping[str, Origin]] = {
        "weight": "official-code",
        "distance": "paper",
        "ramp": "official-code",
        "ramp_length": "official-code",
    }

    weight: float = 100.0
    distance: DistanceName = "mse"
    ramp: RampName = "sigmoid"
    ramp_length: float = 0.27

    def __post_init__(self) -> None:
        check("weight", self.weight, low=0)
        check("ramp_length", self.ramp_length, low=0, high=1)

    def loss(self, step: Step) -> dict[str, Term]:
        assert step.teacher is not None
        supervised = cross_entropy(step.y, step.student(step.x)).mean()
        target = step.teacher(step.u[1]).softmax(dim=1)
        consistency = distance(self.distance, target, step.student(step.u[0])).mean()
        weight = self.weight * ramp(self.ramp, step.progress, self.ramp_length)
        return {"supervised": Term(supervised), "consistency": Term(consistency, weight)}
