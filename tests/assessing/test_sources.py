"""Whose gradients lead black-box attacks on which run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.assessed import Look, Stare, described

from vicinal.assessing import assess, find_sources, studies_of
from vicinal.errors import InputError
from vicinal.fitting import fit
from vicinal.runs import Run


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
    assert (
        find_sources([runs["mixup"], runs["plain"], runs["other seed"]])[str(runs["mixup"].path)] is runs["other seed"]
    )
    assert find_sources([runs["plain"], runs["other data"]]) == {}


def test_a_source_that_is_named(runs: dict[str, Run]) -> None:
    found = find_sources([runs["plain"], runs["mixup"]], runs["mixup"])
    assert {Path(path).name for path in found} == {"plain"}
    with pytest.raises(InputError, match="was trained on other data"):
        find_sources([runs["plain"]], runs["other data"])


def test_a_run_is_not_its_own_source_by_another_name(runs: dict[str, Run], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(runs["plain"].path, target_is_directory=True)
    assert find_sources([runs["plain"]], Run(tmp_path / "link")) == {}
    assert find_sources([runs["plain"], Run(tmp_path / "link")]) == {}


def test_sources_that_preprocess_alike_and_have_the_same_labels_come_first(tmp_path: Path) -> None:
    made = {
        "target": described(method="mixup"),
        "zca": described(preprocess="zca", seed=1),
        "labels": described(split={"labels": 20}, seed=1),
        "same seed": described(),
        "best": described(seed=1),
    }
    runs = {name: fit(experiment, tmp_path / name, progress=False) for name, experiment in made.items()}
    order = ["target", "zca", "labels", "same seed", "best"]
    for expected in ("best", "same seed", "labels", "zca"):
        found = find_sources([runs[name] for name in order])
        assert found[str(runs["target"].path)].path.name == expected
        order.remove(expected)
