"""Adaptive and class-wise calibration, over-confidence and reliability diagrams against plain references."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.evaluation import figures
from vicinal.evaluation.calibration import (
    CELLS,
    AdaptiveCalibration,
    Calibration,
    CalibrationStudy,
    ClasswiseCalibration,
    adaptive,
    calibration_figures,
    top_label,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def predictions(confidence: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
    """Two classes, the first with the confidence and the other with 0: the first is predicted, also at confidence 0."""
    return torch.stack([confidence, torch.zeros_like(confidence)], dim=1), (~correct).long()


def on_a_grid(seed: int, n: int = 90, steps: int = 30) -> tuple[Tensor, Tensor]:
    """Confidences k/steps, 0 and 1 among them, many of them equal, many bins of 15 empty; and what is right."""
    draws = seeded(seed)
    levels = torch.cat([torch.tensor([0, steps]), torch.randint(steps + 1, (6,), generator=draws)])
    confidence = levels[torch.randint(len(levels), (n,), generator=draws)].double() / steps
    confidence[:2] = torch.tensor([0.0, 1.0])
    return confidence, torch.rand(n, generator=draws) < (1 + torch.sin(9 * confidence)) / 2  # both signs of the gap


def binned(confidence: list[float], correct: list[bool], bins: int) -> list[list[tuple[float, bool]]]:
    """Members of the bins (k/M, (k+1)/M], the first with 0."""
    held: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for c, right in zip(confidence, correct, strict=True):
        (index,) = [k for k in range(bins) if k / bins < c <= (k + 1) / bins] or [0]
        held[index].append((c, right))
    return held


def equal_mass_reference(confidence: list[float], correct: list[bool], bins: int) -> float:
    """Mean over bins of |acc - conf|, where a bin cuts the sorted examples, and equal ones are cut in proportion."""
    n, total, start = len(confidence), Fraction(0), Fraction(0)
    excess = [Fraction(0)] * bins
    for value in sorted(set(confidence)):
        group = [right for c, right in zip(confidence, correct, strict=True) if c == value]
        each = Fraction(sum(group), len(group)) - Fraction(value)
        for k in range(bins):
            low, high = Fraction(k * n, bins), Fraction((k + 1) * n, bins)
            excess[k] += each * max(min(high, start + len(group)) - max(low, start), Fraction(0))
        start += len(group)
    for each in excess:
        total += abs(each)
    return float(total / n)


def check_top_label(bins: int, seed: int) -> None:
    confidence, correct = on_a_grid(seed)
    state = Calibration(bins)
    state.update(*predictions(confidence, correct))
    held = binned(confidence.tolist(), correct.tolist(), bins)
    assert [len(b) for b in held] == [bar.count for bar in state.reliability]
    over = 0.0
    for k, (bar, b) in enumerate(zip(state.reliability, held, strict=True)):
        assert (bar.low, bar.high) == (k / bins, (k + 1) / bins)
        if not b:
            assert bar.confidence is bar.accuracy is None
            continue
        conf, acc = np.mean([c for c, _ in b]), np.mean([right for _, right in b])
        assert (bar.confidence, bar.accuracy) == pytest.approx((conf, acc), abs=1e-12)
        over += len(b) / len(confidence) * conf * max(conf - acc, 0)
    assert state.overconfidence == pytest.approx(over, abs=1e-12)
    assert 0 <= state.overconfidence <= state.ece


def check_adaptive(bins: int, seed: int) -> None:
    confidence, correct = on_a_grid(seed)
    state = AdaptiveCalibration(bins)
    state.update(*predictions(confidence, correct))
    expected = equal_mass_reference(confidence.tolist(), correct.tolist(), bins)
    assert state.ece == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(state.equal_mass[0], torch.full((bins,), len(confidence) / bins).double())


def check_classwise(bins: int, seed: int) -> None:
    classes, n = 4, 60
    draws = seeded(seed)
    p = torch.randint(6, (n, classes), generator=draws).double()
    p[:4] = torch.eye(4).double()
    p = p / p.sum(dim=1, keepdim=True).clamp(min=1)
    y = torch.randint(classes, (n,), generator=draws)
    state = ClasswiseCalibration(classes, bins)
    state.update(p[:25], y[:25])
    state.update(p[25:], y[25:])
    expected = []
    for k in range(classes):
        held = binned(p[:, k].tolist(), (y == k).tolist(), bins)
        expected.append(sum(abs(sum(r for _, r in b) - sum(c for c, _ in b)) for b in held) / n)
    assert state.n == n
    assert state.by_class == pytest.approx(expected, abs=1e-12)
    assert state.ece == pytest.approx(np.mean(expected), abs=1e-12)


CHECKS = pytest.mark.parametrize("check", [check_top_label, check_adaptive, check_classwise])


@CHECKS
@pytest.mark.parametrize("bins", [1, 2, 7, 10, 15])
@pytest.mark.parametrize("seed", range(4))
def test_against_exact_references(check: Callable[[int, int], None], bins: int, seed: int) -> None:
    check(bins, seed)


def open_above(patch: pytest.MonkeyPatch) -> None:
    bucketize = torch.bucketize
    patch.setattr(torch, "bucketize", lambda values, edges: bucketize(values, edges, right=True))


def coarse(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(adaptive, "_REACH", 0.05)


def shifted_edges(patch: pytest.MonkeyPatch) -> None:
    edges = top_label.inner_edges
    for module in (top_label, sys.modules["vicinal.evaluation.calibration.classwise"]):
        patch.setattr(module, "inner_edges", lambda bins, device: edges(bins, device) + 0.05)


@pytest.mark.parametrize(
    ("check", "mutate"),
    [
        pytest.param(check_top_label, open_above, id="top label, open above"),
        pytest.param(check_top_label, shifted_edges, id="top label, other edges"),
        pytest.param(check_classwise, open_above, id="class-wise, open above"),
        pytest.param(check_classwise, shifted_edges, id="class-wise, other edges"),
        pytest.param(check_adaptive, coarse, id="adaptive, coarse cells"),
    ],
)
def test_other_bins_are_told_apart(
    check: Callable[[int, int], None], mutate: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)

    def any_seed() -> None:
        for seed in range(4):
            check(10, seed)

    with pytest.raises(AssertionError):
        any_seed()


def sorted_reference(confidence: Tensor, correct: Tensor, bins: int) -> float:
    order = np.argsort(confidence.numpy())
    excess = np.array_split((correct.double() - confidence).numpy()[order], bins)
    return float(sum(abs(part.sum()) for part in excess) / len(order))


def test_examples_in_cells_of_their_own_are_sorted_exactly() -> None:
    confidence = torch.linspace(-18, 18, 300, dtype=torch.float64).sigmoid()[torch.randperm(300, generator=seeded())]
    correct = torch.rand(300, generator=seeded(1)) < confidence.sqrt()
    state = AdaptiveCalibration(15)
    state.update(*predictions(confidence, correct))
    assert state.ece == pytest.approx(sorted_reference(confidence, correct, 15), abs=1e-12)


@pytest.mark.parametrize("reach", [20.0, 2.0])
def test_confidences_may_crowd_at_one(reach: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With cells that do not reach there, what lies within 1e-6 and within 0.1 of it is one."""
    monkeypatch.setattr(adaptive, "_REACH", reach)
    confidence = 1 - 10 ** (-1 - 5 * torch.rand(5000, generator=seeded(), dtype=torch.float64))
    correct = torch.rand(5000, generator=seeded(1)) < torch.where(confidence > 0.999, 0.8, 1.0)
    state = AdaptiveCalibration()
    state.update(*predictions(confidence, correct))
    reached = abs(state.ece - sorted_reference(confidence, correct, 15)) < 2e-4
    assert reached is (reach == 20)


