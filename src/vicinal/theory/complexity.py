"""The complexity of the classes that mixup selects: ellipsoids in the shape of the data.

The regulariser of `vicinal.theory.regulariser` bounds theta^T Sigma theta, with Sigma the data's own second moment. The
Rademacher complexity of such a class depends on the rank of the data, not on their dimension; that of the ridge class
{|theta|^2 <= gamma} grows with the trace of Sigma.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from vicinal.errors import InputError
from vicinal.settings import check


class Estimate(NamedTuple):
    """A Monte-Carlo estimate.

    Attributes:
        mean: of the draws.
        standard_error: of that mean.
    """

    mean: float
    standard_error: float

    @classmethod
    def over(cls, values: Tensor) -> Estimate:
        """The mean of some values (n,), with the standard error from their spread; 0 of a single one.

        >>> Estimate.over(torch.tensor([1.0, 3.0]))
        Estimate(mean=2.0, standard_error=1.0)
        """
        values = values.double()
        n = len(values)
        return cls(float(values.mean()), float(values.std(correction=0)) / math.sqrt(max(n - 1, 1)))


_CUT = 1e-10
"""Directions with less than this share of the largest eigenvalue count as outside of the range."""


@dataclass(frozen=True)
class Ellipsoid:
    """The class {x -> theta^T x : theta^T Sigma theta <= gamma}.

    Args:
        shape: Sigma, symmetric and positive semi-definite, (d, d): the second moment of the inputs, or the covariance
            of features; the identity gives the class of ridge regression.
        gamma: size, > 0.
    """

    shape: Tensor
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check("gamma", self.gamma, above=0)
        if self.shape.dim() != 2 or self.shape.shape[0] != self.shape.shape[1]:
            raise InputError(f"shape: expected a square matrix, got {tuple(self.shape.shape)}")

    @cached_property
    def _axes(self) -> tuple[Tensor, Tensor]:
        """An orthonormal basis of Sigma's range (d, rank), and the same scaled by the axes' inverse roots."""
        values, axes = torch.linalg.eigh(self.shape)
        kept = values > float(values.max()) * _CUT
        return axes[:, kept], axes[:, kept] * values[kept].rsqrt()

    @property
    def rank(self) -> int:
        """Rank of Sigma."""
        return self._axes[0].shape[1]

    def whitened(self, x: Tensor) -> Tensor:
        """Sigma^(+1/2) x in coordinates of Sigma's range, (..., rank).

        Raises:
            InputError: a row has a part outside that range, along which theta is unbounded.
        """
        basis, root = self._axes
        outside = x - (x @ basis) @ basis.T
        # Rows with second moment Sigma have at most this share of their length in the directions that are cut off.
        if float(outside.norm()) > math.sqrt(_CUT * x.shape[-1]) * float(x.norm()):
            raise InputError("x: not in the range of the ellipsoid's shape; take the second moment of the same law")
        return x @ root

    def supremum(self, x: Tensor, signs: Tensor) -> Tensor:
        """sup over the class of 1/n sum_i sign_i theta^T x_i, in closed form, (draws,).

        Args:
            x: inputs (n, d).
            signs: (draws, n).

        Raises:
            InputError: an input is not in the range of Sigma.
        """
        suprema: Tensor = math.sqrt(self.gamma) / len(x) * (signs @ self.whitened(x)).norm(dim=1)
        return suprema

    def rademacher(
        self, sample: Tensor | Callable[[torch.Generator], Tensor], draws: int, generator: torch.Generator
    ) -> Estimate:
        """Monte-Carlo Rademacher complexity, the supremum itself in closed form.

        Args:
            sample: inputs (n, d), for the complexity on that sample; or a function that draws inputs (n, d) anew, for
                its expectation, the quantity that is bounded by the rank.
            draws: number of draws of signs, >= 2.
            generator: CPU generator of signs and samples.

        Raises:
            InputError: too few draws, or an input is not in the range of Sigma.
        """
        check("draws", draws, low=2)
        found = []
        for _ in range(draws):
            x = sample if isinstance(sample, Tensor) else sample(generator)
            signs = 2 * torch.randint(2, (1, len(x)), generator=generator) - 1
            found.append(self.supremum(x, signs.to(x)))
        return Estimate.over(torch.cat(found))

    def rademacher_bound(self, n: int, mean: Tensor | None = None, *, intercept: bool = False) -> float:
        """Upper bound of the expected Rademacher complexity of samples of size n, from Jensen's inequality.

        It is sqrt(gamma (rank + |Sigma^(+1/2) mean|^2) / n), where Sigma is the second moment of the inputs and there
        is no mean to add, or their covariance and ``mean`` their mean, which has to be in the range of Sigma.

        Args:
            n: sample size, >= 1.
            mean: mean of the inputs (d,), if Sigma is their covariance.
            intercept: with the factor 2 that a free intercept costs (recalled).

        Raises:
            InputError: ``n`` is out of range, or the mean is not in the range of Sigma.
        """
        check("n", n, low=1)
        shift = 0.0 if mean is None else float(self.whitened(mean).square().sum())
        return (2 if intercept else 1) * math.sqrt(self.gamma * (self.rank + shift) / n)


def glm_rademacher_bound(gamma: float, rho: float, rank: int, n: int) -> float:
    """max{(gamma/rho)^(1/4), (gamma/rho)^(1/2)} sqrt(rank / n), for W_gamma under a rho-retentive law.

    Args:
        gamma: size of the class, > 0.
        rho: of the law, in (0, 1/2].
        rank: of the inputs' second moment, >= 0.
        n: sample size, >= 1.

    Raises:
        InputError: an argument is out of range.

    Source: Zhang et al. 2021, recalled; derived here from the definition of a retentive law.
    """
    check("gamma", gamma, above=0)
    check("rho", rho, above=0, high=0.5)
    check("rank", rank, low=0)
    check("n", n, low=1)
    # Retentive: rho min(1, v) v <= gamma for v = theta^T Sigma theta, so v <= size.
    size = max(math.sqrt(gamma / rho), gamma / rho)
    return math.sqrt(size * rank / n)


class FeatureLaw(NamedTuple):
    """Mean and covariance of features.

    Attributes:
        mean: (m,).
        covariance: (m, m).
    """

    mean: Tensor
    covariance: Tensor


def relu_features(weight: Tensor, x: Tensor) -> Tensor:
    """Hidden features max(0, W x) of a network with one hidden layer, (n, m).

    Mixup of this layer, with squared loss, penalises theta^T Sigma theta with Sigma the covariance of the features
    (recalled); the class is then the `Ellipsoid` of that shape, and its bound has their mean in it.

    Args:
        weight: W, (m, d).
        x: inputs (n, d).
    """
    return (x @ weight.T).relu()


def feature_law(features: Tensor) -> FeatureLaw:
    """Mean and covariance of the law that puts equal weight on each row.

    Args:
        features: (N, m).
    """
    mean = features.mean(dim=0)
    centred = features - mean
    return FeatureLaw(mean, centred.T @ centred / len(features))
