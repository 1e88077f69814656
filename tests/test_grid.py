"""Grids: cells by content, nothing done twice, failures told, and a killed grid that goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from vicinal import fitting, grid
from vicinal.errors import InputError
from vicinal.grid import Grid, run_grid, run_path
from vicinal.runs import Run

torch.set_num_threads(1)


def described(**more: Any) -> dict[str, Any]:
    """Two methods by two seeds, each run as short as can be."""
    training = {"steps": 4, "batch_labelled": 5, "batch_unlabelled": 8, "device": "cpu"}
    base = {"data": "two_moons", "recipe": "none", "network": {"name": "mlp", "hidden": [4]}, "training": training}
    return {"base": {**base, "labels": 10}, "rows": ["supervised", "ict"], "seeds": [0, 1], **more}


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which cells were trained in this process, in order."""
    done: list[str] = []
    train = fitting._train

    def counted(parts: Any, run: Run, **more: Any) -> None:
        done.append(run.path.name)
        train(parts, run, **more)

    monkeypatch.setattr(fitting, "_train", counted)
    return done


def test_cells_are_the_product_of_the_axes_in_the_order_of_the_table() -> None:
    grid = Grid.of("g", described(labels=[10, 20], data=["two_moons", "two_circles"], seeds=[5, 3]))
    places = [(cell.data, cell.labels, cell.row, cell.experiment.seed) for cell in grid.cells]
    assert places[:5] == [
        ("two_moons", 10, "supervised", 5), ("two_moons", 10, "supervised", 3), ("two_moons", 10, "ict", 5),
        ("two_moons", 10, "ict", 3), ("two_moons", 20, "supervised", 5),
    ]  # fmt: skip
    assert len(places) == 16
    assert places[-1] == ("two_circles", 20, "ict", 3)
    assert [len(cells) for _, cells in grid.groups()] == [2] * 8
    for cell in grid.cells:
        assert cell.experiment.split.labels == cell.labels
        assert cell.experiment.method.name == cell.row


def test_a_row_may_lay_anything_over_the_base() -> None:
    rows = ["ict", {"label": "ICT 5", "method": {"name": "ict", "weight": 5}, "training": {"steps": 9}}]
    first, second = (cell.experiment for cell in Grid.of("g", described(rows=rows, seeds=[0])).cells)
    assert (first.training.steps, second.training.steps) == (4, 9)
    assert second.training.batch_labelled == 5
    assert (first.method.settings["weight"], second.method.settings["weight"]) == (100.0, 5.0)


def test_a_row_with_its_own_labels_comes_once() -> None:
    rows = ["ict", {"label": "more labels", "method": "supervised", "labels": 100}]
    grid = Grid.of("g", described(labels=[10, 20], rows=rows))
    assert [(cells[0].row, cells[0].labels, len(cells)) for _, cells in grid.groups()] == [
        ("ict", 10, 2), ("more labels", 100, 2), ("ict", 20, 2),
    ]  # fmt: skip


