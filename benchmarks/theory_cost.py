"""Cost of R2 + R3, the second-order terms of the mixup loss: Hessian-vector products against full Hessians.

    python benchmarks/theory_cost.py --output results/theory-cost

For n points in d dimensions and a small softplus network, the mean over the points of
m2/2 [tr(Sigma H_i) + (x_bar - x_i)^T H_i (x_bar - x_i)] is taken in three ways: *full* forms each Hessian H_i, as
``torch.func.hessian`` under ``vmap`` does, and then the products; *exact* needs a Hessian-vector product for each axis
of the data, of which there are min(n - 1, d), and one more; *probes* takes a fixed number of random examples as
directions. The values are compared in the same run.

How they are timed: one process, one thread, float64; the ways run in turn within each round, in an order that changes
from round to round; rounds of warm-up are thrown away; the figures are medians over rounds, a ratio is the median of
the rounds' own ratios. The growth with d is the slope of a straight line through the logarithms.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import hessian, vmap
from torch.nn import functional as F

from vicinal import machine
from vicinal.networks import Classifier, mlp
from vicinal.randomness import generator
from vicinal.reporting import Table
from vicinal.theory import MixupTerms, Trace, mixup_moments, mixup_terms

DIMENSIONS, QUICK = (16, 32, 64, 128, 256, 512, 1024), (16, 32, 64)
WIDTH, CLASSES, ALPHA, PROBES = 64, 4, 1.0, 16
WARM_UP = 1
WAYS = ("full", "exact", "probes")


def network(d: int) -> Classifier:
    """A fresh network, the same at every call."""
    torch.manual_seed(0)
    return mlp((d,), CLASSES, hidden=[WIDTH], activation="softplus").double().eval().requires_grad_(False)


def full(f: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """R2 + R3 from the Hessian of each point, a scalar."""
    to_mean = x.mean(dim=0) - x
    covariance = to_mean.T @ to_mean / len(x)

    def loss(point: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(f(point[None]), label[None])

    hessians = vmap(hessian(loss))(x, y)
    traces = (covariance * hessians).sum(dim=(1, 2))
    own = torch.einsum("ni,nij,nj->n", to_mean, hessians, to_mean)
    value: Tensor = mixup_moments(ALPHA).m2 / 2 * (traces + own).mean()
    return value


def measure(d: int, n: int, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Times in ms and values of all ways in d dimensions."""
    f = network(d)
    x = torch.randn(n, d, generator=generator(seed, "theory cost", d), dtype=torch.float64)
    y = torch.arange(n) % CLASSES
    terms: dict[str, MixupTerms] = {}

    def products(name: str, trace: Trace) -> Tensor:
        terms[name] = mixup_terms(f, x, y, ALPHA, trace=trace)
        return terms[name].r2 + terms[name].r3

    def probes() -> Trace:
        return Trace("hutchinson", PROBES, generator(seed, "theory cost probes", d))

    ways: dict[str, Callable[[], Tensor]] = {
        "full": lambda: full(f, x, y),
        "exact": lambda: products("exact", Trace()),
        "probes": lambda: products("probes", probes()),
    }
    columns: dict[str, list[float]] = {name: [] for name in WAYS}
    values: dict[str, float] = {}
    for turn in range(WARM_UP + rounds):
        for name in WAYS if turn % 2 else reversed(WAYS):
            start = time.perf_counter()
            values[name] = float(ways[name]())
            if turn >= WARM_UP:
                columns[name].append(1e3 * (time.perf_counter() - start))
    return {
        "d": d,
        "n": n,
        "rounds": rounds,
        "products": {name: made.products for name, made in terms.items()},
        "ms": {name: statistics.median(column) for name, column in columns.items()},
        "ratio": {
            name: statistics.median(slow / fast for slow, fast in zip(columns["full"], columns[name], strict=True))
            for name in WAYS[1:]
        },
        "values": values,
        "difference": abs(values["exact"] / values["full"] - 1),
        "probes_off": abs(values["probes"] - values["full"]) / terms["probes"].standard_error,
    }


