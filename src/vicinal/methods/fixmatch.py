"""FixMatch (Sohn et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from vicinal.methods.base import Cost, Method, Needs, Origin, Step, Term
from vicinal.networks import FROZEN_STATS
from vicinal.settings import check
from vicinal.vicinity import cross_entropy


class FixMatch(Method):
    """Predict, on a strongly augmented view, the class that the weakly augmented one gives with confidence.

    With u^w and u^s a weak and a strong view of each unlabelled example and q_i = softmax f(u^w_i)::

        L = mean_i CE(y_i, f(x_i)) + weight mean_i [ max_c q_ic >= threshold ] CE( argmax_c q_ic, f(u^s_i) )

    The mean is over all unlabelled examples, those below the threshold included. Pseudo-labels are hard and constant:
    the pass on the weak view, in training mode like all others, has no gradient. There is no temperature and no ramp;
    while the network is unsure, the threshold keeps the term small.

    The three batches go through the network one by one, so that each is normalised by its own statistics. Batch norm:
    the labelled and the weak pass update running statistics, which are to describe inputs like those of evaluation; the
    strong pass uses its own batch and leaves them alone. Both are our choice, as are the settings: SGD with Nesterov
    momentum, a cosine that ends at a fifth of its start (``schedule_full`` 1.41: this library's cosine reaches zero
    beyond the end of training), and evaluation of averaged weights. The method is made for unlabelled batches several
    times as large as the labelled ones (``training.batch_unlabelled``). Source: Sohn et al. 2020, NeurIPS.

    Args:
        weight: weight of the unlabelled term.
        threshold: confidence in [0,1] from which on a pseudo-label counts; 0 takes all.
    """

    needs: ClassVar[Needs] = Needs(views=1, strong=1)
    cost: ClassVar[Cost] = Cost(f=1, F=2, b=1, B=1)
    source: ClassVar[str] = "Sohn et al. 2020 (NeurIPS)"
    origins: ClassVar[Mapping[str, Origin]] = {"weight": "ours", "threshold": "ours"}
    experiment: ClassVar[Mapping[str, Any]] = {
        "training": {
            "optimizer": "sgd",
            "learning_rate": 0.03,
            "momentum": 0.9,
            "nesterov": True,
            "schedule": "cosine",
            "schedule_full": 1.41,
        },
        "averaging": {"kind": "ema", "decay": 0.999},
    }

    weight: float = 1.0
    threshold: float = 0.95

    def __post_init__(self) -> None:
        check("weight", self.weight, low=0)
        check("threshold", self.threshold, low=0, high=1)

    def loss(self, step: Step) -> dict[str, Term]:
        supervised = cross_entropy(step.y, step.student(step.x)).mean()
        weak, strong = step.u
        with torch.no_grad():
            confidence, label = step.student(weak).softmax(dim=1).max(dim=1)
        values = cross_entropy(label, step.student(strong, FROZEN_STATS))
        consistency = (values * (confidence >= self.threshold)).mean()
        return {"supervised": Term(supervised), "consistency": Term(consistency, self.weight)}
