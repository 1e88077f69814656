"""The adversarial side on a trained network: radii, surrogate, attacks at the same radii, and the bounds.

Everything goes through the log-odds f_i = z_y - log sum_{c != y} e^{z_c} of each example's own class: softmax
cross-entropy with a hard label is the logistic loss of f_i with label 1. Of two classes f_i is the one logit, up to its
sign, and the bound is that of `vicinal.theory.adversarial`.

Of more classes it holds as well (derived here; not claimed by the paper as far as it is known to us): the logits
are homogeneous and without curvature, so grad f_i^T x_i = f_i + H_i with the entropy H_i >= 0 of the other classes,
which is not negative where f_i is not, and hess f_i is that of -log sum exp, negative semi-definite, so that R3 >= 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.theory.adversarial import Radii, adv_surrogate, pgd_loss
from vicinal.theory.bounds import exact_logistic_bound
from vicinal.theory.exact import Function
from vicinal.theory.moments import mixup_moments
from vicinal.theory.sampled import BUDGET, logit_mixup_loss, with_error
from vicinal.theory.trained import Trained

Attack = Callable[[Function, Tensor, Tensor, Tensor], Tensor]
"""From logits (B, C) as a function, inputs (n, ...), classes int64 (n,) and L2 radii (n,) to the losses (n,) found."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def radii_figures(radii: Radii, alpha: float) -> dict[str, Any]:
    """The radii and the cosines R_i that they come from.

    Args:
        radii: of the sample.
        alpha: that they are for.

    Returns:
        ``m1``, ``c_x``, ``dimension``; ``cosine`` with mean, min and quantiles; ``l2`` (eps_i sqrt(d), in units of the
        inputs) likewise; ``l2_mix`` (eps_mix sqrt(d)), ``eps_mean``, ``eps_mix``.
    """
    return {
        "m1": mixup_moments(alpha).m1,
        "c_x": radii.c_x,
        "dimension": radii.dimension,
        "cosine": _distribution(radii.cosine),
        "l2": _distribution(radii.l2),
        "l2_mix": radii.l2_mix,
        "eps_mean": float(radii.eps.mean()),
        "eps_mix": radii.eps_mix,
    }


def _distribution(values: Tensor) -> dict[str, Any]:
    levels = torch.tensor(QUANTILES, dtype=values.dtype)
    return {
        "mean": float(values.mean()),
        "min": float(values.min()),
        "max": float(values.max()),
        "quantiles": dict(zip(map(str, QUANTILES), values.quantile(levels).tolist(), strict=True)),
    }


def attack_figures(model: Trained, radii: Radii, *, attack: Attack | None = None, steps: int = 20) -> dict[str, Any]:
    """Losses near the examples: by the second-order surrogate and by an attack, at the same radii.

    Neither is a bound of the other for networks, nor of the mixup loss.

    Args:
        model: network and sample.
        radii: where to look.
        attack: the attack; None for projected gradient ascent in L2, see `vicinal.theory.adversarial.pgd_loss`.
        steps: of that ascent, >= 1; with another ``attack`` not used.

    Returns:
        ``n`` examples, ``clean`` loss, and under ``each`` (radii eps_i sqrt(d)) and ``smallest`` (eps_mix sqrt(d)) the
        means ``surrogate`` and ``attack``, each mean with its ``_standard_error`` over the examples; ``attacked_by``.

    Raises:
        InputError: an argument is out of range, or no gradient reaches the inputs.
    """
    found: dict[str, Any] = {
        "n": len(model.x),
        **with_error("clean", F.softplus(-model.log_odds(model.x), threshold=700)),
        "attacked_by": f"L2 ascent, {steps} steps" if attack is None else "the caller's attack",
    }
    for name, eta in (("each", radii.l2), ("smallest", torch.full_like(radii.l2, radii.l2_mix))):
        found[name] = {
            **with_error("surrogate", adv_surrogate(model.log_odds, model.x, model.ones, eta)),
            **with_error("attack", _attacked(model, eta, attack, steps)),
        }
    return found


def _attacked(model: Trained, eta: Tensor, attack: Attack | None, steps: int) -> Tensor:
    x = model.own
    if attack is not None:
        return attack(model.logits, x, model.y, eta.to(x))
    return pgd_loss(model.log_odds, x, model.ones, eta.to(x), steps=steps)


