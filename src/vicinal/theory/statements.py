"""The theorems as statements about one trained network and sample: what each assumes, whether it applies, its figures.

A statement whose assumptions fail says which and why, and gives no bound. What is a plain measurement (the mixup loss,
its expansions with their gaps, radii, attacks) is given all the same, next to what it is measured against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.theory.attacked import (
    Attack,
    attack_figures,
    jensen_figures,
    logistic_bound_figures,
    radii_figures,
    surrogate_bound_figures,
)
from vicinal.theory.checks import ASSUMPTIONS, Check, check_assumptions
from vicinal.theory.generalising import LastLayer, complexity_figures, corollary_figures, regulariser_figures
from vicinal.theory.moments import NODES
from vicinal.theory.sampled import BUDGET, expansion_figures, losses_and_errors, mixup_loss_figures
from vicinal.theory.trained import SpaceName, Trained

_HOMOGENEOUS = ("separate", "no_batch_norm", "centred", "right_side", "homogeneous", "flat")

NEEDS: Mapping[str, tuple[str, ...]] = {
    "mixup_loss": ("separate",),
    "expansion": ("separate", "twice_differentiable"),
    "shrunk_expansion": ("separate", "twice_differentiable"),
    "radii": _HOMOGENEOUS,
    "attack": ("separate",),
    "surrogate_bound": ("binary", *_HOMOGENEOUS),
    "class_surrogate_bound": _HOMOGENEOUS,
    "logistic_bound": ("binary", *_HOMOGENEOUS, "affine"),
    "jensen_bound": ("separate", "affine"),
    "regulariser": ("separate", "linear_head"),
    "complexity": ("separate", "linear_head"),
    "corollary": ("separate", "binary", "linear_head", "fixed_features", "fixed_class"),
}
"""What each statement assumes, by the names of `vicinal.theory.checks.ASSUMPTIONS`."""

MEASURED: Mapping[str, tuple[str, ...]] = {
    **{name: NEEDS[name] for name in ("expansion", "shrunk_expansion", "radii")},
    "corollary": ("fixed_class",),
}
"""Statements whose figures are given as measurements, which prove nothing, where of their assumptions only these fail.

The corollary's class is read off the sample that it is about, so that its figure is never more than that.
"""


def statements(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    alpha: float,
    seed: int,
    space: SpaceName = "pixels",
    test: tuple[Tensor, Tensor] | None = None,
    attack: Attack | None = None,
    steps: int = 20,
    budget: float = BUDGET,
    permutations: int = 128,
    probes: int = 16,
    nodes: int = NODES,
    draws: int = 200,
    delta: float = 0.05,
    tolerance: float = 1e-6,
    told: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Everything that the theory says of a trained network on a sample.

    The network is copied, and looked at in eval mode and float64; searches and averages over random pairs run in its
    own precision. Softmax cross-entropy is the loss, which for two classes is the logistic loss of one logit.

    Args:
        network: from inputs in data space to logits (B, C), or to one logit (B,) or (B, 1).
        x: training inputs (n, ...), floating point; some 100 of them.
        y: their classes, int64 (n,).
        alpha: of the mixing law Beta(alpha, alpha), > 0.
        seed: of all draws.
        space: see `vicinal.theory.trained.Trained`.
        test: other inputs and classes, for the generalisation gap.
        attack: how to attack, see `vicinal.theory.attacked.Attack`; None for projected gradient ascent in L2.
        steps: of that ascent, >= 1.
        budget: floating-point operations up to which a part is exact: beyond, the mixup loss comes from random
            permutations and the traces from random probes, each with its standard error.
        permutations: number of those, >= 2.
        probes: number of those, >= 2.
        nodes: quadrature nodes of the mixing coefficient, >= 1.
        draws: of signs, for the complexity, >= 2.
        delta: the corollary holds with probability 1 - delta, in (0, 1).
        tolerance: relative error up to which an equality counts as true.
        told: is called with the name of each part, as it begins.

    Returns:
        Plain values, ready for JSON; numbers are finite, and None where there is none. ``n``, ``dimension``,
        ``classes``, ``alpha``, ``loss``, ``seed`` and ``space`` say what of; ``assumptions``, by name, ``means``,
        ``holds``, ``figure``, ``says`` and ``more``; ``statements``, by name, ``applies``, ``why`` (not, or None),
        ``needs`` (names of assumptions) and ``values``, which are None where a bound does not apply; ``train``,
        ``test`` (or None) and ``gap``, losses and errors.

    Raises:
        InputError: the sample does not fit, an argument is out of range, or no gradient reaches the inputs.
    """
    told = told or _unheard
    told("assumptions")
    model = Trained(network, x, y, space=space)
    checks, radii = check_assumptions(model, alpha, tolerance=tolerance)
    if not checks["separate"].holds:
        # Nothing can be said at all: already the loss of an example has no meaning.
        found = {name: _statement(name, checks, None) for name in NEEDS}
        return _report(model, alpha, seed, checks, found, {})
    told("mixup loss")
    mixup = mixup_loss_figures(model, alpha, seed=seed, permutations=permutations, nodes=nodes, budget=budget)
    told("expansions")
    around, shrunk = expansion_figures(model, alpha, mixup, seed=seed, probes=probes, budget=budget)
    told("losses under attack")
    attacked = attack_figures(model, radii, attack=attack, steps=steps)
    told("bounds and complexity")
    parts = losses_of(model, test)

    def bound() -> dict[str, Any]:
        return surrogate_bound_figures(around, attacked)

    drawn: dict[str, Any] = {"seed": seed, "permutations": permutations, "budget": budget}
    made: dict[str, Callable[[], dict[str, Any]]] = {
        "mixup_loss": lambda: mixup,
        "expansion": lambda: around,
        "shrunk_expansion": lambda: shrunk,
        "radii": lambda: radii_figures(radii, alpha),
        "attack": lambda: attacked,
        "surrogate_bound": bound,
        "class_surrogate_bound": bound,
        "logistic_bound": lambda: logistic_bound_figures(model, alpha, **drawn),
        "jensen_bound": lambda: jensen_figures(model, alpha, **drawn),
    }
    if checks["linear_head"].holds:
        layer = LastLayer(model)
        complexity = complexity_figures(layer, seed=seed, draws=draws)
        made["regulariser"] = lambda: regulariser_figures(layer, alpha)
        made["complexity"] = lambda: complexity
        made["corollary"] = lambda: corollary_figures(layer, parts["train"]["loss"], complexity, delta=delta)
    return _report(
        model, alpha, seed, checks, {name: _statement(name, checks, made.get(name)) for name in NEEDS}, parts
    )


