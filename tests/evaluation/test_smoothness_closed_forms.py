"""Smoothness of quadratics in closed form; and that no linearity error is above what Lipschitz bounds allow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vicinal.evaluation import Steepness, jacobian_norm, lipschitz_bound, lipschitz_quotients, local_linearity

EPSILONS = (0.02, 0.1, 0.4)
# PyTorch scripts some decompositions when forward-mode differentiation is first used, which it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points() -> list[tuple[Tensor, Tensor]]:
    x = torch.randn(40, 6, generator=seeded(3), dtype=torch.float64)
    return [(part, torch.zeros(len(part), dtype=torch.int64)) for part in x.split(16)]


class Quadratic(nn.Module):
    """Two classes, the first with log-probability -x^T Q x / 2 - 9: its cross-entropy is a quadratic in x."""

    def __init__(self, q: Tensor) -> None:
        super().__init__()
        self.q = q

    def forward(self, x: Tensor) -> Tensor:
        log_p = -((x @ self.q) * x).sum(dim=1) / 2 - 9
        return torch.stack([log_p, torch.log1p(-log_p.exp())], dim=1)


def test_gamma_of_a_quadratic_loss_is_its_largest_value_on_the_ball() -> None:
    """max |d^T Q d| / 2, the same at all points: of a convex one it is at a corner of the cube."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 6)
    root = torch.randn(6, 6, generator=seeded(5), dtype=torch.float64)
    x = torch.cat([x for x, _ in points()])
    for q, attained in ((torch.diag(torch.arange(6.0) + 1).double(), 1.0), (root @ root.T, 0.9)):
        exact = float((((corners @ q) * corners).sum(dim=1) / 2).max())
        for scale in (1.0, 7.0):
            found = local_linearity(Quadratic(scale * q / 50), points(), epsilons=EPSILONS, seed=0)
            for result, epsilon in zip(found, EPSILONS, strict=True):
                closed = scale * epsilon**2 * exact / 50
                assert attained * closed * (1 - 1e-9) <= result.gamma <= closed * (1 + 1e-9)
                slope = epsilon * float((scale * x @ q / 50).abs().sum(dim=1).mean())
                assert result.slope == pytest.approx(slope)


class Bowl(nn.Module):
    """x -> (x^T Q x / 2, 0)."""

    def __init__(self, q: Tensor) -> None:
        super().__init__()
        self.q = q

    def forward(self, x: Tensor) -> Tensor:
        value = ((x @ self.q) * x).sum(dim=1) / 2
        return torch.stack([value, 0 * value], dim=1)


def test_quadratics_are_as_steep_as_their_gradient() -> None:
    """|Q x|; with Q = q I steps of length e go straight out or in, q (|x| + e / 2) or q (|x| - e / 2)."""
    x = torch.cat([x for x, _ in points()])
    q = torch.diag(torch.tensor([-3.0, 2, 1, 1, 0.5, 0.1])).double()
    exact = (x @ q).norm(dim=1)
    found = jacobian_norm(Bowl(q), points(), iterations=1, starts=1, seed=0)  # of one row: one step is enough
    assert found == Steepness(40, pytest.approx(float(exact.mean())), pytest.approx(float(exact.max())))
    bowl = Bowl(3 * torch.eye(6).double())
    for row in x[:5]:
        single = [(row[None], torch.tensor([0]))]
        quotient = lipschitz_quotients(bowl, single, epsilon=0.1, iterations=40, seed=0).largest
        assert min(abs(quotient - 3 * (float(row.norm()) + half)) for half in (0.05, -0.05)) < 1e-6


def test_the_linearity_error_is_at_most_what_lipschitz_bounds_allow_on_300_random_networks() -> None:
    """gamma <= Lip(grad l) e^2 d / 2, and the slope term <= Lip(l) e sqrt(d).

    Of the cross-entropy by the logits, the gradient is at most sqrt(2) long and the Hessian's norm at most 1 / 2, so
    Lip(l) <= sqrt(2) Lip(f) and Lip(grad l) <= sqrt(2) Lip(J) + Lip(f)^2 / 2. The control leaves the first layer's
    norm out, and is no bound.
    """
    ratios, slopes, broken = [], [], 0
    for seed in range(300):
        draws = seeded(seed)
        first, last = (nn.utils.skip_init(nn.Linear, *sizes).double() for sizes in ((2, 5), (5, 2)))
        for layer, scale in ((first, 2.0), (last, 0.7)):
            layer.weight.data = scale * torch.randn(layer.weight.shape, generator=draws, dtype=torch.float64)
            layer.bias.data = 0.5 * torch.randn(layer.bias.shape, generator=draws, dtype=torch.float64)
        network = nn.Sequential(first, nn.Tanh(), last)
        batch = (0.3 * torch.randn(8, 2, generator=draws, dtype=torch.float64), torch.arange(8) % 2)
        (found,) = local_linearity(network, [batch], epsilons=[0.1], steps=3, starts=2, seed=seed)
        whole, rest = lipschitz_bound(network, (2,)), lipschitz_bound(network[1:], (5,))
        bound, control = ((2**0.5 * of.gradient + of.lipschitz**2 / 2) * 2 * 0.1**2 / 2 for of in (whole, rest))
        ratios.append(found.gamma / bound)
        slopes.append(found.slope / (2**0.5 * whole.lipschitz * 0.1 * 2**0.5))
        broken += found.gamma > control
    assert max(*ratios, *slopes) <= 1
    assert min(sum(ratios), sum(slopes)) / 300 > 0.03  # no vacuous bounds either
    assert broken > 100
