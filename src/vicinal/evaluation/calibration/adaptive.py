"""Calibration of top-label confidences in bins of equal mass, from a fine histogram."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.evaluation.calibration._sums import RunningSums
from vicinal.evaluation.calibration.top_label import BINS
from vicinal.settings import check

CELLS = 4096
"""Cells of the fine histogram."""

_SIDE = 64  # cells are addressed by two digits to this base
_REACH = 20.0  # log odds of the outermost edges: confidences of 2e-9 and of 1 - 2e-9


class AdaptiveCalibration(RunningSums):
    """The expected calibration error with equally many examples in each bin, from running sums.

    Bins of equal width leave most examples of a good classifier in the last one. Here each of M bins takes the share
    1/M of the examples, in the order of their confidence.

    Where the bins end is known only once all examples are seen, so they are gathered in a fixed histogram of `CELLS`
    cells first, equally wide (0.0098) in the log odds of the confidence from -20 to 20. A cell spans at most 0.0025,
    and at most 1 % of the distance to 0 and to 1, where confidences crowd. Sums are exact; what the resolution limits
    is which of the examples that share a cell with a bin's end go to which side: each of them goes to both, in
    proportion. Examples of equal confidence are shared in the same way, so the figure does not depend on their order.

    Args:
        bins: number of bins of equal mass, M; it only matters when the result is read.

    Raises:
        InputError: there is no bin.

    >>> state = AdaptiveCalibration(bins=2)
    >>> state.update(torch.tensor([[0.75, 0.25], [0.9375, 0.0625]]), torch.tensor([0, 1]))
    >>> state.equal_mass.tolist()
    [[1.0, 1.0], [0.75, 0.9375], [1.0, 0.0]]
    >>> state.ece
    0.59375
    """

    def __init__(self, bins: int = BINS) -> None:
        check("bins", bins, low=1)
        self.bins = bins
        self.sums = torch.zeros(3, CELLS, dtype=torch.float64)
        """Per cell: count, sum of confidences, number correct, float64 (3, CELLS)."""

    def update(self, probabilities: Tensor, y: Tensor) -> None:
        """Add a batch.

        Args:
            probabilities: (B, C), rows in [0,1] that add up to 1.
            y: true classes, int64 (B,).
        """
        confidence, predicted = probabilities.detach().double().max(dim=1)
        log_odds = torch.linspace(-_REACH, _REACH, CELLS - 1, dtype=torch.float64, device=confidence.device)
        cell = torch.bucketize(confidence, log_odds.sigmoid())
        first, second = (F.one_hot(digit, _SIDE).double() for digit in (cell // _SIDE, cell % _SIDE))
        values = torch.stack([torch.ones_like(confidence), confidence, (predicted == y).double()])
        # As a product, as in `bin_sums`; by two digits it does not need a row of CELLS numbers for each example.
        self._add(((values.unsqueeze(1) * first.T) @ second).flatten(1))

    @property
    def equal_mass(self) -> Tensor:
        """What each bin holds: count (n/M in all of them), sum of confidences, number correct; float64 (3, M), CPU."""
        n = self._some()
        cells = self.sums.cpu().numpy()
        cells = cells[:, cells[0] > 0]
        upto = np.concatenate([np.zeros((3, 1)), cells.cumsum(axis=1)], axis=1)
        ends = np.arange(self.bins + 1) * n / self.bins
        # Within a cell the sums grow in proportion to the count.
        return torch.from_numpy(np.diff([np.interp(ends, upto[0], each) for each in upto], axis=1))

    @property
    def ece(self) -> float:
        """Expected calibration error, in [0,1]: mean over the bins of |accuracy - mean confidence|."""
        _, confidence, correct = self.equal_mass
        return float((correct - confidence).abs().sum()) / self._some()
