"""Figures of the paper's kind: the mixup loss along training, cosines, losses by radius, and the generalisation gap."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from vicinal.reporting.charts import Line, lines_chart
from vicinal.reporting.report.blocks import Block, Chart, Charts, Paragraph
from vicinal.reporting.theory.sentences import applying_bound, shown

Values = Mapping[str, Any]

_STEPS = "training step (0, then logarithmic)"


def beside(values: Values, charts: Sequence[Chart | None]) -> tuple[Block, ...]:
    """The charts that there are, and why there are none along the training."""
    found = tuple(chart for chart in charts if chart is not None)
    why = (
        ()
        if values["training"]
        else (Paragraph(f"Nothing was looked at along training: {values['no_training']}.", "note"),)
    )
    return (*((Charts(found),) if found else ()), *why)


def loss_charts(values: Values) -> tuple[Block, ...]:
    """The mixup loss and its expansions along training, and how far these are off."""
    names = {"around": "around the examples", "shrunk": "around shrunk points"}
    looks = values["training"]["looks"] if values["training"] else []
    labels = {"mixup": "mixup loss", **names}

    def gaps(key: str) -> list[list[float]]:
        """In per cent of the mixup loss, with the draws of both counted."""
        found = [100 * (look[key] / look["mixup"] - 1) for look in looks]
        errors = [
            100 * math.hypot(look[f"{key}_standard_error"], look["mixup_standard_error"]) / look["mixup"]
            for look in looks
        ]
        return _band(found, errors)

    charts = (
        _along(
            values, "Mixup loss during training", [(labels[key], _of(looks, key)) for key in labels], y_label="loss"
        ),
        _along(
            values,
            "How far the expansions are off",
            [(names[key], gaps(key)) for key in names],
            y_label="gap, % of the mixup loss",
            first=1,
        ),
    )
    return beside(values, charts)


def cosine_charts(values: Values) -> tuple[Block, ...]:
    """The cosines of all examples at the end, sorted, and their mean and the least along training."""
    cosines = values["cosines"]
    shares = [(i + 1) / len(cosines) for i in range(len(cosines))]
    mean = values["statements"]["radii"]["values"]["cosine"]["mean"]
    draw = functools.partial(
        lines_chart,
        [Line("R_i", shares, [cosines])],
        x_label="share of the examples, from the least cosine",
        y_label="cosine",
        percent=False,
        title="Cosines R_i at the end of training",
    )
    alt = f"Sorted cosines, from {shown(cosines[0])} over a mean of {shown(mean)} to {shown(cosines[-1])}."
    looks = values["training"]["looks"] if values["training"] else []
    lines = [("mean", _of(looks, "cosine_mean")), ("least", [[look["cosine_min"] for look in looks]])]
    return beside(
        values,
        (
            Chart(draw, alt, f"All {len(cosines)} examples of the sample."),
            _along(values, "Cosines during training", lines, y_label="cosine"),
        ),
    )


def radius_chart(values: Values) -> Chart:
    """Losses by radius, of attacks and of the surrogate, beside the mixup loss, and the bound if there is one."""
    curve, found = values["curve"], values["statements"]
    x, ends = curve["multiple"], [curve["multiple"][0], curve["multiple"][-1]]
    apgd, fgm, surrogate = (
        _band(curve[name], curve[f"{name}_standard_error"]) for name in ("apgd", "fgm", "surrogate")
    )
    lines = [
        Line("Auto-PGD", x, apgd, colour=0),
        Line("one gradient step", x, fgm, dashed=True, colour=1),
        Line("second-order surrogate", x, surrogate, dashed=True, colour=2),
        Line("mixup loss", ends, [[found["mixup_loss"]["values"]["value"]] * 2], colour=3),
    ]
    if applying_bound(values) is not None:
        bound = found["expansion"]["values"]["total"]
        lines.append(Line("expansion: bound of the surrogate at 1", ends, [[bound] * 2], dashed=True, colour=4))
    draw = functools.partial(
        lines_chart,
        lines,
        x_label="radius, in multiples of each example's own",
        y_label="mean loss",
        percent=False,
        title="Loss by radius",
    )
    said = "; ".join(f"{line.label} up to {shown(line.ys[0][-1])}" for line in lines)
    caption = f"Bands: one standard error over {curve['n']} examples."
    return Chart(draw, f"Loss by radius: {said}. The table says the same.", caption)


def _band(means: Sequence[float], errors: Sequence[float]) -> list[list[float]]:
    """Means, and a standard error below and above: a chart draws their mean, and a band between the other two."""
    low, high = ([mean + side * error for mean, error in zip(means, errors, strict=True)] for side in (-1, 1))
    return [list(means), low, high]


def gap_charts(values: Values) -> tuple[Block, ...]:
    """Losses and errors along training, on the sample and on held-out examples."""
    looks = values["training"]["looks"] if values["training"] else []
    held = values["held_out"]
    parts = {"train": "sample"} | ({"held_out": f"{held['part']} part"} if held else {})
    more = f"; {held['n']} examples of the {held['part']} part" if held else ""
    charts = [
        _along(
            values,
            f"{what.capitalize()} during training",
            [(label, _of(looks, f"{part}_{what}")) for part, label in parts.items()],
            y_label=what,
            percent=what == "error",
            more=more,
        )
        for what in ("loss", "error")
    ]
    return beside(values, charts)


def _of(looks: Sequence[Values], key: str) -> list[list[float]]:
    """A figure of each look, with its standard error."""
    return _band([look[key] for look in looks], [look[f"{key}_standard_error"] for look in looks])


def _along(
    values: Values,
    title: str,
    lines: Sequence[tuple[str, Sequence[Sequence[float]]]],
    *,
    y_label: str,
    percent: bool = False,
    first: int = 0,
    more: str = "",
) -> Chart | None:
    """A chart of what was looked at along training; None if nothing was. All lines but the first are broken ones.

    Args:
        values: of the run.
        title: of the chart.
        lines: labels, and values, one for each look, alone or with those of `_band`.
        y_label: of the axis.
        percent: whether values are shares.
        first: colour of the first line.
        more: what to add to the caption.
    """
    again = values["training"]
    if again is None:
        return None
    steps = [look["step"] for look in again["looks"]]
    made = [
        Line(label, steps, found, dashed=place + first > 0, colour=place + first)
        for place, (label, found) in enumerate(lines)
    ]
    draw = functools.partial(
        lines_chart, made, x_label=_STEPS, y_label=y_label, percent=percent, log_x=True, title=title
    )
    ends = [f"{line.label} {shown(line.ys[0][0])} at first and {shown(line.ys[0][-1])} at the end" for line in made]
    caption = f"{again['n']} examples of the sample, with the same draws at each step{more}. Bands: one standard error."
    return Chart(draw, f"{title}: {'; '.join(ends)}.", caption)
