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
from vicinal.data import SOURCES, Augment, Split, Strong, source_settings
from vicinal.errors import InputError, nearest
from vicinal.methods import METHODS, Method
from vicinal.networks import NETWORKS, PreprocessName, network_settings, split_weights
from vicinal.settings import Choice, build, parse_settings, read_yaml, settings_of, shortened
from vicinal.training.averaging import AveragingSettings
from vicinal.training.config import Training
from vicinal.training.teacher import TeacherSettings

CHOICES: tuple[str, ...] = ("data", "network", "method")
_EXAMPLES = {
    "split": "{labels: 50}",
    "augment": "{crop: 2}",
    "strong": "{operations: 2}",
    "teacher": "{decay: 0.99}",
    "averaging": "{kind: ema}",
    "training": "{steps: 1000}",
}
GROUPS: dict[str, type] = {
    "split": Split,
    "augment": Augment,
    "strong": Strong,
    "teacher": TeacherSettings,
    "averaging": AveragingSettings,
    "training": Training,
}
SCALARS: tuple[str, ...] = ("preprocess", "seed", "recipe")
_REGISTRIES: dict[str, Mapping[str, Callable[..., Any]]] = {"data": SOURCES, "network": NETWORKS, "method": METHODS}


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
        found = importlib.import_module(module)
    except Exception as error:  # whatever the code there raises
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise InputError(f"{where}: cannot import {name!r}: {kind}{error}") from error
    if not hasattr(found, attribute):
        public = [item for item in vars(found) if not item.startswith("_")]
        raise InputError(f"{where}: {module!r} has no {attribute!r}; {nearest(attribute, public)}")
    return getattr(found, attribute)


def settings_target(group: str, name: str, *, recorded: bool = False) -> Callable[..., Any]:
    """What the settings of a choice are read off: the data source, the network's builder or the method's class."""
    if group == "data":
        return source_settings(name, recorded=recorded)
    return network_settings(name) if group == "network" else method_class(name)


