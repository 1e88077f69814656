"""The laws of the mixing coefficient: their moments in closed form, and quadrature rules that need no sampling.

Mixup draws lambda ~ Beta(alpha, beta). For a loss that is affine in the label the mixed label can be traded for the
label of one end, and lambda for a draw from::

    D~ = alpha / (alpha + beta) Beta(alpha + 1, beta) + beta / (alpha + beta) Beta(beta + 1, alpha)

(the mixed label is a Bernoulli(lambda) choice between two labels; Beta and Bernoulli are conjugate; the pairs of one
branch change places). Derived here; the setting is that of Zhang et al. 2021 ("How does mixup help with robustness and
generalization?").
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vicinal.settings import check

NODES = 64
"""Nodes per Beta law: exact for polynomials in lambda up to degree 127."""


class Moments(NamedTuple):
    """Moments of the distance 1 - lambda that D~ puts between a mixed point and the example whose label it keeps.

    Attributes:
        m1: E[1 - lambda], in (0, 1/2).
        m2: E[(1 - lambda)^2], which is m1 / 2 for every alpha and beta.
        alpha: of Beta(alpha, beta).
        beta: of Beta(alpha, beta).
    """

    m1: float
    m2: float
    alpha: float
    beta: float

    def density(self, lam: Tensor) -> Tensor:
        """The density of D~, lambda (p(lambda) + p(1 - lambda)) with p that of Beta(alpha, beta), like ``lam``.

        Args:
            lam: values in (0,1).
        """
        p = torch.distributions.Beta(lam.new_tensor(self.alpha), lam.new_tensor(self.beta))
        density: Tensor = lam * (p.log_prob(lam).exp() + p.log_prob(1 - lam).exp())
        return density


class Folded(NamedTuple):
    """Moments of theta = max(lambda, 1 - lambda) for lambda ~ Beta(alpha, beta).

    Over all ordered pairs the points of lambda and of 1 - lambda are the same, so the mixup loss depends on theta only.

    Attributes:
        mean: E[theta], in (1/2, 1).
        variance: Var(theta).
        square: q = E[(1 - theta)^2].
    """

    mean: float
    variance: float
    square: float


class Rule(NamedTuple):
    """A quadrature rule of a law on [0,1]: E[g(lambda)] is the sum of weight * g(lam), exact for polynomials.

    Attributes:
        lam: nodes, float64 (K,).
        weight: weights, float64 (K,), positive, of sum 1.
    """

    lam: Tensor
    weight: Tensor


def mixup_moments(alpha: float, beta: float | None = None) -> Moments:
    """Moments of D~: m1 = 2 alpha beta / ((alpha + beta)(alpha + beta + 1)), which is alpha / (2 alpha + 1) if equal.

    Args:
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.

    Raises:
        InputError: a parameter is not positive.

    Source: derived here.

    >>> moments = mixup_moments(2.0)
    >>> moments.m1, moments.m2
    (0.4, 0.2)
    """
    alpha, beta = parameters(alpha, beta)
    total = alpha + beta
    m1 = 2 * (alpha / total) * (beta / (total + 1))
    return Moments(m1, m1 / 2, alpha, beta)


def folded_moments(alpha: float, beta: float | None = None) -> Folded:
    """Moments of max(lambda, 1 - lambda), from the incomplete Beta function.

    Args:
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.

    Raises:
        InputError: a parameter is not positive.

    Source: derived here; the folded law is that of Carratino et al. 2022.

    >>> folded = folded_moments(1.0)
    >>> round(folded.mean, 4), round(folded.square, 4)
    (0.75, 0.0833)
    """
    from scipy.special import betainc

    alpha, beta = parameters(alpha, beta)
    total = alpha + beta
    first = square = 0.0
    # 1 - theta is lambda below one half and 1 - lambda above: the same integral with the parameters exchanged.
    for a, b in ((alpha, beta), (beta, alpha)):
        first += a / total * float(betainc(a + 1, b, 0.5))
        square += a / total * (a + 1) / (total + 1) * float(betainc(a + 2, b, 0.5))
    return Folded(1 - first, max(square - first**2, 0.0), square)


def beta_rule(alpha: float, beta: float | None = None, nodes: int = NODES) -> Rule:
    """Gauss-Jacobi quadrature for Beta(alpha, beta).

    Args:
        alpha: first parameter, > 0.
        beta: second one, > 0; None for ``alpha``.
        nodes: number of nodes, >= 1.

    Raises:
        InputError: an argument is out of range.

    >>> rule = beta_rule(2.0, 3.0)
    >>> round(float(rule.weight @ rule.lam), 12)
    0.4
    """
    from scipy.special import roots_jacobi

    alpha, beta = parameters(alpha, beta)
    check("nodes", nodes, low=1)
    # On [-1,1] the weight is (1 - u)^(beta - 1) (1 + u)^(alpha - 1), with lambda = (1 + u) / 2.
    u, weight = (torch.from_numpy(values) for values in roots_jacobi(nodes, beta - 1, alpha - 1))
    return Rule((1 + u) / 2, weight / weight.sum())


def d_tilde_rule(alpha: float, beta: float | None = None, nodes: int = NODES) -> Rule:
    """Quadrature for D~: one Gauss-Jacobi rule for each of its Beta laws, or one in all where they are the same.

    Args:
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.
        nodes: nodes per Beta law, >= 1.

    Raises:
        InputError: an argument is out of range.
    """
    alpha, beta = parameters(alpha, beta)
    first = beta_rule(alpha + 1, beta, nodes)
    if alpha == beta:
        return first
    second = beta_rule(beta + 1, alpha, nodes)
    share = alpha / (alpha + beta)
    return Rule(torch.cat([first.lam, second.lam]), torch.cat([share * first.weight, (1 - share) * second.weight]))


def parameters(alpha: float, beta: float | None) -> tuple[float, float]:
    """Both parameters of a mixing law.

    Raises:
        InputError: one of them is not positive.
    """
    check("alpha", alpha, above=0)
    if beta is None:
        return float(alpha), float(alpha)
    check("beta", beta, above=0)
    return float(alpha), float(beta)
