"""What an attack makes large: one number per example, from logits and true classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.vicinity import full_precision

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Maps logits (B, C) and true classes (B,) to one number per example (B,), with a graph."""


def log_odds_against(logits: Tensor, y: Tensor) -> Tensor:
    """log((1 - p_y) / p_y), (B,), in at least float32, with a graph.

    Cross-entropy is its softplus, an increasing function, so both have the same steepest ascent. But where a prediction
    is sure, 1 - p_y rounds to 0 and the gradient of the cross-entropy loses its direction; this one keeps it.

    Args:
        logits: (B, C), C >= 2.
        y: classes, int64 (B,).

    >>> log_odds_against(torch.tensor([[200.0, 0.0]]), torch.tensor([0]))
    tensor([-200.])
    """
    logits, true = full_precision(logits), y.unsqueeze(1)
    return logits.scatter(1, true, -torch.inf).logsumexp(dim=1) - logits.gather(1, true).squeeze(1)


def cross_entropy_against(logits: Tensor, y: Tensor) -> Tensor:
    """-log p_y, (B,), in at least float32, with a graph: what published attacks differentiate, whatever it hides.

    Args:
        logits: (B, C).
        y: classes, int64 (B,).

    >>> cross_entropy_against(torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
    tensor([0.6931])
    """
    return F.cross_entropy(full_precision(logits), y, reduction="none")
