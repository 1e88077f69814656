"""The last layer as a generalised linear model: its regulariser, its ellipsoid, and the corollary."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.networks import mlp
from vicinal.theory import (
    Ellipsoid,
    ScalingName,
    Trained,
    feature_law,
    generalisation_bound,
    glm_rademacher_bound,
    glm_regulariser,
    softmax_regulariser,
)
from vicinal.theory.generalising import (
    LastLayer,
    complexity_figures,
    corollary_figures,
    regulariser_figures,
)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(
    classes: int = 2, hidden: tuple[int, ...] = (), n: int = 60, features: int = 5, more: Tensor | None = None
) -> LastLayer:
    """The last layer of a fresh network, ``more`` added to its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = mlp((features,), classes, hidden=hidden).double()
    if more is not None:
        assert isinstance(network.head, nn.Linear)
        network.head.weight.data += more
    x = draws(n, features)
    return LastLayer(Trained(network, x - x.mean(dim=0) + 0.3, torch.arange(n) % classes))


@pytest.mark.parametrize("scaling", ["mean", "lambda"])
def test_the_regulariser_of_two_logits_is_that_of_one(scaling: ScalingName) -> None:
    x, theta, common = draws(40, 5), draws(5, seed=1), draws(5, seed=2)
    x = x - x.mean(dim=0)
    z = torch.stack([x @ common, x @ (common + theta)], dim=1)
    one = glm_regulariser(theta, x, 4.0, scaling=scaling)
    torch.testing.assert_close(softmax_regulariser(z, z, 4.0, scaling=scaling), one)
    off = softmax_regulariser(z, z * torch.tensor([1.0, 2.0]), 4.0, scaling=scaling)  # the control
    assert abs(float(off - one)) > 0.1 * float(one)


def residual(t: float, part: float = 1.0) -> float:
    """What the regulariser leaves of the loss of three rescaled logits, mixed over 20000 random draws by t."""
    z, alpha = draws(6, 3, seed=7) * 2, 3.0
    z = z - z.mean(dim=0)
    lam = torch.distributions.Beta(alpha + 1, alpha)
    nodes = torch.linspace(0, 1, 4001, dtype=torch.float64)[1:-1]
    weight = lam.log_prob(nodes).exp()
    weight = weight / weight.sum()
    mean = float((weight * nodes).sum())
    moved = ((nodes - mean)[:, None, None, None] * z[:, None] + (1 - nodes)[:, None, None, None] * z) / mean
    mixed = (z[:, None] + t * moved).logsumexp(dim=-1) - z.logsumexp(dim=1)[:, None]
    change = float(weight @ mixed.mean(dim=(1, 2)))
    return abs(change - part * t**2 * float(softmax_regulariser(z, z, alpha)))


def test_the_regulariser_of_several_logits_is_the_second_order_term() -> None:
    assert math.log2(residual(1 / 8) / residual(1 / 16)) > 2.7
    assert math.log2(residual(1 / 8, 0.9) / residual(1 / 16, 0.9)) < 2.5  # the control


def test_kappa_divided_by_lambda_is_none_for_the_usual_alpha() -> None:
    made = layer(3)
    assert regulariser_figures(made, 1.0)["lambda"] == {"own": 0, "others": None, "value": None}
    assert regulariser_figures(made, 4.0)["lambda"]["others"] == pytest.approx(5 / 3)
    assert regulariser_figures(made, 4.0)["lambda"]["value"] > regulariser_figures(made, 4.0)["mean"]["value"] > 0


@pytest.mark.parametrize(("classes", "hidden"), [(2, ()), (4, ()), (2, (12,)), (3, (12,))])
def test_the_ellipsoid_holds_the_layer(classes: int, hidden: tuple[int, ...]) -> None:
    made = layer(classes, hidden)
    found = complexity_figures(made, seed=0)
    deviations = made.centred @ made.rows.T
    assert found["gamma"] == pytest.approx(float(deviations.square().mean(dim=0).max()))
    assert found["estimate"] <= found["bound"] + 3 * found["standard_error"]
    assert found["estimate"] > 0.8 * found["bound"]
    assert found["bound"] == pytest.approx(math.sqrt(found["gamma"] * found["rank"] / 60))
    assert (found["glm"] is None) == (classes > 2)
    signs = torch.ones(1, 60, dtype=torch.float64)
    signs[:, ::2] = -1
    best = float(made.ellipsoid.supremum(made.centred, signs))
    assert all(abs(float(value)) <= best + 1e-12 for value in (signs @ deviations / 60).flatten())