def all_settings() -> dict[str, list[str]]:
    """Names of the settings of each group, those of a choice being the settings of all that can be chosen."""
    targets = {key: list(registry.values()) for key, registry in _REGISTRIES.items()}
    targets |= {key: [group] for key, group in GROUPS.items()}
    names = {
        key: list(dict.fromkeys(setting.name for kind in kinds for setting in settings_of(kind)))
        for key, kinds in targets.items()
    }
    return {**names, "network": [*names["network"], "weights"]}


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
        strong: strong augmentation, where the method asks for strong views.
        teacher: how the teacher follows, where the method has one.
        averaging: which average of the student's weights is evaluated.
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
    strong: Strong = field(default_factory=Strong)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    averaging: AveragingSettings = field(default_factory=AveragingSettings)
    training: Training = field(default_factory=Training)
    seed: int = 0
    recipe: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any] | None = None, /, **more: Any) -> Self:
        """Build and check an experiment from nested plain values, as they stand in YAML.

        ``data``, ``network`` and ``method`` may be a name or a mapping with a ``name``; ``labels`` is short for
        ``split.labels``. Without a ``recipe`` the recipe ``<data>/<method>`` is the starting point if there is one;
        ``recipe: none`` starts from the method's own defaults. What is given here wins.

        Raises:
            InputError: an unknown key (the message names the nearest known one), a wrong type, a value out of range.

        >>> Experiment.of(data="digits", method={"name": "ict", "weight": 20}, labels=50).method.settings["weight"]
        20.0
        """
        return cls._read(merge(values or {}, more))

    @classmethod
    def _read(cls, given: dict[str, Any], *, recorded: bool = False) -> Self:
        for key in given:
            if key not in (*CHOICES, *GROUPS, *SCALARS):
                raise InputError(f"{key}: unknown key; {nearest(str(key), (*CHOICES, *GROUPS, *SCALARS, 'labels'))}")
        given = _with_recipe(given)
        for key in ("data", "method"):
            if key not in given:
                raise InputError(f"{key}: missing; name one, such as {'digits' if key == 'data' else 'advmixup'!r}")
        default = method_class(Choice.of("method", given["method"]).name).experiment
        given = merge({"network": "auto", **default}, given)
        made: dict[str, Any] = {"recipe": given.get("recipe")}
        for key in CHOICES:
            choice = Choice.of(key, given[key])
            target = settings_target(key, choice.name, recorded=recorded)
            # Where a network starts from is no setting of its builder; left out of the content where it is not given.
            choice, weights = split_weights(choice, target) if key == "network" else (choice, None)
            settings = choice.settings  # somebody's own class checks its settings when it is built
            if key != "network" or choice.name in NETWORKS:
                _refuse_unknown(key, choice, target)
                settings = parse_settings(key, target, settings)
            made[key] = Choice(choice.name, settings if weights is None else {**settings, "weights": weights})
        build("method", method_class(made["method"].name), made["method"].settings)
        for key, group in GROUPS.items():
            made[key] = build(key, group, given.get(key, {}))
        if "preprocess" in given:
            known = typing.get_args(PreprocessName)
            if given["preprocess"] not in known:
                raise InputError(
                    f"preprocess: unknown layer {given['preprocess']!r}; {nearest(str(given['preprocess']), known)}"
                )
            made["preprocess"] = given["preprocess"]
        seed = given.get("seed", 0)
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise InputError(f"seed: expected a whole number of at least 0, got {shortened(seed)}")
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

        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read an experiment file. It starts from no recipe unless it names one. Its data need not be there any more.

        Raises:
            InputError: no such file, not YAML, or not an experiment.
        """
        try:
            return cls._read(merge({"recipe": "none"}, read_yaml(path)), recorded=True)
        except InputError as error:
            raise InputError(str(error) if str(error).startswith(f"{path}") else f"{path}: {error}") from error

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that name this content; any difference in a setting gives another."""
        values = {name: value for name, value in self.as_dict().items() if name != "recipe"}
        text = json.dumps(values, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    def build_method(self) -> Method:
        """The method with its settings."""
        made: Method = build("method", method_class(self.method.name), self.method.settings)
        return made


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` laid on it, group by group. A choice of another name drops the settings of the old one.

    >>> merge({"method": {"name": "ict", "weight": 5}}, {"method": {"name": "vat"}})
    {'method': {'name': 'vat'}}
    >>> merge({"training": {"steps": 5}}, {"training": {"devices": 2}})
    {'training': {'steps': 5, 'devices': 2}}

    Raises:
        InputError: a group is no mapping; or ``labels`` and ``split.labels``, which are one setting, are both given.

    >>> merge({"labels": 50}, {"split": {"labels": 20}})
    {'split': {'labels': 20}}
    """
    merged = _spelled_out(base)
    for key, value in _spelled_out(over).items():
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


def _spelled_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """``labels`` under its full name, ``split.labels``."""
    for key in GROUPS:
        if not isinstance(values.get(key, {}), Mapping):
            raise InputError(f"{key}: expected settings, such as {_EXAMPLES[key]}, got {shortened(values[key])}")
    spelled = dict(values)
    if "labels" in spelled:
        labels, split = spelled.pop("labels"), spelled.get("split", {})
        if "labels" in split:
            raise InputError("labels: means split.labels, which is given as well; leave one of them out")
        spelled["split"] = {**split, "labels": labels}
    return spelled


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
    if not isinstance(name, str):
        raise InputError(f"recipe: expected a name, got {shortened(name)}")
    return {**merge(recipes.load(name), given), "recipe": name}


def _refuse_unknown(key: str, choice: Choice, target: Callable[..., Any]) -> None:
    """An unknown setting of a choice often belongs to another one: say which."""
    known = [setting.name for setting in settings_of(target)]
    for name in choice.settings:
        if name not in known:
            kinds = _REGISTRIES[key].items()
            others = [other for other, kind in kinds if name in {item.name for item in settings_of(kind)}]
            owners = f" ({', '.join(others)} {'has' if len(others) == 1 else 'have'} it)" if others else ""
            offered = [*known, "weights"] if key == "network" else known
            lacks = f"has no such setting{owners}; {nearest(name, offered)}" if known else f"has no settings{owners}"
            raise InputError(f"{key}.{name}: {choice.name} {lacks}")
