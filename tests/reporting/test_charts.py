"""Charts: what is drawn is what was measured, it can be read, and the same figures are the same text."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from vicinal.errors import InputError
from vicinal.evaluation import Calibration
from vicinal.reporting import _svg, charts
from vicinal.reporting.charts import Line, ReliabilityPanel, lines_chart, reliability_chart

RADII = tuple(level / 255 for level in (0, 1, 2, 4, 8, 16, 32, 64))
NAMES = {"x_label": "radius", "y_label": "error"}


def line(label: str = "a", seeds: int = 3, **more: Any) -> Line:
    ys = [[min(1.0, 0.05 + 0.01 * seed + 3 * x) for x in RADII] for seed in range(seeds)]
    return Line(label, RADII, ys)._replace(**more)


def six() -> list[Line]:
    x = np.linspace(0, 0.3, 20).tolist()
    ys = [[[0.1 * i + 0.01 * seed + at for at in x] for seed in range(3)] for i in range(6)]
    return [Line(f"method number {i}", x, ys[i], colour=i, dashed=i % 2 == 1) for i in range(6)]


def bins(strength: float, n: int = 400, seed: int = 0) -> tuple[Calibration, list[dict[str, Any]]]:
    """Reliability of a classifier whose confidence is off by ``strength``."""
    draws = torch.Generator().manual_seed(seed)
    confidence = 0.5 + 0.5 * torch.rand(n, generator=draws, dtype=torch.float64)
    right = torch.rand(n, generator=draws, dtype=torch.float64) < confidence - strength * (1.2 - confidence)
    state = Calibration()
    state.update(torch.stack([confidence, 1 - confidence], dim=1), 1 - right.long())
    return state, [asdict(part) for part in state.reliability]


def panel(title: str = "a", strength: float = 0.3, *, after: bool = True) -> ReliabilityPanel:
    return ReliabilityPanel(title, bins(strength)[1], bins(0.02)[1] if after else None)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts come as matplotlib's figure instead of as its text."""
    monkeypatch.setattr(charts, "text_of", lambda figure: figure.draw_without_rendering() or figure)


CHARTS = {
    "curves": lambda: lines_chart(six(), **NAMES),
    "radii": lambda: lines_chart([line()], **NAMES, log_x=True, title="title"),
    "wide": lambda: lines_chart([line()], **NAMES, percent=False, wide=True),
    "one diagram": lambda: reliability_chart([panel()]),
    "four diagrams": lambda: reliability_chart([panel(f"method {i}", 0.4 - 0.3 * i) for i in range(4)]),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_one_light_element_that_stands_alone(name: str) -> None:
    text = CHARTS[name]()
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert set(re.findall(r"\w+://[^\"' )]*", text)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"(?:href=\"|url\()(.)", text)) <= {"#"}
    for word in ("<image", "<script", "@import", "metadata", "matplotlib", "Matplotlib", ">nan", '"nan', " nan "):
        assert word not in text, word
    assert len(text.encode()) < 60_000


@pytest.mark.parametrize("name", CHARTS)
def test_the_same_figures_are_the_same_text(name: str) -> None:
    before = dict(matplotlib.rcParams)
    first = CHARTS[name]()
    # Whatever the user has set, and however much was drawn before.
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "path", "lines.linewidth": 9}):
        assert CHARTS[name]() == first
    assert dict(matplotlib.rcParams) == before


def test_parts_of_two_charts_on_a_page_do_not_meet() -> None:
    first, second = (re.findall(r'\bid="([^"]*)"', lines_chart([line(name)], **NAMES)) for name in "ab")
    assert len(set(first)) == len(first) > 1
    assert not set(first) & set(second)


