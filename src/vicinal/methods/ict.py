"""Interpolation consistency training (Verma et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vicinal.methods.base import Cost, Method, Needs, Origin, Step, Term
from vicinal.methods.mixup import mixed_cross_entropy
from vicinal.schedules import RampName, ramp
from vicinal.settings import check
from vicinal.vicinity import DistanceName, Mixing, PerName, cross_entropy, distance, draw_mixing, mix


class ICT(Method):
    """Predict mixtures of unlabelled examples as the mixture of the teacher's predictions.

    With q = softmax f_theta'(u) of the averaged teacher, lambda ~ Beta(alpha, alpha), a permutation pi, and separate
    draws for the labelled batch::

        L = mixup CE on (x, y) + w(t) mean_{i,c} ( softmax f_theta(lambda u_i + (1 - lambda) u_pi(i))_c - t_ic )^2
        t_i = lambda q_i + (1 - lambda) q_pi(i)

    No gradient reaches q. Source: Verma et al. 2019, IJCAI. Official code, as options: targets mixed in logit space,
    the teacher started from another initialisation (``teacher.init``), further passes that only move running
    statistics.

    Args:
        alpha: Beta parameter of both mixings, > 0 (published: 1.0 on CIFAR-10, 0.1 on SVHN).
        weight: maximal consistency weight, squared error as a mean over classes (published: 100).
        ramp: how the weight rises.
        ramp_length: share of the training that the rise takes (published: 100 of 400 epochs).
        mix_labelled: whether the labelled batch is mixed too (published: yes).
        mix_space: "probabilities" is the paper's equation; "logits" what the official code computes.
        distance: "mse" as published, or "kl".
        lambda_per: one lambda per batch (published code) or per sample.
        fold: replace lambda by max(lambda, 1 - lambda); changes nothing but who is called the partner.
        logging_passes: also run the official code's passes that enter no loss (student on clean x and u, teacher on
            clean x); they move the running statistics of batch norm.
    """

    needs: ClassVar[Needs] = Needs(views=1, teacher=True)
    cost: ClassVar[Cost] = Cost(f=1, F=1, T=1, b=1, B=1)
    source: ClassVar[str] = "Verma et al. 2019 (IJCAI)"
    origins: ClassVar[Mapping[str, Origin]] = {
        "alpha": "official-code",
        "weight": "official-code",
        "ramp": "official-code",
        "ramp_length": "official-code",
        "mix_labelled": "official-code",
        "mix_space": "paper",
        "distance": "paper",
        "lambda_per": "official-code",
        "fold": "official-code",
        "logging_passes": "ours",
    }

    alpha: float = 1.0
    weight: float = 100.0
    ramp: RampName = "sigmoid"
    ramp_length: float = 0.25
    mix_labelled: bool = True
    mix_space: Literal["probabilities", "logits"] = "probabilities"
    distance: DistanceName = "mse"
    lambda_per: PerName = "batch"
    fold: bool = False
    logging_passes: bool = False

    def __post_init__(self) -> None:
        check("alpha", self.alpha, above=0)
        check("weight", self.weight, low=0)
        check("ramp_length", self.ramp_length, low=0, high=1)

    def passes(self) -> Cost:
        return self.cost._replace(f=2, F=2, t=1) if self.logging_passes else self.cost

    def loss(self, step: Step) -> dict[str, Term]:
        assert step.teacher is not None
        supervised = self.supervised(step)
        (u,) = step.u
        q = step.teacher(u)
        mixing = draw_mixing(
            len(u),
            self.alpha,
            step.generator("unlabelled mixing"),
            per=self.lambda_per,
            fold=self.fold,
            device=u.device,
        )
        if self.mix_space == "logits":
            target = mix(q, q[mixing.partner], mixing.lam).softmax(dim=1)
        else:
            q = q.softmax(dim=1)
            target = mix(q, q[mixing.partner], mixing.lam)
        logits = step.student(self.mixed(step, u, mixing))
        consistency = distance(self.distance, target, logits).mean()
        if self.logging_passes:
            with torch.no_grad():
                step.student(step.x)
                step.student(u)
                step.teacher(step.x)
        weight = self.weight * ramp(self.ramp, step.progress, self.ramp_length)
        return {"supervised": Term(supervised), "consistency": Term(consistency, weight)}

    def supervised(self, step: Step) -> Tensor:
        """The supervised term, a scalar."""
        if self.mix_labelled:
            return mixed_cross_entropy(step, self.alpha, self.lambda_per, self.fold)
        return cross_entropy(step.y, step.student(step.x)).mean()

    def mixed(self, step: Step, u: Tensor, mixing: Mixing) -> Tensor:
        """The unlabelled inputs (B, ...) mixed; the teacher's predictions are mixed likewise."""
        return mix(u, u[mixing.partner], mixing.lam)
