"""The table of runs' figures: columns of every run, and those of reconstructions and gates where there are any."""

from __future__ import annotations

from typing import Any

import pytest

from vicinal.cli.output import figures_table

ALWAYS = ("run", "method", "labels", "seed", "last", "best", "validation")


def figures(weights: str = "student", gate: dict[str, Any] | None = None, **test: float) -> dict[str, Any]:
    """What ``evaluation.json`` says, as far as the table reads it."""
    part = {"n": 10, **{name: {"last": value, "best_validation": value / 2} for name, value in test.items()}}
    about = {"method": "ict", "labels": 50, "seed": 3}
    return {"test": part, "validation": None, "weights": weights, "provenance": about} | (
        {"gate": gate} if gate else {}
    )


def rows(**found: dict[str, Any]) -> list[dict[str, str]]:
    table = figures_table(found)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_most_runs_have_neither_reconstructions_nor_a_gate() -> None:
    table = figures_table({"a": figures(error=0.25)})
    assert table.columns == ALWAYS
    assert table.rows == (("a", "ict", "50", "3", "25.00", "12.50", "-"),)
    assert not any("gate" in note for note in table.notes)


def test_an_autoencoder_has_a_psnr_and_no_error() -> None:
    coder, classifier = rows(a=figures(psnr=23.456, squared_error=0.1), b=figures(error=0.5))
    assert (coder["last"], coder["best"], coder["PSNR dB"]) == ("-", "-", "23.5")
    assert (classifier["last"], classifier["PSNR dB"]) == ("50.00", "-")
    assert "gate" not in coder


def test_without_a_test_part_the_validation_part_has_the_psnr() -> None:
    coder = figures()
    coder |= {"test": None, "validation": {"n": 3, "psnr": {"last": 18.0, "best_validation": 19.0}}}
    assert rows(a=coder)[0]["PSNR dB"] == "18.0"


@pytest.mark.parametrize(("rebuilt", "passed", "shown"), [(0.85, True, "10.0 passed"), (0.6, False, "35.0 FAILED")])
def test_a_gate_says_what_reconstructions_lose(rebuilt: float, passed: bool, shown: str) -> None:
    gate = {"accuracy": 0.95, "accuracy_rebuilt": rebuilt, "passed": passed}
    mixed, plain = rows(a=figures(error=0.1, gate=gate), b=figures(error=0.1))
    assert (mixed["gate"], plain["gate"]) == (shown, "-")
    assert "PSNR dB" not in mixed
    (note,) = (note for note in figures_table({"a": figures(gate=gate)}).notes if note.startswith("gate: "))
    assert "above 10 the figures say nothing of the method" in note


def test_a_note_says_whose_weights_they_are() -> None:
    table = figures_table({"a": figures("average"), "b": figures("teacher"), "c": figures("average")})
    assert table.notes[0].endswith("; average or teacher weights")
