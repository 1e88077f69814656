"""Tables as values: printed on a terminal, as Markdown, or as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows of text under headings, with a line on top and notes below.

    Args:
        title: what is shown.
        columns: headings.
        rows: cells, as many in each row as there are columns.
        notes: lines below the table: how the numbers were made.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table as Markdown, numbers aligned to the right."""
        # A bar would end its cell, and names of classes and files may hold one.
        lines = [tuple(cell.replace("|", "\\|") for cell in cells) for cells in (self.columns, *self.rows)]
        widths = [max(len(cells[i]) for cells in lines) for i in range(len(self.columns))]

        def line(cells: Sequence[str]) -> str:
            padded = (
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            return "| " + " | ".join(padded) + " |"

        rule = (
            "|"
            + "|".join(("-" * (width + 2) if i == 0 else "-" * (width + 1) + ":") for i, width in enumerate(widths))
            + "|"
        )
        body = "\n".join([line(lines[0]), rule, *map(line, lines[1:])])
        notes = "".join(f"\n- {note}" for note in self.notes)
        return f"## {self.title}\n\n{body}\n" + (f"{notes}\n" if notes else "")

    def csv(self) -> str:
        """The table as CSV with a heading row, without title and notes."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([self.columns, *self.rows])
        return text.getvalue()

    def terminal(self) -> Any:
        """The table as a rich renderable."""
        from rich import box
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        made = RichTable(title=Text(self.title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for i, column in enumerate(self.columns):
            made.add_column(Text(column), justify="left" if i == 0 else "right", no_wrap=True)
        for row in self.rows:
            made.add_row(*map(Text, row))  # as they are: a path may hold what rich takes for markup
        return Group(made, *(Text(f"  {note}", style="dim") for note in self.notes))


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1; NaN for fewer than two values).

    >>> mean_and_std([1.0, 3.0])
    (2.0, 1.4142135623730951)
    """
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def percent(values: Sequence[float], digits: int = 2) -> str:
    """Fractions as ``mean ± std`` in percent; the mean alone if there is one value.

    >>> percent([0.10, 0.12])
    '11.00 ± 1.41'
    """
    mean, std = mean_and_std(values)
    return f"{100 * mean:.{digits}f}" + ("" if math.isnan(std) else f" ± {100 * std:.{digits}f}")
