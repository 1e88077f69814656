"""Whose weights count: the average's once it has a snapshot, else the teacher's, else the student's."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vicinal.assembling import Assembled
from vicinal.experiment import Experiment
from vicinal.fitting import fit
from vicinal.runs import evaluated_weights

torch.set_num_threads(1)


def under(state: dict[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The part of a checkpoint's state below a prefix."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def test_whose_weights_count_in_a_checkpoint() -> None:
    student, teacher = {"student.a": 1}, {"teacher.network.a": 1, "teacher._extra_state": {"updates": 0}}
    before, after = ({"average.network.a": 1, "average._extra_state": {"updates": n}} for n in (0, 1))
    assert evaluated_weights(student) == ("student", "student")
    assert evaluated_weights(student | teacher) == ("teacher", "teacher.network")
    assert evaluated_weights(student | before) == ("student", "student")
    assert evaluated_weights(student | teacher | before) == ("teacher", "teacher.network")
    assert evaluated_weights(student | teacher | after) == evaluated_weights(student | after)
    assert evaluated_weights(student | after) == ("average", "average.network")


@pytest.mark.parametrize("averaging", [{"kind": "ema", "warm_up": False}, {"kind": "swa", "start": 0.6, "refresh": 3}])
def test_an_average_is_what_is_evaluated_and_kept(averaging: dict[str, Any], tmp_path: Path) -> None:
    """Its error, its weights in the file; before the first snapshot (a validation at 2, of 4) those of the teacher."""
    training = {"steps": 6, "batch_labelled": 5, "threads": 1, "device": "cpu", "checkpoint_every": 2}
    training |= {"validate_every": 2, "learning_rate": 0.5}
    experiment = Experiment.of(
        data="two_moons", recipe="none", method="mean_teacher", averaging=averaging, training=training,
        split={"labels": 10, "validation": 40}, network={"name": "mlp", "hidden": [4], "norm": "batch"},
    )  # fmt: skip
    run = fit(experiment, tmp_path / "run", progress=False)
    values, state = run.evaluation(), run.checkpoint("last")["state_dict"]
    assert values["weights"] == "average"
    saved, average = load_file(run.model_file), under(state, "average.network.")
    assert saved.keys() == average.keys()
    assert all(torch.equal(saved[name], average[name]) for name in average)
    for other in ("student.", "teacher.network."):
        assert not torch.equal(saved["head.weight"], under(state, other)["head.weight"])
    parts = Assembled(experiment)
    examples = parts.split.validation_examples(parts.dataset)
    network = parts.network()
    errors = {}
    for name in ("student.", "teacher.network.", "average.network."):
        network.load_state_dict(under(state, name))
        errors[name] = float((network.eval()(examples.x).argmax(dim=1) != examples.y).double().mean())
    assert values["validation"]["error"]["last"] == pytest.approx(errors["average.network."])
    assert torch.equal(run.network().network.head.weight, average["head.weight"])
    rows = list(csv.DictReader(run.metrics_file.read_text().splitlines()))
    measured = [row for row in rows if row["validation_error"]]
    first, last = measured[0], measured[-1]
    assert float(last["validation_error"]) == pytest.approx(float(last["validation_error_average"]))
    assert (first["validation_error_average"] == "") is (averaging["kind"] == "swa")
    if averaging["kind"] == "swa":
        assert first["validation_error"] == first["validation_error_teacher"]


def test_without_an_average_it_is_the_teacher_or_the_student(tmp_path: Path) -> None:
    training = {"steps": 2, "batch_labelled": 5, "batch_unlabelled": 5, "threads": 1, "device": "cpu"}
    for method, name in (("mean_teacher", "teacher"), ("supervised", "student")):
        experiment = Experiment.of(data="two_moons", recipe="none", method=method, training=training, labels=10)
        assert fit(experiment, tmp_path / name, progress=False).evaluation()["weights"] == name
