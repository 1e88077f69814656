"""A few sentences that the numbers themselves choose: better, worse, or no clear difference."""

from __future__ import annotations

from collections.abc import Sequence

from vicinal.reporting.report.blocks import Block, Paragraph, Point, Points, Section
from vicinal.reporting.report.comparable import corrupted, shared
from vicinal.reporting.report.entries import finite
from vicinal.reporting.report.grouping import Chapter, Row
from vicinal.reporting.report.measures import (
    GAMMA,
    attacks,
    ece,
    examples,
    gamma,
    headline,
    under_attack,
    wrong_predictions,
)
from vicinal.reporting.report.numbers import Measure, cell, difference, number, of, single_error
from vicinal.reporting.report.overview import gates
from vicinal.reporting.tables import mean_and_std


def summary(chapter: Chapter) -> Section:
    """What the figures of a chapter say, each as one statement; what was not measured is not mentioned."""
    points = [
        *_clean(chapter),
        *_attacked(chapter),
        *_corrupted(chapter),
        *_calibrated(chapter),
        *_smooth(chapter),
        *(Point("Gate", f"{text}.", "warning") for text, passed in gates(chapter) if not passed),
    ]
    blocks: list[Block] = [Points(tuple(points))]
    if len(chapter.rows) > 1 and chapter.baseline is not None:
        blocks.append(
            Paragraph(
                "Differences are taken between runs with the same seed and split. “No clear difference” means within "
                "two standard errors of their mean: the larger of the one from the spread over seeds and the binomial "
                "one of the test set, which more seeds do not make smaller. Where there is one pair of runs and no "
                "binomial error, nothing is called better or worse. What lies outside need not be significant: with "
                "few seeds their spread is itself uncertain, and many comparisons are made.",
                "note",
            )
        )
    return Section("summary", "Summary", tuple(blocks))


def _clean(chapter: Chapter) -> list[Point]:
    text = claim(chapter, wrong_predictions(chapter))
    if text is None:
        rebuilt = [row for row in chapter.rows if row.values(lambda entry: entry.figure("squared_error"))]
        return [
            Point("Reconstruction", f"{row.label} rebuilds the {chapter.part} part with {_psnr(row)} dB PSNR.")
            for row in rebuilt
        ] or [Point("Error", "No run of this chapter has a measured error.")]
    no_test = " There is no test part: these are validation errors." if chapter.part == "validation" else ""
    alone = "" if chapter.baseline else " There is no supervised run on these data to compare with."
    return [Point("Clean error", text + alone + no_test)]


def _psnr(row: Row) -> str:
    return cell(row.values(lambda entry: entry.figure("psnr")), len(row.entries), fraction=False)


def _attacked(chapter: Chapter) -> list[Point]:
    rows = chapter.having("robustness")
    if not rows:
        return []
    chosen = headline(chapter)
    if chosen is None:
        told = "Only single-step attacks were run. They are weak, so nothing is said here of robustness."
        return [Point("Under attack", told, "warning")] if attacks(chapter) else []
    figures = [found for row in rows for found in row.figures("robustness")]
    measure = under_attack(*chosen, "white")
    over = examples(figures, chapter)
    points = [Point("Under attack", f"White-box {measure.name}, {over}. {claim(chapter, measure)}")]
    black = under_attack(*chosen, "black")
    if (text := claim(chapter, black)) is not None:
        points.append(
            Point("Black box", f"The same attack led by another network's gradients, which is easier to resist. {text}")
        )
    return [*points, _sanity(rows)]


def _sanity(rows: Sequence[Row]) -> Point:
    failed, checked = [], 0
    for row in rows:
        names: dict[str, None] = {}
        seeds = 0
        for found in row.figures("robustness"):
            sanities = found.get("sanity") or []
            checked += len(sanities)
            seeds += any(not each["holds"] for each in sanities)
            names |= {flag["name"]: None for each in sanities for flag in each["flags"] if not flag["holds"]}
        if seeds:
            failed.append(f"{row.label} ({', '.join(names)}; {seeds} of {len(row.entries)} runs)")
    if not checked:
        return Point("Sanity", "No sanity flags were measured: whether these attacks work is not known.", "warning")
    if failed:
        told = (
            f"Flags fail for {'; '.join(failed)}. Attacks on them did not behave as attacks that work do, so their "
            "errors under attack may be far too low."
        )
        return Point("Sanity", told, "warning")
    return Point("Sanity", "No sign of gradient masking in any run, which does not prove that there is none.")


