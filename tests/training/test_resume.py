"""A run that was killed or interrupted and resumed is the uninterrupted run, to the bit.

Each run is a process of its own, forked from one that has imported everything (`run_server.py`): killing costs little.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vicinal.runs import Run

torch.set_num_threads(1)


class Server:
    """Runs experiments in processes of their own."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("run_server.py")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, experiment: dict[str, Any], output: Path, **job: Any) -> int:
        """Start a run and return its process."""
        resume = (output / "experiment.yaml").exists()
        words = {"experiment": experiment, "output": str(output), "resume": resume, **job}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return int(self._answer())

    def wait(self) -> int:
        """Exit code of the run that was started; negative for a signal."""
        return int(self._answer())

    def run(self, experiment: dict[str, Any], output: Path, **job: Any) -> int:
        self.start(experiment, output, **job)
        return self.wait()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.process.communicate(timeout=20)


def described(method: str = "advmixup", **training: Any) -> dict[str, Any]:
    """A small run with everything that draws: dropout, augmentation, a teacher with batch norm of its own."""
    return {
        "data": "digits",
        "labels": 50,
        "recipe": "none",
        "method": method,
        "seed": 3,
        "network": {"name": "small_cnn", "widths": [4, 6], "dropout": 0.2, "input_noise": 0.1},
        "augment": {"crop": 1},
        "training": {
            "steps": 24,
            "batch_labelled": 7,
            "batch_unlabelled": 9,
            "learning_rate": 0.02,
            "threads": 1,
            "device": "cpu",
            "log_every": 1,
            "validate_every": 5,
            "checkpoint_every": 3,
            **training,
        },
    }


def rows(run: Run) -> list[str]:
    """The metrics file without its one column of times."""
    lines = [line.split(",") for line in run.metrics_file.read_text().splitlines()]
    timed = lines[0].index("images_per_second")
    return [",".join(line[:timed] + line[timed + 1 :]) for line in lines]


def state(value: Any) -> Any:
    """Plain values, with tensors as their bytes."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: state(item) for key, item in value.items()}
    return [state(item) for item in value] if isinstance(value, list | tuple) else value


def assert_same(resumed: Path, whole: Path) -> None:
    """Weights, teacher, optimiser, schedule, selection, figures and metrics are those of the uninterrupted run."""
    one, other = Run(resumed), Run(whole)
    last, wanted = one.checkpoint("last"), other.checkpoint("last")
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert state(last[part]) == state(wanted[part]), part
    kept, kept_wanted = last["callbacks"]["Checkpoints"], wanted["callbacks"]["Checkpoints"]
    assert (kept["best_error"], kept["best_step"]) == (kept_wanted["best_error"], kept_wanted["best_step"])
    best, best_wanted = one.checkpoint("best_validation"), other.checkpoint("best_validation")
    assert best["global_step"] == best_wanted["global_step"]
    assert state(best["state_dict"]) == state(best_wanted["state_dict"])
    assert rows(one) == rows(other)
    assert state(load_file(one.model_file)) == state(load_file(other.model_file))
    values, values_wanted = one.evaluation(), other.evaluation()
    for found in (values, values_wanted):
        del found["provenance"]["training_seconds"]
    assert values == values_wanted
    assert not list(one.path.rglob("*.partial"))


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Gives the uninterrupted run of an experiment, made once."""
    made: dict[str, Path] = {}

    def run(experiment: dict[str, Any]) -> Path:
        key = json.dumps(experiment)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("whole") / "run"
            assert server.run(experiment, made[key]) == 0
        return made[key]

    return run


def test_the_same_experiment_twice_is_the_same_run(server: Server, whole: Any, tmp_path: Path) -> None:
    assert server.run(described(), tmp_path / "again") == 0
    assert_same(tmp_path / "again", whole(described()))
    # The comparison can fail: another schedule of validations changes the metrics, not the weights.
    with pytest.raises(AssertionError):
        assert_same(tmp_path / "again", whole(described(validate_every=6)))


@pytest.mark.parametrize("step", [0, 1, 3, 5, 9, 14, 15, 23])
def test_killed_in_any_step_and_resumed(server: Server, whole: Any, tmp_path: Path, step: int) -> None:
    assert server.run(described(), tmp_path / "run", kill_at_step=step) == -signal.SIGKILL
    assert not Run(tmp_path / "run").is_finished
    assert server.run(described(), tmp_path / "run") == 0
    assert_same(tmp_path / "run", whole(described()))


@pytest.mark.parametrize(
    ("method", "training"),
    [
        ("advmixup", {"checkpoint_every": 4, "validate_every": 8}),
        ("advmixup", {"checkpoint_every": 6, "validate_every": 3, "optimizer": "adam", "warmup": 6}),
        ("ict", {"checkpoint_every": 100, "precision": "bf16-mixed"}),
        ("mean_teacher", {"validate_every": 100}),
        ("vat", {"checkpoint_every": 5}),
        ("mixup", {}),
    ],
)
def test_killed_at_random_moments_twice(
    server: Server, whole: Any, tmp_path: Path, method: str, training: dict[str, Any]
) -> None:
    experiment, run = described(method, **training), Run(tmp_path / "run")
    draws = random.Random(f"{method} {training}")
    for _ in range(2):
        pid = server.start(experiment, run.path)
        _wait_for_row(run, draws.randrange(1, 23), pid)
        os.kill(pid, signal.SIGKILL)
        if server.wait() == 0:
            break  # it was faster
    if not run.is_finished:
        assert server.run(experiment, run.path) == 0
    assert_same(run.path, whole(experiment))


