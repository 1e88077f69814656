"""The regulariser of generalised linear models: its coefficients, and that it is the loss's second-order term."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vicinal.errors import InputError
from vicinal.theory import (
    LOGISTIC,
    ScalingName,
    class_size,
    glm_rademacher_bound,
    glm_regulariser,
    kappa,
    mixup_moments,
    rescaled_mixup_loss,
    retention,
)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("scaling", ["mean", "lambda"])
def test_t10_the_regulariser_is_the_second_order_term(scaling: ScalingName) -> None:
    x, theta, y = draws(40, 5), draws(5, seed=1), (draws(40, seed=2) > 0).double()
    x = x - x.mean(dim=0)
    plain = float(LOGISTIC(x @ theta, y).mean())
    penalty = float(glm_regulariser(theta, x, 4.0, scaling=scaling))
    residuals, without = [], []
    for t in (1 / 8, 1 / 16):
        change = float(rescaled_mixup_loss(theta, x, y, 4.0, scaling=scaling, scale=t)) - plain
        residuals.append(abs(change - t**2 * penalty))
        without.append(abs(change))
    assert math.log2(residuals[0] / residuals[1]) > 2.7
    assert math.log2(without[0] / without[1]) < 2.3  # the control: without the regulariser
    assert penalty > 0


@pytest.mark.parametrize(("alpha", "beta"), [(4.0, 4.0), (2.5, 2.5), (3.0, 6.0)])
def test_t10_kappa_against_quadrature(alpha: float, beta: float) -> None:
    from scipy.integrate import quad

    density = mixup_moments(alpha, beta).density

    def mean(power: int) -> float:
        """E[(1 - lambda)^2 / lambda^power] under D~."""

        def integrand(lam: float) -> float:
            return float(density(torch.tensor(lam, dtype=torch.float64))) * (1 - lam) ** 2 / lam**power

        return float(quad(integrand, 0, 1, epsabs=1e-12, epsrel=1e-11, limit=200)[0])

    assert kappa(alpha, beta, scaling="lambda").others == pytest.approx(mean(2), rel=1e-8)
    moments = mixup_moments(alpha, beta)
    assert kappa(alpha, beta).others == pytest.approx(mean(0) / (1 - moments.m1) ** 2, rel=1e-8)
    assert kappa(alpha, beta).own == pytest.approx((mean(0) - moments.m1**2) / (1 - moments.m1) ** 2, rel=1e-8)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.2, 0.2), (4.0, 1.0), (0.5, 3.0)])
def test_t10_kappa_is_infinite_for_the_usual_alpha(alpha: float, beta: float) -> None:
    assert kappa(alpha, beta, scaling="lambda").others == math.inf
    assert math.isfinite(kappa(alpha, beta).others)


def test_kappa_of_equal_parameters() -> None:
    assert kappa(4.0, scaling="lambda").others == pytest.approx(5 / 3)
    assert kappa(1.5, scaling="lambda").others == pytest.approx(5)


def test_an_unknown_scaling() -> None:
    for call in (
        lambda: kappa(1.0, scaling="man"),  # type: ignore[arg-type]
        lambda: rescaled_mixup_loss(draws(2), draws(4, 2), torch.ones(4), 1.0, scaling="man"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match="did you mean 'mean'"):
            call()


@pytest.mark.parametrize(
    ("variance", "expected"), [(0.01, 0.2494), (1, 0.2066), (4, 0.1514), (25, 0.0751), (100, 0.0393)]
)
def test_retention_of_gaussian_projections(variance: float, expected: float) -> None:
    """A Gaussian law, as 4000 quantiles. The figure falls with the variance, so rho > 0 needs bounded weights."""
    from scipy.special import ndtri

    quantiles = ndtri((np.arange(4000) + 0.5) / 4000)
    x = torch.from_numpy(quantiles)[:, None] * math.sqrt(variance)
    one = torch.ones(1, dtype=torch.float64)
    slope = float(retention(one, x)) * min(1.0, float(x.square().mean()))
    assert slope == pytest.approx(expected, abs=1e-4)


def test_a_small_class_is_a_small_ellipsoid() -> None:
    """The step from the class to the ellipsoid: theta^T Sigma theta <= max(sqrt(gamma/rho), gamma/rho)."""
    x = draws(200, 5)
    for scale in (0.01, 0.1, 1.0, 3.0):
        theta = scale * draws(5, seed=3)
        gamma, rho = float(class_size(theta, x)), min(float(retention(theta, x)), 0.5)
        size = float((x @ theta).square().mean())
        assert size <= max(math.sqrt(gamma / rho), gamma / rho) * (1 + 1e-12)
        # The bound is the ellipsoid's at that size.
        wide = math.sqrt(max(math.sqrt(gamma / rho), gamma / rho) * 5 / 200)
        assert glm_rademacher_bound(gamma, rho, 5, 200) == pytest.approx(wide)
        assert (gamma / rho) ** (0.25 if gamma < rho else 0.5) * math.sqrt(5 / 200) == pytest.approx(wide)


@pytest.mark.parametrize("arguments", [(0.0, 0.1, 1, 1), (1.0, 0.6, 1, 1), (1.0, 0.0, 1, 1), (1.0, 0.1, -1, 1)])
def test_bad_bounds(arguments: tuple[float, float, int, int]) -> None:
    with pytest.raises(InputError, match="must be"):
        glm_rademacher_bound(*arguments)
