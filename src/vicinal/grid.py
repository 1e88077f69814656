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

Each cell's run lies in the store under the key of its experiment's content.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vicinal.errors import InputError, nearest
from vicinal.experiment import Experiment, merge, read_yaml
from vicinal.runs import Run

_KEYS = ("title", "about", "base", "labels", "data", "rows", "seeds", "baseline")


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
    """

    name: str
    title: str
    about: str
    cells: tuple[Cell, ...]
    baseline: str | None

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
        labels_of_rows = [label for label, _ in rows]
        if len(set(labels_of_rows)) < len(rows):
            raise InputError("rows: two rows have the same label; give each its own 'label'")
        base = values.get("base", {})
        if not isinstance(base, Mapping):
            raise InputError("base: expected a mapping of experiment keys")
        baseline = values.get("baseline", "supervised" if "supervised" in labels_of_rows else None)
        if baseline is not None and baseline not in labels_of_rows:
            raise InputError(f"baseline: no row is labelled {baseline!r}; {nearest(str(baseline), labels_of_rows)}")
        cells = []
        for data in _list("data", values.get("data", [None])):
            for labels in _list("labels", values.get("labels", [None])):
                for label, overlay in rows:
                    for seed in _list("seeds", values.get("seeds", [0])):
                        described = merge(base, {} if data is None else {"data": data})
                        described = merge(described, {} if labels is None else {"labels": labels})
                        experiment = Experiment.of(merge(described, {**overlay, "seed": seed}))
                        cells.append(Cell(experiment.data.name, experiment.split.labels, label, experiment))
        return cls(name, str(values.get("title", name)), str(values.get("about", "")), tuple(cells), baseline)

    def groups(self) -> Iterator[tuple[tuple[str, int | None, str], list[Cell]]]:
        """Cells that differ in the seed alone, in the order of the table."""
        found: dict[tuple[str, int | None, str], list[Cell]] = {}
        for cell in self.cells:
            found.setdefault(cell[:3], []).append(cell)
        yield from found.items()


def run_path(store: str | os.PathLike[str], experiment: Experiment) -> Path:
    """Where a store keeps the run of this experiment."""
    return Path(store) / experiment.key


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
    import joblib

    cells = {str(run_path(store, cell.experiment)): cell for cell in grid.cells}
    todo = {path: cell for path, cell in cells.items() if not Run(path).is_finished}
    jobs = min(jobs or os.cpu_count() or 1, max(len(todo), 1))
    failed: dict[str, str] = {}
    with _progress(len(cells), len(cells) - len(todo)) as advance:
        if not todo:
            return failed
        tasks = (
            joblib.delayed(_run_cell)(cell.experiment.as_dict(), path, command) for path, cell in todo.items()
        )
        runner = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs")
        for path, message in runner(tasks):
            cell = cells[path]
            advance(f"{cell.row} seed {cell.experiment.seed}" + (" FAILED" if message else ""))
            if message:
                failed[path] = message
    return failed


def _run_cell(values: dict[str, Any], path: str, command: str | None) -> tuple[str, str | None]:
    import torch

    from vicinal.fitting import fit

    torch.set_num_threads(1)
    run = Run(path)
    try:
        experiment = Experiment.of(values)
        with run.locked(wait=True):  # a worker of an interrupted grid may still be at it
            pass
        if run.is_finished:
            return path, None
        fit(experiment, path, resume=run.experiment_file.exists(), progress=False, command=command)
    except Exception as error:
        return path, f"{type(error).__name__}: {error}" if not isinstance(error, InputError) else str(error)
    return path, None


def _row(item: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(item, str):
        return item, {"method": item}
    if isinstance(item, Mapping) and "method" in item:
        overlay = {str(key): value for key, value in item.items() if key != "label"}
        name = item["method"] if isinstance(item["method"], str) else item["method"].get("name", "")
        return str(item.get("label", name)), overlay
    raise InputError(f"rows: expected a method's name or a mapping with a 'method', got {item!r}")


def _list(key: str, value: Any) -> list[Any]:
    if isinstance(value, list) and value:
        return value
    raise InputError(f"{key}: expected a list with at least one entry, got {value!r}")


class _progress:
    """Cells done of all, elapsed and time left, on standard error; plain lines where there is no terminal."""

    def __init__(self, total: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._plain = not console.is_terminal
        columns = (
            TextColumn("runs"), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False),
        )
        self._bar = Progress(*columns, console=console, disable=self._plain)
        self._total, self._done = total, done
        self._console = console

    def __enter__(self) -> Any:
        import time

        self._bar.start()
        self._task = self._bar.add_task("", total=self._total, completed=self._done)
        self._first, self._started = self._done, time.perf_counter()
        if self._done:
            self._console.print(f"{self._done} of {self._total} runs are finished already")
        return self._advance

    def _advance(self, text: str) -> None:
        import time

        self._done += 1
        self._bar.update(self._task, completed=self._done, description=text)
        if self._plain:
            elapsed = time.perf_counter() - self._started
            left = elapsed / (self._done - self._first) * (self._total - self._done)
            self._console.print(f"{self._done} of {self._total} runs: {text}, {elapsed:.0f} s, {left:.0f} s left")

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
