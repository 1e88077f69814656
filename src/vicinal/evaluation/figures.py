"""Figures of a classifier on a set of examples: error, negative log-likelihood and calibration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.evaluation.calibration import Calibration
from vicinal.networks import EVAL, applied


@dataclass(frozen=True)
class Figures:
    """What was measured on a set.

    Args:
        n: number of examples.
        error: share of wrong predictions, in [0,1].
        nll: mean negative log-likelihood of the true class, in nats.
        ece: expected calibration error of the top label, in [0,1], with 15 bins of equal width.
        brier: mean of sum_k (p_k - y_k)^2, in [0,2].
        confidence_gap: mean confidence minus accuracy, in [-1,1]; greater than 0 is over-confident.
    """

    n: int
    error: float
    nll: float
    ece: float
    brier: float
    confidence_gap: float


def figures(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Figures:
    """All figures in eval mode and one pass, a batch at a time; flags and buffers are left as they were.

    Args:
        network: from inputs in data space to logits (B, C).
        batches: inputs and classes, int64 (B,).

    Raises:
        InputError: there are no examples.
    """
    calibration, wrong, nll = Calibration(), 0, 0.0
    with torch.no_grad(), applied(network, EVAL):
        for x, y in batches:
            logits = network(x).double()
            wrong += int((logits.argmax(dim=1) != y).sum())
            nll += float(F.cross_entropy(logits, y, reduction="sum"))
            calibration.update(logits.softmax(dim=1), y)
    if not (n := calibration.n):
        raise InputError("figures: there are no examples to measure; give at least one batch")
    return Figures(n, wrong / n, nll / n, calibration.ece, calibration.brier, calibration.confidence_gap)


def probabilities(network: nn.Module, inputs: Iterable[Tensor]) -> Tensor:
    """Class probabilities in eval mode, float32 (N, C), on the CPU."""
    with torch.no_grad(), applied(network, EVAL):
        return torch.cat([network(x).softmax(dim=1).float().cpu() for x in inputs])
