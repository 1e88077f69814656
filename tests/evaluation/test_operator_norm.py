"""Norms of linear layers and of runs of them, against their explicit matrices; bounds for those too large for that."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from support.networks import drawn, seeded, used
from torch import Tensor, nn

from vicinal.evaluation import operator_norm
from vicinal.evaluation.lipschitz_bounds import lipschitz_bound
from vicinal.networks import ZCA, MeanOnlyBatchNorm, Normalise
from vicinal.networks.preprocess import Stack


def matrix(network: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """The Jacobian, outputs by inputs, at a random point."""
    x = torch.randn(1, *shape, generator=seeded(7), dtype=torch.float64)
    found: Tensor = torch.autograd.functional.jacobian(network.double().eval(), x)
    return found.reshape(-1, x.numel())


def norm(network: nn.Module, shape: tuple[int, ...]) -> float:
    return float(torch.linalg.matrix_norm(matrix(network, shape), 2))


def weight_normed() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3))


LINEAR: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (lambda: nn.Linear(6, 4), (6,)),
    (lambda: nn.Sequential(nn.Linear(6, 9), nn.Dropout(0.5), nn.Linear(9, 4)), (6,)),
    (lambda: nn.Conv1d(2, 3, 3, padding=1), (2, 7)),
    (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 5, 6)),
    (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False), (2, 6, 6)),
    (lambda: nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2), (4, 4, 4)),
    (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 5, 5)),
    (lambda: nn.ConvTranspose2d(3, 2, 4, stride=2, padding=1), (3, 4, 4)),
    (weight_normed, (2, 6, 6)),
    (lambda: nn.AvgPool2d(3, stride=1, padding=1), (2, 5, 5)),
    (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, 4, 4)),
    (lambda: nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6)), (5,)),
    (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 3)), (2, 5, 5)),
    (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), MeanOnlyBatchNorm(4)), (2, 5, 5)),
    (lambda: Normalise([0.5, 0.2], [0.25, 0.1]), (2, 4, 4)),
    (lambda: Stack(Normalise([0.5], [0.3]), ZCA(torch.rand(9), torch.randn(9, 9, generator=seeded()))), (1, 3, 3)),
]


@pytest.mark.parametrize(("make", "shape"), LINEAR)
def test_affine_networks_have_the_norm_of_their_explicit_matrix(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    """All of them so small that the Lanczos space is exhausted, so to rounding; folded maps count as one."""
    with drawn():
        network = used(make(), shape)
    bound = lipschitz_bound(network, shape)
    assert bound.lipschitz == pytest.approx(norm(network, shape), rel=1e-6)
    assert bound.lipschitz >= norm(network, shape)
    assert bound.gradient == 0
    assert (bound.n, bound.kind) == (0, "everywhere")
    assert all(type(value) in (int, float, str) for value in vars(bound).values())


def test_single_logits_have_the_length_of_their_row() -> None:
    with drawn():
        network = nn.Linear(6, 4).double()
    for logit, row in enumerate(network.weight.detach()):
        assert lipschitz_bound(network, (6,), logit=logit).lipschitz == pytest.approx(float(row.norm()), rel=1e-6)


def test_convolutions_are_taken_at_their_true_size_and_not_as_their_flattened_kernel() -> None:
    with drawn():
        layer = nn.Conv2d(2, 3, 3, padding=1)
    sizes = [lipschitz_bound(layer, (2, side, side)).lipschitz for side in (1, 2, 4, 8)]
    assert sizes == sorted(sizes)
    assert sizes[0] < 0.8 * sizes[-1]
    kernel = float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2))
    assert kernel < 0.9 * sizes[-1]  # so this would have been no bound


@pytest.mark.parametrize("tolerance", [0.1, 0.01])
def test_large_maps_are_bounded_within_the_tolerance(tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """768 inputs, and far fewer Lanczos steps; with two of them there would be no bound."""
    with drawn():
        layer = nn.Conv2d(3, 3, 5, padding=2).double()
    exact = norm(layer, (3, 16, 16))
    for seed in range(3):
        bound = lipschitz_bound(layer, (3, 16, 16), tolerance=tolerance, seed=seed)
        assert exact <= bound.lipschitz <= (1 + tolerance) * exact * (1 + 1e-9)
        assert bound.tolerance == tolerance
        assert bound.failure == operator_norm.FAILURE
    assert operator_norm._steps(768, tolerance) < 120
    assert operator_norm._steps(768, tolerance) < operator_norm._steps(768, tolerance / 2)
    monkeypatch.setattr(operator_norm, "_steps", lambda *_: 2)
    assert lipschitz_bound(layer, (3, 16, 16), tolerance=tolerance).lipschitz < exact


@pytest.mark.parametrize("row", [0, 299])
def test_a_column_that_is_no_number_has_no_bound(row: int) -> None:
    """In whichever block of columns it is."""
    matrix, zeros = torch.eye(300, dtype=torch.float64), torch.zeros(1, 300, dtype=torch.float64)
    assert operator_norm.longest_column(lambda x: x @ matrix, zeros) == pytest.approx(1)
    matrix[row] = math.nan
    assert operator_norm.longest_column(lambda x: x @ matrix, zeros) == math.inf
