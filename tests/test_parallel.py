"""Many tasks at a time: what went wrong is told by task, and processes work where the caller works."""

from __future__ import annotations

from pathlib import Path

import joblib
import pytest

from vicinal import parallel
from vicinal.errors import InputError
from vicinal.parallel import run_all


def write(name: str) -> None:
    Path(name).write_text("done", encoding="utf-8")


def fail(error: Exception | None) -> None:
    if error is not None:
        raise error


def test_failures_are_told_and_stop_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = {"a": (InputError("x: is wrong"),), "b": (None,), "c": (RuntimeError("not today"),)}
    failed = run_all(fail, tasks, noun="tasks", label=str.upper, done=2, jobs=1)
    assert failed == {"a": "x: is wrong", "c": "RuntimeError: not today"}
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "2 of 5 tasks are finished already"
    assert lines[1].startswith("3 of 5 tasks: A FAILED, ")
    assert lines[2].startswith("4 of 5 tasks: B, ")


def test_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all(fail, {}, noun="tasks", done=3) == {}
    assert capsys.readouterr().err == "3 of 3 tasks are finished already\n"


@pytest.mark.parametrize("settles", [True, False])
def test_processes_that_serve_several_calls_work_where_each_caller_does(
    settles: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that, the second call writes into the folder of the first."""
    if not settles:
        monkeypatch.setattr(parallel, "_guarded", _unsettled)
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        with joblib.parallel_config(backend="threading" if not settles else "loky"):
            assert run_all(write, {str(i): (f"{folder}{i}",) for i in range(3)}, noun="tasks", jobs=2) == {}
        assert len(list((tmp_path / folder).iterdir())) == (3 if settles or folder == "first" else 0)


def _unsettled(function, name, arguments, place, seen=[]):  # type: ignore[no-untyped-def]  # noqa: B006
    """A process that stays in the folder of its first call."""
    seen.append(place[0])
    for argument in arguments:
        Path(seen[0], argument).write_text("done", encoding="utf-8")
    return name, None
