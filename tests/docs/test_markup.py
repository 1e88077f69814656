"""Docstrings as Markdown and as reStructuredText: signs of equations escaped, blocks as they stand."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def markup(docs_path: None) -> ModuleType:
    return importlib.import_module("_markup")


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("f_theta and u*", r"f\_theta and u\*"),
        ("the *clean* source", "the *clean* source"),
        ("``f_theta`` stays, `Name` goes", "``f_theta`` stays, <Name> goes"),
        ("in [0,1], $x, a < b, {x}", r"in \[0,1\], \$x, a \< b, \{x}"),
        ("With::\n\n    a_i = |b|*\n\nthen", "With:\n\n```text\na_i = |b|*\n```\n\nthen"),
    ],
)
def test_markdown(text: str, markdown: str, markup: ModuleType) -> None:
    assert markup.to_markdown(text, "<{}>".format) == markdown + "\n"


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("norm |x|_2 of u_ and *", r"norm \|x\|_2 of u\_ and *"),
        ("the *clean* 2 * x, *args", r"the *clean* 2 * x, \*args"),
        ("``|x|`` and `Name_`", "``|x|`` and `Name_`"),
        ("With::\n\n    |x|_2 *a\n\n|y|", "With::\n\n    |x|_2 *a\n\n\\|y\\|"),
        ("|x| and |y|", r"\|x\| and \|y\|"),
        (">>> f(*a)\n|1|\n\n|y|", ">>> f(*a)\n|1|\n\n\\|y\\|"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "::\n\n    | a | b |\n    |---|---|\n    | 1 | 2 |\n"),
    ],
)
def test_restructured_text(text: str, rest: str, markup: ModuleType) -> None:
    assert "\n".join(markup.to_rest(text.split("\n"))) == rest


def test_a_literal_block_ends_where_the_indent_does(markup: ModuleType) -> None:
    lines = ["Args:", "    x: as in::", "", "            |a|", "", "        and |b|", "    y: |c|"]
    assert [kind for kind, _ in markup.blocks(lines)] == ["prose", "literal", "prose"]


def test_sections_are_cut_off(markup: ModuleType) -> None:
    assert markup.before_sections("Idea.\n\nMore.\n\nArgs:\n    x: y.") == "Idea.\n\nMore."
    assert markup.before_sections("No sections: Args") == "No sections: Args"


def test_a_table_escapes_bars(markup: ModuleType) -> None:
    made = markup.table(["a", "b"], [["`x|y`", "1"]], right=True)
    assert made == "| a | b |\n| --- | ---: |\n| `x\\|y` | 1 |"
