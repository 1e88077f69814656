"""Run directories: who may write there, what is refused, and that a refusal changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vicinal.errors import InputError
from vicinal.evaluating import evaluate
from vicinal.experiment import Experiment
from vicinal.fitting import fit
from vicinal.runs import Run, write_atomic

torch.set_num_threads(1)


def described(**more: Any) -> Experiment:
    training = {"steps": 6, "batch_labelled": 5, "threads": 1, "device": "cpu", "checkpoint_every": 2}
    values = {"data": "two_moons", "labels": 10, "recipe": "none", "method": "supervised", "training": training}
    return Experiment.of({**values, "network": {"name": "mlp", "hidden": [4]}, **more})


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, without the lock, which is empty."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(described(), tmp_path_factory.mktemp("runs") / "finished", progress=False, command="a command").path


@pytest.fixture
def copy_of(finished: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies the finished run, and may make it look as if it had been stopped at step 4."""

    def copy(*, stopped: bool = False) -> Path:
        made = tmp_path / "run"
        shutil.copytree(finished, made)
        if stopped:
            (made / "evaluation.json").unlink()
            (made / "model.safetensors").unlink()
            content = torch.load(made / "checkpoints" / "last.ckpt", weights_only=True)
            torch.save({**content, "global_step": 4}, made / "checkpoints" / "last.ckpt")
        return made

    return copy


def refused(folder: Path, words: str, action: Callable[[], object]) -> None:
    """The action fails with one line that has these words, and not a byte below the folder is another one."""
    before = contents(folder)
    with pytest.raises(InputError) as caught:
        action()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(folder) == before


def test_a_finished_run_is_not_overwritten(copy_of: Callable[..., Path]) -> None:
    run = copy_of()
    refused(run, "holds a finished run; choose another", lambda: fit(described(), run, progress=False))
    refused(run, "there is nothing to resume", lambda: fit(described(), run, progress=False, resume=True))


def test_an_unfinished_run_is_not_overwritten(copy_of: Callable[..., Path]) -> None:
    run = copy_of(stopped=True)
    refused(run, f"go on with: vicinal fit --resume {run}", lambda: fit(described(), run, progress=False))


def test_an_unfinished_run_of_another_experiment_is_not_gone_on_with(copy_of: Callable[..., Path]) -> None:
    run = copy_of(stopped=True)
    refused(run, "of another experiment", lambda: fit(described(seed=1), run, progress=False, resume=True))


def test_somebody_elses_folder_is_not_touched_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.txt").write_text("once upon a time")
    for resume in (False, True):
        refused(folder, "not empty and not a run", lambda: fit(described(), folder, progress=False, resume=resume))  # noqa: B023
    assert [item.name for item in folder.iterdir()] == ["chapter1.txt"]  # and no lock file


def test_a_file_is_not_a_directory(tmp_path: Path) -> None:
    path = tmp_path / "results"
    path.write_text("mine")
    refused(tmp_path, "results: is a file; choose another", lambda: fit(described(), path, progress=False))
    refused(tmp_path, "cannot write: Not a directory", lambda: fit(described(), path / "run", progress=False))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        refused(tmp_path, "cannot write: Permission denied", lambda: fit(described(), tmp_path / "a", progress=False))
    finally:
        tmp_path.chmod(0o700)


def test_a_place_where_nothing_can_be_made() -> None:
    with pytest.raises(InputError, match=r"^/proc/vicinal/run: cannot write: "):
        fit(described(), "/proc/vicinal/run", progress=False)


