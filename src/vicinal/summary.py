"""A grid's results as plain values, and the table that shows them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from vicinal.errors import InputError
from vicinal.grid import Grid, run_path
from vicinal.reporting import Table, mean_and_std, percent
from vicinal.runs import Run


def collect(grid: Grid, store: str | os.PathLike[str], *, command: str | None = None) -> dict[str, Any]:
    """The figures of a grid's finished runs, with their provenance, as plain values.

    Args:
        grid: the grid.
        store: folder of the runs.
        command: the command to record.

    Raises:
        InputError: no cell of the grid is finished.
    """
    rows = []
    for (data, _, label), cells in grid.groups():
        runs = [Run(run_path(store, cell.experiment)) for cell in cells]
        finished = [run.evaluation() for run in runs if run.is_finished]
        rows.append({"data": data, "row": label, "seeds_asked": len(cells), "runs": finished})
    if not any(row["runs"] for row in rows):
        raise InputError(
            f"{grid.name}: none of its {len(grid.cells)} runs is finished in {store}; run: vicinal benchmark"
        )
    return {
        "grid": grid.name,
        "title": grid.title,
        "about": grid.about,
        "baseline": grid.baseline,
        "command": command,
        "rows": rows,
    }


def grid_table(results: Mapping[str, Any]) -> Table:
    """Mean ± std over seeds of the test error, at the end of training and at the lowest validation error.

    The column "of baseline" is the mean error over the baseline's, on the same data and number of labels. Where data
    have no test part, the validation error stands in, and a note says so.
    """
    baselines = {
        (row["data"], _labels(row)): _errors(row, "last")
        for row in results["rows"]
        if row["row"] == results["baseline"]
    }
    several_data = len({row["data"] for row in results["rows"]}) > 1
    rows, perfect = [], False
    for row in results["rows"]:
        last, best = _errors(row, "last"), _errors(row, "best_validation")
        perfect = perfect or any(error == 0 for error in last)
        base = baselines.get((row["data"], _labels(row)), [])
        ratio = (
            f"{mean_and_std(last)[0] / mean_and_std(base)[0]:.2f}"
            if last and base and mean_and_std(base)[0] > 0
            else "-"
        )
        seconds = [run["provenance"]["training_seconds"] for run in row["runs"]]
        cells = [row["row"], _labels(row), percent(last) if last else "-", percent(best) if best else "-", ratio]
        cells += [f"{sum(error == 0 for error in last)} of {len(last)}"]
        cells += [f"{len(last)}" + ("" if len(last) == row["seeds_asked"] else f" of {row['seeds_asked']}")]
        cells += [f"{mean_and_std(seconds)[0]:.1f}" if seconds else "-"]
        rows.append(([row["data"]] if several_data else []) + cells)
    columns = [
        "method",
        "labels",
        "test error %, last",
        "best validation",
        "of baseline",
        "without error",
        "seeds",
        "seconds",
    ]
    if several_data:
        columns.insert(0, "data")
    if not perfect:  # only tasks that can be solved to the last point need this column
        place = columns.index("without error")
        columns.pop(place)
        for cells in rows:
            cells.pop(place)
    return Table(results["title"], tuple(columns), tuple(tuple(cells) for cells in rows), tuple(_notes(results)))


def _errors(row: Mapping[str, Any], which: str) -> list[float]:
    parts = [run["test"] or run["validation"] for run in row["runs"]]
    return [part["error"][which] for part in parts if part is not None and part["error"][which] is not None]


def _labels(row: Mapping[str, Any]) -> str:
    found = sorted({run["provenance"]["labels"] for run in row["runs"]})
    return ", ".join(map(str, found)) or "-"


def _notes(results: Mapping[str, Any]) -> list[str]:
    about = [run["provenance"] for row in results["rows"] for run in row["runs"]]

    def values(key: str) -> str:
        return ", ".join(str(value) for value in dict.fromkeys(item[key] for item in about))

    notes = [results["about"]] if results["about"] else []
    seeds = sorted({item["seed"] for item in about})
    notes.append(
        f"mean ± std over seeds {', '.join(map(str, seeds))}; backbone {values('backbone')} ({values('parameters')} "
        f"parameters), {values('steps')} steps, preprocessing {values('preprocess')}; last = end of training, best "
        "validation = lowest validation error (the test part is never used for selection); teacher weights where the "
        "method has a teacher"
    )
    spaces = {
        row["row"]: run["provenance"]["space"]
        for row in results["rows"]
        for run in row["runs"]
        if run["provenance"]["space"]
    }
    if spaces:
        notes.append("epsilon lies in: " + ", ".join(f"{name}: {space}" for name, space in spaces.items()))
    if any(run["test"] is None for row in results["rows"] for run in row["runs"]):
        notes.append("no test part: validation errors")
    first = about[0]["machine"]
    notes.append(
        f"commit {values('commit')}, vicinal {values('version')}, torch {first['torch']}, {first['processor']}"
    )
    if results["command"]:
        notes.append(f"command: {results['command']}")
    return notes
