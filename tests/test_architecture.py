"""The house rules: who may import whom, what an import costs, how long a file is, and what no file may mention.

Each rule is a function that reports offences. It is applied to the project, and to small offenders that it must report.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "vicinal"

FLOORS = {
    "errors": 0,
    "machine": 1,
    "randomness": 1,
    "recipes": 1,
    "settings": 1,
    "parallel": 2,
    "schedules": 2,
    "data": 3,
    "networks": 4,
    "vicinity": 5,
    "methods": 6,
    "theory": 6,
    "training": 7,
    "evaluation": 8,
    "reporting": 9,
    "experiment": 10,
    "studies": 10,
    "runs": 11,
    "companions": 12,
    "assembling": 13,
    "evaluating": 14,
    "fitting": 15,
    "measuring": 15,
    "grid": 16,
    "assessing": 16,
    "theorising": 16,
    "exporting": 17,
    "suggesting": 17,
    "estimator": 16,
    "predicting": 16,
    "summary": 17,
    "cli": 18,
    "__main__": 19,
}
"""Rooms, counted from the top of the house: a room imports from itself and from rooms with a smaller number."""

LONGEST = 300
HEAVY = {"datasets", "lightning", "matplotlib", "scipy", "sklearn"}
# Brackets keep this file from mentioning what it looks for.
FOREIGN = {
    "an absolute path of one machine": re.compile(r"(?<![\w.~$}\-])/(?:[h]ome|[o]pt|[r]oot|[U]sers|[w]ork)/"),
    "a folder beside the project": re.compile(r"\.\./[s]hared"),
    "a package registry": re.compile(r"[p]ypi\.org|[p]ythonhosted|[i]ndex-url|[f]ind-links|[t]rusted-host"),
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def uses(source: str) -> Iterator[tuple[int, str]]:
    """Line numbers, and the names directly below ``vicinal`` that are imported there or reached through the package."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, n.name.split(".")[1]) for n in names if n.name.startswith("vicinal."))
            case ast.ImportFrom(level=level) if level > 0:
                yield node.lineno, "a relative import"
            case ast.ImportFrom(module="vicinal", names=names):
                yield from ((node.lineno, n.name) for n in names)
            case ast.ImportFrom(module=str(module)) if module.startswith("vicinal."):
                yield node.lineno, module.split(".")[1]
            case ast.Attribute(value=ast.Name(id="vicinal"), attr=name):
                yield node.lineno, name


def upward_imports(room: str, source: str) -> list[str]:
    found = []
    for line, used in uses(source):
        if used in (room, "__version__"):
            continue
        if used not in FLOORS:
            found.append(
                f"{room}, line {line}: {used} is no room with a floor; import from a room, or add it to FLOORS"
            )
        elif FLOORS[used] >= FLOORS[room]:
            found.append(f"{room}, line {line}: imports {used}, which is not above it")
    return found


def imported_by(code: str, names: set[str]) -> set[str]:
    """Those of ``names`` that are imported once ``code`` has run in a fresh interpreter."""
    code = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return names.intersection(done.stdout.split())


def too_long(text: str) -> bool:
    return len(text.splitlines()) > LONGEST


def foreign_words(text: str) -> list[str]:
    return [
        f"line {number}: {what}: {line.strip()[:100]}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in FOREIGN.items()
        if pattern.search(line)
    ]


def project_files() -> Iterator[tuple[str, str]]:
    """Path and text of the project's own text files: nothing that was built, cached, installed or run in its folder.

    Hidden folders stay out: they are caches and environments, and `.ci` alone may know of the machine it runs on.
    """
    for folder, below, names in os.walk(ROOT):
        made = {"build", "dist", "runs"} if Path(folder) == ROOT else {"_build", "__pycache__"}
        below[:] = sorted(name for name in below if name not in made and not name.startswith("."))
        for name in sorted(set(names) - {".git"}):
            path = Path(folder, name)
            try:
                yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # a picture


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms - FLOORS.keys() == set(), "new rooms: add each to FLOORS and to docs/architecture.md"
    assert FLOORS.keys() - rooms == set(), "rooms that are gone: take each out of FLOORS"


def test_a_room_imports_only_from_rooms_above_it() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = room_of(path)
        if room in FLOORS:  # not the package's own __init__, which is the front door to all of them
            found += upward_imports(room, path.read_text(encoding="utf-8"))
    assert found == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("data", "from vicinal.methods import ICT"),
        ("methods", "import torch, vicinal.training.module as m"),
        ("networks", "from vicinal import grid as g"),
        ("vicinity", "import vicinal\nvicinal.fitting.fit()"),
        ("grid", "from vicinal.predicting import predict"),  # beside it, not above it
        ("vicinity", "def late():\n    from vicinal.methods.ict import ICT"),
        ("vicinity", "if TYPE_CHECKING:\n    from vicinal.training import Teacher"),
        ("methods", "from .base import Method"),
        ("cli", "from vicinal.cellar import wine"),
        ("cli", "from vicinal import VicinalClassifier"),  # through the front door
    ],
)
def test_an_import_from_below_is_reported(room: str, source: str) -> None:
    assert len(upward_imports(room, source)) == 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("methods", "from vicinal.networks import run\nfrom vicinal.methods.base import Method"),
        ("fitting", "import vicinal\nfrom vicinal import machine\nprint(vicinal.__version__)"),
        ("data", "import torch.vicinal, numpy as np\nfrom vicinally import grid"),
    ],
)
def test_an_import_from_above_is_not(room: str, source: str) -> None:
    assert upward_imports(room, source) == []


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert imported_by("import vicinal", HEAVY) == set()
    assert imported_by("import vicinal, scipy", HEAVY) == {"scipy"}


def test_every_file_fits_one_sitting() -> None:
    assert [path for path, text in project_files() if path.endswith(".py") and too_long(text)] == []
    assert too_long("pass\n" * 301)
    assert not too_long("pass\n" * 300)


def test_no_file_mentions_where_it_was_made() -> None:
    files = dict(project_files())
    assert {"README.md", "pyproject.toml", "src/vicinal/__init__.py", "tests/test_architecture.py"} <= files.keys()
    assert {path: words for path, text in files.items() if (words := foreign_words(text))} == {}


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        (("see ", "/ho", "me/me/data"), "an absolute path of one machine"),
        (('{"path": "', "/wo", 'rk/x"}'), "an absolute path of one machine"),
        (("data in ..", "/sha", "red/data"), "a folder beside the project"),
        (("pip install --extra-", "index", "-url URL"), "a package registry"),
    ],
)
def test_a_foreign_word_is_reported(parts: tuple[str, ...], what: str) -> None:
    (found,) = foreign_words("first line\n" + "".join(parts))
    assert found.startswith(f"line 2: {what}")
    assert foreign_words("".join(parts[:-1])) == []
