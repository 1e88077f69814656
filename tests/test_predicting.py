"""Labelling new examples: the labels are the network's, whatever the batches, the class names and the size."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vicinal import predicting
from vicinal.assembling import Assembled
from vicinal.data import as_float, load
from vicinal.errors import InputError
from vicinal.evaluation import fit_temperature
from vicinal.experiment import Experiment
from vicinal.fitting import fit
from vicinal.predicting import predict
from vicinal.runs import Run
from vicinal.settings import Choice

TINY = {"steps": 30, "learning_rate": 0.05, "validate_every": 10, "device": "cpu", "threads": 1}


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained on 12x10 pictures, resized to 6x6: dark ones are "nacht", bright ones "tag, hell"."""
    image: Any = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
    root = tmp_path_factory.mktemp("coloured")
    draws = np.random.default_rng(0)
    for name, level in {"nacht": 40, "tag, hell": 200}.items():
        (root / "pictures" / name).mkdir(parents=True)
        for i in range(12):
            pixels = np.clip(level + draws.normal(0, 10, (10, 12, 3)), 0, 255).astype(np.uint8)
            image.fromarray(pixels).save(root / "pictures" / name / f"{i:02d}.png")
    experiment = Experiment.of(
        data={"name": str(root / "pictures"), "size": 6},
        method="supervised",
        network={"name": "mlp", "hidden": [8]},
        split={"validation": 4},
        training=TINY,
    )
    return fit(experiment, root / "run", progress=False)


def test_pictures_get_their_class_names_and_the_size_of_training(coloured: Run, tmp_path: Path) -> None:
    folder = Path(coloured.experiment.data.name)
    found = rows(predict(coloured, folder).csv)
    assert [row["name"] for row in found] == sorted(
        f"{c}/{i:02d}.png" for c in ("nacht", "tag, hell") for i in range(12)
    )
    assert all(row["label"] == row["name"].split("/")[0] for row in found), "it learnt to tell day from night"
    assert all(0.5 < float(row["probability"]) <= 1 for row in found)


