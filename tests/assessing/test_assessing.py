"""Studies of finished runs: once each, kept beside the run, gone on with after an interruption, and refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from support.assessed import Look, Stare

from vicinal import assessing
from vicinal.assessing import assess, entry, studies_of
from vicinal.errors import InputError
from vicinal.runs import Run
from vicinal.studies import Subject


def test_what_is_measured_is_kept_and_not_measured_again(runs: dict[str, Run]) -> None:
    studies = studies_of({"look": {"n": "5"}}, ["look"])
    assert assess([runs["plain"]], studies, jobs=1, command="vicinal evaluate") == {}
    assert [(subject.dataset.name, seed) for subject, seed in Look.calls] == [("two_moons", assessing.SEED)]
    kept = runs["plain"].evaluation()["studies"]["look"]
    assert kept["figures"] == {"n": 5}, "pictures stay out of evaluation.json"
    assert (kept["settings"], kept["left_out"], kept["title"]) == ({"n": 5}, None, "A look")
    before = json.loads(runs["plain"].evaluation_file.read_text())["test"]
    assess([runs["plain"]], studies, jobs=1)
    assert len(Look.calls) == 1
    assert runs["plain"].evaluation()["test"] == before
    assess([runs["plain"]], studies_of({}, ["look"]), jobs=1)
    assert len(Look.calls) == 2, "other settings are another measurement"


def test_the_weights_at_the_end_of_training_are_measured(runs: dict[str, Run]) -> None:
    assess([runs["plain"]], studies_of({}, ["look"]), jobs=1)
    subject, _ = Look.calls[0]
    last = runs["plain"].network("last").network
    x, _ = subject.batches(4)[0]
    torch.testing.assert_close(subject.network(x), last(x), rtol=0, atol=0)
    assert subject.part == "test"


def test_a_study_that_does_not_apply_says_why(runs: dict[str, Run]) -> None:
    assess([runs["plain"]], studies_of({"look": {"n": 99}}, ["look"]), jobs=1)
    kept = runs["plain"].evaluation()["studies"]["look"]
    assert (kept["figures"], kept["left_out"]) == (None, "there is nothing to see")
    assert not Look.calls


def test_one_failure_stops_nothing_else(runs: dict[str, Run]) -> None:
    failed = assess([runs["plain"], runs["mixup"]], studies_of({}, ["look", "break"]), jobs=1)
    assert sorted(failed) == [f"{runs[name].path}: break" for name in ("mixup", "plain")]
    assert set(failed.values()) == {"RuntimeError: not today"}
    assert len(Look.calls) == 2
    assert set(runs["plain"].evaluation()["studies"]) == {"look"}


def test_it_goes_on_after_an_interruption(runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Look, subject: Subject, seed: int) -> dict[str, Any]:
        raise KeyboardInterrupt

    studies = studies_of({}, ["look", "stare"])
    with monkeypatch.context() as patch:
        patch.setattr(Stare, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            assess([runs["plain"]], studies, jobs=1)
    assert (len(Look.calls), len(Stare.calls)) == (1, 0)
    assess([runs["plain"]], studies, jobs=1)
    assert (len(Look.calls), len(Stare.calls)) == (1, 1)


def test_a_damaged_measurement_is_made_anew(runs: dict[str, Run]) -> None:
    studies = studies_of({}, ["look"])
    assess([runs["plain"]], studies, jobs=1)
    (kept,) = (runs["plain"].path / "measures").iterdir()
    kept.write_text(kept.read_text()[:20], encoding="utf-8")
    assess([runs["plain"]], studies, jobs=1)
    assert len(Look.calls) == 2


def test_an_unfinished_training_is_refused(runs: dict[str, Run]) -> None:
    runs["plain"].last.unlink()
    with pytest.raises(InputError, match="no such checkpoint"):
        assess([runs["plain"]], studies_of({}, ["look"]), jobs=1)


@pytest.mark.parametrize(
    ("given", "only", "message"),
    [
        ({"lok": {}}, None, "unknown study 'lok'; did you mean 'look'?"),
        ({}, ["look", "stair"], "unknown study 'stair'"),
        ({"look": {"m": 3}}, None, "look.m: unknown setting"),
        ({"look": {"n": "many"}}, None, "look.n: expected int"),
        ({"look": {"n": 0}}, None, "look: n must be at least 1"),
        ({"look": {}}, ["stare"], "look: has settings, but is not among"),
    ],
)
def test_bad_settings(given: dict[str, Any], only: list[str] | None, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        studies_of(given, only)


def test_what_a_report_gets(runs: dict[str, Run]) -> None:
    studies = studies_of({}, ["look"])
    assess([runs["mixup"]], studies, jobs=1)
    found = entry(runs["mixup"], studies)
    assert found.name == str(runs["mixup"].path)
    assert found.studies["look"]["figures"]["pictures"] == {"one": "aGk="}
    assert [step for step, _ in found.metrics["loss"]] == [1, 2, 3, 4]
    assert all(isinstance(value, float) for _, value in found.metrics["loss"])
    assert found.classes == runs["mixup"].network("last").classes