def test_drawing_needs_no_pyplot() -> None:
    code = (
        "import sys; from vicinal.reporting.charts import Line, lines_chart\n"
        "assert 'matplotlib' not in sys.modules\n"
        "lines_chart([Line('a', [0, 1], [[0, 1]])], x_label='', y_label='')\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("label", ["run_1 $x^2$ & <b>", "1.2345678", "方法", "a\nb", "long " * 40])
def test_names_are_text_as_they_are(label: str) -> None:
    root = ElementTree.fromstring(lines_chart([line(label)], **NAMES, title=label))
    shown = re.sub(r"\s+", "", "".join(root.itertext()))
    assert shown.count(re.sub(r"\s+", "", label)) == 2


def smallest_letters(name: str) -> float:
    """In pixels, on the smallest screen that the chart is for."""
    text = CHARTS[name]()
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', text)[1])  # type: ignore[index]
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: (?:\w+ )*([\d.]+)px", text)]
    return min(sizes) * (540 if name == "wide" else 360) / width


@pytest.mark.parametrize("name", CHARTS)
def test_letters_can_be_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert smallest_letters(name) >= 8
    monkeypatch.setitem(_svg.STYLE, "xtick.labelsize", 5)
    assert smallest_letters(name) < 8


@pytest.mark.usefixtures("drawn")
def test_the_mean_is_drawn_and_the_band_reaches_from_min_to_max() -> None:
    ys = [[0.1, 0.5, 0.3], [0.3, 0.1, 0.3], [0.2, 0.6, 0.3]]
    axes = figure_of([Line("a", [2, 0, 1], ys), Line("b", [0, 1], [[0.2, 0.4]], colour=1)]).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(0, 0.4), (1, 0.3), (2, 0.2)])
    (band,) = axes.collections  # a single seed has none
    points = band.get_paths()[0].vertices
    assert {(x, round(y, 6)) for x, y in points} == {(0, 0.1), (0, 0.6), (1, 0.3), (2, 0.1), (2, 0.3)}


def figure_of(lines: Sequence[Line], **more: Any) -> Figure:
    figure = lines_chart(lines, **NAMES, **more)
    assert isinstance(figure, Figure)
    return figure


@pytest.mark.usefixtures("drawn")
def test_what_is_not_finite_leaves_a_gap() -> None:
    axes = figure_of([Line("a", [0, 1, 2], [[0.1, 0.2, float("inf")], [0.1, float("nan"), 0.3]])]).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.1, np.nan, np.nan])
    figure_of([Line("nothing", [0, 1], [[np.nan] * 2])])


@pytest.mark.usefixtures("drawn")
def test_a_long_line_is_thinned_without_hiding_its_spread() -> None:
    y = np.sin(np.arange(1000) / 50) + np.arange(1000) % 2
    axes = figure_of([Line("a", np.arange(1000).tolist(), [y.tolist()])], percent=False).axes[0]
    shown = np.asarray(axes.lines[0].get_ydata())
    assert len(shown) == charts.MOST
    assert shown.mean() == pytest.approx(y.mean())
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((y.min(), y.max()))


@pytest.mark.usefixtures("drawn")
def test_lines_are_told_apart_without_colour() -> None:
    lines = [line(f"{colour} {dashed}", colour=colour, dashed=dashed) for colour in range(16) for dashed in (0, 1)]
    shown = figure_of(lines).axes[0].lines
    grey = [(each.get_marker(), each.get_markerfacecolor() == "white", each.get_linestyle()) for each in shown]
    assert len(set(grey[:16])) == 16
    assert len(set(zip(grey, (each.get_color() for each in shown), strict=True))) == 32


