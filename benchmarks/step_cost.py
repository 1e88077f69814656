"""Step cost: the time of a training step over the time of the bare network passes that its method needs.

    python benchmarks/step_cost.py --json results/step-cost/table.json --markdown results/step-cost/table.md

What floor and step contain is said in `step_floor`. How they are timed: one process, one thread, the C allocator tuned
for both; floor, step and the step's parts run in turn within each round, floor and step in an order that changes from
round to round; two rounds of warm-up are thrown away; the figures are medians over the rounds, the ratio is the median
of the rounds' own ratios. Beside the clock's ratio stands that of processor time, which other work on the machine
disturbs less. The deterministic part counts the floating-point operations and operator calls of both.
"""

from __future__ import annotations

import argparse
import gc
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_overhead import ENGINES, lightning_overhead
from step_count import BESIDE, Counts, count
from step_floor import WIDTHS, Subject

from vicinal import machine
from vicinal.methods import METHODS
from vicinal.networks import Classifier, Network, cnn13, fit_normalise, mmd_vae, small_cnn
from vicinal.reporting import Table

SHAPE, CLASSES = (3, 32, 32), 10
BUILDERS: dict[str, Callable[..., Network]] = {"small_cnn": small_cnn, "cnn13": cnn13, "mmd_vae": mmd_vae}
SIZES = {"small_cnn": (100, 25), "cnn13": (20, 9), "mmd_vae": (100, 9)}
"""Images of each kind in a batch, and measured rounds."""
WARM_UP = 2
AIM = 1.10


def network(name: str) -> Network:
    """A fresh network with its per-channel normalisation, the same at every call."""
    torch.manual_seed(0)
    made = BUILDERS[name](SHAPE, CLASSES)
    made.preprocess = fit_normalise(torch.randint(256, (64, *SHAPE), dtype=torch.uint8))
    return made


def suits(name: str, method: str) -> bool:
    """Whether this is the kind of network that the method trains."""
    return (name == "mmd_vae") == (METHODS[method].trains == "autoencoder")


def subject(name: str, method: str, batch: int) -> Subject:
    """A method on a network, with as many labelled as unlabelled images per step."""
    return Subject(METHODS[method](), network(name), shape=SHAPE, labelled=batch, unlabelled=batch)


def timed(run: Callable[[], None]) -> tuple[float, float]:
    """Milliseconds of one call: by the clock, and of the processor."""
    start, start_processor = time.perf_counter(), time.process_time()
    run()
    return 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - start_processor)


def measure(name: str, method: str, batch: int, rounds: int) -> dict[str, Any]:
    """Times of one method on one network in ms, and counts."""
    made = subject(name, method, batch)
    columns: dict[str, list[tuple[float, float]]] = {
        key: [] for key in ("floor", "step", "feed", "optimiser", "average")
    }
    gc.collect()
    for turn in range(WARM_UP + rounds):
        values: dict[str, tuple[float, float]] = {}
        for key in ("floor", "step") if turn % 2 else ("step", "floor"):
            made.clear()
            values[key] = timed(made.floor if key == "floor" else made.step)
        for key, part in (("feed", made.feed), ("optimiser", made.optimise), ("average", made.follow)):
            values[key] = timed(part)
        if turn >= WARM_UP:
            for key, value in values.items():
                columns[key].append(value)
    pairs = list(zip(columns["step"], columns["floor"], strict=True))
    ratios, processor = ([step[kind] / floor[kind] for step, floor in pairs] for kind in (0, 1))
    clock, busy = (
        {key: statistics.median(call[kind] for call in column) for key, column in columns.items()} for kind in (0, 1)
    )
    busy["else"] = busy["step"] - sum(busy[key] for key in ("floor", "feed", "optimiser", "average"))
    low, _, high = statistics.quantiles(ratios, n=4)
    made.clear()
    floor = count(made.floor)
    made.clear()
    step = count(made.step)
    return {
        "network": name,
        "method": method,
        "batch": batch,
        "passes": str(made.method.passes()),
        "rounds": rounds,
        "ms": clock,
        "ms_processor": busy,
        "ratio": statistics.median(ratios),
        "ratio_quartiles": [low, high],
        "ratio_processor": statistics.median(processor),
        "flops": {"floor": floor.flops, "step": step.flops},
        "calls": {"floor": floor.calls, "step": step.calls},
    }


def time_table(rows: list[dict[str, Any]], notes: tuple[str, ...]) -> Table:
    """Floor, step and what lies between them."""

    def cells(row: dict[str, Any]) -> tuple[str, ...]:
        ms = row["ms"]
        parts = (ms["floor"], ms["step"])
        rest = (row["ms_processor"][key] for key in ("feed", "optimiser", "average", "else"))
        low, high = row["ratio_quartiles"]
        return (
            row["network"],
            row["method"],
            row["passes"],
            str(row["batch"]),
            *(f"{value:.1f}" for value in parts),
            f"{row['ratio']:.3f}",
            f"{low:.3f}-{high:.3f}",
            f"{row['ratio_processor']:.3f}",
            *(f"{value:.2f}" for value in rest),
        )

    columns = (
        "network",
        "method",
        "passes",
        "batch",
        "floor ms",
        "step ms",
        "ratio",
        "quartiles",
        "processor",
        "data",
        "optimiser",
        "average",
        "else",
    )
    return Table("Step cost over its floor", columns, tuple(cells(row) for row in rows), notes)


