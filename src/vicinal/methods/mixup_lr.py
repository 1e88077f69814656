"""Mixup-LR (arXiv:2009.11416): mixing, which flattens the gradient, and a penalty on the slope itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vicinal.methods.base import Cost, Method, Origin, SpaceName, Step, Term
from vicinal.methods.ict import ICT
from vicinal.methods.mixmatch import MixedBatch, MixMatch
from vicinal.networks import PassPolicy
from vicinal.schedules import RampName, ramp
from vicinal.settings import check
from vicinal.vicinity import (
    InputMetric,
    LipschitzSettings,
    OutputMetric,
    adversarial_neighbour,
    draw_mixing,
    lipschitz_penalty,
    mix,
)

_ORIGINS: Mapping[str, Origin] = {
    "lam": "official-code",
    "lam_ramp": "official-code",
    "d_x": "official-code",
    "d_y": "official-code",
    "K": "official-code",
    "power": "official-code",
    "sides": "official-code",
    "xi": "official-code",
    "iterations": "official-code",
    "epsilon_min": "official-code",
    "epsilon_max": "official-code",
    "space": "official-code",
    "clip": "ours",
    "clip_result": "official-code",
    "detach_clean": "official-code",
    "direction": "official-code",
    "fallback": "ours",
    "bn_mode": "ours",
    "targets": "official-code",
}


class LipschitzTerm(Method):
    """An adversarial Lipschitz penalty beside a method's own terms: what the two variants of Mixup-LR have in common.

    Args:
        lam: weight of the penalty, >= 0 (official code: 2). 0 leaves out its passes: the method is its base.
        lam_ramp: how that weight rises, over ``ramp_length`` like the other (official code: none).
        d_x: distance of inputs: "l2", or "one" (constant 1; KL, K = 0 and power 1 then make it VAT's term).
        d_y: distance of outputs: "kl" of the clean from the moved prediction; "sqrt_2kl", locally a Lipschitz
            constant, which KL / ||r|| is not: that vanishes with ||r||; "l2_logits" or "l2_probs".
        K: slope that is free of charge, >= 0, in units of ``d_y`` per unit of ``d_x``.
        power: exponent of the excess over K.
        sides: "one": only slopes above K cost; "two": those below as well.
        xi: length of the search's probing step (official code: 10, as long as the longest r).
        iterations: steps of the search, >= 0.
        epsilon_min: smallest length of r, >= 0.
        epsilon_max: largest; the length is uniform between the two, for each sample.
        space: where r lies and is measured: the network's preprocessed "input" (official code: standardised pixels), or
            "pixels", which is data space.
        clip: bounds (low, high) in ``space`` that probed inputs are clamped to. The official code's (-1, 1) cuts
            standardised inputs themselves, so that many entries of r are exactly 0.
        clip_result: whether x + r is clamped as well.
        detach_clean: whether the clean prediction is a constant, a fixed target, or gets its share of the gradient.
        direction: the search's random start: "uniform" in a cube, normalised (official code), or "gaussian".
        fallback: what becomes of samples without a usable gradient: "epsilon" keeps their last direction and their
            length; "unit" takes a random direction of length 1 where the length is out of bounds (official code).
        bn_mode: batch norm in the penalty's passes. "train_cloned": batch statistics, and running ones stay as they
            are; "eval": running statistics, so that no sample's r depends on the others; "train_live": as the official
            code: further clean and moved passes in training mode that move running statistics.
        targets: whose slope is penalised: unmixed "unlabelled" examples, "labelled" ones, or "mixed" unlabelled ones.
    """

    lam: float = 2.0
    lam_ramp: RampName = "none"
    d_x: InputMetric = "l2"
    d_y: OutputMetric = "kl"
    K: float = 0.0
    power: int = 1
    sides: Literal["one", "two"] = "one"
    xi: float = 10.0
    iterations: int = 2
    epsilon_min: float = 0.1
    epsilon_max: float = 10.0
    space: SpaceName = "input"
    clip: tuple[float, float] | None = None
    clip_result: bool = False
    detach_clean: bool = True
    direction: Literal["uniform", "gaussian"] = "uniform"
    fallback: Literal["epsilon", "unit"] = "epsilon"
    bn_mode: Literal["train_cloned", "eval", "train_live"] = "train_cloned"
    targets: Literal["unlabelled", "labelled", "mixed"] = "unlabelled"

    def check_penalty(self) -> None:
        """Check the penalty's settings.

        Raises:
            InputError: one is out of its range.
        """
        check("lam", self.lam, low=0)
        self._settings = LipschitzSettings(
            **{item.name: getattr(self, item.name) for item in fields(LipschitzSettings)}
        )

    def penalised(self, base: Cost, *, batches: int = 1, reused: bool = False) -> Cost:
        """The passes of a method with the penalty on so many batches.

        Args:
            base: passes of the method without it.
            batches: batches whose slope is penalised.
            reused: whether their clean logits are there already.
        """
        if self.lam == 0:
            return base
        forward = batches * (self.iterations + (1 if reused else 2))
        backward, search = batches * (1 if self.detach_clean else 2), batches * self.iterations
        if self.targets == "labelled":
            return base._replace(f=base.f + forward, b=base.b + backward, x=base.x + search)
        return base._replace(F=base.F + forward, B=base.B + backward, X=base.X + search)

    @property
    def penalty_policy(self) -> PassPolicy:
        """Policy of the clean and moved passes: in float32 and with the same masks, for their difference counts."""
        mode: Literal["train", "eval"] = "eval" if self.bn_mode == "eval" else "train"
        return PassPolicy(mode=mode, update_stats=self.bn_mode == "train_live", dropout="shared", fp32=True)

    def penalty(self, step: Step, batches: list[tuple[Tensor, Tensor | None]], share: float) -> Term:
        """The weighted penalty, a mean over all samples.

        Args:
            step: the step.
            batches: inputs (B, ...) in data space, and their clean logits (B, C) where they are there already: from a
                pass under `penalty_policy`, with a graph unless ``detach_clean``.
            share: share of ``lam`` that its ramp has reached.
        """
        if self.lam == 0:
            return Term(torch.zeros((), device=step.x.device), 0.0)
        draws = step.generator("adversary")
        policy = self.penalty_policy
        search = replace(policy, update_stats=False)
        values = []
        for batch, given in batches:
            x = step.student.to_space(batch, self.space)
            if given is None:
                with torch.set_grad_enabled(not self.detach_clean):
                    given = step.student(x, policy, space=self.space)
            r = adversarial_neighbour(
                lambda v: step.student(v, search, space=self.space),
                x,
                self._settings,
                draws,
                clean_logits=given.detach(),
            ).r
            moved = step.student(x + r, policy, space=self.space)
            values.append(lipschitz_penalty(given, moved, r, self._settings).mean())
        return Term(torch.stack(values).mean(), self.lam * share)


class MixupLR(MixMatch, LipschitzTerm):
    """MixMatch, and a penalty on how steeply the prediction changes around each unlabelled example.

    Mixing penalises curvature along the chords between examples; an affine function has none, however steep. With q the
    quotient of distances between outputs and inputs, in the worst direction that a search finds::

        L = L_MixMatch + lam mean_i max( q_i - K, 0 )^power
        q_i = d_Y( f(u_i), f(u_i + r_i) ) / d_X( u_i, u_i + r_i ),   ||r_i|| = epsilon_i ~ U(epsilon_min, epsilon_max)

    on unmixed unlabelled views; r is a constant. Each step penalises one view, whose clean prediction the guess has
    made already: in expectation the loss with both, at less than half of the image passes of the official code.
    With ``lam`` > 0 this guess's pass is in float32, and its dropout masks are the search's. Source: arXiv:2009.11416
    with arXiv:1907.05681; beyond their abstracts, our reading of the official code, whose settings are the defaults but
    for ``clip``, ``fallback``, ``bn_mode`` and ``views``.

    Args:
        views: how many of the two views are penalised, 1 or 2 (official code: 2).
    """

    cost: ClassVar[Cost] = Cost(f=1, F=7, b=1, B=3, X=2)
    source: ClassVar[str] = "Mixup-LR 2020 (ICDM), on MixMatch"
    origins: ClassVar[Mapping[str, Origin]] = {**MixMatch.origins, **_ORIGINS, "views": "ours"}

    views: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_penalty()
        check("views", self.views, low=1, high=2)

    @property
    def _reuses(self) -> bool:
        """Whether the guess's logits are the penalty's clean ones."""
        return self.lam > 0 and self.targets == "unlabelled" and self.bn_mode == "train_cloned"

    def passes(self) -> Cost:
        batches = 1 if self.targets == "labelled" else self.views
        return self.penalised(MixMatch.cost, batches=batches, reused=self._reuses)

    def guessed(self, step: Step, view: int) -> Tensor:
        if not self._reuses or view >= self.views:
            return super().guessed(step, view)
        policy = replace(self.penalty_policy, update_stats=self.bn_update == "all")
        with torch.set_grad_enabled(not self.detach_clean):
            return step.student(step.u[view], policy)

    def loss(self, step: Step) -> dict[str, Term]:
        batch = self.mixed_batch(step)
        terms = self.mixed_terms(step, batch)
        share = ramp(self.lam_ramp, step.progress, self.ramp_length)
        return {**terms, "lipschitz": self.penalty(step, self._penalised_batches(step, batch), share)}

    def _penalised_batches(self, step: Step, batch: MixedBatch) -> list[tuple[Tensor, Tensor | None]]:
        if self._reuses:
            return list(zip(step.u[: self.views], batch.guesses, strict=False))
        if self.targets == "labelled":
            return [(step.x, None)]
        if self.targets == "unlabelled":
            return [(torch.cat(step.u[: self.views]), None)]
        first = len(step.x)
        return [(batch.inputs[first : first + self.views * len(step.u[0])], None)]


class MixupLRICT(ICT, LipschitzTerm):
    """ICT, and a penalty on how steeply the student's prediction changes around each unlabelled example.

    With the quotient q of `MixupLR`, on the student's clean and moved predictions of unmixed u::

        L = L_ICT + lam mean_i max( q_i - K, 0 )^power

    The published code has the penalty on MixMatch alone; the pair with ICT and its settings are our reading. Source:
    arXiv:2009.11416.
    """

    cost: ClassVar[Cost] = Cost(f=1, F=5, T=1, b=1, B=2, X=2)
    source: ClassVar[str] = "Mixup-LR 2020 (ICDM), on ICT"
    origins: ClassVar[Mapping[str, Origin]] = {**ICT.origins, **_ORIGINS}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_penalty()

    def passes(self) -> Cost:
        return self.penalised(ICT(logging_passes=self.logging_passes).passes())

    def loss(self, step: Step) -> dict[str, Term]:
        terms = super().loss(step)
        share = ramp(self.lam_ramp, step.progress, self.ramp_length)
        return {**terms, "lipschitz": self.penalty(step, [(self._penalised_batch(step), None)], share)}

    def _penalised_batch(self, step: Step) -> Tensor:
        if self.targets == "labelled":
            return step.x
        (u,) = step.u
        if self.targets == "unlabelled":
            return u
        # The draws of ICT's own mixing: the same purpose gives the same ones.
        draws = step.generator("unlabelled mixing")
        mixing = draw_mixing(len(u), self.alpha, draws, per=self.lambda_per, fold=self.fold, device=u.device)
        return mix(u, u[mixing.partner], mixing.lam)
