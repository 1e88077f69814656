"""``vicinal evaluate``: what it measures and writes, from runs and grids, with settings from flags and files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.browser import check_page, find_browser

from vicinal.cli import main
from vicinal.runs import Run
from vicinal.studies import STUDIES

pytest.importorskip("jinja2", reason="the extra 'figures' is not installed")
pytest.importorskip("matplotlib", reason="the extra 'figures' is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning")

QUICK = (
    *("--robustness.n", "20", "--robustness.sanity_n", "10", "--robustness.steps", "3"),
    *("--corruptions.n", "10", "--corruptions.severities", "[1,5]", "--smoothness.n", "5", "--jobs", "1"),
)


@pytest.fixture
def two(finished: Path, tmp_path: Path, tiny: tuple[str, ...]) -> tuple[Path, Path]:
    """A run and its supervised baseline on the same split."""
    copy, baseline = tmp_path / "a", tmp_path / "b"
    shutil.copytree(finished, copy)
    words = ["fit", "digits", "--method", "supervised", "--labels", "50", "--seed", "7", "--recipe", "none", "--quiet"]
    # Long enough to be better than chance: gradients of what has learnt nothing lead no black box.
    assert main([*words, "--output", str(baseline), *tiny, "--training.steps", "100"]) == 0
    return copy, baseline


def test_everything_is_measured_and_reported(two: tuple[Path, Path], tmp_path: Path, cli: Any) -> None:
    answer = cli("evaluate", *two, "--output", tmp_path / "report", *QUICK)
    assert answer.code == 0, answer.err
    assert "Main figures" in answer.out
    assert answer.out.splitlines()[-1] == f"report: {tmp_path / 'report' / 'report.html'}"
    for path in two:
        studies = Run(path).evaluation()["studies"]
        assert list(studies) == list(STUDIES)
        assert {name for name, study in studies.items() if study["left_out"]} == {"regions"}
        assert studies["robustness"]["figures"]["n"] == 20
        assert "pictures" not in studies["mistakes"]["figures"]
    assert Run(two[0]).evaluation()["studies"]["fgm"]["figures"]["source"] == str(two[1])
    assert Run(two[1]).evaluation()["studies"]["fgm"]["figures"]["black"] is None, "the baseline has no other network"
    tables = (tmp_path / "report" / "tables.md").read_text(encoding="utf-8")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    for word in ("supervised", "ict", "gaussian noise", "PGD-3"):
        assert word in tables
        assert word in page
    if (browser := find_browser()) is not None:
        check_page(tmp_path / "report" / "report.html", browser)


def test_one_run_gets_its_report(two: tuple[Path, Path], cli: Any) -> None:
    answer = cli("evaluate", two[0], "--studies", "calibration,mistakes")
    assert answer.code == 0, answer.err
    assert (two[0] / "report.html").is_file()
    assert list(Run(two[0]).evaluation()["studies"]) == ["calibration", "mistakes"]
    again = cli("evaluate", two[0], "--studies", "calibration,mistakes")
    assert "2 of 2 studies are finished already" in again.err


def test_settings_from_a_file_and_flags(two: tuple[Path, Path], tmp_path: Path, cli: Any) -> None:
    file = tmp_path / "studies.yaml"
    file.write_text("calibration: {bins: 5}\nmistakes: {count: 3}\n", encoding="utf-8")
    words = ("evaluate", two[0], "--studies", "calibration,mistakes", "--config", file, "--mistakes.count", "2")
    assert cli(*words).code == 0
    studies = Run(two[0]).evaluation()["studies"]
    assert studies["calibration"]["figures"]["bins"] == 5
    assert len(studies["mistakes"]["figures"]["items"]) == 2


def test_a_grid_file_stands_for_its_runs(tmp_path: Path, cli: Any) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        "base: {data: two_moons, labels: 10, recipe: none, network: {name: mlp, hidden: [4]},\n"
        "       training: {steps: 4, device: cpu, threads: 1}}\n"
        "rows: [supervised, mixup]\nseeds: [0]\n",
        encoding="utf-8",
    )
    store = tmp_path / "runs"
    words = ("evaluate", grid, "--store", store, "--output", tmp_path / "report", "--studies", "regions", "--jobs", "1")
    refused = cli(*words)
    assert refused.code == 2
    assert "0 of the 2 runs" in refused.err
    assert cli("benchmark", grid, "--store", store, "--jobs", "1").code == 0
    answer = cli(*words)
    assert answer.code == 0, answer.err
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2
    (next(store.glob("*/evaluation.json"))).unlink()
    assert "1 of the 2 runs" in cli(*words).err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--studies", "robustnes"), "unknown study 'robustnes'; did you mean 'robustness'?"),
        (("--robustness.step", "5"), "robustness.step: unknown setting; did you mean 'steps'?"),
        (("--robustness.steps", "0"), "robustness: steps must be at least 1"),
        (("--fog.n", "5"), "unknown study 'fog'"),
        (("--studies", "calibration", "--robustness.steps", "5"), "robustness: has settings, but is not among"),
        (("--config", "missing.yaml"), "missing.yaml: cannot be read"),
        (("--baseline", "{run}/../b"), "is not among the runs"),
        (("--source", "nowhere"), "nowhere: no such directory"),
        (("--output", "{run}/experiment.yaml"), "is not a folder"),
        (("--jobs", "0"), "--jobs"),
    ],
)
def test_bad_words(words: tuple[str, ...], said: str, two: tuple[Path, Path], cli: Any) -> None:
    before = json.loads((two[0] / "evaluation.json").read_text(encoding="utf-8"))
    answer = cli("evaluate", two[0], *(word.format(run=two[0]) for word in words))
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1
    assert json.loads((two[0] / "evaluation.json").read_text(encoding="utf-8")) == before


def test_the_report_needs_its_extra(two: tuple[Path, Path], cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "jinja2", None)
    answer = cli("evaluate", two[0])
    assert answer.code == 2
    assert "figures" in answer.err
    assert cli("evaluate", two[0], "--studies", "none").code == 0


def test_studies_are_explained(cli: Any) -> None:
    listed = cli("studies").out
    assert all(f"{name} " in listed for name in STUDIES)
    assert all(len(line) <= 80 for line in listed.splitlines())
    assert "--robustness.steps (default: 20)" in cli("studies", "robustness").out
    assert "did you mean 'fgm'?" in cli("studies", "fg").err
