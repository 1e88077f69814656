"""The page that says which check is which test names files and functions that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`([\w/.]+)`", PAGE)))
SOURCES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")}


def is_there(name: str) -> bool:
    """Whether a file of the tests has this name, or a function begins with it."""
    if name.endswith("/"):
        return (ROOT / name).is_dir()
    if name.endswith(".py"):
        return any(path.name == Path(name).name for path in SOURCES) and ("/" not in name or (ROOT / name).is_file())
    return any(re.search(rf"def {name}", source) for source in SOURCES.values())


@pytest.mark.parametrize("name", NAMES)
def test_what_the_page_names_is_there(name: str) -> None:
    assert is_there(name)


def test_what_is_not_there_would_be_seen() -> None:
    assert len(NAMES) > 50
    assert not is_there("test_nothing_of_this_kind")
    assert not is_there("tests/methods/test_nothing.py")
