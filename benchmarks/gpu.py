"""Times a step of Supervised, ICT and AdvMixup on a GPU, then trains their CIFAR-10 recipes for the minutes given.

Run it by ``benchmarks/gpu.sh``, which says how. It writes to the output folder

    machine.json    what the machine is
    timing.json     times of a step by method and mode; kept, so that a second run does not measure again
    curves.csv      all metrics along training; curves.png shows them
    errors.json     state of each training: steps, images per second, errors, provenance
    summary.md      the two tables

and keeps the trainings' run directories in the state folder (``OUTPUT/runs`` unless ``--state`` says otherwise). A
second run with the same folders goes on where the first stopped: at the end of its minutes, at SIGTERM, or at SIGINT.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

NEEDED = {
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "lightning": "lightning",
    "jsonargparse": "jsonargparse",
    "docstring_parser": "docstring-parser",
    "joblib": "joblib",
    "safetensors": "safetensors",
    "yaml": "pyyaml",
    "rich": "rich",
    "filelock": "filelock",
    "datasets": "datasets",
    "pyarrow": "pyarrow",
    "PIL": "pillow",
    "matplotlib": "matplotlib",
}
"""What must be importable, and the name of the package that brings it."""


def refuse(message: str) -> NoReturn:
    """One line on standard error, and exit code 2."""
    print(f"benchmarks/gpu.sh: {message}", file=sys.stderr)
    raise SystemExit(2)


def check_packages(needed: dict[str, str]) -> None:
    """Refuse an interpreter that cannot import what is needed."""
    if sys.version_info < (3, 11):  # noqa: UP036 (nothing has checked the interpreter before this)
        refuse(f"Python 3.11 or newer is needed, and this is {sys.version.split()[0]}; name another by PYTHON=...")
    missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        refuse(
            f"packages are missing: {', '.join(missing)}; put their unpacked wheels on PYTHONPATH, "
            "or name another interpreter by PYTHON=..."
        )


def describe_machine() -> dict[str, Any]:
    """What `vicinal.machine` says, and what the driver says."""
    import torch

    from vicinal import machine

    values: dict[str, Any] = {**machine.describe(), "commit": machine.commit(), "nvidia_smi": None}
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"]
        asked = subprocess.run(query, capture_output=True, text=True, check=False)
        values["nvidia_smi"] = asked.stdout.strip() or asked.stderr.strip()
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        values |= {"capability": f"{major}.{minor}", "cudnn": torch.backends.cudnn.version()}
        values |= {"bf16": torch.cuda.is_bf16_supported(), "cudnn_tf32": torch.backends.cudnn.allow_tf32}
    return values


def parse() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, metavar="DATA", help="folder that holds cifar10/")
    parser.add_argument("minutes", nargs="?", type=float, metavar="MINUTES", help="minutes of training, shared equally")
    parser.add_argument("--output", type=Path, help="results/gpu by default; a temporary folder for a dry run")
    parser.add_argument("--state", type=Path, help="where the run directories are kept (OUTPUT/runs)")
    parser.add_argument(
        "--steps", type=int, help="a shorter training than the recipes': the whole schedule in so many steps"
    )
    parser.add_argument(
        "--slice",
        type=float,
        metavar="SECONDS",
        help="time of one training before the next takes its turn (300)",
    )
    parser.add_argument("--compile", action="store_true", help="train compiled networks")
    parser.add_argument("--skip-timing", action="store_true", help="train at once")
    parser.add_argument("--dry-run", action="store_true", help="everything on the CPU, tiny and synthetic")
    arguments = parser.parse_args()
    if arguments.dry_run:
        arguments.data = None
    elif arguments.data is None or arguments.minutes is None:
        refuse("give DATA and MINUTES, such as: benchmarks/gpu.sh ~/data 25; or --dry-run")
    elif not (arguments.data / "cifar10").is_dir():
        refuse(
            f"{arguments.data}: there is no folder cifar10 in it; give the folder that holds cifar10/ as Parquet files"
        )
    for name in ("minutes", "steps", "slice"):
        value = getattr(arguments, name)
        if value is not None and not (value > 0 or (value == 0 and name == "minutes")):
            refuse(f"{name} must be greater than 0, got {value}")
    return arguments


def main() -> None:
    """Check, time, train, report."""
    arguments = parse()
    check_packages(NEEDED)
    import torch
    from gpu_report import write_report
    from gpu_timing import MODES, time_steps
    from gpu_training import DRY_RUN_SLICE, SLICE, experiments, synthetic_cifar10, train

    from vicinal.errors import InputError

    if arguments.dry_run:
        output = arguments.output or Path(tempfile.mkdtemp(prefix="vicinal-gpu-"))
        torch.set_num_threads(1)
        seconds = arguments.slice or DRY_RUN_SLICE
        minutes = 3 * seconds / 60
    else:
        if not torch.cuda.is_available():
            refuse("PyTorch sees no CUDA device; try the script on the CPU with --dry-run")
        output = arguments.output or Path(__file__).parents[1] / "results" / "gpu"
        minutes, seconds = arguments.minutes, arguments.slice or SLICE
        # Shapes never change, so the search for the fastest convolution is paid once.
        torch.backends.cudnn.benchmark = True
    output.mkdir(parents=True, exist_ok=True)
    state = arguments.state or output / "runs"
    device = "cpu" if arguments.dry_run else "cuda"
    about = {
        **describe_machine(),
        "command": shlex.join(["benchmarks/gpu.sh", *sys.argv[1:]]),
        "dry_run": arguments.dry_run,
    }
    write_json(output / "machine.json", about)
    print(f"output: {output}\n{json.dumps(about, indent=2)}")
    os.environ["VICINAL_DATA"] = str(
        synthetic_cifar10(output / "data") if arguments.dry_run else arguments.data.resolve()
    )
    try:
        described = experiments(
            device=device, steps=arguments.steps, compiled=arguments.compile, tiny=arguments.dry_run
        )
        timing = read_json(output / "timing.json")
        if timing is None and not arguments.skip_timing:
            timing = time_steps(described, MODES, device=device, tiny=arguments.dry_run)
            write_json(output / "timing.json", timing)
        stopped = False
        for asked_to_stop in train(described, state, seconds=60 * minutes, turn=seconds):
            stopped = asked_to_stop
            write_report(output, state, described, timing, about)
        write_report(output, state, described, timing, about, test=not stopped, device=device)
    except InputError as error:
        refuse(str(error))
    print(f"wrote {output}; the same command goes on with what is not finished")
    if stopped:
        raise SystemExit(130)


def read_json(path: Path) -> Any:
    """What a file holds, or None if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_json(path: Path, values: Any) -> None:
    """Write plain values."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
