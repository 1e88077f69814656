"""What ``results/`` says of a method: its rows in the tables of the grids, and what a step of it costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from _markup import table

from vicinal.reporting import Table
from vicinal.summary import grid_table

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "results"
LEFT_OUT = ("method", "data", "selected", "s")
"""Columns of a results table that a method's page does not repeat."""
NONE = "Not measured here: no table in `results/` has a row of it."
ABOUT = """\
Test error at the end of training, mean ± standard deviation over seeds; *ratio* is the mean error over that of the
supervised baseline on the same splits. Compare rows within a table alone:
tables differ in data, labels and training."""


@cache
def measured() -> dict[str, dict[str, Any]]:
    """What the grids in ``results/`` gave, by folder; folders of another kind are left out."""
    found = {}
    for path in sorted(RESULTS.glob("*/results.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        if "grid" in results and "baseline" in results:
            found[path.parent.name] = results
    return found


@cache
def step_costs() -> dict[str, list[dict[str, Any]]]:
    """Measured step costs by method: rows of ``results/step-cost``, the small CNN's first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((RESULTS / "step-cost").glob("*.json"), key=lambda path: path.stem != "table"):
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            found.setdefault(row["method"], []).append(row)
    return found


def evidence(name: str) -> str:
    """A method's rows in the tables of ``results/``, beside the baseline's; or that there are none."""
    parts = []
    for folder, results in measured().items():
        labels = [row["row"] for row in results["rows"] if _is_of(row, name)]
        if not labels:
            continue
        made = grid_table(results)
        shown = [column for column in made.columns if column not in LEFT_OUT]
        text = _rows(made, [*labels, results["baseline"]], shown)
        notes = [note for note in made.notes if note.partition(":")[0] in (*shown, *labels)]
        parts.append("\n\n".join([_heading(folder, results), text, "\n".join(f"- {note}" for note in notes)]).strip())
    return "\n\n".join([ABOUT, *parts]) if parts else NONE


def claim() -> str:
    """The table of ``docs/howto-claim.md``: the cells of its grid, as they stand in the results."""
    grid = yaml.safe_load((DOCS / "claim.yaml").read_text(encoding="utf-8"))
    results = measured()["digits-50"]
    rows = {row["row"]: row for row in results["rows"]}
    chosen = [
        {
            **rows[label],
            "seeds_asked": len(grid["seeds"]),
            "runs": [run for run in rows[label]["runs"] if _seed(run) in grid["seeds"]],
        }
        for label in grid["rows"]
    ]
    made = grid_table({**results, "rows": chosen})
    return _rows(made, grid["rows"], [column for column in made.columns if column not in LEFT_OUT]) + "\n"


def step_cost(name: str) -> list[str]:
    """What was measured of a method's steps, a sentence for each network."""
    supervised = {row["network"]: row["ms"]["step"] for row in step_costs()["supervised"]}
    told = []
    for row in step_costs().get(name, ()):
        base = supervised.get(row["network"])
        against = f", {row['ms']['step'] / base:.1f} times a supervised step" if base and name != "supervised" else ""
        told.append(
            f"Measured on {row['network']} with batches of {row['batch']} ([how](../step-cost.md)): a step takes "
            f"{row['ratio']:.2f} times its bare passes{against}."
        )
    return told


def _rows(made: Table, labels: list[str], columns: list[str]) -> str:
    """Some rows and columns of a results table, the rows in its order."""
    first, kept = made.columns.index("method"), [made.columns.index(column) for column in columns]
    lines = [[line[first], *(line[i] for i in kept)] for line in made.rows if line[first] in labels]
    return table(["row", *columns], lines, right=True)


def _is_of(row: Mapping[str, Any], name: str) -> bool:
    return any(run["provenance"]["method"] == name for run in row["runs"])


def _seed(run: Mapping[str, Any]) -> int:
    return int(run["provenance"]["seed"])


def _heading(folder: str, results: Mapping[str, Any]) -> str:
    """Title, how the figures came about, and where all of them are."""
    runs = [run for row in results["rows"] for run in row["runs"]]
    seeds = ", ".join(map(str, sorted({_seed(run) for run in runs})))
    backbone, parameters, steps = (
        ", ".join(dict.fromkeys(str(run["provenance"][key]) for run in runs))
        for key in ("backbone", "parameters", "steps")
    )
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
    shown = [name for file in ("table.md", "grid.yaml") for name in texts if f"results/{folder}/{file}" in texts[name]]
    links = [f"[how it was made](../{name})" for name in shown[:1]]
    links += [
        f"{{download}}`{file} <../../results/{folder}/{file}>`"
        for file in ("table.md", "results.json", "grid.yaml")
        if (RESULTS / folder / file).is_file()
    ]
    return (
        f"### {results['title']}\n\n`results/{folder}`: seeds {seeds}; {backbone} with {parameters} parameters, "
        f"{steps} steps. {' · '.join(links)}"
    )
