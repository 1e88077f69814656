"""Errors under attack: curves and tables, with the signs that an attack failed beside them; and AdvMixup's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vicinal.reporting.report.blocks import Block, Chart, Charts, Details, Paragraph, Section, TableBlock
from vicinal.reporting.report.drawing import bands, row_charts
from vicinal.reporting.report.entries import Entry
from vicinal.reporting.report.grouping import Chapter, Row
from vicinal.reporting.report.measures import (
    COUNTS,
    NORMS,
    SPACES,
    Attack,
    attacks,
    errors_of,
    examples,
    radius_text,
    uneven,
)
from vicinal.reporting.report.numbers import cell
from vicinal.reporting.tables import Table

TOGETHER = 3
"""Rows whose white and black box can be read in one chart."""
WARNING = (
    "Errors under attack are lower bounds: a stronger attack may find more. Single-step attacks (FGM, FGSM) are weak, "
    "and small errors under them are no sign of robustness; read them beside the many-step attack and the flags."
)


def robustness(chapter: Chapter) -> Section | None:
    """Curves and tables of white-box and black-box attacks; None if none was made."""
    rows = chapter.having("robustness")
    if not rows:
        return None
    figures = [found for row in rows for found in row.figures("robustness")]
    sources = sorted({str(found["source"]) for found in figures if found.get("source")})
    black = f" Black box: gradients of {', '.join(sources)}." if sources else ""
    black += "".join(f" No black box for some runs: {why}." for why in without_source(figures))
    met = attacks(chapter)
    blocks: list[Block] = [
        Paragraph(f"Share of wrong predictions under attack, {examples(figures, chapter)}.{black}{bands(rows)}"),
        Paragraph(WARNING, "warning"),
    ]
    if (warning := uneven(chapter, "robustness")) is not None:
        blocks.append(Paragraph(warning, "warning"))
    charts = tuple(chart for attack in met if attack.many_steps for chart in _charts(rows, attack))
    blocks += [Charts(charts)] if charts else []
    for norm in NORMS:
        here = [attack for attack in met if attack.norm == norm]
        if here:
            blocks.append(_table(rows, chapter, norm, sorted(here, key=lambda attack: -attack.steps * attack.restarts)))
    if sanity := _sanity(rows):
        blocks += sanity
    else:
        blocks.append(Paragraph("No sanity flags were measured with these attacks.", "warning"))
    return Section("robustness", "Robustness", tuple(blocks))


def without_source(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why runs met no black box, each reason once."""
    return sorted({found["why_not"] for found in figures if found.get("why_not")})


def _charts(rows: Sequence[Row], attack: Attack) -> Iterator[Chart]:
    """White box and black box: in one chart of few rows, else one beside the other."""
    named = (("", "white", False), (", black box", "black", True))
    boxes = [each for each in named if any(errors_of(row, attack, each[1]) for row in rows)]
    norm = NORMS.get(attack.norm, attack.norm)
    for shown in [boxes] if len(rows) <= TOGETHER else [[each] for each in boxes]:

        def curves(
            row: Row, shown: Sequence[tuple[str, str, bool]] = shown
        ) -> list[tuple[str, Sequence[Mapping[float, float]], bool]]:
            return [(name, errors_of(row, attack, box, clean=True), dashed) for name, box, dashed in shown]

        box = f", {shown[0][1]} box" if len(shown) == 1 else ""
        yield from row_charts(
            rows,
            curves,
            title=f"{attack.name}, {norm}{box}",
            x_label=f"radius, {SPACES.get(attack.space, attack.space)}",
            y_label="error",
            alt=f"error by the {norm} radius of {attack.name}",
        )


def _table(rows: Sequence[Row], chapter: Chapter, norm: str, met: Sequence[Attack]) -> TableBlock:
    every = [errors_of(row, attack, box) for row in rows for attack in met for box in ("white", "black")]
    radii = sorted({radius for found in every for errors in found for radius in errors})
    lines: list[tuple[str, ...]] = []
    marked = set()
    for row in rows:
        clean = [cell([found["clean_error"] for found in row.figures("robustness")], len(row.entries))]
        flags = _verdict([each for _, each in _flags(row, norm)])
        for attack in met:
            for box in ("white", "black"):
                if not (seeds := errors_of(row, attack, box)):
                    continue
                at = [[errors[radius] for errors in seeds if radius in errors] for radius in radii]
                if row is chapter.baseline:
                    marked.add(len(lines))
                name = attack.name if attack.many_steps else f"{attack.name} (one step)"
                errors = [*(clean if 0.0 not in radii else ()), *(cell(found, len(row.entries)) for found in at)]
                lines.append((row.label, f"{name}, {box} box", *errors, flags))
    notes = [
        f"{attack.name}: {attack.steps} step{'s' if attack.steps > 1 else ''}, {attack.restarts} "
        f"start{'s' if attack.restarts > 1 else ''}; radii in {SPACES.get(attack.space, attack.space)}; "
        f"{COUNTS.get(attack.count, attack.count)}"
        for attack in met
    ]
    notes.append(
        "radius 0: no attack; flags: whether the sanity flags of these runs hold in balls of this norm, see below"
    )
    columns = ("run", "attack", *(("clean",) if 0.0 not in radii else ()), *map(radius_text, radii), "flags")
    table = Table(f"Error % under attack by {NORMS[norm]} radius", columns, tuple(lines), tuple(notes))
    return TableBlock(table, marked=frozenset(marked))


