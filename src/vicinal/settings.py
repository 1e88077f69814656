"""Named choices with typed settings: how a data set, a network or a method is written in Python, YAML and flags.

A choice is a name and the settings that differ from the defaults. What may be set is read off the signature and the
docstring of what is chosen, so a new method documents and validates itself.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

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
        raise InputError(f"{where}: expected a name or a mapping with a 'name', got {value!r}")

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
    """The settings of a class or function: its keyword parameters that have a default, with their docstring text."""
    import docstring_parser

    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    documented: dict[str, str] = {}
    for base in reversed(target.__mro__ if inspect.isclass(target) else (target,)):
        for item in docstring_parser.parse(base.__doc__ or "").params:
            documented[item.arg_name] = " ".join((item.description or "").split())
    return tuple(
        Setting(name, hints.get(name, Any), parameter.default, documented.get(name, ""))
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.default is not parameter.empty and name not in skip
    )


def parse_settings(
    where: str, target: Callable[..., Any], given: Mapping[str, Any], skip: Collection[str] = ()
) -> dict[str, Any]:
    """All settings of ``target``: those given, checked and converted to their types, and the defaults of the rest.

    Args:
        where: where they stand, for messages, such as ``"method"``.
        target: the class or function that they are for.
        given: settings by name.
        skip: parameters that are not settings.

    Raises:
        InputError: an unknown setting (the message names the nearest known one) or a value of the wrong type.
    """
    from jsonargparse import ArgumentParser

    known = {setting.name: setting for setting in settings_of(target, skip)}
    values = {name: setting.default for name, setting in known.items()}
    for name, value in given.items():
        if name not in known:
            raise InputError(f"{where}.{name}: unknown setting; {nearest(name, known)}")
        setting = known[name]
        if setting.type is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--value", type=setting.type)
        try:
            values[name] = parser.parse_object({"value": value}).value
        except Exception as error:
            raise InputError(f"{where}.{name}: expected {_describe(setting.type)}, got {value!r}") from error
    return values


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


def _describe(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(repr(item) for item in typing.get_args(annotation))
    return getattr(annotation, "__name__", None) or str(annotation).replace("typing.", "")
