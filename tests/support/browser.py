"""A page in a real browser: what it asks for, what its console says, whether it fits, and how it looks.

Chromium without a window is steered over a pair of pipes, in its DevTools protocol: JSON messages that end with a zero
byte. One start serves all widths. No name is ever resolved, so that nothing leaves the machine whatever a page asks
for. The log of Chromium's network service would be no witness: it holds what the browser itself asks for, too.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (1200, 390)
"""CSS pixels: of a desk, and of a hand."""
PHONE = 600
"""Below this width the browser behaves like a phone's: without a ``<meta name="viewport">`` a page is 980 wide."""
PAPER = 718
"""CSS pixels between margins of 1 cm on A4."""
INSIDE = ("data:", "blob:", "about:")
HIGHEST = 16_000  # pixels of a picture; what lies below is cut off
LIMIT = 60.0  # seconds for all of a visit
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)

# Two frames, and a moment for what a script starts when the page has loaded.
_SETTLE = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 150))))"
_MEASURE = """(() => {
  const root = document.documentElement, width = root.clientWidth, name = e => e.tagName.toLowerCase() +
    (e.id ? '#' + e.id : '') + (e.classList.length ? '.' + [...e.classList].join('.') : '');
  const out = [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > width + 1);
  const shown = [...document.images].filter(e => e.getClientRects().length);
  return {
    width, height: Math.max(root.scrollHeight, document.body.scrollHeight),
    sideways: root.scrollWidth - width,
    wide: out.filter(e => !out.includes(e.parentElement)).map(name),
    broken: shown.filter(e => !(e.complete && e.naturalWidth)).map(e => e.currentSrc.slice(0, 60) || name(e)),
    hints: [...document.querySelectorAll('link[rel~=preconnect], link[rel~=dns-prefetch]')].map(e => e.href),
  };
})()"""


class View(NamedTuple):
    """A page at one width, or as printed.

    Attributes:
        width: of the page, in CSS pixels: other than asked for where a phone would zoom out.
        height: of the page, in CSS pixels.
        sideways: CSS pixels by which it scrolls sideways; 0 if it does not.
        wide: the outermost elements that reach beyond the right edge, whether they scroll by themselves or not.
        broken: pictures that are shown and did not load.
        png: the whole page.
    """

    width: int
    height: int
    sideways: int
    wide: list[str]
    broken: list[str]
    png: bytes


class Visit(NamedTuple):
    """What a page did, in all its views.

    Attributes:
        requests: addresses that it asked for and that lie outside of it, each once.
        console: what the console said, as ``level: text``, each once.
        views: by width in CSS pixels, and ``"print"``.
    """

    requests: list[str]
    console: list[str]
    views: dict[int | str, View]

    def faults(self) -> list[str]:
        """What is wrong with the page, a line each."""
        found = [f"asks for {address}" for address in self.requests]
        found += [f"console: {line}" for line in self.console if line.startswith(("error", "warning"))]
        for key, view in self.views.items():
            if isinstance(key, int) and view.width != key:
                found.append(f"{key}: is laid out {view.width} wide; it lacks <meta name='viewport'>")
            if view.sideways:
                found.append(f"{key}: scrolls sideways by {view.sideways} because of {', '.join(view.wide)}")
            found += [f"{key}: picture did not load: {name}" for name in view.broken]
        return found


