"""Data of one's own and nothing else: what is understood is shown, what is chosen is said, and it trains."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

from vicinal.cli import own
from vicinal.cli.own import choose, default_output
from vicinal.data import SplitIndices
from vicinal.errors import InputError, MissingExtraError
from vicinal.experiment import Experiment
from vicinal.runs import Run

PIL: Any = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
FEW = ("--training.steps", "4", "--training.threads", "1", "--training.device", "cpu", "--quiet")


def write(folder: Path, *, labelled: int = 6, unlabelled: int = 20, classes: tuple[int, ...] = (3, 8)) -> Path:
    """Digits as PNG files in the folders of their classes, and some without label."""
    digits = load_digits()
    for c in classes:
        for k, image in enumerate(digits.images[digits.target == c][: labelled + unlabelled // len(classes)]):
            path = folder / (f"digit {c}" if k < labelled else "unlabelled") / f"{c}-{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.fromarray((image * 255 / 16).round().astype(np.uint8)).save(path)
    return folder


def resize(path: Path, size: tuple[int, int]) -> None:
    with PIL.open(path) as image:
        image.resize(size).save(path)


def test_a_folder_and_nothing_else(tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my digits")
    (tmp_path / "my digits" / "notes.txt").touch()
    (tmp_path / "my digits" / "photo.heic").touch()
    (tmp_path / "my digits" / ".DS_Store").touch()
    answer = cli("fit", "my digits", *FEW)
    assert answer.code == 0, answer.err
    run = Run("runs/my digits-vat")
    assert run.is_finished
    lines = answer.out.splitlines()
    assert "run directory: runs/my digits-vat" in lines
    assert re.search(r"^ +digit 3 +5 +1 *$", answer.out, re.MULTILINE), "labelled, validation"
    assert re.search(r"^ +all classes +10 +2 *$", answer.out, re.MULTILINE)
    assert "images of 8x8 pixels (width x height), grey" in answer.out
    assert "20 examples without label" in answer.out
    left_out = next(line for line in lines if "no images by their names" in line)
    assert ".txt (1)" in left_out
    assert ".heic (1)" in left_out
    assert "DS_Store" not in left_out
    assert any(line.startswith("vicinal: method vat(epsilon=") for line in lines), "what was chosen is said"
    with PIL.open(run.path / "contact-sheet.png") as sheet:
        assert sheet.format == "PNG"
    assert run.evaluation()["validation"]["n"] == 2
    split = SplitIndices.load(run.split_file)
    assert (len(split.labelled), len(split.validation), len(split.unlabelled)) == (10, 2, 30)
    # Twice is another run, not an error; and what is printed can be repeated.
    again = cli("fit", "my digits", *FEW)
    assert "run directory: runs/my digits-vat-2" in again.out.splitlines()
    assert Run("runs/my digits-vat-2").experiment == run.experiment


def test_without_unlabelled_images_it_is_supervised(tmp_path: Path, cli: Any) -> None:
    folder = write(tmp_path / "mine", unlabelled=0)
    answer = cli("fit", folder, "--output", tmp_path / "run", *FEW)
    assert answer.code == 0, answer.err
    assert Run(tmp_path / "run").experiment.method.name == "supervised"
    assert "run directory:" not in answer.out, "it was given"
    assert "0 examples without label" in answer.out


def test_labels_that_are_left_out_are_unlabelled_examples(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", unlabelled=0)
    assert choose({"data": str(folder), "split": {"labels": "4"}}).experiment.method.name == "vat"


def test_flags_and_files_win_and_show_config_shows_the_same(
    tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine")
    Path("few.yaml").write_text("data: mine\nseed: 3\ntraining: {steps: 6}\n", encoding="utf-8")
    flags = ("--config", "few.yaml", "--network", "mlp", "--network.hidden", "[4]", "--split.validation", "4")
    shown = Experiment.of(yaml.safe_load(cli("show-config", *flags).out))
    answer = cli("fit", *flags, "--training.device", "cpu", "--training.threads", "1", "--quiet")
    assert answer.code == 0, answer.err
    made = Run("runs/mine-vat").experiment
    assert (made.seed, made.training.steps, made.network.settings["hidden"], made.split.validation) == (3, 6, (4,), 4)
    assert (shown.method, shown.network, shown.split) == (made.method, made.network, made.split)
    assert made.data == replace(shown.data, name=str(tmp_path / "mine"))
    assert made.training.validate_every <= 6, "it follows the number of steps"


def test_a_method_that_is_named_starts_from_bare_defaults_as_ever(
    tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine")
    answer = cli("fit", "mine", "--method", "ict", "--network", "mlp", "--split.validation", "2", *FEW)
    assert answer.code == 0, answer.err
    run = Run("runs/mine-ict")
    assert run.experiment == Experiment.of(
        data=str(tmp_path / "mine"),
        method="ict",
        network="mlp",
        split={"validation": 2},
        training={"steps": 4, "threads": 1, "device": "cpu"},
    )
    assert not (run.path / "contact-sheet.png").exists()


def test_known_data_still_want_a_method(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words, said in (
        (("fit", "digits", "-o", "a"), "method: missing"),
        (("fit", "digits", "--method", "ict"), "--output: missing"),
    ):
        answer = cli(*words)
        assert answer.code == 2
        assert said in answer.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(8, 8)] * 4, None),
        ([(90, 40)] * 4, None),
        ([(120, 100)] * 4, 64),
        ([(200, 90), (70, 300), (90, 90), (100, 100)], 64),
        ([(20, 30), (30, 20), (40, 24), (24, 24)], 22),
    ],
)
def test_images_of_any_size_are_read_in_one(tmp_path: Path, sizes: list[tuple[int, int]], expected: int | None) -> None:
    for k, size in enumerate(sizes):
        path = tmp_path / "mine" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.new("RGB", size, (50 * k, 0, 0)).save(path)
    found = choose({"data": str(tmp_path / "mine")})
    assert found.experiment.data.settings.get("size") == expected
    assert found.dataset.shape[0] == 3
    assert ("--data.size sets it" in "\n".join(found.table().notes)) == (expected is not None)
    asked = choose({"data": {"name": str(tmp_path / "mine"), "size": 16}})
    assert asked.dataset.shape == (3, 16, 16)


def test_a_published_validation_part_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "train")
    write(tmp_path / "mine" / "val", unlabelled=0)
    found = choose({"data": str(tmp_path / "mine")})
    assert found.experiment.split.validation is None
    assert found.split().published_validation
    assert "validation share" not in found.chosen
    assert found.table().rows[-1] == ("all classes", "12", "12")


def test_few_labels_are_all_trained_on(tmp_path: Path) -> None:
    found = choose({"data": str(write(tmp_path / "mine", labelled=4))})
    assert found.experiment.split.validation == 0
    assert choose({"data": str(write(tmp_path / "more", labelled=5))}).experiment.split.validation == own.VALIDATION


def test_folders_inside_unlabelled_are_told_not_to_be_labels(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine")
    (folder / "unlabelled" / "digit 5").mkdir()
    (folder / "unlabelled" / "3-7.png").rename(folder / "unlabelled" / "digit 5" / "3-7.png")
    found = choose({"data": str(folder)})
    assert found.dataset.classes == ("digit 3", "digit 8")
    assert any("unlabelled/ holds folders (digit 5)" in note for note in found.table().notes)


def test_a_class_of_nothing_but_folders_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine")
    assert not any("holds folders" in note for note in choose({"data": str(folder)}).table().notes)
    for name in ("left", "right"):
        (folder / "digit 3" / name).mkdir()
    for k, path in enumerate(sorted((folder / "digit 3").glob("*.png"))):
        path.rename(path.parent / ("left", "right")[k % 2] / path.name)
    found = choose({"data": str(folder)})
    assert found.dataset.classes == ("digit 3", "digit 8")
    (note,) = (note for note in found.table().notes if "holds folders" in note)
    assert note == "digit 3/ holds folders (left, right): their names are not taken for classes, all is 'digit 3'"


def test_arrays_of_one_s_own(tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(40, 5))
    np.savez("vectors.npz", x=x, y=np.where(np.arange(40) < 20, x[:, 0] > 0, -1))
    answer = cli("fit", "vectors.npz", *FEW)
    assert answer.code == 0, answer.err
    assert "vectors of 5 numbers" in answer.out
    assert {path.name for path in Path("runs").iterdir()} == {"vectors-vat"}
    assert not (Path("runs") / "vectors-vat" / "contact-sheet.png").exists()


def test_many_classes_are_cut_short(tmp_path: Path) -> None:
    np.savez(tmp_path / "many.npz", x=np.zeros((80, 2)), y=np.arange(80) % 40)
    table = choose({"data": str(tmp_path / "many.npz")}).table()
    assert [row[0] for row in table.rows[-2:]] == ["and 10 more", "all classes"]
    assert table.rows[-1][1] == "80"


def test_what_fails_before_its_first_checkpoint_leaves_nothing(
    tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine")
    answer = cli("fit", "mine", "--network", "no_such_module:Net", *FEW)
    assert answer.code == 2
    assert "no_such_module" in answer.err
    assert {path.name for path in tmp_path.iterdir()} == {"mine"}
    (tmp_path / "runs" / "mine-vat").mkdir(parents=True)
    (tmp_path / "runs" / "mine-vat" / "kept.txt").touch()
    answer = cli("fit", "mine", "--output", "runs/mine-vat", *FEW)
    assert answer.code == 2
    assert "is not empty and not a run directory" in answer.err
    assert [path.name for path in (tmp_path / "runs" / "mine-vat").iterdir()] == ["kept.txt"]
    assert default_output(choose({"data": "mine"}).experiment) == "runs/mine-vat-2"


def test_without_pillow_arrays_are_fitted_without_a_sheet(
    tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("small.npz", x=np.random.default_rng(0).random((12, 1, 4, 4)), y=np.arange(12) % 2)

    def missing(sections: Any) -> bytes:
        raise MissingExtraError("no Pillow")

    monkeypatch.setattr(own, "contact_sheet", missing)
    assert cli("fit", "small.npz", *FEW).code == 0
    assert not list(Path("runs").rglob("*.png"))


def test_what_cannot_be_read_is_refused_as_ever(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine")
    (folder / "digit 3" / "3-0.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"3-0\.png: an empty file"):
        choose({"data": str(folder)})
    with pytest.raises(InputError, match=r"training\.stepz"):
        choose({"data": str(write(tmp_path / "other")), "training": {"stepz": 3}})