def test_the_stated_resolution() -> None:
    edges = torch.linspace(-20, 20, CELLS - 1, dtype=torch.float64).sigmoid()
    width = edges.diff()
    assert float(width.max()) < 0.0025
    assert float((width / torch.minimum(edges[:-1], 1 - edges[:-1])).max()) < 0.01
    state = AdaptiveCalibration()
    for _ in range(3):
        state.update(torch.rand(50, 3, generator=seeded()), torch.zeros(50, dtype=torch.long))
    assert state.sums.shape == (3, CELLS)


def one_hot(index: list[int], classes: int) -> Tensor:
    return torch.eye(classes)[torch.tensor(index)]


@pytest.mark.parametrize(
    ("probabilities", "y", "adaptive_ece", "classwise", "over"),
    [
        pytest.param(one_hot([0, 1, 2], 3), [0, 1, 2], 0, 0, 0, id="sure and right"),
        pytest.param(one_hot([0, 1, 2], 3), [1, 2, 0], 1, 2 / 3, 1, id="sure and wrong"),
        pytest.param(torch.tensor([[0.7, 0.3]] * 2), [0, 1], 0.2, 0.2, 0.14, id="constant, half of it right"),
        pytest.param(torch.tensor([[0.75, 0.25]] * 4), [0, 0, 0, 1], 0, 0, 0, id="constant, calibrated"),
        pytest.param(torch.full((10, 10), 0.1), list(range(10)), 0, 0, 0, id="uniform"),
        pytest.param(torch.full((2, 10), 0.1), [0, 0], 0.9, 0.18, 0, id="under-confident"),
        pytest.param(torch.zeros(2, 3), [0, 1], 0.5, 1 / 3, 0, id="confidence 0"),
    ],
)
def test_known_predictors(
    probabilities: Tensor, y: list[int], adaptive_ece: float, classwise: float, over: float
) -> None:
    states = AdaptiveCalibration(), ClasswiseCalibration(probabilities.shape[1]), Calibration()
    for state in states:
        state.update(probabilities, torch.tensor(y))
    found = states[0].ece, states[1].ece, states[2].overconfidence
    assert found == pytest.approx((adaptive_ece, classwise, over), abs=1e-6)


