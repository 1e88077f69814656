"""All figures of calibration against scikit-learn and a NumPy reference, on random grids with confidences 0 and 1."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from vicinal.evaluation.calibration import CalibrationFigures, CalibrationStudy, top_label

LEVELS = torch.tensor([-800.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 800.0], dtype=torch.float64)
"""Of logits: softmax takes the outermost to exactly 0 and 1, and each of them often, so that many bins are empty."""


def on_a_grid(seed: int) -> tuple[Tensor, Tensor]:
    """Logits (N, C) with few different rows, and classes: right, wrong, sure of it and not."""
    draws = torch.Generator().manual_seed(seed)
    classes = 2 + seed % 5
    rows = LEVELS[torch.randint(len(LEVELS), (12, classes), generator=draws)]
    rows[0] = torch.tensor([800.0] + [-800.0] * (classes - 1))
    logits = rows[torch.randint(12, (80,), generator=draws)]
    logits[:2] = rows[0]
    y = torch.where(
        torch.rand(80, generator=draws) < 0.6, logits.argmax(dim=1), torch.randint(classes, (80,), generator=draws)
    )
    y[:2] = torch.tensor([0, 1])
    return logits, y


def measured(logits: Tensor, y: Tensor, bins: int) -> CalibrationFigures:
    study = CalibrationStudy(logits.shape[1], bins)
    for a, b in zip(logits.split(30), y.split(30), strict=True):
        study.update(a, b)
    return study.figures()


def gaps(confidence: np.ndarray, right: np.ndarray, bins: int) -> list[tuple[int, float, float]]:
    """Count, mean confidence and accuracy of the bins (k/M, (k+1)/M] that are not empty; the first has 0 as well."""
    held = []
    for k in range(bins):
        inside = (confidence > k / bins) & (confidence <= (k + 1) / bins) | ((k == 0) & (confidence == 0))
        if inside.any():
            held.append((int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean())))
    assert sum(count for count, _, _ in held) == len(confidence)
    return held


def equal_mass(confidence: np.ndarray, right: np.ndarray, bins: int) -> float:
    """Mean of |accuracy - confidence| over bins of n/M examples each, groups of equal confidence cut in proportion.

    By every example M times, which makes the ends of the bins whole: bin k takes places k n to (k + 1) n.
    """
    _, group = np.unique(confidence.round(9), return_inverse=True)  # the same logits in another order are alike
    gap = np.array([(right - confidence)[group == g].mean() for g in range(group.max() + 1)])
    repeated = np.sort(group).repeat(bins)
    excess = gap[repeated].reshape(bins, len(confidence)).mean(axis=1)
    return float(np.abs(excess).mean())


def check_against_numpy(seed: int, bins: int) -> None:
    logits, y = on_a_grid(seed)
    found = measured(logits, y, bins)
    z, label = logits.numpy(), y.numpy()
    n, classes = z.shape
    top = z.max(axis=1, keepdims=True)
    log_p = z - top - np.log(np.exp(z - top).sum(axis=1, keepdims=True))
    # Bins are of the probabilities as torch rounds them, since values such as 1/2 lie on edges.
    p = logits.softmax(dim=1).numpy()
    assert np.abs(p - np.exp(log_p)).max() < 1e-14
    confidence, right = p.max(axis=1), z.argmax(axis=1) == label
    held = gaps(confidence, right, bins)
    per_class = [gaps(p[:, k], label == k, bins) for k in range(classes)]
    expected = {
        "n": n,
        "bins": bins,
        "error": 1 - right.mean(),
        "nll": -log_p[np.arange(n), label].mean(),
        "ece": sum(count / n * abs(acc - conf) for count, conf, acc in held),
        "adaptive_ece": equal_mass(confidence, right, bins),
        "classwise_ece": np.mean([sum(c / n * abs(acc - conf) for c, conf, acc in each) for each in per_class]),
        "overconfidence": sum(count / n * conf * max(conf - acc, 0) for count, conf, acc in held),
        "brier": ((p - np.eye(classes)[label]) ** 2).sum(axis=1).mean(),
        "confidence_gap": confidence.mean() - right.mean(),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-11, rel=1e-12), name
    bars = [bar for bar in found.reliability if bar.count]
    assert [(bar.count, bar.confidence, bar.accuracy) for bar in bars] == [pytest.approx(each) for each in held]
    assert {0.0, 1.0} <= set(p.flatten().tolist())
    assert float(confidence.max()) == 1
    if bins >= 10:
        assert len(bars) < bins


CASES = [(seed, bins) for seed in range(20) for bins in (1, 2, 10, 15)]


@pytest.mark.parametrize(("seed", "bins"), CASES)
def test_against_numpy(seed: int, bins: int) -> None:
    check_against_numpy(seed, bins)


def check_against_scikit_learn(seed: int, bins: int) -> None:
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

    logits, y = on_a_grid(seed)
    found = measured(logits, y, bins)
    p = logits.softmax(dim=1).numpy()
    classes, predicted, confidence = p.shape[1], p.argmax(axis=1), p.max(axis=1)
    right = predicted == y.numpy()
    assert found.error == pytest.approx(1 - accuracy_score(y.numpy(), predicted))
    squares = [brier_score_loss((y == k).numpy(), p[:, k], pos_label=True) for k in range(classes)]
    assert found.brier == pytest.approx(sum(squares))
    accuracies, confidences = calibration_curve(right, confidence, n_bins=bins)
    bars = [bar for bar in found.reliability if bar.count]
    assert [bar.accuracy for bar in bars] == pytest.approx(accuracies)
    assert [bar.confidence for bar in bars] == pytest.approx(confidences)
    shares = np.array([bar.count for bar in bars]) / len(y)
    assert found.ece == pytest.approx((shares * np.abs(accuracies - confidences)).sum())
    # scikit-learn takes a probability of 0 for the smallest number, so what it says is of the others.
    possible = torch.from_numpy(p[np.arange(len(y)), y.numpy()] > 1e-12)
    assert not bool(possible.all())
    there = measured(logits[possible], y[possible], bins)
    assert there.nll == pytest.approx(log_loss(y[possible].numpy(), p[possible.numpy()], labels=list(range(classes))))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("bins", [1, 8, 16])  # powers of two: the edges are the same however they are computed
def test_against_scikit_learn(seed: int, bins: int) -> None:
    check_against_scikit_learn(seed, bins)


def open_above(patch: pytest.MonkeyPatch) -> None:
    bucketize = torch.bucketize
    patch.setattr(torch, "bucketize", lambda values, edges: bucketize(values, edges, right=True))


def one_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    """As in an implementation whose last bin is open above."""
    sums = top_label.bin_sums

    def without(confidence: Tensor, correct: Tensor, bins: int) -> Tensor:
        return sums(confidence[confidence < 1], correct[confidence < 1], bins)

    patch.setattr(top_label, "bin_sums", without)


def squares_over_classes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.Tensor, "square", lambda self: self**2 / 2)


def sharper(patch: pytest.MonkeyPatch) -> None:
    study = sys.modules["vicinal.evaluation.calibration.study"]
    update = study._Plain.update
    patch.setattr(study._Plain, "update", lambda self, logits, y: update(self, 1.01 * logits, y))


@pytest.mark.parametrize("check", [check_against_numpy, check_against_scikit_learn])
@pytest.mark.parametrize("mutate", [open_above, one_is_not_counted, squares_over_classes, sharper])
def test_other_figures_are_told_apart(
    check: Callable[[int, int], None],
    mutate: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mutate(monkeypatch)

    def any_seed() -> None:
        for seed in range(20):
            check(seed, 8)

    with pytest.raises(AssertionError):
        any_seed()


def constant(p: list[float], y: list[int]) -> tuple[Tensor, Tensor]:
    return torch.tensor(p, dtype=torch.float64).log().expand(len(y), -1), torch.tensor(y)


@pytest.mark.parametrize("bins", [2, 10, 15])
@pytest.mark.parametrize(
    ("logits", "y", "expected"),
    [
        # error, nll, ece, adaptive, class-wise, over-confidence, Brier, gap
        pytest.param(800 * torch.eye(4), torch.arange(4), (0, 0, 0, 0, 0, 0, 0, 0), id="perfect"),
        pytest.param(800 * torch.eye(4), (torch.arange(4) + 1) % 4, (1, 800, 1, 1, 0.5, 1, 2, 1), id="always wrong"),
        pytest.param(
            *constant([0.5, 0.25, 0.25], [0, 0, 1, 2]),
            (0.5, 1.5 * math.log(2), 0, 0, 0, 0, 0.625, 0),
            id="constant, the frequencies of the classes",
        ),
        pytest.param(
            *constant([0.8, 0.2], [0, 1]),
            (0.5, -0.5 * math.log(0.16), 0.3, 0.3, 0.3, 0.24, 0.68, 0.3),
            id="constant, over-confident",
        ),
        pytest.param(
            *constant([0.6, 0.4], [0, 0, 0, 0]),
            (0, -math.log(0.6), 0.4, 0.4, 0.4, 0, 0.32, -0.4),
            id="constant, under-confident",
        ),
        pytest.param(
            torch.zeros(6, 3), torch.arange(6) % 3, (2 / 3, math.log(3), 0, 0, 0, 0, 2 / 3, 0), id="knows nothing"
        ),
    ],
)
def test_known_predictors(logits: Tensor, y: Tensor, expected: tuple[float, ...], bins: int) -> None:
    """What they have in one bin of any of these sizes is all alike, so that the number of bins does not matter."""
    found = measured(logits, y, bins)
    values = found.error, found.nll, found.ece, found.adaptive_ece, found.classwise_ece
    assert (*values, found.overconfidence, found.brier, found.confidence_gap) == pytest.approx(expected, abs=1e-6)
