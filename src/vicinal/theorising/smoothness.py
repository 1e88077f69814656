"""Lipschitz constants of the logits and of their gradients, from below on the sample, and from above everywhere."""

from __future__ import annotations

import copy
import math
from typing import Any, TypeVar

from torch import Tensor, nn

from vicinal.errors import InputError, attempt
from vicinal.evaluation import (
    LipschitzBound,
    LowerEstimate,
    Steepness,
    gradient_quotients,
    hessian_norm,
    jacobian_norm,
    lipschitz_bound,
    mixup_gap,
)
from vicinal.networks import folded

LAMBDAS = (0.25, 0.5, 0.75)
"""Where on a chord the mixup gap looks."""
NEIGHBOURS = 10
"""Chords from each example."""

T = TypeVar("T")
Found = Steepness | LowerEstimate | str


def smoothness_figures(network: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> list[dict[str, Any]]:
    """The mixup gap between the Lipschitz constants that it is bounded by, on the sample of the other statements.

    For a network f and examples x, x', the residual e = lambda f(x) + (1 - lambda) f(x') - f(lambda x + ...) is at most
    beta/2 lambda (1 - lambda) |x - x'|^2 long where the Jacobian has the Lipschitz constant beta (derived here): the
    mixup gap, the largest 2 |e| / (lambda (1 - lambda) |x - x'|^2), is at most beta. The converse is not true.

    Args:
        network: a classifier, from inputs in data space to logits.
        x: inputs (n, ...), float32 in data space, whatever space the other statements are in.
        y: classes, int64 (n,).
        seed: of chords and starts.

    Returns:
        Rows with ``name``, ``of`` ("f" or "gradient"), ``kind`` ("lower estimate" or "upper bound"), ``over``, ``mean``
        and ``largest`` (of the set; the estimate of the constant, or the bound), None where there is none, and
        ``why_not``.
    """
    network = folded(network)
    exact, chords, single = copy.deepcopy(network).double(), [(x.double(), y)], [(x, y)]

    def jacobian() -> Steepness:
        return jacobian_norm(network, single, iterations=20, starts=1, seed=seed)

    def hessian() -> LowerEstimate:
        # A first look spares piecewise linear networks the rest.
        first = hessian_norm(exact, chords, iterations=1, starts=1, seed=seed)
        if isinstance(bounds, LipschitzBound) and bounds.gradient == 0:
            return first
        if not first.largest:
            raise InputError("zero beside the kinks of a piecewise linear network, and undefined at them")
        return hessian_norm(exact, chords, iterations=10, starts=1, seed=seed)

    def quotients() -> LowerEstimate:
        return gradient_quotients(exact, chords, neighbours=min(NEIGHBOURS, len(x) - 1), seed=seed)

    def gap() -> LowerEstimate:
        return mixup_gap(exact, chords, lambdas=LAMBDAS, neighbours=min(NEIGHBOURS, len(x) - 1), seed=seed)

    bounds = attempt(lambda: lipschitz_bound(network, tuple(x.shape[1:]), seed=seed))

    def bound(which: str) -> dict[str, Any]:
        value = bounds if isinstance(bounds, str) else getattr(bounds, which)
        of = "f" if which == "lipschitz" else "gradient"
        why = value if isinstance(value, str) else None if math.isfinite(value) else "infinite: f has kinks"
        return _row("product of the layers' bounds", of, "upper bound", "all inputs", largest=value, why=why)

    examples, pairs = f"{len(x)} examples", f"chords between {len(x)} examples"
    return [
        _estimate("Jacobian norm", "f", examples, attempt(jacobian)),
        bound("lipschitz"),
        _estimate("mixup gap", "gradient", pairs, attempt(gap)),
        _estimate("gradient quotient of pairs", "gradient", pairs, attempt(quotients)),
        _estimate("Hessian norm", "gradient", examples, attempt(hessian)),
        bound("gradient"),
    ]


def _estimate(name: str, of: str, over: str, found: Found) -> dict[str, Any]:
    if isinstance(found, str):
        return _row(name, of, "lower estimate", over, why=found)
    return _row(name, of, "lower estimate", over, mean=found.mean, largest=found.largest)


def _row(
    name: str, of: str, kind: str, over: str, *, mean: Any = None, largest: Any = None, why: str | None = None
) -> dict[str, Any]:
    shown = {"mean": mean, "largest": None if why else largest}
    return {"name": name, "of": of, "kind": kind, "over": over, **shown, "why_not": why}
