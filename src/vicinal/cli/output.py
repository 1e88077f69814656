"""What commands write: tables on the terminal, texts into files."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vicinal.errors import InputError, require
from vicinal.reporting import Table

if TYPE_CHECKING:
    from vicinal.runs import Run

_UNLIMITED = 1000
_FIRST = 7
"""Columns of a table of figures that stand in every one."""


def show(table: Table) -> None:
    """Print a table, as wide as it is: a terminal that is narrower wraps its lines, and no number is cut off."""
    from rich.console import Console

    wide = Console(width=_UNLIMITED)
    grid, *notes = table.terminal().renderables
    wide.print(grid)
    # Notes are sentences: a terminal wraps them between words, what reads a pipe gets one on a line.
    (Console() if wide.is_terminal else wide).print(*notes, sep="\n", end="\n" if notes else "")


def check_writable(
    path: str | os.PathLike[str] | None,
    *sources: str | os.PathLike[str],
    ours: Callable[[Path], bool] | None = None,
) -> None:
    """Find out whether a file can be written before work is spent on what goes into it.

    Args:
        path: the file, or None for standard output.
        sources: files and folders that are read, and must not be overwritten or written into.
        ours: whether a file that exists may be replaced; every file may by default.

    Raises:
        InputError: it is a folder, lies in none, is one of ``sources`` or in one, or must not be replaced.
    """
    if path is None:
        return
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    if not target.parent.is_dir():
        raise InputError(f"{path}: there is no folder {str(target.parent)!r}; make it first")
    for source in sources:
        read = Path(source).expanduser().resolve()
        if target.resolve() == read:
            raise InputError(f"{path}: would overwrite what is read; choose another name")
        if read.is_dir() and target.resolve().is_relative_to(read):
            raise InputError(f"{path}: lies in {source}, whose files are read; choose a name outside of it")
    if ours is not None and target.exists() and not ours(target):
        raise InputError(f"{path}: exists already, and nothing says that it may be replaced; choose another name")


def page_folder(output: str | None, runs: Sequence[Run], *, several: str, purpose: str) -> Path:
    """Where a page about runs goes, found out before work is spent on it; the folder is made when it is written.

    Args:
        output: the folder that was asked for, or None for the run's own, or of several runs ``several``.
        runs: what the page is about.
        several: name of a folder.
        purpose: what needs the extra that draws pages, to complete "... needs".

    Raises:
        InputError: it is a file, or nothing can be written there.
        MissingExtraError: what draws pages is not installed.
    """
    for module in ("jinja2", "matplotlib"):
        require(module, "figures", purpose)
    folder = Path(output) if output is not None else runs[0].path if len(runs) == 1 else Path(several)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output: {folder} is not a folder; name one, existing or new")
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise InputError(f"--output: {folder}: cannot write in {there}: {error.strerror}; name another") from error
    return folder


def write(path: str | os.PathLike[str] | None, text: str) -> None:
    """Write a text into a file, or to standard output.

    Raises:
        InputError: the file cannot be written.
    """
    if path is None:
        print(text, end="")
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def list_skipped(damaged: Mapping[str, str]) -> None:
    """Say on standard error which images were left out, and why.

    Args:
        damaged: what is wrong with each, by name.
    """
    for message in damaged.values():
        print(f"skipped: {message.partition(';')[0]}", file=sys.stderr)
    if damaged:
        print(f"skipped {len(damaged)} damaged image{'s' * (len(damaged) > 1)}", file=sys.stderr)


def figures_table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """Figures of runs, one a row.

    Args:
        found: by run directory, what ``evaluation.json`` says.
    """

    def percent(part: Mapping[str, Any] | None, which: str) -> str:
        value = None if part is None or "error" not in part else part["error"][which]
        return "-" if value is None else f"{100 * value:.2f}"

    rows = []
    for path, values in found.items():
        about, test, validation = values["provenance"], values["test"], values["validation"]
        row = (path, about["method"], str(about["labels"]), str(about["seed"]))
        errors = (percent(test, "last"), percent(test, "best_validation"), percent(validation, "last"))
        rows.append((*row, *errors, _rebuilt(test or validation), _gate(values)))
    weights = " or ".join(dict.fromkeys(values["weights"] for values in found.values()))
    columns = ("run", "method", "labels", "seed", "last", "best", "validation", "PSNR dB", "gate")
    notes = [
        "last = test error at the end of training, best = test error at the lowest validation error, "
        f"validation = validation error at the end of training; {weights} weights",
    ]
    kept = [i for i, column in enumerate(columns) if i < _FIRST or any(row[i] != "-" for row in rows)]
    if any(columns[i] == "gate" for i in kept):
        notes.append(
            "gate: points of accuracy that a plain classifier loses on the reconstructions whose codes were mixed; "
            "above 10 the figures say nothing of the method"
        )
    shown = tuple(tuple(row[i] for i in kept) for row in rows)
    return Table("Errors in %", tuple(columns[i] for i in kept), shown, tuple(notes))


def _rebuilt(part: Mapping[str, Any] | None) -> str:
    return "-" if part is None or "psnr" not in part else f"{part['psnr']['last']:.1f}"


def _gate(values: Mapping[str, Any]) -> str:
    gate = values.get("gate")
    if gate is None:
        return "-"
    lost = 100 * (gate["accuracy"] - gate["accuracy_rebuilt"])
    return f"{lost:.1f} {'passed' if gate['passed'] else 'FAILED'}"
