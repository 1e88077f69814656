"""What a method is: a loss over one step, the settings it has, and the needs it declares."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple, Self, dataclass_transform

import torch
from torch import Tensor, nn

from vicinal.networks import TRAIN, Classifier, PassPolicy, run
from vicinal.randomness import generator, seed_of
from vicinal.schedules import Progress
from vicinal.vicinity import Regime

SpaceName = Literal["pixels", "input"]


class Term(NamedTuple):
    """One named part of a loss: the training loss is the sum of weight * value.

    Attributes:
        value: scalar with a graph.
        weight: its weight at this step, ramps included.
    """

    value: Tensor
    weight: float = 1.0


class Needs(NamedTuple):
    """What a method asks of the training.

    Attributes:
        views: augmented views of each unlabelled example: 0 (uses no unlabelled data), 1 or 2.
        teacher: whether it needs the averaged teacher.
        features: whether it needs pooled features (the network must have a body and a head).
    """

    views: int = 0
    teacher: bool = False
    features: bool = False


class Cost(NamedTuple):
    """Passes of one step, in the notation of the comparison of costs.

    Attributes:
        f: student forward passes on a labelled batch.
        F: student forward passes on an unlabelled batch.
        T: teacher forward passes on an unlabelled batch, without a graph.
        b: full backward passes through f.
        B: full backward passes through F.
        X: backward passes to a perturbation alone.
        t: teacher forward passes on a labelled batch, without a graph.
    """

    f: int = 1
    F: int = 0
    T: int = 0
    b: int = 1
    B: int = 0
    X: int = 0
    t: int = 0

    def __str__(self) -> str:
        forward = [
            f"{'' if count == 1 else count}{name}"
            for name, count in zip("fFTt", (*self[:3], self.t), strict=True)
            if count
        ]
        backward = [
            f"{'' if count == 1 else count}{name}" for name, count in zip("bBX", self[3:6], strict=True) if count
        ]
        return "+".join(forward + backward)


class Model:
    """A network as a method sees it: called on inputs under a pass policy.

    Args:
        network: the network.
        shared_seed: seed of the masks that passes with ``dropout="shared"`` have in common within the step.
        policy: pass policy when none is given.
        gradient: False for a teacher: every pass is without a graph.
    """

    def __init__(
        self, network: nn.Module, *, shared_seed: int, policy: PassPolicy = TRAIN, gradient: bool = True
    ) -> None:
        self.network = network
        self.shared_seed = shared_seed
        self.policy = policy
        self.gradient = gradient

    def __call__(self, x: Tensor, policy: PassPolicy | None = None, *, space: SpaceName = "pixels") -> Tensor:
        """Logits (B, C) for inputs (B, ...) that lie in ``space``."""

        def call(network: nn.Module, x: Tensor) -> Tensor:
            logits: Tensor = network(x) if space == "pixels" else network(x, preprocessed=True)
            return logits

        with torch.set_grad_enabled(self.gradient and torch.is_grad_enabled()):
            return run(self.network, x, policy or self.policy, call=call, shared_seed=self.shared_seed)

    def to_space(self, x: Tensor, space: SpaceName) -> Tensor:
        """Inputs in data space carried to ``space``: themselves, or what the preprocessing layer makes of them."""
        if space == "pixels":
            return x
        assert isinstance(self.network, Classifier)
        with torch.no_grad():
            moved: Tensor = self.network.preprocess(x)
        return moved


@dataclass(frozen=True)
class Step:
    """All that a loss may look at in one training step. Labels of unlabelled data are not part of it.

    Args:
        progress: which step of how many.
        seed: the experiment's seed (of this process's share, if training is distributed).
        x: labelled inputs (B_l, ...), float32, augmented.
        y: their classes, int64 (B_l,).
        student: the network that is trained.
        u: augmented views of the unlabelled inputs, each (B_u, ...); as many as the method needs.
        u_index: rows of the unlabelled inputs in the training part, int64 (B_u,), or None.
        teacher: the averaged network, without gradients, or None.
    """

    progress: Progress
    seed: int
    x: Tensor
    y: Tensor
    student: Model
    u: tuple[Tensor, ...] = ()
    u_index: Tensor | None = None
    teacher: Model | None = None

    def generator(self, purpose: str) -> torch.Generator:
        """The CPU generator of one purpose in this step; asking twice gives the same draws."""
        return generator(self.seed, purpose, self.progress.step)

    @classmethod
    def of(
        cls,
        *,
        progress: Progress,
        seed: int,
        x: Tensor,
        y: Tensor,
        student: nn.Module,
        u: tuple[Tensor, ...] = (),
        u_index: Tensor | None = None,
        teacher: nn.Module | None = None,
        teacher_policy: PassPolicy = TRAIN,
    ) -> Step:
        """Build a step from plain networks."""
        shared = seed_of(seed, "shared masks", progress.step)
        return cls(
            progress=progress,
            seed=seed,
            x=x,
            y=y,
            u=u,
            u_index=u_index,
            student=Model(student, shared_seed=shared),
            teacher=None
            if teacher is None
            else Model(teacher, shared_seed=shared, policy=teacher_policy, gradient=False),
        )


@dataclass_transform(eq_default=False, kw_only_default=True)
class Method(nn.Module):
    """Base of all methods. A subclass's annotated attributes are its settings, keyword-only, as in a dataclass.

    A method is a module so that one which has state (buffers, further heads) finds it saved, moved and optimised with
    the network.
    Write the equations in the subclass's docstring; its first line is what ``vicinal methods`` prints.
    """

    needs: ClassVar[Needs] = Needs()
    cost: ClassVar[Cost] = Cost()
    source: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(eq=False, kw_only=True)(cls)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ARG004
        # nn.Module wants its own set-up before a dataclass's __init__ assigns the settings.
        self = super().__new__(cls)
        nn.Module.__init__(self)
        return self

    def loss(self, step: Step) -> dict[str, Term]:
        """Named loss terms of one step; the same names at every step. The labelled pass comes first in every method."""
        raise TypeError(f"{type(self).__name__} defines no loss")

    @property
    def regime(self) -> Regime | None:
        """Whether the adversarial search is of first or second order (see `vicinal.vicinity.adversary`), or None."""
        return None

    def passes(self) -> Cost:
        """Passes of one step with these settings."""
        return self.cost

    def settings(self) -> dict[str, Any]:
        """All settings by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]
