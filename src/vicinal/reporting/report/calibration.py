"""Calibration: reliability diagrams before and after temperature scaling, and every figure."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from vicinal.reporting.charts import ReliabilityPanel, reliability_chart
from vicinal.reporting.report.blocks import Block, Chart, Charts, Paragraph, Section, TableBlock
from vicinal.reporting.report.comparable import uneven
from vicinal.reporting.report.entries import finite
from vicinal.reporting.report.grouping import Chapter, Row
from vicinal.reporting.report.measures import examples, whose
from vicinal.reporting.report.numbers import cell
from vicinal.reporting.tables import Table, mean_and_std

_FIGURES = (
    ("error %", "error", True),
    ("NLL", "nll", False),
    ("ECE %", "ece", True),
    ("adaptive ECE %", "adaptive_ece", True),
    ("class-wise ECE %", "classwise_ece", True),
    ("over-confidence %", "overconfidence", True),
    ("Brier", "brier", False),
    ("confidence gap", "confidence_gap", True),
)


def calibration(chapter: Chapter) -> Section | None:
    """Diagrams and table; None if calibration was not measured."""
    rows = chapter.having("calibration")
    if not rows:
        return None
    figures = [found for row in rows for found in row.figures("calibration")]
    blocks: list[Block] = [
        Paragraph(
            f"How well confidences tell how often a prediction is right, {examples(figures, chapter)}. A "
            "calibrated classifier's bars end on the diagonal; below it, it is over-confident. The temperature "
            "is fitted on the validation part and changes no prediction."
        ),
        *_diagrams(rows),
        _table(chapter, rows),
    ]
    if (warning := uneven(chapter, "calibration")) is not None:
        blocks.append(Paragraph(warning, "warning"))
    return Section("calibration", "Calibration", tuple(blocks))


def pooled(bins: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Reliability bins of several runs as those of one: counts add up, means are weighted with them.

    A run's bin with examples but without finite means, as of a network that diverged, is left out.

    Args:
        bins: of each run, with the same edges.

    >>> first = {"low": 0.0, "high": 1.0, "count": 1, "confidence": 0.5, "accuracy": 1.0}
    >>> pooled([[first], [{**first, "count": 3, "accuracy": 0.0}]])
    [{'low': 0.0, 'high': 1.0, 'count': 4, 'confidence': 0.5, 'accuracy': 0.25}]
    """
    made = []
    for same in zip(*bins, strict=True):
        filled = [
            each
            for each in same
            if each["count"] and None not in (finite(each[name]) for name in ("confidence", "accuracy"))
        ]
        count = sum(each["count"] for each in filled)
        confidence, accuracy = (
            math.fsum(each["count"] * each[name] for each in filled) / count if count else None
            for name in ("confidence", "accuracy")
        )
        edges = {"low": same[0]["low"], "high": same[0]["high"]}
        made.append({**edges, "count": count, "confidence": confidence, "accuracy": accuracy})
    return made


def _diagrams(rows: Sequence[Row]) -> list[Block]:
    """All in one picture, so that they have one size; three beside each other can be read on a telephone."""
    panels = [panel for row in rows if (panel := _panel(row)) is not None]
    if not panels:
        return []
    told = "; ".join(text for _, text in panels)
    alt = f"Reliability diagrams, accuracy by confidence. {told}. The table says more in numbers."
    return [Charts((Chart(functools.partial(reliability_chart, [panel for panel, _ in panels]), alt, told),))]


def _panel(row: Row) -> tuple[ReliabilityPanel, str] | None:
    """The diagram of a row, its runs pooled, and its calibration error in words; None if no run's is a number."""
    found = [each for each in row.figures("calibration") if finite(each["before"]["ece"]) is not None]
    if not found:
        return None
    alike = [each for each in found if each["bins"] == found[0]["bins"]]
    # After is shown beside before for the same runs: some may have no validation part to choose a temperature on.
    both = all(each["after"] and finite(each["after"]["ece"]) is not None for each in alike)
    whens = ["before", "after"] if both else ["before"]
    bins = [pooled([each[when]["reliability"] for each in alike]) for when in whens]
    eces = [f"{100 * mean_and_std([each[when]['ece'] for each in alike])[0]:.1f} %" for when in whens]
    runs = f"{len(alike)} of {len(row.entries)}" if len(alike) < len(row.entries) else str(len(alike))
    seeds = f" (mean of {runs} runs, bins pooled)" if len(row.entries) > 1 else ""
    told = f"{row.label}: ECE {' before, '.join(eces)}{' after' if len(eces) > 1 else ''}{seeds}"
    return ReliabilityPanel(row.label, bins[0], bins[1] if len(bins) > 1 else None), told


def _table(chapter: Chapter, rows: Sequence[Row]) -> TableBlock:
    lines: list[tuple[str, ...]] = []
    marked = set()
    reasons: dict[str, list[str]] = {}
    for row in rows:
        found = row.figures("calibration")
        for why in dict.fromkeys(each["why_not"] for each in found if each["why_not"]):
            reasons.setdefault(f"no temperature: {why}", []).append(row.label)
        for when in ("before", "after"):
            here = [each[when] for each in found if each[when]]
            if not here:
                continue
            if row is chapter.baseline:
                marked.add(len(lines))
            temperatures = [each["temperature"]["value"] for each in found if each["temperature"]]
            scaling = "none" if when == "before" else cell(temperatures, len(row.entries), fraction=False)
            cells = (
                cell([each[key] for each in here], len(row.entries), fraction=fraction) for _, key, fraction in _FIGURES
            )
            lines.append((row.label, scaling, *cells))
    sizes = sorted(
        {found["validation_n"] for row in rows for found in row.figures("calibration") if found["validation_n"]}
    )
    bins = sorted({found["bins"] for row in rows for found in row.figures("calibration")})
    notes = [
        f"{' or '.join(map(str, bins))} bins; ECE: equal width; adaptive: equal mass; class-wise: mean over classes; "
        "confidence gap: mean confidence minus accuracy, in points; Brier: in [0,2]",
        *([f"temperature: fitted on {' or '.join(map(str, sizes))} validation examples"] if sizes else []),
        *whose(reasons, len(rows)),
    ]
    columns = ("run", "temperature", *(name for name, _, _ in _FIGURES))
    return TableBlock(
        Table("Calibration before and after temperature scaling", columns, tuple(lines), tuple(notes)),
        marked=frozenset(marked),
    )
