"""Errors along straight paths between examples, and between examples and attacked ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vicinal.evaluation import FGM, interpolation_paths
from vicinal.evaluation.attacks import SpaceName
from vicinal.evaluation.paths import LAMBDAS
from vicinal.networks import Classifier
from vicinal.settings import check
from vicinal.studies.base import Study, Subject
from vicinal.studies.fgm import SingleStep

_PLACES: dict[SpaceName, str] = {"input": "the preprocessed input", "pixels": "data space"}

BATCH = 100
"""The published one: partners are drawn from the same batch."""


@dataclass(frozen=True, kw_only=True)
class Paths(Study):
    """Error between an example and a random partner or an attacked copy of it, where either end's label is right.

    The attack is one step of the fast gradient method in L2. Which attack and radius the published figure has is not
    known; these are our choice.

    Args:
        n: number of examples, spread evenly over them; None for all, as published.
        epsilon: radius of the attack, in units of the space, >= 0; None for the middle one of those of `SingleStep` in
            that space, such as 3 for CIFAR-10 as published, and 3 sqrt(d / 3072) for d standardised features.
        lambdas: weights of the example, in [0,1]; the partner has the rest.
        space: where paths are straight and steps are made, ``"input"`` (the network's preprocessed input, without
            clipping) or ``"pixels"`` (data space); None for the first, as in the published code, where the network has
            a preprocessing layer.

    Raises:
        InputError: a setting is out of range.

    Source: the interpolation-path study in the official code of AdvMixup.
    """

    title: ClassVar[str] = "Interpolation paths"

    n: int | None = None
    epsilon: float | None = None
    lambdas: Sequence[float] = LAMBDAS
    space: SpaceName | None = None

    def __post_init__(self) -> None:
        if self.n is not None:
            check("n", self.n, low=1)
        if self.epsilon is not None:
            check("epsilon", self.epsilon, low=0)

    def refusal(self, subject: Subject) -> str | None:
        """Features that do not vary are refused where the radius would be in units of their spread."""
        space = self._space(subject)
        return subject.no_unit("epsilon") if self.epsilon is None and not _middle_radius(subject, space) else None

    def __call__(self, subject: Subject, seed: int) -> dict[str, Any]:
        """The errors, shares in [0,1] for each kind of path and lambda."""
        space = self._space(subject)
        epsilon = _middle_radius(subject, space) if self.epsilon is None else self.epsilon
        attack = FGM(epsilon=epsilon, bounds=subject.bounds)
        found = interpolation_paths(
            subject.fast, subject.stream(self.n, BATCH), attack, self.lambdas, seed=seed, space=space
        )
        return {
            "n": found.n,
            "space": found.space,
            "attack": f"FGM, radius {epsilon:g} in {_PLACES[found.space]}",
            "epsilon": epsilon,
            "lambdas": list(found.lambdas),
            "errors": {kind: list(errors) for kind, errors in found.errors.items()},
        }

    def _space(self, subject: Subject) -> SpaceName:
        return self.space or ("input" if isinstance(subject.network, Classifier) else "pixels")


def _middle_radius(subject: Subject, space: SpaceName) -> float:
    # In pixels the preprocessing, which the unit of radii would follow, is not what the step is added to.
    seen = subject if space == "input" else dataclasses.replace(subject, preprocess=None)
    radii, _ = SingleStep().radii(seen)
    return radii[len(radii) // 2]
