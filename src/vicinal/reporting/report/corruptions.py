"""Errors on corrupted images: a heat map of kinds and rows, and each row's severities."""

from __future__ import annotations

from collections.abc import Sequence

from vicinal.reporting.report.blocks import Block, Details, Paragraph, Section, TableBlock, shade
from vicinal.reporting.report.comparable import Shared, shared, uneven
from vicinal.reporting.report.entries import known
from vicinal.reporting.report.grouping import Chapter, Row
from vicinal.reporting.report.measures import examples
from vicinal.reporting.report.numbers import cell
from vicinal.reporting.tables import Table, mean_and_std


def corruptions(chapter: Chapter) -> Section | None:
    """Heat map and details; None if nothing was corrupted."""
    rows = chapter.having("corruptions")
    if not rows:
        return None
    figures = [found for row in rows for found in row.figures("corruptions")]
    kinds = list(dict.fromkeys(kind for found in figures for kind in found["kinds"]))
    extra = list(dict.fromkeys(kind for found in figures for kind in found["extra"]))
    levels = ", ".join(map(str, dict.fromkeys(level for found in figures for level in found["severities"])))
    origins = " or ".join(sorted({found["origin"] for found in figures}))
    every = known(error for found in figures for errors in found["errors"].values() for error in errors)
    top = max(every, default=0.0)
    blocks: list[Block] = [
        Paragraph(
            f"Error on {examples(figures, chapter)}, corrupted at severities {levels}; images: {origins}. Darker "
            "is worse; all shades of this section share one scale."
        ),
        _map(rows, kinds, extra, shared(chapter), top),
        *(Details(f"Severities: {row.label}", (_severities(row, [*kinds, *extra], top),)) for row in rows),
    ]
    if (warning := uneven(chapter, "corruptions")) is not None:
        blocks.insert(1, Paragraph(warning, "warning"))
    return Section("corruptions", "Corruptions", tuple(blocks))


def _map(rows: Sequence[Row], kinds: Sequence[str], extra: Sequence[str], over: Shared, top: float) -> TableBlock:
    lines: list[tuple[str, ...]] = []
    shades: dict[tuple[int, int], str] = {}
    marked = set()

    def add(name: str, values: Sequence[Sequence[float]], *, mark: bool = False) -> None:
        if mark:
            marked.add(len(lines))
        for i, found in enumerate(values):
            if found:
                shades[len(lines), i + 1] = shade(mean_and_std(found)[0], 0.0, top)
        lines.append((name, *(cell(found, len(row.entries)) for found, row in zip(values, rows, strict=True))))

    def of_kind(row: Row, kind: str) -> list[float]:
        found = [figures["errors"].get(kind) or [None] for figures in row.figures("corruptions")]
        return [mean_and_std(errors)[0] for errors in found if len(known(errors)) == len(errors)]

    def means(*, extra: bool) -> list[list[float]]:
        return [known(over.mean(found, extra=extra) for found in row.figures("corruptions")) for row in rows]

    add("no corruption", [known(found["clean_error"] for found in row.figures("corruptions")) for row in rows])
    for kind in kinds:
        add(kind.replace("_", " "), [of_kind(row, kind) for row in rows])
    add(f"mean of {over.named()}", means(extra=False), mark=True)
    for kind in extra:
        add(f"{kind.replace('_', ' ')} (extra)", [of_kind(row, kind) for row in rows])
    if any(means(extra=True)):
        add(f"mean of {over.named(extra=True)}", means(extra=True), mark=True)
    told = sorted({note for row in rows for found in row.figures("corruptions") for note in found.get("notes") or ()})
    notes = (
        "each kind: mean over its severities; extra kinds are meant for choosing settings, and stay out of the mean",
        *told,
    )
    table = Table("Error % by kind of corruption", ("kind", *(row.label for row in rows)), tuple(lines), notes)
    return TableBlock(table, shades, frozenset(marked), scale=_scale(top))


def _severities(row: Row, kinds: Sequence[str], top: float) -> TableBlock:
    found = row.figures("corruptions")
    severities = found[0]["severities"]
    lines: list[tuple[str, ...]] = []
    shades: dict[tuple[int, int], str] = {}
    for kind in kinds:
        seeds = [
            figures["errors"][kind]
            for figures in found
            if kind in figures["errors"] and figures["severities"] == severities
        ]
        at = [known(errors[i] for errors in seeds) for i in range(len(severities))]
        shades |= {
            (len(lines), i + 1): shade(mean_and_std(values)[0], 0.0, top) for i, values in enumerate(at) if values
        }
        lines.append((kind.replace("_", " "), *(cell(values, len(row.entries)) for values in at)))
    title = f"Error % by severity, {row.label}"
    return TableBlock(Table(title, ("kind", *map(str, severities)), tuple(lines)), shades, scale=_scale(top))


def _scale(top: float) -> tuple[str, str]:
    return "0 %", f"{100 * top:.0f} %"
