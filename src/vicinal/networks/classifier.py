"""The shape of every network here: a preprocessing layer, a body that gives features, a head that gives logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, cast

from torch import Tensor, nn

PartName = Literal["logits", "features", "all"]


class Parts(NamedTuple):
    """What one pass gives, from the end to the beginning.

    Attributes:
        logits: (B, C).
        features: pooled features (B, D).
        map: last feature map before pooling (B, D, H, W), or None where the body has none (feature vectors).
    """

    logits: Tensor
    features: Tensor
    map: Tensor | None


class Classifier(nn.Module):
    """``head(body(preprocess(x)))``, from images in [0,1] (or feature vectors) to logits.

    The split lets a method ask for features, attack the preprocessed input, or mix in a hidden layer, and it keeps
    normalisation inside, so that every attack sees data space.

    Args:
        preprocess: layer without trainable parameters, such as `Normalise` or `ZCA`.
        body: from preprocessed inputs to pooled features (B, D).
        head: from features to logits (B, C).
        feature_dim: D, or None if the body has no features to offer (a foreign module wrapped whole).
        classes: C.
        stages: where hidden mixing may take place: ``stages[k - 1]`` layers of the body lie before the k-th place;
            place 0 is the preprocessed input. The body must be a sequence if there are any.
        make_head: makes a head with weights of its own, for methods that train several; else it is a linear layer.
    """

    def __init__(
        self,
        preprocess: nn.Module,
        body: nn.Module,
        head: nn.Module,
        *,
        feature_dim: int | None,
        classes: int,
        stages: Sequence[int] = (),
        make_head: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.body = body
        self.head = head
        self.feature_dim = feature_dim
        self.classes = classes
        self.stages = tuple(stages)
        self.make_head = make_head

    def another_head(self) -> nn.Module:
        """A new map from features to logits, of the head's kind; weights are drawn from the global generator."""
        if self.make_head is not None:
            return self.make_head()
        return nn.Linear(cast(int, self.feature_dim), self.classes)

    @property
    def has_map(self) -> bool:
        """Whether the body ends with a global average of a feature map."""
        layers = list(self.body.children()) if isinstance(self.body, nn.Sequential) else []
        return len(layers) > 2 and isinstance(layers[-2], nn.AdaptiveAvgPool2d)

    def forward(
        self,
        x: Tensor,
        *,
        preprocessed: bool = False,
        part: PartName = "logits",
        place: int = 0,
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor | Parts:
        """Logits (B, C), or what ``part`` asks for.

        Args:
            x: inputs (B, ...) in data space, or in the preprocessed space if ``preprocessed``.
            preprocessed: skip the preprocessing layer.
            part: "logits"; "features" (B, D), without the head; or "all", as `Parts`.
            place: where ``change`` comes in: 0 is the preprocessed input, k the end of the k-th stage.
            change: applied to the activations at that place, for example a mixture with other rows.
        """
        x = x if preprocessed else self.preprocess(x)
        if part == "logits" and change is None:
            return cast(Tensor, self.head(self.body(x)))
        feature_map = None
        if change is None and not self.has_map:
            features = self.body(x)
        else:
            features, feature_map = self._through(x, place, change)
        if part == "features":
            return cast(Tensor, features)
        logits: Tensor = self.head(features)
        return logits if part == "logits" else Parts(logits, features, feature_map)

    def features(self, x: Tensor, *, preprocessed: bool = False) -> Tensor:
        """Pooled features (B, D), in the same two input spaces."""
        return cast(Tensor, self(x, preprocessed=preprocessed, part="features"))

    def _through(
        self, x: Tensor, place: int, change: Callable[[Tensor], Tensor] | None
    ) -> tuple[Tensor, Tensor | None]:
        """The body, layer by layer: pooled features, and the map before the pooling."""
        if change is not None and place == 0:
            x = change(x)
        stop = self.stages[place - 1] if change is not None and place else -1
        layers = list(self.body) if isinstance(self.body, nn.Sequential) else [self.body]
        pooling = len(layers) - 2 if self.has_map else None
        feature_map = None
        for done, layer in enumerate(layers):
            if done == stop:
                x = cast(Callable[[Tensor], Tensor], change)(x)
            if done == pooling:
                feature_map = x
            x = layer(x)
        if stop == len(layers):
            x = cast(Callable[[Tensor], Tensor], change)(x)
        return x, feature_map
