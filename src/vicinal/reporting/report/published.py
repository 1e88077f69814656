"""AdvMixup's tables of robustness: a row for each network and box, a column for each radius."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vicinal.evaluation.attacks import radius_text
from vicinal.reporting.report.blocks import Block, Paragraph, Section, TableBlock
from vicinal.reporting.report.comparable import uneven
from vicinal.reporting.report.grouping import Chapter, Row
from vicinal.reporting.report.measures import SPACES, examples
from vicinal.reporting.report.numbers import cell
from vicinal.reporting.report.robustness import without_source
from vicinal.reporting.tables import Table

_TITLE = "Error % under FGM, by radius"


def published(chapter: Chapter) -> Section | None:
    """One table for each preprocessing, as a radius is not the same in another; None if none was made."""
    rows = chapter.having("fgm")
    if not rows:
        return None
    figures = [found for row in rows for found in row.figures("fgm")]
    spaces = list(dict.fromkeys(map(_space, figures)))
    blocks: list[Block] = [
        Paragraph(
            "Laid out as in the AdvMixup paper: FGM, one gradient step in an L2 ball, without clipping; the point "
            "after the step counts. A single step is a weak attack: these tables repeat a published study, and "
            "are no sign of robustness."
        )
    ]
    if len(spaces) > 1:
        told = "Networks differ in their preprocessing, and with it in what a radius means: do not compare errors of "
        blocks.append(Paragraph(f"{told}one of these tables with those of another.", "warning"))
    blocks += [_table(chapter, rows, space, _TITLE + (f", in {space}" if len(spaces) > 1 else "")) for space in spaces]
    printed = next((found["published_table"] for found in figures if found.get("published_table")), None)
    if printed is not None:
        blocks.append(_printed(printed))
    blocks += [Paragraph(text, "warning") for text in _foreign(rows)]
    if (warning := uneven(chapter, "fgm")) is not None:
        blocks.append(Paragraph(warning, "warning"))
    return Section("fgm", "AdvMixup's robustness tables", tuple(blocks))


def _space(found: Mapping[str, Any]) -> str:
    """Where radii are measured: the space and, within a network, its preprocessing."""
    return f"{SPACES.get(found['space'], found['space'])} ({found['preprocess'] or 'no preprocessing'})"


def _table(chapter: Chapter, rows: Sequence[Row], space: str, title: str) -> TableBlock:
    """The networks of one space."""
    by_row = [(row, here) for row in rows if (here := [each for each in row.figures("fgm") if _space(each) == space])]
    figures = [each for _, here in by_row for each in here]
    radii = sorted({radius for found in figures for radius in found["epsilons"]})
    lines: list[tuple[str, ...]] = []
    marked = set()
    for letter, box in (("w", "white"), ("b", "black")):
        for row, here in by_row:
            seeds = [dict(zip(found["epsilons"], found[box], strict=True)) for found in here if found[box]]
            if seeds:
                if row is chapter.baseline:
                    marked.add(len(lines))
                at = [[errors[radius] for errors in seeds if radius in errors] for radius in radii]
                lines.append((f"{row.label} ({letter})", *(cell(found, len(row.entries)) for found in at)))
    clean = [f"{row.label} {cell([each['clean_error'] for each in here], len(row.entries))} %" for row, here in by_row]
    theirs = all(found["published"] for found in figures)
    sources = sorted({str(found["source"]) for found in figures if found.get("source")})
    lead = f", gradients of {', '.join(sources)}" if sources else ""
    reasons = "".join(f"; none for some runs: {why}" for why in without_source(figures))
    notes = (
        f"w: white box; b: black box{lead}{reasons}",
        f"radii in {space}" + ("; the published ones for these data" if theirs else "; our choice"),
        f"{examples(figures, chapter)}; without attack: {', '.join(clean)}",
    )
    return TableBlock(Table(title, ("run", *map(radius_text, radii)), tuple(lines), notes), marked=frozenset(marked))


def _foreign(rows: Sequence[Row]) -> Iterator[str]:
    """A warning for each black box whose source preprocesses otherwise than the network that it is meant for."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        for each in row.figures("fgm"):
            theirs, own = each.get("source_preprocess"), each["preprocess"] or "none"
            # The note goes by what both make of examples; older figures lack it, and have names at most.
            differ = each["note"] is not None if "note" in each else theirs not in (None, own)
            if each["black"] and each["space"] == "input" and differ:
                theirs = f"{own}, fitted otherwise" if theirs == own else theirs or "unnamed"
                found.setdefault((theirs, own), {})[row.label] = None
    for (theirs, own), labels in found.items():
        yield (
            f"The black box on {', '.join(labels)} feeds foreign preprocessing, the source's ({theirs}), into a "
            f"network that was trained with another ({own}). This makes errors by itself, at any radius, and the "
            "black box's error may exceed the white box's."
        )


def _printed(table: Mapping[str, Any]) -> TableBlock:
    """The paper's own numbers, for reading beside."""
    lines = [
        (f"{name} ({letter})", *(f"{100 * error:.2f}" for error in errors))
        for letter, box in (("w", "white"), ("b", "black"))
        for name, errors in table[box].items()
    ]
    notes = (
        f"from the {table['provenance']}; its labels, black box and seeds are not stated: an order to compare with, "
        "not numbers to reach",
    )
    columns = ("method", *map(radius_text, table["epsilons"]))
    return TableBlock(Table("As published: error % under FGM", columns, tuple(lines), notes))
