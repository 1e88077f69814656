"""Settings of an experiment that a method starts from: below the recipe, the file and the flags; with mutations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vicinal import experiment as experiments
from vicinal import recipes
from vicinal.cli.experiments import read_experiment
from vicinal.experiment import Experiment
from vicinal.methods import ICT, METHODS
from vicinal.training.averaging import AveragingSettings


def described(**more: Any) -> Experiment:
    return Experiment.of(**{"data": "digits", "recipe": "none", **more})


class Inclined(ICT):
    """ICT that starts from other settings than most methods."""

    experiment: ClassVar[Mapping[str, Any]] = {
        "training": {"optimizer": "adam", "learning_rate": 0.25, "steps": 77},
        "averaging": {"kind": "ema", "decay": 0.5},
        "network": {"name": "mlp", "hidden": [7]},
    }


@pytest.fixture
def inclined(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of ict: its recipe and its name are there."""
    monkeypatch.setitem(METHODS, "ict", Inclined)


@pytest.mark.usefixtures("inclined")
def test_a_methods_own_defaults_are_where_it_starts() -> None:
    bare = described(method="ict")
    assert (bare.training.optimizer, bare.training.learning_rate, bare.training.steps) == ("adam", 0.25, 77)
    assert bare.averaging == AveragingSettings(kind="ema", decay=0.5)
    assert (bare.network.name, bare.network.settings["hidden"]) == ("mlp", (7,))
    # Nothing else is touched, and no other method starts from them.
    plain = described(method="mean_teacher")
    assert bare.training == dataclasses.replace(plain.training, optimizer="adam", learning_rate=0.25, steps=77)
    assert (plain.averaging.kind, plain.network.name) == ("none", "auto")


@pytest.mark.usefixtures("inclined")
def test_they_lose_to_a_recipe_setting_by_setting() -> None:
    bare = described(method="ict")
    recipe = recipes.load("digits/ict")
    found = Experiment.of(data="digits", method="ict")
    assert found.recipe == "digits/ict"
    assert "steps" in recipe["training"]
    for name in ("optimizer", "learning_rate", "steps"):
        assert getattr(found.training, name) == recipe["training"].get(name, getattr(bare.training, name)), name
    assert found.network.name == (
        recipe["network"] if isinstance(recipe["network"], str) else recipe["network"]["name"]
    )
    assert found.averaging == bare.averaging


@pytest.mark.usefixtures("inclined")
def test_they_lose_to_a_file_to_flags_and_to_values(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text("{data: digits, method: ict, training: {steps: 5}, averaging: {kind: none}, network: small_cnn}")
    flags = {"training": {"steps": "5"}, "averaging": {"kind": "none"}}
    for over in (
        Experiment.from_yaml(path),
        read_experiment(
            {"recipe": "none", "data": "digits", "method": "ict", "network": "small_cnn", "settings": flags}
        ),
        described(method="ict", training={"steps": 5}, averaging={"kind": "none"}, network="small_cnn"),
    ):
        assert (over.training.steps, over.training.optimizer) == (5, "adam")
        assert (over.averaging.kind, over.averaging.decay) == ("none", 0.5)
        assert over.network.name == "small_cnn"
    assert described(method="ict", network={"hidden": [3]}).network.settings["hidden"] == (3,)
    assert described(method="ict", averaging={}) == described(method="ict")


@pytest.mark.usefixtures("inclined")
def test_what_was_written_out_does_not_start_from_a_methods_defaults_again(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    for over in (
        {},
        {"averaging": {"kind": "none"}},
        {"training": {"optimizer": "sgd", "steps": 1000}, "network": "auto"},
    ):
        made = described(method="ict", **over)
        path.write_text(made.to_yaml(), encoding="utf-8")
        assert Experiment.from_yaml(path) == made
        assert Experiment.from_yaml(path).key == made.key
        assert Experiment.of(made.as_dict()) == made
    assert made.network.name == "auto"


def test_a_methods_own_defaults_are_settings_of_an_experiment() -> None:
    for name, kind in METHODS.items():
        made = described(method=name).as_dict()
        for group, settings in kind.experiment.items():
            given = {"name": settings} if isinstance(settings, str) else settings
            assert {key: made[group][key] for key in given} == dict(given), name


@pytest.mark.usefixtures("inclined")
def test_laid_on_top_they_would_be_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The mutation that lets the method win over everybody."""
    merge = experiments.merge

    def wrong(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
        return merge(over, base) if "averaging" in base and "data" in over else merge(base, over)

    monkeypatch.setattr(experiments, "merge", wrong)
    test_a_methods_own_defaults_are_where_it_starts()
    for check in (
        test_they_lose_to_a_recipe_setting_by_setting,
        lambda: test_they_lose_to_a_file_to_flags_and_to_values(tmp_path),
        lambda: test_what_was_written_out_does_not_start_from_a_methods_defaults_again(tmp_path),
    ):
        with pytest.raises(AssertionError):
            check()
