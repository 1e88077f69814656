"""From an experiment to its figures: provenance, selection, and what a failure leaves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vicinal
from vicinal import assembling, fitting
from vicinal.assembling import Assembled
from vicinal.data import Dataset, Examples, load, make_split
from vicinal.errors import InputError
from vicinal.experiment import Experiment
from vicinal.fitting import finish, fit
from vicinal.runs import Run

torch.set_num_threads(1)


def described(method: str = "advmixup", **more: Any) -> Experiment:
    training = {"steps": 12, "batch_labelled": 5, "batch_unlabelled": 8, "threads": 1, "device": "cpu"}
    training |= {"validate_every": 3, **more.pop("training", {})}
    values = {"data": "digits", "labels": 50, "recipe": "none", "method": method, "training": training, "seed": 4}
    return Experiment.of({**values, "network": {"name": "mlp", "hidden": [8]}, **more})


def test_the_evaluation_says_what_it_measured_and_where_it_comes_from(tmp_path: Path) -> None:
    experiment = described(method={"name": "advmixup", "space": "input"})  # type: ignore[arg-type]
    run = fit(experiment, tmp_path / "run", progress=False, command="vicinal fit digits")
    found = run.evaluation()
    assert found["weights"] == "teacher"
    for part, n in (("test", 597), ("validation", 120)):
        assert found[part]["n"] == n
        for column in ("last", "best_validation"):
            error = found[part]["error"][column]
            assert 0 <= error <= 1
            assert error * n == pytest.approx(round(error * n))  # a fraction of the examples
            assert found[part]["nll"][column] > 0
    assert found["steps"]["last"] == 12
    assert found["steps"]["best_validation"] in (3, 6, 9, 12)
    told = found["provenance"]
    assert told.pop("training_seconds") > 0
    assert told.pop("data")["name"] == "digits"
    machine = told.pop("machine")
    assert {"processor", "cores", "torch", "python", "threads"} <= machine.keys()
    assert machine["threads"] == 1
    commit = told.pop("commit")
    assert commit is None or len(commit.removesuffix("+changes")) == 12
    parts = Assembled(experiment)
    assert told == {
        "experiment": experiment.key,
        "seed": 4,
        "labels": 50,
        "unlabelled": 1080,
        "split": parts.split.digest,
        "backbone": "mlp",
        "parameters": 64 * 8 + 8 + 8 * 10 + 10,
        "preprocess": "normalise",
        "method": "advmixup",
        "recipe": None,
        "space": "input",
        "regime": "first order",
        "steps": 12,
        "version": vicinal.__version__,
        "command": "vicinal fit digits",
    }


def test_a_supervised_run_has_student_weights_and_uses_nothing_unlabelled(tmp_path: Path) -> None:
    found = fit(described("supervised"), tmp_path / "run", progress=False).evaluation()
    assert found["weights"] == "student"
    told = found["provenance"]
    assert (told["unlabelled"], told["space"], told["regime"]) == (0, None, None)
    assert told["command"] != "vicinal"  # the process's own


def test_figures_are_those_of_the_saved_networks(tmp_path: Path) -> None:
    run = fit(described(), tmp_path / "run", progress=False)
    data = load(run.experiment.data)
    assert isinstance(data.test, Examples)
    assert isinstance(data.test.x, Tensor)
    found = run.evaluation()["test"]["error"]["last"]
    wrong = (run.network("last").network(data.test.x).argmax(1) != data.test.y).sum()
    assert found == int(wrong) / len(data.test)


def test_the_selected_network_is_that_of_the_lowest_validation_error(tmp_path: Path) -> None:
    import csv

    run = fit(described(training={"steps": 20, "learning_rate": 0.3}), tmp_path / "run", progress=False)
    with run.metrics_file.open(newline="") as file:
        errors = {
            int(row["step"]): float(row["validation_error"]) for row in csv.DictReader(file) if row["validation_error"]
        }
    found = run.evaluation()
    at_end = found["validation"]["error"]["last"]
    step = min(errors, key=lambda step: (errors[step], step))
    if at_end < errors[step] - 1e-6:
        step = 20  # the end, which is no validation's step
    assert found["steps"]["best_validation"] == step
    assert found["validation"]["error"]["best_validation"] == pytest.approx(min(at_end, *errors.values()), abs=1e-6)


def poisoned(dataset: Dataset, *, test: bool, hidden: Tensor | None) -> Dataset:
    """Every test label wrong, or every training label that nobody may read."""
    if test:
        assert dataset.test is not None
        return dataclasses.replace(dataset, test=Examples(dataset.test.x, (dataset.test.y + 1) % 10))
    y = dataset.train.y.clone()
    y[hidden] = -1
    return dataclasses.replace(dataset, train=Examples(dataset.train.x, y))


@pytest.mark.parametrize("method", ["supervised", "advmixup", "vat"])
@pytest.mark.parametrize("part", ["test", "unlabelled", "labelled"])
def test_labels_that_must_not_be_read_are_not(
    method: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong test labels change the test figures and nothing else; hidden training labels change nothing at all."""
    clean = load(described(method).data)
    rows = make_split(clean, described(method).split, 4)
    one = fit(described(method), tmp_path / "clean", progress=False)
    hidden = torch.ones(len(clean.train), dtype=torch.bool)
    hidden[rows.labelled] = hidden[rows.validation] = False
    if part == "labelled":  # the control: those are read
        hidden = torch.zeros_like(hidden)
        hidden[rows.labelled[:25]] = True
    monkeypatch.setattr(assembling, "make_split", lambda *_: rows)
    monkeypatch.setattr(assembling, "load", lambda _: poisoned(clean, test=part == "test", hidden=hidden))
    if part == "labelled":
        with pytest.raises((InputError, IndexError)):
            fit(described(method), tmp_path / "poisoned", progress=False)
        return
    other = fit(described(method), tmp_path / "poisoned", progress=False)
    for which in ("last", "best_validation"):
        weights, wanted = other.checkpoint(which)["state_dict"], one.checkpoint(which)["state_dict"]  # type: ignore[arg-type]
        assert all(torch.equal(value, weights[key]) for key, value in wanted.items() if isinstance(value, Tensor))
    found, before = other.evaluation(), one.evaluation()
    assert found["steps"] == before["steps"]
    assert found["validation"] == before["validation"]
    assert (found["test"] == before["test"]) is (part == "unlabelled")


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"augment": {"crop": 1}, "data": "two_moons"}, "augment: crops and flips are for images"),
        ({"labels": 5000}, "labels: 5000 asked for"),
        ({"training": {"learning_rate": 1e30}}, "training: the loss is not finite"),
    ],
)
def test_a_run_that_fails_at_once_leaves_nothing(
    values: dict[str, Any], words: str, existed: bool, tmp_path: Path
) -> None:
    if existed:
        (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match=words):
        fit(described("supervised", **values), tmp_path / "run", progress=False)
    assert (tmp_path / "run").exists() is existed
    assert not [item for item in tmp_path.rglob("*") if item.name not in ("run", ".lock")]


