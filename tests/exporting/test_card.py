"""The model card says what the run's directory says, and no more."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from vicinal.experiment import Experiment
from vicinal.exporting import export
from vicinal.exporting.card import wilson
from vicinal.fitting import fit
from vicinal.runs import Run


def card(run: Run, folder: Path, **options: Any) -> str:
    export(run, "hub-folder", folder, **options)
    return (folder / "README.md").read_text(encoding="utf-8")


def parts(text: str) -> tuple[dict[str, Any], str]:
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


@pytest.mark.parametrize("which", ["last", "best_validation"])
def test_figures_are_those_of_the_evaluation(image_run: Run, tmp_path: Path, which: Any) -> None:
    header, body = parts(card(image_run, tmp_path / "model", which=which))
    values = image_run.evaluation()
    results = {item["dataset"]["split"]: item["metrics"][0] for item in header["model-index"][0]["results"]}
    for part in ("test", "validation"):
        error, n = values[part]["error"][which], values[part]["n"]
        assert results[part]["value"] == pytest.approx(1 - error, abs=1e-6)
        assert f"{part}, n = {n}" in body
        low, high = wilson(round(error * n), n)
        assert f"{100 * error:.2f} ({100 * low:.1f} to {100 * high:.1f})" in body
        assert f"{values[part]['nll'][which]:.3f}" in body
    assert "One training run, one seed" in body
    assert "no measurement of robustness" in body


def test_provenance_is_complete_enough_to_train_again(image_run: Run, tmp_path: Path) -> None:
    header, body = parts(card(image_run, tmp_path / "model"))
    block = re.search(r"```yaml\n(.*?)```", body, re.DOTALL)
    assert block is not None
    assert Experiment.of(yaml.safe_load(block.group(1))) == image_run.experiment
    about = image_run.evaluation()["provenance"]
    for value in (about["split"], about["data"]["content"], about["version"], about["method"], about["parameters"]):
        assert str(value) in body
    assert header["library_name"] == "vicinal"
    assert header["pipeline_tag"] == "image-classification"
    assert "license" not in header, "whose data it is, and what may be done with them, is not known here"


def test_its_code_runs(any_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", card(any_run, tmp_path / "this-folder"), re.DOTALL)
    assert code is not None
    exec(code.group(1), {})
    printed = capsys.readouterr().out
    assert any(name in printed for name in any_run.network().classes)


def test_a_folder_is_named_without_the_way_to_it(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
    folder = tmp_path / "somebody's own" / "birds"
    for k, name in enumerate(("crow", "wren") * 3):
        (folder / name).mkdir(parents=True, exist_ok=True)
        image.new("L", (8, 8), 40 * k).save(folder / name / f"{k}.png")
    experiment = Experiment.of(
        data=str(folder),
        method="supervised",
        network={"name": "mlp", "hidden": [4]},
        split={"validation": 0},
        training={"steps": 2, "device": "cpu", "threads": 1, "batch_labelled": 4},
    )
    run = fit(experiment, tmp_path / "run", progress=False)
    header, body = parts(card(run, tmp_path / "model"))
    assert "birds" in body
    assert "somebody" not in body
    assert str(tmp_path) not in (tmp_path / "model" / "config.json").read_text(encoding="utf-8")
    assert "Nothing was measured" in body
    assert "its error on new examples was not measured" in body
    assert "model-index" not in header
    assert "not calibrated: the run has no validation part" in body


def test_data_that_are_gone_leave_no_path(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
    folder = tmp_path / "somebody's own" / "birds"
    for k in range(12):
        (folder / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        image.new("L", (8, 8), 20 * k).save(folder / "ab"[k % 2] / f"{k}.png")
    experiment = Experiment.of(
        data=str(folder),
        method="supervised",
        network={"name": "mlp", "hidden": [4]},
        split={"validation": 4},
        training={"steps": 2, "device": "cpu", "threads": 1, "batch_labelled": 4},
    )
    run = fit(experiment, tmp_path / "run", progress=False)
    shutil.rmtree(folder)
    text = card(run, tmp_path / "model")
    assert text.startswith("---\n")
    assert "# birds: supervised" in text
    assert "somebody" not in text
    assert str(tmp_path) not in text
    assert "not calibrated: the validation examples were not there when the model was exported." in text


def test_figures_of_other_weights_would_be_seen(image_run: Run, tmp_path: Path) -> None:
    """The control: a card whose evaluation was changed says something else."""
    other = Run(tmp_path / "run")
    shutil.copytree(image_run.path, other.path)
    values = other.evaluation()
    values["test"]["error"]["last"] = 0.123456
    other.evaluation_file.write_text(json.dumps(values), encoding="utf-8")
    assert "12.35 (" in card(other, tmp_path / "changed")
    assert "12.35 (" not in card(image_run, tmp_path / "model")


@pytest.mark.parametrize(("wrong", "n"), [(0, 10), (10, 10), (3, 30), (300, 3000)])
def test_wilson_s_interval_holds_the_share_and_solves_its_equation(wrong: int, n: int) -> None:
    low, high = wilson(wrong, n)
    assert 0 <= low <= wrong / n <= high <= 1
    for bound in (low, high):
        if 0 < bound < 1:
            assert (wrong / n - bound) ** 2 == pytest.approx(1.959964**2 * bound * (1 - bound) / n, rel=1e-9)
