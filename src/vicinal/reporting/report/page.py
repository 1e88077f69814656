"""The whole page: what its chapters and their sections are, and its tables on their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from vicinal.reporting.report.blocks import Section, TableBlock, tables_in
from vicinal.reporting.report.calibration import calibration
from vicinal.reporting.report.corruptions import corruptions
from vicinal.reporting.report.entries import Entry
from vicinal.reporting.report.grouping import Chapter, chapters
from vicinal.reporting.report.layout import Part, lay_out
from vicinal.reporting.report.measures import wrong_predictions
from vicinal.reporting.report.numbers import NOTHING, cell
from vicinal.reporting.report.overview import overview
from vicinal.reporting.report.provenance import left_out, provenance
from vicinal.reporting.report.published import published
from vicinal.reporting.report.robustness import robustness
from vicinal.reporting.report.studies import mistakes, paths, regions, smoothness
from vicinal.reporting.report.summary import summary
from vicinal.reporting.report.training import training
from vicinal.reporting.tables import Table, mean_and_std

_SECTIONS: tuple[Callable[[Chapter], Section | None], ...] = (
    summary,
    overview,
    robustness,
    published,
    calibration,
    corruptions,
    paths,
    regions,
    smoothness,
    training,
    mistakes,
    provenance,
    left_out,
)


class _Part(NamedTuple):
    """A chapter with its sections."""

    chapter: Chapter
    sections: tuple[Section, ...]


def render(entries: Sequence[Entry], *, command: str, baseline: str | None = None, made: str) -> str:
    """The report as the text of an HTML file. The same arguments give the same text.

    It has no scripts and asks for nothing over a network; charts and pictures are within it.

    Args:
        entries: the runs, at least one.
        command: the command that made the report.
        baseline: name of the run that others stand beside; None for the supervised run on the same data and labels.
        made: date and version, as a line.

    Raises:
        InputError: there are no runs, or none has the name of the baseline.
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    parts = _parts(entries, baseline)
    titles = "; ".join(part.chapter.title for part in parts)
    return lay_out(
        [Part(part.chapter.title, part.sections) for part in parts],
        title=f"Report: {titles}" if len(parts) == 1 else f"Report of {len(entries)} runs",
        lead=f"{len(entries)} run{'s' if len(entries) != 1 else ''}." if len(parts) == 1 else "",
        glance=_glance(parts),
        command=command,
        made=made,
    )


def tables(entries: Sequence[Entry], *, baseline: str | None = None) -> list[Table]:
    """The tables of the report, in its order, with the same columns, rows and notes.

    Where there are several chapters, titles begin with that of their chapter, which stands above them on the page.

    Args:
        entries: the runs, at least one.
        baseline: as for `render`.

    Raises:
        InputError: there are no runs, or none has the name of the baseline.
    """
    parts = _parts(entries, baseline)
    glance = _glance(parts)
    found = [] if glance is None else [glance.table]
    for part in parts:
        prefix = f"{part.chapter.title}: " if len(parts) > 1 else ""
        for section in part.sections:
            found += [replace(table, title=f"{prefix}{table.title}") for table in tables_in(section.blocks)]
    return found


def _parts(entries: Sequence[Entry], baseline: str | None) -> tuple[_Part, ...]:
    return tuple(
        _Part(chapter, tuple(section for make in _SECTIONS if (section := make(chapter)) is not None))
        for chapter in chapters(entries, baseline)
    )


def _glance(parts: Sequence[_Part]) -> TableBlock | None:
    """What each chapter is about, in a line; None for one chapter."""
    if len(parts) < 2:
        return None
    lines = []
    for chapter, _ in parts:
        error = wrong_predictions(chapter)
        found = [row for row in chapter.rows if row.values(error.get)]
        least = min(found, key=lambda row: mean_and_std(row.values(error.get))[0], default=None)
        shown = (
            NOTHING if row is None else cell(row.values(error.get), len(row.entries))
            for row in (chapter.baseline, least)
        )
        label = NOTHING if least is None else least.label
        lines.append((chapter.title, chapter.part, str(len(chapter.entries)), *shown, label))
    columns = ("data and labels", "part", "runs", "baseline error %", "lowest error %", "of")
    return TableBlock(Table("Chapters", columns, tuple(lines), ("mean ± sample standard deviation over seeds",)))
