"""Charts of a report: curves with the spread over seeds, and reliability diagrams, each as the text of an SVG.

The same arguments give the same text. It holds nothing that a reader would have to fetch: letters are text in the
reader's own sans-serif, and there are no addresses, dates or versions in it. Colours, markers and hatches tell apart
the same things, so that nothing is lost on grey paper.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vicinal.errors import InputError
from vicinal.reporting._svg import DARK, legend_below, styled, text_of
from vicinal.reporting.regions import COLOURS, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Floats = NDArray[np.float64]

# Yellow is too pale for a thin line on white; Okabe and Ito's own eighth colour, black, takes its place.
LINE_COLOURS = tuple("#000000" if colour == "#F0E442" else colour for colour in COLOURS)
BAR, FAINT = "#8CB8DB", "#BBBBBB"
LEVELS = 255  # of an image of 8 bits: the unit that radii are told in
LABELS = ("accuracy", "over-confident by", "under-confident by", "after temperature scaling", "share of examples")
ACCURACY, OVER, UNDER, AFTER, SHARE = LABELS
ROW = 0.18  # inches that a line of text takes
MOST = 200  # points of a line
NEAR = 0.13  # share of the axis that two labels need between them


class Line(NamedTuple):
    """A curve.

    Attributes:
        label: its name in the legend.
        x: where it was measured (K,), finite.
        ys: for each seed the values there (K,): the mean is drawn, and a band from the smallest to the greatest. A
            value that is not finite, of any seed, leaves a gap. Of more than 200 points, neighbours become one: their
            mean, and the band of all of them.
        dashed: whether it is a broken line with hollow markers, as for a second kind of the same thing.
        colour: index of its colour and marker; after eight they repeat, in other pairs.
    """

    label: str
    x: Sequence[float]
    ys: Sequence[Sequence[float]]
    dashed: bool = False
    colour: int = 0


class ReliabilityPanel(NamedTuple):
    """One reliability diagram.

    Attributes:
        title: what stands above it.
        before: the bins, each with ``low``, ``high``, ``count``, ``confidence`` and ``accuracy``; the last two are None
            where it is empty. Shares are in [0,1].
        after: the bins once confidences were changed, such as by a temperature; None for none.
    """

    title: str
    before: Sequence[Mapping[str, Any]]
    after: Sequence[Mapping[str, Any]] | None = None


def lines_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    percent: bool = True,
    log_x: bool = False,
    title: str = "",
    wide: bool = False,
) -> str:
    """Curves over one axis, with a legend outside of it.

    Args:
        lines: at least one.
        x_label: what x is. Where all x are multiples of 1/255 and no short decimals, they are labelled so.
        y_label: what y is.
        percent: whether y are shares in [0,1], to be shown in per cent from 0; else the axis is as the values ask.
        log_x: whether the axis is logarithmic; an x of 0 then stands at its beginning.
        title: what stands above; "" for nothing.
        wide: half as wide again, for a picture that has the width of a page to itself.

    Returns:
        The text of an SVG element. It can be read at a width of 360 pixels (540 if it is wide) and above.

    Raises:
        InputError: no lines, a line without points or seeds, or of uneven length.
        MissingExtraError: matplotlib is not installed.
    """
    if not lines:
        raise InputError("chart: there are no lines to draw; give at least one")
    means = [_checked(line) for line in lines]
    with styled((lines, x_label, y_label, percent, log_x, title, wide)) as figure_type:
        width = 7.2 if wide else 4.8
        title = textwrap.fill(title, round(10 * width))
        figure = figure_type(figsize=(width, 3 + ROW * title.count("\n")), layout="constrained")
        axes = figure.subplots()
        for place, (line, (x, y, low, high)) in enumerate(zip(lines, means, strict=True)):
            _draw_line(axes, line, x, y, low, high, place)
        xs = np.unique(np.concatenate([x for x, *_ in means]))
        _x_axis(axes, xs, log_x)
        if percent:
            _percent_axis(axes, float(np.nanmax([np.nanmax(high, initial=0) for *_, high in means])))
        axes.grid(axis="y")
        axes.set(xlabel=x_label, ylabel=y_label)
        if title:
            axes.set_title(title)
        legend_below(figure, *axes.get_legend_handles_labels())
        return text_of(figure)


def reliability_chart(panels: Sequence[ReliabilityPanel], *, columns: int = 3) -> str:
    """Reliability diagrams beside one another: accuracy by confidence, and how many examples have that confidence.

    A thick line is the accuracy of a bin before; hatched is what lies between it and the bin's mean confidence, one way
    where confidence is too great and the other way where it is too small. Hatched heights, weighted by the shares
    below, add up to the calibration error. Diamonds are the bins after.

    Args:
        panels: at least one.
        columns: diagrams in a row, at least 1.

    Returns:
        The text of an SVG element. Three columns can be read at a width of 360 pixels and above.

    Raises:
        InputError: no panels, no columns, or a panel without bins.
        MissingExtraError: matplotlib is not installed.
    """
    if not panels:
        raise InputError("chart: there are no reliability diagrams to draw; give at least one")
    if columns < 1:
        raise InputError(f"chart: columns must be at least 1, got {columns}")
    if empty := [panel.title for panel in panels if not panel.before]:
        raise InputError(f"chart: the reliability diagram {empty[0]!r} has no bins; give at least one")
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    with styled((panels, columns)) as figure_type:
        width = {1: 3.4, 2: 4.8}.get(columns, 1.8 * columns)
        side = (width - 0.65) / columns - 0.3  # of a square, in inches, beside what is written around it
        titles = [textwrap.fill(panel.title, round(13 * (side + 0.1))) for panel in panels]
        height = 1.4 * side + 0.75 + ROW * max(title.count("\n") for title in titles)
        figure = figure_type(figsize=(width, height * rows), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).flatten()
        for place, panel in enumerate(panels):
            _draw_reliability(places[place], panel._replace(title=titles[place]), first=place % columns == 0)
        for axes in places[len(panels) :]:
            axes.remove()
        named: dict[str, Any] = {}
        for axes in (each for place in places[: len(panels)] for each in (place, *place.child_axes)):
            named |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        shown = [label for label in LABELS if label in named]
        legend_below(figure, [named[label] for label in shown], shown)
        return text_of(figure)


def _checked(line: Line) -> tuple[Floats, Floats, Floats, Floats]:
    """x, and mean, smallest and greatest y over the seeds, each (K,); NaN where a seed has no finite value."""
    x = np.asarray(line.x, dtype=np.float64)
    if not len(x) or not np.isfinite(x).all():
        raise InputError(f"chart: line {line.label!r} has no points, or an x that is not finite; leave it out")
    if not line.ys or any(len(y) != len(x) for y in line.ys):
        raise InputError(f"chart: line {line.label!r} needs {len(x)} values for each of at least one seed")
    y = np.asarray(line.ys, dtype=np.float64)
    y = np.where(np.isfinite(y).all(axis=0), y, np.nan)
    order = np.argsort(x, kind="stable")
    return x[order], y.mean(axis=0)[order], y.min(axis=0)[order], y.max(axis=0)[order]


def _draw_line(axes: Axes, line: Line, x: Floats, y: Floats, low: Floats, high: Floats, place: int) -> None:
    turn, index = divmod(line.colour, len(COLOURS))
    colour = LINE_COLOURS[index]
    if len(x) > MOST:
        groups = np.array_split(np.arange(len(x)), MOST)
        x, y = (np.array([values[group].mean() for group in groups]) for values in (x, y))
        low, high = (np.array([each(v[group]) for group in groups]) for v, each in ((low, np.min), (high, np.max)))
    every = max(1, len(x) // 10)
    size = 1 - 0.08 * min(place, 5)  # what lies under an equal line still shows at its sides
    axes.plot(
        x,
        y,
        color=colour,
        linewidth=2.2 * size,
        linestyle=(0, (4, 2)) if line.dashed else "-",
        marker=MARKERS[(index + turn) % len(MARKERS)],
        markersize=6.5 * size,
        markerfacecolor="white" if line.dashed else colour,
        markevery=(place % every, every),  # on long curves each has its markers elsewhere
        label=textwrap.fill(line.label, 50),
        clip_on=False,  # a marker on an axis is whole
        zorder=3,
    )
    if len(line.ys) > 1 or len(line.x) > MOST:
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0, zorder=2)


def _x_axis(axes: Axes, xs: Floats, log_x: bool) -> None:
    """Limits, and ticks where something was measured or at round numbers between."""
    levels = bool(np.allclose(xs * LEVELS, np.rint(xs * LEVELS), atol=1e-4)) and not _short(xs)
    if log_x:
        positive = xs[xs > 0]
        # Linear up to the first positive x, so that 0 has a place.
        axes.set_xscale("symlog", linthresh=float(positive.min()) if len(positive) else 1.0, linscale=0.5)
    if len(xs) > 1:
        axes.set_xlim(float(xs[0]), float(xs[-1]))
    if log_x:
        ticks = _spread(xs, axes)
        axes.set_xticks([], minor=True)
    elif levels:
        # Steps of 1, 2, 4, ... levels, at most five of them.
        step = 2 ** max(0, math.ceil(math.log2(max(1.0, float(xs[-1] - xs[0]) * LEVELS / 5))))
        ticks = [n / LEVELS for n in range(0, round(float(xs[-1]) * LEVELS) + 1, step) if n / LEVELS >= xs[0] - 1e-9]
    else:
        axes.locator_params(axis="x", nbins=6)
        return
    labels = [f"{round(tick * LEVELS)}/{LEVELS}" if levels and tick else f"{tick:g}" for tick in ticks]
    axes.set_xticks(ticks, labels)


def _short(xs: Floats) -> bool:
    """Whether two decimals say them: 0.2 is 51/255, and nobody would call it so."""
    return bool(np.allclose(xs, np.round(xs, 2), atol=1e-9))


def _spread(xs: Floats, axes: Axes) -> list[float]:
    """Those of the values that have room for a label, from the greatest down."""
    first, last = axes.transData.transform([(xs[0], 0), (xs[-1], 0)])[:, 0]
    kept: list[float] = []
    for x in xs[::-1].tolist():
        place = axes.transData.transform((x, 0))[0]
        if not kept or axes.transData.transform((kept[-1], 0))[0] - place >= NEAR * (last - first):
            kept.append(x)
    return kept[::-1]


def _percent_axis(axes: Axes, top: float, ticks: int = 5) -> None:
    """From 0 to a round number that is at least the greatest value, and no more than 100 % unless that is."""
    steps = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
    step = next((step for step in steps if top <= step * ticks * (1 + 1e-9)), 0.25)
    count = max(1, math.ceil(top / step - 1e-9))
    digits = 0 if step >= 0.01 else 1
    values = [step * k for k in range(count + 1)]
    axes.set_ylim(0, values[-1])
    axes.set_yticks(values, [f"{100 * value:.{digits}f} %" for value in values])


def _bars(bins: Sequence[Mapping[str, Any]]) -> tuple[Floats, Floats, Floats, Floats]:
    """Edges (M + 1,), and share of the examples, confidence and accuracy (M,); the last two NaN for empty bins."""
    edges = [part["low"] for part in bins] + [bins[-1]["high"]]
    counts = np.array([part["count"] for part in bins], dtype=np.float64)
    confidence, accuracy = (np.array([part[key] for part in bins], np.float64) for key in ("confidence", "accuracy"))
    return np.array(edges), counts / max(counts.sum(), 1), confidence, accuracy


def _draw_reliability(axes: Axes, panel: ReliabilityPanel, *, first: bool) -> None:
    """Bars, and counts below them."""
    edges, shares, confidence, accuracy = _bars(panel.before)
    axes.plot([0, 1], [0, 1], color=DARK, linewidth=0.9, linestyle=(0, (2, 2)), zorder=4)
    axes.stairs(np.fmin(accuracy, confidence), edges, fill=True, color=BAR)
    for label, miss, colour, hatch in (
        (OVER, confidence > accuracy, "#D55E00", "////"),
        (UNDER, confidence < accuracy, "#007A5A", "\\\\\\\\"),
    ):
        if miss.any():
            top, base = (np.where(miss, value, np.nan) for value in (confidence, accuracy))
            axes.stairs(top, edges, baseline=base, fill=True, fc="white", ec=colour, hatch=hatch, lw=0.5, label=label)
    axes.hlines(accuracy, edges[:-1], edges[1:], color="black", linewidth=1.6, label=ACCURACY, zorder=5)
    below = axes.inset_axes((0, -0.4, 1, 0.27))
    below.stairs(shares, edges, fill=True, color=FAINT, label=SHARE)
    if panel.after is not None:
        edges, shares, confidence, accuracy = _bars(panel.after)
        look: dict[str, Any] = {"marker": "D", "markersize": 3.8, "markerfacecolor": "white", "linestyle": "none"}
        axes.plot(confidence, accuracy, color="black", label=AFTER, clip_on=False, zorder=6, **look)
        below.stairs(shares, edges, color="black", linewidth=0.8)
    ticks, labels = (0, 0.5, 1), ("0", "50", "100 %")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=panel.title)
    axes.set_xticks(ticks, [""] * 3)
    axes.set_yticks(ticks, labels if first else [""] * 3)
    axes.set_ylabel("accuracy" if first else "")
    below.set(xlim=(0, 1), yticks=[], xlabel="confidence")
    below.set_xticks(ticks, labels)
    below.spines["left"].set_visible(False)