def random_logits(n: int = 200, classes: int = 5) -> tuple[Tensor, Tensor]:
    logits = 3 * torch.randn(n, classes, generator=seeded(2))
    return logits, torch.randint(classes, (n,), generator=seeded(3))


def test_against_scikit_learn() -> None:
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss, log_loss

    logits, y = random_logits()
    study = CalibrationStudy(5, bins=10)
    study.update(logits, y)
    found = study.figures()
    p = logits.double().softmax(dim=1)
    right = (p.argmax(dim=1) == y).numpy()
    accuracy, confidence = calibration_curve(right, p.max(dim=1).values.numpy(), n_bins=10)
    bars = [bar for bar in found.reliability if bar.count]
    assert [bar.accuracy for bar in bars] == pytest.approx(accuracy)
    assert [bar.confidence for bar in bars] == pytest.approx(confidence)
    assert found.nll == pytest.approx(log_loss(y.numpy(), p.numpy()))
    squares = [brier_score_loss((y == k).numpy(), p[:, k].numpy()) for k in range(5)]
    assert found.brier == pytest.approx(sum(squares))


def test_a_study_is_its_parts(trained: nn.Module, digits: Any, untouched: Any) -> None:
    with untouched(trained):
        found = calibration_figures(trained, digits)
    plain = figures(trained, digits)
    for name in ("n", "error", "nll", "ece", "brier", "confidence_gap"):
        assert getattr(found, name) == pytest.approx(getattr(plain, name), abs=1e-12)
    assert sum(bar.count for bar in found.reliability) == found.n == 300
    assert found.adaptive_ece > 0
    assert found.classwise_ece > 0


def test_what_cannot_be_measured_is_refused() -> None:
    for make in (lambda: AdaptiveCalibration(0), lambda: ClasswiseCalibration(3, 0), lambda: CalibrationStudy(3, 0)):
        with pytest.raises(InputError, match="bins must be at least 1"):
            make()
    with pytest.raises(InputError, match="classes must be at least 1"):
        ClasswiseCalibration(0)
    with pytest.raises(InputError, match="cannot merge 4 classes in 15 bins into 3 classes in 15 bins"):
        ClasswiseCalibration(3).merge(ClasswiseCalibration(4))
    with pytest.raises(InputError, match="cannot merge 3 classes in 7 bins"):
        CalibrationStudy(3).merge(CalibrationStudy(3, 7))
    with pytest.raises(InputError, match="probabilities of 2 classes; this state is for 3"):
        ClasswiseCalibration(3).update(torch.rand(4, 2), torch.zeros(4, dtype=torch.long))
    for empty in (AdaptiveCalibration(), ClasswiseCalibration(3)):
        with pytest.raises(InputError, match="nothing was measured"):
            _ = empty.ece
    with pytest.raises(InputError, match="nothing was measured"):
        CalibrationStudy(3).figures()
    with pytest.raises(InputError, match="no examples to measure"):
        calibration_figures(nn.Identity(), [])


def test_a_number_that_is_none_shows() -> None:
    study = CalibrationStudy(2)
    study.update(torch.tensor([[0.5, 0.5], [torch.nan, torch.nan]]), torch.tensor([0, 0]))
    found = study.figures()
    assert all(value != value for value in (found.ece, found.adaptive_ece, found.classwise_ece, found.nll))
