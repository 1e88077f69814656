"""Distances between a target distribution and a network's output, one number per sample; no hidden reductions.

The library's weights are meant for these: cross-entropy and KL are summed over classes (they are expectations), squared
error is a *mean* over classes. A published weight for a sum over C classes is C times larger here.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

DistanceName = Literal["mse", "kl"]


def squared_error(target: Tensor, logits: Tensor) -> Tensor:
    """mean_c (target_c - softmax(logits)_c)^2, (B,).

    Args:
        target: probabilities (B, C).
        logits: (B, C).
    """
    return (F.softmax(logits, dim=1) - target).square().mean(dim=1)


def kl(target: Tensor, logits: Tensor) -> Tensor:
    """KL(target || softmax(logits)), (B,), >= 0; 0 log 0 is 0, and large logit gaps stay finite.

    Args:
        target: probabilities (B, C).
        logits: (B, C).
    """
    return F.kl_div(F.log_softmax(logits, dim=1), target, reduction="none").sum(dim=1)


def cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    """-sum_c target_c log softmax(logits)_c, (B,), for soft targets (B, C) or class indices int64 (B,)."""
    return F.cross_entropy(logits, target, reduction="none")


def entropy(logits: Tensor) -> Tensor:
    """-sum_c p_c log p_c of p = softmax(logits), (B,), in [0, log C]; its gradient on the logits is -p (log p + H)."""
    log_p = F.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


def distance(name: DistanceName, target: Tensor, logits: Tensor) -> Tensor:
    """The named distance D(target, softmax(logits)), (B,)."""
    return squared_error(target, logits) if name == "mse" else kl(target, logits)
