"""In what the measurements of a chapter's runs differ, and the mean over what all of them have."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vicinal.reporting.report.entries import Entry, known
from vicinal.reporting.report.grouping import Chapter
from vicinal.reporting.report.measures import NORMS, curves
from vicinal.reporting.report.numbers import Measure
from vicinal.reporting.tables import mean_and_std

_MADE = {
    "n": "n",
    "kinds": "kinds of corruption",
    "extra": "extra kinds of corruption",
    "severities": "severities",
    "origin": "origin of the images",
    "epsilons": "radii",
    "epsilon": "radius",
    "lambdas": "places on the paths",
    "attack": "attack",
    "bins": "bins",
    "space": "space",
    "preprocess": "preprocessing",
}
"""What figures say of how they were made, with its name in prose. It may differ where settings are equal: defaults
follow the network and what is installed."""


def uneven(chapter: Chapter, study: str) -> str | None:
    """A warning where a study was made in different ways for different runs: by settings, data, code or black box."""
    made = [entry.studies[study] for entry in chapter.entries if entry.study(study) is not None]
    asked = [{"seed": each.get("seed"), "commit": each.get("commit"), **(each.get("settings") or {})} for each in made]
    got = [
        {**{name: figures.get(key) for key, name in _MADE.items()}, **_radii(figures), **_box(figures)}
        for figures in (each["figures"] for each in made)
    ]
    unequal = [*_unequal(asked), *_unequal(got)]
    if not unequal:
        return None
    told = ", ".join(dict.fromkeys(unequal))
    return f"Runs were measured with different settings of this study ({told}): compare them with care."


def _radii(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The radii of each attack, its space and its steps; what a black box adds is not among them."""
    return {
        f"attack or radii of {curve.attack.name}, {NORMS.get(curve.attack.norm, curve.attack.norm)}": (
            curve.attack,
            tuple(curve.errors),
        )
        for curve in curves(figures)
        if curve.box == "white"
    }


def _box(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {"with or without a black box": bool(figures["source"])} if "source" in figures else {}


def _unequal(given: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for each in given for name in each)
    return [name for name in names if len({repr(each.get(name)) for each in given}) > 1]


@dataclass(frozen=True)
class Shared:
    """The kinds of corruption, and the severities, that all runs of a chapter were measured at.

    Args:
        kinds: those that count in the mean.
        extra: further ones.
        severities: of each.
        differ: whether some run has a kind or a severity that another one lacks.
    """

    kinds: tuple[str, ...]
    extra: tuple[str, ...]
    severities: tuple[int, ...]
    differ: bool

    def mean(self, figures: Mapping[str, Any], *, extra: bool = False) -> float | None:
        """A run's mean error over these kinds and severities, in [0,1]; None if there are none, or one is no number."""
        places = [figures["severities"].index(level) for level in self.severities]
        kinds = self.extra if extra else self.kinds
        errors = [figures["errors"][kind][place] for kind, place in itertools.product(kinds, places)]
        found = known(errors)
        return mean_and_std(found)[0] if found and len(found) == len(errors) else None

    def named(self, of: str = "", *, extra: bool = False) -> str:
        """Which they are, in words, with what they are kinds of.

        >>> Shared(("fog", "snow"), (), (1, 2), False).named(), Shared(("fog",), (), (1, 2), True).named(" of noise")
        ('2 kinds', '1 kind of noise that all runs have (fog; severities 1, 2)')
        """
        kinds = self.extra if extra else self.kinds
        many = f"{len(kinds)}{' extra' if extra else ''} kind{'s' if len(kinds) != 1 else ''}{of}"
        if not self.differ:
            return many
        names = ", ".join(kind.replace("_", " ") for kind in kinds)
        return f"{many} that all runs have ({names}; severities {', '.join(map(str, self.severities))})"


def shared(chapter: Chapter) -> Shared:
    """What the means of a chapter's corruptions run over: means over different kinds would compare the kinds."""
    figures = [found for entry in chapter.entries if (found := entry.study("corruptions")) is not None]

    def common(key: str) -> tuple[Any, ...]:
        first = figures[0][key] if figures else ()
        return tuple(each for each in first if all(each in found[key] for found in figures))

    keys = ("kinds", "extra", "severities")
    differ = any(set(found[key]) != set(figures[0][key]) for found in figures for key in keys)
    return Shared(common("kinds"), common("extra"), common("severities"), differ)


def corrupted(chapter: Chapter) -> Measure:
    """Error on corrupted images, the mean over the kinds and severities that all runs have."""
    over = shared(chapter)

    def get(entry: Entry) -> float | None:
        figures = entry.study("corruptions")
        return None if figures is None else over.mean(figures)

    def n(entry: Entry) -> int | None:
        found: int | None = (entry.study("corruptions") or {}).get("n")
        return found

    return Measure("error on corrupted images", get, n=n)
