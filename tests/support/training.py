"""A few training steps as the training makes them, on forty examples."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from support.lab import Lab
from vicinal.data import Batches, Examples, SplitIndices
from vicinal.methods import Method
from vicinal.training.config import Training
from vicinal.training.module import VicinalModule

STEPS = 4


def examples(lab: Lab, known: int = 12) -> tuple[Examples, SplitIndices]:
    """Forty examples; the labelled rows are the first ``known``."""
    draws = torch.Generator().manual_seed(2)
    x, y = torch.rand(lab.rows, *lab.shape, generator=draws), torch.randint(lab.classes, (lab.rows,), generator=draws)
    return Examples(x, y), SplitIndices(torch.arange(known), torch.arange(lab.rows), torch.arange(0))


def module_of(lab: Lab, method: Method, network: Any) -> VicinalModule:
    """The module that trains a copy of this network."""
    return VicinalModule(
        copy.deepcopy(network),
        method,
        Training(steps=STEPS, log_every=1),
        seed=3,
        shape=lab.shape,
        rows=lab.rows,
        autoencoder=lab.autoencoder,
    )


def trained(
    lab: Lab, method: Method, network: Any, data: Examples, split: SplitIndices
) -> tuple[list[float], list[Tensor]]:
    """Losses and final parameters of a few steps."""
    module = module_of(lab, method, network)
    optimizer = module.configure_optimizers()["optimizer"]
    batches = Batches(data, split, labelled_batch=lab.labelled, unlabelled_batch=lab.unlabelled, seed=0, steps=STEPS)
    losses = []
    for batch in batches:
        loss = module.training_step(batch, batch.step)
        optimizer.zero_grad()
        loss.backward()
        module.optimizer_step(0, batch.step, optimizer, None)
        losses.append(loss.item())
    return losses, [parameter.detach() for parameter in module.student.parameters()]
