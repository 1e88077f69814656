"""Optimiser, schedule, batch sizes and engine of one training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.schedules import Cycle, DecayName
from vicinal.settings import check

PrecisionName = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a network is trained.

    Args:
        steps: number of optimiser steps.
        batch_labelled: labelled examples per step.
        batch_unlabelled: unlabelled examples per step.
        optimizer: SGD or Adam.
        learning_rate: at the start of the schedule.
        momentum: SGD's momentum, or Adam's beta1.
        nesterov: Nesterov's form of SGD's momentum.
        beta2: Adam's second-moment decay.
        weight_decay: strength of the decay.
        weight_decay_form: "coupled" adds an L2 penalty to the gradient, as published for SGD; "multiplicative"
            multiplies by 1 - weight_decay x learning rate after the step (MixMatch).
        weight_decay_on: what it acts on: "all" parameters, or the "weights" of convolutions and linear layers alone, no
            biases and nothing of batch norm (MixMatch's official code).
        schedule: how the learning rate decays.
        schedule_full: where cosine and linear reach 0, as a multiple of ``steps``, at least 1.
        cycle_half_period: of the cyclic schedule's cosine, as a share of ``steps``.
        cycle_start: where its cycles begin.
        cycle_length: of one cycle, at most ``cycle_start``.
        warmup: first steps over which the learning rate rises linearly.
        precision: "32-true", or mixed with bfloat16 or float16; adversarial searches run in float32 throughout.
        channels_last: memory layout of images: faster convolutions, the same numbers up to rounding, but other dropout
            masks (they are drawn in the order of the memory).
        compile: compile the network with torch.compile (pays on a GPU, not for training on a CPU).
        threads: CPU threads; None leaves the choice to PyTorch. Small networks are fastest with 1.
        tune_allocator: keep freed memory in the process instead of returning it to the system (GNU C library; saves
            page faults, up to 2.4 times on large activations, for more resident memory).
        device: "cpu", "cuda", "mps", or "auto" for the best there is.
        devices: number of processes, each with its own device; batches are shared out among them.
        workers: processes that decode data which does not fit in memory.
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints to resume from.
        log_every: steps between rows of the metrics file.
    """

    steps: int = 1000
    batch_labelled: int = 50
    batch_unlabelled: int = 100
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    beta2: float = 0.999
    weight_decay: float = 1e-4
    weight_decay_form: Literal["coupled", "multiplicative"] = "coupled"
    weight_decay_on: Literal["all", "weights"] = "all"
    schedule: DecayName = "cosine"
    schedule_full: float = 1.0
    cycle_half_period: float = 0.175
    cycle_start: float = 0.15
    cycle_length: float = 0.025
    warmup: int = 0
    precision: PrecisionName = "32-true"
    channels_last: bool = True
    compile: bool = False
    threads: int | None = None
    tune_allocator: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    workers: int = 2
    validate_every: int = 100
    checkpoint_every: int = 200
    log_every: int = 10

    def __post_init__(self) -> None:
        sizes = ("steps", "batch_labelled", "batch_unlabelled", "devices")
        for name in (*sizes, "validate_every", "checkpoint_every", "log_every"):
            check(name, getattr(self, name), low=1)
        check("learning_rate", self.learning_rate, above=0)
        for name in ("momentum", "beta2"):
            check(name, getattr(self, name), low=0, high=1)
        for name in ("weight_decay", "warmup", "workers"):
            check(name, getattr(self, name), low=0)
        check("schedule_full", self.schedule_full, low=1)
        check("cycle_half_period", self.cycle_half_period, above=0)
        check("cycle_length", self.cycle_length, above=0)
        check("cycle_start", self.cycle_start, low=self.cycle_length, high=1)
        if self.threads is not None:
            check("threads", self.threads, low=1)
        for name in ("batch_labelled", "batch_unlabelled"):
            if getattr(self, name) % self.devices:
                raise InputError(f"{name} ({getattr(self, name)}) must be a multiple of devices ({self.devices})")

    @property
    def cycle(self) -> Cycle:
        """The cyclic schedule's times."""
        return Cycle(self.cycle_half_period, self.cycle_start, self.cycle_length)

    def decays(self, parameter: Tensor) -> bool:
        """Whether the weight decay acts on this parameter."""
        return self.weight_decay_on == "all" or parameter.dim() > 1

    def decay_after_step(self, optimizer: Any) -> None:
        """The multiplicative decay of all that the optimiser moves, at the learning rate of the step just done."""
        if self.weight_decay_form == "coupled" or not self.weight_decay:
            return
        for group in optimizer.param_groups:
            if decayed := [p.detach() for p in group["params"] if self.decays(p)]:
                torch._foreach_mul_(decayed, 1 - self.weight_decay * float(group["lr"]))

    def optimizer_for(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser over these parameters."""
        decay = self.weight_decay if self.weight_decay_form == "coupled" else 0.0
        given = list(parameters)
        groups: list[dict[str, Any]] = [{"params": [p for p in given if self.decays(p)]}]
        if len(groups[0]["params"]) < len(given):
            groups.append({"params": [p for p in given if not self.decays(p)], "weight_decay": 0.0})
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                groups,
                self.learning_rate,
                momentum=self.momentum,
                weight_decay=decay,
                nesterov=self.nesterov and self.momentum > 0,
            )
        return torch.optim.Adam(groups, self.learning_rate, betas=(self.momentum, self.beta2), weight_decay=decay)
