"""What is measured again: other weights, data or code; and what stays as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.assessed import Look, described

import vicinal
from vicinal import assessing
from vicinal.assessing import assess, studies_of
from vicinal.errors import InputError
from vicinal.fitting import fit
from vicinal.runs import Run
from vicinal.studies import Subject


def test_another_run_at_the_same_place_is_measured_anew(trained: dict[str, Path], tmp_path: Path) -> None:
    place = tmp_path / "run"
    for name in ("plain", "other seed"):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(trained[name], place)
        assess([Run(place)], studies_of({}, ["look"]), jobs=1)
        truth = json.loads((trained[name] / "evaluation.json").read_text())
        assert Run(place).evaluation()["provenance"]["seed"] == truth["provenance"]["seed"]
        assert Look.calls[-1][0].split.digest == truth["provenance"]["split"]
    assert len(Look.calls) == 2


def test_data_that_changed_since_are_refused(tmp_path: Path) -> None:
    """Or examples that trained would count as never seen, and old figures stand beside new ones."""
    draws = np.random.default_rng(0)
    x, y = draws.random((60, 4)), np.arange(60) % 2

    def write(test: int) -> None:
        np.savez(
            tmp_path / "data.npz", x_train=x[:40], y_train=y[:40], x_test=x[40 : 40 + test], y_test=y[40 : 40 + test]
        )

    write(10)
    run = fit(described(data=str(tmp_path / "data.npz")), tmp_path / "run", progress=False)
    studies = studies_of({}, ["look"])
    assess([run], studies, jobs=1)
    before = run.evaluation()
    write(20)
    assessing._assembled.cache_clear()
    with pytest.raises(InputError, match="have changed since the run was trained"):
        assess([run], studies, jobs=1)
    assert run.evaluation() == before


def test_what_trained_a_run_stays_what_it_was(runs: dict[str, Run]) -> None:
    values = runs["plain"].evaluation()
    values["provenance"] |= {"commit": "a" * 12, "version": "0.0.1", "command": "vicinal fit"}
    runs["plain"].evaluation_file.write_text(json.dumps(values), encoding="utf-8")
    assess([runs["plain"]], {}, jobs=1, command="vicinal evaluate here")
    about = runs["plain"].evaluation()["provenance"]
    assert (about["commit"], about["version"], about["command"]) == ("a" * 12, "0.0.1", "vicinal fit")
    assert about["evaluated"]["command"] == "vicinal evaluate here"
    assert about["evaluated"]["version"] == vicinal.__version__


def test_studies_of_earlier_calls_stay_while_they_are_true(
    runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs["plain"]
    assess([run], studies_of({}, ["stare"]), jobs=1)
    assess([run], studies_of({}, ["look"]), jobs=1)
    assert list(run.evaluation()["studies"]) == ["look", "stare"]
    monkeypatch.setattr(vicinal, "__version__", "9.9")
    assess([run], studies_of({}, ["look"]), jobs=1)
    assert list(run.evaluation()["studies"]) == ["look"], "another version may measure otherwise"
    assert len(Look.calls) == 2


def test_what_the_machine_could_not_measure_is_tried_again(
    runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(self: Look, subject: Subject, seed: int) -> dict[str, Any]:
        Look.calls.append((subject, seed))
        return {"n": 1, "incomplete": len(Look.calls) < 2}

    monkeypatch.setattr(Look, "__call__", part)
    for _ in range(3):
        assess([runs["plain"]], studies_of({}, ["look"]), jobs=1)
    assert len(Look.calls) == 2
    assert runs["plain"].evaluation()["studies"]["look"]["figures"]["incomplete"] is False
