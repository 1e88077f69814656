"""The laws of the mixing coefficient: closed forms against densities and quadrature that were written independently."""

from __future__ import annotations

import math

import pytest
import torch

from vicinal.errors import InputError
from vicinal.theory import beta_rule, d_tilde_rule, folded_moments, mixup_moments

LAWS = [(1.0, 1.0), (0.2, 0.2), (2.0, 5.0), (0.4, 1.3)]


@pytest.mark.parametrize(("alpha", "beta"), LAWS)
def test_t01_moments_and_density(alpha: float, beta: float) -> None:
    from scipy.stats import beta as law

    moments, rule = mixup_moments(alpha, beta), d_tilde_rule(alpha, beta)
    away = 1 - rule.lam
    assert abs(float(rule.weight.sum()) - 1) < 1e-12
    assert abs(float(rule.weight @ away) - moments.m1) < 1e-12
    assert abs(float(rule.weight @ away**2) - moments.m2) < 1e-12
    assert moments.m2 == moments.m1 / 2
    lam = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    share = alpha / (alpha + beta)
    mixture = share * law.pdf(lam, alpha + 1, beta) + (1 - share) * law.pdf(lam, beta + 1, alpha)
    torch.testing.assert_close(moments.density(lam), torch.from_numpy(mixture), rtol=1e-12, atol=0)
    # The control: the law that lambda is drawn from is another one.
    plain = beta_rule(alpha, beta)
    of_beta = float(plain.weight @ (1 - plain.lam))
    assert of_beta == pytest.approx(beta / (alpha + beta), abs=1e-12)
    assert abs(of_beta - moments.m1) > 0.05


@pytest.mark.parametrize(("alpha", "m1"), [(0.2, 1 / 7), (0.75, 0.3), (1.0, 1 / 3), (2.0, 0.4)])
def test_known_moments(alpha: float, m1: float) -> None:
    assert mixup_moments(alpha)[:2] == pytest.approx((m1, m1 / 2), abs=1e-15)
    assert mixup_moments(alpha).m1 == pytest.approx(alpha / (2 * alpha + 1), abs=1e-15)


@pytest.mark.parametrize(("alpha", "beta"), LAWS)
def test_folded_moments(alpha: float, beta: float) -> None:
    """Against integrals over the lower half, with the density's power at 0 taken out."""
    from scipy.integrate import quad
    from scipy.special import beta as norm

    def smaller(power: int) -> float:
        """E[min(lambda, 1 - lambda)^power]."""
        halves = (
            quad(lambda m, b=b: m**power * (1 - m) ** (b - 1), 0, 0.5, weight="alg", wvar=(a - 1, 0))[0]
            for a, b in ((alpha, beta), (beta, alpha))
        )
        return float(sum(halves) / norm(alpha, beta))

    expected = 1 - smaller(1), smaller(2) - smaller(1) ** 2, smaller(2)
    assert smaller(0) == pytest.approx(1, abs=1e-12)
    assert folded_moments(alpha, beta) == pytest.approx(expected, abs=1e-12)


def test_a_uniform_coefficient_folds_to_a_uniform_one() -> None:
    assert folded_moments(1.0) == pytest.approx((3 / 4, 1 / 48, 1 / 12), abs=1e-15)


@pytest.mark.parametrize(("alpha", "beta", "nodes"), [(0.0, 1.0, 4), (1.0, -1.0, 4), (math.nan, None, 4), (1, 1, 0)])
def test_bad_laws(alpha: float, beta: float | None, nodes: int) -> None:
    with pytest.raises(InputError, match="must be"):
        beta_rule(alpha, beta, nodes)
