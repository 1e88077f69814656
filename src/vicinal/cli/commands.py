"""The commands that run something, one function each: words in, exit code out."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from pathlib import Path

from vicinal.cli.parsing import ExperimentParser, Parser, StudiesParser, one_of, whole
from vicinal.errors import InputError

_USAGE = "COMMAND DATA --method NAME [flags] --output DIR\n       COMMAND --config FILE [flags] --output DIR\n"


def fit(words: list[str]) -> int:
    """``vicinal fit``."""
    parser = ExperimentParser(
        "fit",
        "Train and evaluate one experiment into a run directory.",
        "vicinal fit digits --method advmixup --labels 50 --seed 7 --output runs/a",
        _USAGE + "       COMMAND FOLDER             (your own data: the rest is chosen)\n       COMMAND --resume RUN",
    )
    parser.add("-o", "--output", metavar="DIR", help="the run directory: new, or empty")
    parser.add("--resume", metavar="RUN", help="go on with an interrupted run; it knows its settings")
    parser.add("--tensorboard", action="store_true", help="also write TensorBoard logs into the run directory")
    parser.add("--quiet", action="store_true", help="no progress bar")
    given = parser.parse(words)
    if given is None:
        return 0
    from vicinal.cli.experiments import read_experiment, read_own
    from vicinal.cli.output import figures_table, show
    from vicinal.cli.own import check_output, default_output, is_own, located, named_like, started
    from vicinal.fitting import fit as run_fit
    from vicinal.runs import Run

    options = {flag: given.pop(flag, False) for flag in ("quiet", "tensorboard")}
    resume, own = "resume" in given, None
    if resume:
        output = given.pop("resume")
        if given:
            raise InputError("--resume: takes the experiment from the run directory; give nothing else with it")
        experiment = Run.open(output).experiment
    else:
        own = read_own(given)
        try:
            experiment = read_experiment(given) if own is None else own.experiment
        except InputError as error:
            raise named_like(error, given.get("data")) from error
        if "output" not in given and not is_own(experiment.data.name):
            raise InputError("--output: missing; name a directory for the run, such as --output runs/a")
        output = given.get("output") or default_output(experiment)
        check_output(output, experiment.data.name)
        experiment = located(experiment)
    if own is not None:
        show(own.table())
        print(own.chosen, flush=True)
        own = own._replace(experiment=experiment)
    if not resume and "output" not in given:
        print(f"run directory: {output}", flush=True)
    try:
        with contextlib.nullcontext() if own is None else started(own, output):
            run = run_fit(
                experiment,
                output,
                resume=resume or own is not None,
                progress=not options["quiet"],
                tensorboard=options["tensorboard"],
                command=_command("fit", words),
                dataset=None if own is None else own.dataset,
            )
    except KeyboardInterrupt:
        begun = Run(output).experiment_file.is_file()
        told = f"go on with: vicinal fit --resume {shlex.quote(output)}" if begun else "there is nothing to go on with"
        print(f"\nstopped; {told}", file=sys.stderr)
        return 130
    if experiment.recipe and not resume and "config" not in given:
        print(f"recipe {experiment.recipe}; --recipe none starts from bare defaults", file=sys.stderr)
    show(figures_table({str(run.path): run.evaluation()}))
    return 0


def evaluate(words: list[str]) -> int:
    """``vicinal evaluate``."""
    parser = StudiesParser(
        "evaluate",
        "Measure trained runs: errors, calibration, attacks, corruptions, smoothness; and\n"
        "write one report that shows them side by side. What is measured once is kept.",
        "vicinal evaluate runs/a runs/b --output report --robustness.steps 50",
        notes="Settings of studies are flags, --STUDY.SETTING VALUE; see: vicinal studies",
    )
    parser.add("run", metavar="RUN", nargs="+", help="a run directory, or a grid file (YAML) for all its runs")
    parser.add("--store", metavar="DIR", help="folder of a grid's runs (default: runs)")
    parser.add(
        "-o", "--output", metavar="DIR", help="where report.html and tables go (default: the run; of several, report)"
    )
    parser.add("--studies", metavar="NAMES", help="only these, such as robustness,calibration; or none (default: all)")
    parser.add("--config", metavar="FILE", help="settings of studies (YAML); flags win over it")
    parser.add("--baseline", metavar="RUN", help="the run to compare with (default: the supervised ones)")
    parser.add("--source", metavar="RUN", help="leads black-box attacks (default: a supervised run of another seed)")
    parser.add("--jobs", type=whole(1), metavar="N", help="measurements at a time (default: one per core)")
    given = parser.parse(words)
    if given is None:
        return 0
    from vicinal.assessing import assess, find_sources
    from vicinal.cli.output import figures_table, page_folder, show
    from vicinal.cli.studying import read_runs, read_studies, write_report
    from vicinal.runs import Run

    command = _command("evaluate", words)
    runs = read_runs(given["run"], given.get("store", "runs"))
    others = {name: Run.open(given[name]) for name in ("source", "baseline") if name in given}
    baseline = next(
        (str(run.path) for run in runs if "baseline" in others and run.path.samefile(others["baseline"].path)), None
    )
    if "baseline" in others and baseline is None:
        raise InputError(f"--baseline: {given['baseline']} is not among the runs; name it there too")
    studies = read_studies(given)
    purpose = "the report (leave it out with --studies none)"
    folder = page_folder(given.get("output"), runs, several="report", purpose=purpose) if studies else None
    sources = find_sources(runs, others.get("source"))
    try:
        failed = assess(runs, studies, sources=sources, jobs=given.get("jobs"), command=command)
    except KeyboardInterrupt:
        print("\nstopped; what is measured is kept, and the same command goes on", file=sys.stderr)
        return 130
    for name, message in failed.items():
        print(f"vicinal: failed: {name}: {' '.join(message.split())}", file=sys.stderr)
    if folder is None:
        show(figures_table({str(run.path): run.evaluation() for run in runs}))
    else:
        write_report(folder, runs, studies, sources, baseline=baseline, command=command)
    return 1 if failed else 0


def predict(words: list[str]) -> int:
    """``vicinal predict``."""
    parser = Parser(
        "predict",
        "Label new examples with a trained run: a CSV with name, label, probability and\n"
        "calibrated confidence of each.",
        "vicinal predict runs/a new-images/ --output labels.csv",
    )
    parser.add("run", metavar="RUN", help="a run directory")
    parser.add("input", metavar="INPUT", help="a folder of images, one image, or an .npz file with an array x")
    parser.add("-o", "--output", metavar="FILE", help="the CSV file (default: standard output)")
    parser.add_checkpoint()
    parser.add("--skip-damaged", action="store_true", help="list images that cannot be read, and go on without them")
    given = parser.parse(words)
    if given is None:
        return 0
    from vicinal.cli.output import check_writable, list_skipped, write
    from vicinal.predicting import predict as label
    from vicinal.runs import Run

    run, output = Run.open(given["run"]), given.get("output")
    check_writable(output, given["input"])
    skip, which_weights = given.get("skip_damaged", False), given.get("checkpoint", "last")
    found = label(run, given["input"], which=which_weights, skip_damaged=skip)
    write(output, found.csv)
    list_skipped(found.damaged)
    print(f"confidence: {found.calibration}", file=sys.stderr)
    return 0


def benchmark(words: list[str]) -> int:
    """``vicinal benchmark``."""
    parser = Parser(
        "benchmark",
        "Run every cell of a grid that is not finished yet, then print its table. The\n"
        "same command goes on where a killed or interrupted grid stopped.",
        "vicinal benchmark results/digits-50/grid.yaml --jobs 2",
    )
    parser.add("grid", metavar="GRID", help="a grid file (YAML)")
    parser.add("--store", metavar="DIR", help="folder of the runs, shared by all grids (default: runs)")
    parser.add("--jobs", type=whole(1), metavar="N", help="runs at a time, each on one thread (default: one per core)")
    parser.add("--results", metavar="DIR", help="also write table.md, table.csv and results.json there")
    given = parser.parse(words)
    if given is None:
        return 0
    from vicinal.cli.output import show, write
    from vicinal.grid import Grid, run_grid
    from vicinal.summary import collect, grid_table

    grid = Grid.read(given["grid"])
    store, command = given.get("store", "runs"), _command("benchmark", words)
    folders = {"--store": store, **({"--results": given["results"]} if "results" in given else {})}
    for flag, folder in folders.items():
        if Path(folder).exists() and not Path(folder).is_dir():
            raise InputError(f"{flag}: {folder} is not a folder; name one, existing or new")
    failed = run_grid(grid, store, jobs=given.get("jobs"), command=command)
    for path, message in failed.items():
        print(f"vicinal: failed: {path}: {' '.join(message.split())}", file=sys.stderr)
    if len(failed) == len({cell.experiment.key for cell in grid.cells}):
        return 1
    results = collect(grid, store, command=command)
    made = grid_table(results)
    show(made)
    if "results" in given and not failed:
        folder = Path(given["results"])
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "table.md", made.markdown())
        write(folder / "table.csv", made.csv())
        write(folder / "results.json", json.dumps(results, indent=1) + "\n")
    return 1 if failed else 0


def table(words: list[str]) -> int:
    """``vicinal table``."""
    parser = Parser(
        "table",
        "Print a grid's table from its finished runs: mean ± std over seeds.",
        "vicinal table results/digits-50/grid.yaml --format markdown",
    )
    parser.add("grid", metavar="GRID", help="a grid file (YAML)")
    parser.add("--store", metavar="DIR", help="folder of the runs (default: runs)")
    forms = ("terminal", "markdown", "csv", "json")
    parser.add("--format", type=one_of(*forms), metavar="FORM", help="terminal (default), markdown, csv or json")
    parser.add("-o", "--output", metavar="FILE", help="write there instead of printing")
    given = parser.parse(words)
    if given is None:
        return 0
    from vicinal.cli.output import check_writable, show, write
    from vicinal.grid import Grid
    from vicinal.summary import collect, grid_table

    form, output = given.get("format", "terminal"), given.get("output")
    if form == "terminal" and output is not None:
        raise InputError("--format: a file is written as markdown, csv or json; name one with --format")
    check_writable(output, given["grid"])
    results = collect(Grid.read(given["grid"]), given.get("store", "runs"), command=_command("table", words))
    made = grid_table(results)
    if form == "terminal":
        show(made)
    elif form == "json":
        write(output, json.dumps(results, indent=1) + "\n")
    else:
        write(output, made.markdown() if form == "markdown" else made.csv())
    return 0


def _command(name: str, words: list[str]) -> str:
    return shlex.join(["vicinal", name, *words])
