"""Small networks, batches and steps for the tests of the methods, and a record of every pass that a step makes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.recorder import Pass, Recorder
from vicinal.methods import METHODS, Context, Method, Step, Term
from vicinal.networks import TRAIN, Autoencoder, Classifier, PassPolicy, mlp, small_cnn
from vicinal.schedules import Progress
from vicinal.vicinity import Mixing, mix

torch.set_num_threads(1)


class ToDouble(nn.Module):
    """A preprocessing layer that lets the network behind it compute in float64, whatever type the inputs have."""

    def forward(self, x: Tensor) -> Tensor:
        return x.double()


class TanhAutoencoder(Autoencoder):
    """Codes of 3 numbers, and a curved way back to examples of any shape."""

    latent = 3

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer(
            "there", torch.randn(3, torch.Size(shape).numel(), generator=torch.Generator().manual_seed(9))
        )

    def encode(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.there.T.to(x.dtype) / 3

    def decode(self, z: Tensor) -> Tensor:
        return (z @ self.there.to(z.dtype)).tanh().view(-1, *self.shape)


class Lab:
    """What the tests of the methods work with: 6 features, 4 classes, batches of 5 and 8."""

    shape: tuple[int, ...] = (6,)
    classes, labelled, unlabelled, rows = 4, 5, 8, 40
    momentum = 0.25
    features = 6
    semi_supervised = tuple(name for name, kind in METHODS.items() if kind.needs.views)

    def __init__(self, labelled: int = 5) -> None:
        draws = torch.Generator().manual_seed(0)
        self.labelled = labelled
        self.x = torch.randn(labelled, *self.shape, generator=draws)
        self.y = torch.tensor([0, 1, 2, 3, 1, 0, 2, 3])[:labelled]
        self.u = tuple(self._inputs(draws) for _ in range(2))
        self.other_u = tuple(self._inputs(draws) for _ in range(2))
        self.strong = (self._inputs(draws),)
        self.u_index = torch.tensor([3, 11, 0, 39, 8, 21, 5, 30])
        self.autoencoder = TanhAutoencoder(self.shape)
        self._prepared: list[Method] = []

    @staticmethod
    def suited(method: Method, **settings: Any) -> Lab:
        """The lab for a method: with images where it needs a feature map or strong views."""
        return ImageLab(**settings) if method.needs.map or method.needs.strong else Lab(**settings)

    def _inputs(self, draws: torch.Generator) -> Tensor:
        return torch.randn(self.unlabelled, *self.shape, generator=draws)

    def network(
        self,
        seed: int = 0,
        *,
        hidden: Sequence[int] = (16,),
        norm: Any = "batch",
        dropout: float = 0.0,
        double: bool = False,
    ) -> Classifier:
        """A multi-layer perceptron with predictions that are neither uniform nor certain."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = mlp((self.features,), self.classes, hidden=hidden, activation="tanh", norm=norm, dropout=dropout)
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.data *= 2
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.momentum = self.momentum
        if double:
            network = network.double()
            network.preprocess = ToDouble()
        return network

    def linear(self, seed: int = 0, *, double: bool = True) -> Classifier:
        """A linear softmax model."""
        return self.network(seed, hidden=(), norm="none", double=double)

    def pair(self, **settings: Any) -> tuple[Classifier, Classifier]:
        """A student and another network as its teacher."""
        return self.network(0, **settings), self.network(1, **settings)

    def step(
        self,
        student: nn.Module,
        teacher: nn.Module | None = None,
        *,
        views: int = 1,
        strong: int = 0,
        u: tuple[Tensor, ...] | None = None,
        seed: int = 1,
        at: int = 30,
        teacher_policy: PassPolicy = TRAIN,
    ) -> Step:
        """A step on these networks, past the end of every default ramp."""
        return Step.of(
            progress=Progress(at, 100),
            seed=seed,
            x=self.x,
            y=self.y,
            u=(self.u if u is None else u)[:views] + self.strong[:strong],
            u_index=self.u_index,
            student=student,
            teacher=teacher,
            teacher_policy=teacher_policy,
        )

    def loss(
        self, method: Method, student: nn.Module, teacher: nn.Module | None = None, **step: Any
    ) -> dict[str, Term]:
        """The terms of a step on these networks, with dropout masks that depend on nothing else."""
        self.prepare(method, student)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            return method.loss(self.step_for(method, student, teacher, **step))

    def step_for(self, method: Method, student: nn.Module, teacher: nn.Module | None = None, **step: Any) -> Step:
        """A step with what the method needs."""
        return self.step(student, teacher, views=method.needs.views, strong=method.needs.strong, **step)

    def prepare(self, method: Method, student: nn.Module, *, again: bool = False) -> Method:
        """Let a method prepare itself, the first time that this lab sees it or ``again``."""
        if again or not any(known is method for known in self._prepared):
            self._prepared.append(method)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(6)
                method.prepare(Context(student, self.shape, self.rows, self.autoencoder))
            method.to(next(student.parameters(), torch.zeros(())).dtype)
        return method

    def terms(
        self, method: Method, student: nn.Module, teacher: nn.Module | None = None, **step: Any
    ) -> dict[str, Term]:
        """The same on copies of the networks: a pass moves running statistics."""
        student, teacher = copy.deepcopy((student, teacher))
        return self.loss(method, student, teacher, **step)

    def consistency(self, method: Method, student: nn.Module, teacher: nn.Module, **step: Any) -> Tensor:
        """The unsupervised term alone, on copies."""
        return self.terms(method, student, teacher, **step)["consistency"].value.detach()

    def record(
        self,
        method: Method,
        student: nn.Module,
        teacher: nn.Module | None = None,
        *,
        backward: bool = True,
        **step: Any,
    ) -> list[Pass]:
        """Every pass of a step on these networks, in their order, and of the backward pass that follows."""
        self.prepare(method, student)
        recorder = Recorder(self.labelled)
        recorder.watch("student", student)
        if teacher is not None:
            recorder.watch("teacher", teacher)
        if isinstance(generator := getattr(method, "generator", None), nn.Module):
            recorder.watch_generator(generator)
        made = self.step_for(method, student, teacher, **step)
        with torch.random.fork_rng(devices=[]), recorder.second(self.autoencoder):
            torch.manual_seed(5)
            loss = self.total(method.loss(made))
            recorder.phase = "loss"
            if backward:
                loss.backward()
                recorder.phase = "search"
                method.after_step(made)
        return recorder.passes

    def total(self, terms: dict[str, Term]) -> Tensor:
        """The training loss."""
        return torch.stack([term.weight * term.value for term in terms.values()]).sum()

    def gradient(self, value: Tensor, network: nn.Module) -> Tensor:
        """Gradient by all parameters of the network, as one vector."""
        parameters = list(network.parameters())
        found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        return torch.cat(
            [
                torch.zeros_like(parameter).flatten() if part is None else part.flatten()
                for parameter, part in zip(parameters, found, strict=True)
            ]
        )

    @contextmanager
    def mixing(self, lam: float, partner: Tensor | None = None) -> Iterator[None]:
        """Every mixing inside has this coefficient, and unlabelled examples have these partners."""

        def fixed(count: int, *_: Any, **__: Any) -> Mixing:
            given = partner is not None and len(partner) == count
            return Mixing(torch.full((count,), lam), partner if given else torch.arange(count).roll(1))

        with pytest.MonkeyPatch.context() as patch:
            for module in ("advmixup", "ict", "mixup"):
                patch.setattr(f"vicinal.methods.{module}.draw_mixing", fixed)
            yield

    def mutate_mix(self, patch: pytest.MonkeyPatch, module: str, *, what: str, how: str) -> None:
        """Mutation: in one method, mix "inputs" or "targets" wrongly: "own" part only, or "swapped" coefficient."""
        width = {"inputs": self.features, "targets": self.classes}[what]

        def wrong(first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
            if first.shape[-1] != width:
                return mix(first, second, lam)
            return first if how == "own" else mix(first, second, 1 - lam)

        patch.setattr(f"vicinal.methods.{module}.mix", wrong)


class ImageLab(Lab):
    """The same with images of 1x6x6 pixels and a small convolutional network, whose last feature map is 3x3."""

    shape = (1, 6, 6)

    def network(  # type: ignore[override]
        self, seed: int = 0, *, dropout: float = 0.0, double: bool = False, norm: Any = "batch"
    ) -> Classifier:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = small_cnn(self.shape, self.classes, widths=(4, 6), norm=norm, dropout=dropout)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = self.momentum
        if double:
            network = network.double()
            network.preprocess = ToDouble()
        return network
