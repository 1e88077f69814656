"""The page: well formed, self-contained, escaped, the same every time, whatever is missing; and in a real browser."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.browser import check_page, find_browser
from support.report import CLASSES, comparison, entry, every_study
from support.report_studies import mistakes, png, regions, study

from vicinal.errors import InputError, MissingExtraError
from vicinal.reporting.report import Entry, render, tables

VOID = {"meta", "link", "img", "br"}
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
NASTY = '<script>alert("x")</script>&"\'><img src=http://a.b/c>'


class Page(HTMLParser):
    """A page as it is written: faults of its form, addresses, identifiers, tables, and all of its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.faults: list[str] = []
        self.addresses: list[str] = []
        self.targets: list[str] = []
        self.identifiers: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.tags: list[str] = []
        self.policy = ""
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self._open]
        self.faults += [f"#{name} leads nowhere" for name in self.targets if name not in self.identifiers]
        if len(set(self.identifiers)) < len(self.identifiers):
            self.faults.append("an identifier is given twice")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        if len(given) < len(attrs):
            self.faults.append(f"<{tag}> has an attribute twice")
        if tag == "script" or any(name.startswith("on") for name in given):
            self.faults.append(f"<{tag}> runs a script")
        if tag == "img" and not (given.get("alt") or "").strip():
            self.faults.append("a picture without a text")
        if "p" in self._open and tag in {"p", "div", "figure", "table", "ul", "pre", "details", "h3", "h4", "section"}:
            self.faults.append(f"<{tag}> within a paragraph")
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            if (value := given.get(name)) is not None:
                (self.targets if value.startswith("#") else self.addresses).append(value.removeprefix("#"))
        self.addresses += re.findall(r"url\(([^)]*)\)", given.get("style") or "")
        self.identifiers += [given["id"] or ""] if "id" in given else []
        self.policy = (
            (given.get("content") or "") if given.get("http-equiv") == "Content-Security-Policy" else self.policy
        )
        match tag:
            case "table":
                self.tables.append([])
            case "tr":
                self.tables[-1].append([])
            case "td" | "th":
                self.tables[-1][-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self._open[-1:] or 'nothing'}")
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._open and self._open[-1] == "style":
            self.addresses += re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", data)
        elif "table" in self._open and {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data


@pytest.fixture(autouse=True)
def _plain_charts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts cost a tenth of a second each, and have tests of their own."""
    if "drawn" not in request.fixturenames:
        for place in ("drawing.lines_chart", "calibration.reliability_chart"):
            monkeypatch.setattr(f"vicinal.reporting.report.{place}", lambda *_, **__: '<svg width="90pt"></svg>')


@pytest.fixture
def drawn() -> None:
    """Draw charts as they are."""


def made(runs: Sequence[Entry], **given: Any) -> str:
    return render(runs, **{"command": "vicinal evaluate runs/*", "made": "vicinal 0.1.0, 2026-01-02", **given})


def sound(text: str) -> Page:
    """The page, if it is well formed and asks for nothing."""
    page = Page(text)
    assert page.faults == []
    assert page.policy == POLICY
    assert [address for address in page.addresses if not str(address).startswith("data:")] == []
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    return page


def without(run: Entry, *parts: str) -> Entry:
    """The run as it is where the data have no such parts."""
    return replace(run, evaluation={**run.evaluation, **dict.fromkeys(parts)})


CASES: dict[str, Callable[[], list[Entry]]] = {
    "one run without studies": lambda: [entry("ict", 0, 0.1)],
    "one run with all studies": lambda: [entry("ict", 0, 0.1, studies=every_study(0.1, 8.0))],
    "many runs": comparison,
    "some studies of some runs": lambda: [
        entry("supervised", 0, 0.1, studies=every_study(0.1, 8.0)),
        entry("ict", 0, 0.1, studies={"regions": regions()}),
        entry("vat", 0, 0.1),
    ],
    "no validation part": lambda: [without(run, "validation") for run in comparison(1)],
    "no test part": lambda: [entry("ict", 0, 0.1, part="validation")],
    "neither part": lambda: [without(run, "test", "validation") for run in comparison(1)],
    "autoencoders": lambda: [entry("mmd_vae", 0, None), entry("ict", 0, 0.1)],
    "several chapters": lambda: [*comparison(1), entry("ict", data="circles"), entry("mmd_vae", 0, None, data="x")],
    "studies that were all left out": lambda: [entry(studies={"regions": study("Regions", None, left_out="no plane")})],
    "no curves of training": lambda: [entry(metrics={})],
    "no mistakes": lambda: [entry(studies={"mistakes": mistakes(0)})],
    "mistakes of feature vectors": lambda: [entry(studies={"mistakes": mistakes(2, pictures=False)})],
}


@pytest.mark.parametrize("case", CASES)
def test_the_page_is_sound_and_shows_exactly_the_tables(case: str) -> None:
    runs = CASES[case]()
    page = sound(made(runs))
    shown = [[*(tuple(cell for cell in row) for row in found)] for found in page.tables]
    assert shown == [[found.columns, *found.rows] for found in tables(runs)]
    for found in tables(runs):
        assert all(note in page.words for note in found.notes)


@pytest.mark.parametrize(
    "bad",
    [
        "<p><div></div></p>",
        "<p>",
        "<div></p></div>",
        '<img src="data:,">',
        "<script></script>",
        '<a href="#nowhere"></a>',
        '<p id="a"></p><p id="a"></p>',
        '<p onclick="x()"></p>',
    ],
)
def test_a_page_that_is_not_sound_is_found_out(bad: str) -> None:
    assert Page(f"<body>{bad}</body>").faults != []


@pytest.mark.parametrize(
    "bad", ['<img alt="a" src="http://a.b/c">', "<style>a { b: url(x.png) }</style>", '<p style="b: url(x)">']
)
def test_an_address_outside_of_the_page_is_found(bad: str) -> None:
    assert Page(bad).addresses != []


def test_the_page_has_what_a_reader_looks_for() -> None:
    text = made(comparison())
    page = sound(text)
    names = re.findall(r'<h3 id="chapter-1-([\w-]+)"', text)
    assert names == [
        *("summary", "results", "robustness", "fgm", "calibration", "corruptions", "paths", "smoothness", "training"),
        *("mistakes", "provenance", "left-out"),
    ]
    assert set(names) == {name.removeprefix("chapter-1-") for name in page.targets} - {"chapter-1", "contents"}
    for run in comparison():
        assert run.name in page.words
    assert comparison()[0].experiment.strip() in page.words
    assert "vicinal 0.1.0, 2026-01-02. Made with vicinal evaluate runs/*" in page.words
    assert text.count("data:image/png;base64,") == 4 * 3, "pictures of the first seed of each row"


def test_pictures_of_the_first_seed_stand_side_by_side_and_others_are_folded_away() -> None:
    runs = [entry(method, seed, studies={"regions": regions()}) for method in ("supervised", "ict") for seed in (3, 1)]
    text = made(runs)
    before, _, after = text.partition("Other seeds: 2 pictures")
    assert before.count('class="pictures"') == 1
    assert re.findall(r"<figcaption>(\w+, seed \d)", before) == ["supervised, seed 1", "ict, seed 1"]
    assert re.findall(r"<figcaption>(\w+, seed \d)", after) == ["supervised, seed 3", "ict, seed 3"]


def test_whatever_names_say_is_text() -> None:
    item = {"index": 0, "name": NASTY, "label": NASTY, "predicted": 1, "confidence": 0.9, "of_label": 0.1}
    found = study(NASTY, {"n": 5, "wrong": 1, "items": [item], "pictures": {"0": png(200)}})
    left = study(NASTY, None, left_out=NASTY)
    run = entry("ict", 0, name=NASTY, data=NASTY, classes=(NASTY, NASTY), studies={"mistakes": found, NASTY: left})
    run = replace(run, experiment=f"{run.experiment}# {NASTY}\n", metrics={NASTY: [(1, 0.1), (2, 0.2)]})
    text = made([run], command=NASTY, made=NASTY)
    page = sound(text)
    assert NASTY not in text
    assert page.words.count(NASTY) > 8
    assert "script" not in page.tags
    assert page.tags.count("img") == 2


def test_a_picture_that_is_none_does_not_leave_its_attribute() -> None:
    figures = {**mistakes(1)["figures"], "pictures": {"0": '"><script>x</script>'}}
    sound(made([entry(studies={"mistakes": study("m", figures)})]))


def test_the_named_baseline_stands_first() -> None:
    runs = [entry("supervised"), entry("ict")]
    assert tables(runs)[0].rows[0][0] == "supervised"
    assert tables(runs, baseline="runs/ict-0")[0].rows[0][0] == "ict"
    assert made(runs, baseline="runs/ict-0") != made(runs)
    with pytest.raises(InputError, match="none of the runs of this report"):
        made(runs, baseline="x")


def test_rows_keep_their_colour_and_charts_hold_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[tuple[str, int]]]] = []

    def record(lines: Any, *, title: str = "", **_: object) -> str:
        seen.append((title, [(line.label, line.colour) for line in lines]))
        return "<svg></svg>"

    monkeypatch.setattr("vicinal.reporting.report.drawing.lines_chart", record)
    made(comparison(2))
    labels = ["supervised", "ict", "vat", "mean_teacher"]
    for title, lines in seen:
        suffix = ", black box" if title.endswith("black box") else ""
        assert lines == [(label + suffix, i) for i, label in enumerate(labels)]
    titles = [title for title, _ in seen]
    assert titles[:4] == [f"PGD-20, {norm}, {box} box" for norm in ("Linf", "L2") for box in ("white", "black")]
    assert {"real-real paths", "real-adversarial paths", "validation error", "training loss"} <= set(titles)
    seen.clear()
    many = [entry("ict", 0, settings={"method.alpha": i}, name=f"runs/{i}") for i in range(10)]
    made(many)
    parts = [lines for title, lines in seen if title == "training loss"]
    assert [len(part) for part in parts] == [8, 2]
    assert [colour for _, colour in parts[1]] == [0, 1]


def test_the_same_runs_make_the_same_page_with_charts_as_they_are(drawn: None) -> None:
    runs = [entry("ict", seed, 0.1, studies={"paths": every_study(0.1, 8.0)["paths"]}) for seed in range(2)]
    text = made(runs)
    assert text == made(runs)
    page = sound(text)
    drawings = [base64.b64decode(each.split(",")[1]).decode() for each in page.addresses if "svg+xml" in each]
    assert len(drawings) == 6
    assert all(drawing.lstrip().startswith("<svg") for drawing in drawings)


def test_a_missing_jinja2_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"the HTML report needs the package 'jinja2'.*vicinal\[figures\]"):
        made([entry()])


def test_a_real_browser_shows_it_at_any_width_and_on_paper(drawn: None, tmp_path: Path) -> None:
    browser = find_browser()
    if browser is None:
        pytest.skip("no Chromium is installed")
    run = entry("ict", 0, 0.1, studies={**every_study(0.1, 8.0), "regions": regions()}, classes=CLASSES)
    path = tmp_path / "report.html"
    path.write_text(made([run, entry("supervised", 0, 0.2)]), encoding="utf-8")
    folded = tmp_path / "folded.html"
    folded.write_text(
        re.sub(r"details::details-content {[^}]*}", "", path.read_text(encoding="utf-8")), encoding="utf-8"
    )
    heights = [check_page(each, browser).views["print"].height for each in (path, folded)]
    assert heights[0] > 1.1 * heights[1], "what is folded away is printed"
