"""What a training step costs at least: the bare network passes that its method declares, beside the step itself.

The *floor* of a step is its network passes and nothing else: ``network(x)`` on inputs that are ready (float32,
augmented, in the layout of training; the preprocessing layer is part of the network), and backward passes from output
gradients that are ready. No data, no augmentation, no draws, no loss, no optimiser, no teacher update. Which passes:
`Method.passes()`,

    f, F   student forward passes on a labelled, an unlabelled batch; with a graph where a backward pass follows
    T, t   teacher forward passes without a graph
    b, B   full backward passes through an f, an F, all started by one call, as by the step's one loss
    X      backward passes of an F to its input alone: no gradient of a parameter is computed

The *step* is all that the library does in one step of a training: the next rows, their views, the method's loss, its
backward pass, the optimiser, the schedule, the teacher. Clearing gradients is in neither; nor is Lightning's loop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from vicinal.data import Augment, Batches, Examples, SplitIndices
from vicinal.methods import Method
from vicinal.networks import Classifier
from vicinal.training.config import Training
from vicinal.training.module import VicinalModule

ROWS = 1000
"""Synthetic training images: enough that gathering a batch walks through memory as it does on real data."""


class Counts(NamedTuple):
    """What was counted while something ran.

    Attributes:
        flops: floating-point operations of convolutions and matrix products (torch's counter).
        calls: calls of ATen operators.
    """

    flops: int
    calls: int


class Subject:
    """One method on one network and synthetic images, ready to run its step or its floor.

    Args:
        method: the method.
        network: the student; its weights are changed by steps.
        shape: shape of one image, (C, H, W).
        labelled: labelled images per step.
        unlabelled: unlabelled images per step.
        augment: augmentation of every view.
        device: where to run.
        channels_last: memory layout of images and weights.
        bf16: run forward passes and losses under bfloat16 autocast, as training in mixed precision does.
        seed: names every draw.
    """

    def __init__(
        self,
        method: Method,
        network: Classifier,
        *,
        shape: tuple[int, int, int],
        labelled: int,
        unlabelled: int,
        augment: Augment | None = None,
        device: torch.device | str = "cpu",
        channels_last: bool = True,
        bf16: bool = False,
        seed: int = 0,
    ) -> None:
        self.method = method
        # A learning rate so small that hundreds of steps on random labels leave the numbers what they were.
        training = Training(
            steps=10**6,
            batch_labelled=labelled,
            batch_unlabelled=unlabelled,
            learning_rate=1e-6,
            channels_last=channels_last,
        )
        augment = augment or Augment(crop=2, flip=True)
        self.module = VicinalModule(network, method, training, augment=augment, seed=seed).to(device)
        self.module.train()
        configured = self.module.configure_optimizers()
        self.optimizer: torch.optim.Optimizer = configured["optimizer"]
        self.schedule: Any = configured["lr_scheduler"]["scheduler"]
        draws = torch.Generator().manual_seed(seed)
        rows = torch.arange(ROWS)
        train = Examples(
            torch.randint(256, (ROWS, *shape), generator=draws, dtype=torch.uint8),
            torch.randint(network.classes, (ROWS,), generator=draws),
        )
        split = SplitIndices(labelled=rows, unlabelled=rows, validation=rows[:0])
        uses = method.needs.views > 0
        batches = Batches(
            train,
            split,
            labelled_batch=labelled,
            unlabelled_batch=unlabelled,
            seed=seed,
            steps=training.steps,
            unlabelled=uses,
            device=device,
        )
        self.batches = iter(batches)
        self._cast = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16)
        layout = torch.channels_last if channels_last else torch.contiguous_format

        def ready(count: int, *size: int) -> Tensor:
            return torch.rand(count, *size, generator=draws).to(device)

        self._x = ready(labelled, *shape).contiguous(memory_format=layout)
        self._u = ready(unlabelled, *shape).contiguous(memory_format=layout)
        self._grad_x = ready(labelled, network.classes) - 0.5
        self._grad_u = ready(unlabelled, network.classes) - 0.5

    def clear(self) -> None:
        """Drop all gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def feed(self) -> None:
        """The part of a step that makes its inputs: the next rows, and their augmented float views."""
        self.module.step_of(next(self.batches))

    def follow(self) -> None:
        """The part of a step that moves the teacher, if there is one."""
        if self.module.teacher is not None:
            self.module.teacher.update(self.module.student)

    def optimise(self) -> None:
        """The part of a step that moves the student; it needs gradients."""
        self.optimizer.step()
        self.schedule.step()

    def step(self) -> None:
        """One training step."""
        batch = next(self.batches)
        with self._cast:
            loss = self.module.training_step(batch, batch.step)
        loss.backward()
        self.optimise()
        self.follow()

    def floor(self) -> None:
        """The network passes that the step needs, and nothing else."""
        with self._cast:
            logits, gradients = self._forward()
        torch.autograd.backward(logits, gradients)

    def _forward(self) -> tuple[list[Tensor], list[Tensor]]:
        """All passes but the last backward: the logits that it starts from, and its gradients on them."""
        cost = self.method.passes()
        student, teacher = self.module.student, self.module.teacher
        logits = [student(self._x) for _ in range(cost.b)]  # first, as in every method: its graph lives on
        with torch.no_grad():
            for _ in range(cost.f - cost.b):
                student(self._x)
            for _ in range(cost.F - cost.B - cost.X):
                student(self._u)
            if teacher is not None:
                for _ in range(cost.T):
                    teacher.network(self._u)
                for _ in range(cost.t):
                    teacher.network(self._x)
        for _ in range(cost.X):
            u = self._u.detach().requires_grad_()
            # Through a view, because the FLOP counter cannot follow a gradient to an input that is itself a leaf.
            out = student(u.view_as(u))
            torch.autograd.grad(out, u, self._grad_u.to(out.dtype))
        logits += [student(self._u) for _ in range(cost.B)]
        gradients = [self._grad_x] * cost.b + [self._grad_u] * cost.B
        return logits, [gradient.to(out.dtype) for out, gradient in zip(logits, gradients, strict=True)]


def count(run: Any) -> Counts:
    """What a call without arguments does, counted."""
    with FlopCounterMode(display=False) as flops, _Calls() as calls:  # type: ignore[no-untyped-call]
        run()
    return Counts(int(flops.get_total_flops()), calls.total)


class _Calls(TorchDispatchMode):
    """Counts the operators that reach the dispatcher below autograd."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.total += 1
        return func(*args, **(kwargs or {}))
