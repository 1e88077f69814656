"""Chapters and rows: which runs of a report may stand beside one another, and which are one row's seeds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vicinal.errors import InputError, nearest
from vicinal.reporting.report.entries import Entry, known
from vicinal.settings import read_value

_NAMED = 2
"""Settings that a label spells out at most."""


@dataclass(frozen=True)
class Row:
    """Runs that differ in the seed alone.

    Args:
        label: the method's name, and what tells it from other rows of the same method.
        entries: at least one, by seed.
        number: place in its chapter, which gives its colour.
    """

    label: str
    entries: tuple[Entry, ...]
    number: int = 0

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.entries[0].method

    def values(self, get: Callable[[Entry], float | None]) -> list[float]:
        """A figure of each run that has it as a finite number."""
        return known(map(get, self.entries))

    def figures(self, study: str) -> list[Mapping[str, Any]]:
        """A study's figures, of each run that has them."""
        return [found for entry in self.entries if (found := entry.study(study)) is not None]


@dataclass(frozen=True)
class Chapter:
    """Runs on the same data with the same number of labels.

    Args:
        title: data and labels.
        rows: the baseline first, then as the runs were given.
        baseline: the row that the others stand beside, which is among ``rows``; or None.
        repeated: runs that say again what another one says, each as a line.
    """

    title: str
    rows: tuple[Row, ...]
    baseline: Row | None
    repeated: tuple[str, ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All runs, row by row."""
        return tuple(entry for row in self.rows for entry in row.entries)

    @property
    def part(self) -> str:
        """The part of the data that figures are of."""
        return self.entries[0].part

    def having(self, study: str) -> tuple[Row, ...]:
        """The rows that have figures of a study."""
        return tuple(row for row in self.rows if row.figures(study))


def chapters(entries: Sequence[Entry], baseline: str | None = None) -> tuple[Chapter, ...]:
    """Sort runs into chapters and rows, in the order in which they come.

    Runs stand in one chapter if data set, its content, number of labels and the part that is measured are the same.

    Args:
        entries: the runs.
        baseline: name of a run whose row the others of its chapter stand beside; elsewhere, and for None, it is the
            row of method ``supervised`` that shares the most splits with other methods, or that has the most runs.

    Raises:
        InputError: there are no runs, or none of them has the name of the baseline.
    """
    if not entries:
        raise InputError("report: there are no runs to report on; give at least one")
    names = [entry.name for entry in entries]
    if baseline is not None and baseline not in names:
        raise InputError(f"baseline: {baseline!r} is none of the runs of this report; {nearest(baseline, names)}")
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        about = entry.provenance
        data = about["data"]
        key = (_called(str(data["name"])), str(about["labels"]), entry.part, str(data.get("content", "")))
        groups.setdefault(key, []).append(entry)
    titles = [f"{name}, {labels} labels" for name, labels, _, _ in groups]
    made = []
    for (name, labels, part, content), found in groups.items():
        title = f"{name}, {labels} labels"
        if titles.count(title) > 1:
            title += f" ({part} part, content {content[:8] or 'unknown'})"
        made.append(_chapter(title, found, baseline))
    return tuple(made)


def _called(name: str) -> str:
    """What data are called: of a path the last part, as the same data may lie elsewhere on another machine.

    >>> _called("digits"), _called("somebody/photos"), _called("./photos"), _called("../photos/")
    ('digits', 'somebody/photos', 'photos', 'photos')
    """
    return Path(name).name if name.startswith((".", "~")) or Path(name).is_absolute() else name


def _chapter(title: str, entries: Sequence[Entry], baseline: str | None) -> Chapter:
    groups: dict[str, dict[int, Entry]] = {}
    repeated = []
    for entry in entries:
        seeds = groups.setdefault(_key(entry), {})
        first = seeds.setdefault(entry.seed, entry)
        if first is not entry:
            repeated.append(f"{entry.name}: the same experiment and seed as {first.name}, so it is counted once")
    rows = [Row("", tuple(seeds[seed] for seed in sorted(seeds))) for seeds in groups.values()]
    base = _baseline(rows, baseline)
    if base is not None:
        rows.sort(key=lambda row: row is not base)  # stable: the others stay as they were given
    named = tuple(
        replace(row, label=label, number=i) for i, (row, label) in enumerate(zip(rows, _labels(rows), strict=True))
    )
    return Chapter(title, named, None if base is None else named[0], tuple(repeated))


def _key(entry: Entry) -> str:
    """Equal for runs that differ in the seed alone."""
    about = entry.provenance
    shared = {key: about.get(key) for key in ("method", "recipe", "preprocess", "backbone", "steps")}
    return json.dumps([shared, settings_of(entry)], sort_keys=True, default=str)


def _baseline(rows: Sequence[Row], name: str | None) -> Row | None:
    for row in rows:
        if any(entry.name == name for entry in row.entries):
            return row
    plain = [row for row in rows if row.method == "supervised"]

    def shared(row: Row) -> tuple[int, int]:
        others = {entry.provenance["split"] for other in rows if other not in plain for entry in other.entries}
        return sum(entry.provenance["split"] in others for entry in row.entries), len(row.entries)

    return max(plain, key=shared, default=None)


def settings_of(entry: Entry) -> dict[str, str]:
    """The settings of an experiment without seed and place, as texts by dotted name."""
    values = read_value(entry.experiment)
    found: dict[str, str] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, f"{name}.{key}" if name else str(key))
        else:
            found[name] = str(value)

    walk(values, "")
    for name in ("seed", "output"):
        found.pop(name, None)
    return found


def differing(rows: Iterable[Row]) -> dict[str, list[str]]:
    """The settings in which rows differ, by dotted name, with the value of each row ("-" where it has none).

    What no version of the package but a later one knows as a setting comes last: there the rows need not differ.
    """
    settings = [settings_of(row.entries[0]) for row in rows]
    names = dict.fromkeys(name for each in settings for name in each)
    found = {name: [each.get(name, "-") for each in settings] for name in names}
    unequal = [name for name, values in found.items() if len(set(values)) > 1]
    unequal.sort(key=lambda name: any(name not in each for each in settings))
    return {name: found[name] for name in unequal}


def _labels(rows: Sequence[Row]) -> list[str]:
    """The method of each row; where several rows have the same one, with what tells them apart."""
    labels = [row.method for row in rows]
    for method in dict.fromkeys(labels):
        places = [i for i, row in enumerate(rows) if row.method == method]
        if len(places) > 1:
            for i, told in zip(places, _told_apart([rows[i] for i in places]), strict=True):
                labels[i] = f"{method} ({told})"
    return labels


def _told_apart(rows: Sequence[Row]) -> list[str]:
    """A short text for each row, all of them different: settings, if few of them do, else recipe, commit or number."""
    found = {name: values for name, values in differing(rows).items() if "-" not in values}
    recipes = [recipe.rsplit("/", 1)[-1] for recipe in found.pop("recipe", [])]
    commits = [str(row.entries[0].provenance.get("commit"))[:7] for row in rows]

    def spelled(names: Sequence[str]) -> list[str]:
        return [", ".join(f"{name.rsplit('.', 1)[-1]} {found[name][k]}" for name in names) for k in range(len(rows))]

    candidates = [spelled(list(found))] if 0 < len(found) <= _NAMED else []
    candidates.append([f"recipe {recipe}" for recipe in recipes])
    for size in range(1, _NAMED + 1):  # the dots say that more settings differ
        subsets = itertools.combinations(found, size)
        candidates += [[f"{text}, ..." for text in spelled(names)] for names in subsets]
    candidates.append([f"commit {commit}" for commit in commits])
    candidates.append([f"variant {k + 1}" for k in range(len(rows))])
    return next(told for told in candidates if len(set(told)) == len(rows))
