"""Small networks, batches and steps for the tests of the methods; the fixture `lab` gives them out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.methods import METHODS, Method, Step, Term
from vicinal.networks import TRAIN, Classifier, PassPolicy, mlp
from vicinal.schedules import Progress
from vicinal.vicinity import Mixing, mix

torch.set_num_threads(1)


class ToDouble(nn.Module):
    """A preprocessing layer that lets the network behind it compute in float64, whatever type the inputs have."""

    def forward(self, x: Tensor) -> Tensor:
        return x.double()


@dataclass
class Pass:
    """One forward pass that a method made.

    Attributes:
        network: "student" or "teacher".
        batch: "f" for the labelled batch, "F" for the unlabelled one.
        x: what went in.
        dtype: of the logits that came out.
        updated: whether any buffer changed.
        backward: for each backward pass through it, "search" or "loss".
    """

    network: str
    batch: str
    x: Tensor
    dtype: torch.dtype | None = None
    updated: bool = False
    backward: list[str] = field(default_factory=list)


class Lab:
    """What the tests of the methods work with: 6 features, 4 classes, batches of 5 and 8."""

    features, classes, labelled, unlabelled = 6, 4, 5, 8
    momentum = 0.25
    semi_supervised = tuple(name for name, kind in METHODS.items() if kind.needs.views)

    def __init__(self) -> None:
        draws = torch.Generator().manual_seed(0)
        self.x = torch.randn(self.labelled, self.features, generator=draws)
        self.y = torch.tensor([0, 1, 2, 3, 1])
        self.u = (self._inputs(draws), self._inputs(draws))
        self.other_u = (self._inputs(draws), self._inputs(draws))

    def _inputs(self, draws: torch.Generator) -> Tensor:
        return torch.randn(self.unlabelled, self.features, generator=draws)

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
            u=(self.u if u is None else u)[:views],
            student=student,
            teacher=teacher,
            teacher_policy=teacher_policy,
        )

    def loss(
        self, method: Method, student: nn.Module, teacher: nn.Module | None = None, **step: Any
    ) -> dict[str, Term]:
        """The terms of a step on these networks, with dropout masks that depend on nothing else."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            return method.loss(self.step(student, teacher, views=method.needs.views, **step))

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
        passes: list[Pass] = []
        before: list[Tensor] = []
        phase = "search"

        def enter(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            before[:] = [buffer.clone() for buffer in network.buffers()]
            name, batch = (
                "student" if network is student else "teacher",
                "f" if len(inputs[0]) == self.labelled else "F",
            )
            passes.append(Pass(name, batch, inputs[0]))

        def leave(network: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
            made = passes[-1]
            made.dtype = logits.dtype
            made.updated = any(not torch.equal(old, new) for old, new in zip(before, network.buffers(), strict=True))
            if logits.requires_grad:
                logits.register_hook(lambda gradient: made.backward.append(phase))

        for network in (student, teacher):
            if network is not None:
                network.register_forward_pre_hook(enter)
                network.register_forward_hook(leave)
        loss = self.total(self.loss(method, student, teacher, **step))
        phase = "loss"
        if backward:
            loss.backward()
        return passes

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


@pytest.fixture
def lab() -> Lab:
    return Lab()
