"""Figures of a network in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.evaluation import Figures, figures, probabilities


class Fixed(nn.Module):
    """Logits that are the inputs, over a temperature."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x / self.temperature


def test_figures_of_a_hand_computed_case() -> None:
    """Three predictions of 0.8, two of them right."""
    gap = math.log(4)
    batches = [
        (torch.tensor([[gap, 0.0], [0.0, gap]]), torch.tensor([0, 1])),
        (torch.tensor([[gap, 0]]), torch.ones(1).long()),
    ]
    found = figures(Fixed(), batches)
    nll = -(2 * math.log(0.8) + math.log(0.2)) / 3
    brier = (2 * 0.08 + 1.28) / 3
    expected = Figures(3, 1 / 3, nll, abs(0.8 - 2 / 3), brier, 0.8 - 2 / 3)
    for name in ("n", "error", "nll", "ece", "brier", "confidence_gap"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-7), name


def test_one_pass_per_batch_and_plain_numbers() -> None:
    network = Fixed()
    found = figures(network, iter([(torch.randn(4, 3), torch.zeros(4).long())] * 2))
    assert network.calls == 2
    assert [type(value) for value in vars(found).values()] == [int, *[float] * 5]


def test_temperature_changes_calibration_and_not_the_error() -> None:
    draws = torch.Generator().manual_seed(0)
    batch = 3 * torch.randn(200, 5, generator=draws), torch.randint(5, (200,), generator=draws)
    sharp, flat = figures(Fixed(0.1), [batch]), figures(Fixed(10.0), [batch])
    assert sharp.error == flat.error
    assert sharp.confidence_gap > 0.7
    assert flat.ece < 0.2 < sharp.ece
    assert flat.brier < sharp.brier


def test_eval_mode_and_no_trace(
    trained: nn.Module, digits: Any, untouched: Callable[[nn.Module], AbstractContextManager[None]]
) -> None:
    with untouched(trained):
        found = figures(trained, digits)
    p = probabilities(trained, [x for x, _ in digits])
    y = torch.cat([y for _, y in digits])
    assert found.error == pytest.approx(float((p.argmax(dim=1) != y).float().mean()), abs=1e-6)
    assert found.confidence_gap == pytest.approx(float(p.amax(dim=1).mean()) - 1 + found.error, abs=1e-6)
    assert found.error < 0.1


def test_no_examples_are_refused() -> None:
    with pytest.raises(InputError, match="no examples"):
        figures(Fixed(), [])
