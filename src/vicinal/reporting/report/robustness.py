"""Errors under attack: curves and tables, with the signs that an attack failed beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vicinal.evaluation.attacks import radius_text
from vicinal.reporting.report.blocks import Block, Chart, Charts, Details, Paragraph, Section, TableBlock
from vicinal.reporting.report.comparable import uneven
from vicinal.reporting.report.drawing import bands, row_charts
from vicinal.reporting.report.entries import Entry, finite
from vicinal.reporting.report.grouping import Chapter, Row
from vicinal.reporting.report.measures import COUNTS, NORMS, SPACES, Attack, attacks, errors_of, examples
from vicinal.reporting.report.numbers import NOTHING, cell
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
            str(flag.get("n") or each["n"]),  # some flags are read off the curves, which are of more examples
            flag["name"],
            flag["claim"],
            *(NOTHING if finite(flag[key]) is None else f"{flag[key]:.4f}" for key in ("first", "second")),
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
