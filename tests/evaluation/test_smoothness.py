"""Local linearity, adversarial quotients and Jacobian norms against closed forms; what scales and what bounds what."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.evaluation import (
    LocalLinearity,
    Steepness,
    jacobian_norm,
    lipschitz_quotients,
    local_linearity,
    smoothness,
)
from vicinal.networks import small_cnn
from vicinal.vicinity.lipschitz import OutputMetric

Untouched = Callable[[nn.Module], AbstractContextManager[None]]
Batches = list[tuple[Tensor, Tensor]]
EPSILONS = (0.02, 0.1, 0.4)
# PyTorch scripts some decompositions when forward-mode differentiation is first used, which it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def affine(classes: int = 4, scale: float = 1.0) -> nn.Linear:
    """x -> scale (W x + b), float64, 6 inputs, no two singular values close to each other."""
    made = nn.Linear(6, classes).double()
    u, _, v = torch.linalg.svd(torch.randn(classes, 6, generator=seeded(1), dtype=torch.float64), full_matrices=False)
    made.weight.data = scale * u @ torch.diag(torch.linspace(1, 3, classes).double()) @ v
    made.bias.data = scale * torch.randn(classes, generator=seeded(2), dtype=torch.float64)
    return made


def points(classes: int = 4, n: int = 40) -> Batches:
    x = torch.randn(n, 6, generator=seeded(3), dtype=torch.float64)
    return list(zip(x.split(16), (torch.arange(n) % classes).split(16), strict=True))


class Scaled(nn.Module):
    """A network whose logits are multiplied."""

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.factor * self.network(x)
        return found


class LogLinear(nn.Module):
    """Two classes, the first with log-probability w^T x - c < 0: its cross-entropy is linear in x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.3, -0.2, 0.1, 0.4, 0.0, -0.5]).double())

    def forward(self, x: Tensor) -> Tensor:
        log_p = x @ self.w - 9
        return torch.stack([log_p, torch.log1p(-log_p.exp())], dim=1)


def logistic_gammas(epsilon: float) -> tuple[Tensor, float, float]:
    """Closed form of gamma for each point of a logistic model, its bound, and mean epsilon ||grad||_1.

    Along t = delta^T theta the loss is softplus(u + t) with u the log odds against the true class, convex, so the
    distance from its tangent is largest at one of the ends t = +-epsilon ||theta||_1.
    """
    network = affine(2)
    theta, offset = (p[1] - p[0] for p in (network.weight.detach(), network.bias.detach()))
    x, y = (torch.cat(parts) for parts in zip(*points(2), strict=True))
    u = (1 - 2 * y) * (x @ theta + offset)
    reach = epsilon * theta.abs().sum()
    ends = [F.softplus(u + t) - F.softplus(u) - t * u.sigmoid() for t in (reach, -reach)]
    return torch.maximum(*ends), float(reach**2 / 8), float((u.sigmoid() * reach).mean())


def test_gamma_of_a_logistic_model_is_its_closed_form() -> None:
    found = local_linearity(affine(2), points(2), epsilons=EPSILONS, seed=0)
    for result, epsilon in zip(found, EPSILONS, strict=True):
        gammas, bound, slope = logistic_gammas(epsilon)
        assert result.n == 40
        assert result.epsilon == epsilon
        assert result.gamma == pytest.approx(float(gammas.mean()), rel=1e-9)
        assert result.slope == pytest.approx(slope, rel=1e-9)
        assert float(gammas.max()) <= bound


