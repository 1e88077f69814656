"""Adversarial dropout: which few features to drop, or bring back, so that the output moves most."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vicinal.settings import check
from vicinal.vicinity.adversary import full_precision


def adversarial_mask(
    divergence: Callable[[Tensor], Tensor], features: Tensor, *, delta: float, base: Tensor | None = None
) -> Tensor:
    """The dropout mask near a base mask that raises a divergence most, to first order, scaled to sum to D.

    With J = d divergence(m * h) / dm = h * d divergence / d(m * h) at the base mask, an entry is a candidate if its
    flip raises the divergence (m = 1 and J < 0, or m = 0 and J > 0). The k = floor(delta D) candidates of largest
    absolute J are flipped: those that are strictly larger than the (k + 1)-th, so that ties at the end stay. Then the
    mask is multiplied by D / sum m.

    Args:
        divergence: maps masked features (B, D) to one number per sample (B,), with a graph; the pass policy is the
            caller's.
        features: h, (B, D).
        delta: largest share of the entries that is flipped, in [0,1]. Below 1 / D none is; at 0 nothing is evaluated.
        base: mask of zeros and ones to start from, (B, D); all ones if not given (the official code).

    Returns:
        Masks (B, D) in at least float32, detached. A mask without any entry left stays zero.

    Raises:
        InputError: ``delta`` is out of range.

    Source: Park et al. 2018 (adversarial dropout); the rule is the official code's.

    >>> towards = torch.tensor([[3.0, -2.0, -1.0, 4.0]])
    >>> adversarial_mask(lambda h: (h * towards).sum(dim=1), torch.ones(1, 4), delta=0.25)
    tensor([[1.3333, 0.0000, 1.3333, 1.3333]])
    """
    check("delta", delta, low=0, high=1)
    features = full_precision(features.detach())
    mask = torch.ones_like(features) if base is None else base.to(features.dtype)
    width = features.shape[1]
    count = math.floor(delta * width + 1e-9)  # 0.29 * 100 is less than 29
    if delta:
        masked = (mask * features).requires_grad_()
        with torch.enable_grad():
            total = divergence(masked).sum()
        (gradient,) = torch.autograd.grad(total, masked)
        slope = features * gradient
        gain = torch.where(mask > 0, -slope, slope).clamp(min=0)
        ranked = gain.topk(min(count + 1, width), dim=1).values
        least = ranked[:, count:] if count < width else torch.zeros_like(ranked[:, :1])
        mask = torch.where(gain > least, 1 - mask, mask)
    return mask * (width / mask.sum(dim=1, keepdim=True).clamp(min=1))
