"""Named choices with typed settings: how a data set, a network or a method is written in Python, YAML and flags.

A choice is a name and the settings that differ from the defaults. What may be set is read off the signature and the
docstring of what is chosen, so a new method documents and validates itself.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import re
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vicinal.errors import InputError, nearest


@dataclass(frozen=True)
class Choice:
    """One of several named things, and its settings.

    Args:
        name: a registered name (``"ict"``), or whatever else the place allows (a path, an import path).
        settings: settings by name; those left out keep their defaults.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, where: str, value: object) -> Choice:
        """Read ``"ict"``, ``{"name": "ict", "weight": 20}`` or a `Choice`.

        Raises:
            InputError: it is none of these.
        """
        if isinstance(value, Choice):
            return value
        if isinstance(value, str) and value:
            return cls(value)
        if isinstance(value, Mapping) and isinstance(value.get("name"), str) and value["name"]:
            return cls(value["name"], {str(key): item for key, item in value.items() if key != "name"})
        raise InputError(f"{where}: expected a name or a mapping with a 'name', got {shortened(value)}")

    def as_dict(self) -> dict[str, Any]:
        """The mapping that `of` reads."""
        return {"name": self.name, **self.settings}


@dataclass(frozen=True)
class Setting:
    """One setting of a choice: its name, type, default and help text."""

    name: str
    type: Any
    default: Any
    help: str


def settings_of(target: Callable[..., Any], skip: Collection[str] = ()) -> tuple[Setting, ...]:
    """The settings of a class or function: its keyword parameters that have a default, with their docstring text.

    Raises:
        InputError: somebody's own class or function has annotations that mean nothing where it is defined.
    """
    return tuple(setting for setting in _settings(target) if setting.name not in skip)


def documented(target: Callable[..., Any]) -> dict[str, str]:
    """What the docstring of a class (and of those that it is derived from) or function says about each argument.

    >>> documented(Setting)
    {}
    """
    import docstring_parser

    texts: dict[str, str] = {}
    for base in reversed(target.__mro__ if inspect.isclass(target) else (target,)):
        for item in docstring_parser.parse(base.__doc__ or "").params:
            texts[item.arg_name] = " ".join((item.description or "").split())
    return texts


@functools.cache
def _settings(target: Callable[..., Any]) -> tuple[Setting, ...]:
    try:
        # Fields of a dataclass may be inherited from another module: then their types mean something there alone.
        from_fields = not inspect.isclass(target) or dataclasses.is_dataclass(target)
        hints = typing.get_type_hints(target if from_fields else target.__init__)
    except NameError as error:
        raise InputError(f"{target.__name__}: cannot read the types of its settings: {error}") from error
    texts = documented(target)
    return tuple(
        Setting(name, hints.get(name, Any), parameter.default, texts.get(name, ""))
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.default is not parameter.empty
    )


def parse_settings(
    where: str, target: Callable[..., Any], given: Mapping[str, Any], skip: Collection[str] = ()
) -> dict[str, Any]:
    """All settings of ``target``: those given, checked and converted to their types, and the defaults of the rest.

    Args:
        where: where they stand, for messages, such as ``"method"``.
        target: the class or function that they are for.
        given: settings by name; a text is read like a YAML value, so flags come as they are typed.
        skip: parameters that are not settings.

    Raises:
        InputError: an unknown setting (the message names the nearest known one) or a value of the wrong type.
    """
    known = {setting.name: setting for setting in settings_of(target, skip)}
    values = {name: setting.default for name, setting in known.items()}
    for name, value in given.items():
        if name not in known:
            raise InputError(f"{where}.{name}: unknown setting; {nearest(str(name), known)}")
        values[name] = _convert(f"{where}.{name}", known[name].type, value)
    return values


def _convert(where: str, annotation: Any, value: Any) -> Any:
    if type(value) is annotation:
        return value
    optional = annotation is Any or type(None) in typing.get_args(annotation)
    if optional and (value is None or value in ("none", "None")):
        return None  # as Python and the docstrings write it; YAML's word is null
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=annotation)
    try:
        converted = parser.parse_object({"value": value}).value
        if converted is None and not optional:
            raise TypeError("null")
    except Exception as error:
        raise InputError(f"{where}: expected {_describe(annotation)}, got {shortened(value)}") from error
    # A sequence is a tuple throughout, so that one that was read equals the same one written as a default.
    return tuple(converted) if isinstance(converted, list) else converted


def build(where: str, target: Callable[..., Any], given: Mapping[str, Any], **fixed: Any) -> Any:
    """Call ``target`` with ``fixed`` arguments and checked settings; its own `InputError` is told where it stands."""
    values = parse_settings(where, target, given, skip=tuple(fixed))
    try:
        return target(**fixed, **values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def check(
    name: str, value: float, *, low: float | None = None, high: float | None = None, above: float | None = None
) -> None:
    """Check a number against closed bounds ``low``, ``high`` and the open bound ``above``.

    >>> check("epsilon", -1.0, low=0)
    Traceback (most recent call last):
    ...
    vicinal.errors.InputError: epsilon must be at least 0, got -1.0
    """
    if above is not None and not value > above:
        raise InputError(f"{name} must be greater than {above}, got {value}")
    if low is not None and not value >= low:
        raise InputError(f"{name} must be at least {low}, got {value}")
    if high is not None and not value <= high:
        raise InputError(f"{name} must be at most {high}, got {value}")


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Numbers like 1e-3 are read as numbers (YAML 1.1 wants 1.0e-3), and a key that is given twice is an error.

    Raises:
        InputError: no such file, unreadable, not YAML, or not a mapping.
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; name a YAML file") from error
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{where}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        found = "nothing" if values is None else f"a {type(values).__name__}"
        raise InputError(f"{path}: expected settings, such as 'seed: 3', at the top level, found {found}")
    return {str(key): value for key, value in values.items()}


def read_value(text: str) -> Any:
    """A text as the value that YAML reads it as, or itself if it reads it as none.

    >>> read_value("[16, 32]"), read_value("1e-3"), read_value("[16")
    ([16, 32], 0.001, '[16')
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def shortened(value: object) -> str:
    """A value as it is written in Python, cut off where it would fill a message.

    >>> shortened("x"), shortened([0] * 1000)[-12:]
    ("'x'", '0, 0, 0, ...')
    """
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76].rstrip()} ..."


def _describe(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(repr(item) for item in typing.get_args(annotation))
    if typing.get_origin(annotation) in (Sequence, list, tuple):
        return f"a list of {_describe(typing.get_args(annotation)[0])}, such as [1, 2]"
    return getattr(annotation, "__name__", None) or str(annotation).replace("typing.", "")
