"""The reference: a page for each part of the package, with every public name, made of the docstrings by autodoc."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from _markup import before_sections, inline, table, to_markdown

PARTS = (
    "vicinal.experiment",
    "vicinal.estimator",
    "vicinal.data",
    "vicinal.networks",
    "vicinal.vicinity",
    "vicinal.methods",
    "vicinal.training",
    "vicinal.evaluation",
    "vicinal.theory",
    "vicinal.studies",
    "vicinal.reporting",
    "vicinal.fitting",
    "vicinal.runs",
    "vicinal.grid",
    "vicinal.summary",
    "vicinal.exporting",
    "vicinal.suggesting",
)
"""Parts of the package that have a page."""
GATHERED = ("vicinal.experiment.Experiment", "vicinal.fitting.fit", "vicinal.estimator.VicinalClassifier")
"""What `vicinal` itself offers."""


def pages() -> dict[str, str]:
    """All pages of the reference, by file name."""
    home: dict[int, str] = {}  # what is public in two parts is described in the first
    made = {}
    for part in PARTS:
        module = importlib.import_module(part)
        made[file(part)] = _page(module, home)
    return {"index.md": _index(), **made}


def file(part: str) -> str:
    """The page of a part."""
    return f"{part.removeprefix('vicinal.').replace('.', '-')}.md"


def public(module: ModuleType) -> list[str]:
    """The public names of a part: its ``__all__``, or what it defines itself."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return [name for name in own if not name.startswith("_")]


def _page(module: ModuleType, home: dict[int, str]) -> str:
    from vicinal.methods import METHODS

    classes, functions, values = [], [], []
    for name in public(module):
        value = getattr(module, name)
        if value in METHODS.values():
            continue  # each has a page of its own
        if inspect.isclass(value) or inspect.isroutine(value):
            known = home.setdefault(id(value), f"{module.__name__}.{name}")
            (classes if inspect.isclass(value) else functions).append((name, value, known))
        else:
            values.append((name, value))
    text = [f"# {module.__name__}", to_markdown(before_sections(inspect.getdoc(module) or ""), _reference)]
    if module.__name__ == "vicinal.methods":
        text.append("The methods themselves have [a page each](../methods.md).")
    if names := [*classes, *functions]:
        rows = [[f"{{py:obj}}`{name} <{known}>`", _first(value)] for name, value, known in names]
        text.append(table(["name", "what"], rows))
    if values:
        rows = [[f"`{name}`", f"`{_told(value)}`"] for name, value in values]
        text.append("## Values and types\n\n" + table(["name", "value"], rows))
    text.append(f"```{{eval-rst}}\n.. py:module:: {module.__name__}\n```")
    for title, directive, found in (("Classes", "autoclass", classes), ("Functions", "autofunction", functions)):
        if described := list(_described(directive, module.__name__, found)):
            text.append(f"## {title}\n\n```{{eval-rst}}\n" + "\n".join(described) + "```")
    return "\n\n".join(part.strip() for part in text) + "\n"


def _described(directive: str, part: str, found: list[tuple[str, Any, str]]) -> Iterator[str]:
    for name, _, known in found:
        if known == f"{part}.{name}":
            yield f".. {directive}:: {known}" + ("\n   :members:" if directive == "autoclass" else "") + "\n"


def _index() -> str:
    rows = [[f"[`{part}`]({file(part)})", _first(importlib.import_module(part))] for part in PARTS]
    names = ", ".join(f"{{py:obj}}`vicinal.{home.rpartition('.')[2]} <{home}>`" for home in GATHERED)
    toctree = "\n".join(file(part).removesuffix(".md") for part in PARTS)
    return f"""\
# API reference

Every public name, from its docstring. Arrays and tensors are given with shape, type and range; bad input raises
`vicinal.errors.InputError`.

The package itself has three names: {names}.

{table(["part", "what it is for"], rows)}

```{{toctree}}
:hidden:

{toctree}
```
"""


def _first(value: Any) -> str:
    return inline((inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " "), _reference)


def _told(value: Any) -> str:
    """A constant, or what a type stands for, shortly."""
    if typing.get_origin(value) is typing.Literal:
        text = " | ".join(repr(item) for item in typing.get_args(value))
    elif isinstance(value, (dict, tuple, list)) and len(value) > 8:
        text = ", ".join(str(item) for item in value)
    else:
        text = repr(value)
    text = text.replace("typing.", "").replace("collections.abc.", "").replace("`", "'")
    return text if len(text) <= 400 else f"{text[:396].rpartition(',')[0]}, ..."


def _reference(text: str) -> str:
    return f"{{py:obj}}`{text}`" if text.startswith("vicinal.") else f"`{text}`"
