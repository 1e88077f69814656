"""Bad input: one line that says what, where and what to do; exit code 2; no traceback; nothing written or changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

TINY = ("--network", "mlp", "--network.hidden", "[8]", "--training.steps", "2", "--training.device", "cpu", "--quiet")
NEW = ("--output", "new/run")


def tree(root: Path) -> dict[str, bytes | None]:
    """Everything below a folder: files with their bytes, folders with None."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))
    }


class Bad(NamedTuple):
    """A command line and what its error must say."""

    words: tuple[str, ...]
    says: tuple[str, ...]


def fit(*words: str, says: tuple[str, ...]) -> Bad:
    return Bad(("fit", *NEW, *TINY, *words), says)


def data(name: str, *words: str, says: tuple[str, ...]) -> Bad:
    return fit(name, "--method", "supervised", *words, says=(name, *says))


def file(name: str, *words: str, says: tuple[str, ...]) -> Bad:
    return Bad(("fit", "--config", name, *NEW, "--quiet", *words), (name, *says))


def digits(*words: str, says: tuple[str, ...]) -> Bad:
    return fit("digits", "--method", "ict", *words, says=says)


BAD = [
    # words
    Bad(("fitt",), ("unknown command 'fitt'", "did you mean 'fit'?")),
    Bad(("--methods",), ("unknown command '--methods'", "methods")),
    Bad(("fit", "digits", "--method", "ict"), ("--output: missing", "--output runs/a")),
    Bad(("fit", *NEW), ("data: missing", "'digits'")),
    Bad(("fit", "digits", *NEW), ("method: missing", "'advmixup'")),
    digits("more", says=("'more' is one argument too many", "--help")),
    digits("--sed", "3", says=("unknown flag --sed", "did you mean '--seed'?")),
    digits("--lab", "50", says=("unknown flag --lab", "--labels")),
    digits("--steps", "50", says=("unknown flag --steps", "--training.steps")),
    digits("--data", "moons", says=("unknown flag --data", "without a flag")),
    digits("--seed", says=("--seed", "expected one argument")),
    digits("--seed", "x", says=("--seed", "whole number", "'x'")),
    digits("--seed", "-1", says=("--seed", "at least 0", "'-1'")),
    digits("--labels", "0", says=("--labels", "at least 1", "'0'")),
    digits("--method.weight", says=("--method.weight", "expected a value")),
    Bad(("evaluate",), ("RUN", "vicinal evaluate --help")),
    Bad(("predict", "runs/done"), ("INPUT", "vicinal predict --help")),
    Bad(
        ("predict", "runs/done", "good.npz", "--checkpoint", "first"),
        ("--checkpoint", "last or best_validation", "'first'"),
    ),
    Bad(("evaluate", "runs/done", "--fast"), ("unknown flag --fast",)),
    Bad(("table", "grid.yaml", "--format", "excel"), ("--format", "terminal, markdown, csv or json", "'excel'")),
    Bad(("table", "grid.yaml", "-o", "table.txt"), ("--format", "markdown, csv or json")),
    Bad(("recipes", "shwo"), ("list, show or copy", "'shwo'")),
    Bad(("recipes", "show"), ("recipes show", "name of a recipe")),
    Bad(("recipes", "copy", "cifar10-4000/ict"), ("recipes copy", "a file")),
    Bad(("recipes", "copy", "cifar10-4000/ict", "taken"), ("taken", "exists already", "another name")),
    Bad(("recipes", "show", "cifar10-4000/itc"), ("unknown recipe 'cifar10-4000/itc'", "'cifar10-4000/ict'")),
    # names and settings
    digits("--method", "advmixpu", says=("unknown method 'advmixpu'", "did you mean 'advmixup'?")),
    digits("--network", "small_cn", says=("network", "'small_cn'", "did you mean 'small_cnn'?")),
    digits("--preprocess", "zca_itc", says=("preprocess", "'zca_itc'", "zca_ict")),
    digits("--recipe", "cifar10/ict", says=("unknown recipe 'cifar10/ict'",)),
    digits("--method.epsilon", "3", says=("method.epsilon", "ict has no such setting", "advmixup", "known: alpha")),
    digits("--network.width", "[8]", says=("network.width", "mlp has no such setting")),
    digits("--split.lables", "3", says=("split.lables", "did you mean 'labels'?")),
    digits("--trainig.steps", "3", says=("trainig: unknown key", "did you mean 'training'?")),
    digits("--training.steps", "soon", says=("training.steps", "expected int", "'soon'")),
    digits("--training.steps", "0", says=("training", "steps must be at least 1", "0")),
    digits("--training.learning_rate", "nan", says=("training.learning_rate", "expected float", "'nan'")),
    digits("--training.optimizer", "adamw", says=("training.optimizer", "'sgd', 'adam'", "'adamw'")),
    digits("--training.compile", "maybe", says=("training.compile", "expected bool", "'maybe'")),
    digits("--network.hidden", "8", says=("network.hidden", "a list of int", "[1, 2]")),
    digits("--method", "advmixup", "--method.epsilon", "-1", says=("epsilon must be at least 0", "-1")),
    digits("--method", "advmixup", "--method.epsilon=-1", says=("epsilon must be at least 0", "-1")),
    digits("--method", "missing_module:M", says=("cannot import 'missing_module:M'", "No module named")),
    digits("--method", "broken_module:M", says=("cannot import 'broken_module:M'", "SyntaxError")),
    digits("--method", "failing_module:M", says=("cannot import 'failing_module:M'", "RuntimeError: not today")),
    digits("--method", "other:NoMehtod", says=("'other' has no 'NoMehtod'", "did you mean 'NoMethod'?")),
    digits("--method", "other:NoMethod", says=("other:NoMethod", "not a subclass of vicinal.methods.Method")),
    Bad(("fit", "digits", "--method", "ict", "--network", "other:count", *NEW), ("other:count", "not a torch module")),
    digits("--augment.crop", "8", says=("crop must be smaller than the image", "8x8")),
    fit("two_moons", "--method", "ict", "--augment.flip", "true", says=("flips are for images", "feature vectors")),
    fit("two_moons", "--method", "ict", "--data.noise", "-1", says=("noise must be at least 0", "-1")),
    # label split
    digits("--labels", "5000", says=("labels: 5000 asked for", "only 1080", "lower labels")),
    digits("--labels", "5", says=("labels: 5 cannot be balanced over 10 classes", "at least 10")),
    digits("--split.validation", "1.5", says=("validation", "below 1", "1.5")),
    digits("--split.validation", "1200", says=("validation: 1200 of 1200", "lower validation")),
    # data
    data("nothing.npz", says=("no such file",)),
    data("no such folder", says=("no such file or folder",)),
    data("digitz", says=("did you mean 'digits'?",)),
    data("notes.csv", says=("not a file that can be loaded", ".npz or .parquet")),
    data("not_arrays.npz", says=("not a readable .npz file",)),
    data("named.npz", says=("no array 'x_train'", "found: pixels")),
    data("no_y.npz", says=("no array 'y_train'",)),
    data("nan.npz", says=("example 3 contains NaN", "replace or remove")),
    data("no_labels.npz", says=("no labels at all", "label a few examples")),
    data("one_class.npz", says=("one class (0)", "at least two")),
    data("negative.npz", says=("label -2 is negative", "only -1")),
    data("gap.npz", says=("no training example has label 1", "renumber")),
    data("half.npz", says=("whole numbers", "0.5")),
    data("shorter.npz", says=("11 labels for 12 examples",)),
    data("shape.npz", says=("expected images", "(1, 12, 1, 8, 8)")),
    data("range.npz", says=("must lie in [0,1]", "rescale")),
    data("test_unlabelled.npz", says=("y_test", "no label (-1)")),
    data("test_wider.npz", says=("x_test", "(1, 8, 7)", "(1, 8, 8)")),
    data("images/empty", says=("no images in this folder",)),
    data("images/text only", says=("no images in this folder", "readme.txt")),
    data("images/unreadable", says=("1.png", "not an image", "replace or remove")),
    data("images/cut", says=("é 1.png", "damaged image")),
    data("images/sizes", says=("differ in size", "9x8", "set size")),
    data("images/one class", says=("one class (0)", "at least two")),
    data("images/loose", says=("é 1.png", "no label", "metadata.csv")),
    # experiment files
    file("nothing.yaml", says=("cannot be read", "No such file")),
    file("images", says=("cannot be read", "directory")),
    file("colon.yaml", says=("line 3", "not valid YAML")),
    file("binary.yaml", says=("not valid YAML",)),
    file("list.yaml", says=("found a list", "expected settings")),
    file("text.yaml", says=("found a str",)),
    file("empty.yaml", says=("found nothing",)),
    file("date.yaml", says=("not valid YAML", "month")),
    file("twice.yaml", says=("line 4", "'seed' is given twice")),
    file("five.yaml", says=("training: expected settings", "got 5")),
    file("null.yaml", says=("split: expected settings", "got None")),
    file("true.yaml", says=("seed: expected a whole number", "True")),
    file("many.yaml", says=("training.steps: expected int", "'many'")),
    file("half.yaml", says=("training.steps: expected int", "10.5")),
    file("key.yaml", says=("trainings: unknown key", "'training'")),
    file("number_key.yaml", says=("split.1: unknown setting",)),
    file("setting.yaml", says=("method.wieght", "'weight'")),
    fit("--config", "nameless.yaml", says=("method: expected a name",)),
    file("recipe.yaml", says=("recipe: expected a name", "5")),
    file("labels.yaml", says=("labels: means split.labels", "leave one of them out")),
    # run directories
    Bad(("fit", "digits", "--method", "ict", "-o", "taken", *TINY), ("taken", "is a file", "another output")),
    Bad(("fit", "digits", "--method", "ict", "-o", "taken/run", *TINY), ("taken/run", "cannot")),
    Bad(("fit", "digits", "--method", "ict", "-o", "runs/notes", *TINY), ("runs/notes", "not empty", "another output")),
    Bad(
        ("fit", "digits", "--method", "ict", "-o", "runs/done", *TINY),
        ("runs/done", "a finished run", "another output"),
    ),
    Bad(("fit", "digits", "--method", "ict", "-o", "runs/unfinished", *TINY), ("--resume runs/unfinished",)),
    Bad(("fit", "digits", "--method", "ict", "-o", "runs/held", *TINY), ("runs/held", "in use by another process")),
    Bad(("fit", "nan.npz", "--method", "ict", "-o", "runs/empty", *TINY), ("nan.npz", "example 3 contains NaN")),
    Bad(("fit", "--resume", "runs/done"), ("runs/done", "finished", "nothing to resume")),
    Bad(("fit", "--resume", "runs/none"), ("runs/none", "no such directory")),
    Bad(("fit", "--resume", "runs/notes"), ("runs/notes", "not a run directory")),
    Bad(("fit", "--resume", "runs/unfinished", "--seed", "3"), ("--resume", "give nothing else")),
    Bad(("fit", "--resume", "runs/corrupt"), ("last.ckpt", "damaged checkpoint")),
    Bad(("fit", "--resume", "runs/held"), ("runs/held", "in use by another process")),
    Bad(("fit", "--resume", "runs/damaged"), ("runs/damaged/experiment.yaml", "method: missing")),
    Bad(("evaluate", "runs/done", "runs/none"), ("runs/none", "no such directory")),
    Bad(("evaluate", "runs/corrupt"), ("last.ckpt", "damaged checkpoint", "restore")),
    Bad(("evaluate", "runs/held"), ("runs/held", "in use by another process")),
    # new examples
    Bad(("predict", "runs/none", "good.npz"), ("runs/none", "no such directory")),
    Bad(("predict", "runs/corrupt", "good.npz"), ("last.ckpt", "damaged checkpoint")),
    Bad(("predict", "runs/done", "nothing"), ("nothing", "no such file or folder")),
    Bad(("predict", "runs/done", "images/empty"), ("images/empty", "no images")),
    Bad(("predict", "runs/done", "images/wide"), ("é 1.png", "12x8", "8x8", "resize it")),
    Bad(("predict", "runs/done", "images/unreadable"), ("1.png", "not an image")),
    Bad(("predict", "runs/done", "notes.csv"), ("notes.csv", "neither an image")),
    Bad(("predict", "runs/done", "not_arrays.npz"), ("not_arrays.npz", "not a readable .npz")),
    Bad(("predict", "runs/done", "named.npz"), ("named.npz", "no array 'x'", "pixels")),
    Bad(("predict", "runs/done", "nan.npz"), ("nan.npz", "example 3 contains NaN")),
    Bad(("predict", "runs/done", "vectors.npz"), ("vectors.npz", "(12, 64)", "(N, 1, 8, 8)")),
    Bad(("predict", "runs/done", "larger.npz"), ("larger.npz", "(3, 1, 9, 8)", "(N, 1, 8, 8)")),
    Bad(("predict", "runs/done", "good.npz", "-o", "no folder/labels.csv"), ("no folder", "make it first")),
    Bad(("predict", "runs/done", "good.npz", "-o", "runs"), ("runs", "is a folder", "name a file")),
    Bad(("predict", "runs/done", "good.npz", "-o", "./good.npz"), ("good.npz", "would overwrite what is read")),
    # grids
    Bad(("benchmark", "nothing.yaml"), ("nothing.yaml", "cannot be read")),
    Bad(("benchmark", "grid_rows.yaml"), ("grid_rows.yaml", "rows: expected a list")),
    Bad(("benchmark", "grid_key.yaml"), ("grid_key.yaml", "seed: unknown key", "'seeds'")),
    Bad(("benchmark", "grid_cell.yaml"), ("grid_cell.yaml", "seed: expected a whole number")),
    Bad(("benchmark", "grid_baseline.yaml"), ("grid_baseline.yaml", "'supervized'", "known: ict")),
    Bad(("benchmark", "grid.yaml", "--jobs", "0"), ("--jobs", "at least 1")),
    Bad(("benchmark", "grid.yaml", "--store", "taken"), ("--store", "taken is not a folder")),
    Bad(("benchmark", "grid.yaml", "--results", "taken"), ("--results", "taken is not a folder")),
    Bad(("table", "grid.yaml"), ("none of its 1 runs is finished", "vicinal benchmark")),
    Bad(("table", "grid.yaml", "--format", "csv", "-o", "grid.yaml"), ("grid.yaml", "would overwrite what is read")),
]


