"""What a method is: a loss over one step, the settings it has, and the needs it declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple, Self, cast, dataclass_transform

from torch import Tensor, nn

from vicinal.methods.step import Model, SpaceName, Step
from vicinal.networks import Autoencoder, Network
from vicinal.vicinity import Regime

Origin = Literal["paper", "official-code", "ours"]

__all__ = ["Context", "Cost", "Method", "Model", "Needs", "Origin", "SpaceName", "Step", "Term"]


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
        strong: strongly augmented views of each unlabelled example, behind the others in ``Step.u`` (images only).
        stages: whether it mixes in hidden layers (the network must name its stages).
        map: whether it needs the last feature map (the network must end with a global average).
        autoencoder: whether it needs a trained autoencoder of the data.
    """

    views: int = 0
    teacher: bool = False
    features: bool = False
    strong: int = 0
    stages: bool = False
    map: bool = False
    autoencoder: bool = False


class Context(NamedTuple):
    """What a method may prepare itself with, once, before training.

    Attributes:
        network: the student, for the sizes of further layers.
        shape: shape of one example, (C, H, W) or (D,).
        rows: number of rows of the training part, which ``Step.u_index`` counts.
        autoencoder: the trained autoencoder, frozen and in eval mode, if the method needs one.
    """

    network: Network
    shape: tuple[int, ...]
    rows: int
    autoencoder: Autoencoder | None = None


class Cost(NamedTuple):
    """Passes of one step, in the notation of the comparison of costs.

    Attributes:
        f: student forward passes on a labelled batch.
        F: student forward passes on an unlabelled batch.
        T: teacher forward passes on an unlabelled batch, without a graph.
        b: full backward passes through f.
        B: full backward passes through F.
        X: backward passes through F to the input alone.
        t: teacher forward passes on a labelled batch, without a graph.
        x: backward passes through f to the input alone.
        h: forward passes of the head alone; each but the searches' has its backward pass.
        e: encoder passes of an autoencoder, without a graph.
        d: passes of a decoder or generator.
        y: backward passes through d.
    """

    f: int = 1
    F: int = 0
    T: int = 0
    b: int = 1
    B: int = 0
    X: int = 0
    t: int = 0
    x: int = 0
    h: int = 0
    e: int = 0
    d: int = 0
    y: int = 0

    def __str__(self) -> str:
        counts = [(name, getattr(self, name)) for name in "fFTthedbBXxy"]
        return "+".join(f"{'' if count == 1 else count}{name}" for name, count in counts if count)


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
    origins: ClassVar[Mapping[str, Origin]] = {}
    """Where the default of each setting comes from: the paper, its official code, or us."""
    experiment: ClassVar[Mapping[str, Any]] = {}
    """Settings of an experiment that this method starts from, where neither a recipe nor the user says otherwise."""
    trains: ClassVar[Literal["classifier", "autoencoder"]] = "classifier"

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

    def prepare(self, context: Context) -> None:
        """Make what the method needs beside the networks (banks, heads, a second network), once, before training.

        Weights are drawn from the global generator, which the caller has seeded.

        Raises:
            InputError: the method cannot work on these data or this network.
        """

    def trained(self) -> Iterable[nn.Parameter]:
        """The method's own parameters that the training's optimiser moves."""
        return self.parameters()

    def after_step(self, step: Step) -> None:
        """What the method does after the optimiser's step and the teacher's: the step of a second network, say."""

    def measured(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """What validation averages over examples, summed over a batch: the number of wrong predictions, a scalar.

        Args:
            network: the evaluated network, in eval mode.
            x: inputs (B, ...) in data space.
            y: classes, int64 (B,).
        """
        return cast(Tensor, (network(x).argmax(dim=1) != y).sum())

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
