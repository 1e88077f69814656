"""A grid's results as plain values, and the table that shows them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from vicinal.errors import InputError
from vicinal.evaluation.measures import MEASURES
from vicinal.grid import Grid, run_path
from vicinal.measuring import measured
from vicinal.reporting import Table, mean_and_std, percent
from vicinal.runs import Run

_COLUMNS = (
    "data",
    "method",
    "labels",
    "test error %",
    "selected",
    "ratio",
    "ECE %",
    "perfect",
    "seeds",
    "s",
)


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
        finished = [_with_measures(run, grid) for run in runs if run.is_finished]
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
        "measures": {name: dict(settings) for name, settings in grid.measures.items()},
        "command": command,
        "rows": rows,
    }


def grid_table(results: Mapping[str, Any]) -> Table:
    """Mean ± std over seeds of the test error, at the end of training and at the lowest validation error.

    The column "ratio" is the mean error over the baseline's, on the same data, number of labels and seeds. Where
    data have no test part, the validation error stands in, and a note says so. Columns that would say the same in
    every row are left out: "data" where there is one data set, "ECE %" where no run has it, "perfect" where no run
    classifies everything.

    Args:
        results: what `collect` gives.
    """
    rows = results["rows"]
    baselines = {_task(row): _errors(row, "last") for row in rows if row["row"] == results["baseline"]}
    cells = [_cells(row, baselines.get(_task(row), {})) for row in rows]
    left_out = set()
    if len({row["data"] for row in rows}) == 1:
        left_out.add("data")
    if not any(_last(row, "ece") for row in rows):
        left_out.add("ECE %")
    if not any(error == 0 for row in rows for error in _errors(row, "last").values()):
        left_out.add("perfect")
    kept = [i for i, column in enumerate(_COLUMNS) if column not in left_out]
    measures = results.get("measures", {})
    end = len(kept) - 2  # before seeds and seconds

    def joined(line: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
        shown = [line[i] for i in kept]
        return (*shown[:end], *more, *shown[end:])

    return Table(
        results["title"],
        joined(_COLUMNS, [MEASURES[name].column for name in measures]),
        tuple(joined(line, [_measured(row, name) for name in measures]) for row, line in zip(rows, cells, strict=True)),
        tuple(_notes(results, calibrated="ECE %" not in left_out)),
    )


def _with_measures(run: Run, grid: Grid) -> dict[str, Any]:
    values = run.evaluation()
    found = {name: measured(run, name, settings) for name, settings in grid.measures.items()}
    return {**values, "measures": found} if found else values


def _cells(row: Mapping[str, Any], baseline: Mapping[int, float]) -> list[str]:
    """One row of the table, a cell for each of `_COLUMNS`."""
    last, best = _errors(row, "last"), _errors(row, "best_validation")
    seconds = [run["provenance"]["training_seconds"] for run in row["runs"]]
    done, asked = len(row["runs"]), row["seeds_asked"]
    return [
        row["data"],
        row["row"],
        _labels(row),
        percent(list(last.values())) if last else "-",
        percent(list(best.values())) if best else "-",
        _ratio(last, baseline),
        percent(found) if (found := _last(row, "ece")) else "-",
        f"{sum(error == 0 for error in last.values())} of {len(last)}" if last else "-",
        str(done) if done == asked else f"{done} of {asked}",
        f"{mean_and_std(seconds)[0]:.1f}" if seconds else "-",
    ]


def _ratio(errors: Mapping[int, float], baseline: Mapping[int, float]) -> str:
    """Mean error over the baseline's, on the seeds that both have: a grid that is half done compares like with like."""
    common = [seed for seed in errors if seed in baseline]
    total = sum(baseline[seed] for seed in common)
    return f"{sum(errors[seed] for seed in common) / total:.2f}" if total > 0 else "-"


def _errors(row: Mapping[str, Any], which: str) -> dict[int, float]:
    """Test errors by seed, or validation errors where there is no test part."""
    parts = {run["provenance"]["seed"]: run["test"] or run["validation"] for run in row["runs"]}
    found = {seed: part["error"][which] for seed, part in parts.items() if part is not None and "error" in part}
    return {seed: error for seed, error in found.items() if error is not None}


