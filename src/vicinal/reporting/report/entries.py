"""What a report gets of one run, as plain data, and how to look things up in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vicinal.errors import InputError


def finite(value: float | None) -> float | None:
    """A figure, or None where it is missing or no finite number, as of a network that diverged.

    >>> finite(0.5), finite(None), finite(math.nan)
    (0.5, None, None)
    """
    return None if value is None or not math.isfinite(value) else float(value)


def known(values: Iterable[float | None]) -> list[float]:
    """Those of some figures that are finite numbers.

    >>> known([0.5, None, math.nan])
    [0.5]
    """
    return [found for value in values if (found := finite(value)) is not None]


@dataclass(frozen=True)
class Entry:
    """One run.

    Args:
        name: the run's path, as it was given.
        evaluation: what its ``evaluation.json`` says.
        experiment: its experiment, as YAML.
        metrics: curves of its training: by column, the steps and values.
        studies: by name, each with its title, settings, seed, figures (None if left out), left_out (why, or None),
            commit and seconds.
        classes: names of the classes.

    Raises:
        InputError: the evaluation says nothing of where it came from.
    """

    name: str
    evaluation: Mapping[str, Any]
    experiment: str
    metrics: Mapping[str, list[tuple[int, float]]]
    studies: Mapping[str, Mapping[str, Any]]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if "provenance" not in self.evaluation:
            raise InputError(f"{self.name}: evaluation.json has no provenance; evaluate the run again")

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where its figures came from."""
        found: Mapping[str, Any] = self.evaluation["provenance"]
        return found

    @property
    def seed(self) -> int:
        """The experiment's seed."""
        return int(self.provenance["seed"])

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.provenance["method"])

    @property
    def part(self) -> str:
        """The part of the data that its figures are of: "test", or "validation" where there is no test part."""
        return "test" if self.evaluation.get("test") or not self.evaluation.get("validation") else "validation"

    @property
    def n(self) -> int | None:
        """Number of examples of that part."""
        found = self.evaluation.get(self.part) or {}
        return found.get("n")

    def figure(self, name: str, which: str = "last") -> float | None:
        """A figure at the end of training (``last``) or at the lowest validation error (``best_validation``).

        None where it was not measured or is no finite number.
        """
        columns = (self.evaluation.get(self.part) or {}).get(name) or {}
        return finite(columns.get(which))

    def has(self, name: str) -> bool:
        """Whether a figure was looked for, be it a number or not."""
        return name in (self.evaluation.get(self.part) or {})

    def study(self, name: str) -> Mapping[str, Any] | None:
        """The figures of a study; None if it is missing or left out."""
        found: Mapping[str, Any] | None = self.studies.get(name, {}).get("figures")
        return found

    def class_name(self, given: object) -> str:
        """A class by name, whether it is given by name or by number."""
        if isinstance(given, int) and 0 <= given < len(self.classes):
            return self.classes[given]
        return str(given)