@pytest.mark.parametrize("classes", [2, 3])
def test_a_common_row_of_all_classes_costs_nothing(classes: int) -> None:
    """Softmax does not see it; a row of one class alone it does."""
    row = draws(1, 5, seed=3)
    plain, common = layer(classes), layer(classes, more=row.expand(classes, -1))
    alone = layer(classes, more=torch.cat([row, torch.zeros(classes - 1, 5)]))
    assert common.gamma == pytest.approx(plain.gamma)
    assert alone.gamma != pytest.approx(plain.gamma)
    assert regulariser_figures(common, 1.0)["mean"]["value"] == pytest.approx(
        regulariser_figures(plain, 1.0)["mean"]["value"]
    )


def test_what_rests_on_an_estimated_retention_is_not_called_a_bound() -> None:
    made = layer()
    complexity = complexity_figures(made, seed=0)
    assert "with_intercept" not in complexity
    assert set(complexity["glm"]) == {"gamma", "rho", "directions", "estimate"}
    assert "w_gamma" not in corollary_figures(made, 0.4, complexity, delta=0.05)


def test_fewer_examples_than_features() -> None:
    """The class on centred features is bounded, in the range of their covariance."""
    found = complexity_figures(layer(2, n=12, features=30), seed=0)
    assert found["rank"] == 11
    assert found["bound"] > 0


def test_retention_is_looked_for_at_the_layers_size() -> None:
    found = complexity_figures(layer(), seed=0)["glm"]
    assert 0 < found["rho"] <= 0.5
    assert found["estimate"] == pytest.approx(glm_rademacher_bound(found["gamma"], found["rho"], 5, 60))
    # W_gamma lies in the ellipsoid that retention gives it, which is no smaller than the layer's own.
    assert found["estimate"] >= complexity_figures(layer(), seed=0)["bound"] - 1e-12


def test_a_free_intercept_costs_a_factor_of_two() -> None:
    """A constant function beside the class doubles the bound at most: sup over both is at most the sum."""
    x = draws(50, 4)
    mean, covariance = feature_law(x)
    ball = Ellipsoid(covariance, 2.0)
    assert ball.rademacher_bound(50, mean, intercept=True) == 2 * ball.rademacher_bound(50, mean)


def test_the_corollary_by_hand() -> None:
    by_hand = 0.3 + 2 * 1.5 * 0.1 + 2.0 * math.sqrt(math.log(1 / 0.1) / 400)
    assert generalisation_bound(0.3, 0.1, 200, lipschitz=1.5, largest=2.0, delta=0.1) == pytest.approx(by_hand)
    made = layer()
    complexity = complexity_figures(made, seed=0)
    found = corollary_figures(made, 0.4, complexity, delta=0.05)
    assert found["ellipsoid"] <= found["w_gamma_estimate"]
    assert found["ellipsoid"] > 0.4 + 4 * complexity["bound"]
    assert "covariance of the inputs" in found["plugged_in"]
    losses = nn.functional.softplus((made.logits[:, 1] - made.logits[:, 0]).abs())
    assert found["largest"] >= float(losses.max())


@pytest.mark.parametrize("bad", [{"n": 0}, {"largest": -1.0}, {"delta": 0.0}, {"delta": 1.5}])
def test_bad_bounds(bad: dict[str, float]) -> None:
    arguments = {"loss": 0.1, "complexity": 0.1, "n": 10, "largest": 1.0, **bad}
    with pytest.raises(InputError):
        generalisation_bound(**arguments)  # type: ignore[arg-type]


def test_a_network_without_features() -> None:
    with pytest.raises(InputError, match="no linear one"):
        LastLayer(Trained(nn.Linear(3, 2), draws(5, 3), torch.zeros(5, dtype=torch.int64)))
