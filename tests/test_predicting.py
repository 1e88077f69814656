"""Labelling new examples: the labels are the network's, whatever the batches, the class names and the size."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vicinal import predicting
from vicinal.data import as_float, load
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
    found = rows(predict(coloured, folder))
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
    whole = predict(coloured, tmp_path / "new.npz")
    trained = coloured.network()
    with torch.no_grad():
        best = trained.network(as_float(torch.from_numpy(x).permute(0, 3, 1, 2))).softmax(dim=1).max(dim=1)
    assert [row["label"] for row in rows(whole)] == [trained.classes[c] for c in best.indices.tolist()]
    assert [float(row["probability"]) for row in rows(whole)] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert len({row["label"] for row in rows(whole)}) == 2, "otherwise any order of the labels would pass"
    monkeypatch.setattr(predicting, "BATCH", 7)
    assert [row["label"] for row in rows(predict(coloured, tmp_path / "new.npz"))] == [
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
    last, best = (rows(predict(run, tmp_path / "new.npz", which=which)) for which in ("last", "best_validation"))
    assert {row["probability"] for row in best} == {"0.100000"}
    assert {row["label"] for row in best} == {"0"}
    assert len({row["label"] for row in last}) > 3


def test_predicting_changes_nothing_in_the_run(coloured: Run) -> None:
    before = {path: path.read_bytes() for path in coloured.path.rglob("*") if path.is_file()}
    predict(coloured, coloured.experiment.data.name)
    assert {path: path.read_bytes() for path in coloured.path.rglob("*") if path.is_file()} == before
