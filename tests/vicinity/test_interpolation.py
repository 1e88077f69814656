"""Mixing: its algebra, the law of its coefficients, and where its draws come from."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vicinal.vicinity import interpolation
from vicinal.vicinity.interpolation import Mixing

Mutation = Callable[[pytest.MonkeyPatch], None]

torch.set_num_threads(1)
DRAWS = 50_000
# alpha, E[l^2 (1-l)^2], E[max(l, 1-l)]: the published values of the two closed forms below.
MOMENTS = [(0.1, 0.007161, 0.94158), (0.75, 0.029167, 0.77821), (1.0, 0.033333, 0.75), (2.0, 0.042857, 0.6875)]

_beta, _draw, _rand = interpolation.draw_beta, interpolation.draw_mixing, torch.rand


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing."""
    return lambda patch: patch.setattr(target, value)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batches(*shape: int) -> tuple[Tensor, Tensor]:
    draws = seeded(9)
    return torch.randn(*shape, generator=draws), torch.randn(*shape, generator=draws)


def second_moment(alpha: float) -> float:
    a = 2 * alpha
    return float((alpha * (alpha + 1)) ** 2 / (a * (a + 1) * (a + 2) * (a + 3)))


def folded_mean(alpha: float) -> float:
    beta = math.gamma(alpha) ** 2 / math.gamma(2 * alpha)
    return float(0.5 + 2 ** (-2 * alpha) / (alpha * beta))


def assert_mean(values: Tensor, expected: float) -> None:
    """The mean is within five standard errors, which one in a million honest samples exceeds."""
    error = values.std() / math.sqrt(len(values))
    assert abs(float(values.mean()) - expected) < 5 * float(error)


def ends_are_the_inputs() -> None:
    first, second = batches(4, 2, 3, 3)
    assert torch.equal(interpolation.mix(first, second, torch.ones(4)), first)
    assert torch.equal(interpolation.mix(first, second, torch.zeros(4)), second)


def own_partner_changes_nothing() -> None:
    first, _ = batches(5, 6)
    torch.testing.assert_close(interpolation.mix(first, first, torch.rand(5, generator=seeded())), first)


def labels_stay_on_the_simplex() -> None:
    first, second = (logits.softmax(dim=1) for logits in batches(6, 4))
    mixed = interpolation.mix(first, second, torch.rand(6, generator=seeded()))
    torch.testing.assert_close(mixed.sum(dim=1), torch.ones(6))
    assert mixed.min() >= 0


def rows_keep_their_own_coefficient() -> None:
    first, second = batches(3, 2, 4, 5)
    lam = torch.tensor([0.25, 0.5, 0.875])
    mixed = interpolation.mix(first, second, lam)
    for row, weight in enumerate(lam.tolist()):
        torch.testing.assert_close(mixed[row], weight * first[row] + (1 - weight) * second[row])


def quadratic_residual() -> None:
    """f = x'Ax/2 + b'x: f(mixed) - mixed f = -l (1 - l) (x - x')'A(x - x')/2, exactly; 0 for A = 0 (affine f)."""
    first, second = (part.double() for part in batches(7, 5))
    draws = seeded(3)
    matrix, b = (torch.randn(shape, generator=draws, dtype=torch.float64) for shape in ((5, 5), (5,)))
    lam = torch.rand(7, generator=draws, dtype=torch.float64)
    for a in (matrix + matrix.T, torch.zeros_like(matrix)):

        def value(x: Tensor, a: Tensor = a) -> Tensor:
            return 0.5 * ((x @ a) * x).sum(dim=1, keepdim=True) + (x @ b)[:, None]

        mixed = interpolation.mix(value(first), value(second), lam)
        residual = (value(interpolation.mix(first, second, lam)) - mixed).squeeze(1)
        gap = first - second
        torch.testing.assert_close(residual, -0.5 * lam * (1 - lam) * ((gap @ a) * gap).sum(dim=1))


def beta_moments() -> None:
    for alpha, published, _ in MOMENTS:
        assert second_moment(alpha) == pytest.approx(published, abs=1e-6)
        lam = interpolation.draw_beta(alpha, DRAWS, seeded())
        assert lam.dtype == torch.float64
        assert 0 <= lam.min() <= lam.max() <= 1
        assert_mean(lam, 0.5)
        assert_mean(lam.square() * (1 - lam).square(), second_moment(alpha))


def folding() -> None:
    """max(l, 1 - l) raises the mean and leaves l (1 - l) as it is."""
    for alpha, _, published in MOMENTS:
        assert folded_mean(alpha) == pytest.approx(published, abs=1e-5)
        lam, partner = interpolation.draw_mixing(DRAWS, alpha, seeded(), per="sample", fold=True)
        plain = interpolation.draw_mixing(DRAWS, alpha, seeded(), per="sample")
        assert lam.min() >= 0.5
        assert_mean(lam, folded_mean(alpha))
        torch.testing.assert_close(lam * (1 - lam), plain.lam * (1 - plain.lam), atol=1e-6, rtol=0)
        assert torch.equal(partner, plain.partner)