def growth(rows: Sequence[dict[str, Any]], read: Callable[[dict[str, Any]], float]) -> float:
    """Slope of log(figure) over log(d), by least squares."""
    return statistics.linear_regression([math.log(row["d"]) for row in rows], [math.log(read(row)) for row in rows])[0]


def growths(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Growth of each time and ratio with d."""
    found = {name: growth(rows, lambda row, name=name: row["ms"][name]) for name in WAYS}  # type: ignore[misc]
    for name in WAYS[1:]:
        found[f"full / {name}"] = growth(rows, lambda row, name=name: row["ratio"][name])  # type: ignore[misc]
    return found


def table(rows: Sequence[dict[str, Any]], described: dict[str, Any]) -> Table:
    """Times, ratios and their growth."""

    def cells(row: dict[str, Any]) -> tuple[str, ...]:
        return (
            str(row["d"]),
            str(row["n"]),
            *(f"{row['ms'][name]:.1f}" for name in WAYS),
            *(str(row["products"][name]) for name in WAYS[1:]),
            *(f"{row['ratio'][name]:.2f}" for name in WAYS[1:]),
            f"{row['difference']:.0e}",
            f"{row['probes_off']:.1f}",
        )

    columns = (
        "d",
        "n",
        *(f"{name} ms" for name in WAYS),
        *(f"{name}: products" for name in WAYS[1:]),
        *(f"full / {name}" for name in WAYS[1:]),
        "difference",
        "probes off",
    )
    computer = described["machine"]
    notes = (
        f"mean of R2 + R3 over n points; network: {WIDTH} softplus units, {CLASSES} classes; alpha {ALPHA:g}; float64.",
        "full: all Hessians by torch.func.hessian under vmap; exact: one product for each axis of the data, at most "
        f"min(n - 1, d), and one more; probes: {PROBES} random examples, and one more.",
        *(
            f"growth with d {over}, slope in log-log: "
            + ", ".join(f"{name} {slope:.2f}" for name, slope in described[key].items())
            + "."
            for over, key in (("over all rows", "growth"), ("over the larger half", "growth_upper_half"))
        ),
        "difference: exact from full, relative; probes off: probes from full, in their standard errors.",
        f"medians over {rows[0]['rounds']} rounds after {WARM_UP} of warm-up, in turn; one process, one thread.",
        f"{computer['processor']}, torch {computer['torch']}, commit {described['commit']}; {described['command']}",
    )
    return Table("R2 + R3: full Hessians against Hessian-vector products", columns, tuple(map(cells, rows)), notes)


def provenance() -> dict[str, Any]:
    """What made the figures."""
    return {"command": shlex.join(["python", *sys.argv]), "commit": machine.commit(), "machine": machine.describe()}


def show(made: Table, values: dict[str, Any], folder: Path | None) -> None:
    """Print the table, and write it and the figures if there is a folder to."""
    print(made.markdown())
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "table.md").write_text(made.markdown(), encoding="utf-8")
        (folder / "results.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small dimensions and three rounds, to see that it runs")
    parser.add_argument("--points", type=int, default=32, help="n")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds, at least 3")
    parser.add_argument("--output", type=Path, help="folder for table.md and results.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tuned = machine.tune_allocator()
    rounds = 3 if arguments.quick else max(arguments.rounds, 3)
    rows = []
    for d in QUICK if arguments.quick else DIMENSIONS:
        rows.append(measure(d, arguments.points, rounds))
        print(f"d {d}: {rows[-1]['ratio']}", file=sys.stderr, flush=True)
    described = {
        **provenance(),
        "allocator_tuned": tuned,
        "growth": growths(rows),
        "growth_upper_half": growths(rows[len(rows) // 2 :]),
    }
    show(table(rows, described), {**described, "rows": rows}, arguments.output)


if __name__ == "__main__":
    main()
