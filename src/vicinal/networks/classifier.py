"""The shape of every network here: a preprocessing layer, a body that gives features, a head that gives logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn


class Classifier(nn.Module):
    """``head(body(preprocess(x)))``, from images in [0,1] (or feature vectors) to logits.

    The split lets a method ask for features, attack the preprocessed input, or add heads, and it keeps normalisation
    inside, so that every attack sees data space.

    Args:
        preprocess: layer without trainable parameters, such as `Normalise` or `ZCA`.
        body: from preprocessed inputs to pooled features (B, D).
        head: from features to logits (B, C).
        feature_dim: D, or None if the body has no features to offer (a foreign module wrapped whole).
        classes: C.
        extra_heads: further maps from the same features to logits, for methods that train several heads; `forward` does
            not use them, a method applies ``network.extra_heads[0](features)``.
    """

    def __init__(
        self,
        preprocess: nn.Module,
        body: nn.Module,
        head: nn.Module,
        *,
        feature_dim: int | None,
        classes: int,
        extra_heads: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.body = body
        self.head = head
        self.extra_heads = nn.ModuleList(extra_heads)
        self.feature_dim = feature_dim
        self.classes = classes

    def forward(self, x: Tensor, *, preprocessed: bool = False) -> Tensor:
        """Logits (B, C).

        Args:
            x: inputs (B, ...) in data space, or in the preprocessed space if ``preprocessed``.
            preprocessed: skip the preprocessing layer.
        """
        return cast(Tensor, self.head(self.features(x, preprocessed=preprocessed)))

    def features(self, x: Tensor, *, preprocessed: bool = False) -> Tensor:
        """Pooled features (B, D), in the same two input spaces."""
        return cast(Tensor, self.body(x if preprocessed else self.preprocess(x)))
