"""mixup (Zhang et al. 2018), on labelled examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from vicinal.methods.base import Cost, Method, Origin, Step, Term
from vicinal.settings import check
from vicinal.vicinity import PerName, cross_entropy, draw_mixing, mix


class Mixup(Method):
    """Cross-entropy on convex combinations of labelled pairs and of their labels.

    With lambda ~ Beta(alpha, alpha) and a random permutation pi of the batch::

        L = mean_i [ lambda CE(y_i, f(x~_i)) + (1 - lambda) CE(y_pi(i), f(x~_i)) ]
        x~_i = lambda x_i + (1 - lambda) x_pi(i)

    which equals the cross-entropy with the mixed one-hot label. Source: Zhang et al. 2018, ICLR.

    Args:
        alpha: Beta parameter, > 0; 1 draws lambda uniformly (the published CIFAR-10 setting).
        lambda_per: one lambda per batch (published code) or per sample.
        fold: replace lambda by max(lambda, 1 - lambda); leaves the expected loss as it is.
    """

    cost: ClassVar[Cost] = Cost(f=1, b=1)
    source: ClassVar[str] = "Zhang et al. 2018 (ICLR)"
    origins: ClassVar[Mapping[str, Origin]] = {
        "alpha": "official-code",
        "lambda_per": "official-code",
        "fold": "official-code",
    }

    alpha: float = 1.0
    lambda_per: PerName = "batch"
    fold: bool = False

    def __post_init__(self) -> None:
        check("alpha", self.alpha, above=0)

    def loss(self, step: Step) -> dict[str, Term]:
        return {"supervised": Term(mixed_cross_entropy(step, self.alpha, self.lambda_per, self.fold))}


def mixed_cross_entropy(step: Step, alpha: float, per: PerName, fold: bool) -> Tensor:
    """The mixup loss on the step's labelled batch, a scalar; ICT's supervised term too."""
    mixing = draw_mixing(
        len(step.y), alpha, step.generator("labelled mixing"), per=per, fold=fold, device=step.x.device
    )
    logits = step.student(mix(step.x, step.x[mixing.partner], mixing.lam))
    own, other = cross_entropy(step.y, logits), cross_entropy(step.y[mixing.partner], logits)
    return mix(own, other, mixing.lam).mean()
