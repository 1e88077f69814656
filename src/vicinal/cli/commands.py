"""The commands, one function each: words in, exit code out."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vicinal import recipes as _recipes
from vicinal.cli.explain import annotated_yaml, method_page, method_table
from vicinal.cli.parsing import Parser, experiment_parser, read_experiment, split_names
from vicinal.errors import InputError
from vicinal.experiment import method_class
from vicinal.reporting import Table


def fit(words: list[str]) -> int:
    """``vicinal fit``."""
    words = split_names(words)
    parser = experiment_parser(
        "fit",
        "Train and evaluate one experiment into a run directory.",
        "vicinal fit digits --method advmixup --labels 50 --seed 7 --output runs/a",
        words,
    )
    parser.add("-o", "--output", type=str, metavar="DIR", help="the run directory: new, or empty")
    parser.add("--resume", type=str, metavar="RUN", help="go on with an interrupted run; nothing else is given then")
    parser.add("--tensorboard", action="store_true", help="also write TensorBoard logs into the run directory")
    parser.add("--quiet", action="store_true", help="no progress bar")
    given = parser.parse(words)
    if given is None:
        return 0
    from vicinal.fitting import fit as run_fit
    from vicinal.runs import Run

    options = {"progress": not given.pop("quiet", False), "tensorboard": given.pop("tensorboard", False)}
    given.pop("help", None)
    resume, output = given.pop("resume", None), given.pop("output", None)
    if resume is not None:
        if output is not None or any(value is not None for value in given.values()):
            raise InputError("--resume takes the experiment from the run directory; give no other settings with it")
        experiment, output = Run.open(resume).experiment, resume
    else:
        experiment = read_experiment(given)
        if output is None:
            raise InputError("--output: missing; name a directory for the run, such as --output runs/a")
        if experiment.recipe:
            about = _recipes.get(experiment.recipe)
            print(
                f"recipe {about.name} ({about.provenance}); --recipe none starts from the bare defaults",
                file=sys.stderr,
            )
    try:
        run = run_fit(experiment, output, resume=resume is not None, command=_command("fit", words), **options)
    except KeyboardInterrupt:
        print(f"\nstopped; go on with: vicinal fit --resume {shlex.quote(str(output))}", file=sys.stderr)
        return 130
    _print(_figures({str(run.path): run.evaluation()}))
    return 0


def evaluate(words: list[str]) -> int:
    """``vicinal evaluate``."""
    parser = Parser(
        "evaluate", "Measure trained runs again and print their figures side by side.", "vicinal evaluate runs/a runs/b"
    )
    parser.add("run", nargs="+", help="run directories")
    given = parser.parse(words)
    if given is None:
        return 0
    from vicinal.fitting import evaluate as measure
    from vicinal.runs import Run

    runs = [Run.open(path) for path in given["run"]]
    found = {}
    for run in runs:
        with run.locked():
            found[str(run.path)] = measure(run, command=_command("evaluate", words))
    _print(_figures(found))
    return 0


def predict(words: list[str]) -> int:
    """``vicinal predict``."""
    parser = Parser(
        "predict",
        "Label new examples with a trained run; writes a CSV with a row for each.",
        "vicinal predict runs/a new-images/ --output labels.csv",
    )
    parser.add("run", help="a run directory")
    parser.add("input", help="a folder of images, one image, or an .npz file with an array x")
    parser.add("-o", "--output", type=str, metavar="FILE", help="the CSV file; standard output by default")
    parser.add("--checkpoint", type=str, metavar="WHICH", help="last (default) or best_validation")
    given = parser.parse(words)
    if given is None:
        return 0
    from vicinal.predicting import predict as run_predict
    from vicinal.runs import Run, WhichName

    which: WhichName = "last"
    if given.get("checkpoint") == "best_validation":
        which = "best_validation"
    elif given.get("checkpoint") not in (None, "last"):
        raise InputError(f"--checkpoint: expected last or best_validation, got {given['checkpoint']}")
    text = run_predict(Run.open(given["run"]), given["input"], which=which)
    _write(given.get("output"), text)
    return 0


def benchmark(words: list[str]) -> int:
    """``vicinal benchmark``."""
    parser = Parser(
        "benchmark",
        "Run every cell of a grid that is not finished yet, then print its table.",
        "vicinal benchmark results/digits-50/grid.yaml --jobs 2",
        "A killed or interrupted grid goes on where it stopped when the same command is given again.",
    )
    parser.add("grid", help="a grid file (YAML)")
    parser.add("--store", type=str, metavar="DIR", help="folder of the runs, shared by all grids (default: runs)")
    parser.add("--jobs", type=int, metavar="N", help="runs at a time, each on one thread (default: one per core)")
    parser.add("--results", type=str, metavar="DIR", help="also write table.md, table.csv and results.json there")
    given = parser.parse(words)
    if given is None:
        return 0
    from vicinal.grid import Grid, run_grid
    from vicinal.summary import collect, grid_table

    grid = Grid.read(given["grid"])
    store, jobs = given.get("store", "runs"), given.get("jobs")
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs: expected at least 1, got {jobs}")
    command = _command("benchmark", words)
    failed = run_grid(grid, store, jobs=jobs, command=command)
    for path, message in failed.items():
        print(f"vicinal: failed: {path}: {' '.join(message.split())}", file=sys.stderr)
    results = collect(grid, store, command=command)
    table = grid_table(results)
    _print(table)
    if given.get("results") is not None and not failed:
        folder = Path(given["results"])
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "table.md", table.markdown())
        _write(folder / "table.csv", table.csv())
        _write(folder / "results.json", json.dumps(results, indent=1) + "\n")
    return 1 if failed else 0


def table(words: list[str]) -> int:
    """``vicinal table``."""
    parser = Parser(
        "table",
        "Print a grid's table from its finished runs: mean ± std over seeds.",
        "vicinal table results/digits-50/grid.yaml --format markdown",
    )
    parser.add("grid", help="a grid file (YAML)")
    parser.add("--store", type=str, metavar="DIR", help="folder of the runs (default: runs)")
    parser.add("--format", type=str, metavar="FORMAT", help="terminal (default), markdown, csv or json")
    parser.add("-o", "--output", type=str, metavar="FILE", help="write there instead of printing")
    given = parser.parse(words)
    if given is None:
        return 0
    from vicinal.grid import Grid
    from vicinal.summary import collect, grid_table

    results = collect(Grid.read(given["grid"]), given.get("store", "runs"), command=_command("table", words))
    made, form = grid_table(results), given.get("format", "terminal")
    if form == "terminal" and "output" not in given:
        _print(made)
        return 0
    forms = {"markdown": made.markdown, "csv": made.csv, "json": lambda: json.dumps(results, indent=1) + "\n"}
    if form not in forms:
        raise InputError(
            f"--format: expected markdown, csv or json{'' if 'output' in given else ' or terminal'}, got {form}"
        )
    _write(given.get("output"), forms[form]())
    return 0


def methods(words: list[str]) -> int:
    """``vicinal methods``."""
    parser = Parser(
        "methods", "List the methods, or explain one with its equations and settings.", "vicinal methods advmixup"
    )
    parser.add("method", nargs="?", help="the method to explain")
    given = parser.parse(words)
    if given is None:
        return 0
    if given.get("method"):
        print(method_page(given["method"], method_class(given["method"])))
    else:
        _print(method_table())
    return 0


def recipes(words: list[str]) -> int:
    """``vicinal recipes``."""
    parser = Parser(
        "recipes",
        "List the recipes (experiments that are known to work), show one, or copy one to a file to change it.",
        "vicinal recipes copy digits/advmixup my-experiment.yaml",
    )
    parser.add("action", nargs="?", help="list (default), show NAME or copy NAME FILE")
    parser.add("name", nargs="?", help="the recipe")
    parser.add("file", nargs="?", help="where to copy it to")
    given = parser.parse(words)
    if given is None:
        return 0
    action, name, file = (given.get(key) for key in ("action", "name", "file"))
    if action in (None, "list"):
        rows = tuple((r.name, r.provenance, r.about) for r in map(_recipes.get, _recipes.names()))
        _print(Table("Recipes", ("recipe", "settings from", "what"), rows))
        return 0
    if action not in ("show", "copy"):
        raise InputError(f"recipes: expected list, show or copy, got {action!r}")
    if name is None or (action == "copy" and file is None):
        raise InputError(
            f"recipes {action}: name a recipe{' and a file' if action == 'copy' else ''}; see: vicinal recipes list"
        )
    text = annotated_yaml(read_experiment({"recipe": name}))
    if action == "show":
        print(text, end="")
        return 0
    if Path(str(file)).exists():
        raise InputError(f"{file}: exists already; choose another name")
    _write(file, text)
    return 0


def show_config(words: list[str]) -> int:
    """``vicinal show-config``."""
    words = split_names(words)
    parser = experiment_parser(
        "show-config",
        "Print the complete experiment that these words mean, every setting with its meaning.",
        "vicinal show-config digits --method ict --method.weight 20 > experiment.yaml",
        words,
    )
    given = parser.parse(words)
    if given is None:
        return 0
    print(annotated_yaml(read_experiment(given)), end="")
    return 0


def _command(name: str, words: list[str]) -> str:
    return shlex.join(
        ["vicinal", name, *(word.replace(".name", "") if word.startswith("--") else word for word in words)]
    )


def _figures(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """Test figures of runs, one a row."""

    def percent(part: Mapping[str, Any] | None, which: str) -> str:
        value = None if part is None else part["error"][which]
        return "-" if value is None else f"{100 * value:.2f}"

    rows = []
    for path, values in found.items():
        about = values["provenance"]
        rows.append(
            (
                path,
                about["method"],
                str(about["labels"]),
                str(about["seed"]),
                percent(values["test"], "last"),
                percent(values["test"], "best_validation"),
                percent(values["validation"], "last"),
                values["weights"],
            )
        )
    columns = ("run", "method", "labels", "seed", "test error %", "at best validation", "validation %", "weights")
    return Table("Figures", columns, tuple(rows))


def _print(table: Table) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=240)  # a pipe has no width; wrapped columns would be of no use to what reads it
    console.print(table.terminal())


def _write(path: str | Path | None, text: str) -> None:
    if path is None:
        print(text, end="")
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot write: {error.strerror}") from error
