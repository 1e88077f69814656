"""Smoothness of a trained network: how far its loss is from linear, and how fast its logits and gradients change."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from torch import nn

from vicinal.errors import InputError, attempt
from vicinal.evaluation import (
    LipschitzBound,
    LowerEstimate,
    Steepness,
    gradient_quotients,
    hessian_norm,
    jacobian_norm,
    lipschitz_bound,
    lipschitz_quotients,
    local_linearity,
    mixup_gap,
    pair_quotients,
)
from vicinal.settings import check
from vicinal.studies.base import Again, Study, Subject

T = TypeVar("T")
Kind = Literal["mean", "mean of a search (lower)", "lower estimate", "upper bound"]

BATCH = 100
"""Examples at a time: chords join two of the same batch."""

LAMBDAS = (0.25, 0.5, 0.75)
"""Where on a chord the mixup gap looks."""

# Float32 rounds quotients and norms in the last digits; second differences are taken in float64, but of logits.
_RELATIVE, _ROUNDING = 1e-4, 1e-9
_BENT = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.LayerNorm)


@dataclass(frozen=True, kw_only=True)
class Smoothness(Study):
    """Local linearity, and Lipschitz constants of the logits and of their gradients, from below and from above.

    The rows are, in this order: the local linearity error and its slope term; the Lipschitz quotients of adversarial
    steps and of pairs, the Jacobian norm and the Lipschitz bound, of the logits in Euclidean distances; the Hessian
    norm, the gradient quotient of pairs, the mixup gap and the gradient's Lipschitz bound. Each says which set it ran
    over, and figures of different sets do not compare. Of a lower estimate, ``value`` is the mean over that set and
    ``largest`` the estimate of the constant. What cannot be had is None, with the reason in ``why_not``.

    A flag stands for each lower estimate that has a finite upper bound, and says whether it is at most that. It holds
    wherever the code is right; one that does not hold is a defect.

    Args:
        n: number of examples, spread evenly over them; None for all.
        epsilon: Linf radius of the balls of the local linearity error, > 0; None for 8/255 (images) or 0.05 of the root
            mean square standard deviation of the features (vectors), which is our choice.
        steps: of each ascent in these balls, >= 1.
        starts: of these ascents, for each example, >= 1.
        length: L2 length of the adversarial steps, > 0; None for epsilon sqrt(d) with d features, the length of a step
            that changes each of them by epsilon (our choice).
        search: gradients of the search for them, >= 0.
        iterations: power iterations for the Jacobian and Hessian norms, >= 1.
        power_starts: of these iterations, for each example, >= 1.
        neighbours: partners of each example, for what runs over chords, >= 1.
        tolerance: relative excess of each layer's norm in the upper bounds that is accepted, > 0.

    Raises:
        InputError: a setting is out of range.

    Source: Qin et al. 2019 for the local linearity error; the others are described in `vicinal.evaluation.smoothness`,
    `vicinal.evaluation.curvature` and `vicinal.evaluation.lipschitz_bounds`.
    """

    title: ClassVar[str] = "Smoothness"

    n: int | None = 100
    epsilon: float | None = None
    steps: int = 20
    starts: int = 3
    length: float | None = None
    search: int = 5
    iterations: int = 20
    power_starts: int = 2
    neighbours: int = 10
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        for name in ("n", "steps", "starts", "iterations", "power_starts", "neighbours"):
            if (value := getattr(self, name)) is not None:
                check(name, value, low=1)
        check("search", self.search, low=0)
        for name in ("epsilon", "length", "tolerance"):
            if (value := getattr(self, name)) is not None:
                check(name, value, above=0)

    def refusal(self, subject: Subject) -> str | None:
        """Features that do not vary are refused where the radius would be in units of their spread."""
        return subject.no_unit("epsilon") if self.epsilon is None else None

    def __call__(self, subject: Subject, seed: int) -> dict[str, Any]:
        """The figures: ``{"rows": [...], "flags": [...]}``."""
        network, batches = subject.fast, subject.again(self.n, BATCH)
        epsilon = self.epsilon or (8 / 255 if subject.images else 0.05 * subject.scale)
        length = self.length or epsilon * math.sqrt(math.prod(subject.dataset.shape))
        examples = f"{subject.count(self.n)} {subject.part} examples"
        bound = attempt(lambda: lipschitz_bound(network, subject.dataset.shape, tolerance=self.tolerance, seed=seed))
        slopes = self._slopes(network, batches, examples, length, seed)
        bends = self._bends(network, batches, examples, bound, seed)
        return {
            "rows": [
                *self._linearity(network, batches, examples, epsilon, seed),
                *(lower.row() for lower in slopes),
                _bound_row("Lipschitz bound", "Lip(f)", bound, "lipschitz", network),
                *(lower.row() for lower in bends),
                _bound_row("gradient's Lipschitz bound", "Lip(J)", bound, "gradient", network),
            ],
            "flags": [
                *_flags(slopes, bound, "lipschitz", "at most the Lipschitz bound"),
                *_flags(bends, bound, "gradient", "at most the gradient's Lipschitz bound"),
            ],
        }

    def _linearity(
        self, network: nn.Module, batches: Again, examples: str, epsilon: float, seed: int
    ) -> list[dict[str, Any]]:
        """The local linearity error, and how much the linear part changes in the same balls."""
        (found,) = local_linearity(
            network, batches, epsilons=[epsilon], steps=self.steps, starts=self.starts, seed=seed
        )
        over = f"{examples}, Linf balls of radius {epsilon:.2g}"
        return [
            _row(
                "local linearity error",
                "\N{GREEK SMALL LETTER GAMMA}",
                "mean of a search (lower)",
                over,
                found.n,
                found.gamma,
                epsilon=epsilon,
            ),
            _row("slope term", "ε‖∇loss‖₁", "mean", over, found.n, found.slope, epsilon=epsilon),
        ]

    def _slopes(self, network: nn.Module, batches: Again, examples: str, length: float, seed: int) -> list[_Lower]:
        """Lower estimates of Lip(f)."""

        def jacobian() -> Steepness:
            return jacobian_norm(network, batches, iterations=self.iterations, starts=self.power_starts, seed=seed)

        return [
            _Lower(
                "Lipschitz quotient, adversarial",
                "‖f(x + r) - f(x)‖ / ‖r‖",
                f"{examples}, L2 steps of length {length:.2g}",
                attempt(
                    lambda: lipschitz_quotients(network, batches, epsilon=length, iterations=self.search, seed=seed)
                ),
                length,
            ),
            _Lower(
                "Lipschitz quotient, pairs",
                "‖f(x) - f(x')‖ / ‖x - x'‖",
                f"chords between {examples}",
                attempt(lambda: pair_quotients(network, batches, neighbours=self.neighbours, seed=seed)),
            ),
            _Lower("Jacobian norm", "‖J‖₂", examples, attempt(jacobian)),
        ]

    def _bends(
        self, network: nn.Module, batches: Again, examples: str, bound: LipschitzBound | str, seed: int
    ) -> list[_Lower]:
        """Lower estimates of Lip(J), in float64: second differences drown in the rounding of float32."""
        exact = copy.deepcopy(network).double()
        doubled = Again(lambda: ((x.double(), y) for x, y in batches))

        def hessian() -> LowerEstimate:
            # A first look spares piecewise linear networks, which are the common and the large ones, the rest.
            affine = isinstance(bound, LipschitzBound) and bound.gradient == 0
            if not affine and not hessian_norm(exact, islice(doubled, 1), iterations=1, starts=1, seed=seed).largest:
                raise InputError("zero beside the kinks of a piecewise linear network, and undefined at them")
            return hessian_norm(exact, doubled, iterations=self.iterations, starts=self.power_starts, seed=seed)

        return [
            _Lower("Hessian norm", "‖∇²f_y‖₂", examples, attempt(hessian)),
            _Lower(
                "gradient quotient, pairs",
                "‖∇f_y(x) - ∇f_y(x')‖ / ‖x - x'‖",
                f"chords between {examples}",
                attempt(lambda: gradient_quotients(exact, doubled, neighbours=self.neighbours, seed=seed)),
            ),
            _Lower(
                "mixup gap",
                "β",
                f"chords between {examples}",
                attempt(lambda: mixup_gap(exact, doubled, lambdas=LAMBDAS, neighbours=self.neighbours, seed=seed)),
            ),
        ]


class _Lower(NamedTuple):
    """A lower estimate, or why there is none."""

    name: str
    symbol: str
    over: str
    found: Steepness | LowerEstimate | str
    epsilon: float | None = None

    def row(self) -> dict[str, Any]:
        if isinstance(self.found, str):
            return _row(self.name, self.symbol, "lower estimate", self.over, 0, epsilon=self.epsilon, why=self.found)
        n, value, largest = self.found.n, self.found.mean, self.found.largest
        over = f"{n} {self.over}" if self.over.startswith("chords") else self.over
        return _row(self.name, self.symbol, "lower estimate", over, n, value, largest, epsilon=self.epsilon)


def _row(
    name: str,
    symbol: str,
    kind: Kind,
    over: str,
    n: int,
    value: float | None = None,
    largest: float | None = None,
    *,
    epsilon: float | None = None,
    why: str | None = None,
) -> dict[str, Any]:
    """One row; numbers that are not finite become None."""
    if value is not None and not (math.isfinite(value) and math.isfinite(largest or 0)):
        value, largest, why = None, None, "not a finite number: the network's outputs or gradients are not finite"
    return {
        "name": name,
        "symbol": symbol,
        "value": value,
        "largest": largest,
        "kind": kind,
        "over": over,
        "n": n,
        "why_not": why,
        "epsilon": epsilon,
    }


def _bound_row(
    name: str, symbol: str, bound: LipschitzBound | str, of: Literal["lipschitz", "gradient"], network: nn.Module
) -> dict[str, Any]:
    over = "all inputs"
    if isinstance(bound, str):
        return _row(name, symbol, "upper bound", over, 0, why=bound)
    if not math.isfinite(bound.lipschitz):
        return _row(name, symbol, "upper bound", over, 0, why="infinite: the network's weights are not finite")
    if math.isfinite(value := getattr(bound, of)):
        return _row(name, symbol, "upper bound", over, bound.n, value)
    layers = {type(layer).__name__ for layer in network.modules() if isinstance(layer, _BENT)}
    what = ", ".join(sorted(layers)) or "one of its steps"
    return _row(name, symbol, "upper bound", over, 0, why=f"infinite: no bound on the second derivative of {what}")


def _flags(
    estimates: list[_Lower], bound: LipschitzBound | str, of: Literal["lipschitz", "gradient"], claim: str
) -> list[dict[str, Any]]:
    """Whether each estimate is at most its bound, where there are both."""
    if isinstance(bound, str) or not math.isfinite(bound.lipschitz) or not math.isfinite(second := getattr(bound, of)):
        return []
    most = second * (1 + _RELATIVE) + _ROUNDING * bound.lipschitz
    return [
        {"name": name, "claim": claim, "first": found.largest, "second": second, "holds": found.largest <= most}
        for name, _, _, found, _ in estimates
        if not isinstance(found, str) and math.isfinite(found.largest)
    ]
