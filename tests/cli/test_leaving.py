"""Export and suggest on the command line, and damaged images: what is written, and what is said."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vicinal.data import as_float, load
from vicinal.exporting import load as load_exported
from vicinal.reporting import contact_sheet
from vicinal.runs import Run
from vicinal.settings import Choice


@pytest.mark.parametrize("form", ["torch-export", "safetensors", "hub-folder"])
def test_export_writes_what_it_says(finished: Path, tmp_path: Path, cli: Any, form: str) -> None:
    target = tmp_path / "meine Größe"
    answer = cli("export", finished, "--format", form, "--output", target, "--checkpoint", "best_validation")
    assert answer.code == 0, answer.err
    written = sorted(target.iterdir()) if form == "hub-folder" else [target]
    assert [line.rsplit("  ", 1)[0] for line in answer.out.splitlines()] == [str(path) for path in written]
    assert "differ from the run's by at most" in answer.err
    if form != "torch-export":
        assert load_exported(target).step == Run(finished).network("best_validation").step


def test_export_to_onnx(finished: Path, tmp_path: Path, cli: Any) -> None:
    for module in ("onnx", "onnxscript"):
        pytest.importorskip(module, reason="the extra 'export' is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
    answer = cli("export", finished, "--format", "onnx", "--output", tmp_path / "model.onnx")
    assert answer.code == 0, answer.err
    assert len(answer.err.splitlines()) == 1, "exporters talk about themselves; nobody asked"
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    test = load(Choice("digits")).test
    assert test is not None
    x = as_float(test.x[torch.arange(9)])
    with torch.no_grad():
        expected = Run(finished).network().network(x).numpy()
    assert np.abs(session.run(["logits"], {"images": x.numpy()})[0] - expected).max() < 1e-4


def test_suggest_writes_a_list_and_a_sheet(finished: Path, tmp_path: Path, cli: Any) -> None:
    image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
    answer = cli("suggest", finished, "-n", 12, "--output", tmp_path / "next.csv")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        f"12 of 1030 examples without label: {tmp_path / 'next.csv'}",
        f"contact sheet: {tmp_path / 'next.png'}",
    ]
    with (tmp_path / "next.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["name"] for row in rows}) == 12
    with image.open(tmp_path / "next.png") as sheet:
        assert sheet.size[1] > 2 * contact_sheet.SIDE, "two rows"
    other = cli("suggest", finished, "-n", 12, "--by", "entropy", "--output", tmp_path / "other.csv")
    assert other.code == 0
    assert (tmp_path / "other.csv").read_text(encoding="utf-8") != (tmp_path / "next.csv").read_text(encoding="utf-8")


def test_suggestions_lie_in_the_run_by_default(finished: Path, tmp_path: Path, cli: Any) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    assert cli("suggest", run, "-n", 2).code == 0
    assert len((run / "suggestions.csv").read_text(encoding="utf-8").splitlines()) == 3
    assert (run / "suggestions.png").exists()


def test_suggest_replaces_its_own_files_alone(finished: Path, tmp_path: Path, cli: Any) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for _ in range(2):
        assert cli("suggest", run, "-n", 2).code == 0, "those in the run are replaced"
    np.savez(tmp_path / "new.npz", x=np.random.default_rng(0).random((9, 1, 8, 8)))
    (tmp_path / "notes.csv").write_text("name,label\n", encoding="utf-8")
    (tmp_path / "holiday.png").write_bytes(b"a picture")
    (run / "contact-sheet.png").write_bytes(b"of the data")
    for output, named in (
        (tmp_path / "notes.csv", "notes.csv"),
        (tmp_path / "holiday.csv", "holiday.png"),
        (run / "contact-sheet.csv", "contact-sheet.png"),
        (run / "metrics.csv", "metrics.csv"),
    ):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        answer = cli("suggest", run, "-n", 2, "--input", tmp_path / "new.npz", "--output", output)
        assert (answer.code, answer.out) == (2, "")
        assert f"{named}: exists already, and nothing says that it may be replaced" in answer.err
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert cli("suggest", run, "-n", 2, "--output", tmp_path / "a.csv").code == 0
    (tmp_path / "a.png").unlink(missing_ok=True)
    assert cli("suggest", run, "-n", 2, "--output", tmp_path / "a.csv").code == 0, "a list of ours"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """New images, two of them damaged."""
    image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
    made = tmp_path / "new images"
    made.mkdir()
    for k in range(5):
        image.fromarray(np.full((8, 8), 50 * k, dtype=np.uint8)).save(made / f"é {k}.png")
    (made / "é 1.png").write_bytes(b"")
    (made / "é 3.png").write_bytes((made / "é 3.png").read_bytes()[:40])
    return made


@pytest.mark.parametrize("words", [("predict",), ("suggest", "-n", "9", "-o", "list.csv")], ids=["predict", "suggest"])
def test_damaged_images_are_refused_or_listed_and_skipped(
    finished: Path, folder: Path, cli: Any, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(folder.parent)
    name, *rest = words
    given = [name, finished, *([folder] if name == "predict" else ["--input", folder]), *rest]
    refused = cli(*given)
    assert (refused.code, refused.out) == (2, "")
    assert len(refused.err.splitlines()) == 1
    assert "é 1.png: an empty file, 0 bytes" in refused.err
    answer = cli(*given, "--skip-damaged")
    assert answer.code == 0, answer.err
    skipped = [line for line in answer.err.splitlines() if line.startswith("skipped")]
    assert len(skipped) == 3
    assert "é 1.png" in skipped[0]
    assert "é 3.png" in skipped[1]
    assert skipped[2] == "skipped 2 damaged images"
    text = answer.out if name == "predict" else Path("list.csv").read_text(encoding="utf-8")
    assert sorted(row["name"] for row in csv.DictReader(text.splitlines())) == ["é 0.png", "é 2.png", "é 4.png"]


def test_predict_says_what_its_confidence_is(finished: Path, tmp_path: Path, cli: Any) -> None:
    np.savez(tmp_path / "new.npz", x=np.zeros((2, 1, 8, 8), dtype=np.uint8))
    run = tmp_path / "run"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("measures"))
    answer = cli("predict", run, tmp_path / "new.npz")
    assert answer.out.splitlines()[0] == "name,label,probability,confidence"
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in (run / "measures").glob("temperature-*.json")]
    assert len(kept) == 1
    temperature = kept[0]["figures"]["temperature"]
    assert f"logits / {temperature:.3g}" in answer.err if temperature else "not calibrated" in answer.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("predict", "INPUT", "-o", "é 0.png"), "é 0.png"),
        (("predict", "INPUT", "-o", "labels.csv"), "labels.csv"),
        (("suggest", "--input", "INPUT", "-o", "é 0.csv"), "é 0.csv"),
        (("suggest", "--input", "INPUT", "-o", "sub/../list.csv"), "list.csv"),
    ],
)
def test_nothing_is_written_among_the_images_that_are_read(
    finished: Path, folder: Path, cli: Any, words: tuple[str, ...], named: str
) -> None:
    (folder / "sub").mkdir()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    name, *rest = [str(folder) if word == "INPUT" else word for word in words]
    rest[-1] = str(folder / rest[-1])
    answer = cli(name, finished, *rest, "--skip-damaged")
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.err.splitlines()
    assert named in line
    assert f"lies in {folder}, whose files are read; choose a name outside of it" in line
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
