"""What differs between the measurements of runs is told, and only what all of them have is averaged or set side by
side."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from support.report import comparison, entry
from support.report_studies import calibration, corruptions, fgm, robustness, study

from vicinal.reporting import Table, percent
from vicinal.reporting.report import Entry, tables
from vicinal.reporting.report.blocks import Paragraph, Points, Section
from vicinal.reporting.report.comparable import uneven
from vicinal.reporting.report.grouping import Chapter, chapters
from vicinal.reporting.report.published import published
from vicinal.reporting.report.summary import summary


def only(name: str, *each: Mapping[str, Any]) -> Chapter:
    """A chapter of a supervised row and of others, with a study each."""
    methods = ("supervised", "ict", "vat")
    (chapter,) = chapters([entry(method, studies={name: found}) for method, found in zip(methods, each, strict=False)])
    return chapter


def changed(made: Mapping[str, Any], **figures: Any) -> dict[str, Any]:
    return {**made, "figures": {**copy.deepcopy(made["figures"]), **figures}}


def lacking(made: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Corruptions as they are where a kind could not be measured."""
    figures = made["figures"]
    kinds = [each for each in figures["kinds"] if each != kind]
    errors = {name: values for name, values in figures["errors"].items() if name != kind}
    return changed(made, kinds=kinds, errors=errors, mean=0.123)


def other_radii(made: Mapping[str, Any]) -> dict[str, Any]:
    curves = copy.deepcopy(made["figures"]["curves"])
    for each in curves:
        each["epsilons"] = [2 * radius for radius in each["epsilons"]]
    return changed(made, curves=curves)


CORRUPTIONS, ROBUSTNESS, FGM, CALIBRATION = corruptions(0.1), robustness(0.1, 8.0), fgm(0.1, 8.0), calibration(0.1, 0.1)


@pytest.mark.parametrize(
    ("name", "first", "second", "told"),
    [
        ("corruptions", CORRUPTIONS, {**CORRUPTIONS, "settings": {"n": 100}}, "(n)"),
        ("corruptions", CORRUPTIONS, changed(CORRUPTIONS, n=100), "(n)"),
        ("corruptions", CORRUPTIONS, lacking(CORRUPTIONS, "contrast"), "(kinds of corruption)"),
        ("corruptions", CORRUPTIONS, {**CORRUPTIONS, "commit": "another"}, "(commit)"),
        ("corruptions", CORRUPTIONS, {**CORRUPTIONS, "seed": 8}, "(seed)"),
        ("robustness", ROBUSTNESS, robustness(0.1, 8.0, black=False), "(with or without a black box)"),
        ("robustness", ROBUSTNESS, other_radii(ROBUSTNESS), "attack or radii of PGD-20, Linf"),
        ("fgm", FGM, changed(FGM, epsilons=[1.0, 2.0, 3.0, 5.0, 8.0]), "(radii)"),
        ("fgm", FGM, changed(FGM, preprocess="zca_ict"), "(preprocessing)"),
        ("fgm", FGM, changed(FGM, space="pixels", preprocess=None), "(space, preprocessing)"),
        ("calibration", CALIBRATION, changed(CALIBRATION, bins=15), "(bins)"),
    ],
)
def test_studies_that_were_made_otherwise_are_warned_of(
    name: str, first: dict[str, Any], second: dict[str, Any], told: str
) -> None:
    assert uneven(only(name, first, copy.deepcopy(first)), name) is None
    found = uneven(only(name, first, second), name)
    assert found is not None
    assert told in found


def test_errors_alone_are_nothing_to_warn_of() -> None:
    (chapter,) = chapters(comparison())
    assert [uneven(chapter, name) for name in chapter.entries[0].studies if chapter.having(name)] == [None] * 7


def table(title: str, runs: Sequence[Entry]) -> Table:
    (found,) = [each for each in tables(runs) if each.title.startswith(title)]
    return found


