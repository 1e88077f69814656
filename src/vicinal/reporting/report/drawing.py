"""Charts of rows: one line each, in the row's colour, with as many in one chart as can be told apart."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

from vicinal.reporting.charts import Line, lines_chart
from vicinal.reporting.report.blocks import Chart
from vicinal.reporting.report.grouping import Row

AT_ONCE = 8
"""Rows in one chart: there are as many colours."""

Points = Mapping[float, float]


def bands(rows: Sequence[Row]) -> str:
    """What lines and bands mean, where there are bands."""
    many = any(len(row.entries) > 1 for row in rows)
    return " Lines are means over seeds; bands reach from the lowest to the highest seed." if many else ""


def row_charts(
    rows: Sequence[Row],
    curves: Callable[[Row], Sequence[tuple[str, Sequence[Points], bool]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    alt: str,
    percent: bool = True,
    table: bool = True,
) -> tuple[Chart, ...]:
    """Draw the curves of rows; none where no row has any.

    Args:
        rows: the rows.
        curves: of a row, each with what to add to its label, the points of each seed, and whether it is dashed.
        title: above the chart.
        x_label: of the axis.
        y_label: of the axis.
        alt: what it shows; the labels of its lines are added.
        percent: whether values are shares, shown in per cent.
        table: whether the page has the same in a table.
    """
    drawn = [(row, lines) for row in rows if (lines := _lines(row, curves(row)))]
    made = []
    told = " The table says the same in numbers." if table else ""
    for start in range(0, len(drawn), AT_ONCE):
        part = drawn[start : start + AT_ONCE]
        lines = [line for _, found in part for line in found]
        draw = functools.partial(lines_chart, lines, x_label=x_label, y_label=y_label, percent=percent, title=title)
        names = ", ".join(row.label for row, _ in part)
        more = f" ({start + 1} to {start + len(part)} of {len(drawn)})" if len(drawn) > AT_ONCE else ""
        made.append(Chart(draw, f"{title}{more}: {alt}, for {names}.{told}"))
    return tuple(made)


def _lines(row: Row, curves: Sequence[tuple[str, Sequence[Points], bool]]) -> list[Line]:
    """The lines of a row, at the places that all of its seeds have and where all values are finite."""
    lines = []
    for name, seeds, dashed in curves:
        finite = [{x: y for x, y in points.items() if y is not None and math.isfinite(y)} for points in seeds]
        finite = [points for points in finite if points]
        common = sorted(set.intersection(*map(set, finite))) if finite else []
        if common:
            ys = [[points[x] for x in common] for points in finite]
            lines.append(Line(f"{row.label}{name}", common, ys, dashed, row.number % AT_ONCE))
    return lines
