"""Pictures of a results table, as SVG: a point for each row, its standard deviation, and where the baseline stands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from vicinal.reporting import mean_and_std

LEFT, WIDTH, GAP, ROW, TOP, BOTTOM = 190, 250, 26, 19, 34, 30  # pixels
INK, FAINT, POINT = "#222", "#ccc", "#0072B2"
FIGURES = {
    "test error %": lambda run: run["test"]["error"]["last"],
    "error under PGD %": lambda run: run["measures"]["pgd"]["error"],
    "error on corrupted images %": lambda run: run["measures"]["corruptions"]["error"],
}


def dots(results: Mapping[str, Any], figures: Sequence[str]) -> str:
    """A panel for each figure, side by side, a line for each row of a grid's results.

    Args:
        results: what `vicinal.summary.collect` gives.
        figures: names out of `FIGURES`; every run has them.
    """
    rows = {row["row"]: row["runs"] for row in results["rows"]}
    right = LEFT + len(figures) * (WIDTH + GAP)
    height = TOP + len(rows) * ROW + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right} {height}" width="{right}" role="img" '
        f'font-family="sans-serif" font-size="12" fill="{INK}"><title>{escape(results["title"])}</title>',
        f'<rect width="{right}" height="{height}" fill="#fff"/>',
    ]
    parts += [
        f'<text x="{LEFT - 14}" y="{_y(place) + 4}" text-anchor="end">{escape(label)}</text>'
        for place, label in enumerate(rows)
    ]
    for number, figure in enumerate(figures):
        values = {label: [100 * FIGURES[figure](run) for run in runs] for label, runs in rows.items()}
        parts += _panel(figure, values, values[results["baseline"]], LEFT + number * (WIDTH + GAP), height)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(
    title: str, values: Mapping[str, Sequence[float]], baseline: Sequence[float], left: int, height: int
) -> list[str]:
    stats = {label: mean_and_std(found) for label, found in values.items()}
    top = max(mean + (0 if math.isnan(std) else std) for mean, std in stats.values())
    step = next(s for s in (1, 2, 5, 10, 20, 50) if top / s <= 6)
    scale = WIDTH / (step * math.ceil(top / step))
    floor = height - BOTTOM
    lines = [f'<text x="{left}" y="18" font-weight="bold">{escape(title)}</text>']
    for tick in range(math.ceil(top / step) + 1):
        x = left + tick * step * scale
        lines.append(f'<path d="M{x:.1f} {TOP}V{floor}" stroke="{FAINT}" stroke-width="0.6"/>')
        lines.append(f'<text x="{x:.1f}" y="{floor + 16}" text-anchor="middle" font-size="11">{tick * step}</text>')
    x = left + mean_and_std(baseline)[0] * scale
    lines.append(f'<path d="M{x:.1f} {TOP}V{floor}" stroke="{INK}" stroke-dasharray="4 3"/>')
    for place, (mean, std) in enumerate(stats.values()):
        low, high = (left + max(mean + sign * std, 0) * scale for sign in (-1, 1))
        if not math.isnan(std):
            lines.append(f'<path d="M{low:.1f} {_y(place)}H{high:.1f}" stroke="{POINT}" stroke-width="2"/>')
        lines.append(f'<circle cx="{left + mean * scale:.1f}" cy="{_y(place)}" r="4" fill="{POINT}"/>')
    return lines


def _y(place: int) -> float:
    return TOP + (place + 0.5) * ROW
