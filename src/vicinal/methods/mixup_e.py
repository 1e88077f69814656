"""MixupE (Zou et al. 2023), on labelled examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from vicinal.methods.base import Cost, Origin, Step, Term
from vicinal.methods.mixup import Mixup, mixed_cross_entropy
from vicinal.networks import EVAL, FROZEN_STATS
from vicinal.vicinity import full_precision


class MixupE(Mixup):
    """mixup with the directional derivative that it implies weighted anew.

    To first order, mixup adds to the unmixed loss m1 R with the derivative R of the loss towards the data mean x-bar,
    p = softmax f(x) and m1 = E[1 - lambda] under the mixture of Beta(alpha + 1, alpha), which is
    alpha / (2 alpha + 1)::

        L = s ( L_mixup - eta m1 R ),   s = sg( L_mixup / (L_mixup - eta m1 R) )
        R = mean_i (p_i - y_i)^T J_f(x_i) (x-bar - x_i)             (derivative "exact")
        R = mean_i f(x_i)^T (y_i - p_i)                             (derivative "fast")

    The fast form is R for centred inputs and a positively homogeneous network, where J_f(x) x = f(x). The factor s
    gives the loss back the value that it had; no gradient goes through it. R is taken on the unmixed examples, in a
    pass of their own that leaves running statistics alone; x-bar is the batch's mean, in data space (both our
    reading). The exact form's pass is in eval mode: normalised by its own statistics, a batch that moves towards its
    mean as a whole comes out of the first batch norm as it was, and R would be 0. Source: Zou et al. 2023, UAI.

    Args:
        eta: strength; 0 is mixup, and a negative one adds to what mixup does by itself (our reading of the sign).
        derivative: "fast" needs an ordinary further pass; "exact" one that carries a tangent (about one more). The
            exact one has a sign and no bound, so training may run away with it: on the digits eta = 0.1 does, 0.01
            does not.
        rescale: whether the factor s is applied; it is not where the loss is not positive.
    """

    cost: ClassVar[Cost] = Cost(f=2, b=2)
    source: ClassVar[str] = "Zou et al. 2023 (UAI)"
    origins: ClassVar[Mapping[str, Origin]] = {
        **Mixup.origins,
        "eta": "ours",
        "derivative": "official-code",
        "rescale": "official-code",
    }

    eta: float = 0.1
    derivative: Literal["fast", "exact"] = "fast"
    rescale: bool = True

    @property
    def m1(self) -> float:
        """E[1 - lambda] of the partner's share in mixup's expansion.

        >>> [round(MixupE(alpha=alpha).m1, 4) for alpha in (0.2, 0.75, 1.0, 2.0)]
        [0.1429, 0.3, 0.3333, 0.4]
        """
        return self.alpha / (2 * self.alpha + 1)

    def loss(self, step: Step) -> dict[str, Term]:
        mixed = mixed_cross_entropy(step, self.alpha, self.lambda_per, self.fold)
        slope = self._slope(step)
        weight = -self.eta * self.m1
        if self.rescale:
            total = (mixed + weight * slope).detach()
            factor = torch.where(total > 0, mixed.detach() / total, 1)
            mixed, slope = factor * mixed, factor * slope
        return {"supervised": Term(mixed), "directional": Term(slope, weight)}

    def _slope(self, step: Step) -> Tensor:
        """R, a scalar with a graph."""
        if self.derivative == "fast":
            logits = step.student(step.x, FROZEN_STATS)
            along = -logits
        else:
            policy = replace(EVAL, fp32=True)  # forward differentiation does not go through autocast
            with forward_ad.dual_level():
                moving = forward_ad.make_dual(step.x, step.x.mean(dim=0) - step.x)
                logits, along = forward_ad.unpack_dual(step.student(moving, policy))
        logits, along = full_precision(logits), full_precision(along)
        y = F.one_hot(step.y, logits.shape[1])
        return ((logits.softmax(dim=1) - y) * along).sum(dim=1).mean()
