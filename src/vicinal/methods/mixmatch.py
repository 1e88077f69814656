"""MixMatch (Berthelot et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.methods.base import Cost, Method, Needs, Origin, Step, Term
from vicinal.networks import FROZEN_STATS, TRAIN
from vicinal.schedules import RampName, ramp
from vicinal.settings import check
from vicinal.vicinity import (
    Mixing,
    PerName,
    cross_entropy,
    draw_mixing,
    full_precision,
    interleave,
    mix,
    sharpen,
    squared_error,
)


class MixedBatch(NamedTuple):
    """What MixMatch trains on in one step.

    Attributes:
        guesses: logits of each unlabelled view that the guesses come from, (B_u, C) each.
        inputs: mixed inputs, (B_l + 2 B_u, ...): labelled rows first, then those of either view.
        targets: mixed labels and guesses, (B_l + 2 B_u, C).
    """

    guesses: tuple[Tensor, ...]
    inputs: Tensor
    targets: Tensor


class MixMatch(Method):
    """Guess sharpened labels from two views, and mix labelled and unlabelled examples with each other.

    With u^1, u^2 two weak views of each unlabelled example, X and Y the rows of x, u^1, u^2 and of their labels and
    guesses, pi a random permutation of all rows::

        q_i = Sharpen( (softmax f(u^1_i) + softmax f(u^2_i)) / 2, T )
        lambda_i <- max(lambda_i, 1 - lambda_i),  lambda_i ~ Beta(alpha, alpha)
        X~_i = lambda_i X_i + (1 - lambda_i) X_pi(i),   Y~ likewise
        L = mean_{i labelled} CE(Y~_i, f(X~_i)) + w(t) mean_{i unlabelled, c} ( softmax f(X~_i)_c - Y~_ic )^2

    No gradient reaches the guesses; their passes are in training mode. Every batch is normalised by its own statistics,
    and which batches move the running ones is ``bn_update``. The mixed rows go through the network in three blocks,
    each with a share of labelled rows and of both views (`vicinal.vicinity.interpolation.interleave`), so that the
    first block's statistics describe them all. The batches may differ in size (published: 64 and 64).

    Evaluation is by averaged weights, and the weight decay multiplies kernels after Adam's step: settings of the
    experiment. Source: Berthelot et al. 2019, NeurIPS; defaults are the official TensorFlow code's for CIFAR-10.

    Args:
        alpha: Beta parameter, > 0 (published: 0.75; SVHN with its extra images: 0.25).
        temperature: T > 0 of the guesses (published: 0.5); 1 does not sharpen.
        weight: maximal weight of the unlabelled term, squared error as a mean over classes (published: 75; CIFAR-100
            150, SVHN 250, STL-10 50).
        ramp: how the weight rises.
        ramp_length: share of the training that the rise takes (official code: 2^20 images, which are 16384 of 2^20
            steps; its PyTorch port: 1, the whole training).
        mixing: who is mixed: all rows with all ("joint"), labelled rows and unlabelled ones each among themselves
            ("separate"), only one of them, or none.
        lambda_per: one lambda per sample (official code) or per batch (its PyTorch port).
        fold: replace lambda by max(lambda, 1 - lambda), so that a row keeps the label that is mostly its own.
        layout: "interleaved" blocks, or all mixed rows in one pass ("joint"; normalised together).
        bn_update: passes that move running statistics: the "first" mixed block (official code), all "mixed" ones, or
            "all", those of the guesses too (its PyTorch port).
    """

    needs: ClassVar[Needs] = Needs(views=2)
    cost: ClassVar[Cost] = Cost(f=1, F=4, b=1, B=2)
    source: ClassVar[str] = "Berthelot et al. 2019 (NeurIPS)"
    origins: ClassVar[Mapping[str, Origin]] = {
        "alpha": "official-code",
        "temperature": "official-code",
        "weight": "official-code",
        "ramp": "official-code",
        "ramp_length": "official-code",
        "mixing": "official-code",
        "lambda_per": "official-code",
        "fold": "official-code",
        "layout": "official-code",
        "bn_update": "official-code",
    }
    experiment: ClassVar[Mapping[str, Any]] = {
        "training": {
            "batch_labelled": 64,
            "batch_unlabelled": 64,
            "optimizer": "adam",
            "learning_rate": 0.002,
            "schedule": "constant",
            "weight_decay": 0.02,
            "weight_decay_form": "multiplicative",
            "weight_decay_on": "weights",
        },
        "averaging": {"kind": "ema", "decay": 0.999},
    }

    alpha: float = 0.75
    temperature: float = 0.5
    weight: float = 75.0
    ramp: RampName = "linear"
    ramp_length: float = 1 / 64
    mixing: Literal["joint", "separate", "labelled", "unlabelled", "none"] = "joint"
    lambda_per: PerName = "sample"
    fold: bool = True
    layout: Literal["interleaved", "joint"] = "interleaved"
    bn_update: Literal["first", "mixed", "all"] = "first"

    def __post_init__(self) -> None:
        check("alpha", self.alpha, above=0)
        check("temperature", self.temperature, above=0)
        check("weight", self.weight, low=0)
        check("ramp_length", self.ramp_length, low=0, high=1)

    def loss(self, step: Step) -> dict[str, Term]:
        return self.mixed_terms(step, self.mixed_batch(step))

    def mixed_batch(self, step: Step) -> MixedBatch:
        """Guess, and mix."""
        guesses = tuple(self.guessed(step, view) for view in range(len(step.u)))
        p = torch.stack([full_precision(logits.detach()).softmax(dim=1) for logits in guesses]).mean(dim=0)
        q = sharpen(p, self.temperature)
        inputs = torch.cat([step.x, *step.u])
        targets = torch.cat([F.one_hot(step.y, q.shape[1]).to(q.dtype), *[q] * len(step.u)])
        lam, partner = self._draw(step, len(step.y), len(inputs) - len(step.y))
        return MixedBatch(guesses, mix(inputs, inputs[partner], lam), mix(targets, targets[partner], lam))

    def guessed(self, step: Step, view: int) -> Tensor:
        """Logits (B_u, C) that the guess takes from a view."""
        with torch.no_grad():
            return step.student(step.u[view], TRAIN if self.bn_update == "all" else FROZEN_STATS)

    def mixed_terms(self, step: Step, batch: MixedBatch) -> dict[str, Term]:
        """The two terms, on mixed rows."""
        labelled = len(step.y)
        logits = self._predicted(step, batch.inputs)
        supervised = cross_entropy(batch.targets[:labelled], logits[:labelled]).mean()
        consistency = squared_error(batch.targets[labelled:], logits[labelled:]).mean()
        weight = self.weight * ramp(self.ramp, step.progress, self.ramp_length)
        return {"supervised": Term(supervised), "consistency": Term(consistency, weight)}

    def _predicted(self, step: Step, inputs: Tensor) -> Tensor:
        """Logits of all mixed rows, in their order."""
        if self.layout == "joint":
            return step.student(inputs)
        order = [rows.to(inputs.device, non_blocking=True) for rows in interleave([len(step.x), *map(len, step.u)])]
        later = FROZEN_STATS if self.bn_update == "first" else TRAIN
        logits = [step.student(inputs[rows], later if block else TRAIN) for block, rows in enumerate(order)]
        return torch.cat(logits)[torch.cat(order).argsort()]

    def _draw(self, step: Step, labelled: int, unlabelled: int) -> Mixing:
        def drawn(count: int, purpose: str) -> Mixing:
            draws = step.generator(purpose)
            return draw_mixing(count, self.alpha, draws, per=self.lambda_per, fold=self.fold, device=step.x.device)

        if self.mixing == "joint":
            return drawn(labelled + unlabelled, "mixing")
        parts = {"labelled": drawn(labelled, "labelled mixing"), "unlabelled": drawn(unlabelled, "unlabelled mixing")}
        lam = [
            part.lam if self.mixing in ("separate", name) else torch.ones_like(part.lam) for name, part in parts.items()
        ]
        partner = torch.cat([parts["labelled"].partner, labelled + parts["unlabelled"].partner])
        return Mixing(torch.cat(lam), partner)
