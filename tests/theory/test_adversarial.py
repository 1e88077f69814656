"""Mixup against the adversarial loss: the inequalities on random problems, and problems on which they have to fail.

The random problems are 300 (networks 120), a tenth of what the figures quoted for the controls were measured on, so
that a test takes less than two seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.data import load
from vicinal.errors import InputError
from vicinal.settings import Choice
from vicinal.theory import (
    GAUSSIAN,
    LOGISTIC,
    adv_surrogate,
    exact_logistic_bound,
    logistic_adversarial_loss,
    mixup_loss_exact,
    mixup_moments,
    mixup_radius,
    pgd_loss,
    surrogate_bound,
)
from vicinal.theory.exact import Family, Function

PROBLEMS, NETWORKS = 300, 120


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problems(kind: str, count: int = PROBLEMS) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
    """theta, x, y, alpha of random logistic regressions with anisotropic data.

    Kinds: "plain": centred, and all examples on the right side; "off centre"; "random labels": centred.
    """
    draw = torch.Generator().manual_seed(0)

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=draw))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    for _ in range(count):
        n, d = integer(4, 40), integer(1, 30)
        x = normal(n, d) * normal(d).exp()
        x = x - x.mean(dim=0)
        if kind == "off centre":
            x = x + normal(d)
        theta = normal(d) * normal(1).exp() / d**0.5
        y = (x @ theta > 0).double() if kind != "random labels" else (normal(n) > 0).double()
        yield theta, x, y, float(normal(1).exp())


def linear(theta: Tensor) -> Function:
    return lambda x: x @ theta


def share(violated: Sequence[bool]) -> float:
    return sum(violated) / len(violated)


def surrogate_gaps(kind: str) -> tuple[list[float], list[float]]:
    """Slack of the first and of the second inequality of the surrogate's bound."""
    found = [surrogate_bound(linear(theta), x, y, alpha) for theta, x, y, alpha in problems(kind)]
    return [b.approximation - b.surrogate for b in found], [b.surrogate - b.surrogate_mix for b in found]


def test_t05_the_expansion_bounds_the_surrogate() -> None:
    each, smallest = surrogate_gaps("plain")
    assert min(each) >= -1e-9
    assert min(smallest) >= -1e-9


@pytest.mark.parametrize("kind", ["off centre", "random labels"])
def test_t06_without_its_assumptions_it_does_not(kind: str) -> None:
    each, _ = surrogate_gaps(kind)
    assert share([gap < -1e-9 for gap in each]) > 0.05


def exact_gaps(kind: str) -> list[float]:
    found = [exact_logistic_bound(theta, x, y, alpha) for theta, x, y, alpha in problems(kind)]
    assert min(bound.mixup - bound.jensen for bound in found) >= -1e-10, "Jensen's inequality needs no assumption"
    return [bound.mixup - bound.adversarial for bound in found]


def test_t07_the_mixup_loss_bounds_the_true_adversarial_loss() -> None:
    assert min(exact_gaps("plain")) >= -1e-10


@pytest.mark.parametrize("kind", ["off centre", "random labels"])
def test_t07_control(kind: str) -> None:
    assert share([gap < -1e-10 for gap in exact_gaps(kind)]) > 0.05


def test_radii_and_adversarial_loss_of_the_exact_bound() -> None:
    """On the right side the bound is the loss at the shrunk margins, at radii above those of the surrogate."""
    for theta, x, y, alpha in problems("plain", 20):
        bound, radii = exact_logistic_bound(theta, x, y, alpha), mixup_radius(linear(theta), x, y, alpha)
        margin = (2 * y - 1) * (x @ theta)
        shrunk = F.softplus(-(1 - mixup_moments(alpha).m1) * margin, threshold=1000).mean()
        assert bound.adversarial == pytest.approx(float(shrunk), abs=1e-12)
        assert bound.jensen == pytest.approx(bound.adversarial, abs=1e-12)
        assert bool((bound.l2 >= radii.l2 - 1e-12).all())
        assert radii.assumptions.hold
        exact = logistic_adversarial_loss(theta, x, y, radii.l2)
        assert bool((adv_surrogate(linear(theta), x, y, radii.l2) <= exact + 1e-12).all())