def _wait_for_row(run: Run, step: int, pid: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if run.metrics_file.exists():
            last = run.metrics_file.read_text().rsplit("\n", 2)[-2:][0].split(",")[0]
            if last.isdecimal() and int(last) >= step:
                return
        time.sleep(0.001)


AVERAGINGS = {
    "swa": {"kind": "swa", "start": 0.25, "every": 0.125, "refresh": 3},  # snapshots at 6, 9, ..., 24
    "ema": {"kind": "ema", "decay": 0.9},
}


# What is saved at 6 and at 18 holds a snapshot whose running statistics wait to be renewed, before the validation at 20
# without another snapshot in between; at 15 a snapshot, a validation and a checkpoint fall together.
@pytest.mark.parametrize(
    ("kind", "job"),
    [
        ("swa", {"kill_at_step": 7}),
        ("swa", {"kill_at_step": 15}),
        ("swa", {"kill_at_step": 19}),
        ("swa", {"kill_in_validation": 15}),
        ("ema", {"kill_at_step": 14}),
    ],
)
def test_an_average_goes_on_where_it_stood(
    server: Server, whole: Any, tmp_path: Path, kind: str, job: dict[str, Any]
) -> None:
    experiment = described("mean_teacher") | {"averaging": AVERAGINGS[kind]}
    run = Run(tmp_path / "run")
    assert server.run(experiment, run.path, **job) == -signal.SIGKILL
    assert server.run(experiment, run.path) == 0
    assert_same(run.path, whole(experiment))
    assert run.evaluation()["weights"] == "average"
    # Without its average it is another run, so the average took part in the comparison.
    with pytest.raises(AssertionError):
        assert_same(run.path, whole(described("mean_teacher")))


@pytest.mark.parametrize(
    "kill",
    [
        {"kill_in_save": ["last.ckpt", 12]},  # half of a checkpoint is written
        {"kill_in_save": ["last.ckpt", 3]},  # half of the first one
        {"kill_in_save": ["best.ckpt", 5]},
        {"kill_in_validation": 15},  # between the step and the checkpoint, which waits for the validation
        {"kill_in_row": 13},  # half of a row of metrics
        {"kill_in_row": 1},
        {"kill_before": "evaluate"},  # trained, not evaluated
        {"kill_before": "write_atomic"},  # evaluated, not written
    ],
    ids=str,
)
def test_killed_while_writing(server: Server, whole: Any, tmp_path: Path, kill: dict[str, Any]) -> None:
    assert server.run(described(), tmp_path / "run", **kill) == -signal.SIGKILL
    assert server.run(described(), tmp_path / "run") == 0
    assert_same(tmp_path / "run", whole(described()))


# Step 9 ends in a validation, step 14 in a validation and a checkpoint, 23 is the last.
@pytest.mark.parametrize(
    ("number", "step"), [(signal.SIGINT, 7), (signal.SIGTERM, 9), (signal.SIGTERM, 14), (signal.SIGINT, 23)]
)
def test_a_signal_saves_the_very_step_and_stops(
    server: Server, whole: Any, tmp_path: Path, number: signal.Signals, step: int
) -> None:
    run = Run(tmp_path / "run")
    assert server.run(described(), run.path, signal_at_step=[int(number), step, 1]) == 130
    assert run.checkpoint("last")["global_step"] == step + 1
    assert rows(run)[-1].split(",")[0] == str(step + 1)
    # The state is the step's: killed in the next one, nothing of it is lost.
    assert server.run(described(), run.path, kill_at_step=step + 1) == (0 if step == 23 else -signal.SIGKILL)
    if step < 23:
        assert server.run(described(), run.path) == 0
    assert_same(run.path, whole(described()))


def test_a_second_signal_stops_at_once(server: Server, whole: Any, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    assert server.run(described(), run.path, signal_at_step=[int(signal.SIGINT), 8, 2]) == 130
    assert run.checkpoint("last")["global_step"] == 6
    assert server.run(described(), run.path) == 0
    assert_same(run.path, whole(described()))


@pytest.mark.parametrize("kill_at_step", [8, 13, 17])
def test_the_lowest_validation_error_so_far_is_not_forgotten(server: Server, tmp_path: Path, kill_at_step: int) -> None:
    run, job = Run(tmp_path / "run"), {"errors": {"5": 0.9, "10": 0.25, "15": 0.5, "20": 0.25}}
    assert server.run(described(), run.path, kill_at_step=kill_at_step, **job) == -signal.SIGKILL
    assert server.run(described(), run.path, **job) == 0
    assert run.checkpoint("best_validation")["global_step"] == 10
    kept = run.checkpoint("last")["callbacks"]["Checkpoints"]
    assert (kept["best_error"], kept["best_step"]) == (0.25, 10)
