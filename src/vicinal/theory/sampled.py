"""The mixup loss of a large sample, by random permutations, and its expansions at a cost that is chosen by counting."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.randomness import generator
from vicinal.settings import check
from vicinal.theory.complexity import Estimate
from vicinal.theory.curvature import EXACT, Trace
from vicinal.theory.exact import Function, Loss, mixup_loss_exact, problem
from vicinal.theory.expansion import mixup_terms, shrunk_terms
from vicinal.theory.moments import NODES, mixup_moments
from vicinal.theory.trained import Trained
from vicinal.vicinity import draw_mixing, mix

BUDGET = 4e10
"""Floating-point operations up to which a part is computed exactly: some seconds on one core, our choice."""

_PRODUCT = 10
"""Forward passes that a Hessian-vector product is counted as, and operations of a loss for each logit."""


def mixup_loss_sampled(
    f: Function,
    x: Tensor,
    y: Tensor,
    alpha: float,
    *,
    loss: Loss | None = None,
    permutations: int = 128,
    generator: torch.Generator,
) -> Estimate:
    """L_mix from random permutations, each of which is an unbiased estimate of the mean over all pairs.

    Args:
        f: from inputs to logits.
        x: inputs (n, ...).
        y: labels, see `vicinal.theory.exact.problem`.
        alpha: of the mixing law Beta(alpha, alpha), > 0.
        loss: of logits and labels; None for binary or softmax cross-entropy.
        permutations: number of permutations, each with n coefficients of its own, >= 2.
        generator: CPU generator of the draws.

    Returns:
        The mean, and its standard error from the spread of the permutations.

    Raises:
        InputError: the sample does not fit, or an argument is out of range.

    Source: derived here.
    """
    check("alpha", alpha, above=0)
    check("permutations", permutations, low=2)
    given = problem(f, x, y, loss)
    found = []
    with torch.no_grad():
        for _ in range(permutations):
            lam, partner = draw_mixing(len(x), alpha, generator, per="sample")
            points = mix(given.x, given.x[partner], lam)
            found.append(given.loss(f(points), mix(given.y, given.y[partner], lam)).double().mean())
    return Estimate.over(torch.stack(found))


def logit_mixup_loss(
    logits: Tensor,
    y: Tensor,
    alpha: float,
    *,
    seed: int,
    permutations: int = 128,
    nodes: int = NODES,
    budget: float = BUDGET,
) -> Estimate:
    """The mixup loss of logits that are affine in the input: the logits of mixes are mixes of logits.

    Args:
        logits: of the sample, float64 (n, C).
        y: classes, int64 (n,).
        alpha: of the mixing law Beta(alpha, alpha), > 0.
        seed: of the permutations.
        permutations: see `mixup_loss_sampled`; taken where all pairs do not fit the budget.
        nodes: quadrature nodes, >= 1.
        budget: floating-point operations.

    Returns:
        The loss, and its standard error: 0 over all pairs.

    Raises:
        InputError: an argument is out of range.
    """
    if logits.numel() * len(y) * nodes * _PRODUCT <= budget:
        with torch.no_grad():
            return Estimate(float(mixup_loss_exact(_same, logits, y, alpha, nodes=nodes)), 0.0)
    draws = generator(seed, "theory mixup loss of logits")
    return mixup_loss_sampled(_same, logits, y, alpha, permutations=permutations, generator=draws)


def _same(z: Tensor) -> Tensor:
    return z


def mixup_loss_figures(
    model: Trained,
    alpha: float,
    *,
    seed: int,
    permutations: int = 128,
    nodes: int = NODES,
    budget: float = BUDGET,
) -> dict[str, Any]:
    """The mixup loss of the sample: over all pairs where that fits the budget, else from random permutations.

    Args:
        model: network and sample.
        alpha: of the mixing law Beta(alpha, alpha), > 0.
        seed: of the permutations.
        permutations: see `mixup_loss_sampled`.
        nodes: quadrature nodes, >= 1.
        budget: floating-point operations.

    Returns:
        ``value``; ``standard_error``, 0 over all pairs; ``pairs`` ("all" or "sampled"); ``passes`` of single inputs.

    Raises:
        InputError: an argument is out of range.
    """
    n = len(model.x)
    if n**2 * nodes * model.flops() <= budget:
        with torch.no_grad():
            exact = mixup_loss_exact(model.logits, model.x, model.y, alpha, nodes=nodes)
        return {"value": float(exact), "standard_error": 0.0, "pairs": "all", "passes": n**2 * nodes}
    draws = generator(seed, "theory mixup loss")
    found = mixup_loss_sampled(model.logits, model.own, model.y, alpha, permutations=permutations, generator=draws)
    return {
        "value": found.mean,
        "standard_error": found.standard_error,
        "pairs": "sampled",
        "passes": n * permutations,
    }


def expansion_figures(
    model: Trained,
    alpha: float,
    mixup: dict[str, Any],
    *,
    seed: int,
    probes: int = 16,
    budget: float = BUDGET,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both expansions of the softmax cross-entropy, each with its gap to the mixup loss.

    Args:
        model: network and sample.
        alpha: of the mixing law Beta(alpha, alpha), > 0.
        mixup: what `mixup_loss_figures` gave.
        seed: of random probes.
        probes: number of random probes where the exact trace does not fit the budget, >= 2.
        budget: floating-point operations of one exact trace.

    Returns:
        For the expansion around the examples its terms ``l_std``, ``r1``, ``r2``, ``r3``, for that around the shrunk
        points ``l_shrunk``, ``r2``, ``r3``, ``label``; for both ``total``, ``standard_error`` (of random probes),
        ``trace``, ``products`` (with a Hessian, per example), ``gap`` = total - mixup loss with its
        ``gap_standard_error``, ``relative_gap``, and ``says``, a line.

    Raises:
        InputError: an argument is out of range, or no gradient reaches the inputs.
    """
    n, d = len(model.x), model.x[0].numel()
    exactly = (min(n - 1, d) + 1) * n * model.flops() * _PRODUCT <= budget

    def trace(counter: int) -> Trace:
        return EXACT if exactly else Trace("hutchinson", probes, generator(seed, "theory trace", counter))

    f, x, y = model.logits, model.x, model.y
    around = mixup_terms(f, x, y, alpha, trace=trace(0))
    shrunk = shrunk_terms(f, x, y, alpha, trace=trace(1))
    found = []
    for terms, names in ((around, ("l_std", "r1", "r2", "r3")), (shrunk, ("l_shrunk", "r2", "r3", "label"))):
        total = float(terms.total)
        gap, error = total - mixup["value"], math.hypot(terms.standard_error, mixup["standard_error"])
        share = gap / mixup["value"]
        found.append(
            {
                **{name: float(getattr(terms, name)) for name in names},
                "total": total,
                "standard_error": terms.standard_error,
                "trace": trace(0).kind,
                "products": terms.products,
                "m1": mixup_moments(alpha).m1,
                "gap": gap,
                "gap_standard_error": error,
                "relative_gap": share,
                "says": f"{total:.4g} against a mixup loss of {mixup['value']:.4g}: {abs(share):.2%} too "
                + ("large" if gap > 0 else "small")
                + (f", give or take {error / mixup['value']:.2%}" if error else ""),
            }
        )
    return found[0], found[1]


def losses_and_errors(model: Trained, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Mean cross-entropy and error on some examples, with their standard errors.

    Args:
        model: the network.
        x: inputs (n, ...) in the model's space, float64.
        y: classes, int64 (n,).
    """
    with torch.no_grad():
        z = torch.cat([model.logits(part) for part in x.to(model.own.dtype).split(250)]).double()
    losses = F.cross_entropy(z, y, reduction="none")
    wrong = (z.argmax(dim=1) != y).double()
    return {"n": len(y), **with_error("loss", losses), **with_error("error", wrong)}


def with_error(name: str, values: Tensor) -> dict[str, float]:
    """The mean of some values (n,) under a name, and its standard error under the same with ``_standard_error``.

    >>> with_error("loss", torch.tensor([1.0, 3.0]))
    {'loss': 2.0, 'loss_standard_error': 1.0}
    """
    found = Estimate.over(values)
    return {name: found.mean, f"{name}_standard_error": found.standard_error}