def relu_net(seed: int, d: int, depth: int, bias: bool) -> Function:
    weights = [draws(12, d if layer == 0 else 12, seed=97 * seed + layer) for layer in range(depth)]
    shifts = [float(bias) * draws(12, seed=97 * seed + 20 + layer) for layer in range(depth)]
    head = draws(12, seed=97 * seed + 40)

    def net(x: Tensor) -> Tensor:
        for weight, shift in zip(weights, shifts, strict=True):
            x = (x @ weight.T / 4 + shift).relu()
        return x @ head

    return net


def network_problems(bias: bool) -> Iterator[tuple[Function, Tensor, Tensor]]:
    for seed in range(NETWORKS):
        n, d = 5 + seed % 16, 1 + seed % 9
        x = draws(n, d, seed=seed)
        x = x - x.mean(dim=0)
        f = relu_net(seed, d, 1 + seed % 3, bias)
        yield f, x, (f(x) > 0).double()


def test_t08_networks_without_biases(record_property: Callable[[str, object], None]) -> None:
    below = []
    for index, (f, x, y) in enumerate(network_problems(bias=False)):
        bound = surrogate_bound(f, x, y, 1.0)
        assert bound.radii.assumptions.homogeneity_error < 1e-10
        assert bound.radii.assumptions.hold
        assert bound.approximation - bound.surrogate >= -1e-9
        assert bound.surrogate - bound.surrogate_mix >= -1e-9
        if index % 6 == 0:
            attacked = float(pgd_loss(f, x, y, bound.radii.l2).mean())
            below.append(float(mixup_loss_exact(f, x, y, 1.0)) < attacked)
    # Reported and not asserted: there is no exact statement for networks.
    record_property("true mixup loss below the attacked one", share(below))


def test_t08_control_with_biases() -> None:
    violated = []
    for f, x, y in network_problems(bias=True):
        bound = surrogate_bound(f, x, y, 1.0)
        assert not bound.radii.assumptions.homogeneous
        violated.append(bound.approximation - bound.surrogate < -1e-9)
    assert share(violated) > 0.05


@pytest.fixture(scope="module")
def pairs_of_digits() -> tuple[Tensor, Tensor]:
    """Sixty images of zeros and ones, centred, and which is which."""
    train = load(Choice("digits", {})).train
    rows = (train.y < 2).nonzero()[:60, 0]
    x = train.x[rows].double()
    return x - x.mean(dim=0), train.y[rows].double()


def convolutional(norm: bool) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        layers = [nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2)]
        if norm:
            layers.insert(1, nn.BatchNorm2d(8))
        made = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 1, bias=False), nn.Flatten(0))
    return made.double()


def trained(network: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        LOGISTIC(network(x), y).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


def test_t09_a_trained_convolutional_network(pairs_of_digits: tuple[Tensor, Tensor]) -> None:
    x, y = pairs_of_digits
    bound = surrogate_bound(trained(convolutional(norm=False), x, y), x, y, 1.0)
    assert bound.radii.assumptions.hold
    assert bound.radii.assumptions.failing == ()
    assert bound.radii.assumptions.homogeneity_error < 1e-10
    assert bound.approximation >= bound.surrogate - 1e-9
    assert bound.surrogate >= bound.surrogate_mix - 1e-9
    assert 0 < bound.radii.eps_mix == float(bound.radii.eps.min())


def test_t09_control_batch_norm_is_flagged(pairs_of_digits: tuple[Tensor, Tensor]) -> None:
    x, y = pairs_of_digits
    network = trained(convolutional(norm=True), x, y)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assumptions = mixup_radius(network, x, y, 1.0).assumptions
    assert not assumptions.homogeneous
    assert not assumptions.hold
    assert [reason[:22] for reason in assumptions.failing] == ["f is not homogeneous ("]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("broken", "f", "x", "y"),
    [
        ("centred", linear(draws(5)), lambda x: x + 0.1, lambda f: (f > 0).double()),
        ("theta_in_theta", linear(draws(5)), lambda x: x, lambda f: (f < 0).double()),
        ("homogeneous", lambda x: x @ draws(5) + 1, lambda x: x, lambda f: (f > 0).double()),
        ("flat", lambda x: x.norm(dim=1) * draws(5).norm(), lambda x: x, lambda f: (f > 0).double()),
    ],
)
def test_each_assumption_is_seen_to_fail(broken: str, f: Function, x: Function, y: Function) -> None:
    inputs = draws(20, 5, seed=1)
    inputs = x(inputs - inputs.mean(dim=0))
    assumptions = mixup_radius(f, inputs, y(f(inputs)), 1.0).assumptions
    names = ("centred", "theta_in_theta", "homogeneous", "flat")
    assert [name for name in names if not getattr(assumptions, name)] == [broken]
    assert len(assumptions.failing) == 1


