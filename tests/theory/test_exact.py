"""The mixup loss over all pairs: brute force, its rewriting, its closed form for squares. Everything in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.theory import (
    GAUSSIAN,
    beta_rule,
    exact,
    mixup_least_squares,
    mixup_loss_exact,
    mixup_loss_rewritten,
    squared_mixup_loss,
)
from vicinal.theory.exact import LOGISTIC, Family, Function, Loss, Rule

LAWS = [(1.0, 1.0), (0.2, 0.2), (2.0, 5.0)]


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth_net(d: int, outputs: int = 0, seed: int = 1) -> Function:
    """Two layers with softplus between; one logit (B,) if ``outputs`` is 0."""
    first, second = draws(16, d, seed=seed), draws(16, max(outputs, 1), seed=seed + 1)

    def net(x: Tensor) -> Tensor:
        logits = F.softplus(x @ first.T) @ second / 4
        return logits if outputs else logits[:, 0]

    return net


def case(kind: str) -> tuple[Function, Tensor, Tensor]:
    x = draws(40, 5)
    if kind == "binary":
        return smooth_net(5), x, (draws(40, seed=3) > 0).double()
    return smooth_net(5, 3), x, torch.arange(40) % 3


def by_hand(f: Function, x: Tensor, y: Tensor, rule: Rule, loss: Loss) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for lam, weight in zip(*rule, strict=True):
        for j in range(len(x)):
            values = loss(f(lam * x + (1 - lam) * x[j]), lam * y + (1 - lam) * y[j])
            total = total + weight * values.sum() / len(x) ** 2
    return total


@pytest.mark.parametrize("kind", ["binary", "softmax"])
@pytest.mark.parametrize(("alpha", "beta"), LAWS)
def test_t02_pairs_and_rewriting_agree(kind: str, alpha: float, beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    f, x, y = case(kind)
    pairs = float(mixup_loss_exact(f, x, y, alpha, beta))
    assert abs(float(mixup_loss_rewritten(f, x, y, alpha, beta)) - pairs) < 1e-10
    # The control: the law of lambda itself in place of D~.
    monkeypatch.setattr(exact, "d_tilde_rule", beta_rule)
    assert abs(float(mixup_loss_rewritten(f, x, y, alpha, beta)) - pairs) > 1e-3


def test_a_loss_that_is_not_affine_in_the_label_cannot_be_rewritten() -> None:
    f, x, y = case("binary")

    def squared(f: Tensor, y: Tensor) -> Tensor:
        return (f - y).square()

    def gap(loss: Loss) -> float:
        pairs = mixup_loss_exact(f, x, y, 1.0, loss=loss)
        return abs(float(mixup_loss_rewritten(f, x, y, 1.0, loss=loss) - pairs))

    assert gap(GAUSSIAN) < 1e-10
    assert gap(squared) > 1e-3


def test_all_pairs_are_counted_once_however_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    f, x, y = smooth_net(5), draws(7, 5), draws(7, seed=2)
    rule = beta_rule(0.4, 1.3, 3)
    expected = by_hand(f, x, y, rule, LOGISTIC)
    for values in (1, 100, 1 << 20):
        monkeypatch.setattr(exact, "_VALUES", values)
        torch.testing.assert_close(mixup_loss_exact(f, x, y, 0.4, 1.3, nodes=3), expected, rtol=0, atol=1e-13)


def test_class_indices_are_one_hot_labels() -> None:
    f, x, y = case("softmax")
    soft = mixup_loss_exact(f, x, F.one_hot(y, 3).double(), 1.0, nodes=4)
    assert float(mixup_loss_exact(f, x, y, 1.0, nodes=4)) == float(soft)


def test_the_loss_depends_on_the_folded_coefficient_only(monkeypatch: pytest.MonkeyPatch) -> None:
    f, x, y = case("binary")
    plain = float(mixup_loss_exact(f, x, y, 0.4, 1.3))

    def folded(alpha: float, beta: float | None, nodes: int) -> Rule:
        lam, weight = beta_rule(alpha, beta, nodes)
        return Rule(torch.maximum(lam, 1 - lam), weight)

    monkeypatch.setattr(exact, "beta_rule", folded)
    assert abs(float(mixup_loss_exact(f, x, y, 0.4, 1.3)) - plain) < 1e-12


def test_large_logits_stay_exact() -> None:
    at = torch.tensor([-800.0, -25.0, 0.0, 25.0, 800.0], dtype=torch.float64)
    expected = torch.logaddexp(at, torch.zeros_like(at))
    torch.testing.assert_close(LOGISTIC.h(at), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize("family", [LOGISTIC, GAUSSIAN], ids=lambda family: family.name)
def test_derivatives_of_a_family(family: Family) -> None:
    at = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(family.h(at).sum(), at, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), at)
    torch.testing.assert_close(family.first(at), first)
    torch.testing.assert_close(family.second(at), second)


@pytest.mark.parametrize(("alpha", "beta"), LAWS)
def test_t13_linear_regression(alpha: float, beta: float) -> None:
    x, noise = draws(60, 4), draws(60, seed=5)
    y = x @ draws(4, seed=6) + 2 + noise  # not centred
    centred = x - x.mean(dim=0)

    def apart(inputs: Tensor) -> float:
        least = torch.linalg.lstsq(inputs, y[:, None]).solution[:, 0]
        return float((mixup_least_squares(inputs, y, alpha, beta) - least).abs().max())

    assert apart(centred) < 1e-10
    # The control: without centring the intercept is missed, and with an intercept all agrees again.
    assert apart(x + 0.5) > 1e-3
    assert apart(torch.cat([x + 0.5, torch.ones(60, 1, dtype=torch.float64)], dim=1)) < 1e-10


@pytest.mark.parametrize(("alpha", "beta"), LAWS)
def test_squared_mixup_loss_is_the_loss_over_pairs(alpha: float, beta: float) -> None:
    x, y = draws(30, 4) + 0.5, draws(30, seed=5)
    theta = mixup_least_squares(x, y, alpha, beta).requires_grad_()
    closed = squared_mixup_loss(x @ theta - y, alpha, beta)
    pairs = mixup_loss_exact(lambda at: at @ theta, x, y, alpha, beta, loss=lambda f, y: (f - y).square())
    torch.testing.assert_close(closed, pairs, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(pairs, theta)
    assert float(gradient.abs().max()) < 1e-12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, x, y: (f, x[:0], y[:0]), "x: expected at least one"),
        (lambda f, x, y: (f, x.long(), y), "x: expected .* floating point"),
        (lambda f, x, y: (f, x, y[:-1]), r"y: expected labels \(40,\), got \(39,\)"),
        (lambda f, x, y: (lambda at: f(at)[:, None], x, y), r"f: expected logits .* got \(1, 1\)"),
        (lambda f, x, y: (smooth_net(5, 3), x, y), r"y: expected labels \(40, 3\)"),
        (lambda f, x, y: (smooth_net(5, 3), x, torch.full((40,), 3)), r"y: class indices must be in 0\.\.2"),
    ],
)
def test_bad_samples(
    change: Callable[[Function, Tensor, Tensor], tuple[Function, Tensor, Tensor]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        mixup_loss_exact(*change(*case("binary")), 1.0)
