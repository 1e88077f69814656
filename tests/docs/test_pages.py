"""The pages of the docs: every command line parses, every YAML block is what the page says it is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from vicinal import fitting
from vicinal.cli import main
from vicinal.experiment import Experiment
from vicinal.grid import Grid
from vicinal.runs import Run

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/start.md", "docs/experiments.md", "docs/index.md", "docs/methods.md", "docs/evaluation.md")


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
    for line in command_lines((ROOT / page).read_text(encoding="utf-8"))
]


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder in which the docs' experiment file lies, and commands that stop where their work begins."""

    def stop(*args: Any, **kwargs: Any) -> None:
        raise WorkReachedError

    monkeypatch.chdir(tmp_path)
    Path("my-images").mkdir()
    Path("runs/a").mkdir(parents=True)
    Path("runs/a/experiment.yaml").write_text(Experiment.of(data="digits", method="ict").to_yaml(), encoding="utf-8")
    monkeypatch.setattr(fitting, "fit", stop)
    monkeypatch.setattr(Run, "open", stop)
    monkeypatch.setattr(Grid, "read", stop)
    Path("my_methods.py").write_text(
        "from vicinal.methods import ICT\n\nclass PlainEntMin(ICT):\n    pass\n", encoding="utf-8"
    )
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
def test_a_wrong_command_line_would_be_seen() -> None:
    assert understood("vicinal fit digits --method ict --output runs/b")
    assert not understood("vicinal fit digits --method ict --ouput runs/b")
    assert not understood("vicinal fit digits --method itc --output runs/b")
    assert not understood("vicinal fit digits --method ict --method.epsilon 3 --output runs/b")
    assert not understood("vicinal predict runs/a")


def test_the_pages_have_command_lines() -> None:
    start = list(command_lines((ROOT / "docs/start.md").read_text(encoding="utf-8")))
    assert len(start) >= 10
    assert {line.split()[1] for line in start} >= {"fit", "evaluate", "predict", "benchmark", "methods", "recipes"}
    assert list(command_lines("a\n    vicinal fit \\\n   digits\n`vicinal table`")) == ["vicinal fit     digits"]


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in (ROOT / page).read_text(encoding="utf-8")])
def test_python_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that stand for themselves; one after the other, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]):
        for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL):
            exec(compile(block, page, "exec"), names)


def test_the_yaml_blocks_are_experiments_and_grids() -> None:
    page = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    grids = [Grid.of("docs", values) for values in blocks if "rows" in values]
    experiments = [Experiment.of(values) for values in blocks if "rows" not in values]
    assert grids
    assert experiments
    assert all(grid.cells for grid in grids)