def adversarial_curve(
    model: Trained, radii: Sequence[float], attacks: Mapping[str, int | Attack] | None = None
) -> dict[str, list[float]]:
    """Mean losses under L2 attacks of growing radius.

    Args:
        model: network and sample.
        radii: L2 radii, >= 0, in units of the inputs.
        attacks: by name, an attack or the steps of `vicinal.theory.adversarial.pgd_loss`; None for the single step of
            the fast gradient method and 20 steps.

    Returns:
        ``radius``, and of each attack the means and, as ``..._standard_error``, their standard errors over
        the examples.

    Raises:
        InputError: steps are out of range, or no gradient reaches the inputs.
    """
    attacks = {"fgm": 1, "pgd": 20} if attacks is None else attacks
    curve: dict[str, list[float]] = {"radius": list(radii)}
    for name, kind in attacks.items():
        steps, attack = (kind, None) if isinstance(kind, int) else (20, kind)
        etas = [torch.full((len(model.x),), radius, dtype=torch.float64) for radius in radii]
        found = [with_error(name, _attacked(model, eta, attack, steps)) for eta in etas]
        curve |= {key: [each[key] for each in found] for key in (name, f"{name}_standard_error")}
    return curve


def surrogate_bound_figures(expansion: Mapping[str, Any], attacked: Mapping[str, Any]) -> dict[str, Any]:
    """L~ >= mean l_adv~(eps_i sqrt(d)) >= mean l_adv~(eps_mix sqrt(d)), from what was computed already.

    Args:
        expansion: around the examples, from `vicinal.theory.sampled.expansion_figures`.
        attacked: from `attack_figures`.

    Returns:
        The three sides ``approximation`` (L~, not the mixup loss itself), ``surrogate``, ``surrogate_mix``, with the
        ``standard_error`` of the first.
    """
    return {
        "approximation": expansion["total"],
        "standard_error": expansion["standard_error"],
        "surrogate": attacked["each"]["surrogate"],
        "surrogate_mix": attacked["smallest"]["surrogate"],
    }


def logistic_bound_figures(
    model: Trained, alpha: float, *, seed: int = 0, permutations: int = 128, budget: float = BUDGET
) -> dict[str, Any]:
    """L_mix >= the true adversarial loss, for a linear network of two classes without bias.

    Args:
        model: network and sample.
        alpha: of the mixing law Beta(alpha, alpha), > 0.
        seed: of the permutations.
        permutations: see `vicinal.theory.sampled.logit_mixup_loss`.
        budget: likewise.

    Returns:
        ``mixup``, the true mixup loss, with its ``standard_error``, 0 over all pairs; ``adversarial``, in closed form,
        at L2 radii |x_i| R_i m1, whose mean is ``l2_mean``.

    Raises:
        InputError: ``alpha`` is out of range, or no gradient reaches the inputs.
    """
    at = model.x[:1].clone().requires_grad_()
    with torch.enable_grad():
        z = model.logits(at)[0]
    (theta,) = torch.autograd.grad(z[1] - z[0], at)
    with torch.no_grad():
        logits = model.logits(model.x)
    mixup = logit_mixup_loss(logits, model.y, alpha, seed=seed, permutations=permutations, budget=budget)
    bound = exact_logistic_bound(theta.flatten(), model.x.flatten(1), model.y.double(), alpha, mixup=mixup)
    return {
        "mixup": bound.mixup,
        "standard_error": bound.standard_error,
        "adversarial": bound.adversarial,
        "l2_mean": float(bound.l2.mean()),
    }


def jensen_figures(
    model: Trained, alpha: float, *, seed: int = 0, permutations: int = 128, budget: float = BUDGET
) -> dict[str, Any]:
    """L_mix >= mean loss at the logits (1 - m1) z_i + m1 z_bar, for logits that are affine in the input.

    Args:
        model: network and sample.
        alpha: of the mixing law Beta(alpha, alpha), > 0.
        seed: of the permutations.
        permutations: see `vicinal.theory.sampled.logit_mixup_loss`.
        budget: likewise.

    Returns:
        ``mixup``, the true mixup loss, with its ``standard_error``, 0 over all pairs, and ``shrunk_logits``, what it is
        at least.

    Raises:
        InputError: ``alpha`` is out of range.
    """
    m1 = mixup_moments(alpha).m1
    with torch.no_grad():
        z = model.logits(model.x)
        shrunk = F.cross_entropy((1 - m1) * z + m1 * z.mean(dim=0), model.y)
    mixup = logit_mixup_loss(z, model.y, alpha, seed=seed, permutations=permutations, budget=budget)
    return {"mixup": mixup.mean, "standard_error": mixup.standard_error, "shrunk_logits": float(shrunk)}
