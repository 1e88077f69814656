"""Cross-view training for images (Clark, Luong and Le 2018), alone and with virtual adversarial noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.methods.base import Context, Cost, Method, Needs, Origin, SpaceName, Step, Term
from vicinal.networks import EVAL, Classifier, Parts, PassPolicy, run
from vicinal.schedules import RampName, ramp
from vicinal.settings import check
from vicinal.vicinity import Regime, adversarial_direction, cross_entropy, full_precision, kl


class CVT(Method):
    """Let heads that see one position of the last feature map each predict what the whole network predicts.

    With m_j(u) the column of the last feature map at position j = 1..P (36 for CNN-13 on 32x32), g_j an auxiliary head
    per position, and q = softmax f(u) of the primary head::

        L = mean_i CE(y_i, f(x_i)) + w(t) sum_j mean_i D( sg q(u_i), g_j(m_j(u_i)) )

    (or the mean over j). The teacher is the student itself in eval mode, without dropout and without gradient, run
    before the students; the students are the auxiliary heads alone. So the unlabelled term has no gradient at all on
    the primary head; it reaches the body through the map. Auxiliary heads are of the primary head's kind, are trained
    with the network, and are not used for prediction. They run as one batched product; the costs do not count them.

    Batch norm (ours): the labelled and the students' pass update running statistics, which the teacher's pass uses.

    Source: Clark et al. 2018, EMNLP. The official code is for text: it sums cross-entropies over heads, and alternates
    labelled and unlabelled minibatches as separate optimiser steps. A step here is one step of the optimiser on both
    batches, so the two losses are added; for plain SGD that equals the alternation to first order in the learning rate.
    Alternating within this frame would throw half of all passes away or make the cost of a step depend on its number,
    so it is not an option. No code for images was found: heads, distance, weight and ramp are our reading.

    Args:
        weight: maximal weight of the unlabelled term.
        distance: D, "kl", or "ce" as in the text code: the same gradient, as they differ by the entropy of q.
        over_heads: "mean" or "sum" over positions; the sum is P times larger.
        ramp: how the weight rises.
        ramp_length: share of the training that the rise takes.
    """

    needs: ClassVar[Needs] = Needs(views=1, map=True)
    cost: ClassVar[Cost] = Cost(f=1, F=2, b=1, B=1)
    source: ClassVar[str] = "Clark et al. 2018 (EMNLP)"
    origins: ClassVar[Mapping[str, Origin]] = {
        "weight": "ours",
        "distance": "ours",
        "over_heads": "ours",
        "ramp": "ours",
        "ramp_length": "ours",
    }

    weight: float = 1.0
    distance: Literal["kl", "ce"] = "kl"
    over_heads: Literal["mean", "sum"] = "mean"
    ramp: RampName = "none"
    ramp_length: float = 0.25

    def __post_init__(self) -> None:
        check("weight", self.weight, low=0)
        check("ramp_length", self.ramp_length, low=0, high=1)

    def prepare(self, context: Context) -> None:
        """Make a head per position of the last feature map.

        Raises:
            InputError: the network has no such map.
        """
        network = context.network
        assert isinstance(network, Classifier)
        parameter = next(network.parameters())
        blank = torch.zeros(1, *context.shape, device=parameter.device, dtype=parameter.dtype)
        with torch.no_grad():
            parts = run(network, blank, EVAL, call=lambda network, x: network(x, part="all"))
        feature_map = cast(Parts, parts).map
        if feature_map is None:
            raise InputError("network: cvt needs a last feature map; use a network of images that ends with an average")
        positions = feature_map.shape[2] * feature_map.shape[3]
        self.heads = nn.ModuleList(network.another_head() for _ in range(positions))

    def loss(self, step: Step) -> dict[str, Term]:
        supervised = cross_entropy(step.y, step.student(step.x)).mean()
        u = step.student.to_space(step.u[0], self._space)
        with torch.no_grad():
            target = step.student(u, EVAL, space=self._space).softmax(dim=1)
        feature_map = step.student.parts(self._seen(step, u, target), space=self._space).map
        logits = self.auxiliary(cast(Tensor, feature_map))
        divergence = kl if self.distance == "kl" else cross_entropy
        unlabelled = divergence(target.repeat(len(logits), 1), logits.flatten(0, 1)).mean()
        if self.over_heads == "sum":
            unlabelled = unlabelled * len(logits)
        weight = self.weight * ramp(self.ramp, step.progress, self.ramp_length)
        return {"supervised": Term(supervised), "consistency": Term(unlabelled, weight)}

    def auxiliary(self, feature_map: Tensor) -> Tensor:
        """Logits (P, B, C) of the heads, each from its own position of a feature map (B, D, H, W), row by row."""
        columns = feature_map.flatten(2).permute(2, 0, 1)
        heads = [head for head in self.heads if isinstance(head, nn.Linear) and head.bias is not None]
        if len(heads) < len(self.heads):  # normalised logits: such heads cannot be stacked
            return torch.stack([head(column) for head, column in zip(self.heads, columns, strict=True)])
        weights = torch.stack([head.weight for head in heads])
        biases = torch.stack([head.bias for head in heads])
        return torch.baddbmm(biases[:, None], columns, weights.mT)

    @property
    def _space(self) -> SpaceName:
        return "pixels"

    def _seen(self, step: Step, u: Tensor, target: Tensor) -> Tensor:
        """What the students see of the unlabelled inputs, in `_space`."""
        return u


class CVTVAT(CVT):
    """CVT whose auxiliary heads see virtual adversarial examples: `CVT` with u + r as the students' input.

    With q(u) the primary head's prediction in eval mode, without dropout::

        L = mean_i CE(y_i, f(x_i)) + w(t) sum_j mean_i D( sg q(u_i), g_j(m_j(u_i + r_i)) )
        r_i = epsilon unit( grad_r KL( q(u_i) || q(u_i + r) ) at r = xi d_i ),  d_i a random unit vector, K times

    The search looks at the primary head in the teacher's mode, so it is of second order, as VAT's. r is a constant.
    Source: Clark et al. 2018, EMNLP (that the two go together); which head is attacked, epsilon and weight are our
    reading.

    Args:
        epsilon: L2 radius in ``space``, >= 0; 0 gives `CVT`.
        space: where the ball lies: "pixels" is data space, "input" the network's preprocessed input.
        xi: probing step.
        iterations: power steps K.
    """

    cost: ClassVar[Cost] = Cost(f=1, F=3, b=1, B=1, X=1)
    origins: ClassVar[Mapping[str, Origin]] = {
        **CVT.origins,
        "epsilon": "ours",
        "space": "ours",
        "xi": "ours",
        "iterations": "ours",
    }

    epsilon: float = 1.0
    space: SpaceName = "pixels"
    xi: float = 1e-2
    iterations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check("epsilon", self.epsilon, low=0)
        check("xi", self.xi, above=0)
        check("iterations", self.iterations, low=1)

    @property
    def regime(self) -> Regime | None:
        return "second order" if self.epsilon else None

    def passes(self) -> Cost:
        searches = self.iterations if self.epsilon else 0
        return self.cost._replace(F=2 + searches, X=searches)

    @property
    def _space(self) -> SpaceName:
        return self.space

    def _seen(self, step: Step, u: Tensor, target: Tensor) -> Tensor:
        if self.epsilon == 0:
            return u
        policy = PassPolicy(mode="eval", update_stats=False, fp32=True)
        direction = adversarial_direction(
            lambda v: kl(full_precision(target), step.student(v, policy, space=self.space)),
            u,
            xi=self.xi,
            iterations=self.iterations,
            generator=step.generator("adversary"),
        )
        return u + self.epsilon * direction