def _flags(row: Row, norm: str) -> list[tuple[Entry, Mapping[str, Any]]]:
    """The sanity flags of each run of a row in balls of a norm."""
    return [
        (entry, each)
        for entry in row.entries
        for each in (entry.study("robustness") or {}).get("sanity") or []
        if each["norm"] == norm
    ]


def _verdict(found: Sequence[Mapping[str, Any]]) -> str:
    """What the flags of several runs say, in short."""
    if not found:
        return "not measured"
    bad = sum(not each["holds"] for each in found)
    failed = dict.fromkeys(flag["name"] for each in found for flag in each["flags"] if not flag["holds"])
    if bad:
        return f"FAIL in {bad} of {len(found)}: {', '.join(failed)}"
    return f"hold in all {len(found)}" if len(found) > 1 else "hold"


def _sanity(rows: Sequence[Row]) -> list[Block]:
    """Whether attacks behaved as attacks that work do: every flag, folded away; the tables say whether all hold."""
    norms = [norm for norm in NORMS if any(_flags(row, norm) for row in rows)]
    if not norms:
        return []
    every = tuple(
        (
            f"{row.label}, seed {entry.seed}",
            f"{NORMS[norm]} {radius_text(each['epsilon'])}",
            str(each["n"]),
            flag["name"],
            flag["claim"],
            f"{flag['first']:.4f}",
            f"{flag['second']:.4f}",
            "yes" if flag["holds"] else "NO",
        )
        for row in rows
        for run in row.entries
        for norm in norms
        for entry, each in _flags(row, norm)
        if entry is run
        for flag in each["flags"]
    )
    title = "Every flag with its two numbers"
    columns = ("run", "ball", "examples", "flag", "what should hold", "first", "second", "holds")
    told = (
        "Flags are signs that an attack did not find what is there, as with masked gradients: more steps, a larger "
        "radius and the network's own gradients must find no fewer errors, and at a large radius nothing may stand. No "
        "flag proves anything: a network may pass them all and fall to another attack."
    )
    return [Paragraph(told), Details(title, (TableBlock(Table(title, columns, every)),))]


def published(chapter: Chapter) -> Section | None:
    """AdvMixup's tables of robustness: a row for each network and box, a column for each radius; None if not made."""
    rows = chapter.having("fgm")
    if not rows:
        return None
    figures = [found for row in rows for found in row.figures("fgm")]
    radii = sorted({radius for found in figures for radius in found["epsilons"]})
    lines: list[tuple[str, ...]] = []
    marked = set()
    for letter, box in (("w", "white"), ("b", "black")):
        for row in rows:
            seeds = [
                dict(zip(found["epsilons"], found[box], strict=True)) for found in row.figures("fgm") if found[box]
            ]
            if seeds:
                if row is chapter.baseline:
                    marked.add(len(lines))
                at = [[errors[radius] for errors in seeds if radius in errors] for radius in radii]
                lines.append((f"{row.label} ({letter})", *(cell(found, len(row.entries)) for found in at)))
    clean = [
        f"{row.label} {cell([found['clean_error'] for found in row.figures('fgm')], len(row.entries))} %"
        for row in rows
    ]
    inside = sorted(
        {
            f"{SPACES.get(found['space'], found['space'])} ({found['preprocess'] or 'no preprocessing'})"
            for found in figures
        }
    )
    theirs = all(found["published"] for found in figures)
    sources = sorted({str(found["source"]) for found in figures if found.get("source")})
    lead = f", gradients of {', '.join(sources)}" if sources else ""
    reasons = "".join(f"; none for some runs: {why}" for why in without_source(figures))
    notes = [
        f"w: white box; b: black box{lead}{reasons}",
        f"radii in {', '.join(inside)}" + ("; the published ones for these data" if theirs else "; our choice"),
        f"{examples(figures, chapter)}; without attack: {', '.join(clean)}",
    ]
    blocks: list[Block] = [
        Paragraph(
            "Laid out as in the AdvMixup paper: FGM, one gradient step in an L2 ball, without clipping; the point "
            "after the step counts. A single step is a weak attack: these tables repeat a published study, and "
            "are no sign of robustness."
        ),
        TableBlock(
            Table("Error % under FGM, by radius", ("run", *map(radius_text, radii)), tuple(lines), tuple(notes)),
            marked=frozenset(marked),
        ),
    ]
    printed = next((found["published_table"] for found in figures if found.get("published_table")), None)
    if printed is not None:
        blocks.append(_printed(printed))
    if (warning := uneven(chapter, "fgm")) is not None:
        blocks.append(Paragraph(warning, "warning"))
    return Section("fgm", "AdvMixup's robustness tables", tuple(blocks))


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
