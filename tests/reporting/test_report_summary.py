"""What the summary says, each time with numbers that say the opposite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from support.report import comparison, entry
from support.report_studies import calibration, corruptions, robustness, smoothness

from vicinal.evaluation.attacks import radius_text
from vicinal.reporting.report import Entry
from vicinal.reporting.report.blocks import Point, Points
from vicinal.reporting.report.grouping import chapters
from vicinal.reporting.report.measures import Attack, headline
from vicinal.reporting.report.summary import summary


def points(runs: Sequence[Entry], baseline: str | None = None) -> dict[str, Point]:
    (chapter,) = chapters(runs, baseline)
    block = summary(chapter).blocks[0]
    assert isinstance(block, Points)
    assert len({point.head for point in block.items}) == len(block.items)
    return {point.head: replace(point, text=point.text.replace("\N{NO-BREAK SPACE}", " ")) for point in block.items}


def two(base: float, other: float, *, seeds: int = 3, **changes: Any) -> list[Entry]:
    """Supervised runs and ICT's, with errors that hardly vary."""
    runs = [entry("supervised", seed, base + 0.001 * seed) for seed in range(seeds)]
    return [*runs, *(entry("ict", seed, other + 0.001 * seed, **changes) for seed in range(seeds))]


def studied(studies: Sequence[tuple[str, Mapping[str, Any]]], seeds: int = 2) -> list[Entry]:
    """Runs of a method each, on the same splits, with one study."""
    return [
        entry(method, seed, studies={name: dict(each)})
        for method, name, each in ((method, each["title"].lower().split()[0], each) for method, each in studies)
        for seed in range(seeds)
    ]


@pytest.mark.parametrize(
    ("other", "said", "unsaid"),
    [
        (0.05, "Lowest: ict with 5.10 ± 0.10 % (3 seeds); the baseline, supervised: 10.10 ± 0.10 %. Better than the "
               "baseline: ict by 5.00 points.", "Worse"),
        (0.15, "Lowest: supervised with 10.10 ± 0.10 % (3 seeds), which is the baseline: no other run is below it. "
               "Worse than the baseline: ict by 5.00 points.", "Better"),
        (0.099, "No clear difference from the baseline: ict.", "Better"),
        (0.077, "No clear difference from the baseline: ict.", "Better"),  # 1.8 binomial errors of 1000 examples
        (0.101, "No clear difference from the baseline: ict.", "Worse"),
    ],
)  # fmt: skip
def test_the_clean_error_is_better_worse_or_not_clearly_different(other: float, said: str, unsaid: str) -> None:
    text = points(two(0.10, other))["Clean error"].text
    assert said in text
    assert unsaid not in text


def test_rows_on_other_splits_are_not_compared() -> None:
    text = points(two(0.10, 0.05, split="another"))["Clean error"].text
    assert "Not compared, as no run shares seed and split with the baseline: ict." in text
    assert "Better" not in text


def test_without_a_supervised_run_nothing_is_compared() -> None:
    text = points([entry("ict", seed, 0.05) for seed in range(2)])["Clean error"].text
    assert text == "ict: 5.00 ± 0.00 % (2 seeds). There is no supervised run on these data to compare with."


def test_one_run_is_told_with_its_examples_and_binomial_error() -> None:
    text = points([entry("supervised", 0, 0.1)])["Clean error"].text
    assert text == "supervised: 10.00 % (one run, 1000 examples, standard error 0.95)."


def test_a_single_pair_of_runs_is_called_one() -> None:
    text = points([entry("supervised", 0, 0.2), entry("ict", 0, 0.1)])["Clean error"].text
    assert "Better than the baseline: ict by 10.00 points (one pair of runs)." in text


def test_one_pair_without_a_known_error_gets_no_verdict() -> None:
    """Of calibration and smoothness nothing tells the error of one pair."""
    one = {
        "Calibration": studied([("supervised", calibration(0.05, 0.03)), ("ict", calibration(0.01, 0.01))], seeds=1),
        "Smoothness": studied([("supervised", smoothness(0.1)), ("ict", smoothness(0.3))], seeds=1),
    }
    said = {"Calibration": "ict -4.00 points.", "Smoothness": "ict +0.200."}
    for head, runs in one.items():
        text = points(runs)[head].text
        assert f"Difference from the baseline in one pair of runs, no error known: {said[head]}" in text
        assert "Better" not in text
        assert "Worse" not in text


def test_the_examples_are_those_of_the_run_that_has_the_figure() -> None:
    old = entry("supervised", 0, 0.1, n=500)
    without = replace(old, evaluation={**old.evaluation, "test": {"n": 500, "nll": {"last": 0.3}}})
    text = points([without, entry("supervised", 1, 0.1, n=2000)])["Clean error"].text
    assert "(one run, 2000 examples, standard error 0.67)" in text


def test_no_mistakes_have_an_error_too() -> None:
    assert "standard error 0.14" in points([entry("supervised", 0, 0.0)])["Clean error"].text


def test_the_note_tells_the_threshold() -> None:
    (chapter,) = chapters(two(0.10, 0.05))
    note = summary(chapter).blocks[1]
    assert "two standard errors" in str(note)