def overlaps(figure: Figure) -> bool:
    boxes = [legend.get_window_extent() for legend in (*figure.legends, *filter(None, [figure.axes[0].get_legend()]))]
    assert len(boxes) == 1
    return any(boxes[0].overlaps(axes.get_tightbbox()) for axes in figure.axes)


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("lines", [[line()], six(), [line("long name " * 9 + str(i)) for i in range(6)]], ids=len)
def test_the_legend_covers_nothing(lines: list[Line], monkeypatch: pytest.MonkeyPatch) -> None:
    figure = figure_of(lines)
    assert not overlaps(figure)
    sizes = {round(figure_of(some).axes[0].get_window_extent().height) for some in ([line()], lines)}
    assert max(sizes) - min(sizes) < 15  # pixels of 300: the legend's rows take nothing from the axes
    monkeypatch.setattr(charts, "legend_below", lambda figure, *named: figure.axes[0].legend(*named))
    assert overlaps(figure_of(lines))


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize(
    ("top", "labels"),
    [
        (0.0, ["0.0 %", "0.1 %"]),
        (0.004, ["0.0 %", "0.1 %", "0.2 %", "0.3 %", "0.4 %"]),
        (0.034, ["0 %", "1 %", "2 %", "3 %", "4 %"]),
        (0.2, ["0 %", "5 %", "10 %", "15 %", "20 %"]),
        (0.61, ["0 %", "20 %", "40 %", "60 %", "80 %"]),
        (1.0, ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]),
    ],
)
def test_percent_axes_start_at_zero(top: float, labels: list[str]) -> None:
    axes = figure_of([Line("a", [0, 1], [[top / 2, top], [0, 0]])]).axes[0]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] >= top
    assert [label.get_text() for label in axes.get_yticklabels()] == labels


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize(
    ("x", "log", "labels"),
    [
        (RADII, False, ["0", "16/255", "32/255", "48/255", "64/255"]),
        (RADII, True, ["0", "1/255", "4/255", "16/255", "64/255"]),
        (RADII[1:], True, [f"{2**k}/255" for k in range(7)]),
        ([8 / 255], False, ["8/255"]),
        ([0, 4 / 255, 8 / 255], False, ["0", "2/255", "4/255", "6/255", "8/255"]),
        ([0, 0.2, 0.4, 0.6, 0.8, 1], False, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([0, 0.5, 1, 2], True, ["0", "0.5", "1", "2"]),
    ],
)
def test_ticks_stand_where_a_reader_looks_for_them(x: list[float], log: bool, labels: list[str]) -> None:
    axes = figure_of([Line("a", x, [[0.1] * len(x)])], log_x=log).axes[0]
    ticks = [label for label in axes.get_xticklabels() if axes.get_xlim()[0] <= label.get_position()[0]]
    assert [label.get_text() for label in ticks if label.get_position()[0] <= axes.get_xlim()[1]] == labels
    boxes = [label.get_window_extent() for label in ticks]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def hatched(parts: list[dict[str, Any]]) -> float:
    """The hatched heights of a diagram, weighted by the shares of the bins; hatches say which way they lie."""
    axes = reliability_chart([ReliabilityPanel("a", parts)]).axes[0]  # type: ignore[attr-defined]
    counts, total = np.array([part["count"] for part in parts]), 0.0
    for patch in axes.patches:
        if patch.get_hatch():
            confidence, _, accuracy = patch.get_data()
            assert np.nanmin((confidence - accuracy) * (1 if patch.get_hatch() == "////" else -1)) > 0
            total += float(np.nansum(counts * np.abs(confidence - accuracy))) / counts.sum()
    return total


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("strength", [-0.4, 0.0, 0.4])
def test_hatched_heights_add_up_to_the_calibration_error(strength: float) -> None:
    state, parts = bins(strength)
    assert hatched(parts) == pytest.approx(state.ece, abs=1e-12)
    assert hatched(bins(strength + 0.1)[1]) != pytest.approx(state.ece, abs=1e-3)


def finite(points: Any) -> Any:
    return np.asarray(points)[np.isfinite(points).all(axis=1)]


@pytest.mark.usefixtures("drawn")
def test_a_diagram_shows_accuracy_counts_and_what_came_after() -> None:
    given = panel()
    assert given.after is not None
    axes = reliability_chart([given]).axes[0]  # type: ignore[attr-defined]
    levels = [path.vertices[0] for path in axes.collections[0].get_paths()]
    full = [part for part in given.before if part["count"]]
    np.testing.assert_allclose(finite(levels), [(part["low"], part["accuracy"]) for part in full])
    after = [(part["confidence"], part["accuracy"]) for part in given.after if part["count"]]
    np.testing.assert_allclose(finite(axes.lines[1].get_xydata()), after)
    (below,) = axes.child_axes
    for patch, part in zip(below.patches, (given.before, given.after), strict=True):
        np.testing.assert_allclose(patch.get_data().values, [each["count"] / 400 for each in part])


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize(
    ("count", "columns", "shape"), [(1, 3, (1, 1)), (4, 3, (2, 3)), (4, 2, (2, 2)), (3, 1, (3, 1))]
)
def test_diagrams_stand_in_rows(count: int, columns: int, shape: tuple[int, int]) -> None:
    figure = reliability_chart([panel(str(i), after=i == 1) for i in range(count)], columns=columns)
    assert isinstance(figure, Figure)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [str(i) for i in range(count)]
    spots = [axes.get_position() for axes in figure.axes]
    assert (len({round(spot.y0, 3) for spot in spots}), len({round(spot.x0, 3) for spot in spots})) == shape
    assert not overlaps(figure)
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == [name for name in charts.LABELS if name in shown]
    assert (charts.AFTER in shown) == (count > 1)


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda: lines_chart([], **NAMES), "no lines"),
        (lambda: lines_chart([Line("a", [], [[]])], **NAMES), "'a' has no points"),
        (lambda: lines_chart([Line("a", [float("nan")], [[1]])], **NAMES), "x that is not finite"),
        (lambda: lines_chart([Line("a", [0], [])], **NAMES), "at least one seed"),
        (lambda: lines_chart([Line("a", [0, 1], [[0, 1], [0]])], **NAMES), "2 values"),
        (lambda: reliability_chart([]), "no reliability diagrams"),
        (lambda: reliability_chart([panel()], columns=0), "columns must be"),
        (lambda: reliability_chart([ReliabilityPanel("b", [])]), "'b' has no bins"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_line(draw: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        draw()
    assert "\n" not in str(caught.value)
