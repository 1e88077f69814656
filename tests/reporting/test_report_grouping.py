"""Which runs share a chapter and a row, what rows are called, and how they differ from the baseline."""

from __future__ import annotations

import math
from typing import Any

import pytest
from support.report import comparison, entry

from vicinal.errors import InputError
from vicinal.reporting.report.grouping import Chapter, chapters, differing
from vicinal.reporting.report.numbers import Measure, binomial, difference

ERROR = Measure("test error", lambda run: run.figure("error"), n=lambda run: run.n)
WITHOUT_N = Measure("gamma", lambda run: run.figure("error"), fraction=False)


def only(*runs: Any, baseline: str | None = None) -> Chapter:
    (chapter,) = chapters(runs, baseline)
    return chapter


def test_runs_that_differ_in_the_seed_alone_are_one_row_with_the_baseline_first() -> None:
    chapter = only(*comparison())
    assert [row.label for row in chapter.rows] == ["supervised", "ict", "vat", "mean_teacher"]
    assert [[run.seed for run in row.entries] for row in chapter.rows] == [[0, 1, 2]] * 4
    assert [row.number for row in chapter.rows] == [0, 1, 2, 3]
    assert chapter.baseline is chapter.rows[0]


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({"settings": {"method.alpha": 0.3}}, ["ict (steps 1000)", "ict (steps 500)"]),
        ({"preprocess": "zca"}, ["ict (commit 2cd34a5)", "ict (commit b)"]),
        ({"settings": {"strong.cutout": 0.5}}, ["ict (commit 2cd34a5)", "ict (commit b)"]),
    ],
)
def test_any_difference_but_the_seed_makes_another_row(changes: dict[str, Any], labels: list[str]) -> None:
    """A setting that one of them does not know tells of versions and not of what was asked for."""
    settings = {"training.steps": 500} if labels[1].endswith("500)") else {}
    other = {**changes, "settings": {**changes.get("settings", {}), **settings}, "commit": "b"}
    chapter = only(entry("ict", 0), entry("ict", 1), entry("ict", 2, **other))
    assert [row.label for row in chapter.rows] == labels
    assert [len(row.entries) for row in chapter.rows] == [2, 1]


