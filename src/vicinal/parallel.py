"""Many independent tasks, several at a time, each on one thread, with a progress bar."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from vicinal import machine
from vicinal.errors import InputError


def run_all(
    function: Callable[..., None],
    tasks: Mapping[str, tuple[Any, ...]],
    *,
    noun: str,
    label: Callable[[str], str] = str,
    done: int = 0,
    jobs: int | None = None,
) -> dict[str, str]:
    """Call a function for every task and collect what went wrong, so that one failure stops no other task.

    Runs through joblib, so a ``joblib.parallel_config`` around the call chooses another backend.

    Args:
        function: what to do; it and its arguments go to other processes. It leaves its results on the disk.
        tasks: arguments by name of the task.
        noun: what is counted, such as ``"runs"``.
        label: what the progress bar shows of a task's name.
        done: tasks that are finished already.
        jobs: tasks at a time; one per core by default.

    Returns:
        One line about each task that failed, by its name.
    """
    import joblib

    jobs = min(jobs or joblib.cpu_count(), max(len(tasks), 1))
    failed: dict[str, str] = {}
    with _Progress(noun, len(tasks) + done, done) as progress:
        if not tasks:
            return failed
        place = os.getcwd(), tuple(sys.path)
        calls = (joblib.delayed(_guarded)(function, name, arguments, place) for name, arguments in tasks.items())
        runner = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs")
        for name, message in runner(calls):
            progress.advance(label(name) + (" FAILED" if message else ""))
            if message:
                failed[name] = message
    return failed


def _guarded(
    function: Callable[..., None], name: str, arguments: tuple[Any, ...], place: tuple[str, tuple[str, ...]]
) -> tuple[str, str | None]:
    """One task on one thread, in whatever process joblib chose."""
    try:
        _settle(*place)
        with machine.threads(1):
            function(*arguments)
    except Exception as error:
        return name, str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return name, None


def _settle(folder: str, path: tuple[str, ...]) -> None:
    """Work where the caller works: a process that serves several calls has the folder and modules of the first one."""
    with contextlib.suppress(OSError):  # another machine need not have it; paths are then the caller's to make whole
        if os.getcwd() != folder:
            os.chdir(folder)
    sys.path.extend(entry for entry in path if entry not in sys.path)


class _Progress:
    """Tasks done of all, elapsed and time left, on standard error; plain lines where there is no terminal."""

    def __init__(self, noun: str, total: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=True)
        self._plain = not self._console.is_terminal
        columns = (
            TextColumn(noun),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
        )
        self._bar = Progress(*columns, console=self._console, disable=self._plain)
        self._noun, self._total, self._done, self._first = noun, total, done, done
        self._started = time.perf_counter()
        self._task = self._bar.add_task("", total=total, completed=done)

    def __enter__(self) -> Self:
        self._bar.start()
        if self._done:
            self._print(f"{self._done} of {self._total} {self._noun} are finished already")
        return self

    def advance(self, text: str) -> None:
        """Count one task more."""
        self._done += 1
        self._bar.update(self._task, completed=self._done, description=text)
        if self._plain:
            elapsed = time.perf_counter() - self._started
            left = elapsed / (self._done - self._first) * (self._total - self._done)
            self._print(f"{self._done} of {self._total} {self._noun}: {text}, {elapsed:.0f} s, {left:.0f} s left")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
