"""The page for who has a folder of images: its commands and its code, copied as they stand, in their order."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from vicinal.cli import main
from vicinal.runs import Run

PAGE = Path(__file__).parents[2] / "docs" / "own-images.md"
LABELLED, TRAINING, NEW = 20, 800, 200
RUN = Path("runs/my-images-vat")


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and content of each code block that is run."""
    yield from re.findall(r"^```(sh|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The digits as PNG files, 20 of each with a label, and new ones; their classes by name."""
    image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
    monkeypatch.chdir(tmp_path)
    digits, seen, truth = load_digits(), dict.fromkeys(range(10), 0), {}
    for k in range(TRAINING + NEW):
        label = int(digits.target[k])
        seen[label] += 1
        inside = str(label) if seen[label] <= LABELLED else "unlabelled"
        path = Path("my-images", inside, f"{k:04d}.png") if k < TRAINING else Path("new-images", f"{k:04d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray((digits.images[k] * 255 / 16).round().astype(np.uint8)).save(path)
        truth[path.name] = str(label)
    return truth


def test_the_page_from_its_first_command_to_its_last(folder: dict[str, str], capsys: Any) -> None:
    for module in ("onnx", "onnxscript", "onnxruntime", "jinja2", "matplotlib"):
        pytest.importorskip(module, reason="the extras 'export' and 'figures' are not installed")
    names: dict[str, Any] = {}
    told, printed, done = "", "", []
    for language, content in blocks(PAGE.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(content, PAGE.name, "exec"), names)
            printed += capsys.readouterr().out
            continue
        for line in content.splitlines():
            assert line.startswith("vicinal ")
            assert main(shlex.split(line)[1:]) == 0, line
            done.append(line.split()[1])
            told += "".join(capsys.readouterr())
    assert done == ["fit", "evaluate", "predict", "suggest", "export", "export"]

    # What the page says is there, is there.
    assert "run directory: runs/my-images-vat" in told
    assert all(
        (RUN / name).is_file() for name in ("contact-sheet.png", "report.html", "suggestions.csv", "suggestions.png")
    )
    assert (Run(RUN).evaluation()["provenance"]["labels"], Run(RUN).evaluation()["validation"]["n"]) == (160, 40)
    # ONNX Runtime and the loaded folder give the labels and probabilities of the CSV file.
    assert printed.splitlines() == ["True", "True", "True"]
    assert float(re.findall(r"differ from the run's by at most (\S+) on .*ONNX Runtime", told)[0]) < 1e-4
    # And it is a classifier: 200 new digits of other writers, of which a tenth would be right by chance.
    with open("labels.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == NEW
    assert np.mean([folder[row["name"]] == row["label"] for row in rows]) > 0.8
    with (RUN / "suggestions.csv").open(encoding="utf-8") as file:
        suggested = [row["name"] for row in csv.DictReader(file)]
    assert len(suggested) == 20
    assert all(Path("my-images", name).is_file() and name.startswith("unlabelled/") for name in suggested)


def test_a_block_that_is_not_run_would_be_seen() -> None:
    text = PAGE.read_text(encoding="utf-8")
    fences = re.findall(r"^```(\S+)$", text, re.MULTILINE)
    run = [language for language, _ in blocks(text)]
    assert len(run) >= 8
    assert set(fences) - set(run) <= {"text", "{include}"}, "the layout of a folder, and a table"
    assert [fence for fence in fences if fence in ("sh", "python")] == run
    assert list(blocks("```sh\na\n```\n```yaml\nb\n```\n")) == [("sh", "a\n")]
