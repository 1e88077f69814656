"""The command that says what the theory of mixup says of a run: words in, exit code out."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vicinal.cli.parsing import Parser, one_of, whole


def theory(words: list[str]) -> int:
    """``vicinal theory``."""
    parser = Parser(
        "theory",
        "Say what the theory of mixup says of trained runs, on a sample of their training\n"
        "examples: which assumptions hold, what then follows, and how far the mixup loss\n"
        "is from its expansions. Writes theory.html, theory.md and theory.json.",
        "vicinal theory runs/a --n 200 --alpha 0.2",
        usage="COMMAND RUN [RUN ...] [flags]",
        notes=(
            "A run that took a minute at most is trained once more, in a temporary folder, to\n"
            "see its mixup loss along the way; the run itself is not touched."
        ),
    )
    parser.add("run", metavar="RUN", nargs="+", help="a run directory, or a grid file (YAML) for all its runs")
    parser.add("--store", metavar="DIR", help="folder of a grid's runs (default: runs)")
    parser.add("-o", "--output", metavar="DIR", help="where the files go (default: the run; of several, theory)")
    parser.add("--n", type=whole(2), metavar="N", help="examples in the sample (default: 100)")
    parser.add("--alpha", type=_positive, metavar="A", help="of the law Beta(A, A) (default: the method's, or else 1)")
    parser.add("--seed", type=whole(0), metavar="N", help="of the sample and all draws (default: 0)")
    parser.add(
        "--space", type=one_of("input", "pixels"), metavar="SPACE", help="input: preprocessed (default), or pixels"
    )
    parser.add("--replay", dest="replay", action="store_true", help="train once more, however long it takes")
    parser.add("--no-replay", dest="replay", action="store_false", help="do not train once more")
    given = parser.parse(words)
    if given is None:
        return 0
    from vicinal.cli.output import page_folder
    from vicinal.cli.studying import read_runs
    from vicinal.theorising import check_run, theorise

    command = shlex.join(["vicinal", "theory", *words])
    runs = read_runs(given["run"], given.get("store", "runs"))
    folder = page_folder(given.get("output"), runs, several="theory", purpose="the page of vicinal theory")
    settings = {name: given[name] for name in ("n", "alpha", "seed", "space", "replay") if name in given}
    found = []
    try:
        for run in runs:  # one that is of no use must not cost the work on the others
            check_run(run)
        for run in runs:
            found.append(theorise(run, **settings, progress=True))
            _show(found[-1])
    except KeyboardInterrupt:
        print("\nstopped; nothing was written, and the runs are as they were", file=sys.stderr)
        return 130
    _write(folder, found, command)
    return 0


def _write(folder: Path, found: list[dict[str, Any]], command: str) -> None:
    """The three files, each whole or not at all, and where the page is."""
    import json

    from vicinal.assessing import made
    from vicinal.reporting.theory import render, tables
    from vicinal.runs import write_atomic

    page = render(found, command=command, made=made())
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "theory.json", json.dumps({"command": command, "runs": found}, indent=1) + "\n")
    write_atomic(folder / "theory.md", "\n".join(table.markdown() for table in tables(found)))
    write_atomic(folder / "theory.html", page)
    print(f"page: {folder / 'theory.html'}")


def _show(values: Mapping[str, Any]) -> None:
    """The main points, the assumptions and the statements, with sentences that wrap where the terminal ends."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vicinal.reporting.theory import assumptions_table, in_short, statements_table

    console = Console()
    if not console.is_terminal:
        console = Console(width=1000)  # who reads a pipe gets a line for each row
    points = [(point.head, point.text) for point in in_short(values)]
    grid = Table(title=Text(values["run"]), title_justify="left", title_style="bold", box=None, show_header=False)
    for head, text in points:
        grid.add_row(Text(head, style="bold"), Text(text))
    console.print(grid)
    for table in (assumptions_table(values), statements_table(values)):
        made = Table(box=SIMPLE_HEAD)
        for i, column in enumerate(table.columns):
            made.add_column(Text(column), no_wrap=i < 2)
        for row in table.rows:
            made.add_row(*map(Text, row))
        console.print(made)


def _positive(text: str) -> float:
    """The type of a flag that takes numbers above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value