def find_browser() -> str | None:
    """The installed Chromium or Chrome; None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def visit(path: Path, browser: str, *, widths: Sequence[int] = WIDTHS) -> Visit:
    """Load a page anew at each width, and once more as printed.

    Args:
        path: an HTML file.
        browser: the program, from `find_browser`.
        widths: in CSS pixels.

    Raises:
        RuntimeError: the browser ended, or took longer than it may.
    """
    own = path.resolve().as_uri()
    places: list[tuple[int | str, int]] = [*((width, width) for width in widths), ("print", PAPER)]
    views: dict[int | str, View] = {}
    with _steered(browser) as tab:
        for name in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{name}.enable")
        tab.call("Page.setLifecycleEventsEnabled", enabled=True)
        hints: list[str] = []
        for key, width in places:
            tab.call("Emulation.setEmulatedMedia", media="print" if key == "print" else "screen")
            tab.call("Emulation.setDeviceMetricsOverride", **_screen(width, 900))
            tab.load(own)
            tab.value(_SETTLE)
            found = tab.value(_MEASURE)
            # As high as the page, so that pictures that load when they are scrolled to are there.
            tab.call("Emulation.setDeviceMetricsOverride", **_screen(width, min(max(found["height"], 1), HIGHEST)))
            tab.value(_SETTLE)
            found["broken"] = tab.value(_MEASURE)["broken"]
            hints += found.pop("hints")
            png = base64.b64decode(tab.call("Page.captureScreenshot")["data"])
            views[key] = View(**found, png=png)
    requests = [*filter(None, map(_asked, tab.events)), *hints]
    console = [line for event in tab.events for line in _said(event)]
    outside = [address for address in requests if address != own and not address.startswith(INSIDE)]
    return Visit(list(dict.fromkeys(outside)), list(dict.fromkeys(console)), views)


def check_page(path: Path, browser: str, *, pictures: Path | None = None) -> Visit:
    """The page stands alone, says nothing on the console, fits a desk, a hand and paper, and shows its pictures.

    Args:
        path: an HTML file.
        browser: the program, from `find_browser`.
        pictures: a folder for the screenshots, ``NAME-1200.png`` and so on; None writes none.

    Raises:
        AssertionError: it does not; all faults are named.
    """
    seen = visit(path, browser)
    if pictures is not None:
        for key, view in seen.views.items():
            (pictures / f"{path.stem}-{key}.png").write_bytes(view.png)
    faults = seen.faults()
    assert not faults, f"{path.name}:\n" + "\n".join(faults)
    return seen


class _Tab:
    """A tab, over the pipes of the browser."""

    def __init__(self, to: IO[bytes], back: IO[bytes], why: Callable[[], str]) -> None:
        self._to, self._back, self._why = to, back, why
        self._number, self._session, self._rest = 0, "", b""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session and not method.startswith("Browser."):
            message["sessionId"] = self._session
        try:
            self._to.write(json.dumps(message).encode() + b"\0")
        except BrokenPipeError as error:
            raise RuntimeError(f"the browser ended: {self._why()}") from error
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return cast("dict[str, Any]", answer["result"])

    def value(self, script: str) -> Any:
        """What an expression, or the promise that it is, comes to."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return answer["result"].get("value")

    def load(self, address: str) -> None:
        """A page, and all that it waits for."""
        loader = self.call("Page.navigate", url=address)["loaderId"]
        done = {"name": "load", "loaderId": loader}  # of this page: an earlier one may say so late
        while not any(done.items() <= event.get("params", {}).items() for event in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._back.fileno(), 1 << 20)
            if not more:
                raise RuntimeError(f"the browser ended: {self._why()}")
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return cast("dict[str, Any]", json.loads(message))


@contextmanager
def _steered(browser: str) -> Iterator[_Tab]:
    """A tab of a browser that is started for it, with an empty profile, and that is gone afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, Path(folder, "said").open("w+b") as said:
        # The browser reads commands from descriptor 3 and answers on 4; a shell puts the pipes there.
        moved = 'exec "$0" "$@" 3<&0 4>&1 </dev/null >&2'
        command = ["sh", "-c", moved, browser, *FLAGS, f"--user-data-dir={folder}/profile"]
        process = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, start_new_session=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        over = threading.Event()

        def end() -> None:
            over.set()
            _kill(process)

        def why() -> str:
            said.seek(0)
            return (
                f"it took longer than {LIMIT:.0f} s" if over.is_set() else said.read()[-400:].decode(errors="replace")
            )

        timer = threading.Timer(LIMIT, end)
        timer.start()
        try:
            tab = _Tab(process.stdin, process.stdout, why)
            yield tab
            tab.call("Browser.close")
            process.wait(5)
        except subprocess.TimeoutExpired:
            pass  # it is ended below
        finally:
            timer.cancel()
            _kill(process)
            process.wait()
            process.stdout.close()
            process.stdin.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The browser and the processes that it started, which are a group of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _screen(width: int, height: int) -> dict[str, Any]:
    return {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < PHONE}


def _asked(event: dict[str, Any]) -> str | None:
    """The address that an event of the network says was asked for."""
    match event["method"]:
        case "Network.requestWillBeSent":
            return cast(str, event["params"]["request"]["url"])
        case "Network.webSocketCreated":
            return cast(str, event["params"]["url"])
    return None


def _said(event: dict[str, Any]) -> Iterator[str]:
    """What an event says that the console would show."""
    params = event.get("params", {})
    match event["method"]:
        case "Runtime.consoleAPICalled":
            yield f"{params['type']}: " + " ".join(
                str(part.get("value", part.get("description", part["type"]))) for part in params["args"]
            )
        case "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            yield f"error: {details.get('exception', {}).get('description', details['text'])}"
        case "Log.entryAdded":
            yield f"{params['entry']['level']}: {params['entry']['text']} {params['entry'].get('url', '')[:80]}".strip()
