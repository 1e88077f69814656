"""Training on the labelled examples alone: the baseline that every figure stands beside."""

from __future__ import annotations

from typing import ClassVar

from vicinal.methods.base import Cost, Method, Step, Term
from vicinal.vicinity import cross_entropy


class Supervised(Method):
    """Cross-entropy on the labelled examples alone.

    L = mean_i CE(y_i, f(x_i))
    """

    cost: ClassVar[Cost] = Cost(f=1, b=1)
    source: ClassVar[str] = "baseline"

    def loss(self, step: Step) -> dict[str, Term]:
        return {"supervised": Term(cross_entropy(step.y, step.student(step.x)).mean())}
