"""The tables of a report hold the numbers that they were given, each in its place."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from support.report import comparison, curves, entry, every_study
from support.report_studies import LINF, calibration, corruptions, fgm, paths, robustness, smoothness

from vicinal.reporting import Table, percent
from vicinal.reporting.report import Entry, tables
from vicinal.reporting.report.blocks import TableBlock, ink, shade
from vicinal.reporting.report.calibration import pooled
from vicinal.reporting.report.training import POINTS, thinned


@pytest.fixture(autouse=True)
def _nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: object, **__: object) -> str:
        raise AssertionError("tables need no charts")

    monkeypatch.setattr("vicinal.reporting.report.drawing.lines_chart", draw)
    monkeypatch.setattr("vicinal.reporting.report.calibration.reliability_chart", draw)


def table(title: str, runs: Sequence[Entry], **given: Any) -> Table:
    (found,) = [each for each in tables(runs, **given) if each.title.startswith(title)]
    return found


def row(found: Table, *start: str) -> dict[str, str]:
    (line,) = [line for line in found.rows if line[: len(start)] == start]
    return dict(zip(found.columns, line, strict=True))


def with_study(name: str, *each: dict[str, Any], method: str = "ict") -> list[Entry]:
    return [entry(method, seed, studies={name: found}) for seed, found in enumerate(each)]


def test_the_main_table_holds_means_and_deviations_over_seeds() -> None:
    found = table("Main figures", comparison())
    assert [line[0] for line in found.rows] == ["supervised", "ict", "vat", "mean_teacher"]
    errors = [0.05, 0.052, 0.054]
    ict = row(found, "ict")
    assert ict["test error, last %"] == percent(errors) == "5.20 ± 0.20"
    assert ict["selected %"] == percent([0.06] * 3)
    assert ict["ECE %"] == percent([error / 2 for error in errors])
    assert ict["NLL"] == "0.156 ± 0.006"
    assert ict["difference"] == "-5.00 ± 0.00"
    attacked = [
        run.studies["robustness"]["figures"]["curves"][1]["errors"][2] for run in comparison() if run.method == "ict"
    ]
    assert ict["error %, PGD-20, Linf radius 0.05"] == percent(attacked)
    assert ict["corrupted %"] == percent([run.studies["corruptions"]["figures"]["mean"] for run in comparison()[:3]])
    assert ict["seeds"] == "3"
    assert row(found, "supervised")["difference"] == "-"
    assert row(found, "vat")["difference"] == "+5.00 ± 0.00"


def test_columns_that_say_nothing_are_left_out_and_missing_seeds_are_counted() -> None:
    old = entry("ict", 1, 0.1)
    figures = {key: value for key, value in old.evaluation["test"].items() if key != "ece"}
    runs = [entry("ict", 0, 0.1), replace(old, evaluation={**old.evaluation, "test": figures})]
    found = table("Main figures", runs)
    assert row(found, "ict")["ECE %"] == "5.00 (1 of 2)"
    assert not {"difference", "corrupted %", "the same, black box %"} & set(found.columns)
    assert not any("corrupted" in note for note in found.notes)
    assert "ECE %" not in table("Main figures", runs[1:]).columns


def test_one_run_has_its_binomial_error_and_no_deviation() -> None:
    found = row(table("Main figures", [entry("ict", 0, 0.1)]), "ict")
    assert found["test error, last %"] == "10.00 (se 0.95)"
    assert found["ECE %"] == "5.00"


def test_what_is_missing_is_told_below_the_main_table() -> None:
    runs = [entry("supervised", 0, 0.1), entry("ict", 0, 0.1, studies={"corruptions": corruptions(0.1)})]
    found = table("Main figures", runs)
    assert row(found, "supervised")["corrupted %"] == "-"
    assert "-: not measured, or no finite number: corrupted % (supervised)" in found.notes
    assert not any("(k of n)" in note for note in found.notes)
    some = table("Main figures", [entry("ict", 0, 0.1, n=500, studies=every_study(0.1, 8.0)), entry("ict", 1, 0.1)])
    assert row(some, "ict")["corrupted %"].endswith("(1 of 2)")
    assert any(note.startswith("(k of n):") for note in some.notes)
    assert not any(note.startswith(("-:", "(k of n)")) for note in table("Main figures", comparison()).notes)


def test_the_examples_of_an_error_are_those_of_its_run() -> None:
    old = entry("ict", 0, 0.1, n=500)
    without = replace(old, evaluation={**old.evaluation, "test": {"n": 500}})
    found = table("Main figures", [without, entry("ict", 1, 0.1, n=2000)])
    assert row(found, "ict")["test error, last %"] == "10.00 (se 0.67) (1 of 2)"
    assert TableBlock(found).numeric[1]


def test_the_selected_weights_are_named_as_in_files() -> None:
    assert any("selected (best_validation)" in note for note in table("Main figures", [entry()]).notes)


def test_bars_in_names_do_not_end_a_cell_of_markdown() -> None:
    text = Table("t", ("a|b", "c"), (("x|y", "1"), ("z", "2"))).markdown()
    assert [len(line) for line in text.splitlines()[2:]] == [12] * 4
    assert "| x\\|y |" in text


def test_a_run_without_a_validation_part_has_nothing_selected() -> None:
    run = entry("ict", 0, 0.1)
    part = {
        key: value if key == "n" else {**value, "best_validation": None}
        for key, value in run.evaluation["test"].items()
    }
    alone = replace(run, evaluation={**run.evaluation, "test": part, "validation": None})
    assert "selected %" not in table("Main figures", [alone]).columns


def test_without_a_test_part_the_validation_part_is_named() -> None:
    found = table("Main figures, validation part", [entry("ict", 0, 0.1, part="validation")])
    assert found.columns[1] == "validation error, last %"
    assert any("no test part" in note for note in found.notes)


def test_autoencoders_have_a_table_of_their_own() -> None:
    runs = [entry("ict", 0, 0.1), entry("mmd_vae", 0, None)]
    assert [line[0] for line in table("Main figures", runs).rows] == ["ict"]
    found = table("Autoencoders", runs)
    assert found.rows == (("mmd_vae", "0.0147", "18.8", "1"),)
    assert not any(each.title.startswith("Main figures") for each in tables(runs[1:]))


def test_errors_under_attack_by_radius_with_flags_beside() -> None:
    runs = with_study("robustness", robustness(0.1, 8.0), robustness(0.1, 8.0, fails=("more steps",)))
    found = table("Error % under attack by Linf", runs)
    assert found.columns == ("run", "attack", "0", "0.02", "0.05", "0.1", "0.2", "flags")
    assert [line[1] for line in found.rows] == ["PGD-20, white box", "PGD-20, black box", "FGSM (one step), white box"]
    white = row(found, "ict", "PGD-20, white box")
    for radius in LINF:
        assert white[f"{radius:g}"] == percent([1 - 0.9 * math.exp(-8 * radius)] * 2)
    assert white["flags"] == "FAIL in 1 of 2: more steps"
    assert any("any point that the attack visited" in note for note in found.notes)
    every = table("Every flag", runs)
    assert len(every.rows) == 2 * 2 * 5
    assert [line[0] for line in every.rows if line[-1] == "NO"] == ["ict, seed 1"] * 2


def test_advmixups_table_is_laid_out_as_published() -> None:
    runs = [*with_study("fgm", fgm(0.1, 8.0), method="supervised"), *with_study("fgm", fgm(0.05, 4.0))]
    found = table("Error % under FGM", runs)
    assert [line[0] for line in found.rows] == ["supervised (w)", "ict (w)", "supervised (b)", "ict (b)"]
    assert found.columns == ("run", "0.14", "0.29", "0.43", "0.72", "1.2")
    figures = runs[1].studies["fgm"]["figures"]
    assert found.rows[1][1:] == tuple(percent([value]) for value in figures["white"])
    assert found.rows[3][1:] == tuple(percent([value]) for value in figures["black"])
    assert any(note.endswith("our choice") for note in found.notes)
    white_only = table("Error % under FGM", with_study("fgm", fgm(0.1, 8.0, black=False)))
    assert [line[0] for line in white_only.rows] == ["ict (w)"]


def test_calibration_has_a_line_before_and_one_after() -> None:
    found = table("Calibration", with_study("calibration", calibration(0.05, 0.02), calibration(0.07, 0.02)))
    before, after = (dict(zip(found.columns, line, strict=True)) for line in found.rows)
    assert (before["temperature"], after["temperature"]) == ("none", "1.80 ± 0.00")
    assert (before["ECE %"], after["ECE %"]) == (percent([0.05, 0.07]), percent([0.02, 0.02]))
    unscaled = table("Calibration", with_study("calibration", calibration(0.05, None)))
    assert len(unscaled.rows) == 1
    assert "no temperature: there is no validation part to choose a temperature on (all)" in unscaled.notes


def test_pooled_bins_are_those_of_all_examples_together() -> None:
    bins = [calibration(ece, None)["figures"]["before"]["reliability"] for ece in (0.1, 0.3)]
    found = pooled(bins)
    assert [each["count"] for each in found] == [2 * each["count"] for each in bins[0]]
    assert found[7]["accuracy"] == pytest.approx(0.75 - 0.2)
    assert found[0]["accuracy"] is None
    uneven = [[{**bins[0][7], "count": 30}], [{**bins[1][7], "count": 10}]]
    assert pooled(uneven)[0]["accuracy"] == pytest.approx(0.75 - (30 * 0.1 + 10 * 0.3) / 40)


def test_the_heat_map_has_kinds_means_and_severities() -> None:
    runs = with_study("corruptions", corruptions(0.1))
    found = table("Error % by kind", runs)
    assert [line[0] for line in found.rows] == [
        *("no corruption", "gaussian noise", "shot noise", "defocus blur", "contrast"),
        *("mean of 4 kinds", "spatter (extra)", "mean of 1 extra kind"),
    ]
    assert row(found, "gaussian noise")["ict"] == percent([0.1 + 0.03 * 3])
    assert row(found, "mean of 4 kinds")["ict"] == percent([0.1 + 0.03 * 3 * 2.5])
    severities = table("Error % by severity, ict", runs)
    assert row(severities, "contrast") == {"kind": "contrast"} | {
        str(level): percent([0.1 + 0.12 * level]) for level in range(1, 6)
    }


def test_paths_show_their_ends_middle_mean_and_largest() -> None:
    found = row(table("Error % along", with_study("paths", paths(0.1))), "ict", "real-adversarial")
    assert (found["λ = 0"], found["λ = 0.5"], found["λ = 1"]) == ("10.00", "50.00", "10.00")
    assert (found["mean"], found["largest"]) == ("26.00", "50.00")


def test_smoothness_says_over_which_set() -> None:
    found = table("Smoothness", with_study("smoothness", smoothness(0.01), smoothness(0.02)))
    jacobian = row(found, "Jacobian norm ‖J‖₂")
    assert jacobian["over"] == "100 test examples"
    assert jacobian["ict"] == "0.600 ± 0.283 [1.80]"
    assert row(found, "Hessian norm ‖∇²f_y‖₂")["ict"] == "-"
    assert "Hessian norm: zero beside the kinks of a piecewise linear network (all)" in found.notes


def test_provenance_has_everything_and_says_what_was_left_out() -> None:
    runs = [entry("supervised", 0, studies=every_study(0.1, 8.0)), entry("ict", 1)]
    shared, each = table("What all runs", runs), table("Each run", runs)
    values = {*(line[1] for line in shared.rows), *(value for line in each.rows for value in line)}
    for run in runs:
        about = run.provenance
        for key in (
            "seed",
            "split",
            "commit",
            "command",
            "steps",
            "version",
            "recipe",
            "parameters",
            "training_seconds",
        ):
            assert str(about[key]) in values
        assert {str(value) for value in about["machine"].values()} <= values
        assert run.name in values
    left = table("Studies that were left out", runs)
    assert ("Decision regions", "the inputs do not lie in the plane", "supervised 0") in left.rows
    assert ("Robustness", "it was not measured of this run", "ict 1") in left.rows
    made = table("How the studies were made", runs)
    assert ("Robustness", "n 200, steps 20", "7", "2cd34a56d2ba", "supervised 0", "1.5") in made.rows


def test_chapters_stand_before_the_titles_of_several() -> None:
    found = tables([entry(), entry("ict"), entry("ict", data="circles")])
    assert found[0].title == "Chapters"
    assert found[0].rows[0] == ("digits, 50 labels", "test", "2", "10.00", "10.00", "supervised")
    assert found[0].rows[1][3:] == ("-", "10.00", "ict")
    assert all(each.title.startswith(("digits, 50 labels: ", "circles, 50 labels: ")) for each in found[1:])


def test_columns_of_numbers_are_told_from_columns_of_words() -> None:
    rows = (("a", "5.20 ± 0.20", "-", "hold", "10.00 (se 0.95)"), ("b", "1 (2 of 3)", "+1.00", "12", "0.6 [1.8]"))
    assert TableBlock(Table("t", tuple("vwxyz"), rows)).numeric == (False, True, True, False, True)


def test_shades_grow_darker_with_the_error_and_their_ink_can_be_read() -> None:
    def luminance(colour: str) -> float:
        channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    found = [shade(value / 50, 0.0, 1.0) for value in range(51)]
    lights = [luminance(colour) for colour in found]
    assert all(a > b for a, b in itertools.pairwise(lights))
    for colour, light in zip(found, lights, strict=True):
        contrast = (light + 0.05) / 0.05 if ink(colour) == "#000000" else 1.05 / (light + 0.05)
        assert contrast >= 4.5
    assert shade(0.3, 0.0, 0.0) == "#ffffff"


def test_curves_are_thinned_by_means_and_lose_what_is_not_finite() -> None:
    points = curves(0.1, 0)["loss"] * 5
    assert len(points) > POINTS
    found = thinned([(step, value) for step, (_, value) in enumerate(points)])
    assert len(found) <= POINTS
    assert math.fsum(found.values()) / len(found) == pytest.approx(
        math.fsum(v for _, v in points) / len(points), rel=0.02
    )
    assert thinned([(1, math.nan), (2, 3.0)]) == {2.0: 3.0}
