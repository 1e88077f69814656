"""How the runs were trained: their curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vicinal.reporting.report.blocks import Block, Chart, Charts, Details, Paragraph, Section
from vicinal.reporting.report.drawing import bands, row_charts
from vicinal.reporting.report.grouping import Chapter, Row

POINTS = 100
"""Points of a curve at most: what is logged more often is averaged."""
_LEFT_OUT = ("images_per_second", "validation_error_student", "validation_error_teacher", "validation_error_average")
_FIRST = {"validation_error": "validation error", "loss": "training loss", "supervised": "supervised loss"}


def training(chapter: Chapter) -> Section | None:
    """Validation error and losses by step; None if no curves were kept."""
    # Networks of one kind in one chart: the validation error of an autoencoder is no share of wrong predictions.
    classifiers = [row for row in chapter.rows if any(entry.has("error") for entry in row.entries)]
    kinds = (classifiers, [row for row in chapter.rows if row not in classifiers])
    names = list(dict.fromkeys(name for entry in chapter.entries for name in entry.metrics))
    rest = [name for name in names if name not in _FIRST and name not in _LEFT_OUT]
    first, more = (
        tuple(chart for name in of for rows in kinds for chart in _charts(rows, name, shares=rows is classifiers))
        for of in ([name for name in _FIRST if name in names], rest)
    )
    if not first and not more:
        return None
    blocks: list[Block] = [
        Paragraph(
            f"By training step; losses are averaged to at most {POINTS} points. Losses of different methods have "
            "different terms, so their heights are not to be compared; the validation error's "
            f"are.{bands(chapter.rows)}"
        ),
    ]
    if first:
        blocks.append(Charts(first))
    if more:
        blocks.append(Details("Every term of the losses", (Charts(more),)))
    return Section("training", "Training curves", tuple(blocks))


def _charts(rows: Sequence[Row], name: str, *, shares: bool) -> Sequence[Chart]:
    def curves(row: Row) -> list[tuple[str, Sequence[dict[float, float]], bool]]:
        found = [thinned(entry.metrics[name]) for entry in row.entries if name in entry.metrics]
        return [("", [points for points in found if len(points) > 1], False)]

    if (
        name not in _FIRST
        and len({value for row in rows for entry in row.entries for _, value in entry.metrics.get(name, ())}) < 2
    ):
        return ()  # the same throughout, as the weight 1 of a term
    title = _FIRST.get(name, name.replace("_", " "))
    if name == "validation_error" and not shares:
        title = "validation squared error"
    return row_charts(
        rows,
        curves,
        title=title,
        x_label="step",
        y_label=title,
        alt=f"{title} by training step",
        percent=shares and name == "validation_error",
        table=False,
    )


def thinned(points: Sequence[tuple[int, float]]) -> dict[float, float]:
    """A curve with at most `POINTS` points: means of steps and values over blocks of the same number of points.

    What is not finite is left out of its block.

    >>> thinned([(1, 2.0), (2, 4.0)])
    {1.0: 2.0, 2.0: 4.0}
    """
    size = max(1, math.ceil(len(points) / POINTS))
    made = {}
    for start in range(0, len(points), size):
        block = points[start : start + size]
        values = [value for _, value in block if math.isfinite(value)]
        if values:
            made[math.fsum(step for step, _ in block) / len(block)] = math.fsum(values) / len(values)
    return made
