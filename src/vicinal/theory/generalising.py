"""The generalisation side on a trained network: its last layer as a generalised linear model on its features.

Features are taken with their mean subtracted, the rest being an intercept (our reading: the theory has centred data).
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.randomness import generator
from vicinal.settings import check
from vicinal.theory.complexity import Ellipsoid, feature_law, glm_rademacher_bound
from vicinal.theory.regulariser import ScalingName, class_size, kappa, retention
from vicinal.theory.trained import Trained

_DIRECTIONS = 64

PLUGGED_IN = ("gamma", "rho", "covariance of the inputs", "largest loss", "intercept")
"""What the corollary wants fixed before the sample, and is read off it here."""


def softmax_regulariser(logits: Tensor, deviations: Tensor, alpha: float, *, scaling: ScalingName = "mean") -> Tensor:
    """1/2 mean_i [own d_i^T A_i d_i + others tr(A_i Cov)], A_i the Hessian of log sum exp at the logits, a scalar.

    The regulariser of `vicinal.theory.regulariser.glm_regulariser` for several logits; the same for two.

    Args:
        logits: z_i, (n, C).
        deviations: d_i, the parts of the logits that come from centred inputs, (n, C); Cov is their covariance.
        alpha: of the mixing law Beta(alpha, alpha), > 0.
        scaling: see `vicinal.theory.regulariser.kappa`; with ``"lambda"`` it is infinite for alpha <= 1.

    Raises:
        InputError: ``alpha`` is not positive, or an unknown scaling.

    Source: derived here.
    """
    own, others = kappa(alpha, scaling=scaling)
    p = logits.softmax(dim=1)
    curved = (p * deviations.square()).sum(dim=1) - (p * deviations).sum(dim=1).square()
    covariance = deviations.T @ deviations / len(deviations)
    spread = p @ covariance.diagonal() - ((p @ covariance) * p).sum(dim=1)
    return (own * curved + others * spread).mean() / 2


def generalisation_bound(
    loss: float, complexity: float, n: int, *, lipschitz: float = 1.0, largest: float, delta: float = 0.05
) -> float:
    """loss + 2 lipschitz complexity + largest sqrt(log(1 / delta) / (2 n)), with probability 1 - delta over samples.

    It holds for all members at once of a class that was fixed before the sample was drawn.

    Args:
        loss: mean on the sample.
        complexity: bound of the class's Rademacher complexity.
        n: sample size, >= 1.
        lipschitz: constant of the loss in the logit, L L_A in the paper's letters (recalled); 1 for the logistic loss.
        largest: bound of the loss over class and inputs, >= 0.
        delta: in (0, 1).

    Raises:
        InputError: an argument is out of range.

    Source: Zhang et al. 2021, recalled.

    >>> round(generalisation_bound(0.2, 0.05, 1000, largest=1.0), 3)
    0.339
    """
    check("n", n, low=1)
    check("largest", largest, low=0)
    check("delta", delta, above=0, high=1)
    return loss + 2 * lipschitz * complexity + largest * math.sqrt(math.log(1 / delta) / (2 * n))


class LastLayer:
    """The last layer of a network and the features that it sees on a sample.

    Args:
        model: a network whose head is linear, and the sample.

    Raises:
        InputError: it is not.
    """

    def __init__(self, model: Trained) -> None:
        head = model.head()
        if head is None:
            raise InputError("network: its last layer is no linear one on features that it gives")
        self.features = cast(Tensor, model.features(model.x))
        self.law = feature_law(self.features)
        self.centred = self.features - self.law.mean
        with torch.no_grad():
            self.logits = model.logits(model.x)
            weight = head.weight if len(head.weight) > 1 else torch.cat([torch.zeros_like(head.weight), head.weight])
        # Of two classes the one logit; of more each against the mean of all, which softmax does not see.
        self.rows = weight[1:] - weight[:1] if len(weight) == 2 else weight - weight.mean(dim=0)
        self.deviations = self.centred @ weight.T
        self.sizes = ((self.rows @ self.law.covariance) * self.rows).sum(dim=1)

    @property
    def gamma(self) -> float:
        """The largest theta^T Sigma theta of a logit, the size of the ellipsoid that holds them all."""
        return max(float(self.sizes.max()), torch.finfo(torch.float64).tiny)

    @property
    def ellipsoid(self) -> Ellipsoid:
        """That ellipsoid, in the shape of the features' covariance."""
        return Ellipsoid(self.law.covariance, self.gamma)