def svhn_draws_lie_at_the_ends() -> None:
    """ICT's alpha = 0.1: three quarters of the draws lie outside [0.05, 0.95]."""
    lam = interpolation.draw_beta(0.1, DRAWS, seeded())
    assert float(((lam < 0.05) | (lam > 0.95)).double().mean()) == pytest.approx(0.75, abs=0.02)


def one_coefficient_per_batch() -> None:
    lam, _ = interpolation.draw_mixing(9, 1.0, seeded(), per="batch")
    assert lam.shape == (9,)
    assert lam.dtype == torch.float32
    assert len(lam.unique()) == 1
    assert len(interpolation.draw_mixing(9, 1.0, seeded(), per="sample").lam.unique()) == 9


def partners_are_a_uniform_permutation() -> None:
    """Every pair (i, partner of i) comes up equally often, fixed points included; chi-square of 25 cells."""
    draws, count, times = seeded(), 5, 2000
    table = torch.zeros(count, count)
    for _ in range(times):
        partner = interpolation.draw_mixing(count, 1.0, draws).partner
        assert partner.sort().values.tolist() == list(range(count))
        table[torch.arange(count), partner] += 1
    expected = times / count
    # Doubly stochastic counts: (count - 1)^2 = 16 degrees of freedom; 52 is exceeded once in 100000.
    assert float(((table - expected) ** 2 / expected).sum()) < 52


def draws_come_from_the_generator() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, again, other = (interpolation.draw_mixing(8, 0.5, seeded(seed), per="sample") for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.lam, again.lam)
    assert torch.equal(first.partner, again.partner)
    assert not torch.equal(first.lam, other.lam)


def _with_replacement(count: int, alpha: float, generator: torch.Generator, **_: object) -> Mixing:
    return Mixing(torch.full((count,), 0.5), torch.randint(count, (count,), generator=generator))


IDENTITIES = [
    pytest.param(
        ends_are_the_inputs,
        patched("vicinal.vicinity.interpolation.mix", lambda a, b, lam: torch.lerp(a, b, 0.999)),
        id="ends | almost there",
    ),
    pytest.param(
        own_partner_changes_nothing,
        patched("vicinal.vicinity.interpolation.mix", lambda a, b, lam: lam[:, None] * a + b),
        id="own partner | weights that do not sum to 1",
    ),
    pytest.param(
        labels_stay_on_the_simplex,
        patched("vicinal.vicinity.interpolation.mix", lambda a, b, lam: a + (1 - lam[:, None]) * b),
        id="simplex | weights that do not sum to 1",
    ),
    pytest.param(
        rows_keep_their_own_coefficient,
        patched("vicinal.vicinity.interpolation.mix", lambda a, b, lam: lam.mean() * a + (1 - lam.mean()) * b),
        id="own coefficient | the batch's mean",
    ),
    pytest.param(
        quadratic_residual,
        patched("vicinal.vicinity.interpolation.mix", lambda a, b, lam: b + lam[:, None] ** 2 * (a - b)),
        id="quadratic residual | squared coefficient",
    ),
    pytest.param(
        beta_moments,
        patched("vicinal.vicinity.interpolation.draw_beta", lambda alpha, *rest: _beta(1.3 * alpha, *rest)),
        id="Beta moments | other alpha",
    ),
    pytest.param(
        folding,
        patched("vicinal.vicinity.interpolation.draw_mixing", lambda *args, fold=False, **rest: _draw(*args, **rest)),
        id="folding | forgotten",
    ),
    pytest.param(
        svhn_draws_lie_at_the_ends,
        patched("vicinal.vicinity.interpolation.draw_beta", lambda alpha, *rest: _beta(1.0, *rest)),
        id="small alpha | uniform",
    ),
    pytest.param(
        one_coefficient_per_batch,
        patched(
            "vicinal.vicinity.interpolation.draw_mixing", lambda *args, per, **rest: _draw(*args, per="sample", **rest)
        ),
        id="per batch | per sample",
    ),
    pytest.param(
        partners_are_a_uniform_permutation,
        patched("vicinal.vicinity.interpolation.draw_mixing", _with_replacement),
        id="permutation | drawn with replacement",
    ),
    pytest.param(
        partners_are_a_uniform_permutation,
        patched(
            "vicinal.vicinity.interpolation.draw_mixing",
            lambda count, alpha, generator: Mixing(torch.ones(count), torch.arange(count).roll(1)),
        ),
        id="permutation | always the neighbour",
    ),
    pytest.param(
        draws_come_from_the_generator,
        patched("torch.rand", lambda *size, generator, **rest: _rand(*size, **rest)),
        id="generator | the global one",
    ),
]


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_holds(check: Callable[[], None], mutate: Mutation) -> None:
    check()


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_fails_when_mutated(
    check: Callable[[], None], mutate: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check()


def test_mixing_computes_in_the_type_of_the_inputs() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = torch.ones(3, 2, dtype=dtype)
        assert interpolation.mix(x, x, torch.full((3,), 0.3)).dtype == dtype