@pytest.mark.parametrize("wrong", ["zero start", "one start", "one step"])
def test_a_weaker_search_stays_below_it(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From zero the ascent never moves; from one side it sees one end."""
    if wrong == "zero start":
        monkeypatch.setattr(smoothness, "random_start", lambda x, *_: torch.zeros_like(x))
    settings = {"one start": {"starts": 1}, "one step": {"steps": 1, "starts": 1}}.get(wrong, {})
    (found,) = local_linearity(affine(2), points(2), epsilons=[0.4], seed=0, **settings)
    expected = float(logistic_gammas(0.4)[0].mean())
    assert found.gamma < 0.999 * expected
    assert (found.gamma < 1e-12) is (wrong == "zero start")


def test_a_linear_loss_has_none() -> None:
    """And all of its slope."""
    batches = [(x, torch.zeros_like(y)) for x, y in points()]
    found = local_linearity(LogLinear(), batches, epsilons=EPSILONS, seed=0)
    for result, epsilon in zip(found, EPSILONS, strict=True):
        assert result.gamma < 1e-13
        assert result.slope == pytest.approx(epsilon * 1.5)
    in_float32 = local_linearity(LogLinear().float(), [(x.float(), y) for x, y in batches], epsilons=EPSILONS, seed=0)
    assert max(result.gamma for result in in_float32) < 1e-5
    curved = local_linearity(LogLinear(), [(x, 1 - y) for x, y in batches], epsilons=EPSILONS, seed=0)
    assert min(result.gamma for result in curved) > 1e-9


def test_a_radius_of_zero_has_no_error_and_larger_ones_have_more(trained: nn.Module, digits: Any) -> None:
    found = local_linearity(trained, digits, epsilons=[0, 0.01, 0.05, 0.2], steps=6, seed=0)
    assert found[0] == LocalLinearity(300, 0, 0.0, 0.0)
    gammas = [result.gamma for result in found]
    assert gammas == sorted(gammas)
    assert gammas[-1] > 0.01
    more = local_linearity(trained, digits, epsilons=[0.05], steps=6, starts=5, seed=0)
    assert more[0].gamma >= found[2].gamma  # the first three starts are the same


def test_affine_networks_have_the_norm_of_their_matrix() -> None:
    network, sigma = affine(), float(torch.linalg.matrix_norm(affine().weight.detach(), 2))
    assert sigma == pytest.approx(3)
    jacobian = jacobian_norm(network, points(), seed=0)
    assert jacobian == Steepness(40, pytest.approx(sigma, abs=1e-6), pytest.approx(sigma, abs=1e-6))
    quotient = lipschitz_quotients(network, points(), epsilon=0.5, iterations=40, seed=0)
    assert quotient == Steepness(40, pytest.approx(sigma, abs=1e-6), pytest.approx(sigma, abs=1e-6))
    # In float32 too; and lower estimates, better with each iteration.
    single = [(x.float(), y) for x, y in points()]
    assert jacobian_norm(affine().float(), single, seed=0).mean == pytest.approx(sigma, rel=1e-5)
    few = [lipschitz_quotients(network, points(), epsilon=0.5, iterations=k, seed=0) for k in (0, 1, 2, 5)]
    assert [result.mean for result in few] == sorted(result.mean for result in few)
    assert few[0].mean < 0.9 * sigma
    assert max(result.largest for result in few) <= sigma * (1 + 1e-9)
    assert jacobian_norm(network, points(), iterations=1, starts=1, seed=0).mean < 0.99 * sigma


@pytest.mark.parametrize("layer", [nn.SiLU(), nn.GELU(), nn.Tanh(), nn.Softplus(), nn.ELU(), nn.LeakyReLU(0.1)])
def test_jacobian_norms_exist_for_every_activation(layer: nn.Module) -> None:
    """SiLU has a forward mode, but its backward pass has none."""
    network = nn.Sequential(affine(6), layer, affine())
    x, y = points()[0]
    rows = [torch.autograd.functional.jacobian(network, row[None]).reshape(4, 6) for row in x]
    exact = float(torch.linalg.matrix_norm(torch.stack(rows), 2).mean())
    assert jacobian_norm(network, [(x, y)], iterations=60, seed=0).mean == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("factor", [1e-12, 3.0, 1e6])
def test_scaled_networks_scale_what_is_measured(factor: float, trained: nn.Module, digits: Any) -> None:
    """f -> c f. KL is not on this list: it is no distance of the logits."""
    for network, batches in ((affine(), points()), (trained, digits[:1])):
        for measure in (
            lambda f, b: jacobian_norm(f, b, iterations=3, seed=0),
            lambda f, b: lipschitz_quotients(f, b, epsilon=0.3, iterations=3, seed=0),
        ):
            plain, scaled = measure(network, batches), measure(Scaled(network, factor), batches)
            assert scaled.mean == pytest.approx(factor * plain.mean, rel=1e-4)
            assert scaled.largest == pytest.approx(factor * plain.largest, rel=1e-4)
            assert plain.largest > plain.mean or isinstance(network, nn.Linear)


def fisher(network: nn.Linear, x: Tensor) -> Tensor:
    """Largest eigenvalue of W^T (diag p - p p^T) W at each input."""
    p = network(x).detach().softmax(dim=1)
    matrix = network.weight.detach().T @ (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) @ network.weight.detach()
    return torch.linalg.eigvalsh(matrix)[:, -1]


@pytest.mark.parametrize("epsilon", [1e-2, 1e-3])
def test_small_steps_in_kl_see_the_fisher_metric(epsilon: float) -> None:
    """sqrt(2 KL) / ||r|| tends to sqrt(lambda_max), KL / ||r|| to epsilon lambda_max / 2, that is to nothing."""
    top = torch.cat([fisher(affine(), x) for x, _ in points()])
    rooted = lipschitz_quotients(affine(), points(), d_y="sqrt_2kl", epsilon=epsilon, iterations=60, seed=0)
    plain = lipschitz_quotients(affine(), points(), d_y="kl", epsilon=epsilon, iterations=60, seed=0)
    assert rooted.mean == pytest.approx(float(top.sqrt().mean()), rel=3 * epsilon)
    assert rooted.largest == pytest.approx(float(top.max().sqrt()), rel=3 * epsilon)
    assert plain.mean == pytest.approx(epsilon / 2 * float(top.mean()), rel=3 * epsilon)


def test_jacobian_norms_are_those_of_the_explicit_jacobian(digits: Any) -> None:
    """A convolutional network with batch norm, in eval mode; never above, and close after enough iterations."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = small_cnn((1, 8, 8), 10, widths=[4, 8])
    network(digits[0][0])  # running statistics away from their start
    # Noise, for in flat regions max pooling has ties, where one side's slope is not the other's.
    x = digits[0][0][:12].double() + 0.1 * torch.rand(12, 1, 8, 8, generator=seeded(), dtype=torch.float64)
    y = digits[0][1][:12]
    found = jacobian_norm(network.double(), [(x, y)], iterations=40, seed=0)
    network.eval()
    rows = [torch.autograd.functional.jacobian(network, x[i : i + 1]).reshape(10, -1) for i in range(12)]
    exact = torch.linalg.matrix_norm(torch.stack(rows), 2)
    assert found.mean == pytest.approx(float(exact.mean()), rel=1e-4)
    assert found.largest <= float(exact.max()) * (1 + 1e-9)
    one = jacobian_norm(network, [(x, y)], iterations=1, starts=1, seed=0)
    assert one.mean < 0.99 * float(exact.mean())
    # Quotients over small steps cannot be larger either, and come close.
    quotient = lipschitz_quotients(network, [(x, y)], epsilon=1e-6, iterations=40, seed=0)
    assert quotient.mean == pytest.approx(float(exact.mean()), rel=1e-3)


@pytest.mark.parametrize("d_y", ["l2_logits", "l2_probs", "sqrt_2kl", "kl"])
def test_adversarial_steps_are_steeper_than_random_ones(d_y: OutputMetric, trained: nn.Module, digits: Any) -> None:
    searched, random = (
        lipschitz_quotients(trained, digits, d_y=d_y, epsilon=0.5, iterations=k, seed=0) for k in (5, 0)
    )
    assert searched.mean > 1.5 * random.mean
    assert searched.n == 300
    assert all(type(value) in (int, float) for value in vars(searched).values())


MEASURES: list[Callable[[nn.Module, Batches, int], Any]] = [
    lambda f, b, seed: local_linearity(f, b, epsilons=[0.1], steps=2, seed=seed),
    lambda f, b, seed: lipschitz_quotients(f, b, epsilon=0.1, iterations=1, seed=seed),
    lambda f, b, seed: jacobian_norm(f, b, iterations=1, seed=seed),
]


@pytest.mark.parametrize("measure", MEASURES)
def test_nothing_is_left_behind_and_the_seed_decides(
    measure: Callable[[nn.Module, Batches, int], Any], trained: nn.Module, digits: Any, untouched: Untouched
) -> None:
    with untouched(trained), torch.no_grad():
        first = measure(trained, digits, 0)
    torch.rand(1)
    assert measure(trained, digits, 0) == first
    assert measure(trained, digits, 1) != first
    with pytest.raises(InputError, match="no examples"):
        measure(trained, [], 0)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda f, b: local_linearity(f, b, epsilons=[0.1], steps=0, seed=0), "steps must be at least 1"),
        (lambda f, b: local_linearity(f, b, epsilons=[0.1], starts=0, seed=0), "starts must be at least 1"),
        (lambda f, b: local_linearity(f, b, epsilons=[0.1, -1], seed=0), "epsilons must be at least 0"),
        (lambda f, b: lipschitz_quotients(f, b, epsilon=0, seed=0), "epsilon must be greater than 0"),
        (lambda f, b: lipschitz_quotients(f, b, epsilon=1, d_y="l2", seed=0), "d_y: unknown"),
        (lambda f, b: jacobian_norm(f, b, iterations=0, seed=0), "iterations must be at least 1"),
        (lambda f, b: jacobian_norm(f, b, starts=0, seed=0), "starts must be at least 1"),
    ],
)
def test_bad_settings_are_one_clear_line(measure: Callable[[nn.Module, Batches], Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        measure(affine(), points())
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
