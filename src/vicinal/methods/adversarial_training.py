"""Adversarial training (Madry et al. 2018), and its single-step form (Goodfellow et al. 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from vicinal.methods.base import Context, Cost, Method, Origin, Step, Term
from vicinal.networks import PassPolicy
from vicinal.settings import check
from vicinal.vicinity import cross_entropy
from vicinal.vicinity.projected import NormName, check_bounds, check_norm, projected_ascent, random_start


class PGDTraining(Method):
    """Learn from adversarial examples alone: the worst points of a ball around the labelled ones.

    With S the ball of radius epsilon around 0, cut to the data's bounds::

        L = mean_i CE( y_i, f(x_i + r_i) ),  r_i ~ argmax_{r in S} CE( y_i, f(x_i + r) )

    by projected gradient ascent from a random point of S: ``steps`` steps of length ``step_size`` epsilon / ``steps``
    along the gradient's sign (Linf) or direction (L2), each brought back into S. r is a constant. With epsilon = 0 this
    is supervised training. No unlabelled example is used, and epsilon is in data space.

    Batch norm: the search uses batch statistics (or running ones, see ``search``) and leaves them alone; the pass on
    the adversarial examples updates them. Source: Madry et al. 2018, ICLR; the numbers are ours.

    Args:
        epsilon: radius in data space, >= 0.
        norm: "linf" or "l2".
        steps: gradient steps, >= 1.
        step_size: length of a step as a multiple of epsilon / steps, > 0.
        random_start: start at a random point of the ball; else at the example itself.
        bounds: smallest and largest value of the data, which adversarial examples keep to; None for no bounds; "auto"
            takes (0, 1) for images and none for feature vectors.
        search: mode of the search's passes: "train" (batch statistics, dropout) or "eval".
    """

    cost: ClassVar[Cost] = Cost(f=11, b=1, x=10)
    source: ClassVar[str] = "Madry et al. 2018 (ICLR)"
    origins: ClassVar[Mapping[str, Origin]] = {
        "epsilon": "ours",
        "norm": "ours",
        "steps": "ours",
        "step_size": "ours",
        "random_start": "paper",
        "bounds": "ours",
        "search": "ours",
    }

    epsilon: float = 8 / 255
    norm: NormName = "linf"
    steps: int = 10
    step_size: float = 2.5
    random_start: bool = True
    bounds: tuple[float, float] | Literal["auto"] | None = "auto"
    search: Literal["train", "eval"] = "train"

    def __post_init__(self) -> None:
        check("epsilon", self.epsilon, low=0)
        check_norm(self.norm)
        check("steps", self.steps, low=1)
        check("step_size", self.step_size, above=0)
        self._bounds = None if self.bounds == "auto" else self.bounds
        check_bounds(self._bounds)

    def prepare(self, context: Context) -> None:
        if self.bounds == "auto":
            self._bounds = (0.0, 1.0) if len(context.shape) == 3 else None

    def passes(self) -> Cost:
        searches = self.steps if self.epsilon else 0
        return self.cost._replace(f=1 + searches, x=searches)

    def loss(self, step: Step) -> dict[str, Term]:
        x = self.adversarial(step) if self.epsilon else step.x
        return {"supervised": Term(cross_entropy(step.y, step.student(x)).mean())}

    def adversarial(self, step: Step) -> Tensor:
        """Adversarial examples of the labelled inputs (B, ...), detached."""
        policy = PassPolicy(mode=self.search, update_stats=False, fp32=True)
        start = None
        if self.random_start:
            start = random_start(step.x, self.norm, self.epsilon, step.generator("adversary"))
        return projected_ascent(
            lambda v: cross_entropy(step.y, step.student(v, policy)),
            step.x,
            norm=self.norm,
            epsilon=self.epsilon,
            step_size=self.step_size * self.epsilon / self.steps,
            steps=self.steps,
            start=start,
            bounds=self._bounds,
        )


class FGSMTraining(PGDTraining):
    """Learn from fast-gradient-sign examples alone: `PGDTraining` with one step of length epsilon and no random start.

    Accuracy against single-step attacks may rise while that against many steps does not: judge it by PGD. Source:
    Goodfellow et al. 2015, ICLR; the radius is ours, as is leaving the clean examples out.

    Args:
        steps: gradient steps; 1 for the fast gradient.
    """

    cost: ClassVar[Cost] = Cost(f=2, b=1, x=1)
    source: ClassVar[str] = "Goodfellow et al. 2015 (ICLR)"
    origins: ClassVar[Mapping[str, Origin]] = {
        **PGDTraining.origins,
        "steps": "paper",
        "step_size": "paper",
        "random_start": "paper",
        "norm": "paper",
    }

    steps: int = 1
    step_size: float = 1.0
    random_start: bool = False
