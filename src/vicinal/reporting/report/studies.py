"""Interpolation paths, smoothness, decision regions and the most confident mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vicinal.reporting.report.blocks import (
    Block,
    Charts,
    Details,
    Paragraph,
    Picture,
    Pictures,
    Section,
    TableBlock,
)
from vicinal.reporting.report.comparable import uneven
from vicinal.reporting.report.drawing import bands, row_charts
from vicinal.reporting.report.entries import Entry, finite, known
from vicinal.reporting.report.grouping import Chapter, Row
from vicinal.reporting.report.measures import SPACES, examples, whose
from vicinal.reporting.report.numbers import NOTHING, cell, number
from vicinal.reporting.tables import Table, mean_and_std, percent

_SHOWN = (0.0, 0.25, 0.5, 0.75, 1.0)
_SHOWN_MISTAKES = 8
"""Mistakes of a row that are shown."""


def paths(chapter: Chapter) -> Section | None:
    """Errors along straight lines between examples; None if not measured."""
    rows = chapter.having("paths")
    if not rows:
        return None
    figures = [found for row in rows for found in row.figures("paths")]
    kinds = list(dict.fromkeys(kind for found in figures for kind in found["errors"]))

    def errors(row: Row, kind: str) -> list[Mapping[float, float]]:
        found = [each for each in row.figures("paths") if kind in each["errors"]]
        return [dict(zip(each["lambdas"], each["errors"][kind], strict=True)) for each in found]

    charts = tuple(
        chart
        for kind in kinds
        for chart in row_charts(
            rows,
            lambda row, kind=kind: [("", errors(row, kind), False)],  # type: ignore[misc]
            title=f"{kind} paths",
            x_label="λ, share of the first example",
            y_label="error",
            alt="error by the place on the path",
        )
    )
    lambdas = sorted({value for found in figures for value in found["lambdas"]})
    shown = [min(lambdas, key=lambda each: abs(each - wanted)) for wanted in _SHOWN]
    shown = list(dict.fromkeys(shown))
    lines: list[tuple[str, ...]] = []
    marked = set()
    for kind in kinds:
        for row in rows:
            seeds = errors(row, kind)
            if row is chapter.baseline:
                marked.add(len(lines))
            at = [[points[value] for points in seeds if value in points] for value in shown]
            whole = [list(points.values()) for points in seeds if len(known(points.values())) == len(points)]
            largest = [max(errors) for errors in whole]
            mean = [mean_and_std(errors)[0] for errors in whole]
            lines.append((row.label, kind, *(cell(each, len(row.entries)) for each in (*at, mean, largest))))
    told = " or ".join(sorted({str(found["attack"]) for found in figures}))
    inside = " or ".join(sorted({SPACES.get(found["space"], found["space"]) for found in figures}))
    columns = ("run", "path", *(f"λ = {value:g}" for value in shown), "mean", "largest")
    notes = (f"straight lines in {inside}; adversarial end: {told}",)
    blocks: list[Block] = [
        Paragraph(
            f"Error along straight lines between two examples, and from one to an adversarially perturbed one; "
            f"{examples(figures, chapter)}. A mixed point counts as right if the prediction is the label of either "
            f"end.{bands(rows)}"
        ),
        Charts(charts),
        TableBlock(Table("Error % along interpolation paths", columns, tuple(lines), notes), marked=frozenset(marked)),
        *_warned(chapter, "paths"),
    ]
    return Section("paths", "Interpolation paths", tuple(blocks))


def smoothness(chapter: Chapter) -> Section | None:
    """Every measure of smoothness, with the set that it runs over; None if not measured."""
    rows = chapter.having("smoothness")
    if not rows:
        return None
    names: dict[str, Mapping[str, Any]] = {}
    reasons: dict[str, list[str]] = {}
    broken: dict[str, None] = {}
    for row in rows:
        for found in row.figures("smoothness"):
            for each in found["rows"]:
                first = names.setdefault(each["name"], each)
                if finite(first["value"]) is None and finite(each["value"]) is not None:
                    names[each["name"]] = each  # a set that was measured tells more than one that was not
                if each["why_not"] and row.label not in reasons.setdefault(f"{each['name']}: {each['why_not']}", []):
                    reasons[f"{each['name']}: {each['why_not']}"].append(row.label)
            for flag in found.get("flags") or ():
                if not flag["holds"]:
                    broken[f"{row.label}: {flag['name']} is not {flag['claim']}"] = None
    lines = tuple(
        (f"{name} {about['symbol']}", about["kind"], about["over"], *(_smooth(row, name) for row in rows))
        for name, about in names.items()
    )
    notes = (
        "mean over the set and seeds ± sample standard deviation over seeds; in brackets the largest of any example "
        "and seed; a lower estimate may miss larger values, an upper bound may be far above the truth",
        *whose(reasons, len(rows)),
    )
    columns = ("measure", "what it is", "over", *(row.label for row in rows))
    blocks: list[Block] = [
        Paragraph(
            "How fast outputs and gradients can change. Smaller is smoother. Each line says over which set it runs: "
            "estimates near the examples say nothing of what lies far from them."
        ),
        TableBlock(Table("Smoothness", columns, lines, notes)),
        *(
            Paragraph(f"An estimate lies above its bound, so one of them is wrong: {text}.", "warning")
            for text in broken
        ),
        *_warned(chapter, "smoothness"),
    ]
    return Section("smoothness", "Smoothness", tuple(blocks))


def _smooth(row: Row, name: str) -> str:
    found = [each for figures in row.figures("smoothness") for each in figures["rows"] if each["name"] == name]
    values = known(each["value"] for each in found)
    largest = known(each["largest"] for each in found)
    if not values:
        return NOTHING
    mean, std = mean_and_std(values)
    some = f" ({len(values)} of {len(row.entries)})" if len(values) < len(row.entries) else ""
    return number(mean, std) + some + (f" [{number(max(largest))}]" if largest else "")


def regions(chapter: Chapter) -> Section | None:
    """What networks learnt in the plane, side by side; None if there are no pictures."""
    shown, more = [], []
    for row in chapter.rows:
        pictures = [made for entry in row.entries if (made := _region(row, entry)) is not None]
        shown += pictures[:1]
        more += pictures[1:]
    if not shown:
        return None
    blocks: list[Block] = [
        Paragraph(
            "Predicted classes in the plane: the surer, the stronger the colour; black lines are decision boundaries. "
            "Large markers are labelled points, small dots unlabelled ones. The first seed of each row."
        ),
        Pictures(tuple(shown)),
    ]
    if more:
        blocks.append(Details(f"Other seeds: {len(more)} pictures", (Pictures(tuple(more)),)))
    return Section("regions", "Decision regions", tuple(blocks))


def _region(row: Row, entry: Entry) -> Picture | None:
    png = ((entry.study("regions") or {}).get("pictures") or {}).get("regions")
    if png is None:
        return None
    error = entry.figure("error")
    told = "" if error is None else f", {entry.part} error {100 * error:.2f} %"
    return Picture(png, f"Decision regions of {row.label}, seed {entry.seed}", f"{row.label}, seed {entry.seed}{told}")


def mistakes(chapter: Chapter) -> Section | None:
    """The wrong predictions that networks were surest of, of the first seed of each row; None if not looked for."""
    rows = chapter.having("mistakes")
    if not rows:
        return None
    blocks: list[Block] = [Paragraph("Wrong predictions with the highest confidence, of the first seed of each row.")]
    lines: list[tuple[str, ...]] = []
    for row in rows:
        entry = next(entry for entry in row.entries if entry.study("mistakes") is not None)
        found = entry.study("mistakes") or {}
        heading = f"{row.label}, seed {entry.seed}: {found['wrong']} of {found['n']} wrong"
        pictures = found.get("pictures") or {}
        made: list[Picture] = []
        for item in found["items"]:
            label, predicted = entry.class_name(item["label"]), entry.class_name(item["predicted"])
            name = item["name"] or f"example {item['index']}"
            if str(item["index"]) in pictures and len(made) < _SHOWN_MISTAKES:
                alt = f"{name}, a {label} taken for a {predicted}"
                caption = f"{label}, taken for {predicted} ({_percent(item['confidence'], 1)} %); {name}"
                made.append(Picture(pictures[str(item["index"])], alt, caption))
            shares = (_percent(item["confidence"], 2), _percent(item["of_label"], 2))
            lines.append((row.label, name, label, predicted, *shares))
        if made:
            blocks.append(Pictures(tuple(made), heading, small=True))
        else:
            blocks.append(Paragraph(f"{heading}."))
    if lines:
        columns = ("run", "example", "label", "predicted", "confidence %", "given to the label %")
        table = TableBlock(Table("Most confident mistakes", columns, tuple(lines)))
        drawn = any(isinstance(block, Pictures) for block in blocks)
        blocks.append(Details("The same as a table", (table,)) if drawn else table)
    return Section("mistakes", "Most confident mistakes", tuple(blocks))


def _percent(share: float | None, digits: int) -> str:
    return NOTHING if finite(share) is None else percent([share or 0.0], digits)


def _warned(chapter: Chapter, study: str) -> Sequence[Paragraph]:
    warning = uneven(chapter, study)
    return () if warning is None else (Paragraph(warning, "warning"),)
