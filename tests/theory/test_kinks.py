"""Kinks that no layer gives away."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.theory import Trained, check_assumptions


class Functional(nn.Module):
    """Linear, kinked or not, linear, softplus, linear: no layer tells, and the Hessian is not 0."""

    def __init__(self, kink: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.kink, self.layers = kink, nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)])

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.layers
        found: Tensor = third(F.softplus(second(self.kink(first(x)))))
        return found


@pytest.mark.parametrize(
    ("kink", "smooth"),
    [
        (F.relu, False),
        (lambda x: F.leaky_relu(x, 0.9), False),
        (torch.abs, False),
        (lambda x: x.clamp(max=0.3), False),
        (torch.tanh, True),
        (F.gelu, True),
        (lambda x: F.softplus(x, beta=100), True),  # steep, and yet no kink
        (lambda x: x, True),
    ],
    ids=["relu", "leaky", "abs", "clamp", "tanh", "gelu", "steep", "none"],
)
def test_kinks_between_curved_parts_are_seen_along_chords(kink: Callable[[Tensor], Tensor], smooth: bool) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = Functional(kink)
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, _ = check_assumptions(Trained(network, x, torch.arange(24) % 2), 1.0)
    made = found["twice_differentiable"]
    assert not found["flat"].holds  # the Hessian does not tell
    assert made.holds == smooth
    said = "no kinked layer found, gradients continuous along 24 chords" if smooth else "the gradient jumps on"
    assert said in made.says
