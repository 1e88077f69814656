"""Figures of a classifier on a set of examples: error and negative log-likelihood."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.networks import EVAL, applied


@dataclass(frozen=True)
class Figures:
    """What was measured on a set.

    Args:
        n: number of examples.
        error: share of wrong predictions, in [0,1].
        nll: mean negative log-likelihood of the true class, in nats.
    """

    n: int
    error: float
    nll: float


def figures(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Figures:
    """Error and NLL in eval mode, one batch at a time; flags and buffers are left as they were.

    Args:
        network: from inputs in data space to logits (B, C).
        batches: inputs and classes, int64 (B,).
    """
    n, wrong, nll = 0, 0, 0.0
    with torch.no_grad(), applied(network, EVAL):
        for x, y in batches:
            logits = network(x)
            n += len(y)
            wrong += int((logits.argmax(dim=1) != y).sum())
            nll += float(F.cross_entropy(logits.double(), y, reduction="sum"))
    return Figures(n, wrong / n, nll / n)


def probabilities(network: nn.Module, inputs: Iterable[Tensor]) -> Tensor:
    """Class probabilities in eval mode, float32 (N, C), on the CPU."""
    with torch.no_grad(), applied(network, EVAL):
        return torch.cat([network(x).softmax(dim=1).float().cpu() for x in inputs])
