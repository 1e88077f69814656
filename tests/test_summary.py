"""A grid's table: its numbers against numbers worked out by hand, and what it says where something is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vicinal.errors import InputError
from vicinal.grid import Grid, run_path
from vicinal.measuring import _path
from vicinal.runs import Run
from vicinal.summary import collect, grid_table


def run(
    seed: int,
    last: float | None,
    best: float | None,
    *,
    labels: int = 50,
    seconds: float = 2.0,
    test: bool = True,
    **about: Any,
) -> dict[str, Any]:
    """What ``evaluation.json`` says, as far as the table reads it."""
    part = None if last is None else {"n": 100, "error": {"last": last, "best_validation": best}}
    provenance = {
        "seed": seed,
        "labels": labels,
        "training_seconds": seconds,
        "backbone": "mlp",
        "parameters": 1234,
        "steps": 600,
        "preprocess": "normalise",
        "space": None,
        "commit": "abc123",
        "version": "0.1.0",
        "machine": {"torch": "2.13.0", "processor": "a processor"},
    }
    return {
        "test": part if test else None,
        "validation": {"n": 10, "error": {"last": 0.5, "best_validation": 0.25}} if last is not None else None,
        "provenance": provenance | about,
    }


def results(*rows: tuple[str, list[dict[str, Any]]], asked: int = 3, **values: Any) -> dict[str, Any]:
    made = [{"data": "digits", "row": name, "seeds_asked": asked, "runs": runs} for name, runs in rows]
    return {"grid": "g", "title": "T", "about": "", "baseline": "supervised", "command": None, "rows": made} | values


SUPERVISED = ("supervised", [run(0, 0.20, 0.18), run(1, 0.30, 0.28), run(2, 0.40, 0.38)])
ICT = ("ict", [run(0, 0.05, 0.06, seconds=1), run(1, 0.10, 0.09, seconds=2), run(2, 0.15, 0.15, seconds=6)])


def cells(values: dict[str, Any]) -> list[dict[str, str]]:
    table = grid_table(values)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_numbers_against_those_worked_out_by_hand() -> None:
    supervised, ict = cells(results(SUPERVISED, ICT))
    # Standard deviations of three equally spaced values with n - 1: their distance.
    assert supervised == {
        "method": "supervised",
        "labels": "50",
        "test error %": "30.00 ± 10.00",
        "selected": "28.00 ± 10.00",
        "ratio": "1.00",
        "seeds": "3",
        "s": "2.0",
    }
    assert ict["test error %"] == "10.00 ± 5.00"
    # Mean 10, squares 16 + 1 + 25 over 2: 4.58.
    assert ict["selected"] == "10.00 ± 4.58"
    assert ict["ratio"] == "0.33"
    assert ict["s"] == "3.0"


def test_one_seed_has_no_deviation() -> None:
    (row,) = cells(results(("ict", [run(4, 0.1234, 0.2)]), asked=1))
    assert row["test error %"] == "12.34"


def test_an_unfinished_grid_says_how_many_and_compares_equal_seeds() -> None:
    half = ("ict", [run(1, 0.10, 0.09)])
    nothing = ("vat", [])
    _, ict, vat = cells(results(SUPERVISED, half, nothing))
    assert ict["seeds"] == "1 of 3"
    assert ict["ratio"] == "0.33"  # 0.10 / 0.30 of the same seed; of the mean over all seeds it would be the same
    _, other, _ = cells(results(SUPERVISED, ("ict", [run(2, 0.10, 0.09)]), nothing))
    assert other["ratio"] == "0.25"  # 0.10 / 0.40
    assert (vat["labels"], vat["test error %"], vat["ratio"], vat["seeds"], vat["s"]) == (
        "-",
        "-",
        "-",
        "0 of 3",
        "-",
    )


@pytest.mark.parametrize("baseline", [None, "supervised"])
def test_a_missing_baseline_leaves_its_column_empty(baseline: str | None) -> None:
    (row,) = cells(results(ICT, baseline=baseline))
    assert row["ratio"] == "-"
    perfect = ("supervised", [run(seed, 0.0, 0.0) for seed in range(3)])
    assert [row["ratio"] for row in cells(results(perfect, ICT))] == ["-", "-"]


def test_the_baseline_is_that_of_the_same_number_of_labels_and_data() -> None:
    more = [run(seed, 0.10, 0.1, labels=100) for seed in range(3)]
    values = results(SUPERVISED, ICT, ("supervised", more), ("ict", [run(0, 0.05, 0.05, labels=100)]))
    assert [row["ratio"] for row in cells(values)] == ["1.00", "0.33", "1.00", "0.50"]
    values["rows"][2]["data"] = values["rows"][3]["data"] = "moons"
    table = grid_table(values)
    assert table.columns[0] == "data"
    assert [row[0] for row in table.rows] == ["digits", "digits", "moons", "moons"]


def test_perfect_runs_are_counted_where_there_are_any() -> None:
    assert "perfect" not in grid_table(results(SUPERVISED, ICT)).columns
    solved = ("ict", [run(0, 0.0, 0.0), run(1, 0.10, 0.0), run(2, 0.0, 0.0)])
    assert [row["perfect"] for row in cells(results(SUPERVISED, solved))] == ["0 of 3", "2 of 3"]


def test_validation_stands_in_for_a_test_part_and_says_so() -> None:
    rows = ("ict", [run(seed, 0.1, 0.1, test=False) for seed in range(3)])
    table = grid_table(results(rows))
    assert "50.00 ± 0.00" in table.rows[0]
    assert "25.00 ± 0.00" in table.rows[0]
    assert "no test part: validation errors" in table.notes
    assert "no test part: validation errors" not in grid_table(results(ICT)).notes


def test_runs_that_measured_nothing_are_counted_as_runs() -> None:
    (row,) = cells(results(("ict", [run(seed, None, None) for seed in range(3)])))
    assert (row["test error %"], row["seeds"]) == ("-", "3")


def test_notes_say_how_the_numbers_were_made() -> None:
    adversarial = ("advmixup", [run(5, 0.1, 0.1, space="pixels", commit=None)])
    table = grid_table(results(SUPERVISED, adversarial, about="About it.", command="vicinal benchmark g.yaml"))
    notes = "\n".join(table.notes)
    for text in (
        "About it.",
        "seeds 0, 1, 2, 5",
        "mlp (1234 parameters)",
        "600 steps",
        "advmixup: pixels",
        "commit abc123, unknown",
        "torch 2.13.0",
        "command: vicinal benchmark g.yaml",
    ):
        assert text in notes
    assert "supervised: None" not in notes


def calibrated(seed: int, ece: float, **more: Any) -> dict[str, Any]:
    made = run(seed, 0.1, 0.1, **more)
    made["test"]["ece"] = {"last": ece, "best_validation": ece / 2}
    return made


def test_calibration_stands_beside_the_error_where_it_is_known() -> None:
    assert "ECE %" not in grid_table(results(SUPERVISED, ICT)).columns
    assert not any("ECE" in note for note in grid_table(results(SUPERVISED, ICT)).notes)
    values = results(SUPERVISED, ("ict", [calibrated(0, 0.01), calibrated(1, 0.03)]))
    assert [row["ECE %"] for row in cells(values)] == ["-", "2.00 ± 1.41"]
    assert any("ECE: expected calibration error, 15 equal bins" in note for note in grid_table(values).notes)


def with_measures(seed: int, **found: Any) -> dict[str, Any]:
    return run(seed, 0.1, 0.1) | {"measures": found}


def test_measurements_are_columns_before_the_seeds_and_a_note_each() -> None:
    asked = {
        "pgd": {"epsilon": 0.1, "step_size": None, "bounds": (0.0, 1.0), "n": 500},
        "lipschitz": {"d_y": "kl", "n": None},
    }
    full = [with_measures(seed, pgd={"error": 0.2 + seed / 10}, lipschitz={"mean": 1.0 + seed}) for seed in range(3)]
    part = [
        with_measures(0, pgd={"error": 0.5}, lipschitz=None),
        with_measures(1, pgd=None, lipschitz=None),
        run(2, 0.1, 0.1),
    ]
    values = results(("supervised", full), ("ict", part), measures=asked)
    table = grid_table(values)
    assert table.columns[-4:] == ("PGD error %", "Lipschitz", "seeds", "s")
    rows = cells(values)
    assert [row["PGD error %"] for row in rows] == ["30.00 ± 10.00", "50.00 (1 of 3)"]
    assert [row["Lipschitz"] for row in rows] == ["2 ± 1", "-"]
    assert [row["seeds"] for row in rows] == ["3", "3"]
    assert "PGD error %: pgd on the test part, epsilon 0.1, bounds 0.0 1.0, n 500" in table.notes
    assert "Lipschitz: lipschitz on the test part, d_y kl" in table.notes
    # The same from the file that the figures are kept in.
    assert grid_table(json.loads(json.dumps(values))) == table
    single = [with_measures(0, lipschitz={"mean": 0.1234})]
    assert cells(results(("ict", single), asked=1, measures={"lipschitz": {}}))[0]["Lipschitz"] == "0.123"


def gated(seed: int, rebuilt: float, *, passed: bool, **more: Any) -> dict[str, Any]:
    gate = {"n": 9, "psnr": 20.0 + seed, "accuracy": 0.9, "accuracy_rebuilt": rebuilt, "passed": passed}
    return run(seed, 0.1, 0.1, **more) | {"gate": gate}


def test_a_note_says_how_good_reconstructions_were_and_shouts_where_they_were_not() -> None:
    good = ("varmixup", [gated(0, 0.85, passed=True), gated(2, 0.87, passed=True)])
    bad = ("other", [gated(0, 0.5, passed=False), gated(1, 0.85, passed=True)])
    notes = grid_table(results(SUPERVISED, good, bad)).notes
    assert (
        "varmixup: reconstructions 21.0 dB and 86.0% accuracy of a plain classifier (90.0% on the images): gate passed"
        in notes
    )
    (failed,) = (note for note in notes if note.startswith("other: "))
    assert failed.endswith("GATE FAILED (1 of 2), the row says nothing of the method")
    assert not any(note.startswith("supervised: ") for note in notes)


def test_a_gate_that_failed_on_one_of_several_tasks_is_not_lost() -> None:
    values = results(
        ("varmixup", [gated(0, 0.5, passed=False)]), ("varmixup", [gated(0, 0.9, passed=True, labels=100)])
    )
    found = [note for note in grid_table(values).notes if note.startswith("varmixup")]
    assert [note.split(":")[0] for note in found] == ["varmixup (digits, 50 labels)", "varmixup (digits, 100 labels)"]
    assert ["FAILED" in note for note in found] == [True, False]


def test_runs_that_measure_no_error_have_no_error() -> None:
    """Autoencoders: squared error and PSNR instead."""
    coder = run(0, 0.1, 0.1)
    coder["test"] = {"n": 9, "squared_error": {"last": 0.1, "best_validation": 0.1}}
    supervised, row = cells(results(SUPERVISED, ("mmd_vae", [coder])))
    assert (supervised["test error %"], row["test error %"], row["ratio"]) == ("30.00 ± 10.00", "-", "-")


def test_a_note_says_whose_weights_were_measured() -> None:
    def noted(weights: str) -> str:
        values = results(("ict", [run(0, 0.1, 0.1) | {"weights": weights}]))
        return next(note for note in grid_table(values).notes if note.startswith("mean ±"))

    assert noted("teacher").endswith("teacher weights where the method has a teacher")
    assert noted("average").endswith("teacher weights where the method has a teacher, an average's where one is taken")


def test_collecting_takes_what_was_measured_with_these_settings(tmp_path: Path) -> None:
    values = {"base": {"data": "digits"}, "rows": ["supervised"], "measure": {"lipschitz": {"n": 5}}}
    grid = Grid.of("g", {**values, "seeds": [0, 1]})
    for cell in grid.cells:
        folder = run_path(tmp_path, cell.experiment)
        (folder / "measures").mkdir(parents=True)
        (folder / "evaluation.json").write_text(json.dumps(run(cell.experiment.seed, 0.2, 0.1)), encoding="utf-8")
    first = Run(run_path(tmp_path, grid.cells[0].experiment))
    _path(first, "lipschitz", grid.measures["lipschitz"]).write_text('{"figures": {"mean": 3.0}}')
    other = Grid.of("g", {**values, "measure": {"lipschitz": {"n": 6}}})
    found, another = collect(grid, tmp_path), collect(other, tmp_path)
    assert [part["measures"] for part in found["rows"][0]["runs"]] == [
        {"lipschitz": {"mean": 3.0}},
        {"lipschitz": None},
    ]
    assert cells(found)[0]["Lipschitz"] == "3 (1 of 2)"
    assert cells(another)[0]["Lipschitz"] == "-"
    assert json.loads(json.dumps(found)) == found


def test_collecting_takes_the_finished_runs_of_the_grid_and_no_others(tmp_path: Path) -> None:
    grid = Grid.of("g", {"base": {"data": "digits"}, "rows": ["supervised", "ict"], "seeds": [0, 1]})
    with pytest.raises(InputError, match="none of its 4 runs is finished"):
        collect(grid, tmp_path)
    for cell in (grid.cells[1], grid.cells[2]):
        folder = run_path(tmp_path, cell.experiment)
        folder.mkdir()
        (folder / "evaluation.json").write_text(json.dumps(run(cell.experiment.seed, 0.2, 0.1)), encoding="utf-8")
    (tmp_path / "another").mkdir()
    found = collect(grid, tmp_path, command="c")
    assert [[part["provenance"]["seed"] for part in row["runs"]] for row in found["rows"]] == [[1], [0]]
    assert [row["seeds_asked"] for row in found["rows"]] == [2, 2]
    assert json.loads(json.dumps(found)) == found
    assert [row["seeds"] for row in cells(found)] == ["1 of 2", "1 of 2"]
    # Seeds 1 and 0 have no seed in common, so there is nothing to compare.
    assert [row["ratio"] for row in cells(found)] == ["1.00", "-"]
