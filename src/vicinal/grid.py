"""A grid of experiments: data x label counts x methods x seeds, run from a store where no cell is ever run twice.

A grid file is YAML::

    title: Digits with 50 labels            # heading of its table
    base: {data: digits, training: {...}}   # what all cells share: any experiment keys
    labels: [50]                            # optional axis
    data: [digits]                          # optional axis
    rows: [supervised, ict,                 # a method's name, or anything laid over the base, with a label
           {label: ICT alpha 0.1, method: {name: ict, alpha: 0.1}}]
    seeds: [0, 1, 2, 3, 4]
    baseline: supervised                    # the row that the others stand beside
    measure: {pgd: {norm: linf, epsilon: 0.1}}   # optional: further measurements of the test part, each a column

Each cell's run lies in the store under the key of its experiment's content.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vicinal.companions import full_key
from vicinal.errors import InputError, nearest
from vicinal.experiment import Experiment, merge
from vicinal.measuring import measure, measured, measures_of
from vicinal.parallel import run_all
from vicinal.runs import Run
from vicinal.settings import Choice, read_yaml

_AXES = (("data", None), ("labels", None), ("seeds", 0))
_KEYS = ("title", "about", "base", "labels", "data", "rows", "seeds", "baseline", "measure")


class Cell(NamedTuple):
    """One experiment of a grid and where it stands in its table.

    Attributes:
        data: name of the data set.
        labels: number of labels asked for, or None for all.
        row: label of the row.
        experiment: the experiment.
    """

    data: str
    labels: int | None
    row: str
    experiment: Experiment


@dataclass(frozen=True)
class Grid:
    """A grid of experiments.

    Args:
        name: name of its file, without the ending.
        title: heading of its table.
        about: a line below the heading, or "".
        cells: all experiments, in the order of the table, seeds innermost.
        baseline: label of the row that the others stand beside, or None.
        measures: settings of further measurements, by name.
    """

    name: str
    title: str
    about: str
    cells: tuple[Cell, ...]
    baseline: str | None
    measures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Grid:
        """Read a grid file.

        Raises:
            InputError: no such file, an unknown key, or a cell that is no experiment.
        """
        values = read_yaml(Path(path))
        try:
            return cls.of(Path(path).stem, values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    @classmethod
    def of(cls, name: str, values: Mapping[str, Any]) -> Grid:
        """Build a grid from plain values."""
        for key in values:
            if key not in _KEYS:
                raise InputError(f"{key}: unknown key of a grid; {nearest(key, _KEYS)}")
        rows = [_row(item) for item in _list("rows", values.get("rows"))]
        names = [label for label, _ in rows]
        if len(set(names)) < len(names):
            raise InputError("rows: two rows have the same label; give each its own 'label'")
        base = values.get("base", {})
        if not isinstance(base, Mapping):
            raise InputError("base: expected a mapping of experiment keys")
        baseline = values.get("baseline", "supervised" if "supervised" in names else None)
        if baseline is not None and baseline not in names:
            raise InputError(f"baseline: no row is labelled {baseline!r}; {nearest(str(baseline), names)}")
        data, labels, seeds = (_axis(key, values, default) for key, default in _AXES)
        cells: dict[tuple[Any, ...], Cell] = {}
        for source, count, (label, overlay), seed in itertools.product(data, labels, rows, seeds):
            described = merge(base, {} if source is None else {"data": source})
            described = merge(described, {} if count is None else {"labels": count})
            experiment = Experiment.of(merge(described, {**overlay, "seed": seed}))
            cell = Cell(experiment.data.name, experiment.split.labels, label, experiment)
            # A row that sets its own number of labels comes once, not once for each number of the axis.
            if cells.setdefault((*cell[:3], seed), cell).experiment.key != experiment.key:
                raise InputError("data: two entries have the same name, so their rows could not be told apart")
        measures = values.get("measure", {})
        if not isinstance(measures, Mapping):
            raise InputError("measure: expected measurements with their settings, such as {pgd: {epsilon: 0.1}}")
        title, about = str(values.get("title", name)), str(values.get("about", ""))
        return cls(name, title, about, tuple(cells.values()), baseline, measures_of("measure", measures))

    def is_done(self, run: Run) -> bool:
        """Whether a cell's run is finished, and all that the grid asks for is measured of it."""
        return run.is_finished and all(measured(run, *item) is not None for item in self.measures.items())

    def groups(self) -> Iterator[tuple[tuple[str, int | None, str], list[Cell]]]:
        """Cells that differ in the seed alone, in the order of the table."""
        found: dict[tuple[str, int | None, str], list[Cell]] = {}
        for cell in self.cells:
            found.setdefault(cell[:3], []).append(cell)
        yield from found.items()


def run_path(store: str | os.PathLike[str], experiment: Experiment) -> Path:
    """Where a store keeps the run of this experiment."""
    return Path(store) / full_key(experiment)


def run_grid(
    grid: Grid, store: str | os.PathLike[str], *, jobs: int | None = None, command: str | None = None
) -> dict[str, str]:
    """Run every cell that is not finished, several at a time, and go on where an interrupted grid stopped.

    Args:
        grid: the grid.
        store: folder of the runs.
        jobs: how many run at once, each on one thread; one per core by default. Runs through joblib, so a
            ``joblib.parallel_config`` around the call chooses another backend.
        command: the command to record as provenance.

    Returns:
        What went wrong, by the path of the run; empty if all cells are finished.
    """
    cells = {str(run_path(store, cell.experiment)): cell for cell in grid.cells}
    todo = {path: cell for path, cell in cells.items() if not grid.is_done(Run(path))}
    tasks = {
        path: (cell.experiment.as_dict(), path, str(store), dict(grid.measures), command) for path, cell in todo.items()
    }

    def label(path: str) -> str:
        return f"{todo[path].row} seed {todo[path].experiment.seed}"

    return run_all(_run_cell, tasks, noun="runs", label=label, done=len(cells) - len(todo), jobs=jobs)


def _run_cell(values: dict[str, Any], path: str, store: str, measures: dict[str, Any], command: str | None) -> None:
    from vicinal.fitting import finish

    measure(finish(Experiment.of(values), path, store=store, command=command), measures)


def _row(item: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(item, str):
        return item, {"method": item}
    if isinstance(item, Mapping) and "method" in item:
        overlay = {str(key): value for key, value in item.items() if key != "label"}
        return str(item.get("label", Choice.of("rows: method", item["method"]).name)), overlay
    raise InputError(f"rows: expected a method's name or a mapping with a 'method', got {item!r}")


def _axis(key: str, values: Mapping[str, Any], default: Any) -> list[Any]:
    found = _list(key, values.get(key, [default]))
    if any(item in found[:place] for place, item in enumerate(found)):
        raise InputError(f"{key}: an entry is there twice")
    return found


def _list(key: str, value: Any) -> list[Any]:
    if isinstance(value, list) and value:
        return value
    raise InputError(f"{key}: expected a list with at least one entry, got {value!r}")