@pytest.mark.parametrize(
    ("settings", "recipes", "told"),
    [
        ([{"a.x": 1, "b.y": 2}, {"a.x": 2, "b.y": 2}], None, ["x 1", "x 2"]),
        ([{"a.x": 1, "b.y": 2}, {"a.x": 2, "b.y": 3}], None, ["x 1, y 2", "x 2, y 3"]),
        ([{"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 2, "c": 2}], None, ["a 1, ...", "a 2, ..."]),
        ([{"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 2, "c": 2}], ["d/p", "d/q"], ["recipe p", "recipe q"]),
        ([{"a": 1}, {"b": 1}], None, ["variant 1", "variant 2"]),
    ],
)
def test_rows_of_one_method_are_told_apart(
    settings: list[dict[str, int]], recipes: list[str] | None, told: list[str]
) -> None:
    recipes = recipes or ["d/ict", "d/ict"]
    runs = [
        entry("ict", 0, settings={**each, "recipe": recipe}, recipe=recipe, name=f"runs/{i}")
        for i, (each, recipe) in enumerate(zip(settings, recipes, strict=True))
    ]
    assert [row.label for row in only(*runs).rows] == [f"ict ({each})" for each in told]


def test_what_differs_is_listed_with_the_values_of_each_row() -> None:
    runs = (entry("ict", 0, settings={"a.x": 1, "new": 1}), entry("ict", 0, settings={"a.x": 2}, name="b"))
    assert differing(only(*runs).rows) == {"a.x": ["1", "2"], "new": ["1", "-"]}


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"data": "circles"}, "circles, 50 labels"),
        ({"labels": 1000}, "digits, 1000 labels"),
        ({"part": "validation"}, "digits, 50 labels (validation part, content ad38ebc0)"),
    ],
)
def test_other_data_labels_or_parts_are_another_chapter(changes: dict[str, Any], title: str) -> None:
    found = chapters([entry(), entry("ict"), entry("ict", **changes)])
    assert [len(chapter.entries) for chapter in found] == [2, 1]
    assert found[1].title == title
    assert len(chapters([entry(), entry("ict"), entry("vat")])) == 1


def test_the_same_experiment_and_seed_counts_once() -> None:
    chapter = only(entry("ict", 0), entry("ict", 1), entry("ict", 0, name="elsewhere/ict"))
    assert [run.name for run in chapter.entries] == ["runs/ict-0", "runs/ict-1"]
    (line,) = chapter.repeated
    assert line.startswith("elsewhere/ict: the same experiment and seed as runs/ict-0")


def test_the_baseline_is_the_supervised_row_that_shares_splits_or_the_one_named() -> None:
    apart = entry("supervised", 0, split="x", settings={"training.steps": 5}, name="apart")
    runs = (apart, entry("supervised", 0), entry("ict", 0))
    found = only(*runs).baseline
    assert found is not None
    assert found.entries[0].name == "runs/supervised-0"
    named = only(*runs, baseline="runs/ict-0").baseline
    assert named is not None
    assert named.label == "ict"
    assert only(entry("ict", 0)).baseline is None


def test_what_cannot_be_reported_is_refused() -> None:
    with pytest.raises(InputError, match="no runs to report on"):
        chapters([])
    with pytest.raises(InputError, match=r"'runs/itc-0' is none of the runs.*did you mean 'runs/ict-0'"):
        chapters([entry("ict", 0)], "runs/itc-0")
    with pytest.raises(InputError, match="no provenance; evaluate the run again"):
        type(entry())("a", {"test": {}}, "", {}, {}, ())


def test_differences_are_of_runs_with_the_same_seed_and_split() -> None:
    base = [entry("supervised", seed, error) for seed, error in enumerate((0.10, 0.20, 0.30))]
    other = [entry("ict", 0, 0.08), entry("ict", 1, 0.14), entry("ict", 2, 0.01, split="another"), entry("ict", 9, 0.5)]
    rows = only(*base, *other).rows
    found = difference(rows[1], rows[0], ERROR)
    assert found is not None
    assert found.values == pytest.approx((-0.02, -0.06))
    spread = 0.04 / math.sqrt(2) / math.sqrt(2)
    assert found.error == pytest.approx(spread), "which is greater than the binomial one"
    assert difference(only(*base, entry("ict", 9)).rows[1], rows[0], ERROR) is None


@pytest.mark.parametrize(
    ("values", "measure", "verdict"),
    [
        ((0.05, 0.06), ERROR, "lower"),
        ((0.15, 0.16), ERROR, "higher"),
        ((0.10, 0.101), ERROR, "none"),  # the binomial error is 0.9 points
        ((0.10, 0.101), WITHOUT_N, "none"),
        ((0.101, 0.101), WITHOUT_N, "higher"),  # the same on both seeds, and no other error
        ((0.10,), WITHOUT_N, "unknown"),  # one pair, and nothing tells its error
        ((0.5,), WITHOUT_N, "unknown"),
        ((0.101,), ERROR, "none"),
        ((0.075,), ERROR, "none"),  # 1.98 standard errors of 1.26 points
        ((0.074,), ERROR, "lower"),  # 2.06
        ((0.074, 0.074), ERROR, "lower"),
        ((0.075, 0.075), ERROR, "none"),  # more seeds, but the same test examples
    ],
)
def test_a_difference_is_clear_beyond_two_standard_errors(
    values: tuple[float, ...], measure: Measure, verdict: str
) -> None:
    runs = [entry("ict", seed, value) for seed, value in enumerate(values)]
    base, row = only(*(entry("supervised", seed, 0.1) for seed in range(2)), *runs).rows
    found = difference(row, base, measure)
    assert found is not None
    assert found.verdict == verdict


def test_the_binomial_error_does_not_shrink_with_the_seeds() -> None:
    one = math.sqrt(binomial(0.08, 1000) ** 2 + binomial(0.1, 1000) ** 2)
    for seeds in (1, 2, 5):
        runs = [
            entry(method, seed, error)
            for method, error in (("supervised", 0.1), ("ict", 0.08))
            for seed in range(seeds)
        ]
        base, row = only(*runs).rows
        found = difference(row, base, ERROR)
        assert found is not None
        assert found.error == pytest.approx(one)


@pytest.mark.parametrize("n", [1, 20, 1000])
def test_no_mistakes_are_not_without_an_error(n: int) -> None:
    """Two standard errors reach about as far as the bound 3 / n of 95 %, and one mistake has no smaller error."""
    none, all_ = binomial(0.0, n), binomial(1.0, n)
    assert none == all_ == pytest.approx(math.sqrt(2 / (n + 4) * (n + 2) / (n + 4) / (n + 4)))
    assert binomial(min(1.0, 1 / n), n) >= none
    assert n == 1 or 2 * none == pytest.approx(3 / n, rel=0.35)