def test_radii_are_the_cosines_times_the_smallest_norm() -> None:
    x, theta = draws(20, 5, seed=1), draws(5)
    x = x - x.mean(dim=0)
    radii = mixup_radius(linear(theta), x, (x @ theta > 0).double(), 2.0)
    cosine = F.cosine_similarity(x, theta.expand_as(x)).abs()
    torch.testing.assert_close(radii.cosine, cosine)
    torch.testing.assert_close(radii.l2, cosine * float(x.norm(dim=1).min()) * 0.4)
    assert radii.l2_mix == pytest.approx(float(radii.l2.min()))
    assert mixup_radius(linear(theta), x, (x @ theta > 0).double(), 2.0, c_x=0.1).eps_mix < radii.eps_mix


@pytest.mark.parametrize("family", [LOGISTIC, GAUSSIAN], ids=lambda family: family.name)
def test_the_surrogate_is_the_loss_to_second_order(family: Family) -> None:
    """Towards the worst side of a linear model: exact for the quadratic family, and with an error of eta^3 else."""
    x, theta, y = draws(20, 5, seed=1), draws(5), draws(20, seed=2)

    def error(eta: float) -> float:
        sign = (family.first(x @ theta) - y).sign()
        truth = family(x @ theta + sign * eta * theta.norm(), y)
        return float((adv_surrogate(linear(theta), x, y, eta, family=family) - truth).abs().max())

    assert error(0.01) < (1e-6 if family is LOGISTIC else 1e-13)
    if family is LOGISTIC:
        assert 6 < error(0.01) / error(0.005) < 10


def test_the_attack_finds_the_closed_form_of_a_linear_model() -> None:
    theta, x, y = draws(5), draws(20, 5, seed=1), (draws(20, seed=2) > 0).double()
    eta = torch.linspace(0, 2, 20, dtype=torch.float64)
    exact = logistic_adversarial_loss(theta, x, y, eta)
    torch.testing.assert_close(pgd_loss(linear(theta), x, y, eta), exact)
    assert torch.equal(pgd_loss(linear(theta), x, y, eta)[:1], LOGISTIC(x @ theta, y)[:1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, x, y: mixup_radius(f, x, y, 1.0, c_x=9.0), "c_x: 9 is above the smallest norm"),
        (lambda f, x, y: mixup_radius(f, x, y, 1.0, c_x=-1.0), "c_x must be at least 0"),
        (lambda f, x, y: mixup_radius(f, x, y, 0.0), "alpha must be greater than 0"),
        (lambda f, x, y: mixup_radius(lambda x: x[:, :2], x, y, 1.0), "f: expected one logit per example"),
        (lambda f, x, y: adv_surrogate(lambda x: x[:, 0].detach(), x, y, 0.1), "no gradient reaches the inputs"),
        (lambda f, x, y: pgd_loss(f, x, y, y, steps=0), "steps must be at least 1"),
    ],
)
def test_bad_input(call: Callable[[Function, Tensor, Tensor], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(linear(draws(5)), draws(8, 5), torch.ones(8))
