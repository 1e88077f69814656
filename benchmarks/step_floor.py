"""What a training step costs at least: the bare network passes that its method declares, beside the step itself.

The *floor* of a step is its network passes and nothing else: ``network(x)`` on inputs that are ready (float32,
augmented, in the layout of training; the preprocessing layer is part of the network), and backward passes from output
gradients that are ready. No data, no augmentation, no draws, no loss, no optimiser, no teacher update. Which passes:
`Method.passes()`,

    f, F   student forward passes on a labelled, an unlabelled batch; with a graph where a backward pass follows
    T, t   teacher forward passes without a graph
    b, B   full backward passes through an f, an F, all started by one call, as by the step's one loss
    x, X   backward passes of an f, an F to its input alone: no gradient of a parameter is computed
    h      passes of the student's head alone, in pairs: a search's, forward and backward to the features alone, and one
           of the loss, for which an F has ended with its features: the floor's F includes it
    e      passes of the second network's encoder without a graph
    d, y   passes of its decoder, or of a generator; y of them with a backward pass: to the parameters if these are
           trained, else to the codes

A method may make its passes in another way than the letters say: several batches joined into one, or a pass that leaves
out the head. The floor goes by the letters; `step_count` has what then differs.

The *step* is all that the library does in one step of a training: the next rows, their views, the method's loss, its
backward pass, the optimiser, what follows it (teacher, averaged weights, the step of a second network), the schedule.
Clearing gradients is in neither; nor is Lightning's loop. Optimiser and averaging are those that the method starts
from, except for the learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vicinal.data import Augment, Batches, Examples, SplitIndices
from vicinal.methods import Cost, Method
from vicinal.networks import Autoencoder, Classifier, Network, mmd_vae
from vicinal.training.averaging import AveragingSettings
from vicinal.training.config import Training
from vicinal.training.module import VicinalModule
from vicinal.training.teacher import Teacher

ROWS = 1000
"""Synthetic training images: enough that gathering a batch walks through memory as it does on real data."""
CLASSES = 10
"""Of the labels beside a network that has no classes of its own."""
WIDTHS = (16, 32)
"""Of the autoencoder given to methods that need one: untrained, and small, as the student is."""


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
        network: Network,
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
        self.unlabelled = unlabelled
        classes = network.classes if isinstance(network, Classifier) else CLASSES
        own = dict(method.experiment.get("training", {}))
        # A learning rate so small that hundreds of steps on random labels leave the numbers what they were.
        own |= {"steps": 10**6, "batch_labelled": labelled, "batch_unlabelled": unlabelled, "learning_rate": 1e-6}
        training = Training(**own, channels_last=channels_last)
        draws = torch.Generator().manual_seed(seed)
        autoencoder: Autoencoder | None = None
        if method.needs.autoencoder:
            autoencoder = mmd_vae(shape, classes, widths=WIDTHS).requires_grad_(False).to(device)
        self.module = VicinalModule(
            network,
            method,
            training,
            augment=augment or Augment(**{"crop": 2, "flip": True, **method.experiment.get("augment", {})}),
            averaging=AveragingSettings(**method.experiment.get("averaging", {})),
            seed=seed,
            shape=shape,
            rows=ROWS,
            autoencoder=autoencoder,
        ).to(device)
        self.module.train()
        if autoencoder is not None:
            autoencoder.eval()
        configured = self.module.configure_optimizers()
        self.optimizer: torch.optim.Optimizer = configured["optimizer"]
        self.schedule: Any = configured["lr_scheduler"]["scheduler"]
        rows = torch.arange(ROWS)
        train = Examples(
            torch.randint(256, (ROWS, *shape), generator=draws, dtype=torch.uint8),
            torch.randint(classes, (ROWS,), generator=draws),
        )
        uses = method.needs.views + method.needs.strong > 0
        batches = Batches(
            train,
            SplitIndices(labelled=rows, unlabelled=rows, validation=rows[:0]),
            labelled_batch=labelled,
            unlabelled_batch=unlabelled,
            seed=seed,
            steps=training.steps,
            unlabelled=uses,
            device=device,
        )
        self.batches = iter(batches)
        self._cast = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16)
        self._second: Any = autoencoder or getattr(method, "generator", None)
        layout = torch.channels_last if channels_last else torch.contiguous_format

        def ready(*size: int) -> Tensor:
            made = torch.rand(*size, generator=draws).to(device)
            return made.contiguous(memory_format=layout) if made.dim() == 4 else made

        out = (classes,) if isinstance(network, Classifier) else shape
        self._x, self._u = (ready(count, *shape) for count in (labelled, unlabelled))
        self._grad_x, self._grad_u = (ready(count, *out) - 0.5 for count in (labelled, unlabelled))
        if method.needs.features:
            assert isinstance(network, Classifier)
            assert network.feature_dim is not None
            self._features = ready(unlabelled, network.feature_dim)
        if self._second is not None:
            many = unlabelled if uses else labelled
            self._codes = 2 * ready(many, self._second.latent) - 1
            self._grad_data = ready(many, *shape) - 0.5
            self._coded = self._u if uses else self._x

    def clear(self) -> None:
        """Drop all gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def feed(self) -> None:
        """The part of a step that makes its inputs: the next rows, and their augmented float views."""
        self.module.step_of(next(self.batches))

    def follow(self) -> None:
        """The part of a step that moves the averages of the student: the teacher, and what is evaluated."""
        for follower in (self.module.teacher, self.module.average):
            if isinstance(follower, Teacher):
                follower.update(self.module.student)

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
        self.module.optimizer_step(0, batch.step, self.optimizer, None)
        self.schedule.step()

    def floor(self) -> None:
        """The network passes that the step needs, and nothing else."""
        with self._cast:
            outputs, gradients = self._forward()
        torch.autograd.backward(outputs, gradients)

    def _forward(self) -> tuple[list[Tensor], list[Tensor]]:
        """All passes but the last backward: the outputs that it starts from, and its gradients on them."""
        cost = self.method.passes()
        student, teacher = self.module.student, self.module.teacher
        outputs = [student(self._x) for _ in range(cost.b)]  # first, as in every method: its graph lives on
        with torch.no_grad():
            _repeat(cost.f - cost.b - cost.x, student, self._x)
            _repeat(cost.F - cost.B - cost.X, student, self._u)
            if teacher is not None:
                _repeat(cost.T, teacher.network, self._u)
                _repeat(cost.t, teacher.network, self._x)
        if self._second is not None:
            self._second_passes(cost)
        for count, x, gradient in ((cost.x, self._x, self._grad_x), (cost.X, self._u, self._grad_u)):
            for _ in range(count):
                _backward_to(x.detach().requires_grad_(), student, gradient)
        for _ in range(cost.h // 2):
            _backward_to(self._features.detach().requires_grad_(), student.head, self._grad_u)
        outputs += [student(self._u) for _ in range(cost.B)]
        gradients = [self._grad_x] * cost.b + [self._grad_u] * cost.B
        return outputs, [gradient.to(out.dtype) for out, gradient in zip(outputs, gradients, strict=True)]

    def _second_passes(self, cost: Cost) -> None:
        """The passes of an autoencoder or a generator."""
        network = self._second
        decode = getattr(network, "decode", network)
        with torch.no_grad():
            _repeat(cost.e, getattr(network, "encode", None), self._coded)
            _repeat(cost.d - cost.y, decode, self._codes)
        for _ in range(cost.y):
            trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
            codes = self._codes.detach().requires_grad_(not trained)
            _backward_to(codes, decode, self._grad_data, trained)


def _repeat(times: int, call: Any, x: Tensor) -> None:
    for _ in range(times):
        call(x)


def _backward_to(x: Tensor, call: Any, gradient: Tensor, targets: Sequence[Tensor] = ()) -> None:
    """A pass and the gradient for ``targets``, or for its input if there are none."""
    out = call(x)
    torch.autograd.grad(out, targets or [x], gradient.to(out.dtype))
