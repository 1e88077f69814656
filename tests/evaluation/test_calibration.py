"""Calibration against a plain reference in exact arithmetic, known predictors, and merging."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from vicinal.errors import InputError
from vicinal.evaluation import Calibration, bin_sums, calibration


def reference(confidence: list[float], correct: list[bool], bins: int) -> tuple[list[list[float]], float]:
    """Bins on (k/M, (k+1)/M], the first with 0, compared as fractions; and the expected calibration error."""
    held: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for c, right in zip(confidence, correct, strict=True):
        (index,) = [k for k in range(bins) if Fraction(k, bins) < Fraction(c) <= Fraction(k + 1, bins)] or [0]
        held[index].append((c, right))
    sums = [
        [float(len(b)) for b in held],
        [sum(c for c, _ in b) for b in held],
        [float(sum(r for _, r in b)) for b in held],
    ]
    means = [(len(b), np.mean([r for _, r in b]), np.mean([c for c, _ in b])) for b in held if b]
    return sums, sum(n / len(confidence) * abs(acc - conf) for n, acc, conf in means)


def edges_and_neighbours(bins: int) -> Tensor:
    """Every edge in float32, the numbers next to it, 0 and 1."""
    edge = torch.arange(bins + 1) / bins
    near = [torch.nextafter(edge, torch.tensor(float(to))) for to in (0, 1)]
    return torch.cat([edge, *near]).clamp(0, 1)


def check_against_the_reference(bins: int, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    confidence = torch.cat([edges_and_neighbours(bins), torch.rand(40, generator=draws) ** (1 + seed)])
    correct = torch.rand(len(confidence), generator=draws) < confidence
    sums, ece = reference(confidence.tolist(), correct.tolist(), bins)
    found = bin_sums(confidence, correct, bins)
    torch.testing.assert_close(found, torch.tensor(sums, dtype=torch.float64), atol=1e-12, rtol=0)
    assert found[0].sum() == len(confidence)
    state = Calibration(bins)
    state._add(found, torch.zeros(()))
    assert state.ece == pytest.approx(ece, abs=1e-12)
    assert state.confidence_gap == pytest.approx(float(confidence.double().mean() - correct.double().mean()), abs=1e-12)


@pytest.mark.parametrize("bins", [1, 2, 7, 10, 15])
@pytest.mark.parametrize("seed", [0, 3])
def test_bins_are_those_of_exact_arithmetic(bins: int, seed: int) -> None:
    check_against_the_reference(bins, seed)


@pytest.mark.parametrize("wrong", ["open above", "edges in float32"])
def test_other_edges_are_told_apart(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bucketize = torch.bucketize

    def other(values: Tensor, edges: Tensor) -> Tensor:
        if wrong == "open above":
            return bucketize(values, edges, right=True)
        return bucketize(values.float(), edges.float())

    monkeypatch.setattr(torch, "bucketize", other)
    with pytest.raises(AssertionError):
        check_against_the_reference(10, 0)


def one_hot(index: list[int], classes: int) -> Tensor:
    return torch.eye(classes)[torch.tensor(index)]


@pytest.mark.parametrize(
    ("probabilities", "y", "ece", "brier", "gap"),
    [
        pytest.param(one_hot([0, 1, 2], 3), [0, 1, 2], 0, 0, 0, id="sure and right"),
        pytest.param(one_hot([0, 1, 2], 3), [1, 2, 0], 1, 2, 1, id="sure and wrong"),
        pytest.param(torch.tensor([[0.7, 0.3]] * 2), [0, 1], 0.2, 0.58, 0.2, id="constant, half of it right"),
        pytest.param(torch.tensor([[0.75, 0.25]] * 4), [0, 0, 0, 1], 0, 0.375, 0, id="constant, calibrated"),
        pytest.param(torch.full((10, 10), 0.1), list(range(10)), 0, 0.9, 0, id="uniform"),
        pytest.param(torch.full((2, 10), 0.1), [0, 0], 0.9, 0.9, -0.9, id="right without knowing it"),
        pytest.param(torch.zeros(2, 3), [0, 1], 0.5, 1, -0.5, id="confidence 0"),
        pytest.param(torch.tensor([[0.9, 0.1], [0.6, 0.4]]), [1, 0], 0.65, 0.97, 0.25, id="two bins, opposite signs"),
    ],
)
def test_known_predictors(probabilities: Tensor, y: list[int], ece: float, brier: float, gap: float) -> None:
    state = Calibration()
    state.update(probabilities, torch.tensor(y))
    assert state.n == len(y)
    assert (state.ece, state.brier, state.confidence_gap) == pytest.approx((ece, brier, gap), abs=1e-7)


def test_batches_and_parts_add_up() -> None:
    """Whatever the batches and whoever saw them; the state does not grow, and measuring one batch twice counts it."""
    draws = torch.Generator().manual_seed(0)
    p = torch.randn(90, 4, generator=draws).mul(2).softmax(dim=1)
    y = torch.randint(4, (90,), generator=draws)
    whole, parts, doubled = Calibration(), [Calibration(), Calibration()], Calibration()
    whole.update(p, y)
    size = whole.sums.numel()
    for index, (a, b) in enumerate(zip(p.split(7), y.split(7), strict=True)):
        parts[index % 2].update(a, b)
    doubled.merge(whole)
    doubled.update(p[:45], y[:45])
    parts[0].merge(parts[1])
    assert parts[0].n == whole.n == 90
    assert parts[0].sums.numel() == size == 45
    for name in ("ece", "brier", "confidence_gap"):
        assert getattr(parts[0], name) == pytest.approx(getattr(whole, name), abs=1e-12)
        assert getattr(doubled, name) != pytest.approx(getattr(whole, name), abs=1e-6)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InputError, match="bins must be at least 1"):
        Calibration(0)
    with pytest.raises(InputError, match="cannot merge 10 bins into 15"):
        Calibration().merge(Calibration(10))
    for name in ("ece", "brier", "confidence_gap"):
        with pytest.raises(InputError, match="nothing was measured"):
            getattr(Calibration(), name)


def test_a_number_that_is_none_shows() -> None:
    state = Calibration()
    state.update(torch.tensor([[0.5, 0.5], [torch.nan, torch.nan]]), torch.tensor([0, 0]))
    assert state.ece != state.ece
    assert calibration.BINS == state.bins == 15
