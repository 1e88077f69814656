"""Virtual adversarial training (Miyato et al. 2018), with entropy minimisation as an option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vicinal.errors import InputError
from vicinal.methods.base import Cost, Method, Needs, Origin, SpaceName, Step, Term
from vicinal.networks import PassPolicy
from vicinal.settings import check
from vicinal.vicinity import (
    Regime,
    SearchName,
    adversarial_direction,
    cross_entropy,
    entropy,
    full_precision,
    gauss_newton_direction,
    kl,
)


class VAT(Method):
    """Keep the prediction within a small ball around each example, in its worst direction.

    With p(u) = softmax f(u) and sg the stop-gradient::

        L = mean_i CE(y_i, f(x_i)) + weight mean_i KL( sg p(u_i) || p(u_i + r_i) ) + entropy_weight mean_i H(p(u_i))
        r_i = epsilon unit( grad_r KL( p(u_i) || p(u_i + r) ) at r = xi d_i ),  d_i a random unit vector, K times

    Batch norm: every unlabelled pass uses batch statistics and leaves the running ones alone; only the labelled pass
    updates them. With shared masks (the authors' TensorFlow code) the target comes from the same function as the
    search, and the direction is of second order; with fresh masks (their Chainer code) and dropout it is of first
    order. Source: Miyato et al. 2018, TPAMI.

    Args:
        epsilon: L2 radius in ``space``, >= 0 (published, CIFAR-10 after ZCA: 10, or 8 with augmentation; SVHN in
            [-0.5, 0.5]: 2.5, or 3.5).
        space: where the ball lies: "pixels" is data space, "input" the network's preprocessed input, as published.
        xi: probing step (published code: 1e-6, which in float32 gives a nearly random direction).
        iterations: power steps K.
        search: "finite_difference" as published, or the exact "gauss_newton" step, which needs no ``xi`` (second order
            only; its forward pass carries a tangent, which costs about one more).
        masks: whether the clean, probing and adversarial passes share their dropout masks.
        weight: weight of the smoothness term.
        entropy_weight: weight of the entropy term, whose gradient goes through the clean pass; the target stays
            constant.
    """

    needs: ClassVar[Needs] = Needs(views=1)
    cost: ClassVar[Cost] = Cost(f=1, F=3, b=1, B=1, X=1)
    source: ClassVar[str] = "Miyato et al. 2018 (TPAMI)"
    origins: ClassVar[Mapping[str, Origin]] = {
        "epsilon": "ours",
        "space": "ours",
        "xi": "ours",
        "iterations": "official-code",
        "search": "paper",
        "masks": "official-code",
        "weight": "official-code",
        "entropy_weight": "official-code",
    }

    epsilon: float = 1.0
    space: SpaceName = "pixels"
    xi: float = 1e-2
    iterations: int = 1
    search: SearchName = "finite_difference"
    masks: Literal["shared", "fresh"] = "shared"
    weight: float = 1.0
    entropy_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("epsilon", "weight", "entropy_weight"):
            check(name, getattr(self, name), low=0)
        check("xi", self.xi, above=0)
        check("iterations", self.iterations, low=1)
        if self.search == "gauss_newton" and self.masks == "fresh":
            raise InputError("search 'gauss_newton' is a second-order step and needs masks 'shared', got 'fresh'")

    @property
    def regime(self) -> Regime:
        return "second order" if self.masks == "shared" else "first order"

    def passes(self) -> Cost:
        return self.cost._replace(F=2 + self.iterations, X=self.iterations, B=2 if self._clean_teaches else 1)

    @property
    def _clean_teaches(self) -> bool:
        """Whether a gradient goes through the clean pass."""
        return self.entropy_weight > 0

    def loss(self, step: Step) -> dict[str, Term]:
        supervised = cross_entropy(step.y, step.student(step.x)).mean()
        policy = PassPolicy(update_stats=False, dropout=self.masks)
        u = step.student.to_space(step.u[0], self.space)
        clean = step.student(u, policy, space=self.space) if self._clean_teaches else self._detached(step, u, policy)
        terms = {"supervised": Term(supervised), "smoothness": Term(self.smoothness(step, u, clean), self.weight)}
        if self.entropy_weight:
            terms["entropy"] = Term(entropy(clean).mean(), self.entropy_weight)
        return terms

    def smoothness(self, step: Step, u: Tensor, clean: Tensor) -> Tensor:
        """The smoothness term of inputs (B, ...) in ``space``, given their logits (B, C), which count as constants."""
        policy = PassPolicy(update_stats=False, dropout=self.masks)
        target = clean.detach().softmax(dim=1)
        moved = step.student(u + self.epsilon * self._direction(step, u, target, policy), policy, space=self.space)
        return kl(target, moved).mean()

    def _detached(self, step: Step, u: Tensor, policy: PassPolicy) -> Tensor:
        with torch.no_grad():
            return step.student(u, policy, space=self.space)

    def _direction(self, step: Step, u: Tensor, target: Tensor, policy: PassPolicy) -> Tensor:
        policy = PassPolicy(update_stats=policy.update_stats, dropout=policy.dropout, fp32=True)
        draws = step.generator("adversary")
        if self.search == "gauss_newton":
            return gauss_newton_direction(
                lambda v: step.student(v, policy, space=self.space), u, iterations=self.iterations, generator=draws
            )
        return adversarial_direction(
            lambda v: kl(full_precision(target), step.student(v, policy, space=self.space)),
            u,
            xi=self.xi,
            iterations=self.iterations,
            generator=draws,
        )


class VATEntMin(VAT):
    """VAT plus entropy minimisation on the unlabelled examples.

    `VAT` with ``entropy_weight`` = 1, as published for the VAT+EntMin rows. Source: Miyato et al. 2018, TPAMI;
    entropy term: Grandvalet and Bengio 2005.
    """

    cost: ClassVar[Cost] = Cost(f=1, F=3, b=1, B=2, X=1)

    entropy_weight: float = 1.0
