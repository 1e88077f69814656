"""Where data of one's own and their runs lie: apart from each other, found from anywhere, missed without harm."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vicinal import assembling
from vicinal.cli import own
from vicinal.data import load
from vicinal.errors import InputError
from vicinal.experiment import Experiment
from vicinal.runs import Run
from vicinal.settings import Choice

PIL: Any = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
FEW = ("--training.steps", "4", "--training.threads", "1", "--training.device", "cpu", "--quiet")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of noise, which nobody learns from six pictures; "data" in the folder where one is."""
    monkeypatch.chdir(tmp_path)
    draws = np.random.default_rng(0)
    for k in range(24):
        path = tmp_path / "data" / ("a", "b", "unlabelled")[k % 3] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.fromarray(draws.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("data", (".",)),
        (".", ("data", "--output", "data/run")),
        (".", ("data", "--output", "data")),
        ("data/a", ("..", "--output", "runs/x")),
        ("data", (".", "--method", "supervised", "--output", "run")),
    ],
)
def test_no_run_lies_in_its_data(
    data: Path, cli: Any, monkeypatch: pytest.MonkeyPatch, where: str, words: tuple[str, ...]
) -> None:
    before = sorted(data.rglob("*"))
    monkeypatch.chdir(data.parent / where)
    answer = cli("fit", *words, *FEW)
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.err.splitlines()
    assert "lies in the data folder" in line
    assert "name a directory outside of it" in line
    assert sorted(data.rglob("*")) == before


def test_what_was_shown_is_what_is_trained_on_and_is_read_once(
    data: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def once_more(choice: Choice) -> Any:
        raise AssertionError("read again")

    monkeypatch.setattr(assembling, "load", once_more)
    answer = cli("fit", "data", *FEW)
    assert answer.code == 0, answer.err
    assert Run("runs/data-vat").evaluation()["provenance"]["data"]["content"] == load(Choice("data")).source["content"]


def test_a_run_is_used_from_anywhere_and_without_its_data(
    data: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("fit", "data", *FEW).code == 0
    run = Run(data.parent / "runs" / "data-vat")
    assert run.experiment.data.name == str(data)
    shutil.copytree(data, data.parent / "new")
    monkeypatch.chdir(data.parent / "new")
    before = cli("predict", run.path, data.parent / "new")
    assert before.code == 0, before.err
    assert cli("suggest", run.path, "-n", 2).code == 0
    calibrated = before.err
    assert "logits /" in calibrated, "the test is of a calibrated run"
    shutil.rmtree(data)
    after = cli("predict", run.path, data.parent / "new")
    assert after == before, "calibrated by what was kept"
    shutil.rmtree(run.path / "measures")
    assert "not calibrated: data: unknown data set" in cli("predict", run.path, data.parent / "new").err
    for form in ("safetensors", "hub-folder"):
        answer = cli("export", run.path, "--format", form, "--output", data.parent / form)
        assert answer.code == 0, answer.err
        assert "random inputs (the run's data are not there)" in answer.err
    assert str(data.parent) not in (data.parent / "hub-folder" / "README.md").read_text(encoding="utf-8")
    answer = cli("suggest", run.path, "-n", 2)
    assert answer.code == 2
    assert "no such file or folder exists" in answer.err, "it is told where the data are needed"


def test_data_are_looked_for_when_they_are_loaded(tmp_path: Path) -> None:
    for name in ("gone", "gone/too", "gone.npz", "/gone/a.parquet"):
        (tmp_path / "experiment.yaml").write_text(f"data: {name}\nmethod: ict\n", encoding="utf-8")
        with pytest.raises(InputError):
            Experiment.of(data="./" + name, method="ict")
        assert Experiment.from_yaml(tmp_path / "experiment.yaml").data.name == name
    with pytest.raises(InputError, match="unknown data set 'gone'"):
        load(Choice("gone"))


def test_the_key_of_known_data_is_the_one_it_was(tmp_path: Path) -> None:
    experiment = Experiment.of(data="digits", method="ict")
    assert own.located(experiment) is experiment
    (tmp_path / "experiment.yaml").write_text(experiment.to_yaml(), encoding="utf-8")
    assert Experiment.from_yaml(tmp_path / "experiment.yaml").key == experiment.key


def test_a_folder_called_like_known_data(data: Path, cli: Any) -> None:
    data.rename("digits")
    answer = cli("fit", "digits", *FEW)
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.err.splitlines()
    assert "method: missing" in line
    assert "./digits" in line
    answer = cli("fit", "./digits", *FEW)
    assert answer.code == 0, answer.err
    assert Run("runs/digits-vat").experiment.data.name == str(data.parent / "digits")
    shutil.rmtree("digits")
    assert "./digits" not in cli("fit", "digits", *FEW).err


@pytest.mark.parametrize("begun", [False, True])
def test_what_is_stopped_says_how_to_go_on_if_one_can(
    data: Path, cli: Any, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vicinal.fitting._train" if begun else "vicinal.cli.own.Own.sheet", stop)
        answer = cli("fit", "data", *FEW)
    assert answer.code == 130
    assert ("stopped; go on with: vicinal fit --resume runs/data-vat" in answer.err) == begun
    assert ("stopped; there is nothing to go on with" in answer.err) == (not begun)
    if begun:
        assert cli("fit", "--resume", "runs/data-vat", "--quiet").code == 0
