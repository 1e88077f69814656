"""Memory of a streaming evaluation: the peak of a process that evaluates 10 000 images, and of one with 100 000.

    python benchmarks/streaming_memory.py --output results/streaming-memory

Every row is two processes, one for each number of images, that stream made-up images through one evaluation: batches
are drawn when they are asked for and kept by nobody. Peaks are the kernel's high-water mark of the resident set, of the
whole process: interpreter, libraries and network are in it, so that the ratio is what a user of the machine would see.
Beside it stands what the evaluation itself added to the process as it was before. The last row holds its batches: it
has to grow, or the measurement would see nothing.

A process inherits the peak of the one that started it in ``ru_maxrss``, through fork and exec; the high-water mark in
/proc does not, so that is read where there is one.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vicinal import machine
from vicinal.evaluation import (
    FGSM,
    AdaptiveCalibration,
    Calibration,
    ClasswiseCalibration,
    calibration_figures,
    corrupt,
    figures,
    robustness,
    temperature_scaling,
)
from vicinal.randomness import generator
from vicinal.reporting import Table

SHAPE, CLASSES, BATCH = (3, 32, 32), 10, 200
VALIDATION = 2_000
SIZES, QUICK = (10_000, 100_000), (5_000, 20_000)
AIM = 1.05
CONTROL = "control: batches held"
KINDS = (("gaussian_noise", 3), ("contrast", 5))

Batches = Iterable[tuple[Tensor, Tensor]]


def images(n: int) -> Iterator[tuple[Tensor, Tensor]]:
    """``n`` images in [0,1], float32, and classes, a batch at a time, the same at every call."""
    for start in range(0, n, BATCH):
        draws = generator(0, "streamed images", start)
        size = min(BATCH, n - start)
        yield torch.rand((size, *SHAPE), generator=draws), torch.randint(CLASSES, (size,), generator=draws)


def network() -> nn.Module:
    """Small, so that memory is the data's; with hidden features, so that attacks have a gradient to follow."""
    torch.manual_seed(0)
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, CLASSES)).eval()


def corrupted(n: int, kind: str, severity: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The images, corrupted as they come."""
    first = 0
    for x, y in images(n):
        yield corrupt(x, kind, severity, seed=0, first=first), y
        first += len(y)


def sums(net: nn.Module, n: int) -> list[float]:
    """The calibration states by themselves, fed by hand."""
    states = (Calibration(), AdaptiveCalibration(), ClasswiseCalibration(CLASSES))
    with torch.no_grad():
        for x, y in images(n):
            p = net(x).softmax(dim=1)
            for state in states:
                state.update(p, y)
    return [state.ece for state in states]


def corruptions(net: nn.Module, n: int) -> list[float]:
    """Errors under several corruptions."""
    return [figures(net, corrupted(n, kind, severity)).error for kind, severity in KINDS]


EVALUATIONS: dict[str, Callable[[nn.Module, int], object]] = {
    "figures": lambda net, n: figures(net, images(n)),
    "calibration_figures": lambda net, n: calibration_figures(net, images(n)),
    "temperature_scaling": lambda net, n: temperature_scaling(net, images(VALIDATION), images(n)),
    "calibration states": sums,
    "robustness, FGSM": lambda net, n: robustness(net, images(n), FGSM(epsilon=0), epsilons=(8 / 255,), seed=0),
    "corruptions": corruptions,
    CONTROL: lambda net, n: figures(net, list(images(n))),
}


def peak() -> float:
    """The most memory that this process has had so far, in MB."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measure(names: Iterable[str], n: int) -> dict[str, Any]:
    """In this process: its peak before and after these evaluations of ``n`` images, in MB, and seconds."""
    torch.set_num_threads(1)
    net, before, start = network(), peak(), time.perf_counter()
    for name in names:
        EVALUATIONS[name](net, n)
    return {"n": n, "before": before, "peak": peak(), "seconds": time.perf_counter() - start}


def measured(names: Iterable[str], n: int) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--here", str(n), "--only", *names]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def row_of(name: str, sizes: tuple[int, int]) -> dict[str, Any]:
    """One evaluation at both sizes."""
    small, large = (measured([name], n) for n in sizes)
    grown = large["peak"] - small["peak"]
    return {
        "name": name,
        "small": small,
        "large": large,
        "ratio": large["peak"] / small["peak"],
        "bytes_per_image": 1e6 * grown / (large["n"] - small["n"]),
    }


def table(rows: list[dict[str, Any]], sizes: tuple[int, int], described: dict[str, Any]) -> Table:
    """Peaks and what was added, beside each other."""

    def cells(row: dict[str, Any]) -> tuple[str, ...]:
        peaks = [f"{row[size]['peak']:.1f}" for size in ("small", "large")]
        added = [f"{row[size]['peak'] - row[size]['before']:.1f}" for size in ("small", "large")]
        ratio, each = f"{row['ratio']:.3f}", str(round(row["bytes_per_image"]))
        return row["name"], *peaks, ratio, *added, each, f"{row['large']['seconds']:.1f}"

    small, large = (f"{n:,}".replace(",", " ") for n in sizes)
    sized = (f"peak {small}", f"peak {large}", "ratio", f"added {small}", f"added {large}")
    columns = ("evaluation", *sized, "bytes an image", "seconds")
    computer = described["machine"]
    notes = (
        f"MB; peaks of the resident set of a process that evaluates so many images of {'x'.join(map(str, SHAPE))}, "
        f"float32, in batches of {BATCH} that are drawn as they are asked for. Aim: a ratio of {AIM:.2f} or less.",
        "added: the peak less that of the same process before its first image.",
        f"bytes an image: what the peak grew by from {small} to {large}, by the images more; an image has "
        f"{4 * math.prod(SHAPE)}, its logits {4 * CLASSES}. A few MB of a peak are chance, from run to run.",
        f"temperature_scaling keeps the logits of its {VALIDATION} validation images, at both sizes.",
        f"corruptions: {', '.join(f'{kind} {severity}' for kind, severity in KINDS)}, one after the other.",
        f"{CONTROL}: the same as figures over a list of all batches; it has to grow.",
        "seconds: of the larger number of images, on one thread.",
        f"{computer['processor']}, torch {computer['torch']}, commit {described['commit']}; {described['command']}",
    )
    return Table("Memory of a streaming evaluation", columns, tuple(map(cells, rows)), notes)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=EVALUATIONS, default=list(EVALUATIONS), metavar="EVALUATION")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK[0]} and {QUICK[1]} images")
    parser.add_argument("--output", type=Path, help="folder for table.md and results.json")
    parser.add_argument("--here", type=int, metavar="N", help="evaluate N images in this process, and print its peaks")
    arguments = parser.parse_args()
    if arguments.here is not None:
        print(json.dumps(measure(arguments.only, arguments.here)))
        return
    sizes = QUICK if arguments.quick else SIZES
    rows = []
    for name in arguments.only:
        rows.append(row_of(name, sizes))
        print(f"{name}: {rows[-1]['ratio']:.3f}", file=sys.stderr, flush=True)
    described = {
        "command": shlex.join(["python", *sys.argv]),
        "commit": machine.commit(),
        "machine": machine.describe(),
    }
    made = table(rows, sizes, described)
    print(made.markdown())
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "table.md").write_text(made.markdown(), encoding="utf-8")
        text = json.dumps({**described, "sizes": sizes, "batch": BATCH, "rows": rows}, indent=2)
        (arguments.output / "results.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