def test_labels_are_the_argmax_of_the_network_whatever_the_batch(
    coloured: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(1).integers(0, 256, (23, 6, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "new.npz", x=x)
    whole = predict(coloured, tmp_path / "new.npz").csv
    trained = coloured.network()
    with torch.no_grad():
        best = trained.network(as_float(torch.from_numpy(x).permute(0, 3, 1, 2))).softmax(dim=1).max(dim=1)
    assert [row["label"] for row in rows(whole)] == [trained.classes[c] for c in best.indices.tolist()]
    assert [float(row["probability"]) for row in rows(whole)] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert len({row["label"] for row in rows(whole)}) == 2, "otherwise any order of the labels would pass"
    monkeypatch.setattr(predicting, "BATCH", 7)
    assert [row["label"] for row in rows(predict(coloured, tmp_path / "new.npz").csv)] == [
        row["label"] for row in rows(whole)
    ]


def test_the_checkpoint_that_is_asked_for(tmp_path: Path) -> None:
    experiment = Experiment.of(
        data="digits",
        method="supervised",
        labels=50,
        recipe="none",
        network={"name": "mlp", "hidden": [8]},
        training=TINY,
    )
    run = fit(experiment, tmp_path / "run", progress=False)
    content = torch.load(run.best, weights_only=True)
    for name, value in content["state_dict"].items():
        if isinstance(value, torch.Tensor) and "preprocess" not in name:
            value.zero_()
    torch.save(content, run.best)
    test = load(Choice("digits")).test
    assert test is not None
    np.savez(tmp_path / "new.npz", x=test.x[torch.arange(50)].numpy())
    last, best = (rows(predict(run, tmp_path / "new.npz", which=which).csv) for which in ("last", "best_validation"))
    assert {row["probability"] for row in best} == {"0.100000"}
    assert {row["label"] for row in best} == {"0"}
    assert len({row["label"] for row in last}) > 3


def test_predicting_changes_nothing_in_the_run_and_keeps_the_temperature(coloured: Run) -> None:
    before = {path: path.read_bytes() for path in coloured.path.rglob("*") if path.is_file()}
    predict(coloured, coloured.experiment.data.name)
    after = {path: path.read_bytes() for path in coloured.path.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before
    assert {path.parent.name for path in after.keys() - before.keys()} <= {"measures"}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Overconfident: a small network that knows its 50 labels by heart."""
    experiment = Experiment.of(
        data="digits",
        method="supervised",
        labels=50,
        recipe="none",
        network={"name": "mlp", "hidden": [32]},
        training={**TINY, "steps": 100, "learning_rate": 0.3},
    )
    return fit(experiment, tmp_path_factory.mktemp("digits") / "run", progress=False)


@pytest.fixture
def new_digits(tmp_path: Path) -> tuple[Path, torch.Tensor, torch.Tensor]:
    """A file of test digits, their pixels and classes."""
    test = load(Choice("digits")).test
    assert test is not None
    x = test.x[torch.arange(len(test))]
    np.savez(tmp_path / "new.npz", x=x.numpy())
    return tmp_path / "new.npz", as_float(x), test.y


def test_confidences_are_those_of_the_temperature_of_the_validation_part(
    digits: Run, new_digits: tuple[Path, torch.Tensor, torch.Tensor]
) -> None:
    path, x, y = new_digits
    parts, network = Assembled(digits.experiment), digits.network().network
    held = parts.split.validation_examples(parts.dataset)
    assert held is not None
    with torch.no_grad():
        chosen = fit_temperature(network(as_float(held.x[torch.arange(len(held))])), held.y)
        logits = network(x).double()
    found = predict(digits, path)
    assert found.calibration.temperature == pytest.approx(chosen.value, rel=1e-6)
    assert (found.calibration.n, found.calibration.why_not) == (120, None)
    assert f"{chosen.value:.3g}" in str(found.calibration)
    sure = (logits / chosen.value).softmax(dim=1).amax(dim=1)
    assert [float(row["confidence"]) for row in rows(found.csv)] == pytest.approx(sure.tolist(), abs=2e-6)
    assert [float(row["probability"]) for row in rows(found.csv)] == pytest.approx(
        logits.softmax(dim=1).amax(dim=1).tolist(), abs=2e-6
    )
    # What it is for: on digits that chose nothing, the likelihood is better.
    assert F.cross_entropy(logits / chosen.value, y) < F.cross_entropy(logits, y)


def test_the_temperature_is_fitted_once(
    digits: Run,
    new_digits: tuple[Path, torch.Tensor, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = predict(digits, new_digits[0])

    def gone(choice: Any) -> None:
        raise InputError("data: gone")

    monkeypatch.setattr(predicting, "load", gone)
    assert predict(digits, new_digits[0]) == first
    # The control: other weights, for which nothing was kept, are not calibrated with the old ones' temperature.
    other = Run(tmp_path / "other")
    shutil.copytree(digits.path, other.path)
    content = torch.load(other.last, weights_only=True)
    for name, value in content["state_dict"].items():
        if name.endswith("head.weight"):
            value.mul_(2)
    torch.save(content, other.last)
    found = predict(other, new_digits[0])
    assert found.calibration.why_not == "data: gone"
    assert {row["confidence"] for row in rows(found.csv)} == {""}


def test_confidences_stay_empty_where_nothing_can_be_chosen(
    coloured: Run, digits: Run, new_digits: tuple[Path, torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    found = predict(coloured, coloured.experiment.data.name)
    assert str(found.calibration) == (
        "not calibrated: all 4 validation examples are right, which sets no limit to confidence"
    )
    assert {row["confidence"] for row in rows(found.csv)} == {""}
    other = Run(tmp_path / "other")
    shutil.copytree(digits.path, other.path)
    shutil.rmtree(other.path / "measures")
    values = json.loads(other.evaluation_file.read_text(encoding="utf-8"))
    values["provenance"]["data"]["content"] = "another"
    other.evaluation_file.write_text(json.dumps(values), encoding="utf-8")
    why_not = predict(other, new_digits[0]).calibration.why_not
    assert why_not is not None
    assert "the data (digits) have changed since the run was trained" in why_not


def test_a_run_without_validation_part_is_not_calibrated(tmp_path: Path) -> None:
    experiment = Experiment.of(
        data="digits",
        method="supervised",
        labels=50,
        recipe="none",
        network={"name": "mlp", "hidden": [8]},
        split={"validation": 0},
        training={**TINY, "steps": 2},
    )
    run = fit(experiment, tmp_path / "run", progress=False)
    np.savez(tmp_path / "new.npz", x=np.zeros((2, 1, 8, 8), dtype=np.uint8))
    assert str(predict(run, tmp_path / "new.npz").calibration) == "not calibrated: the run has no validation part"


def test_a_directory_that_is_read_only_is_calibrated_each_time(
    digits: Run, new_digits: tuple[Path, torch.Tensor, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Run(tmp_path / "other")
    shutil.copytree(digits.path, other.path, ignore=shutil.ignore_patterns("measures"))

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(predicting, "store", refuse)
    assert predict(other, new_digits[0]).calibration.temperature is not None
    assert not (other.path / "measures").exists()


def test_damaged_images_are_skipped_only_if_asked(coloured: Run, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    shutil.copytree(coloured.experiment.data.name, folder)
    whole = rows(predict(coloured, folder).csv)
    (folder / "nacht" / "00.png").write_bytes(b"")
    (folder / "nacht" / "03.png").write_bytes((folder / "nacht" / "03.png").read_bytes()[:60])
    (folder / "tag, hell" / "text.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"00\.png: an empty file"):
        predict(coloured, folder)
    found = predict(coloured, folder, skip_damaged=True)
    left_out = ["nacht/00.png", "nacht/03.png", "tag, hell/text.jpg"]
    assert list(found.damaged) == left_out
    assert [message.partition(str(folder))[2] != "" for message in found.damaged.values()] == [True] * 3
    assert rows(found.csv) == [row for row in whole if row["name"] not in left_out]
    for path in folder.rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="no image in it can be read; the first: "):
        predict(coloured, folder, skip_damaged=True)
