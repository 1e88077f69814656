"""Optimiser, schedule, batch sizes and engine of one training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from vicinal.errors import InputError
from vicinal.schedules import DecayName
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
        weight_decay: L2 penalty added to the gradient (coupled, as published for SGD).
        schedule: how the learning rate decays.
        schedule_full: where cosine and linear reach 0, as a multiple of ``steps``, at least 1.
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
    schedule: DecayName = "cosine"
    schedule_full: float = 1.0
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
        if self.threads is not None:
            check("threads", self.threads, low=1)
        for name in ("batch_labelled", "batch_unlabelled"):
            if getattr(self, name) % self.devices:
                raise InputError(f"{name} ({getattr(self, name)}) must be a multiple of devices ({self.devices})")

    def optimizer_for(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser over these parameters."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                parameters,
                self.learning_rate,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                nesterov=self.nesterov and self.momentum > 0,
            )
        return torch.optim.Adam(
            parameters, self.learning_rate, betas=(self.momentum, self.beta2), weight_decay=self.weight_decay
        )