def regulariser_figures(layer: LastLayer, alpha: float) -> dict[str, Any]:
    """Mixup of the last layer's inputs as a penalty, in both scalings.

    Args:
        layer: last layer and features.
        alpha: of the mixing law Beta(alpha, alpha), > 0.

    Returns:
        For each scaling, ``mean`` and ``lambda``: ``own``, ``others`` (kappa) and ``value``; None where infinite.

    Raises:
        InputError: ``alpha`` is not positive.
    """
    found: dict[str, Any] = {}
    scalings: tuple[ScalingName, ...] = ("mean", "lambda")
    for scaling in scalings:
        own, others = kappa(alpha, scaling=scaling)
        value = float(softmax_regulariser(layer.logits, layer.deviations, alpha, scaling=scaling))
        figures = {"own": own, "others": others, "value": value}
        found[scaling] = {name: number if math.isfinite(number) else None for name, number in figures.items()}
    return found


def complexity_figures(layer: LastLayer, *, seed: int, draws: int = 200) -> dict[str, Any]:
    """Rademacher complexity of the smallest ellipsoid in the shape of the data that holds the last layer's logits.

    Args:
        layer: last layer and features.
        seed: of signs and directions.
        draws: of signs, >= 2.

    Returns:
        ``n``, ``features`` (their number), ``rank``, ``gamma``; ``bound`` in closed form and ``estimate`` with its
        ``standard_error``, both without an intercept; ``ridge_bound``, of the ball of the same layer's Euclidean norm;
        of two classes also ``glm``, see `glm_figures`, else None.

    Raises:
        InputError: too few draws.
    """
    n, m = layer.features.shape
    ball = layer.ellipsoid
    signs = generator(seed, "theory complexity")
    estimate = ball.rademacher(layer.centred, draws, signs)
    norm = float(layer.rows.norm(dim=1).max())
    return {
        "n": n,
        "features": m,
        "rank": ball.rank,
        "gamma": layer.gamma,
        "bound": ball.rademacher_bound(n),
        "estimate": estimate.mean,
        "standard_error": estimate.standard_error,
        "ridge_bound": norm * math.sqrt(float(layer.law.covariance.trace()) / n),
        "glm": glm_figures(layer, seed=seed) if len(layer.rows) == 1 else None,
    }


def glm_figures(layer: LastLayer, *, seed: int) -> dict[str, Any]:
    """The class W_gamma of the one logit of two classes, and the retention of the law of its features.

    Retention is an infimum over all theta. It falls along each ray from 0, so it is looked for at the layer's own size,
    in random directions of the whitened features and in the layer's own one: rho is over-estimated, so that what is
    computed with it may lie below the bound, and is an estimate of it.

    Args:
        layer: last layer and features.
        seed: of the directions.

    Returns:
        ``gamma`` (of W_gamma), ``rho``, ``directions``, ``estimate`` (of the bound of the complexity; None of a
        degenerate class).
    """
    theta, ball = layer.rows[0], layer.ellipsoid
    white = ball.whitened(layer.centred)
    draws = torch.randn(_DIRECTIONS, ball.rank, generator=generator(seed, "theory retention"), dtype=torch.float64)
    around = math.sqrt(layer.gamma) * F.normalize(draws, dim=1)
    found = [retention(direction, white) for direction in around] + [retention(theta, layer.centred)]
    rho = min(0.5, *(float(value) for value in found))
    gamma = float(class_size(theta, layer.centred))
    return {
        "gamma": gamma,
        "rho": rho,
        "directions": len(found),
        "estimate": glm_rademacher_bound(gamma, rho, ball.rank, len(white)) if min(gamma, rho) > 0 else None,
    }


def corollary_figures(layer: LastLayer, loss: float, complexity: dict[str, Any], *, delta: float) -> dict[str, Any]:
    """The generalisation bound with what was read off the sample put in: no certificate.

    Args:
        layer: last layer and features, of two classes.
        loss: mean loss on the sample.
        complexity: from `complexity_figures`.
        delta: in (0, 1).

    Returns:
        ``loss``, ``delta``, ``largest`` (bound of the loss over the class on the sample's inputs); ``ellipsoid``, the
        bound by the complexity of the ellipsoid, and ``w_gamma_estimate``, by that of W_gamma, which is estimated;
        ``plugged_in``, what should have been fixed before the sample.

    Raises:
        InputError: ``delta`` is out of range.
    """
    n = complexity["n"]
    reach = math.sqrt(layer.gamma) * float(layer.ellipsoid.whitened(layer.centred).norm(dim=1).max())
    intercept = float((layer.logits[:, 1] - layer.logits[:, 0]).mean().abs())
    largest = float(F.softplus(torch.tensor(reach + intercept), threshold=700))
    # The free intercept costs a factor of 2 in the complexity.
    by = {"ellipsoid": complexity["bound"], "w_gamma_estimate": complexity["glm"]["estimate"]}
    return {
        "loss": loss,
        "delta": delta,
        "largest": largest,
        **{
            name: None if rad is None else generalisation_bound(loss, 2 * rad, n, largest=largest, delta=delta)
            for name, rad in by.items()
        },
        "plugged_in": list(PLUGGED_IN),
    }
