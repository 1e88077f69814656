"""Measurements by name, each a value that is called on a network and a set: what a grid may measure of its runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from vicinal.errors import InputError, nearest
from vicinal.evaluation.attacks import PGD
from vicinal.evaluation.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, corrupt
from vicinal.evaluation.smoothness import LocalLinearity, Steepness, lipschitz_quotients, local_linearity
from vicinal.networks import EVAL, applied
from vicinal.settings import check
from vicinal.vicinity.lipschitz import OutputMetric
from vicinal.vicinity.projected import NormName

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Attack(PGD):
    """`PGD` with a default for all of its settings, as a grid needs.

    Args:
        norm: of the ball.
        epsilon: radius, in units of the inputs; by default the usual one for images.
    """

    norm: NormName = "linf"
    epsilon: float = 8 / 255


@dataclass(frozen=True, kw_only=True)
class LipschitzQuotients:
    """Adversarial quotients of output and input distances, see `lipschitz_quotients`.

    Args:
        epsilon: length of the perturbation, > 0, in units of the inputs.
        d_y: distance of outputs.
        iterations: gradients of the search.
    """

    epsilon: float = 0.1
    d_y: OutputMetric = "l2_logits"
    iterations: int = 5

    def __call__(self, network: nn.Module, batches: Batches, seed: int) -> Steepness:
        """Mean and largest quotient over a set."""
        return lipschitz_quotients(
            network, batches, d_y=self.d_y, epsilon=self.epsilon, iterations=self.iterations, seed=seed
        )


@dataclass(frozen=True, kw_only=True)
class Linearity:
    """Local linearity error gamma of the loss, see `local_linearity`.

    Args:
        epsilon: radius of the Linf balls, in units of the inputs.
        steps: of each ascent.
        starts: random starts.
    """

    epsilon: float = 8 / 255
    steps: int = 20
    starts: int = 3

    def __call__(self, network: nn.Module, batches: Batches, seed: int) -> LocalLinearity:
        """Gamma and the size of the linear part, means over a set."""
        return local_linearity(
            network, batches, epsilons=(self.epsilon,), steps=self.steps, starts=self.starts, seed=seed
        )[0]


@dataclass(frozen=True)
class CorruptionFigures:
    """Error on corrupted images.

    Args:
        n: number of examples, each corrupted in every way.
        error: mean over kinds and severities of the share of wrong predictions, in [0,1].
        by_kind: the same for each kind of corruption.
        errors: for each kind, the share of wrong predictions at each of its severities, in their order.
    """

    n: int
    error: float
    by_kind: dict[str, float]
    errors: dict[str, tuple[float, ...]]

    @classmethod
    def of(cls, n: int, errors: Mapping[str, Sequence[float]]) -> Self:
        """The means that belong to ``errors``: every kind counts alike, and so does every severity of a kind."""
        by_kind = {kind: sum(each) / len(each) for kind, each in errors.items()}
        return cls(n, sum(by_kind.values()) / len(by_kind), by_kind, {kind: tuple(e) for kind, e in errors.items()})


@dataclass(frozen=True, kw_only=True)
class Corruptions:
    """Error on corrupted images, not normalised by any reference network.

    Args:
        kinds: kinds of corruption; all 15 of the benchmark by default.
        severities: from 1 to 5.
    """

    kinds: Sequence[str] = tuple(CORRUPTIONS)
    severities: Sequence[int] = SEVERITIES

    def __post_init__(self) -> None:
        for name, given in (("kinds", self.kinds), ("severities", self.severities)):
            if not given:
                raise InputError(f"{name}: there are none; give at least one")
        known = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
        for kind in self.kinds:
            if kind not in known:
                raise InputError(f"kinds: unknown corruption {kind!r}; {nearest(kind, known)}")
        for severity in self.severities:
            check("severities", severity, low=1, high=5)

    def __call__(self, network: nn.Module, batches: Batches, seed: int) -> CorruptionFigures:
        """Errors on a set, the same corrupted images for every network with this seed.

        Eval mode; flags and buffers are left as they were. Each batch is corrupted in every way and then forgotten, so
        that what is held does not grow with the number of examples.

        Raises:
            InputError: there are no examples, or they are no images that `corrupt` takes.
            MissingExtraError: a kind needs a package that is not installed.
        """
        wrong = {kind: [0] * len(self.severities) for kind in self.kinds}
        n = 0
        with torch.no_grad(), applied(network, EVAL):
            for x, y in batches:
                for kind, counts in wrong.items():
                    for place, severity in enumerate(self.severities):
                        corrupted = corrupt(x, kind, severity, seed=seed, first=n).to(x.device)
                        counts[place] += int((network(corrupted).argmax(dim=1) != y).sum())
                n += len(y)
        if not n:
            raise InputError("corruptions: there are no examples to measure; give at least one batch")
        return CorruptionFigures.of(n, {kind: [count / n for count in counts] for kind, counts in wrong.items()})


class Measure(NamedTuple):
    """A measurement that a grid may ask for.

    Attributes:
        settings: the class of its settings, whose objects measure: called with a network, batches and a seed.
        column: head of the table's column.
        figure: the field of the result that the column shows.
        percent: whether it is a share, shown in per cent.
    """

    settings: Callable[..., Any]
    column: str
    figure: str
    percent: bool


MEASURES: Mapping[str, Measure] = {
    "pgd": Measure(Attack, "PGD error %", "error", percent=True),
    "lipschitz": Measure(LipschitzQuotients, "Lipschitz", "mean", percent=False),
    "linearity": Measure(Linearity, "gamma", "gamma", percent=False),
    "corruptions": Measure(Corruptions, "corrupted %", "error", percent=True),
}