def test_the_baseline() -> None:
    assert Grid.of("g", described()).baseline == "supervised"
    assert Grid.of("g", described(baseline="ict")).baseline == "ict"
    assert Grid.of("g", described(rows=["ict"])).baseline is None
    assert Grid.of("g", described(baseline=None)).baseline is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"row": ["ict"]}, "row: unknown key of a grid; did you mean 'rows'?"),
        ({"rows": []}, "rows: expected a list with at least one entry"),
        ({"rows": "ict"}, "rows: expected a list"),
        ({"rows": [7]}, "rows: expected a method's name or a mapping"),
        ({"rows": [{"method": ["ict"]}]}, "rows: method: expected a name"),
        ({"rows": ["ict", {"label": "ict", "method": "vat"}]}, "rows: two rows have the same label"),
        ({"rows": ["itc"]}, "method: unknown method 'itc'; did you mean 'ict'?"),
        ({"seeds": 3}, "seeds: expected a list"),
        ({"seeds": [1, 1]}, "seeds: an entry is there twice"),
        ({"seeds": [-1]}, "seed: expected a whole number"),
        ({"labels": [10, 10]}, "labels: an entry is there twice"),
        ({"labels": [0]}, "labels"),
        ({"data": ["two_moons", {"name": "two_moons", "noise": 0.3}]}, "data: two entries have the same name"),
        ({"base": ["data"]}, "base: expected a mapping"),
        ({"base": {"data": "digits", "trainign": {}}}, "trainign: unknown key; did you mean 'training'?"),
        ({"baseline": "supervized"}, "baseline: no row is labelled 'supervized'; did you mean 'supervised'?"),
    ],
)
def test_what_is_wrong_with_a_grid_file_is_one_line(values: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(described(**values)))
    with pytest.raises(InputError) as caught:
        Grid.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_finished_cells_are_never_run_twice(
    tmp_path: Path, fits: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    grid = Grid.of("g", described())
    assert run_grid(grid, tmp_path, jobs=1) == {}
    assert sorted(fits) == sorted(cell.experiment.key for cell in grid.cells)
    fits.clear()
    capsys.readouterr()
    assert run_grid(grid, tmp_path, jobs=1) == {}
    assert fits == []
    assert capsys.readouterr().err == "4 of 4 runs are finished already\n"
    # Another grid over the same store shares what it has in common, under whatever name.
    rows = [{"label": "no unlabelled data", "method": "supervised"}]
    assert run_grid(Grid.of("h", described(rows=rows, seeds=[0, 1, 2])), tmp_path, jobs=1) == {}
    assert len(fits) == 1
    # Another setting is another cell.
    fits.clear()
    other = described(seeds=[0])
    other["base"]["training"]["learning_rate"] = 0.05
    run_grid(Grid.of("i", other), tmp_path, jobs=1)
    assert len(fits) == 2


def test_cells_with_the_same_content_run_once(tmp_path: Path, fits: list[str]) -> None:
    rows = ["supervised", {"label": "once more", "method": {"name": "supervised"}}]
    grid = Grid.of("g", described(rows=rows))
    assert len(grid.cells) == 4
    assert run_grid(grid, tmp_path, jobs=1) == {}
    assert len(fits) == 2


def test_a_cell_that_fails_is_told_and_the_others_finish(tmp_path: Path) -> None:
    rows = ["supervised", {"label": "wild", "method": "supervised", "training": {"learning_rate": 1e30}}, "ict"]
    rows.append({"label": "greedy", "method": "supervised", "labels": 5000})
    grid = Grid.of("g", described(rows=rows, seeds=[0]))
    failed = run_grid(grid, tmp_path, jobs=1)
    wild, greedy = (str(run_path(tmp_path, grid.cells[place].experiment)) for place in (1, 3))
    assert failed.keys() == {wild, greedy}
    assert "the loss is not finite" in failed[wild]
    assert "labels: 5000 asked for" in failed[greedy]
    assert Run(run_path(tmp_path, grid.cells[2].experiment)).is_finished
    assert not Path(wild).exists()
    assert not Path(greedy).exists()


def test_an_interrupted_cell_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vicinal.training.module import VicinalModule

    values = described(rows=["ict"], seeds=[0])
    values["base"]["training"] |= {"steps": 6, "checkpoint_every": 2}
    grid = Grid.of("g", values)
    steps: list[int] = []
    step = VicinalModule.training_step

    def stopping(self: VicinalModule, batch: Any, index: int) -> Any:
        steps.append(batch.step)
        if batch.step == 3 and steps.count(3) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, index)

    monkeypatch.setattr(VicinalModule, "training_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_grid(grid, tmp_path, jobs=1)
    assert run_grid(grid, tmp_path, jobs=1) == {}
    assert steps == [0, 1, 2, 3, 4, 5]


SCRIPT = """
import json, sys
from vicinal.grid import Grid, run_grid
failed = run_grid(Grid.of("g", json.loads(sys.argv[1])), sys.argv[2], jobs=2)
print(json.dumps(failed))
"""


def start(values: dict[str, Any], store: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(values), str(store)], start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow  # starts three processes that import everything, twice
def test_a_killed_grid_goes_on_and_its_workers_are_silent_and_use_one_thread(tmp_path: Path) -> None:
    values = described(seeds=[0, 1, 2])
    values["base"]["training"] |= {"steps": 400, "checkpoint_every": 20, "log_every": 5}
    grid = Grid.of("g", values)
    runs = [Run(run_path(tmp_path, cell.experiment)) for cell in grid.cells]
    killed = start(values, tmp_path)
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not any(run.is_finished for run in runs):
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    finished = {run: run.evaluation_file.stat().st_mtime_ns for run in runs if run.is_finished}
    assert 1 <= len(finished) < len(runs)

    again = start(values, tmp_path)
    printed, said = again.communicate(timeout=150)
    assert json.loads(printed) == {}
    assert all(run.is_finished for run in runs)
    assert {run: run.evaluation_file.stat().st_mtime_ns for run in finished} == finished
    assert {run.evaluation()["provenance"]["machine"]["threads"] for run in runs} == {1}
    lines = said.splitlines()
    left = len(runs) - len(finished)
    assert lines[0] == f"{len(finished)} of {len(runs)} runs are finished already"
    assert len(lines) == 1 + left
    assert all(f" of {len(runs)} runs: " in line and line.endswith(" s left") for line in lines[1:])


def test_a_grid_measures_what_it_asks_for_and_no_cell_is_trained_for_it_again(
    tmp_path: Path, fits: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = described(rows=["supervised"])
    plain = Grid.of("g", values)
    assert run_grid(plain, tmp_path, jobs=1) == {}
    fits.clear()
    capsys.readouterr()
    asking = Grid.of("g", {**values, "measure": {"lipschitz": {"n": 20}}})
    runs = [Run(run_path(tmp_path, cell.experiment)) for cell in asking.cells]
    assert [plain.is_done(run) for run in runs] == [True, True]
    assert [asking.is_done(run) for run in runs] == [False, False]
    assert run_grid(asking, tmp_path, jobs=1) == {}
    assert fits == []
    assert [asking.is_done(run) for run in runs] == [True, True]
    assert len(capsys.readouterr().err.splitlines()) == 2  # a line for each run that was measured
    # Once: neither is measured again, and a third run is trained and measured in one go.
    monkeypatch.setattr(grid, "measure", lambda run, measures: pytest.fail("measured again"))
    assert run_grid(asking, tmp_path, jobs=1) == {}
    assert capsys.readouterr().err == "2 of 2 runs are finished already\n"
    monkeypatch.undo()
    more = Grid.of("g", {**values, "seeds": [0, 1, 2], "measure": {"lipschitz": {"n": 20}}})
    assert run_grid(more, tmp_path, jobs=1) == {}
    assert more.is_done(Run(run_path(tmp_path, more.cells[2].experiment)))
    assert len(list(tmp_path.glob("*/measures/*.json"))) == 3


def test_a_measurement_that_fails_is_told_and_the_run_stays(tmp_path: Path) -> None:
    """The two moons reach beyond the pixels that the attack stays within by default."""
    asking = Grid.of("g", described(rows=["supervised"], seeds=[0], measure={"pgd": {"n": 20}}))
    (path,) = (str(run_path(tmp_path, cell.experiment)) for cell in asking.cells)
    failed = run_grid(asking, tmp_path, jobs=1)
    assert failed.keys() == {path}
    assert "give the data's bounds" in failed[path]
    assert "\n" not in failed[path]
    assert Run(path).is_finished
    assert not asking.is_done(Run(path))


def test_progress_is_a_line_for_each_run_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_grid(Grid.of("g", described(rows=["supervised"])), tmp_path, jobs=1)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("1 of 2 runs: supervised seed 0, ")
    assert second.startswith("2 of 2 runs: supervised seed 1, ")
    assert second.endswith(" 0 s left")
