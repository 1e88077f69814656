"""Studies of finished runs: once each, kept beside the run, gone on with after an interruption, and refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from vicinal import assessing
from vicinal.assessing import assess, entry, find_sources, studies_of
from vicinal.errors import InputError
from vicinal.experiment import Experiment
from vicinal.fitting import fit
from vicinal.runs import Run
from vicinal.settings import check
from vicinal.studies import Study, Subject

torch.set_num_threads(1)


def described(**more: Any) -> Experiment:
    training = {"steps": 4, "batch_labelled": 5, "threads": 1, "device": "cpu", "log_every": 1}
    values = {"data": "two_moons", "split": {"labels": 10}, "recipe": "none", "method": "supervised"}
    return Experiment.of({**values, "training": training, "network": {"name": "mlp", "hidden": [4]}, **more})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    made = {
        "plain": described(),
        "other seed": described(seed=1),
        "mixup": described(method="mixup"),
        "other data": described(data={"name": "two_moons", "noise": 0.2}),
    }
    return {name: fit(experiment, folder / name, progress=False).path for name, experiment in made.items()}


@pytest.fixture
def runs(trained: dict[str, Path], tmp_path: Path) -> dict[str, Run]:
    return {name: Run(shutil.copytree(path, tmp_path / name)) for name, path in trained.items()}


@dataclass(frozen=True, kw_only=True)
class Look(Study):
    """Looks at a subject.

    Args:
        n: examples to look at.
    """

    n: int = 3

    title: ClassVar[str] = "A look"
    calls: ClassVar[list[tuple[Subject, int]]] = []

    def __post_init__(self) -> None:
        check("n", self.n, low=1)

    def refusal(self, subject: Subject) -> str | None:
        return "there is nothing to see" if self.n == 99 else None

    def __call__(self, subject: Subject, seed: int) -> dict[str, Any]:
        self.calls.append((subject, seed))
        return {"n": subject.count(self.n), "pictures": {"one": "aGk="}}


@dataclass(frozen=True, kw_only=True)
class Stare(Look):
    """Looks at a subject, and at another network."""

    uses_source: ClassVar[bool] = True
    calls: ClassVar[list[tuple[Subject, int]]] = []


@dataclass(frozen=True, kw_only=True)
class Break(Study):
    """Fails."""

    title: ClassVar[str] = "A failure"

    def __call__(self, subject: Subject, seed: int) -> dict[str, Any]:
        raise RuntimeError("not today")


@pytest.fixture(autouse=True)
def _studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assessing, "STUDIES", {"look": Look, "stare": Stare, "break": Break})
    monkeypatch.setattr(Look, "calls", [])
    monkeypatch.setattr(Stare, "calls", [])
    assessing._loaded.cache_clear()


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


def test_the_source_is_part_of_what_figures_depend_on(runs: dict[str, Run]) -> None:
    studies = studies_of({}, ["look", "stare"])
    target = runs["mixup"]
    assess([target], studies, jobs=1)
    for name in ("plain", "other seed"):
        assess([target], studies, sources={str(target.path): runs[name]}, jobs=1)
    assert len(Look.calls) == 1, "a study without a source does not care"
    assert [subject.source_name for subject, _ in Stare.calls] == [
        None,
        *(str(runs[n].path) for n in ("plain", "other seed")),
    ]
    source = Stare.calls[1][0].source
    x, _ = Stare.calls[1][0].batches(4)[0]
    torch.testing.assert_close(source(x), runs["plain"].network("last").network(x))  # type: ignore[misc]


def test_sources_are_supervised_runs_of_another_seed_on_the_same_data(runs: dict[str, Run]) -> None:
    found = find_sources(list(runs.values()))
    named = {Path(path).name: run.path.name for path, run in found.items()}
    assert named == {"plain": "other seed", "other seed": "plain", "mixup": "other seed"}
    assert find_sources([runs["plain"], runs["other data"]]) == {}


def test_a_source_that_is_named(runs: dict[str, Run]) -> None:
    found = find_sources([runs["plain"], runs["mixup"]], runs["mixup"])
    assert {Path(path).name for path in found} == {"plain"}
    with pytest.raises(InputError, match="was trained on other data"):
        find_sources([runs["plain"]], runs["other data"])


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
