"""Adversarial Lipschitz regularisation against closed forms: checks 1 to 6 and 10, each with its controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.lipschitz import BATCH, CLASSES, FEATURES, fails, measured, normal, raw, searching, seeded
from torch import Tensor, nn

from vicinal.vicinity import kl, lipschitz, unit
from vicinal.vicinity.lipschitz import LipschitzSettings, Penalty

torch.set_num_threads(1)
_penalty = lipschitz.lipschitz_penalty


def penalising(**changes: Any) -> Callable[..., Penalty]:
    return lambda clean, moved, r, settings: _penalty(clean, moved, r, replace(settings, **changes))


def perceptron(seed: int = 1) -> nn.Sequential:
    network = nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh(), nn.Linear(16, CLASSES)).double()
    for index, parameter in enumerate(network.parameters()):
        parameter.data = normal(*parameter.shape, seed=seed + index) / 2
    return network


def test_alr_01_linear_quotient_is_below_sigma_1_and_rises_to_it_at_the_rate_of_power_iteration() -> None:
    sigma = torch.tensor([5.276, 3.864, 2.0, 0.5], dtype=torch.float64)
    left, right = (torch.linalg.qr(normal(size, CLASSES, seed=size)).Q for size in (CLASSES, FEATURES))
    W, x = left * sigma @ right.T, normal(64, FEATURES)

    def holds() -> None:
        last, rates = torch.zeros(64, dtype=torch.float64), {}
        for ip in (0, 1, 2, 5, 20):
            found, penalty = measured(lambda v: v @ W.T, x, d_y="l2_logits", iterations=ip)
            assert (penalty.quotient <= sigma[0] * (1 + 1e-12)).all()
            assert (penalty.quotient >= last * (1 - 1e-12)).all()
            last, shares = penalty.quotient, found.r @ right
            rates[ip] = (shares[:, 1] / shares[:, 0]).abs()
        assert last.mean().item() == pytest.approx(5.276, abs=1e-4)
        for ip, rate in rates.items():
            torch.testing.assert_close(rate, rates[0] * (sigma[1] / sigma[0]) ** (2 * ip), rtol=1e-6, atol=0)

    holds()
    fails(holds, adversarial_neighbour=searching(iterations=0))
    fails(holds, lipschitz_penalty=penalising(d_x="one"))


def test_alr_02_scalar_critic_has_slope_w_after_one_iteration_and_a_spectral_norm_gradient() -> None:
    x, lam = normal(BATCH, FEATURES), 2.0

    def holds() -> None:
        for K, power in ((0.0, 1), (0.5, 1), (0.5, 2), (10.0, 1), (10.0, 2)):
            w = normal(FEATURES, seed=3).requires_grad_()
            norm = w.detach().norm()
            options: dict[str, Any] = {"d_y": "abs", "iterations": 1, "K": K, "power": power, "detach_clean": False}
            _, at_zero = measured(lambda v, w=w: v @ w, torch.zeros_like(x), **options)
            torch.testing.assert_close(at_zero.quotient, norm.expand(BATCH), rtol=1e-15, atol=0)
            loss = lam * measured(lambda v, w=w: v @ w, x, **options)[1].mean()
            excess = max(norm - K, 0)
            torch.testing.assert_close(loss.detach(), torch.as_tensor(lam * excess**power).double(), rtol=1e-13, atol=0)
            loss.backward()
            slope = 0 if excess == 0 else lam * power * excess ** (power - 1)
            torch.testing.assert_close(w.grad, slope * w.detach() / norm, rtol=1e-12, atol=1e-13)

    holds()
    fails(holds, lipschitz_penalty=penalising(detach_clean=True))
    fails(holds, lipschitz_penalty=penalising(sides="two"))
    fails(holds, adversarial_neighbour=searching(iterations=0))


def test_alr_03_detached_clean_branch_pulls_along_the_moved_inputs() -> None:
    x, w = normal(BATCH, FEATURES), normal(FEATURES, seed=3).requires_grad_()

    def holds() -> None:
        found, penalty = measured(lambda v: v @ w, x, d_y="abs", iterations=1)
        (gradient,) = torch.autograd.grad(penalty.mean(), w)
        sign = (found.r @ w.detach()).sign()[:, None]
        expected = (sign * (x + found.r) / found.r.norm(dim=1, keepdim=True)).mean(dim=0)
        torch.testing.assert_close(gradient, expected, rtol=1e-14, atol=1e-15)
        assert 0 < torch.cosine_similarity(gradient, w.detach(), dim=0) < 0.99, "not a Lipschitz penalty's direction"

    holds()
    fails(holds, lipschitz_penalty=penalising(detach_clean=False))


def test_alr_04_small_probes_find_the_fisher_eigenvector_and_the_roots_limit() -> None:
    W, x = normal(CLASSES, FEATURES, seed=2), normal(BATCH, FEATURES)
    p = (x @ W.T).softmax(dim=1)
    values, vectors = torch.linalg.eigh(W.T @ (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) @ W)
    largest, top = values[:, -1], vectors[:, :, -1]

    def quotients(d_y: str, epsilon: float) -> Tensor:
        options = {"xi": 1e-3, "iterations": 100, "epsilon_min": epsilon, "epsilon_max": epsilon}
        found, penalty = measured(lambda v: v @ W.T, x, d_y=d_y, **options)
        assert torch.cosine_similarity(found.r, top, dim=1).abs().min() > 0.99999
        return penalty.quotient

    def holds() -> None:
        for epsilon in (1e-3, 1e-4):
            torch.testing.assert_close(quotients("kl", epsilon), epsilon / 2 * largest, rtol=1e-2, atol=0)
            torch.testing.assert_close(quotients("sqrt_2kl", epsilon), largest.sqrt(), rtol=1e-2, atol=0)

    holds()
    fails(holds, adversarial_neighbour=searching(xi=10.0))  # the published step: not an eigenvector
    fails(holds, adversarial_neighbour=searching(iterations=0))
    fails(holds, _root=lambda squared: squared)


def test_alr_05_constant_input_distance_is_vat() -> None:
    f, x = perceptron(), normal(BATCH, FEATURES)

    def holds() -> None:
        found, penalty = measured(f, x, d_x="one")
        moved = f(x + found.r)
        assert torch.equal(penalty.value, lipschitz.output_distance("kl", f(x), moved))
        torch.testing.assert_close(penalty.mean(), kl(f(x).softmax(dim=1), moved).mean())

    holds()
    fails(holds, lipschitz_penalty=penalising(d_x="l2"))
    fails(holds, lipschitz_penalty=penalising(d_y="sqrt_2kl"))


def test_alr_06_lengths_are_those_drawn_and_all_draws_come_from_the_generator() -> None:
    f = perceptron().float()

    def holds() -> None:
        state = torch.get_rng_state()
        for shape in ((BATCH, FEATURES), (BATCH, 2, 4, 1)):
            for low, high, direction in ((0.1, 10.0, "uniform"), (2.5, 2.5, "gaussian")):
                x = normal(*shape).float()
                settings = LipschitzSettings(epsilon_min=low, epsilon_max=high, direction=direction)
                found, again, other = (
                    lipschitz.adversarial_neighbour(lambda v: f(v.flatten(1)), x, settings, seeded(s))
                    for s in (0, 0, 1)
                )
                torch.testing.assert_close(found.r.flatten(1).norm(dim=1), found.epsilon, rtol=1e-6, atol=0)
                assert found.r.shape == x.shape
                assert ((low <= found.epsilon) & (found.epsilon <= high)).all()
                assert (found.epsilon.max() > found.epsilon.min()) == (high > low)
                assert torch.equal(found.r, again.r)
                assert not torch.equal(found.r, other.r)
        assert torch.equal(torch.get_rng_state(), state), "the global generator moved"

    holds()
    fails(holds, unit=raw)
    fails(holds, _random=lambda name, x, generator: unit(torch.rand(x.shape)))


def test_alr_10_quotients_scale_with_the_outputs_and_against_the_inputs() -> None:
    f, x, c = perceptron(), normal(BATCH, FEATURES), 3.0
    Q = torch.linalg.qr(normal(FEATURES, FEATURES, seed=4)).Q
    options: dict[str, Any] = {"d_y": "l2_logits", "epsilon_min": 0.1, "epsilon_max": 1.0, "xi": 0.5}
    wider = options | {key: c * options[key] for key in ("epsilon_min", "epsilon_max", "xi")}

    def holds() -> None:
        quotient = measured(f, x, **options)[1].quotient
        torch.testing.assert_close(measured(lambda v: c * f(v), x, **options)[1].quotient, c * quotient)
        torch.testing.assert_close(measured(lambda v: f(v / c), c * x, **wider)[1].quotient, quotient / c)
        isometry = measured(lambda v: v @ Q.T, x, **options)[1].quotient
        torch.testing.assert_close(isometry, torch.ones(BATCH, dtype=torch.float64))

    holds()
    fails(holds, lipschitz_penalty=penalising(d_x="one"))
    fails(holds, adversarial_neighbour=searching(xi=0.5, epsilon_min=0.1, epsilon_max=1.0))
    fails(holds, lipschitz_penalty=penalising(d_y="l2_probs"))
