"""The scripts and grids that pages show: they run, and the figures beside them are those of the results."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from vicinal.grid import Grid, run_grid
from vicinal.reporting import percent
from vicinal.summary import collect, grid_table

ROOT = Path(__file__).parents[2]


@pytest.fixture
def new_method(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return importlib.import_module("new_method")


def test_a_picture_has_a_point_for_each_row(generated: Mapping[str, str]) -> None:
    from xml.etree import ElementTree

    results = json.loads((ROOT / "results/digits-50/results.json").read_text(encoding="utf-8"))
    drawn = ElementTree.fromstring(generated["methods/digits-50.svg"])
    svg = "{http://www.w3.org/2000/svg}"
    texts = [item.text for item in drawn.iter(f"{svg}text")]
    assert texts[: len(results["rows"])] == [row["row"] for row in results["rows"]]
    points = [(float(item.get("cx", 0)), float(item.get("cy", 0))) for item in drawn.iter(f"{svg}circle")]
    first = points[: len(results["rows"])]
    means = [sum(run["test"]["error"]["last"] for run in row["runs"]) / len(row["runs"]) for row in results["rows"]]
    assert len(points) == 2 * len(means)
    low, high = means.index(min(means)), means.index(max(means))
    scale = (first[high][0] - first[low][0]) / (means[high] - means[low])
    for (x, _), mean in zip(first, means, strict=True):
        assert x - first[low][0] == pytest.approx(scale * (mean - means[low]), abs=0.2)  # drawn to a tenth of a pixel


def test_the_new_method_is_compared(new_method: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert new_method.main(["--steps", "10", "--seeds", "1"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in ("supervised", "vat", "mine"))
    assert "10 steps" in out


def test_a_run_that_fails_is_told(
    new_method: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(new_method.NoiseConsistency, "loss", lambda self, step: 1 / 0)
    assert new_method.main(["--steps", "1", "--seeds", "1"]) == 1
    assert "failed: runs/" in capsys.readouterr().out


def test_the_claims_grid_runs(tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "docs" / "claim.yaml").read_text(encoding="utf-8"))
    short = {
        **values,
        "base": {**values["base"], "training": {"steps": 2}},
        "seeds": values["seeds"][:1],
        "measure": {"pgd": {**values["measure"]["pgd"], "steps": 1, "n": 20}},
    }
    grid = Grid.of("claim", short)
    assert run_grid(grid, tmp_path, jobs=1) == {}
    assert [row[0] for row in grid_table(collect(grid, tmp_path)).rows] == values["rows"]


def test_the_claims_table_is_what_its_cells_gave(generated: Mapping[str, str]) -> None:
    grid = Grid.read(ROOT / "docs" / "claim.yaml")
    results = json.loads((ROOT / "results/digits-50/results.json").read_text(encoding="utf-8"))
    keys = ("method", "recipe", "seed", "labels", "steps")
    runs = {tuple(run["provenance"][key] for key in keys): run for row in results["rows"] for run in row["runs"]}
    lines = generated["methods/_claim.md"].splitlines()
    for (_, _, label), cells in grid.groups():
        made = [cell.experiment for cell in cells]
        found = [runs[e.method.name, e.recipe, e.seed, e.split.labels, e.training.steps] for e in made]
        (line,) = (line for line in lines if line.startswith(f"| {label} "))
        assert percent([run["test"]["error"]["last"] for run in found]) in line
        assert percent([run["measures"]["pgd"]["error"] for run in found]) in line
    assert len(lines) == 2 + len(grid.cells) / 3