def test_means_run_over_the_kinds_that_all_runs_have() -> None:
    """Contrast is the worst of the kinds: who lacks it is not better."""
    chapter = only("corruptions", CORRUPTIONS, lacking(CORRUPTIONS, "contrast"))
    mean = percent([0.1 + 0.03 * 2 * 3])  # of the first three kinds
    (point,) = [each for each in _points(chapter) if each.head == "Corrupted images"]
    assert point.text.startswith(
        "Mean over 3 kinds of corruption that all runs have (gaussian noise, shot noise, defocus blur; severities "
        "1, 2, 3, 4, 5), 200 of the 1000 test examples."
    )
    assert "No clear difference from the baseline: ict." in point.text
    main, kinds = table("Main figures", chapter.entries), table("Error % by kind", chapter.entries)
    assert {line[main.columns.index("corrupted %")] for line in main.rows} == {mean}
    assert any("3 kinds of corruption that all runs have" in note for note in main.notes)
    (line,) = [line for line in kinds.rows if line[0].startswith("mean of 3 kinds that all runs have")]
    assert line[1:] == (mean, mean)
    assert [line[1:] for line in kinds.rows if line[0] == "contrast"] == [(percent([0.46]), "-")]


def test_runs_that_share_no_kind_are_not_compared() -> None:
    other = changed(CORRUPTIONS, kinds=["fog"], errors={"fog": [0.1] * 5, "spatter": [0.1] * 5}, mean=0.1)
    chapter = only("corruptions", CORRUPTIONS, other)
    (point,) = [each for each in _points(chapter) if each.head == "Corrupted images"]
    assert (point.tone, "share no kind" in point.text) == ("warning", True)
    assert "corrupted %" not in table("Main figures", chapter.entries).columns


def _points(chapter: Chapter) -> Sequence[Any]:
    block = summary(chapter).blocks[0]
    assert isinstance(block, Points)
    return block.items


def warnings(section: Section | None) -> list[str]:
    assert section is not None
    return [block.text for block in section.blocks if isinstance(block, Paragraph) and block.tone == "warning"]


def test_each_preprocessing_has_a_table_of_its_own() -> None:
    whitened = changed(FGM, preprocess="zca_ict", epsilons=[1.0, 2.0, 3.0, 5.0, 8.0])
    chapter = only("fgm", FGM, whitened, FGM)
    found = [each for each in tables(chapter.entries) if each.title.startswith("Error % under FGM")]
    assert [each.title.rpartition("(")[2] for each in found] == ["normalise)", "zca_ict)"]
    assert [[line[0] for line in each.rows] for each in found] == [
        ["supervised (w)", "vat (w)", "supervised (b)", "vat (b)"],
        ["ict (w)", "ict (b)"],
    ]
    assert [each.columns[1] for each in found] == ["0.14", "1"]
    assert any("do not compare" in text for text in warnings(published(chapter)))
    assert warnings(published(only("fgm", FGM, FGM))) == []


def test_foreign_preprocessing_of_a_black_box_is_warned_of() -> None:
    foreign = changed(FGM, source_preprocess="zca_ict")
    (text,) = warnings(published(only("fgm", changed(FGM, source_preprocess="normalise"), foreign)))
    assert text.startswith("The black box on ict feeds foreign preprocessing, the source's (zca_ict), into a network")
    assert "may exceed the white box's" in text
    refitted = changed(FGM, source_preprocess="normalise", note="in another way")
    (text,) = warnings(published(only("fgm", refitted)))
    assert "the source's (normalise, fitted otherwise)" in text
    for harmless in (
        FGM,
        changed(FGM, source_preprocess="alias", note=None),
        changed(foreign, space="pixels", preprocess=None),
        changed(foreign, black=None),
    ):
        assert warnings(published(only("fgm", harmless))) == []


def test_flags_have_their_own_number_of_examples() -> None:
    made = copy.deepcopy(ROBUSTNESS)
    for each in made["figures"]["sanity"]:
        each["flags"][1] |= {"n": 200, "claim": "error at 8/255 <= at 16/255, of 200 examples"}
    every = table("Every flag", [entry("ict", studies={"robustness": made})])
    flags = [dict(zip(every.columns, line, strict=True)) for line in every.rows[:2]]
    assert [(flag["examples"], flag["what should hold"]) for flag in flags] == [
        ("100", "first <= second"),
        ("200", "error at 8/255 <= at 16/255, of 200 examples"),
    ]


def test_a_radius_in_a_heading_is_no_percentage() -> None:
    made = copy.deepcopy(ROBUSTNESS)
    for each in made["figures"]["curves"]:
        each["epsilons"] = [radius * 100 / 255 for radius in each["epsilons"]]
    runs = [entry("ict", studies={"robustness": study("Robustness", made["figures"])})]
    assert "error %, PGD-20, Linf radius 5/255" in table("Main figures", runs).columns
    (chapter,) = chapters(runs)
    assert not any("/255 %" in point.text for point in _points(chapter))