def test_another_baseline_turns_the_comparison_round() -> None:
    runs = two(0.10, 0.05)
    assert "Better than the baseline: ict by 5.00" in points(runs)["Clean error"].text
    assert "Worse than the baseline: supervised by 5.00" in points(runs, "runs/ict-1")["Clean error"].text


def test_validation_errors_are_called_so() -> None:
    runs = [entry("supervised", 0, 0.1, part="validation")]
    assert "There is no test part: these are validation errors." in points(runs)["Clean error"].text
    assert "no test part" not in points([entry("supervised", 0, 0.1)])["Clean error"].text


@pytest.mark.parametrize(
    ("slope", "said"), [(0.5, "Better than the baseline: ict"), (32.0, "Worse than the baseline: ict")]
)
def test_under_attack_the_middle_radius_of_the_many_steps_counts(slope: float, said: str) -> None:
    runs = studied([("supervised", robustness(0.1, 8.0)), ("ict", robustness(0.1, slope))])
    found = points(runs)
    assert found["Under attack"].text.startswith(
        "White-box error under PGD-20, Linf radius 0.05, 200 of the 1000 test examples. Lowest:"
    )
    assert said in found["Under attack"].text
    assert said in found["Black box"].text
    assert "Black box" not in points(studied([("ict", robustness(0.1, slope, black=False))]))


def test_single_steps_are_never_called_robust() -> None:
    found = points(
        studied([("supervised", robustness(0.1, 8.0, many=False)), ("ict", robustness(0.1, 0.1, many=False))])
    )
    assert found["Under attack"].tone == "warning"
    assert found["Under attack"].text.startswith("Only single-step attacks were run.")
    assert not any("etter" in point.text for head, point in found.items() if head != "Clean error")


def test_the_attack_of_the_summary_does_not_depend_on_any_error() -> None:
    chosen = []
    for slope in (0.1, 4.0, 100.0):
        (chapter,) = chapters(studied([("supervised", robustness(0.1, 8.0)), ("ict", robustness(0.1, slope))]))
        chosen.append(headline(chapter))
    assert chosen == [(Attack("PGD-20", "linf", 20, 1, "pixels", "visited"), 0.05)] * 3


def test_flags_that_fail_stand_in_the_summary() -> None:
    found = points(comparison())["Sanity"]
    assert found.tone == "warning"
    assert found.text.startswith("Flags fail for vat (many steps or one; 3 of 3 runs).")
    good = points([run for run in comparison() if run.method != "vat"])["Sanity"]
    assert (good.tone, good.text[:28]) == ("", "No sign of gradient masking ")
    unchecked = robustness(0.1, 8.0)
    unchecked["figures"]["sanity"] = []
    missing = points(studied([("ict", unchecked)]))["Sanity"]
    assert (missing.tone, "No sanity flags were measured" in missing.text) == ("warning", True)


@pytest.mark.parametrize(("after", "worse"), [(0.02, False), (0.08, True)])
def test_calibration_before_and_after_scaling(after: float, worse: bool) -> None:
    runs = studied([("supervised", calibration(0.05, 0.03)), ("ict", calibration(0.04, after))])
    found = points(runs)
    assert "Better than the baseline: ict by 1.00 points" in found["Calibration"].text
    scaled = found["Temperature scaling"].text
    assert f"supervised 5.00 → 3.00 %; ict 4.00 → {100 * after:.2f} %." in scaled
    assert ("It is worse after scaling for ict." in scaled) == worse
    assert "Temperature scaling" not in points(studied([("ict", calibration(0.05, None))]))


@pytest.mark.parametrize(("mine", "said"), [(0.2, "Worse"), (0.0, "Better")])
def test_corruptions_and_smoothness_are_compared_too(mine: float, said: str) -> None:
    corrupted = points(studied([("supervised", corruptions(0.1)), ("ict", corruptions(mine))]))["Corrupted images"].text
    assert corrupted.startswith("Mean over 4 kinds of corruption, 200 of the 1000 test examples. Lowest:")
    assert f"{said} than the baseline: ict" in corrupted
    smooth = points(studied([("supervised", smoothness(0.1)), ("ict", smoothness(mine))]))["Smoothness"].text
    assert f"{said} than the baseline: ict by {abs(0.1 - mine):.3g}" in smooth


def test_a_failed_gate_is_a_warning() -> None:
    def mixing(rebuilt: float, passed: bool) -> Entry:
        run = entry("varmixup", 0, 0.1)
        gate = {"accuracy": 0.9, "accuracy_rebuilt": rebuilt, "passed": passed}
        return replace(run, evaluation={**run.evaluation, "gate": gate})

    bad = points([mixing(0.7, False)])["Gate"]
    assert bad.tone == "warning"
    assert "accuracy 70.0% on reconstructions" in bad.text
    assert "says nothing of the method" in bad.text
    assert "Gate" not in points([mixing(0.85, True)])


def test_an_autoencoder_is_told_by_what_it_rebuilds() -> None:
    found = points([entry("mmd_vae", 0, None)])
    assert list(found) == ["Reconstruction"]
    assert found["Reconstruction"].text == "mmd_vae rebuilds the test part with 18.8 dB PSNR."


@pytest.mark.parametrize(("value", "text"), [(8 / 255, "8/255"), (0.2, "0.2"), (2 / 255, "2/255"), (0.031, "0.031")])
def test_radii_of_images_are_told_in_levels(value: float, text: str) -> None:
    assert radius_text(value) == text
