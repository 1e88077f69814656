"""The metrics file, the progress bar, TensorBoard logs, and what all this costs."""

from __future__ import annotations

import csv
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from vicinal.data import Dataset, Examples, SplitIndices
from vicinal.errors import InputError, MissingExtraError
from vicinal.experiment import Experiment
from vicinal.fitting import fit
from vicinal.methods import Supervised
from vicinal.networks import mlp
from vicinal.runs import Run
from vicinal.training import Training
from vicinal.training.callbacks import Checkpoints, MetricsFile, ProgressBar
from vicinal.training.engine import train
from vicinal.training.loading import TrainingData
from vicinal.training.module import VicinalModule

torch.set_num_threads(1)


def described(method: str = "ict", **training: Any) -> Experiment:
    settings = {"steps": 12, "batch_labelled": 5, "batch_unlabelled": 8, "threads": 1, "device": "cpu", **training}
    return Experiment.of(
        data="two_moons", labels=10, recipe="none", method=method, training=settings,
        network={"name": "mlp", "hidden": [4]},
    )  # fmt: skip


def small(steps: int, **training: Any) -> tuple[VicinalModule, TrainingData]:
    """A module and its data, as little as trains at all."""
    settings = Training(steps=steps, batch_labelled=4, device="cpu", **training)
    draws = torch.Generator().manual_seed(0)
    examples = Examples(torch.randn(40, 3, generator=draws), torch.arange(40) % 2)
    dataset = Dataset("given", examples, None, None, ("a", "b"), (3,))
    rows = torch.arange(40)
    split = SplitIndices(rows, rows, rows[:0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = mlp((3,), 2, hidden=[4])
    return VicinalModule(network, Supervised(), settings), TrainingData(
        dataset, split, settings, seed=0, unlabelled=False
    )


def test_the_metrics_file_has_a_row_for_each_logged_step_and_each_validation(tmp_path: Path) -> None:
    run = fit(described(log_every=5, validate_every=4), tmp_path / "run", progress=False)
    with run.metrics_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row["loss"]] == [1, 6, 11, 12]
    assert [int(row["step"]) for row in rows if row["validation_error"]] == [4, 8, 12]
    assert len(rows) == 7
    last = rows[-1]
    assert last["validation_error"] == last["validation_error_teacher"]
    for row in rows[:1]:
        names = ("loss", "supervised", "consistency", "supervised_weight", "consistency_weight", "images_per_second")
        assert all(float(row[name]) >= 0 for name in names)
        assert float(row["learning_rate"]) == pytest.approx(0.1)


def test_without_validation_data_there_is_no_selection(tmp_path: Path) -> None:
    values = described().as_dict()
    run = fit(Experiment.of(values | {"split": {"labels": 10, "validation": 0}}), tmp_path / "run", progress=False)
    found = run.evaluation()
    assert found["validation"] is None
    assert found["test"]["error"]["best_validation"] is None
    assert found["steps"] == {"last": 12, "best_validation": None}
    assert found["test"]["error"]["last"] is not None
    assert not run.best.exists()


def test_a_metrics_file_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("name,age\nAda,36\n")
    module, data = small(2)
    with pytest.raises(InputError, match="not a metrics file of this library"):
        train(module, data, tmp_path, watchers=[MetricsFile(path)])
    assert path.read_text() == "name,age\nAda,36\n"


class _At:
    """What a callback asks of a trainer."""

    is_global_zero = True

    def __init__(self, step: int) -> None:
        self.global_step = step


def test_a_resumed_metrics_file_keeps_whole_rows_up_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    module, _ = small(20)
    kept = "step,loss\n1,0.5\n6,0.4\n8,\n"
    # 11 is after the checkpoint; the last row was cut off within "84", so it reads like step 8.
    path.write_text(kept + "11,0.3\n8")
    MetricsFile(path).on_train_start(_At(10), module)  # type: ignore[arg-type]
    assert path.read_text() == kept
    MetricsFile(path).on_train_start(_At(0), module)  # type: ignore[arg-type]
    assert not path.exists()


def test_progress_is_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    module, data = small(6, log_every=1)
    train(module, data, tmp_path, watchers=[ProgressBar("digits ict", 6, every=0)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert lines[2].startswith("digits ict: step 3 of 6, loss ")
    for words in ("supervised ", " img/s", " s left"):
        assert all(words in line for line in lines)


def test_progress_is_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    module, data = small(6, log_every=1)
    train(module, data, tmp_path, watchers=[ProgressBar("digits ict", 6)])
    shown = capsys.readouterr().err
    assert "digits ict" in shown
    assert "6/6" in shown
    assert "img/s" in shown


def test_metrics_belong_to_the_checkpoint_of_their_step(tmp_path: Path) -> None:
    """`Checkpoints` comes last: a state that was saved has its rows in the file already."""
    path = tmp_path / "metrics.csv"
    rows_at_save: list[int] = []

    class Looking(Checkpoints):
        def _save(self, trainer: Trainer, name: str, *, weights_only: bool) -> None:
            rows_at_save.append(len(path.read_text().splitlines()) - 1)
            super()._save(trainer, name, weights_only=weights_only)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vicinal.training.engine.Checkpoints", Looking)
        module, data = small(4, log_every=1, checkpoint_every=1)
        train(module, data, tmp_path, watchers=[MetricsFile(path)])
    assert rows_at_save == [1, 2, 3, 4]


def test_tensorboard_logs_are_written_when_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    run = fit(described(log_every=5, validate_every=6), tmp_path / "run", progress=False, tensorboard=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 6, 11, 12]
    assert {"consistency", "learning_rate", "validation_error"} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("validation_error")) == 2


def test_tensorboard_missing_names_the_extra_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vicinal\[tensorboard\]'"):
        fit(described(), tmp_path / "run", progress=False, tensorboard=True)
    assert not (tmp_path / "run").exists()


class _Clock(Callback):
    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.started = time.process_time()

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.milliseconds = 1e3 * (time.process_time() - self.started) / trainer.global_step


def overhead(folder: Path, *, ours: bool, steps: int = 300) -> float:
    """Milliseconds of processor time per step of a tiny network, with the library's callbacks or without."""
    module, data = small(steps, log_every=10, checkpoint_every=10**6)
    clock = _Clock()
    own: list[Callback] = []
    if ours:
        own = [MetricsFile(folder / f"{time.time_ns()}.csv"), ProgressBar("tiny", steps)]
        own.append(Checkpoints(folder, every=10**6, validate_every=None))
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=1, limit_val_batches=0, logger=False, callbacks=[clock, *own],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return clock.milliseconds


@pytest.mark.filterwarnings("ignore:You have overridden `transfer_batch_to_device`")
def test_the_callbacks_cost_little(tmp_path: Path) -> None:
    """Measured 0.03 ms a step; the bound is for busy machines."""
    added = [overhead(tmp_path, ours=True) - overhead(tmp_path, ours=False) for _ in range(4)]
    assert statistics.median(added) < 0.3


def test_a_run_directory_is_all_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = fit(described(), tmp_path / "run", progress=False)
    assert [item.name for item in tmp_path.iterdir()] == ["run"]
    wanted = {"checkpoints", "evaluation.json", "experiment.yaml", "metrics.csv", "model.safetensors", "split.json"}
    assert {item.name for item in run.path.iterdir()} == wanted | {".lock"}
    assert {item.name for item in run.checkpoints.iterdir()} == {"last.ckpt", "best.ckpt"}
    assert isinstance(run, Run)