def _last(row: Mapping[str, Any], figure: str) -> list[float]:
    """A figure at the end of training, of the test part or else of the validation part, for each run that has it."""
    parts = [run["test"] or run["validation"] for run in row["runs"]]
    return [part[figure]["last"] for part in parts if part is not None and figure in part]


def _measured(row: Mapping[str, Any], name: str) -> str:
    measure = MEASURES[name]
    found = [run["measures"][name][measure.figure] for run in row["runs"] if run.get("measures", {}).get(name)]
    if not found:
        return "-"
    some = "" if len(found) == len(row["runs"]) else f" ({len(found)} of {len(row['runs'])})"
    if measure.percent:
        return percent(found) + some
    mean, std = mean_and_std(found)
    return f"{mean:.3g}" + ("" if len(found) < 2 else f" ± {std:.2g}") + some


def _task(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["data"], _labels(row)


def _labels(row: Mapping[str, Any]) -> str:
    found = sorted({run["provenance"]["labels"] for run in row["runs"]})
    return ", ".join(map(str, found)) or "-"


def _notes(results: Mapping[str, Any], *, calibrated: bool) -> list[str]:
    runs: Sequence[Mapping[str, Any]] = [run for row in results["rows"] for run in row["runs"]]
    about = [run["provenance"] for run in runs]

    def values(key: str) -> str:
        return ", ".join(str(value) for value in dict.fromkeys(item[key] for item in about))

    notes = [results["about"]] if results["about"] else []
    seeds = sorted({item["seed"] for item in about})
    averaged = ", an average's where one is taken" if any(run.get("weights") == "average" for run in runs) else ""
    notes.append(
        f"mean ± std over seeds {', '.join(map(str, seeds))}; backbone {values('backbone')} ({values('parameters')} "
        f"parameters), {values('steps')} steps, preprocessing {values('preprocess')}; teacher weights where the method "
        f"has a teacher{averaged}"
    )
    notes.append(
        "test error: at the end of training; selected: at the lowest validation error, the test part is never used for "
        "selection; ratio: mean test error over that of the baseline; "
        + ("ECE: expected calibration error, 15 equal bins; " if calibrated else "")
        + "perfect: runs without a wrong answer; s: seconds of training a run"
    )
    for name, settings in results.get("measures", {}).items():
        told = ", ".join(f"{key} {_plain(value)}" for key, value in settings.items() if value is not None)
        notes.append(f"{MEASURES[name].column}: {name} on the test part, {told}")
    many = {_task(row) for row in results["rows"] if row["runs"]}
    for row in results["rows"]:
        if gates := [run["gate"] for run in row["runs"] if "gate" in run]:
            place = f" ({row['data']}, {_labels(row)} labels)" if len(many) > 1 else ""
            notes.append(_gate_note(f"{row['row']}{place}", gates))
    spaces = {row["row"]: run["provenance"]["space"] for row in results["rows"] for run in row["runs"]}
    named = [f"{name}: {space}" for name, space in spaces.items() if space]
    if named:
        notes.append(f"epsilon lies in: {', '.join(named)}")
    if any(run["test"] is None for run in runs):
        notes.append("no test part: validation errors")
    machine = about[0]["machine"]
    commits = values("commit").replace("None", "unknown")
    notes.append(f"commit {commits}, vicinal {values('version')}, torch {machine['torch']}, {machine['processor']}")
    if results["command"]:
        notes.append(f"command: {results['command']}")
    return notes


def _plain(value: Any) -> str:
    """A setting the same whether its sequences come from Python or from JSON."""
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _gate_note(row: str, gates: Sequence[Mapping[str, Any]]) -> str:
    """How good the reconstructions of a row that mixes codes were."""
    quality = " and ".join(
        f"{mean_and_std([gate[key] for gate in gates])[0]:{form}}{unit}"
        for key, form, unit in (("psnr", ".1f", " dB"), ("accuracy_rebuilt", ".1%", ""))
    )
    clean = mean_and_std([gate["accuracy"] for gate in gates])[0]
    failed = sum(not gate["passed"] for gate in gates)
    verdict = f"GATE FAILED ({failed} of {len(gates)}), the row says nothing of the method" if failed else "gate passed"
    return f"{row}: reconstructions {quality} accuracy of a plain classifier ({clean:.1%} on the images): {verdict}"
