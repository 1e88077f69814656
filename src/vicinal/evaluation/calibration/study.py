"""All figures of calibration at once, from logits, in one pass over the examples."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.evaluation.calibration._sums import RunningSums
from vicinal.evaluation.calibration.adaptive import AdaptiveCalibration
from vicinal.evaluation.calibration.classwise import ClasswiseCalibration
from vicinal.evaluation.calibration.top_label import BINS, Calibration, ReliabilityBin
from vicinal.networks import EVAL, applied


@dataclass(frozen=True)
class CalibrationFigures:
    """How well confidences tell how often a prediction is right.

    Args:
        n: number of examples.
        bins: number of bins of every binned figure.
        error: share of wrong predictions, in [0,1].
        nll: mean negative log-likelihood of the true class, in nats.
        ece: expected calibration error of the top label, in [0,1], bins of equal width.
        adaptive_ece: the same with bins of equal mass.
        classwise_ece: mean over classes of the error of each class's probability, in [0,1].
        overconfidence: over-confidence error, in [0,1], bins of equal width.
        brier: mean of sum_k (p_k - y_k)^2, in [0,2].
        confidence_gap: mean confidence minus accuracy, in [-1,1]; greater than 0 is over-confident.
        reliability: the bars of the reliability diagram.
    """

    n: int
    bins: int
    error: float
    nll: float
    ece: float
    adaptive_ece: float
    classwise_ece: float
    overconfidence: float
    brier: float
    confidence_gap: float
    reliability: tuple[ReliabilityBin, ...]


class CalibrationStudy:
    """The running sums of all figures; the state does not grow with the number of examples.

    Args:
        classes: number of classes.
        bins: number of bins of every binned figure.

    Raises:
        InputError: there is no class or no bin.

    >>> study = CalibrationStudy(classes=2)
    >>> study.update(torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
    >>> found = study.figures()
    >>> found.error, found.ece, found.adaptive_ece, found.classwise_ece, found.brier
    (0.5, 0.0, 0.0, 0.0, 0.5)
    """

    def __init__(self, classes: int, bins: int = BINS) -> None:
        self._top = Calibration(bins)
        self._adaptive = AdaptiveCalibration(bins)
        self._classwise = ClasswiseCalibration(classes, bins)
        self._plain = _Plain()

    def update(self, logits: Tensor, y: Tensor) -> None:
        """Add a batch.

        Args:
            logits: (B, C).
            y: true classes, int64 (B,).

        Raises:
            InputError: another number of classes.
        """
        logits = logits.detach().double()
        p = logits.softmax(dim=1)
        self._classwise.update(p, y)
        self._top.update(p, y)
        self._adaptive.update(p, y)
        self._plain.update(logits, y)

    def merge(self, other: Self) -> None:
        """Add what another one has seen.

        Raises:
            InputError: it has other bins, or other classes.
        """
        self._classwise.merge(other._classwise)
        self._top.merge(other._top)
        self._adaptive.merge(other._adaptive)
        self._plain.merge(other._plain)

    def reduced(self) -> Self:
        """What all processes of a distributed evaluation have seen; all have to call it. Nothing is changed."""
        total = copy.copy(self)
        total._classwise = self._classwise.reduced()
        total._top = self._top.reduced()
        total._adaptive = self._adaptive.reduced()
        total._plain = self._plain.reduced()
        return total

    def figures(self) -> CalibrationFigures:
        """The figures of all that was seen.

        Raises:
            InputError: nothing was.
        """
        top = self._top
        error, nll = self._plain.means()
        return CalibrationFigures(
            n=top.n,
            bins=top.bins,
            error=error,
            nll=nll,
            ece=top.ece,
            adaptive_ece=self._adaptive.ece,
            classwise_ece=self._classwise.ece,
            overconfidence=top.overconfidence,
            brier=top.brier,
            confidence_gap=top.confidence_gap,
            reliability=top.reliability,
        )


def calibration_figures(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, bins: int = BINS
) -> CalibrationFigures:
    """All figures of calibration in eval mode and one pass; flags and buffers are left as they were.

    Args:
        network: from inputs in data space to logits (B, C).
        batches: inputs and classes, int64 (B,).
        bins: number of bins of every binned figure.

    Raises:
        InputError: there are no examples, or no bin.
    """
    study: CalibrationStudy | None = None
    with torch.no_grad(), applied(network, EVAL):
        for x, y in batches:
            logits = network(x)
            study = study or CalibrationStudy(logits.shape[1], bins)
            study.update(logits, y)
    if study is None:
        raise InputError("calibration: there are no examples to measure; give at least one batch")
    return study.figures()


class _Plain(RunningSums):
    """Error and negative log-likelihood, which need no bins: the sums of (1, wrong, nll), float64 (3, 1)."""

    def __init__(self) -> None:
        self.sums = torch.zeros(3, 1, dtype=torch.float64)

    def update(self, logits: Tensor, y: Tensor) -> None:
        wrong = (logits.argmax(dim=1) != y).double()
        nll = F.cross_entropy(logits, y, reduction="none")
        self._add(torch.stack([torch.ones_like(wrong), wrong, nll]).sum(dim=1, keepdim=True))

    def means(self) -> tuple[float, float]:
        error, nll = (self.sums[1:, 0] / self._some()).tolist()
        return error, nll
