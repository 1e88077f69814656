"""An experiment is a value: it round-trips, its key names its content, and what is laid over what."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vicinal import recipes
from vicinal.errors import InputError
from vicinal.experiment import CHOICES, GROUPS, Experiment, merge, settings_target
from vicinal.methods import METHODS
from vicinal.networks import NETWORKS
from vicinal.settings import settings_of


def described(**more: Any) -> Experiment:
    return Experiment.of(**{"data": "digits", "method": "advmixup", "recipe": "none", **more})


@pytest.mark.parametrize("method", METHODS)
def test_an_experiment_round_trips_through_values_and_yaml(method: str, tmp_path: Path) -> None:
    experiment = described(method=method, labels=50, network={"name": "small_cnn", "widths": [4, 8]}, seed=3)
    assert Experiment.of(experiment.as_dict()) == experiment
    path = tmp_path / "experiment.yaml"
    path.write_text(experiment.to_yaml(), encoding="utf-8")
    assert Experiment.from_yaml(path) == experiment
    assert Experiment.from_yaml(path).key == experiment.key
    # A later change of a default must not change an old run: everything is written out.
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert written["training"].keys() == {item.name for item in dataclasses.fields(experiment.training)}
    assert written["method"].keys() - {"name"} == METHODS[method]().settings().keys()


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_an_experiment_that_round_trips(name: str) -> None:
    experiment = Experiment.of(recipe=name)
    assert experiment.recipe == name
    again = Experiment.of(experiment.as_dict())
    assert again == experiment
    assert again.key == experiment.key


def another(annotation: Any, value: Any) -> Any:
    """A valid value of this type that is another one."""
    choices = [item for item in typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal]
    if not choices and (literal := [a for a in typing.get_args(annotation) if typing.get_origin(a) is typing.Literal]):
        choices = list(typing.get_args(literal[0]))
    if choices:
        return next(item for item in choices if item != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 if value else 0.25
    if value is None:
        return 20 if int in typing.get_args(annotation) or annotation is int else 0.2
    return None


def everywhere() -> list[tuple[str, str, Any]]:
    """Each setting of the small CNN, AdvMixup, the digits and all groups, with another valid value."""
    found = []
    targets = {key: settings_target(key, name) for key, name in (("data", "digits"), ("method", "advmixup"))}
    for key, target in {**targets, **GROUPS}.items():
        for setting in settings_of(target):
            value = another(setting.type, setting.default)
            if value is None:
                continue
            if (key, setting.name) == ("training", "schedule_full"):
                value = 2.0
            if (key, setting.name) == ("training", "devices"):
                value = 5
            if (key, setting.name) in {("training", "batch_labelled"), ("training", "batch_unlabelled")}:
                value = 60
            found.append((key, setting.name, value))
    return found


@pytest.mark.parametrize(("group", "setting", "value"), everywhere())
def test_every_setting_changes_the_key(group: str, setting: str, value: Any) -> None:
    over: dict[str, Any] = {setting: value}
    if group in CHOICES:
        over["name"] = {"data": "digits", "method": "advmixup"}[group]
    changed = described(**{group: over})
    assert changed.key != described().key
    again = Experiment.of(changed.as_dict())
    assert (again, again.key) == (changed, changed.key)


def test_the_other_keys_change_it_too_and_the_recipe_does_not() -> None:
    keys = {described(**more).key for more in ({}, {"seed": 1}, {"preprocess": "none"}, {"network": "mlp"})}
    assert len(keys) == 4
    name = recipes.names()[0]
    named = Experiment.of(recipe=name)
    spelt_out = Experiment.of({**named.as_dict(), "recipe": "none"})
    assert spelt_out.recipe is None
    assert spelt_out.key == named.key
    assert len(named.key) == 12


def test_equal_content_has_an_equal_key_however_it_is_written() -> None:
    one = described(labels=50, method={"name": "advmixup", "weight": 100})
    other = described(split={"labels": 50}, method="advmixup")
    assert one == other
    assert one.key == other.key


with_epsilon = [name for name, kind in METHODS.items() if "epsilon" in kind().settings()]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"trainign": {}}, "trainign: unknown key; did you mean 'training'?"),
        ({"lables": 50}, "lables: unknown key; did you mean 'labels'?"),
        ({"training": {"step": 5}}, "training.step: unknown setting; did you mean 'steps'?"),
        ({"training": {"learning_rat": 5}}, "training.learning_rat: unknown setting; did you mean 'learning_rate'?"),
        ({"split": {"label": 5}}, "split.label: unknown setting; did you mean 'labels'?"),
        ({"augment": {"croop": 1}}, "augment.croop: unknown setting; did you mean 'crop'?"),
        ({"teacher": {"decai": 1}}, "teacher.decai: unknown setting; did you mean 'decay'?"),
        ({"method": {"name": "ict", "wieght": 1}}, "method.wieght: ict has no such setting; did you mean 'weight'?"),
        (
            {"method": {"name": "ict", "epsilon": 1}},
            f"method.epsilon: ict has no such setting ({', '.join(with_epsilon)} have it)",
        ),
        ({"method": "advmixpu"}, "method: unknown method 'advmixpu'; did you mean 'advmixup'?"),
        ({"network": "cnn31"}, "network: unknown 'cnn31'; did you mean 'cnn13'?"),
        ({"network": {"name": "mlp", "hiden": [1]}}, "network.hiden: mlp has no such setting; did you mean 'hidden'?"),
        (
            {"data": {"name": "digits", "test_sise": 5}},
            "data.test_sise: digits has no such setting; did you mean 'test_size'?",
        ),
        ({"preprocess": "normalize"}, "preprocess: unknown layer 'normalize'; did you mean 'normalise'?"),
        ({"recipe": "cifar10-4000/itc"}, "recipe: unknown recipe 'cifar10-4000/itc'; did you mean"),
        ({"training": {"steps": "many"}}, "training.steps: expected int, got 'many'"),
        ({"training": {"steps": 0}}, "training: steps must be at least 1, got 0"),
        ({"training": {"optimizer": "sdg"}}, "training.optimizer: expected one of 'sgd', 'adam', got 'sdg'"),
        ({"training": 5}, "training: expected settings, such as"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
        ({"seed": "x"}, "seed: expected a whole number"),
        ({"seed": True}, "seed: expected a whole number"),
        ({"method": {"weight": 5}}, "method: "),
        ({"labels": "fifty"}, "split.labels: expected"),
        ({"method": {"name": "advmixup", "epsilon": -1}}, "method: epsilon must be at least 0"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_where(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        Experiment.of({"data": "digits", **({} if "method" in values else {"method": "ict"}), **values})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InputError, match=r"^data: missing"):
        Experiment.of(method="ict")
    with pytest.raises(InputError, match=r"^method: missing"):
        Experiment.of(data="digits")


def test_labels_are_short_for_the_split(tmp_path: Path) -> None:
    assert described(labels=50).split.labels == 50
    assert described(labels=50, split={"validation": 7}).split == described(split={"labels": 50, "validation": 7}).split
    path = tmp_path / "experiment.yaml"
    path.write_text(described(labels=50).to_yaml())
    assert Experiment.of(merge(yaml.safe_load(path.read_text()), {"labels": 20})).split.labels == 20


def test_a_recipe_lies_under_what_is_given() -> None:
    name = next(name for name in recipes.names() if name.endswith("/ict"))
    plain = Experiment.of(recipe=name)
    given = Experiment.of(recipe=name, training={"steps": 7}, method={"name": "ict", "weight": 3.0}, labels=20)
    assert given.training == dataclasses.replace(plain.training, steps=7)
    assert given.method.settings == {**plain.method.settings, "weight": 3.0}
    assert given.split == dataclasses.replace(plain.split, labels=20)
    assert given.network == plain.network
    # Another method than the recipe's drops the settings that belonged to it, and keeps the rest.
    other = Experiment.of(recipe=name, method="supervised")
    assert other.method.name == "supervised"
    assert other.network == plain.network
    # It is found by data and method, unless none is wanted.
    data = plain.data.name
    if f"{data}/ict" in recipes.names():
        assert Experiment.of(data=data, method="ict").recipe == f"{data}/ict"
    assert Experiment.of(data=data, method="ict", recipe="none").recipe is None


def test_reading_a_file_names_it_in_every_error(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    for text, words in (
        (None, "cannot be read"),
        ("a: [", "not valid YAML"),
        ("- a", "at the top level"),
        ("data: digits\nmethod: itc", "did you mean 'ict'"),
    ):
        if text is not None:
            path.write_text(text)
        with pytest.raises(InputError) as caught:
            Experiment.from_yaml(path)
        assert str(caught.value).startswith(str(path))
        assert words in str(caught.value)
        assert str(caught.value).count(str(path)) == 1
        assert "\n" not in str(caught.value)


names = st.sampled_from(["ict", "vat", "mixup"])
plain = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 3), max_size=3)
choices = st.one_of(names, st.builds(lambda name, rest: {"name": name, **rest}, names, plain))
values = st.fixed_dictionaries(
    {}, optional={"method": choices, "data": choices, "training": plain, "split": plain, "seed": st.integers(0, 3)}
)


def normal(described: dict[str, Any]) -> dict[str, Any]:
    """Choices as mappings, and empty groups left out, so that equal meaning is equal value."""
    made = {
        key: {"name": item} if key in CHOICES and isinstance(item, str) else item for key, item in described.items()
    }
    return {key: item for key, item in made.items() if item != {}}


@settings(max_examples=200, deadline=None)
@given(values, values)
def test_merging_keeps_what_is_not_named_and_takes_what_is(base: dict[str, Any], over: dict[str, Any]) -> None:
    before = yaml.safe_dump([base, over])
    merged = merge(base, over)
    assert yaml.safe_dump([base, over]) == before  # neither was changed
    merged, base, over = normal(merged), normal(base), normal(over)
    assert merged.keys() == base.keys() | over.keys()
    for key, item in merged.items():
        old, new = base.get(key), over.get(key)
        if new is None:
            assert item == old
        elif not isinstance(new, dict) or old is None:
            assert item == new
        elif key in CHOICES and new["name"] != old["name"]:
            assert item == new  # the settings of another choice are gone
        else:
            assert item == {**old, **new}


@settings(max_examples=100, deadline=None)
@given(values, values, values)
def test_merging_in_any_grouping_is_the_same(first: Any, second: Any, third: Any) -> None:
    """Recipe, file and command line may be laid over each other two at a time, if a choice keeps its name."""
    picked = [{key: item for key, item in one.items() if key not in CHOICES} for one in (first, second, third)]
    left = merge(merge(picked[0], picked[1]), picked[2])
    right = merge(picked[0], merge(picked[1], picked[2]))
    assert normal(left) == normal(right)


@given(values)
@settings(max_examples=50, deadline=None)
def test_nothing_laid_over_changes_nothing(base: dict[str, Any]) -> None:
    assert normal(merge(base, {})) == normal(merge({}, base)) == normal(base)
    assert normal(merge(base, base)) == normal(base)


def test_the_networks_that_are_named_exist() -> None:
    for name in NETWORKS:
        assert described(network=name).network.name == name
