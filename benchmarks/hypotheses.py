"""Paired comparison of one row of a grid with others, figure by figure, over the seeds that both have.

    python benchmarks/hypotheses.py results/varmixup-digits/results.json --row varmixup --against supervised mixup

For each figure (all are better when lower): the mean difference row - other, its standard deviation, on how many seeds
the row is lower, and the two-sided p-value of a paired t-test. Five seeds decide little: read the signs first.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vicinal.reporting import Table

FIGURES: Mapping[str, tuple[str, Callable[[Any], float | None]]] = {
    "error": ("test error, points", lambda run: 100 * float(run["test"]["error"]["last"])),
    "ece": ("ECE, points", lambda run: 100 * float(run["test"]["ece"]["last"])),
    "brier": ("Brier score x 100", lambda run: 100 * float(run["test"]["brier"]["last"])),
    "corruptions": ("corrupted error, points", lambda run: _measure(run, "corruptions", "error", 100)),
    "linearity": ("gamma x 1000", lambda run: _measure(run, "linearity", "gamma", 1000)),
    "relative": ("gamma / slope x 100", lambda run: _ratio(run)),
    "pgd": ("PGD error, points", lambda run: _measure(run, "pgd", "error", 100)),
    "lipschitz": ("Lipschitz quotient x 100", lambda run: _measure(run, "lipschitz", "mean", 100)),
}


def _measure(run: Any, name: str, figure: str, factor: float) -> float | None:
    found = (run.get("measures") or {}).get(name)
    return None if found is None else factor * float(found[figure])


def _ratio(run: Any) -> float | None:
    found = (run.get("measures") or {}).get("linearity")
    return None if found is None else 100 * float(found["gamma"]) / float(found["slope"])


def by_seed(results: Mapping[str, Any], row: str, figure: str) -> dict[int, float]:
    """A figure of a row's runs, by seed; runs that lack it are left out."""
    (found,) = (item for item in results["rows"] if item["row"] == row)
    read = FIGURES[figure][1]
    values = {run["provenance"]["seed"]: read(run) for run in found["runs"]}
    return {seed: value for seed, value in values.items() if value is not None}


def compared(results: Mapping[str, Any], row: str, other: str, figure: str) -> tuple[str, ...] | None:
    """One line of the table, or None where the figure was not measured."""
    from scipy.stats import ttest_rel

    mine, theirs = by_seed(results, row, figure), by_seed(results, other, figure)
    seeds = sorted(mine.keys() & theirs.keys())
    if len(seeds) < 2:
        return None
    differences = [mine[seed] - theirs[seed] for seed in seeds]
    p = float(ttest_rel([mine[seed] for seed in seeds], [theirs[seed] for seed in seeds]).pvalue)
    return (
        FIGURES[figure][0],
        other,
        f"{statistics.mean(mine[seed] for seed in seeds):.2f}",
        f"{statistics.mean(theirs[seed] for seed in seeds):.2f}",
        f"{statistics.mean(differences):+.2f} ± {statistics.stdev(differences):.2f}",
        f"{sum(difference < 0 for difference in differences)} of {len(seeds)}",
        f"{p:.3f}",
    )


def main() -> None:
    """Compare and print as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results.json of a grid")
    parser.add_argument("--row", required=True)
    parser.add_argument("--against", nargs="+", required=True)
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text(encoding="utf-8"))
    lines = [
        line
        for figure in arguments.figures
        for other in arguments.against
        if (line := compared(results, arguments.row, other, figure)) is not None
    ]
    columns = ("figure", "against", arguments.row, "other", "difference", "lower on", "p")
    table = Table(f"{arguments.row}: {results['title']}", columns, tuple(lines), ("difference: paired by seed; ± std",))
    text = table.markdown()
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
