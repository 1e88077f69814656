"""Trainings that take turns on one device, each by resuming its own run directory."""

from __future__ import annotations

import io
import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vicinal.experiment import Experiment
from vicinal.fitting import fit
from vicinal.runs import Run, write_atomic
from vicinal.training.callbacks import Checkpoints

METHODS = ("supervised", "ict", "advmixup")
SLICE, DRY_RUN_SLICE = 300.0, 1.0
_POLL = 0.5


def experiments(*, device: str, steps: int | None, compiled: bool, tiny: bool) -> dict[str, Experiment]:
    """The CIFAR-10 recipes with 4000 labels, as they run here.

    Args:
        device: where they train.
        steps: steps of the whole schedule; None takes the recipes'.
        compiled: whether networks are compiled.
        tiny: a tiny network on the synthetic images; the supervised one is short, so that it comes to its end.
    """
    made = {}
    for method in METHODS:
        training: dict[str, Any] = {"precision": "bf16-mixed", "device": device, "compile": compiled}
        if steps is not None:
            training["steps"] = steps
        values: dict[str, Any] = {"recipe": f"cifar10-4000/{method}", "training": training}
        if tiny:
            training |= {"batch_labelled": 8, "batch_unlabelled": 8, "threads": 1}
            training |= {"log_every": 2, "validate_every": 4, "checkpoint_every": 4}
            training.setdefault("steps", 8 if method == "supervised" else 10**6)
            values |= {"network": {"name": "small_cnn", "widths": [4, 8]}, "split": {"labels": 20, "validation": 20}}
        made[method] = Experiment.of(values)
    return made


def run_of(state: Path, name: str, experiment: Experiment) -> Run:
    """The run directory of an experiment: another setting gives another directory, so nothing is ever mixed up."""
    return Run(state / f"{name}-{experiment.key}")


def train(described: Mapping[str, Experiment], state: Path, *, seconds: float, turn: float) -> Iterator[bool]:
    """Let the unfinished trainings take turns, always the one that has had the least time, until the time is up.

    However slow the machine is, each of them gets one turn and advances by one step at least.

    Args:
        described: the experiments by name.
        state: where the run directories are.
        seconds: time in all; the turn that is under way when it is up ends there.
        turn: longest turn; loading the data is part of it.

    Yields:
        After each turn, whether somebody asked the process to stop (then it was the last).
    """
    state.mkdir(parents=True, exist_ok=True)
    used = _used(state)
    end = time.monotonic() + seconds
    turn = min(turn, seconds / len(described)) if seconds else 0
    first = set(described) if seconds else set()
    while True:
        waiting = {name for name, experiment in described.items() if not run_of(state, name, experiment).is_finished}
        left = end - time.monotonic()
        waiting = waiting if left > 0 else waiting & first
        if not waiting:
            return
        # Those that had no turn yet go first, so that a stop finds all of them about equally far.
        name = min(waiting, key=lambda key: (key not in first, used.get(described[key].key, 0.0), METHODS.index(key)))
        first.discard(name)
        experiment = described[name]
        run = run_of(state, name, experiment)
        started = time.monotonic()
        with _alarm(min(turn, left) if left > 0 else turn) as alarm:
            stopped = _advance(experiment, run) and not alarm.rang
        used[experiment.key] = used.get(experiment.key, 0.0) + time.monotonic() - started
        write_atomic(state / "seconds.json", json.dumps(used, indent=2) + "\n")
        print(
            f"{name}: {time.monotonic() - started:.0f} s, {'finished' if run.is_finished else 'goes on later'}",
            flush=True,
        )
        yield stopped
        if stopped:
            return


def _used(state: Path) -> dict[str, float]:
    file = state / "seconds.json"
    values: dict[str, float] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return values


def _advance(experiment: Experiment, run: Run) -> bool:
    """Train on; returns whether it was stopped before its end, by the alarm or by somebody."""
    command = "benchmarks/gpu.sh " + " ".join(sys.argv[1:])
    try:
        fit(experiment, run.path, resume=run.experiment_file.is_file(), progress=True, command=command)
    except KeyboardInterrupt:
        return True
    return False


class _Alarm:
    """Whether the time was up."""

    rang = False


@contextmanager
def _alarm(seconds: float) -> Iterator[_Alarm]:
    """Ask the training that runs inside to save and stop after so many seconds, as a SIGTERM from outside would.

    Before training has begun, and while it is evaluated, nothing would be saved: then the alarm waits.
    """
    alarm = _Alarm()

    def ring(number: int, frame: object) -> None:
        if isinstance(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), Checkpoints):
            alarm.rang = True
            signal.raise_signal(signal.SIGTERM)
        else:
            signal.setitimer(signal.ITIMER_REAL, _POLL)

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield alarm
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def synthetic_cifar10(folder: Path) -> Path:
    """A folder with ``cifar10/`` in the layout of the real one: 200 + 50 images of 8x8 pixels, each class a hue."""
    import torch
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as Picture

    draws = torch.Generator().manual_seed(0)
    hues = torch.randint(256, (10, 1, 1, 3), generator=draws)
    features = Features({"img": Image(), "label": ClassLabel(num_classes=10)})
    (folder / "cifar10").mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 200), ("test", 50)):
        labels = torch.arange(count) % 10
        pixels = (
            (hues[labels] + torch.randint(-60, 60, (count, 8, 8, 3), generator=draws)).clamp(0, 255).to(torch.uint8)
        )
        encoded = []
        for image in pixels:
            buffer = io.BytesIO()
            Picture.fromarray(image.numpy()).save(buffer, "PNG")
            encoded.append({"bytes": buffer.getvalue(), "path": None})
        table = Dataset.from_dict({"img": encoded, "label": labels.tolist()}, features=features)
        table.to_parquet(folder / "cifar10" / f"{part}-00000-of-00001.parquet")
    return folder
