"""Local Mixup (Baena, Drumetz and Gripon 2022), on labelled examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from vicinal.methods.base import Origin, Step, Term
from vicinal.methods.mixup import Mixup
from vicinal.settings import check
from vicinal.vicinity import cross_entropy, draw_mixing, mix


class LocalMixup(Mixup):
    """mixup in which pairs of distant examples count less, as what lies between them may be another class's.

    With lambda, pi and x~ as in mixup and d_i = ||x_i - x_pi(i)||_2 in data space::

        L = sum_i w_i [ lambda CE(y_i, f(x~_i)) + (1 - lambda) CE(y_pi(i), f(x~_i)) ] / sum_i w_i
        w_i = [ d_i <= epsilon ]   or   w_i = exp(-c d_i)

    Limits of the hard weights: for epsilon -> infinity mixup; for epsilon -> 0 what is left are examples paired with
    themselves (the permutation's fixed points, in most steps one or a few) and with their duplicates, that is training
    on unmixed examples, each as often as any other. A step without any pair within epsilon has loss 0. c = 0 is mixup.
    The weights belong to the pairs: the official code multiplies the batch's mean by one weight instead in one of its
    scripts. Source: Baena, Drumetz and Gripon 2022, EUSIPCO; from the definition.

    Args:
        weighting: "exponential" in the distance, or "hard": pairs within ``epsilon`` alone.
        epsilon: largest distance of a pair, >= 0; for "hard".
        c: decay of the weight per unit of distance, >= 0; for "exponential" (published code: 5e-4 on standardised
            images, where it is almost plain mixup).
    """

    source: ClassVar[str] = "Baena et al. 2022 (EUSIPCO)"
    origins: ClassVar[Mapping[str, Origin]] = {**Mixup.origins, "weighting": "ours", "epsilon": "ours", "c": "ours"}

    weighting: Literal["exponential", "hard"] = "exponential"
    epsilon: float = 3.0
    c: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check("epsilon", self.epsilon, low=0)
        check("c", self.c, low=0)

    def loss(self, step: Step) -> dict[str, Term]:
        mixing = draw_mixing(
            len(step.y),
            self.alpha,
            step.generator("labelled mixing"),
            per=self.lambda_per,
            fold=self.fold,
            device=step.x.device,
        )
        partners = step.x[mixing.partner]
        logits = step.student(mix(step.x, partners, mixing.lam))
        own, other = cross_entropy(step.y, logits), cross_entropy(step.y[mixing.partner], logits)
        weights = self.weights((step.x - partners).flatten(1).norm(dim=1))
        return {"supervised": Term((weights * mix(own, other, mixing.lam)).sum())}

    def weights(self, distances: Tensor) -> Tensor:
        """The pairs' shares w_i / sum_k w_k, (B,), for their distances (B,); zeros if no pair is near enough."""
        if self.weighting == "exponential":
            return (-self.c * distances).softmax(dim=0)
        near = (distances <= self.epsilon).to(distances.dtype)
        return near / near.sum().clamp(min=1)
