"""Calibration of top-label confidences in bins of equal width."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.evaluation.calibration._sums import RunningSums
from vicinal.settings import check

BINS = 15


def bin_sums(confidence: Tensor, correct: Tensor, bins: int = BINS) -> Tensor:
    """What each of ``bins`` equal intervals of [0,1] holds: count, sum of confidences, number correct.

    The intervals are closed above, (k/M, (k+1)/M], and the first one has 0 as well. Confidences are compared with k/M
    in float64, so none is on the wrong side of an edge by the rounding of the edge, and 0 and 1 are counted.

    Args:
        confidence: (B,), in [0,1].
        correct: whether each prediction is right (B,).
        bins: their number, M.

    Returns:
        (3, M) in float64.

    >>> bin_sums(torch.tensor([0.0, 1.0, 1.0]), torch.tensor([False, True, False]), bins=2)
    tensor([[1., 2.],
            [0., 2.],
            [0., 1.]], dtype=torch.float64)
    """
    confidence = confidence.double()
    member = F.one_hot(torch.bucketize(confidence, inner_edges(bins, confidence.device)), bins).double()
    # As a product, which adds in the same order every time; scattered additions on a GPU do not.
    return torch.stack([torch.ones_like(confidence), confidence, correct.double()]) @ member


def inner_edges(bins: int, device: torch.device) -> Tensor:
    """The edges 1/M, ..., (M-1)/M between bins of equal width, float64 (M - 1,)."""
    return torch.arange(1, bins, dtype=torch.float64, device=device) / bins


@dataclass(frozen=True)
class ReliabilityBin:
    """One bar of a reliability diagram.

    Args:
        low: lower edge of the bin, which is open (closed if it is 0).
        high: upper edge, closed.
        count: number of examples in it.
        confidence: their mean confidence, in [0,1]; None if there are none.
        accuracy: share of right predictions among them, in [0,1]; None if there are none.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


class Calibration(RunningSums):
    """Calibration of top-label confidences, and the Brier score, from running sums.

    The state is some fifty numbers, however many examples were seen. It lies where the last batch was, and no batch
    waits for the device.

    Args:
        bins: number of equal-width bins.

    Raises:
        InputError: there is no bin.

    >>> state = Calibration()
    >>> state.update(torch.tensor([[0.75, 0.25], [0.75, 0.25]]), torch.tensor([0, 1]))
    >>> state.n, state.ece, state.brier, state.confidence_gap, state.overconfidence
    (2, 0.25, 0.625, 0.25, 0.1875)
    """

    _names = ("sums", "_squares")

    def __init__(self, bins: int = BINS) -> None:
        check("bins", bins, low=1)
        self.sums = torch.zeros(3, bins, dtype=torch.float64)
        """Per bin: count, sum of confidences, number correct, float64 (3, bins)."""
        self._squares = torch.zeros((), dtype=torch.float64)

    @property
    def bins(self) -> int:
        """Number of bins."""
        return self.sums.shape[1]

    def update(self, probabilities: Tensor, y: Tensor) -> None:
        """Add a batch.

        Args:
            probabilities: (B, C), rows in [0,1] that add up to 1.
            y: true classes, int64 (B,).
        """
        p = probabilities.detach().double()
        confidence, predicted = p.max(dim=1)
        squares = (p - F.one_hot(y, p.shape[1])).square().sum()
        self._add(bin_sums(confidence, predicted == y, self.bins), squares)

    @property
    def ece(self) -> float:
        """Expected calibration error, in [0,1]: sum over bins of their share times |accuracy - mean confidence|."""
        _, confidence, correct = self.sums
        return float((correct - confidence).abs().sum()) / self._some()

    @property
    def overconfidence(self) -> float:
        """Over-confidence error, in [0,1]: sum over bins of their share times conf max(conf - acc, 0).

        Here conf is the bin's mean confidence and acc its accuracy. It is no greater than the expected calibration
        error, and 0 exactly where no bin promises more than it keeps. This form is our reading.
        """
        count, confidence, correct = self.sums
        excess = (confidence - correct).clamp(min=0) / count.clamp(min=1)
        return float((confidence * excess).sum()) / self._some()

    @property
    def brier(self) -> float:
        """Mean over examples of sum_k (p_k - y_k)^2, in [0,2]: not divided by the number of classes."""
        return float(self._squares) / self._some()

    @property
    def confidence_gap(self) -> float:
        """Mean confidence minus accuracy, in [-1,1]: greater than 0 is over-confident."""
        _, confidence, correct = self.sums
        return float((confidence - correct).sum()) / self._some()

    @property
    def reliability(self) -> tuple[ReliabilityBin, ...]:
        """The bars of the reliability diagram, empty ones too, from low to high confidence."""
        columns = self.sums.T.tolist()
        return tuple(
            ReliabilityBin(
                low=k / self.bins,
                high=(k + 1) / self.bins,
                count=int(count),
                confidence=confidence / count if count else None,
                accuracy=correct / count if count else None,
            )
            for k, (count, confidence, correct) in enumerate(columns)
        )
