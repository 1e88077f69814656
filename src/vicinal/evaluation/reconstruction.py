"""What an autoencoder keeps of the data: squared error, PSNR, and what a classifier still reads in reconstructions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.networks import EVAL, Autoencoder, applied
from vicinal.vicinity.discrepancy import psnr

GATE = 0.10
"""Accuracy, in [0,1], that a classifier may lose on reconstructions before figures of latent mixing say nothing."""


@dataclass(frozen=True)
class Reconstruction:
    """How well an autoencoder rebuilds a set.

    Args:
        n: number of examples.
        squared_error: mean over examples of the mean squared difference of their entries.
        psnr: mean over examples of -10 log10 of that, in dB: for images in [0,1], the peak signal-to-noise ratio.
        accuracy: of the judge on the examples themselves, in [0,1], or None without a judge.
        accuracy_rebuilt: of the judge on their reconstructions.
    """

    n: int
    squared_error: float
    psnr: float
    accuracy: float | None = None
    accuracy_rebuilt: float | None = None

    @property
    def passed(self) -> bool | None:
        """Whether the judge loses no more than 10 points on reconstructions, or None without a judge."""
        if self.accuracy is None or self.accuracy_rebuilt is None:
            return None
        return self.accuracy - self.accuracy_rebuilt <= GATE + 1e-9  # exactly 10 points must not fail by rounding


def reconstruction(
    autoencoder: Autoencoder, batches: Iterable[tuple[Tensor, Tensor]], judge: nn.Module | None = None
) -> Reconstruction:
    """Rebuild a set, in eval mode; flags and buffers of both networks are left as they were.

    Args:
        autoencoder: the autoencoder.
        batches: inputs and classes, int64 (B,).
        judge: a classifier that was trained without mixing, from data space to logits.

    Raises:
        InputError: there are no examples.
    """
    n, squares, decibels, right, right_rebuilt = 0, 0.0, 0.0, 0, 0
    with torch.no_grad(), applied(autoencoder, EVAL):
        for x, y in batches:
            rebuilt = autoencoder(x)
            errors = (rebuilt - x).double().square().flatten(1).mean(dim=1)
            n += len(x)
            squares += float(errors.sum())
            decibels += float(psnr(x, rebuilt).double().sum())
            if judge is not None:
                with applied(judge, EVAL):
                    right += int((judge(x).argmax(dim=1) == y).sum())
                    right_rebuilt += int((judge(rebuilt).argmax(dim=1) == y).sum())
    if not n:
        raise InputError("reconstruction: there are no examples to rebuild; give at least one batch")
    judged = (None, None) if judge is None else (right / n, right_rebuilt / n)
    return Reconstruction(n, squares / n, decibels / n, *judged)
