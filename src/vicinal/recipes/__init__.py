"""Recipes: experiments that are known to work, one family a file, one method an entry.

A family file has ``about`` (what it reproduces, in a line), ``provenance`` (``paper``, ``official-code`` or ``ours``),
``experiment`` (what its methods share) and ``methods`` (what each adds, under its recipe name). The recipe
``digits/ict`` is the entry ``ict`` of ``digits.yaml``.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from vicinal.errors import InputError, nearest


class Recipe(NamedTuple):
    """One entry: its name, its family's line about itself, where the settings come from, and the settings."""

    name: str
    about: str
    provenance: str
    values: dict[str, Any]


@cache
def _all() -> dict[str, Recipe]:
    import yaml

    found = {}
    for file in sorted(resources.files(__name__).iterdir(), key=lambda item: item.name):
        if not file.name.endswith(".yaml"):
            continue
        family = yaml.safe_load(file.read_text(encoding="utf-8"))
        for entry, own in family["methods"].items():
            values = _join(family["experiment"], own or {})
            values.setdefault("method", entry)
            name = f"{file.name.removesuffix('.yaml')}/{entry}"
            provenance = values.pop("provenance", family["provenance"])
            found[name] = Recipe(name, family["about"], provenance, values)
    return found


def names() -> list[str]:
    """Names of all recipes."""
    return list(_all())


def get(name: str) -> Recipe:
    """One recipe.

    Raises:
        InputError: there is none of that name.
    """
    if name not in _all():
        raise InputError(f"recipe: unknown recipe {name!r}; {nearest(name, _all())}")
    return _all()[name]


def load(name: str) -> dict[str, Any]:
    """The settings of one recipe, nested plain values."""
    import copy

    return copy.deepcopy(get(name).values)


def _join(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """``own`` laid over ``shared``, group by group; a choice of another name drops the settings of the old one."""
    joined = dict(shared)
    for key, value in own.items():
        old = joined.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and value.get("name", old.get("name")) == old.get("name"):
            value = {**old, **value}
        joined[key] = value
    return joined
