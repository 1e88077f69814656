"""Virtual adversarial dropout (Park et al. 2018), alone and with virtual adversarial training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from vicinal.methods.base import Cost, Method, Needs, Origin, Step, Term
from vicinal.methods.vat import VAT
from vicinal.networks import PassPolicy
from vicinal.schedules import RampName, ramp
from vicinal.settings import check
from vicinal.vicinity import DistanceName, cross_entropy, entropy, output_distance, squared_error
from vicinal.vicinity.dropout_adversary import adversarial_mask

_SEARCH = PassPolicy(update_stats=False, fp32=True)


class VAdD(Method):
    """Keep the prediction when the few features that matter most to it are dropped.

    With f = g o h, h the pooled features (D of them) and g the head, two views u^1, u^2, and p(u; m) = softmax
    g(m h(u)) under a mask m::

        L = mean_i CE(y_i, f(x_i)) + w(t) mean_i KL( p(u^1_i) || p(u^2_i; m_i) ) + entropy_weight mean_i H(p(u^1_i))

    m_i flips at most floor(delta D) entries of the mask of ones, those where that raises KL( p(u^2; m) || p(u^1) )
    most (the order of the arguments is reversed in the search, as in the official code), and is scaled to sum to D:
    `vicinal.vicinity.dropout_adversary`. m is a constant; p(u^1) is not: no stop-gradient.

    Batch norm: the labelled pass and both unlabelled passes update running statistics; the search, a pass of the head
    alone, does not. That search, and the head on the masked features, are the two h of the costs: the pass on u^2 ends
    with its features, so both together are one unlabelled pass and one further pass of the head. Source: Park et al.
    2018, AAAI; official code.

    Args:
        weight: maximal weight of the dropout term (official code: 1 for "kl", 25 for "mse").
        delta: largest share of the features that is dropped, in [0,1] (official code: 0.05, 6 of 128).
        distance: "kl", or "mse", the squared error of the probabilities as a mean over classes; of the search too.
        entropy_weight: weight of the entropy term, which all semi-supervised modes of the official code have (whether
            the paper's do is not known).
        ramp: how the weight of the dropout term rises.
        ramp_length: share of the training that the rise takes (official code: 80 of 300 epochs).
    """

    needs: ClassVar[Needs] = Needs(views=2, features=True)
    cost: ClassVar[Cost] = Cost(f=1, F=2, b=1, B=2, h=2)
    source: ClassVar[str] = "Park et al. 2018 (AAAI)"
    origins: ClassVar[Mapping[str, Origin]] = {
        "weight": "official-code",
        "delta": "official-code",
        "distance": "official-code",
        "entropy_weight": "official-code",
        "ramp": "official-code",
        "ramp_length": "official-code",
    }

    weight: float = 1.0
    delta: float = 0.05
    distance: DistanceName = "kl"
    entropy_weight: float = 1.0
    ramp: RampName = "sigmoid"
    ramp_length: float = 80 / 300

    def __post_init__(self) -> None:
        check("weight", self.weight, low=0)
        check("delta", self.delta, low=0, high=1)
        check("entropy_weight", self.entropy_weight, low=0)
        check("ramp_length", self.ramp_length, low=0, high=1)

    def passes(self) -> Cost:
        return self.cost._replace(h=2 if self.delta else 1)

    def loss(self, step: Step) -> dict[str, Term]:
        supervised = cross_entropy(step.y, step.student(step.x)).mean()
        return {"supervised": Term(supervised), **self.unsupervised(step, step.student(step.u[0]))}

    def unsupervised(self, step: Step, clean: Tensor) -> dict[str, Term]:
        """The dropout term and, if it has a weight, the entropy term.

        Args:
            step: the step, for the second view.
            clean: logits (B, C) of the first view, with a graph.
        """
        features = step.student.features(step.u[1])
        dropped = step.student.head(self.mask(step, clean, features) * features)
        weight = self.weight * ramp(self.ramp, step.progress, self.ramp_length)
        terms = {"consistency": Term(self._distance(clean, dropped).mean(), weight)}
        if self.entropy_weight:
            terms["entropy"] = Term(entropy(clean).mean(), self.entropy_weight)
        return terms

    def mask(self, step: Step, clean: Tensor, features: Tensor) -> Tensor:
        """The adversarial masks (B, D) of features (B, D), against logits (B, C) that count as constants."""
        target = clean.detach()
        return adversarial_mask(
            lambda h: self._distance(step.student.head(h, _SEARCH), target), features, delta=self.delta
        )

    def _distance(self, first: Tensor, second: Tensor) -> Tensor:
        """D(softmax first, softmax second), (B,), with a gradient in both."""
        if self.distance == "mse":
            return squared_error(first.softmax(dim=1), second)
        return output_distance("kl", first, second)


class VAdDVAT(VAdD, VAT):
    """Adversarial dropout and adversarial directions together.

    `VAdD` plus ``smoothness_weight`` times `VAT`'s term on the first view, whose clean prediction the two terms share::

        mean_i KL( sg p(u^1_i) || p(u^1_i + r_i) )

    Only this target is a constant. Batch norm: the search of r and the pass on u^1 + r leave running statistics alone.
    As published, this term's weight does not rise. Source: Park et al. 2018, AAAI; official code.

    Args:
        smoothness_weight: weight of VAT's term.
        masks: whether the clean, probing and adversarial passes on the first view share their dropout masks; those of
            the second view are always others.
    """

    cost: ClassVar[Cost] = Cost(f=1, F=4, b=1, B=3, X=1, h=2)
    source: ClassVar[str] = "Park et al. 2018 (AAAI)"
    origins: ClassVar[Mapping[str, Origin]] = {
        **VAT.origins,
        **VAdD.origins,
        "smoothness_weight": "official-code",
        "masks": "ours",
    }

    smoothness_weight: float = 1.0

    def __post_init__(self) -> None:
        VAdD.__post_init__(self)
        VAT.__post_init__(self)
        check("smoothness_weight", self.smoothness_weight, low=0)

    def passes(self) -> Cost:
        return super().passes()._replace(F=3 + self.iterations, X=self.iterations)

    def loss(self, step: Step) -> dict[str, Term]:
        supervised = cross_entropy(step.y, step.student(step.x)).mean()
        u = step.student.to_space(step.u[0], self.space)
        clean = step.student(u, PassPolicy(dropout=self.masks), space=self.space)
        terms = {"supervised": Term(supervised), **self.unsupervised(step, clean)}
        terms["smoothness"] = Term(self.smoothness(step, u, clean), self.smoothness_weight)
        return terms