def notes_of(rows: list[dict[str, Any]], described: dict[str, Any]) -> tuple[str, ...]:
    """How the times were taken, and by what."""
    rounds = ", ".join(f"{row['network']} {row['rounds']}" for row in {row["network"]: row for row in rows}.values())
    computer = described["machine"]
    return (
        f"times in ms; medians over rounds ({rounds}) after {WARM_UP} of warm-up; one process, one thread, floor and "
        f"step in turn; allocator {'tuned for both' if described['allocator_tuned'] else 'as it is'}.",
        "floor: the passes on ready float inputs (f, F student forward on labelled, unlabelled images; T, t teacher on "
        "unlabelled, labelled ones; b, B full backward; X, x backward of F, f to the input alone; h head alone; "
        "e, d encoder and decoder, or generator; y backward through d).",
        "A method that joins its batches into one pass, or runs a pass in eval mode or from the preprocessed input, is "
        "held to the letters all the same: one batch after the other, in training mode, from float images.",
        "ratio: median of the rounds' step over floor, beside its quartiles and the same of processor time; the aim "
        f"is {AIM:.2f} or less.",
        "data: gathering rows, crop, flip, strong views where the method has them, float, layout; optimiser: SGD with "
        "Nesterov momentum, or the method's own; average: teacher, moving average to evaluate (snapshots, rarer than "
        "steps, are not in it); each alone, processor time. else: what is left of step - floor: draws, mixing, "
        "searches, losses, policies, further heads, banks, the optimiser of a second network.",
        f"second networks: an untrained MMD-VAE of widths {WIDTHS[0]}, {WIDTHS[1]}; CT-GAN's own generator.",
        f"images {SHAPE[0]}x{SHAPE[1]}x{SHAPE[2]}, channels_last, crop 2 + flip; batch: labelled and unlabelled each.",
        f"{computer['processor']}, torch {computer['torch']}, commit {described['commit']}; {described['command']}",
    )


def count_table(rows: list[dict[str, Any]]) -> Table:
    """Operations of step and floor."""
    columns = ("network", "method", "GFLOP floor", "GFLOP step", "ratio", "calls floor", "calls step")

    def cells(row: dict[str, Any]) -> tuple[str, ...]:
        floor, step = (Counts(row["flops"][key], row["calls"][key]) for key in ("floor", "step"))
        return (
            row["network"],
            row["method"],
            f"{floor.flops / 1e9:.3f}",
            f"{step.flops / 1e9:.3f}",
            f"{step.flops / floor.flops:.4f}",
            str(floor.calls),
            str(step.calls),
        )

    notes = (
        "FLOP: of convolutions and matrix products, by torch's formulas; two per multiplication and addition.",
        "Calls: of ATen operators below autograd.",
        "Deterministic: the same on every machine with this version of PyTorch.",
        *(f"{name}: {BESIDE[name].why}." for name in dict.fromkeys(row["method"] for row in rows) if name in BESIDE),
    )
    return Table("What is computed", columns, tuple(cells(row) for row in rows), notes)


def lightning_table(values: dict[str, Any]) -> Table:
    """What the engine adds to a step."""
    rows = [("bare loop", f"{values['bare']:.3f}", "")]
    rows += [(name, f"{values[name]:.3f}", f"{values[name] - values['bare']:.3f}") for name in ENGINES]
    notes = (
        f"supervised steps of the small CNN on {values['batch']} image(s), where little hides the engine; what is "
        "added does not depend on the size of network or batch.",
        f"processor time on one thread; {values['steps']} steps a round, median of {values['rounds']} rounds in turn; "
        "from the start of training to its end, set-up excluded.",
    )
    return Table("What Lightning's Trainer adds", ("loop", "ms per step", "addition ms"), tuple(rows), notes)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=BUILDERS, default=list(BUILDERS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    for name, (batch, rounds) in SIZES.items():
        key = name.replace("_", "-")
        parser.add_argument(f"--batch-{key}", type=int, default=batch, help="labelled and unlabelled images each")
        parser.add_argument(f"--rounds-{key}", type=int, default=rounds, help="measured rounds, at least 7")
    parser.add_argument(
        "--lightning-steps", type=int, default=200, help="steps a round of the engine's table; 0 leaves it out"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tuned = machine.tune_allocator()
    rows = []
    for name in arguments.networks:
        batch, rounds = (getattr(arguments, f"{key}_{name}") for key in ("batch", "rounds"))
        for method in (method for method in arguments.methods if suits(name, method)):
            rows.append(measure(name, method, batch, max(rounds, 7)))
            print(f"{name} {method}: {rows[-1]['ratio']:.3f}", file=sys.stderr, flush=True)
    if not rows:
        parser.error("none of these networks is of the kind that one of these methods trains")
    described = {
        "command": shlex.join(["python", *sys.argv]),
        "commit": machine.commit(),
        "machine": machine.describe(),
        "allocator_tuned": tuned,
    }
    tables = [time_table(rows, notes_of(rows, described)), count_table(rows)]
    engine = None
    if arguments.lightning_steps:
        small = network("small_cnn")
        assert isinstance(small, Classifier)
        engine = lightning_overhead(small, SHAPE, steps=arguments.lightning_steps)
        tables.append(lightning_table(engine))
    _show(tables)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(
            json.dumps({**described, "rows": rows, "lightning": engine}, indent=2) + "\n", encoding="utf-8"
        )
    if arguments.markdown:
        arguments.markdown.parent.mkdir(parents=True, exist_ok=True)
        arguments.markdown.write_text("\n".join(table.markdown() for table in tables), encoding="utf-8")


def _show(tables: list[Table]) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in tables:
        console.print(table.terminal())


if __name__ == "__main__":
    main()
