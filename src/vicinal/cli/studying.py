"""Studies on the command line: which ones with which settings, and the report."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vicinal.assessing import entry, made, studies_of
from vicinal.cli.output import show
from vicinal.errors import InputError
from vicinal.experiment import merge
from vicinal.grid import Grid, run_path
from vicinal.reporting.report import MAIN, render, tables
from vicinal.runs import Run, write_atomic
from vicinal.settings import read_yaml
from vicinal.studies import Study


def read_runs(names: Sequence[str], store: str) -> list[Run]:
    """The runs that arguments name, each once: run directories, and grid files for all of their finished runs.

    Args:
        names: paths.
        store: folder of the runs of grids.

    Raises:
        InputError: there is no such run, or none of a grid's is finished.
    """
    found: dict[Path, Run] = {}
    for name in names:
        if not (Path(name).suffix in (".yaml", ".yml") and Path(name).is_file()):
            runs = [Run.open(name)]
        else:
            cells = dict.fromkeys(run_path(store, cell.experiment) for cell in Grid.read(name).cells)
            runs = [run for run in map(Run, cells) if run.is_finished]
            if len(runs) < len(cells):
                told = f"{len(runs)} of the {len(cells)} runs of {name} are finished in {store}"
                if not runs:
                    raise InputError(f"{told}; run: vicinal benchmark {name} --store {store}")
                print(f"vicinal: {told}; these are taken", file=sys.stderr)
        found |= {run.path.resolve(): run for run in runs}
    return list(found.values())


def read_studies(given: Mapping[str, Any]) -> dict[str, Study]:
    """The studies that parsed words mean: defaults, then the file, then the flags.

    Args:
        given: what `vicinal.cli.parsing.StudiesParser` found.

    Raises:
        InputError: an unknown study or setting, or a bad value; if the file is to blame, the message names it.
    """
    only = None if "studies" not in given else [name.strip() for name in given["studies"].split(",") if name.strip()]
    if only and "none" in only:
        if len(only) > 1:
            raise InputError("--studies: none goes with no other name")
        if "output" in given:
            raise InputError("--output: without studies there is no report to write; leave one of them out")
        only = []
    settings = dict(given.get("settings", {}))
    if (path := given.get("config")) is not None:
        file = read_yaml(path)
        try:
            if wrong := [name for name, values in file.items() if not isinstance(values, Mapping)]:
                raise InputError(f"{wrong[0]}: expected settings, such as {{n: 100}}")
            studies_of(file)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        settings = merge({name: values for name, values in file.items() if only is None or name in only}, settings)
    return studies_of(settings, only)


def write_report(
    folder: Path,
    runs: Sequence[Run],
    studies: Mapping[str, Study],
    sources: Mapping[str, Run],
    *,
    baseline: str | None,
    command: str,
) -> None:
    """Write ``report.html`` and ``tables.md``, print the main tables, and say where."""
    entries = [entry(run, studies, sources.get(str(run.path))) for run in runs]
    found = tables(entries, baseline=baseline)
    page = render(entries, command=command, baseline=baseline, made=made())
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "tables.md", "\n".join(table.markdown() for table in found))
    write_atomic(folder / "report.html", page)
    for table in found:
        if MAIN in table.title:
            show(table)
    print(f"report: {folder / 'report.html'}")
