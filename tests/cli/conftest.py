"""What the tests of the command line share: calling it, flags that make a run tiny, and runs that are made once."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from filelock import FileLock

from vicinal.cli import main

TINY = (
    *("--network", "mlp", "--network.hidden", "[8]", "--training.steps", "4", "--training.validate_every", "2"),
    *("--training.log_every", "1", "--training.device", "cpu", "--training.threads", "1"),
)


class Answer(NamedTuple):
    """What a command did: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Flags for a run of a few hundredths of a second."""
    return TINY


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Call the command line in this process; no module that it imports from a test's folder leaves anything there."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*words: object) -> Answer:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Answer(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: ICT on the digits, 50 labels, seed 7."""
    path = tmp_path_factory.mktemp("finished") / "a"
    words = ["fit", "digits", "--method", "ict", "--labels", "50", "--seed", "7", "--recipe", "none", "--quiet"]
    assert main([*words, "--output", str(path), *TINY]) == 0
    return path


TEXTS = {
    "taken": "a file\n",
    "notes.csv": "not a data set\n",
    "runs/notes/notes.txt": "not a run\n",
    "images/empty/.gitkeep": "",
    "images/text only/readme.txt": "no images here\n",
    "images/unreadable/a/1.png": "not an image",
    "images/unreadable/b/2.png": "",
    "not_arrays.npz": "PK, but no archive",
    "broken_module.py": "def broken(:\n",
    "failing_module.py": "raise RuntimeError('not today')\n",
    "other.py": "class NoMethod: ...\n\ndef count(classes): return classes\n",
    "colon.yaml": "data: digits\nmethod: {name: ict\nseed: 3\n",
    "list.yaml": "- digits\n- ict\n",
    "text.yaml": "digits\n",
    "empty.yaml": "# nothing\n",
    "date.yaml": "seed: 2020-13-45\n",
    "twice.yaml": "data: digits\nmethod: ict\nseed: 1\nseed: 2\n",
    "five.yaml": "data: digits\nmethod: ict\ntraining: 5\n",
    "null.yaml": "data: digits\nmethod: ict\nsplit: null\n",
    "true.yaml": "data: digits\nmethod: ict\nseed: true\n",
    "many.yaml": "data: digits\nmethod: ict\ntraining: {steps: many}\n",
    "half.yaml": "data: digits\nmethod: ict\ntraining: {steps: 10.5}\n",
    "key.yaml": "data: digits\nmethod: ict\ntrainings: {steps: 5}\n",
    "number_key.yaml": "data: digits\nmethod: ict\nsplit: {1: 2}\n",
    "setting.yaml": "data: digits\nmethod: {name: ict, wieght: 5}\n",
    "nameless.yaml": "data: digits\nmethod: {weight: 5}\n",
    "recipe.yaml": "recipe: 5\n",
    "labels.yaml": "data: digits\nmethod: ict\nlabels: 50\nsplit: {labels: 40}\n",
    "grid_rows.yaml": "base: {data: digits}\nseeds: [0]\n",
    "grid_key.yaml": "base: {data: digits}\nrows: [ict]\nseed: [0]\n",
    "grid_cell.yaml": "base: {data: digits}\nrows: [ict]\nseeds: [-1]\n",
    "grid_baseline.yaml": "base: {data: digits}\nrows: [ict]\nbaseline: supervized\n",
    "grid.yaml": "base: {data: digits, training: {steps: 12345}}\nrows: [ict]\nseeds: [0]\n",
}


def _arrays() -> dict[str, dict[str, Any]]:
    draws = np.random.default_rng(0)
    x, y = draws.random((12, 1, 8, 8), dtype=np.float32), np.arange(12) % 2
    nan = x.copy()
    nan[3, 0, 0, 0] = np.nan
    return {
        "good": {"x": x, "y": y},
        "nan": {"x": nan, "y": y},
        "no_labels": {"x": x, "y": np.full(12, -1)},
        "one_class": {"x": x, "y": np.where(np.arange(12) < 6, 0, -1)},
        "negative": {"x": x, "y": y - 2},
        "gap": {"x": x, "y": 2 * y},
        "half": {"x": x, "y": y + 0.5},
        "no_y": {"x": x},
        "shorter": {"x": x, "y": y[:-1]},
        "shape": {"x": x[None], "y": y},
        "range": {"x": 255 * x, "y": y},
        "vectors": {"x": x.reshape(12, 64)},
        "larger": {"x": draws.random((3, 1, 9, 8), dtype=np.float32)},
        "named": {"pixels": x},
        "test_unlabelled": {"x_train": x, "y_train": y, "x_test": x, "y_test": y - 1},
        "test_wider": {"x_train": x, "y_train": y, "x_test": x[..., :7], "y_test": y},
    }


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, finished: Path) -> Iterator[Path]:
    """A folder with everything that can be wrong with what a command is given."""
    image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
    root = tmp_path_factory.mktemp("world")
    for name, text in TEXTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "binary.yaml").write_bytes(bytes(range(256)))
    for name, arrays in _arrays().items():
        np.savez(root / f"{name}.npz", **arrays)
    for name, sizes in {"sizes": (8, 9), "one class": (8,), "loose": (8,), "wide": (12, 12), "cut": (8, 8)}.items():
        for i, size in enumerate(sizes):
            folder = root / "images" / name / ("" if name == "loose" else str(i))
            folder.mkdir(parents=True, exist_ok=True)
            image.fromarray(np.zeros((8, size), dtype=np.uint8)).save(folder / "é 1.png")
    whole = (root / "images" / "cut" / "0" / "é 1.png").read_bytes()
    (root / "images" / "cut" / "0" / "é 1.png").write_bytes(whole[:45])
    (root / "runs" / "empty").mkdir()
    for name in ("done", "unfinished", "corrupt", "held", "damaged"):
        shutil.copytree(finished, root / "runs" / name)
    for name in ("unfinished", "corrupt", "held"):
        (root / "runs" / name / "evaluation.json").unlink()
    checkpoint = root / "runs" / "corrupt" / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    (root / "runs" / "damaged" / "experiment.yaml").write_text("data: digits\n", encoding="utf-8")
    (root / "runs" / "held" / ".lock").touch()
    with FileLock(root / "runs" / "held" / ".lock"):
        yield root
