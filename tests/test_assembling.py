"""Runs that start from pretrained weights: they begin with them, say so, and need the file no more once trained."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vicinal import VicinalClassifier
from vicinal.assembling import Assembled
from vicinal.errors import InputError
from vicinal.evaluating import evaluate
from vicinal.experiment import Experiment, all_settings
from vicinal.exporting import export, load
from vicinal.fitting import fit
from vicinal.networks import mlp
from vicinal.runs import Run

torch.set_num_threads(1)


def described(network: Any = None, **more: Any) -> Experiment:
    training = {"steps": 4, "batch_labelled": 5, "threads": 1, "device": "cpu", "checkpoint_every": 2}
    values = {"data": "two_moons", "labels": 10, "recipe": "none", "method": "supervised", "training": training}
    return Experiment.of({**values, "network": {"name": "mlp", "hidden": [4, 4], **(network or {})}, **more})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        state = mlp((2,), 3, hidden=[4, 4]).state_dict()
    path = tmp_path_factory.mktemp("weights") / "mlp.safetensors"
    save_file({name: value for name, value in state.items() if not name.startswith("preprocess.")}, path)
    return path


@pytest.fixture(scope="module")
def finished(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run whose weights' file is gone."""
    content = weights.read_bytes()
    run = fit(described({"weights": str(weights)}), tmp_path_factory.mktemp("runs") / "run", progress=False)
    weights.unlink()
    yield run.path
    weights.write_bytes(content)


def test_what_is_not_given_leaves_the_key_alone(weights: Path) -> None:
    plain = described()
    assert "weights" not in plain.network.settings
    assert described({"weights": None}) == described({"weights": "none"}) == plain
    given = described({"weights": str(weights)})
    assert given.key != plain.key
    assert given.network.settings["weights"] == str(weights)
    assert Experiment.of(given.as_dict()) == given
    own = {"data": "two_moons", "method": "supervised", "recipe": "none"}
    own_path = Experiment.of(own, network={"name": "torch.nn:Linear", "weights": weights, "bias": True})
    assert own_path.network.settings == {"weights": str(weights), "bias": True}
    assert "weights" in all_settings()["network"]
    with pytest.raises(InputError, match=r"network\.weihgts: mlp has no such setting; did you mean 'weights'"):
        described({"weihgts": "a.pth"})


@pytest.mark.parametrize("teacher", ["student", "independent"])
def test_training_starts_from_the_file(weights: Path, teacher: str, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = described({"weights": str(weights)}, method="mean_teacher", teacher={"init": teacher})
    state, module = load_file(weights), Assembled(experiment).module()
    for network in (module.student, module.teacher.network):
        assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items() if "head" not in key)
    assert module.student.classes == 2
    plain = Assembled(described()).module()
    assert torch.equal(module.student.head.weight, plain.student.head.weight)  # the head is drawn as ever
    assert not torch.equal(module.student.body[1].weight, plain.student.body[1].weight)
    assert capsys.readouterr() == ("", "")


def test_a_run_says_what_it_started_from(finished: Path) -> None:
    start = Run(finished).evaluation()["provenance"]["start"]
    assert start["path"].endswith("mlp.safetensors")
    assert (start["loaded"], start["tensors"]) == (4, 6)
    assert start["resized"] == ["head.weight 2x4 instead of 3x4", "head.bias 2 instead of 3"]


def test_a_trained_run_needs_the_file_no_more(finished: Path, tmp_path: Path) -> None:
    run = Run.open(finished)
    before = run.evaluation()["provenance"]["start"]
    assert not Path(before["path"]).exists()
    assert evaluate(run)["provenance"]["start"] == before
    export(run, "hub-folder", tmp_path / "model")
    assert "weights" not in json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))["network"]
    x = torch.randn(5, 2)
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "model").network(x), run.network().network(x))
    with pytest.raises(InputError, match="no such file"):  # the control: a new run does
        fit(run.experiment, tmp_path / "new", progress=False)
    assert not (tmp_path / "new").exists()


def test_a_resumed_run_needs_the_file_no_more_and_keeps_its_record(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resumed(name: str) -> Run:
        longer = Run(tmp_path / name)
        (longer.path / "checkpoints").mkdir(parents=True)
        values = Run(finished).experiment.as_dict()
        values["training"]["steps"] = 6
        experiment = Experiment.of(values)
        longer.experiment_file.write_text(experiment.to_yaml(), encoding="utf-8")
        for file in ("split.json", "metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
            (longer.path / file).write_bytes((finished / file).read_bytes())
        return fit(experiment, longer.path, resume=True, progress=False)

    assert resumed("kept").evaluation()["provenance"]["start"] == Run(finished).evaluation()["provenance"]["start"]
    monkeypatch.setattr("vicinal.training.module.VicinalModule.on_load_checkpoint", lambda *_: None)
    assert "start" not in resumed("forgotten").evaluation()["provenance"]  # the control


def test_the_line_is_told_where_progress_is(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], finished: Path
) -> None:
    save_file(mlp((2,), 2, hidden=[4, 4]).state_dict(), weights)
    try:
        fit(described({"weights": str(weights)}), tmp_path / "run", progress=True)
    finally:
        weights.unlink()
    assert f"vicinal: network starts from {weights} (6 of 6 tensors)\n" in capsys.readouterr().err


def test_the_estimator_starts_from_a_file_and_is_unpickled_without(tmp_path: Path) -> None:
    path = tmp_path / "mlp.pth"
    torch.save(mlp((2,), 3, hidden=[4, 4]).state_dict(), path)
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).numpy()
    y = (x[:, 0] > 0).astype(int)
    network = {"name": "mlp", "hidden": [4, 4], "norm": "none", "weights": str(path)}
    model = VicinalClassifier(
        method="supervised", network=network, random_state=0, experiment={"training": {"steps": 3}}
    ).fit(x, y)
    path.unlink()
    again = pickle.loads(pickle.dumps(model))
    assert (again.predict_proba(x) == model.predict_proba(x)).all()


def test_a_model_of_transformers_from_folder_to_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_experiment: Callable[..., Experiment]
) -> None:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "vit"
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        patch_size=4,
        image_size=8,
    )
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    run = fit(image_experiment(f"hf:{folder}"), tmp_path / "run", progress=False)
    start = run.evaluation()["provenance"]["start"]
    content = (folder / "model.safetensors").read_bytes()
    assert start["digest"] == hashlib.blake2b(content, digest_size=16).hexdigest()
    assert [name.partition(" ")[0] for name in start["resized"]] == ["classifier.bias", "classifier.weight"]
    (folder / "config.json").rename(folder / "gone.json")
    assert evaluate(run)["test"]["error"] == run.evaluation()["test"]["error"]
    made = export(run, "hub-folder", tmp_path / "model")
    assert "differ" in made.check


@pytest.fixture
def image_experiment() -> Callable[..., Experiment]:
    def make(network: str) -> Experiment:
        training = {"steps": 2, "batch_labelled": 10, "threads": 1, "device": "cpu"}
        values = {"data": "digits", "labels": 20, "recipe": "none", "method": "supervised", "training": training}
        return Experiment.of(values, network=network)

    return make
