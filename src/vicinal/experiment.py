"""An experiment is a value: the whole description of one run, from data to seed, and nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from vicinal import recipes
from vicinal.data import Augment, Split, source_settings
from vicinal.errors import InputError, nearest
from vicinal.methods import METHODS, Method
from vicinal.networks import NETWORKS, PreprocessName, network_settings
from vicinal.settings import Choice, build, parse_settings
from vicinal.training.config import Training
from vicinal.training.teacher import TeacherSettings

CHOICES: tuple[str, ...] = ("data", "network", "method")
GROUPS: dict[str, type] = {"split": Split, "augment": Augment, "teacher": TeacherSettings, "training": Training}
SCALARS: dict[str, type] = {"preprocess": str, "seed": int, "recipe": str}


def method_class(name: str) -> type[Method]:
    """The method of this name, or at this import path (``my_package.my_module:MyMethod``).

    Raises:
        InputError: there is none.
    """
    if name in METHODS:
        return METHODS[name]
    if ":" in name:
        found = import_path("method", name)
        if isinstance(found, type) and issubclass(found, Method):
            return found
        raise InputError(f"method: {name} is not a subclass of vicinal.methods.Method")
    raise InputError(f"method: unknown method {name!r}; {nearest(name, METHODS)}")


def import_path(where: str, name: str) -> Any:
    """Import ``package.module:attribute``."""
    import importlib

    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{where}: cannot import {name!r}: {error}") from error


def settings_target(group: str, name: str) -> Callable[..., Any]:
    """What the settings of a choice are read off: the data source, the network's builder or the method's class."""
    if group == "data":
        return source_settings(name)
    return network_settings(name) if group == "network" else method_class(name)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The description of one run. Build it with `of`, which fills in defaults and checks everything.

    Args:
        data: data source and its settings.
        split: which training examples are labelled, and which validate.
        augment: augmentation of every view.
        preprocess: preprocessing layer, fitted on clean training images.
        network: architecture and its settings.
        method: method and its settings.
        teacher: how the teacher follows, where the method has one.
        training: optimiser, schedule, batch sizes, engine.
        seed: names every draw.
        recipe: the recipe that the settings started from, for provenance, or None.
    """

    data: Choice
    method: Choice
    network: Choice = field(default_factory=lambda: Choice("auto"))
    split: Split = field(default_factory=Split)
    augment: Augment = field(default_factory=Augment)
    preprocess: PreprocessName = "normalise"
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    training: Training = field(default_factory=Training)
    seed: int = 0
    recipe: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any] | None = None, /, **more: Any) -> Self:
        """Build and check an experiment from nested plain values, as they stand in YAML.

        ``data``, ``network`` and ``method`` may be a name or a mapping with a ``name``; ``labels`` is short for
        ``split.labels``. Without a ``recipe`` the recipe ``<data>/<method>`` is the starting point if there is one;
        ``recipe: none`` starts from the defaults. What is given here wins.

        Raises:
            InputError: an unknown key (the message names the nearest known one), a wrong type, a value out of range.

        >>> Experiment.of(data="digits", method={"name": "ict", "weight": 20}, labels=50).method.settings["weight"]
        20.0
        """
        given = merge(dict(values or {}), more)
        for key in given:
            if key not in (*CHOICES, *GROUPS, *SCALARS, "labels"):
                raise InputError(f"{key}: unknown key; {nearest(key, (*CHOICES, *GROUPS, *SCALARS, 'labels'))}")
        if "labels" in given:
            given = merge(given, {"split": {"labels": given.pop("labels")}})
        given = _with_recipe(given)
        for key in ("data", "method"):
            if key not in given:
                raise InputError(f"{key}: missing; name one, such as {'digits' if key == 'data' else 'advmixup'!r}")
        made: dict[str, Any] = {"recipe": given.get("recipe")}
        for key in CHOICES:
            choice = Choice.of(key, given.get(key, "auto"))
            target = settings_target(key, choice.name)
            if key == "network" and choice.name not in NETWORKS:
                made[key] = choice  # somebody's own class: it checks its settings when it is built
            else:
                made[key] = Choice(choice.name, parse_settings(key, target, choice.settings))
        build("method", method_class(made["method"].name), made["method"].settings)
        for key, group in GROUPS.items():
            value = given.get(key, {})
            if not isinstance(value, Mapping):
                raise InputError(f"{key}: expected a mapping of settings, got {value!r}")
            made[key] = build(key, group, value)
        if "preprocess" in given:
            known = typing.get_args(PreprocessName)
            if given["preprocess"] not in known:
                raise InputError(
                    f"preprocess: unknown layer {given['preprocess']!r}; {nearest(str(given['preprocess']), known)}"
                )
            made["preprocess"] = given["preprocess"]
        seed = given.get("seed", 0)
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise InputError(f"seed: expected a whole number of at least 0, got {seed!r}")
        return cls(seed=seed, **made)

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, complete, that `of` reads back to an equal experiment."""
        values: dict[str, Any] = {}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Choice):
                value = value.as_dict()
            elif dataclasses.is_dataclass(value) and not isinstance(value, type):
                value = dataclasses.asdict(value)
            values[item.name] = value
        values["recipe"] = self.recipe or "none"
        return values

    def to_yaml(self) -> str:
        """The experiment as YAML."""
        import yaml

        return typing.cast(str, yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True))

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read an experiment file.

        Raises:
            InputError: no such file, not YAML, or not an experiment.
        """
        return cls.of(read_yaml(path))

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that name this content; any difference in a setting gives another."""
        values = {name: value for name, value in self.as_dict().items() if name != "recipe"}
        text = json.dumps(values, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    def build_method(self) -> Method:
        """The method with its settings."""
        made: Method = build("method", method_class(self.method.name), self.method.settings)
        return made


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        InputError: no such file, unreadable, not YAML, or not a mapping.
    """
    import yaml

    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a mapping of settings at the top level")
    return {str(key): value for key, value in values.items()}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` laid on it, group by group. A choice of another name drops the settings of the old one.

    >>> merge({"method": {"name": "ict", "weight": 5}}, {"method": {"name": "vat"}})
    {'method': {'name': 'vat'}}
    >>> merge({"training": {"steps": 5}}, {"training": {"devices": 2}})
    {'training': {'steps': 5, 'devices': 2}}
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if key in CHOICES:
            if isinstance(value, Choice):
                value = value.as_dict()
            if isinstance(value, Mapping) and "name" not in value and old is not None:
                value = {"name": Choice.of(key, old).name, **value}
            new = value.get("name") if isinstance(value, Mapping) else value
            if old is not None and Choice.of(key, old).name == new:
                settings = value if isinstance(value, Mapping) else {}
                value = {**Choice.of(key, old).as_dict(), **settings}
        elif isinstance(value, Mapping) and isinstance(old, Mapping):
            value = {**old, **value}
        merged[key] = value
    return merged


def _with_recipe(given: dict[str, Any]) -> dict[str, Any]:
    name = given.pop("recipe", None)
    if name == "none":
        return given
    if name is None:
        if "data" not in given or "method" not in given:
            return given
        name = f"{Choice.of('data', given['data']).name}/{Choice.of('method', given['method']).name}"
        if name not in recipes.names():
            return given
    return {**merge(recipes.load(str(name)), given), "recipe": str(name)}
