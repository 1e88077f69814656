"""Calibration of every class's probability, not of the predicted class's only."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.evaluation.calibration._sums import RunningSums
from vicinal.evaluation.calibration.top_label import BINS, inner_edges
from vicinal.settings import check


class ClasswiseCalibration(RunningSums):
    """The class-wise expected calibration error in bins of equal width, from running sums.

    For class k the confidence of every example is p_k, and it is "correct" where y = k; bins are those of `bin_sums`.
    With many classes nearly all probabilities lie in the first bin, so this is a small number: compare it only with
    the same number of classes.

    Args:
        classes: number of classes, C.
        bins: number of bins, M. The state is 3 C M numbers.

    Raises:
        InputError: there is no class or no bin.

    >>> state = ClasswiseCalibration(classes=2)
    >>> state.update(torch.tensor([[0.75, 0.25], [0.75, 0.25]]), torch.tensor([0, 1]))
    >>> state.n, state.by_class, state.ece
    (2, (0.25, 0.25), 0.25)
    """

    def __init__(self, classes: int, bins: int = BINS) -> None:
        check("classes", classes, low=1)
        check("bins", bins, low=1)
        self.sums = torch.zeros(3, classes, bins, dtype=torch.float64)
        """Per class and bin: count, sum of probabilities, number of that class, float64 (3, classes, bins)."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.sums.shape[1]

    @property
    def bins(self) -> int:
        """Number of bins."""
        return self.sums.shape[2]

    def update(self, probabilities: Tensor, y: Tensor) -> None:
        """Add a batch.

        Args:
            probabilities: (B, C), rows in [0,1] that add up to 1.
            y: true classes, int64 (B,).

        Raises:
            InputError: another number of classes.
        """
        p = probabilities.detach().double()
        if p.shape[1] != self.classes:
            raise InputError(f"calibration: probabilities of {p.shape[1]} classes; this state is for {self.classes}")
        member = F.one_hot(torch.bucketize(p, inner_edges(self.bins, p.device)), self.bins).double()
        values = torch.stack([torch.ones_like(p), p, F.one_hot(y, self.classes).double()])
        self._add(torch.einsum("vbc,bcm->vcm", values, member))

    @property
    def by_class(self) -> tuple[float, ...]:
        """For each class the sum over bins of their share times |share of that class - mean probability|, in [0,1]."""
        _, confidence, correct = self.sums
        return tuple(((correct - confidence).abs().sum(dim=1) / self._some()).tolist())

    @property
    def ece(self) -> float:
        """Class-wise expected calibration error, in [0,1]: the mean of `by_class`, not weighted by frequency."""
        return sum(self.by_class) / self.classes

    def _said(self) -> str:
        return f"{self.classes} classes in {self.bins} bins"