def test_a_run_that_fails_later_can_be_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = described(training={"checkpoint_every": 4})
    whole = fit(experiment, tmp_path / "whole", progress=False)
    from vicinal.training.module import VicinalModule

    step = VicinalModule.training_step

    def failing(self: VicinalModule, batch: Any, index: int) -> Tensor:
        if batch.step == 6:
            raise OSError("the disk went away")
        return step(self, batch, index)

    monkeypatch.setattr(VicinalModule, "training_step", failing)
    with pytest.raises(OSError, match="the disk went away"):
        fit(experiment, tmp_path / "run", progress=False)
    monkeypatch.undo()
    run = Run(tmp_path / "run")
    assert run.checkpoint("last")["global_step"] == 4
    assert finish(experiment, run.path).is_finished
    assert run.evaluation()["test"] == whole.evaluation()["test"]


def test_finish_leaves_a_finished_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finish(described("supervised"), tmp_path / "run")
    before = run.evaluation_file.stat().st_mtime_ns
    monkeypatch.setattr(fitting, "Assembled", None)
    finish(described("supervised"), tmp_path / "run")
    assert run.evaluation_file.stat().st_mtime_ns == before


def test_the_same_experiment_starts_from_the_same_network_and_the_teacher_may_start_elsewhere() -> None:
    parts = Assembled(described())
    assert torch.equal(parts.network().head.weight, parts.network().head.weight)
    assert not torch.equal(parts.network().head.weight, parts.network("elsewhere").head.weight)
    independent = Assembled(described(teacher={"init": "independent"})).module()
    assert independent.teacher is not None
    assert not torch.equal(independent.teacher.network.head.weight, independent.student.head.weight)  # type: ignore[union-attr]


def test_threads_are_those_asked_for_and_as_before_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    evaluate = fitting.evaluate
    monkeypatch.setattr(fitting, "evaluate", lambda *a, **k: [seen.append(torch.get_num_threads()), evaluate(*a, **k)])
    fit(described(training={"threads": 2}), tmp_path / "run", progress=False)
    assert seen == [2]
    assert torch.get_num_threads() == 1
