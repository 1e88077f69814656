"""What a GPU benchmark leaves behind: curves, errors, and the two tables."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gpu_training import run_of

from vicinal import recipes
from vicinal.data import Examples, eval_batches, load
from vicinal.errors import require
from vicinal.evaluation import figures
from vicinal.experiment import Experiment
from vicinal.reporting import Table
from vicinal.runs import Run
from vicinal.settings import Choice

Rows = list[dict[str, str]]


def write_report(
    output: Path,
    state: Path,
    described: Mapping[str, Experiment],
    timing: list[dict[str, Any]] | None,
    about: dict[str, Any],
    *,
    test: bool = False,
    device: str = "cpu",
) -> None:
    """Write ``curves.csv``, ``curves.png``, ``errors.json`` and ``summary.md``.

    Args:
        output: where to.
        state: where the run directories are.
        described: the experiments by name.
        timing: times of a step, if they were measured.
        about: the machine and the command.
        test: also measure the test error of the last state of each training that is not finished.
        device: where to measure it.
    """
    metrics = {name: _metrics(run_of(state, name, experiment)) for name, experiment in described.items()}
    _write_curves(output / "curves.csv", metrics)
    _draw(output / "curves.png", metrics)
    errors = {
        name: _state_of(name, run_of(state, name, experiment), experiment, metrics[name], device if test else None)
        for name, experiment in described.items()
    }
    (output / "errors.json").write_text(json.dumps(errors, indent=2) + "\n", encoding="utf-8")
    tables = [] if timing is None else [timing_table(timing, about)]
    tables.append(errors_table(errors, about))
    (output / "summary.md").write_text("\n".join(table.markdown() for table in tables), encoding="utf-8")


def timing_table(rows: list[dict[str, Any]], about: dict[str, Any]) -> Table:
    """Step times by method and mode."""
    columns = (
        "method",
        "mode",
        "passes",
        "step ms",
        "range",
        "floor ms",
        "step/floor",
        "images/s",
        "first step s",
        "peak GiB",
        "syncs",
    )

    def cells(row: dict[str, Any]) -> tuple[str, ...]:
        low, high = row["step_ms_range"]
        memory = row["peak_memory_bytes"]
        return (
            row["method"],
            row["mode"],
            row["passes"],
            f"{row['step_ms']:.2f}",
            f"{low:.2f}-{high:.2f}",
            f"{row['floor_ms']:.2f}",
            f"{row['step_ms'] / row['floor_ms']:.2f}",
            f"{row['images_per_second']:.0f}",
            f"{row['first_step_s']:.1f}",
            "" if memory is None else f"{memory / 2**30:.2f}",
            "" if row["host_syncs"] is None else str(row["host_syncs"]),
        )

    runs, length = rows[0]["steps"]
    labelled, unlabelled = rows[0]["batch"]
    notes = (
        f"{labelled} labelled + {unlabelled} unlabelled images a step; median and range of {runs} runs of {length} "
        "steps between synchronisations, after the first step (compilation, kernel selection: reported) and "
        f"{rows[0]['warm_up']} more of warm-up.",
        "floor: the network passes alone, see step_floor; with bf16 it holds them all in bf16, while adversarial "
        "searches run in float32. syncs: operations of one step that made the host wait for the device.",
        _machine_line(about),
    )
    return Table("Time of a training step", columns, tuple(cells(row) for row in rows), notes)


def errors_table(errors: Mapping[str, dict[str, Any]], about: dict[str, Any]) -> Table:
    """Where each training stands."""
    columns = (
        "recipe",
        "steps done",
        "of",
        "images/s",
        "validation error %",
        "best",
        "test error %",
        "weights",
        "provenance",
    )

    def percent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.2f}"

    rows = tuple(
        (
            row["recipe"],
            str(row["steps_done"]),
            str(row["steps"]),
            "" if row["images_per_second"] is None else f"{row['images_per_second']:.0f}",
            percent(row["validation_error"]),
            percent(row["validation_error_best"]),
            percent(row["test_error"]),
            row["weights"],
            row["provenance"],
        )
        for row in errors.values()
    )
    first = next(iter(errors.values()))
    notes = (
        f"one seed ({first['seed']}), {first['labels']} labels, {first['backbone']}; validation: last and lowest so "
        "far; test: weights of the last step; images/s: median over the rows of the log.",
        "a training with fewer steps done than its schedule has is unfinished: its learning rate is still high, and "
        "its errors are no results of the recipe.",
        _machine_line(about),
    )
    return Table("CIFAR-10 trainings", columns, rows, notes)


def _machine_line(about: dict[str, Any]) -> str:
    device = about.get("gpu", f"{about['processor']}, no GPU")
    dry = "DRY RUN on synthetic images and a tiny network, no result; " if about["dry_run"] else ""
    return f"{dry}{device}, torch {about['torch']}, commit {about['commit']}; command: {about['command']}"


def _metrics(run: Run) -> Rows:
    if not run.metrics_file.is_file():
        return []
    with run.metrics_file.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write_curves(path: Path, metrics: Mapping[str, Rows]) -> None:
    columns = list(dict.fromkeys(key for rows in metrics.values() for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["method", *columns], restval="")
        writer.writeheader()
        for method, rows in metrics.items():
            writer.writerows({"method": method, **row} for row in rows)


def _column(rows: Rows, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of a column where it is not empty."""
    kept = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
    return [step for step, _ in kept], [value for _, value in kept]


def _draw(path: Path, metrics: Mapping[str, Rows]) -> None:
    require("matplotlib", "figures", "drawing curves")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for method, rows in metrics.items():
        steps, errors = _column(rows, "validation_error")
        left.plot(steps, [100 * error for error in errors], label=method, linewidth=1)
        right.plot(*_column(rows, "supervised"), label=method, linewidth=1)
    left.set(xlabel="step", ylabel="validation error, %", yscale="log")
    right.set(xlabel="step", ylabel="supervised loss", yscale="log")
    left.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


@cache
def _test_examples(name: str) -> Examples:
    examples = load(Choice(name)).test
    assert examples is not None
    return examples


def _state_of(name: str, run: Run, experiment: Experiment, metrics: Rows, device: str | None) -> dict[str, Any]:
    """One training's errors; the test error is None where it was not measured."""
    rates = _column(metrics, "images_per_second")[1]
    errors = _column(metrics, "validation_error")[1]
    done, test = 0, None
    if run.last.is_file():
        done = int(run.checkpoint("last")["global_step"])
        if run.is_finished:
            test = run.evaluation()["test"]["error"]["last"]
        elif device is not None:
            examples = _test_examples(experiment.data.name)
            test = figures(run.network("last").network.to(device), eval_batches(examples, 500, device)).error
    return {
        "recipe": experiment.recipe,
        "provenance": recipes.get(str(experiment.recipe)).provenance,
        "experiment": experiment.key,
        "seed": experiment.seed,
        "labels": experiment.split.labels,
        "backbone": experiment.network.name,
        "preprocess": experiment.preprocess,
        "space": experiment.method.settings.get("space"),
        "precision": experiment.training.precision,
        "compiled": experiment.training.compile,
        "steps_done": done,
        "steps": experiment.training.steps,
        "finished": run.is_finished,
        "images_per_second": statistics.median(rates) if rates else None,
        "validation_error": errors[-1] if errors else None,
        "validation_error_best": min(errors) if errors else None,
        "test_error": test,
        "weights": "teacher" if experiment.build_method().needs.teacher else "student",
    }
