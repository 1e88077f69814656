"""A trained network and a sample, as the functions of this room take them.

They want a function of single inputs with logits, best in float64. A trained network is a module in some mode and some
precision; `Trained` makes the one of the other, and leaves the module alone.
"""

from __future__ import annotations

import copy
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.errors import InputError, nearest
from vicinal.networks import Classifier

SpaceName = Literal["pixels", "input"]


class Trained:
    """A network in eval mode, in float64 and in its own precision, with a sample.

    Args:
        network: from inputs in data space to logits (B, C), or to one logit (B,) or (B, 1), which then is that of class
            1. It is copied and not changed.
        x: inputs (n, ...) in data space, n >= 2, floating point.
        y: classes, int64 (n,).
        space: where inputs are mixed, centred and attacked: ``"pixels"``, data space, or ``"input"``, behind the affine
            preprocessing layer of a `Classifier`; mixing is the same in both, while radii, means and homogeneity are
            not.

    Raises:
        InputError: shapes or types do not fit, an unknown space, or one that the network does not have.

    Attributes:
        x: inputs in the space, float64.
        y: classes, int64 (n,).
        classes: number of classes, 2 for one logit.
        space: see above.
        network: the copy in its own precision.
    """

    def __init__(self, network: nn.Module, x: Tensor, y: Tensor, *, space: SpaceName = "pixels") -> None:
        if space not in get_args(SpaceName):
            raise InputError(f"space: unknown {space!r}; {nearest(space, get_args(SpaceName))}")
        if not x.is_floating_point() or x.dim() < 2 or len(x) < 2:
            raise InputError(f"x: expected at least two floating-point examples (n, ...), got {tuple(x.shape)}")
        if y.shape != x.shape[:1] or y.dtype != torch.int64:
            raise InputError(f"y: expected classes int64 ({len(x)},), got {y.dtype} {tuple(y.shape)}")
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._exact = copy.deepcopy(self.network).double()
        self.space: SpaceName = space
        if space == "input" and not getattr(getattr(network, "preprocess", None), "affine", False):
            raise InputError("space: mixing commutes with affine preprocessing alone; use 'pixels'")
        self.x, self.y = self.entered(x), y
        with torch.no_grad():
            self.classes = self.logits(self.x[:1]).shape[1]
        if not bool(((y >= 0) & (y < self.classes)).all()):
            raise InputError(f"y: classes must be in 0..{self.classes - 1}; leave out examples without a label")

    def entered(self, x: Tensor) -> Tensor:
        """Inputs of data space in the space, float64."""
        x = x.detach().double()
        if self.space == "pixels":
            return x
        with torch.no_grad():
            return cast(Tensor, cast(Classifier, self._exact).preprocess(x))

    @property
    def own(self) -> Tensor:
        """The inputs in the network's own precision, for searches and averages that need no more."""
        parameter = next((p for p in self.network.parameters() if p.is_floating_point()), None)
        return self.x.to(torch.float32 if parameter is None else parameter.dtype)

    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, C) of inputs in the space, in their precision; of one logit f the two 0 and f."""
        network = self._exact if x.dtype == torch.float64 else self.network
        z = cast(Tensor, network(x) if self.space == "pixels" else network(x, preprocessed=True))
        if z.shape[1:] == (1,):
            z = z[:, 0]
        if z.dim() == 1:
            z = torch.stack([torch.zeros_like(z), z], dim=1)
        if z.dim() != 2:
            raise InputError(f"network: expected logits (B, C), got {tuple(z.shape)}")
        return z

    def log_odds(self, x: Tensor) -> Tensor:
        """The logit z_y - log sum_{c != y} e^{z_c} of each example's own class, (B,), rows in the sample's order.

        Softmax cross-entropy with a hard label is the logistic loss of it with label 1. Of two classes it is the one
        logit there is, times -1 for class 0.

        Args:
            x: inputs in the space: the sample or its first rows, or others in their place.
        """
        z = self.logits(x)
        own = F.one_hot(self.y[: len(x)], z.shape[1]).bool()
        odds: Tensor = z[own] - z.masked_fill(own, -torch.inf).logsumexp(dim=1)
        return odds

    @property
    def ones(self) -> Tensor:
        """The labels that belong to `log_odds`, (n,)."""
        return torch.ones_like(self.y, dtype=torch.float64)

    def flops(self) -> int:
        """Floating-point operations of one forward pass of one example, counted, so the same on every machine."""
        from torch.utils.flop_counter import FlopCounterMode

        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.logits(self.x[:1])
        # Elementwise work is not counted; of a network of nothing else the input's size stands for it.
        return int(counter.get_total_flops()) + 10 * self.x[0].numel()

    def features(self, x: Tensor) -> Tensor | None:
        """What the last layer sees, float64 (B, D); None where the network does not say.

        Args:
            x: inputs in the space, float64.
        """
        network = self._exact
        if not isinstance(network, Classifier) or network.feature_dim is None:
            return None
        with torch.no_grad():
            return network.features(x, preprocessed=self.space == "input")

    def head(self) -> nn.Linear | None:
        """The last layer, float64, if it is a linear one on `features`."""
        head = getattr(self._exact, "head", None)
        return head if isinstance(head, nn.Linear) and self.features(self.x[:1]) is not None else None

    def modules(self) -> list[nn.Module]:
        """All layers."""
        return list(self.network.modules())