def _unheard(_part: str) -> None:
    pass


def losses_of(model: Trained, test: tuple[Tensor, Tensor] | None) -> dict[str, Any]:
    """Losses and errors on the sample and on other examples, and the gap between them.

    Args:
        model: network and sample.
        test: inputs in data space and classes, int64; None for none.

    Returns:
        ``train`` and ``test`` from `vicinal.theory.sampled.losses_and_errors`, and ``gap`` with ``loss`` and ``error``,
        test - train; the last two None without other examples.

    Raises:
        InputError: inputs and classes do not match in number.
    """
    train = losses_and_errors(model, model.x, model.y)
    if test is None:
        return {"train": train, "test": None, "gap": None}
    x, y = test
    if len(x) != len(y) or len(x) == 0:
        raise InputError(f"test: expected inputs and as many classes, got {len(x)} and {len(y)}")
    held = losses_and_errors(model, model.entered(x), y)
    gap = {name: held[name] - train[name] for name in ("loss", "error")}
    errors = {
        f"{name}_standard_error": (held[f"{name}_standard_error"] ** 2 + train[f"{name}_standard_error"] ** 2) ** 0.5
        for name in ("loss", "error")
    }
    return {"train": train, "test": held, "gap": gap | errors}


def _statement(name: str, checks: Mapping[str, Check], values: Callable[[], dict[str, Any]] | None) -> dict[str, Any]:
    """One statement: whether it applies, and its figures where it does or where they are measurements."""
    failing = [checks[need].says for need in NEEDS[name] if not checks[need].holds]
    allowed = MEASURED.get(name, ())
    given = values is not None and all(checks[need].holds or need in allowed for need in NEEDS[name])
    return {
        "applies": not failing,
        "why": "; ".join(failing) or None,
        "needs": list(NEEDS[name]),
        "values": values() if values is not None and given else None,
    }


def _report(
    model: Trained,
    alpha: float,
    seed: int,
    checks: Mapping[str, Check],
    found: Mapping[str, Any],
    parts: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "n": len(model.x),
        "dimension": model.x[0].numel(),
        "classes": model.classes,
        "alpha": alpha,
        "loss": "logistic" if model.classes == 2 else "softmax cross-entropy",
        "seed": seed,
        "space": model.space,
        "assumptions": {name: {"means": ASSUMPTIONS[name], **asdict(made)} for name, made in checks.items()},
        "statements": dict(found),
        **{name: parts.get(name) for name in ("train", "test", "gap")},
    }
