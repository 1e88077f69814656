"""A run whose network diverged does not break the report of those that did not."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from support.report import entry, every_study

from vicinal.reporting import Table
from vicinal.reporting.report import Entry, render, tables
from vicinal.reporting.report.calibration import pooled

BAD = [None, math.nan, math.inf]
MADE_AT = {"epsilons", "epsilon", "lambdas", "low", "high", "severities"}
"""What figures say of where they were measured."""


def ruined(value: Any, bad: float | None) -> Any:
    """The same with every figure but whole numbers lost."""
    if isinstance(value, dict):
        return {key: each if key in MADE_AT else ruined(each, bad) for key, each in value.items()}
    if isinstance(value, list):
        return [ruined(each, bad) for each in value]
    return bad if isinstance(value, float) else value


def diverged(run: Entry, bad: float | None) -> Entry:
    studies = {name: {**each, "figures": ruined(each["figures"], bad)} for name, each in run.studies.items()}
    parts = {name: ruined(run.evaluation[name], bad) for name in ("test", "validation")}
    metrics = {name: [(step, math.nan) for step, _ in points] for name, points in run.metrics.items()}
    return replace(run, evaluation={**run.evaluation, **parts}, studies=studies, metrics=metrics)


def runs(bad: float | None) -> list[Entry]:
    """Of one method one seed diverged, and of another one all did."""
    made = [
        entry(method, seed, 0.1, studies=every_study(0.1, 8.0)) for method in ("supervised", "ict") for seed in range(2)
    ]
    lost = [diverged(entry("vat", seed, 0.1, studies=every_study(0.1, 8.0)), bad) for seed in range(2)]
    return [*made[:3], diverged(made[3], bad), *lost]


def by_title(found: list[Table], title: str) -> Table:
    (table,) = [each for each in found if each.title.startswith(title)]
    return table


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_number_is_dropped_and_counted(bad: float | None) -> None:
    found = tables(runs(bad))
    main = by_title(found, "Main figures")
    columns = [name for name in main.columns[1:] if name not in ("difference", "seeds")]
    lines = {line[0]: dict(zip(main.columns, line, strict=True)) for line in main.rows}
    assert all(lines["ict"][name].endswith("(1 of 2)") for name in columns), lines["ict"]
    assert all(lines["vat"][name] == "-" for name in columns)
    assert lines["supervised"]["ECE %"] == "5.00 ± 0.00"
    assert lines["ict"]["difference"] == "+0.00"
    assert any(note.startswith("-: not measured, or no finite number:") and "(vat)" in note for note in main.notes)
    for title in ("Error % under attack by Linf", "Error % under FGM", "Calibration", "Error % along"):
        table = by_title(found, title)
        cells = [cell for line in table.rows if line[0].startswith("ict") for cell in line[1:]]
        assert any(cell.endswith("(1 of 2)") for cell in cells), title
    cells = [cell for table in found for line in table.rows for cell in line]
    assert not [cell for cell in cells if re.search(r"\b(nan|inf)\b", cell)]


@pytest.mark.parametrize("bad", BAD)
def test_the_page_is_made_with_its_charts(bad: float | None) -> None:
    few = [
        replace(run, metrics={}, studies={name: run.studies[name] for name in ("calibration", "mistakes")})
        for run in runs(bad)
    ]
    page = render(few, command="c", made="m")
    assert "ict: ECE 5.0 % before, 2.5 % after (mean of 1 of 2 runs, bins pooled)" in page
    assert "vat: ECE" not in page


@pytest.mark.parametrize("bad", BAD)
def test_a_bin_without_means_leaves_its_count_out(bad: float | None) -> None:
    good = {"low": 0.0, "high": 1.0, "count": 3, "confidence": 0.5, "accuracy": 0.25}
    lost = {**good, "count": 7, "confidence": bad, "accuracy": bad}
    assert pooled([[good], [lost]]) == [good]
    assert pooled([[lost]]) == [{**good, "count": 0, "confidence": None, "accuracy": None}]


def test_all_diverged_is_told() -> None:
    alone = diverged(entry("ict", 0, 0.1, studies=every_study(0.1, 8.0)), None)
    page = render([alone], command="c", made="m")
    assert "No run of this chapter has a measured error." in page