def check(bad: Bad, code: int, out: str, err: str) -> None:
    assert code == 2, (out, err)
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("vicinal: error: ")
    assert [text for text in bad.says if text not in lines[0]] == [], lines[0]


def test_there_are_enough_of_them() -> None:
    assert len({bad.words for bad in BAD}) == len(BAD) >= 40


@pytest.mark.parametrize("bad", BAD, ids=[" ".join(w for w in bad.words if w not in (*NEW, *TINY)) for bad in BAD])
def test_bad_input(bad: Bad, world: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    before = tree(world)
    try:
        check(bad, *cli(*bad.words))
        assert tree(world) == before
    finally:
        shutil.rmtree("new", ignore_errors=True)


@pytest.mark.parametrize(
    "bad",
    [
        digits("--method.epsilon", "3", says=("ict has no such setting",)),
        data("images/unreadable", says=("not an image",)),
        Bad(("evaluate", "runs/corrupt"), ("damaged checkpoint",)),
    ],
    ids=lambda bad: bad.words[0] + " " + bad.words[1],
)
def test_bad_input_of_a_process_of_its_own(bad: Bad, world: Path) -> None:
    before = tree(world)
    words = [sys.executable, "-B", "-m", "vicinal", *bad.words]
    done = subprocess.run(words, cwd=world, capture_output=True, text=True, env={**os.environ, "PYTHONUTF8": "1"})
    check(bad, done.returncode, done.stdout, done.stderr)
    assert tree(world) == before


def test_good_input_does_change_the_folder(world: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: by the same means, in the same folder, a command that is right leaves a run, and nothing else."""
    monkeypatch.chdir(world)
    before = tree(world)
    answer = cli("fit", "good.npz", "--method", "supervised", *NEW, *TINY)
    assert answer.code == 0, answer.err
    assert answer.out != ""
    after = tree(world)
    assert {name.split(os.sep)[0] for name in after.keys() - before.keys()} == {"new"}
    assert {name: after[name] for name in before} == before
    with pytest.raises(AssertionError):
        check(Bad((), ()), *answer)
    shutil.rmtree(world / "new")
