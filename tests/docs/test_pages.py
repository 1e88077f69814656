"""The pages of the docs: every command line parses, every Python block runs, every YAML block is what it looks like."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from vicinal import fitting
from vicinal.cli import main
from vicinal.experiment import Experiment
from vicinal.grid import Grid
from vicinal.runs import Run

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md") if not path.name.startswith("_")),
)
ELSEWHERE = {
    "docs/estimator.md": "tests/estimator/test_docs.py",
    "docs/own-images.md": "tests/docs/test_own_images.py",
}
"""Pages whose Python blocks need more than an empty folder, and the test that runs them."""


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


class WorkReachedError(Exception):
    """A command understood its words and began with its work."""


def command_lines(text: str) -> Iterator[str]:
    """Lines that begin with ``vicinal`` in code blocks, continued lines joined, and whole ones in running text."""
    joined = text.replace("\\\n", " ")
    yield from re.findall(r"^(?: {4,}|\$ )?(vicinal [a-z].*)$", joined, re.MULTILINE)
    yield from (found for found in re.findall(r"`(vicinal [^`]+)`", joined) if len(found.split()) > 3)


LINES = [
    pytest.param(line, id=f"{page}: {' '.join(line.split()[:6])}")
    for page in PAGES
    for line in command_lines(text_of(page))
]


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder in which the docs' files lie, and commands that stop where their work begins."""

    def stop(*args: Any, **kwargs: Any) -> None:
        raise WorkReachedError

    monkeypatch.chdir(tmp_path)
    for number in range(12):
        path = Path("my-images", ("cat", "dog", "unlabelled")[number % 3], f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * number).save(path)
    Path("mine.npz").touch()
    for run in ("a", "my-images-vat"):
        text = Experiment.of(data="digits", method="vat").to_yaml()
        Path("runs", run).mkdir(parents=True)
        Path("runs", run, "experiment.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(fitting, "fit", stop)
    monkeypatch.setattr(Run, "open", stop)
    monkeypatch.setattr(Grid, "read", stop)
    for page in PAGES:
        for name, block in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE):
            Path(name).write_text(block, encoding="utf-8")
    shutil.copy(ROOT / "examples" / "new_method.py", tmp_path)
    monkeypatch.syspath_prepend("")
    monkeypatch.setattr("sys.dont_write_bytecode", True)


def understood(line: str) -> bool:
    words = shlex.split(line, comments=True)
    try:
        return main(words[1:]) == 0
    except WorkReachedError:
        return True


@pytest.mark.parametrize("line", LINES)
@pytest.mark.usefixtures("reached")
def test_every_command_line_is_understood(line: str) -> None:
    assert understood(line)


@pytest.mark.usefixtures("reached")
def test_those_of_generated_pages_are_understood(generated: Mapping[str, str]) -> None:
    lines = {line for text in generated.values() for line in command_lines(text)}
    assert len(lines) > 50
    assert not [line for line in sorted(lines) if not understood(line)]


@pytest.mark.usefixtures("reached")
def test_a_wrong_command_line_would_be_seen() -> None:
    assert understood("vicinal fit digits --method ict --output runs/b")
    assert not understood("vicinal fit digits --method ict --ouput runs/b")
    assert not understood("vicinal fit digits --method itc --output runs/b")
    assert not understood("vicinal fit digits --method ict --method.epsilon 3 --output runs/b")
    assert not understood("vicinal predict runs/a")


def test_the_pages_have_command_lines() -> None:
    start = list(command_lines(text_of("docs/start.md")))
    assert len(start) >= 10
    assert {line.split()[1] for line in start} >= {"fit", "evaluate", "predict", "benchmark", "methods", "recipes"}
    assert list(command_lines("a\n    vicinal fit \\\n   digits\n`vicinal table`")) == ["vicinal fit     digits"]


def missing(text: str) -> set[str]:
    """Scripts and targets of make that a text tells the reader to run, and that are not there."""
    scripts = set(re.findall(r"^(?: {4})?(?:python )?((?:examples|benchmarks)/[\w/]+\.(?:py|sh))", text, re.MULTILINE))
    targets = set(re.findall(r"^(?: {4})?make ([a-z]+)", text, re.MULTILINE))
    known = set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))
    return {name for name in scripts if not (ROOT / name).is_file()} | (targets - known)


@pytest.mark.parametrize("page", PAGES)
def test_scripts_and_targets_are_there(page: str) -> None:
    assert not missing(text_of(page))


def test_a_missing_script_would_be_seen() -> None:
    assert missing("python examples/nothing.py\nmake test\nmake nothing") == {"examples/nothing.py", "nothing"}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(text_of(page), "python") and page not in ELSEWHERE])
def test_python_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "examples")
    names: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]):
        for block in blocks(text_of(page), "python"):
            exec(compile(block, page, "exec"), names)


@pytest.mark.parametrize(("page", "test"), ELSEWHERE.items())
def test_blocks_that_run_elsewhere_do(page: str, test: str) -> None:
    assert Path(page).name in text_of(test)
    assert "exec(" in text_of(test)


def read(block: str) -> Grid | Experiment:
    """A grid where there are rows, else an experiment."""
    values = yaml.safe_load(block)
    return Grid.of("docs", values) if "rows" in values else Experiment.of(values)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=f"{page}, {number}")
        for page in PAGES
        for number, block in enumerate(blocks(text_of(page), "yaml"))
    ],
)
def test_yaml_blocks_are_experiments_and_grids(block: str) -> None:
    assert read(block)


def test_a_wrong_block_would_be_seen() -> None:
    with pytest.raises(ValueError, match="unknown"):
        read("data: digits\nmehtod: ict")
    with pytest.raises(ValueError, match="unknown"):
        read("rows: [supervised]\nsedes: [0]")
    assert sum(len(blocks(text_of(page), "yaml")) for page in PAGES) >= 3
    assert sum(len(blocks(text_of(page), "python")) for page in PAGES) >= 10