def test_an_empty_directory_will_do(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert fit(described(), tmp_path / "run", progress=False).is_finished


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to resume"):
        fit(described(), tmp_path / "run", progress=False, resume=True)
    assert not (tmp_path / "run" / "experiment.yaml").exists()
    with pytest.raises(InputError, match="no such directory"):
        Run.open(tmp_path / "other")
    with pytest.raises(InputError, match="not a run directory"):
        Run.open(tmp_path)


HOLD = """
import sys
from vicinal.runs import Run
with Run(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_process_is_at_is_left_to_it(copy_of: Callable[..., Path]) -> None:
    run = copy_of(stopped=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    refused(run, "in use by another process", lambda: fit(described(), run, progress=False, resume=True))
    refused(run, "in use by another process", lambda: fit(described(), run, progress=False))
    holder.kill()  # the system lets go of the lock of a process that was killed
    holder.communicate()
    with Run(run).locked():
        pass


def test_waiting_for_a_run(copy_of: Callable[..., Path]) -> None:
    run, order = Run(copy_of()), []
    with run.locked():
        waiting = threading.Thread(target=lambda: [order.append("waited") for _ in [0] if _enter(run)])
        waiting.start()
        waiting.join(0.2)
        order.append("held")
    waiting.join(10)
    assert order == ["held", "waited"]


def _enter(run: Run) -> bool:
    with run.locked(wait=True):
        return True


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "foreign", "pickle", "other network"])
def test_a_damaged_checkpoint_is_told_and_kept(copy_of: Callable[..., Path], damage: str) -> None:
    run = copy_of(stopped=True)
    last = run / "checkpoints" / "last.ckpt"
    if damage == "cut":
        last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    elif damage == "text":
        last.write_text("not a checkpoint")
    elif damage == "empty":
        last.write_bytes(b"")
    elif damage == "foreign":
        torch.save({"state_dict": {}}, last)
    elif damage == "pickle":
        torch.save({"state_dict": {}, "global_step": 1, "vicinal": Path}, last)  # code, which is not run
    else:
        content = torch.load(last, weights_only=True)
        content["state_dict"]["student.head.weight"] = torch.zeros(2, 9)
        torch.save(content, last)
    refused(run, "last.ckpt", lambda: fit(described(), run, progress=False, resume=True))
    refused(run, "run", lambda: evaluate(Run(run)))


def test_a_split_that_is_not_the_runs_own_is_told(copy_of: Callable[..., Path]) -> None:
    run = copy_of(stopped=True)
    split = json.loads((run / "split.json").read_text())
    split["labelled"] = split["labelled"][1:]
    (run / "split.json").write_text(json.dumps(split))
    refused(run, "the data have changed", lambda: fit(described(), run, progress=False, resume=True))


def test_evaluating_before_the_end(copy_of: Callable[..., Path]) -> None:
    run = Run(copy_of(stopped=True))
    refused(run.path, "trained for 4 of 6 steps; go on with: vicinal fit --resume", lambda: evaluate(run))
    refused(run.path, "the run is not finished; go on with", run.evaluation)


def test_a_damaged_evaluation_can_be_written_anew(copy_of: Callable[..., Path]) -> None:
    run = Run(copy_of())
    whole = run.evaluation()
    run.evaluation_file.write_text("{")
    refused(run.path, "write it anew with: vicinal evaluate", run.evaluation)
    evaluate(run, command="another")
    again = run.evaluation()
    assert again["provenance"].pop("command") == "another"
    assert whole["provenance"].pop("command") == "a command"
    assert again == whole
    evaluate(run, command="a third")  # keeps the command that is there
    assert run.evaluation()["provenance"]["command"] == "another"


def test_a_trained_network_is_read_back(finished: Path) -> None:
    from safetensors import safe_open

    state = torch.random.get_rng_state()
    trained = Run(finished).network()
    assert torch.equal(state, torch.random.get_rng_state())
    assert (trained.shape, trained.step, trained.network.training) == ((2,), 6, False)
    assert len(trained.classes) == 2
    with safe_open(Run(finished).model_file, "pt") as file:
        assert json.loads(file.metadata()["classes"]) == list(trained.classes)
        for name, value in trained.network.state_dict().items():
            assert torch.equal(file.get_tensor(name), value)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_atomic(path, "old")
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        assert path.read_text() == "old"  # a reader in this moment
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new and longer")
    assert path.read_text() == "old"
    monkeypatch.setattr(Path, "replace", replace)
    write_atomic(path, "new é")
    assert path.read_bytes() == "new é".encode()
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
