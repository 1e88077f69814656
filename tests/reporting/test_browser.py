"""The browser notices what is wrong with a page, so that what it says of a report means something."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image
from support.browser import PAPER, WIDTHS, Visit, check_page, find_browser, visit

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
VIEWPORT = "<meta name=viewport content='width=device-width'>"
RIGHT = f"""{VIEWPORT}<h1>A page</h1><p>{"with enough text to fill several lines on a telephone " * 5}</p>
<img alt="" src="data:image/png;base64,{PIXEL}"><img alt="" loading=lazy src="data:image/png;base64,{PIXEL}">
<div style="overflow-x: auto"><div style="width: 3000px">a table that scrolls by itself</div></div>
<script>console.log("all is well")</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    if (found := find_browser()) is None:
        pytest.skip("no browser: install chromium (or chrome) to test pages in it")
    return found


def page(folder: Path, body: str) -> Path:
    path = folder / "page.html"
    path.write_text(f"<!doctype html><meta charset=utf-8><title>page</title>{body}", encoding="utf-8")
    return path


def test_a_page_that_is_right(browser: str, tmp_path: Path) -> None:
    seen = check_page(page(tmp_path, RIGHT), browser, pictures=tmp_path)
    assert seen.requests == []
    assert seen.console == ["log: all is well"]
    assert list(seen.views) == [*WIDTHS, "print"]
    for key, view in seen.views.items():
        picture = Image.open(io.BytesIO(view.png))
        assert picture.size == (key if isinstance(key, int) else PAPER, max(view.height, 900))
        assert (tmp_path / f"page-{key}.png").read_bytes() == view.png
    # The text breaks at the width of the telephone.
    assert seen.views[390].height >= seen.views[1200].height


WRONG = {
    "<img alt='' src='https://example.org/a.png'>": "asks for https://example.org/a.png",
    "<img alt='' src='https://example.org/a.png?again'>": "console: error: Failed to load resource",
    "<link rel=stylesheet href='https://example.org/a.css'>": "asks for https://example.org/a.css",
    "<link rel=preconnect href='https://example.org/p'>": "asks for https://example.org/p",
    "<iframe src='https://example.org/f'></iframe>": "asks for https://example.org/f",
    "<script>fetch('https://example.org/x').catch(() => 0)</script>": "asks for https://example.org/x",
    "<script>new WebSocket('wss://example.org/w')</script>": "asks for wss://example.org/w",
    "<p style='background: url(https://example.org/b.png)'>x</p>": "asks for https://example.org/b.png",
    "<img alt='' src='neighbour.png'>": "neighbour.png",
    "<script>console.error('bad', 3)</script>": "console: error: bad 3",
    "<script>console.warn('odd')</script>": "console: warning: odd",
    "<script>nothing.at.all()</script>": "console: error: ReferenceError",
    "<script>setTimeout(() => { throw new Error('late') }, 50)</script>": "console: error: Error: late",
    "<img alt='' src='data:image/png;base64,AAAA'>": "1200: picture did not load: data:image/png;base64,AAAA",
}


@pytest.fixture(scope="module")
def wrong(browser: str, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    """What was seen of a page on which nothing is as it should be."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "neighbour.png").write_bytes(base64.b64decode(PIXEL))
    return visit(page(folder, VIEWPORT + "".join(WRONG)), browser)


@pytest.mark.parametrize("says", WRONG.values())
def test_what_is_wrong_is_noticed(says: str, wrong: Visit) -> None:
    assert any(says in fault for fault in wrong.faults()), wrong.faults()


def test_a_wrong_page_fails_the_check(browser: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"page\.html:\nconsole: error: bad 3"):
        check_page(page(tmp_path, VIEWPORT + "<script>console.error('bad', 3)</script>"), browser)


@pytest.mark.parametrize(
    ("body", "views"),
    [
        ("<div id=broad style='width: 500px'>x</div>", {390}),
        ("<div id=broad style='width: 1000px'><p>x</p></div>", {390, "print"}),
        ("<style>@media print { p { width: 800px } }</style><p id=broad>x</p>", {"print"}),
        (f"<p>{'x' * 300}</p>", {1200, 390, "print"}),
    ],
)
def test_what_is_too_wide_is_noticed(body: str, views: set[int | str], browser: str, tmp_path: Path) -> None:
    seen = visit(page(tmp_path, VIEWPORT + body), browser)
    assert {key for key, view in seen.views.items() if view.sideways} == views
    assert {fault.partition(": scrolls sideways")[0] for fault in seen.faults()} == {str(key) for key in views}
    if "broad" in body:  # of a word that is too long it is the text that sticks out, not the paragraph
        assert all(view.wide in (["div#broad"], ["p#broad"]) for view in seen.views.values() if view.sideways)


def test_a_page_that_forgets_telephones_is_noticed(browser: str, tmp_path: Path) -> None:
    seen = visit(page(tmp_path, "<p>x</p>"), browser)
    assert seen.faults() == ["390: is laid out 980 wide; it lacks <meta name='viewport'>"]


def test_a_browser_that_does_not_start_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the browser ended"):
        visit(page(tmp_path, RIGHT), "false")
