"""The progress bar shows up only if the work takes long, and never changes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rich.console

from vicinal.data import _progress


def failing() -> Iterator[int]:
    """One item, then an error."""
    yield 1
    raise RuntimeError("stop")


@pytest.mark.parametrize(
    ("patience", "terminal", "shown"), [(-1.0, True, True), (60.0, True, False), (-1.0, False, False)]
)
def test_a_bar_is_shown_on_a_terminal_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    patience: float,
    terminal: bool,
    shown: bool,
) -> None:
    monkeypatch.setattr(_progress, "PATIENCE", patience)
    monkeypatch.setattr(rich.console.Console, "is_terminal", terminal)
    assert list(_progress.track(iter(range(3)), 3, "decoding things")) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert ("decoding things" in err) == shown


def test_errors_pass_and_the_bar_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = []
    monkeypatch.setattr(_progress, "PATIENCE", -1.0)
    monkeypatch.setattr("rich.progress.Progress.stop", lambda self: stopped.append(self))
    with pytest.raises(RuntimeError, match="stop"):
        list(_progress.track(failing(), 2, "decoding things"))
    assert len(stopped) == 1
