"""AdvMixup (Ma, Mao, Chen and Li 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vicinal.methods.base import Cost, Method, Needs, Origin, SpaceName, Step, Term
from vicinal.networks import PassPolicy
from vicinal.schedules import RampName, ramp
from vicinal.settings import check
from vicinal.vicinity import (
    DistanceName,
    PerName,
    Regime,
    adversarial_direction,
    cross_entropy,
    distance,
    draw_mixing,
    full_precision,
    mix,
)


class AdvMixup(Method):
    """Be consistent along the paths from real to adversarial examples.

    With q = softmax f_theta'(u) of the averaged teacher, lambda ~ Beta(alpha, alpha) and a permutation pi::

        L = mean_i CE(y_i, f(x_i)) + weight(t) mean_i D( q^_i, f_theta(u^_i) )
        u^_i = lambda u_i + (1 - lambda) (u_pi(i) + r_pi(i)),  q^_i = lambda q_i + (1 - lambda) q_pi(i)
        r_j = epsilon unit( grad_r D(q_j, f_theta(u_j + r)) at r = xi d_j ),  d_j a random unit vector, K times

    The adversarial end keeps the teacher's prediction at its *clean* source. r, q and lambda are constants. Labelled
    examples are not mixed. Batch norm: the search uses batch statistics and leaves the running ones alone; the labelled
    and the mixed pass update the student's, the teacher updates its own on the clean unlabelled batch.

    The inner step pits the student against the teacher, so it is of first order: for small xi it is the normalised
    gradient at u_j, whatever the start d_j and K. Source: Ma et al. 2020, IJCNN (slides; official code for what they
    leave open). D, epsilon, weight and alpha of the published tables are unknown: the defaults are our reading (ICT's
    recipe, which the code's loader matches).

    Args:
        epsilon: L2 radius in ``space``, >= 0; 0 gives ICT's unsupervised term.
        space: where the ball lies: "pixels" is data space, "input" the network's preprocessed input, as published.
        alpha: Beta parameter, > 0 (official code's default: 1).
        weight: maximal consistency weight; squared error is a mean over classes (the official code's is a sum, so
            its weight is C times smaller).
        distance: D of the consistency term, "mse" or "kl" (the official code's default).
        inner_distance: D of the adversarial search; None takes ``distance``.
        pairing: the ends of the path: "real-adversarial" is the paper's; the official code also has "real-real" and
            "adversarial-adversarial".
        partner: "shuffled" pairs each example with another's adversarial end, as published; "own" with its own (ours).
        xi: probing step (official code: 1e-6).
        iterations: steps of the search, K (official code: 1).
        ramp: how the weight rises (official code's default: none).
        ramp_length: share of the training that the rise takes.
        lambda_per: one lambda per batch (official code) or per sample.
        fold: None, or fold lambda towards the "real" or the "adversarial" end (options of the official code).
    """

    needs: ClassVar[Needs] = Needs(views=1, teacher=True)
    cost: ClassVar[Cost] = Cost(f=1, F=2, T=1, b=1, B=1, X=1)
    source: ClassVar[str] = "Ma et al. 2020 (IJCNN)"
    origins: ClassVar[Mapping[str, Origin]] = {
        "epsilon": "ours",
        "space": "ours",
        "alpha": "official-code",
        "weight": "ours",
        "distance": "ours",
        "inner_distance": "official-code",
        "pairing": "paper",
        "partner": "paper",
        "xi": "ours",
        "iterations": "official-code",
        "ramp": "ours",
        "ramp_length": "ours",
        "lambda_per": "official-code",
        "fold": "official-code",
    }

    epsilon: float = 1.0
    space: SpaceName = "pixels"
    alpha: float = 1.0
    weight: float = 100.0
    distance: DistanceName = "mse"
    inner_distance: DistanceName | None = None
    pairing: Literal["real-adversarial", "real-real", "adversarial-adversarial"] = "real-adversarial"
    partner: Literal["shuffled", "own"] = "shuffled"
    xi: float = 1e-2
    iterations: int = 1
    ramp: RampName = "sigmoid"
    ramp_length: float = 0.25
    lambda_per: PerName = "batch"
    fold: Literal["real", "adversarial"] | None = None

    def __post_init__(self) -> None:
        check("epsilon", self.epsilon, low=0)
        check("alpha", self.alpha, above=0)
        check("weight", self.weight, low=0)
        check("xi", self.xi, above=0)
        check("iterations", self.iterations, low=1)
        check("ramp_length", self.ramp_length, low=0, high=1)

    @property
    def regime(self) -> Regime | None:
        return "first order" if self._searches else None

    @property
    def _searches(self) -> bool:
        return self.epsilon > 0 and self.pairing != "real-real"

    def passes(self) -> Cost:
        searches = self.iterations if self._searches else 0
        return self.cost._replace(F=1 + searches, X=searches)

    def loss(self, step: Step) -> dict[str, Term]:
        assert step.teacher is not None
        supervised = cross_entropy(step.y, step.student(step.x)).mean()
        u = step.student.to_space(step.u[0], self.space)
        q = step.teacher(u, space=self.space).softmax(dim=1)
        mixing = draw_mixing(
            len(u),
            self.alpha,
            step.generator("unlabelled mixing"),
            per=self.lambda_per,
            fold=self.fold is not None,
            device=u.device,
        )
        lam = 1 - mixing.lam if self.fold == "adversarial" else mixing.lam
        partner = torch.arange(len(u), device=u.device) if self.partner == "own" else mixing.partner
        adversarial = self.adversarial(step, u, q) if self._searches else u
        first = adversarial if self.pairing == "adversarial-adversarial" else u
        second = u if self.pairing == "real-real" else adversarial
        logits = step.student(mix(first, second[partner], lam), space=self.space)
        consistency = distance(self.distance, mix(q, q[partner], lam), logits).mean()
        weight = self.weight * ramp(self.ramp, step.progress, self.ramp_length)
        return {"supervised": Term(supervised), "consistency": Term(consistency, weight)}

    def adversarial(self, step: Step, u: Tensor, q: Tensor) -> Tensor:
        """The adversarial examples u + r, detached, in ``space``.

        Args:
            step: the step, for the student and the draws.
            u: unlabelled inputs (B, ...) in ``space``.
            q: teacher's probabilities on them (B, C).
        """
        policy = PassPolicy(update_stats=False, fp32=True)
        name = self.inner_distance or self.distance
        direction = adversarial_direction(
            lambda v: distance(name, full_precision(q), step.student(v, policy, space=self.space)),
            u,
            xi=self.xi,
            iterations=self.iterations,
            generator=step.generator("adversary"),
        )
        return u + self.epsilon * direction