def _corrupted(chapter: Chapter) -> list[Point]:
    rows = chapter.having("corruptions")
    if not rows:
        return []
    figures, over = [found for row in rows for found in row.figures("corruptions")], shared(chapter)
    if not over.kinds or not over.severities:
        told = "The runs share no kind or no severity of corruption, so their means are not compared."
        return [Point("Corrupted images", told, "warning")]
    text = claim(chapter, corrupted(chapter))
    if text is None:
        return []
    kinds = over.named(" of corruption")
    return [Point("Corrupted images", f"Mean over {kinds}, {examples(figures, chapter)}. {text}")]


def _calibrated(chapter: Chapter) -> list[Point]:
    before, after = ece("before"), ece("after")
    text = claim(chapter, before)
    if text is None:
        return []
    points = [Point("Calibration", f"Expected calibration error (ECE) as trained. {text}")]
    scaled, worse = [], []
    for row in chapter.rows:
        both = [
            (a, b)
            for entry in row.entries
            if (a := finite(before.get(entry))) is not None and (b := finite(after.get(entry))) is not None
        ]
        if both:
            means = [mean_and_std([pair[i] for pair in both])[0] for i in (0, 1)]
            scaled.append(f"{row.label} {100 * means[0]:.2f} → {100 * means[1]:.2f} %")
            if means[1] > means[0]:
                worse.append(row.label)
    if scaled:
        bad = f" It is worse after scaling for {', '.join(worse)}." if worse else ""
        told = f"ECE before and after, with the temperature fitted on the validation part: {'; '.join(scaled)}.{bad}"
        points.append(Point("Temperature scaling", told))
    return points


def _smooth(chapter: Chapter) -> list[Point]:
    text = claim(chapter, gamma())
    if text is None:
        return []
    return [
        Point("Smoothness", f"Local linearity error {GAMMA} of the loss, found by search; smaller is smoother. {text}")
    ]


def claim(chapter: Chapter, measure: Measure) -> str | None:
    """Which row has the least, what the baseline has, and how each other row differs from it; None if not measured."""
    found = [row for row in chapter.rows if row.values(measure.get)]
    if not found:
        return None
    least = min(found, key=lambda row: mean_and_std(row.values(measure.get))[0])
    base = chapter.baseline
    if len(found) == 1:
        only = f"{least.label}: {of(least, measure)}{_alone(least, measure)}."
        return only + _no_comparison(chapter, found)
    text = f"Lowest: {least.label} with {of(least, measure)}{_alone(least, measure)}"
    if base is None or base not in found:
        return f"{text}.{_no_comparison(chapter, found)}"
    if least is base:
        text += ", which is the baseline: no other run is below it."
    else:
        text += f"; the baseline, {base.label}: {of(base, measure)}."
    return f"{text} {_verdicts([row for row in found if row is not base], base, measure)}"


def _alone(row: Row, measure: Measure) -> str:
    """The number of seeds; of a single run the number of examples and the binomial standard error."""
    seeds = len(row.values(measure.get))
    if seeds > 1:
        return f" ({seeds} seeds)"
    alone = single_error(row, measure)
    if alone is None:
        return " (one run)"
    return f" (one run, {alone[0]} examples, standard error {100 * alone[1]:.2f})"


def _no_comparison(chapter: Chapter, found: Sequence[Row]) -> str:
    """Why rows are not compared, where there is a baseline that they could have been compared with."""
    if chapter.baseline is None or len(chapter.rows) == 1:
        return ""
    return " No other run has it." if chapter.baseline in found else " It was not measured of the baseline."


def _verdicts(rows: Sequence[Row], base: Row, measure: Measure) -> str:
    told: dict[str, list[str]] = {"lower": [], "none": [], "higher": [], "unknown": [], "apart": []}
    found = [(row, difference(row, base, measure)) for row in rows]
    found.sort(key=lambda each: -abs(each[1].mean) if each[1] else 0.0)  # the largest difference first
    for row, apart in found:
        if apart is None:
            told["apart"].append(row.label)
        elif apart.verdict == "none":
            told["none"].append(row.label)
        elif apart.verdict == "unknown":
            size = f"{100 * apart.mean:+.2f} points" if measure.fraction else _signed(apart.mean)
            told["unknown"].append(f"{row.label} {size}")
        else:
            size = f"{100 * abs(apart.mean):.2f} points" if measure.fraction else number(abs(apart.mean))
            single = " (one pair of runs)" if len(apart.values) == 1 else ""
            told[apart.verdict].append(f"{row.label} by {size}{single}")
    heads = {
        "lower": "Better than the baseline",
        "none": "No clear difference from the baseline",
        "higher": "Worse than the baseline",
        "unknown": "Difference from the baseline in one pair of runs, no error known",
        "apart": "Not compared, as no run shares seed and split with the baseline",
    }
    return " ".join(f"{heads[key]}: {', '.join(labels)}." for key, labels in told.items() if labels)


def _signed(value: float) -> str:
    return ("-" if value < 0 else "+") + number(abs(value))
