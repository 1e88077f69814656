"""Rademacher complexity of ellipsoids: the closed-form supremum, Monte-Carlo against the bound, and what breaks it.

Expectations are over 300 samples and not thousands, so that a test takes less than two seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vicinal.errors import InputError
from vicinal.theory import Ellipsoid, Estimate, feature_law, relu_features

Sampler = Callable[[torch.Generator], Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def gaussian(n: int, d: int, r: int) -> tuple[Tensor, Sampler]:
    """Second moment and sampler of a Gaussian law of rank r in d dimensions."""
    root = draws(d, r, seed=d)

    def sample(generator: torch.Generator) -> Tensor:
        return torch.randn(n, r, generator=generator, dtype=torch.float64) @ root.T

    return root @ root.T, sample


def test_the_supremum_is_attained_in_the_class() -> None:
    moment, sample = gaussian(20, 6, 3)
    x, signs = sample(seeded(1)), draws(1, 20, seed=2).sign()
    ball = Ellipsoid(moment, 2.0)
    total = (signs @ x)[0] / 20
    best = torch.linalg.pinv(moment, rtol=1e-10) @ total
    best = best * math.sqrt(2.0 / float(best @ moment @ best))
    assert float(best @ moment @ best) == pytest.approx(2.0)
    assert float(ball.supremum(x, signs)) == pytest.approx(float(best @ total), rel=1e-9)
    others = draws(500, 6, seed=3)
    others = others * (2.0 / ((others @ moment) * others).sum(dim=1, keepdim=True)).sqrt()
    assert float((others @ total).max()) <= float(ball.supremum(x, signs))


def test_t11_complexity_depends_on_the_rank() -> None:
    found: dict[tuple[int, int, int], Estimate] = {}
    for n, d, r in ((50, 40, 3), (200, 40, 10), (200, 40, 40), (200, 80, 10)):
        moment, sample = gaussian(n, d, r)
        ball = Ellipsoid(moment)
        assert ball.rank == r
        assert ball.rademacher_bound(n) == pytest.approx(math.sqrt(r / n))
        estimate = ball.rademacher(sample, 300, seeded())
        assert estimate.mean <= ball.rademacher_bound(n) + 3 * estimate.standard_error
        assert estimate.mean > 0.9 * ball.rademacher_bound(n)  # and the bound is no triviality
        found[n, d, r] = estimate
    # Of one rank and the same draws, in twice as many dimensions: the very same numbers.
    assert found[200, 80, 10] == pytest.approx(found[200, 40, 10], rel=1e-9)


def test_t11_control_the_ridge_class_depends_on_the_trace() -> None:
    ridge = {}
    for d in (40, 80):
        _, sample = gaussian(200, d, 10)
        ridge[d] = Ellipsoid(torch.eye(d, dtype=torch.float64)).rademacher(sample, 300, seeded())
        assert ridge[d].mean > math.sqrt(10 / 200) + 3 * ridge[d].standard_error
    assert ridge[80].mean - ridge[40].mean > 3 * math.hypot(ridge[40].standard_error, ridge[80].standard_error)


def test_t12_hidden_features_need_the_mean_term() -> None:
    """The law is uniform on 4000 points, so that its moments are exact."""
    features = relu_features(draws(30, 10, seed=1), draws(4000, 10, seed=2))
    mean, covariance = feature_law(features)

    def sample(generator: torch.Generator) -> Tensor:
        return features[torch.randint(4000, (100,), generator=generator)]

    ball = Ellipsoid(covariance)
    estimate = ball.rademacher(sample, 300, seeded())
    assert ball.rank == 30
    assert estimate.mean <= ball.rademacher_bound(100, mean)
    assert estimate.mean > ball.rademacher_bound(100) == pytest.approx(math.sqrt(0.3))  # the control
    assert ball.rademacher_bound(100, mean, intercept=True) == 2 * ball.rademacher_bound(100, mean)


def test_the_complexity_on_one_sample() -> None:
    moment, sample = gaussian(20, 6, 3)
    x = sample(seeded(1))
    ball = Ellipsoid(moment)
    estimate = ball.rademacher(x, 400, seeded())
    # Of its square the expectation is known: the cross terms of different signs vanish.
    signs = torch.tensor([[1 - 2 * (code >> i & 1) for i in range(10)] for code in range(1024)], dtype=torch.float64)
    squares = ball.supremum(x[:10], signs).square().mean()
    torch.testing.assert_close(squares, ball.whitened(x[:10]).square().sum() / 100)
    assert estimate.mean**2 <= float(ball.whitened(x).square().sum()) / 400


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Ellipsoid(draws(3, 2)), "expected a square matrix"),
        (lambda: Ellipsoid(torch.eye(2), 0.0), "gamma must be greater than 0"),
        (lambda: Ellipsoid(torch.diag(torch.tensor([1.0, 0.0]))).whitened(torch.ones(4, 2)), "not in the range"),
        (lambda: Ellipsoid(torch.eye(2)).rademacher(torch.ones(4, 2), 1, seeded()), "draws must be at least 2"),
        (lambda: Ellipsoid(torch.eye(2)).rademacher_bound(0), "n must be at least 1"),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_rows_of_the_same_law_are_in_range_however_steeply_their_spectrum_falls() -> None:
    """The directions that are cut off hold little of them, and what holds more is refused."""
    scale = torch.logspace(0, -8, 24, dtype=torch.float64)
    x = scale * torch.randn(60, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ball = Ellipsoid(x.T @ x / 60)
    assert ball.rank < 24
    assert bool(torch.isfinite(ball.whitened(x)).all())
    with pytest.raises(InputError, match="not in the range"):
        ball.whitened(torch.eye(24, dtype=torch.float64))
