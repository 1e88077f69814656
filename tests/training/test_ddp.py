"""Two processes on the CPU: the single process's numbers, one set of files, and a run that goes on where it stopped."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from vicinal.data.streams import Batches
from vicinal.experiment import Experiment
from vicinal.fitting import fit
from vicinal.runs import Run

torch.set_num_threads(1)
pytestmark = pytest.mark.slow  # each training starts two processes that import everything

SCRIPT = r"""
import json, sys
import torch
torch.set_num_threads(1)
from lightning.pytorch import Callback
from vicinal.experiment import Experiment
from vicinal.fitting import fit
from vicinal.training import engine

class SameEverywhere(Callback):
    "All processes have the same student and teacher weights after every step, and different inputs."

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        for network in (module.student, module.teacher):
            if network is not None:
                own = torch.cat([p.detach().flatten() for p in network.parameters()])
                every = trainer.strategy.all_gather(own)
                assert torch.equal(every[0], every[1]), "weights differ"
        rows = trainer.strategy.all_gather(batch.u_index if batch.u_index is not None else batch.x_index)
        assert not torch.equal(rows[0], rows[1]), "all processes see the same rows"

plain = engine.train

def train(module, data, folder, *, watchers, **more):
    plain(module, data, folder, watchers=[SameEverywhere(), *watchers], **more)

if __name__ == "__main__":
    engine.train = train
    job = json.loads(sys.argv[1])
    try:
        fit(Experiment.of(job["experiment"]), job["output"], resume=job["resume"], progress=False)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def described(method: str, **training: Any) -> dict[str, Any]:
    settings = {"steps": 40, "batch_labelled": 10, "batch_unlabelled": 20, "learning_rate": 0.05, "threads": 1}
    settings |= {"device": "cpu", "devices": 2, "log_every": 1, "validate_every": 9, "checkpoint_every": 7}
    network: dict[str, Any] = {"name": "mlp", "hidden": [16]}
    if method != "supervised":
        network = {"name": "small_cnn", "widths": [4, 8], "dropout": 0.1}
    return {
        "data": "digits", "labels": 50, "recipe": "none", "method": method, "network": network,
        "training": {**settings, **training},
    }  # fmt: skip


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A script with an importable main module, which spawned processes need."""
    path = tmp_path_factory.mktemp("script") / "train.py"
    path.write_text(SCRIPT)
    return path


def start(script: Path, experiment: dict[str, Any], output: Path) -> subprocess.Popen[str]:
    job = json.dumps({"experiment": experiment, "output": str(output), "resume": output.exists()})
    return subprocess.Popen([sys.executable, str(script), job], stderr=subprocess.PIPE, text=True)


def steps_of(run: Run) -> list[int]:
    with run.metrics_file.open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["loss"]]


def test_supervised_is_the_single_process_with_the_same_batches(script: Path, tmp_path: Path) -> None:
    two, one = Run(tmp_path / "two"), Run(tmp_path / "one")
    running = start(script, described("supervised"), two.path)
    fit(Experiment.of(described("supervised", devices=1)), one.path, progress=False)
    _, said = running.communicate(timeout=100)
    assert (running.returncode, said) == (0, "")
    weights, wanted = two.checkpoint("last")["state_dict"], one.checkpoint("last")["state_dict"]
    for name, value in wanted.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5)
    assert steps_of(two) == list(range(1, 41))
    assert two.evaluation()["steps"] == one.evaluation()["steps"]


def test_advmixup_with_batch_norm_is_stopped_and_goes_on_to_the_end(script: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    experiment = described("advmixup", steps=150)
    running = start(script, experiment, run.path)
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and running.poll() is None:
        if run.metrics_file.exists() and run.metrics_file.read_text().count("\n") > 12:
            running.send_signal(signal.SIGTERM)
            break
        time.sleep(0.01)
    _, said = running.communicate(timeout=100)
    assert (running.returncode, said) == (130, "")
    stopped = run.checkpoint("last")["global_step"]
    assert 10 < stopped < 150
    assert steps_of(run) == list(range(1, stopped + 1))

    resumed = start(script, experiment, run.path)
    _, said = resumed.communicate(timeout=100)
    assert (resumed.returncode, said) == (0, "")
    assert steps_of(run) == list(range(1, 151))
    content = run.checkpoint("last")
    assert content["global_step"] == 150
    assert content["state_dict"]["teacher._extra_state"] == {"updates": 150}
    assert run.evaluation()["test"]["error"]["last"] < 0.9
    assert {item.name for item in run.checkpoints.iterdir()} == {"last.ckpt", "best.ckpt"}


def test_the_processes_share_out_the_rows_of_a_batch() -> None:
    """What the comparison with the single process rests on; without processes, so it is quick."""
    from vicinal.data import Examples, SplitIndices

    rows = torch.arange(30)
    split = SplitIndices(rows, rows, rows[:0])
    settings: dict[str, Any] = {"labelled_batch": 4, "unlabelled_batch": 6, "seed": 0, "steps": 3}
    examples = Examples(torch.randn(30, 2), rows % 2)
    whole = list(Batches(examples, split, **settings))
    parts = [list(Batches(examples, split, **settings, rank=rank, world=2)) for rank in (0, 1)]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert sorted(batch.x_index.tolist()) == sorted([*first.x_index.tolist(), *second.x_index.tolist()])
