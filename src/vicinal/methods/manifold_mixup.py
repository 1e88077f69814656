"""Manifold Mixup (Verma et al. 2019), on labelled examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.methods.base import Context, Needs, Origin, Step, Term
from vicinal.methods.mixup import Mixup
from vicinal.vicinity import cross_entropy, draw_mixing, mix


class ManifoldMixup(Mixup):
    """mixup of the activations at a place in the network that is drawn anew for each step.

    With k uniform over the places, lambda ~ Beta(alpha, alpha), a random permutation pi, and f = f_k after g_k cut
    there::

        L = mean_i [ lambda CE(y_i, f_k(h~_i)) + (1 - lambda) CE(y_pi(i), f_k(h~_i)) ]
        h~_i = lambda g_k(x_i) + (1 - lambda) g_k(x_pi(i))

    Place 0 is the preprocessed input, place k the end of the network's k-th stage; places = (0,) is mixup. One pass
    does it all: the layers before the place see the examples as they are. The official code's loss is not CE but the
    binary cross-entropy of the C softmax outputs, a mean over classes (``form``). Source: Verma et al. 2019, ICML.

    Args:
        alpha: Beta parameter, > 0 (published: 2).
        places: where to mix, at least one; those that the network does not have are left out (official code: the input
            and the ends of its first two stages).
        form: "cross_entropy" is the paper's; "binary" the official code's, about C times smaller.
    """

    needs: ClassVar[Needs] = Needs(stages=True)
    source: ClassVar[str] = "Verma et al. 2019 (ICML)"
    origins: ClassVar[Mapping[str, Origin]] = {
        **Mixup.origins,
        "places": "official-code",
        "form": "paper",
    }

    alpha: float = 2.0
    places: tuple[int, ...] = (0, 1, 2)
    form: Literal["cross_entropy", "binary"] = "cross_entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.places or min(self.places) < 0:
            raise InputError(f"places must be numbers from 0 (the input) on, at least one, got {list(self.places)}")

    def prepare(self, context: Context) -> None:
        if not self._offered(context.network):
            raise InputError(
                f"places: none of {list(self.places)} is in the network, which has {_last(context.network)} stages"
            )

    def _offered(self, network: torch.nn.Module) -> list[int]:
        return [place for place in self.places if place <= _last(network)]

    def loss(self, step: Step) -> dict[str, Term]:
        offered = self._offered(step.student.network)
        place = offered[int(torch.randint(len(offered), (), generator=step.generator("place of mixing")))]
        mixing = draw_mixing(
            len(step.y),
            self.alpha,
            step.generator("labelled mixing"),
            per=self.lambda_per,
            fold=self.fold,
            device=step.x.device,
        )
        logits = step.student(step.x, place=place, change=lambda h: mix(h, h[mixing.partner], mixing.lam))
        values = cross_entropy if self.form == "cross_entropy" else binary_cross_entropy
        own, other = values(step.y, logits), values(step.y[mixing.partner], logits)
        return {"supervised": Term(mix(own, other, mixing.lam).mean())}


def binary_cross_entropy(y: Tensor, logits: Tensor) -> Tensor:
    """Binary cross-entropy of each softmax output p_c against [y = c], as a mean over the C classes, (B,).

    It equals (CE(y, p) - sum_{c != y} log(1 - p_c)) / C. The logarithm of 1 - p of the largest p comes from the other
    logits: from p itself it would be infinite once p rounds to 1.

    Args:
        y: classes, int64 (B,).
        logits: (B, C), C >= 2.

    >>> binary_cross_entropy(torch.tensor([0]), torch.zeros(1, 2))
    tensor([0.6931])
    """
    top = F.one_hot(logits.argmax(dim=1), logits.shape[1]).bool()
    others = logits.masked_fill(top, -torch.inf).logsumexp(dim=1) - logits.logsumexp(dim=1)
    rest = torch.log1p(-logits.softmax(dim=1).masked_fill(top, 0))
    log_without = torch.where(top, others[:, None], rest)
    outside = log_without.sum(dim=1) - log_without.gather(1, y[:, None]).squeeze(1)
    return (cross_entropy(y, logits) - outside) / logits.shape[1]


def _last(network: torch.nn.Module) -> int:
    """The last place of a network: its number of stages."""
    return len(getattr(network, "stages", ()))
