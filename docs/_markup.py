"""Docstrings as other markup: Markdown for the pages that are made of them, and reStructuredText that autodoc can read.

The docstrings are plain prose: ``::`` opens a block that stands as it is, double backticks hold code, single ones a
name. What else they contain (|x|, f_theta', u*) are signs of the equations, which either markup would take for its own.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence

_CODE = re.compile(r"(``.+?``|`[^`]+`)")
_EMPHASIS = re.compile(r"((?<![\w*])\*\w(?:[^*\n]*\w)?\*(?![\w*]))")
_SECTIONS = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Examples?|Note):$", re.MULTILINE)


def before_sections(text: str) -> str:
    """A docstring up to its arguments, attributes, results or errors."""
    found = _SECTIONS.search(text)
    return (text[: found.start()] if found else text).rstrip()


def blocks(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """The lines in groups: "prose", "literal" (what ``::`` opens), "doctest" and "table" (one of Markdown's)."""
    group: tuple[str, list[str]] = ("prose", [])
    deeper: int | None = None  # a literal block is indented more than the line that opened it
    opened = 0
    lines = list(lines)
    in_table = _table_lines(lines)
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if group[0] == "literal" and (not line.strip() or indent > opened):
            kind = "literal"
        elif deeper is not None and line.strip() and indent > deeper:
            kind, opened = "literal", deeper
        elif line.lstrip().startswith(">>>") or (group[0] == "doctest" and line.strip()):
            kind = "doctest"
        else:
            kind = "table" if number in in_table else "prose"
        if line.strip():
            deeper = indent if kind == "prose" and line.rstrip().endswith("::") else None
        if kind != group[0]:
            if group[1]:
                yield group
            group = (kind, [])
        group[1].append(line)
    if group[1]:
        yield group


def _table_lines(lines: Sequence[str]) -> set[int]:
    """Where tables are: a rule of dashes, the line above, and the lines with bars below."""
    found = set()
    for rule, line in enumerate(lines):
        if rule and re.fullmatch(r"\s*\|[-:| ]+\|", line) and "-" in line:
            end = rule
            while end < len(lines) and lines[end].lstrip().startswith("|"):
                end += 1
            found |= {*range(rule - 1, end)}
    return found


def to_markdown(text: str, name: Callable[[str], str] = "`{}`".format) -> str:
    """A docstring as Markdown.

    Args:
        text: the docstring, as ``inspect.getdoc`` gives it.
        name: what stands for a name in single backticks.
    """
    parts = []
    for kind, lines in blocks(text.splitlines()):
        whole = "\n".join(lines).strip("\n")
        if kind in ("literal", "doctest"):
            fence = "text" if kind == "literal" else "python"
            whole = f"\n```{fence}\n{textwrap.dedent(whole).rstrip()}\n```\n"
        elif kind == "prose":
            whole = inline(re.sub(r"::$", ":", whole, flags=re.MULTILINE), name)
        parts.append(whole)
    return "\n".join(parts).strip() + "\n"


def inline(text: str, name: Callable[[str], str] = "`{}`".format) -> str:
    """Prose as Markdown: the signs of equations escaped, names replaced."""

    def one(part: str) -> str:
        if part.startswith("``"):
            return part
        if part.startswith("`"):
            return name(part[1:-1])
        return _outside_emphasis(part, lambda plain: re.sub(r"([\\_$*<{\[\]])", r"\\\1", plain))

    return "".join(one(part) for part in _CODE.split(text))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: bool = False) -> str:
    """A Markdown table.

    Args:
        columns: headings.
        rows: cells, Markdown themselves.
        right: align all columns but the first to the right.
    """
    rule = ["---", *("---:" if right else "---" for _ in columns[1:])]
    cells = [columns, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def to_rest(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText: the signs of equations escaped, Markdown's tables as they stand."""
    made: list[str] = []
    for kind, group in blocks(lines):
        if kind == "prose":
            made += [_escaped(line) for line in group]
        elif kind == "table":
            indent = " " * (len(group[0]) - len(group[0].lstrip()))
            made += [f"{indent}::", "", *(f"    {line}" for line in group), ""]
        else:
            made += group
    return made


def _escaped(line: str) -> str:
    def one(part: str) -> str:
        if part.startswith("`"):
            return part
        plain = _outside_emphasis(part, lambda text: re.sub(r"(?<![\s\\*])\*|\*(?=[^\s*])", r"\\*", text))
        return re.sub(r"(?<=\w)_(?!\w)", r"\\_", plain.replace("|", r"\|"))

    return "".join(one(part) for part in _CODE.split(line))


def _outside_emphasis(text: str, change: Callable[[str], str]) -> str:
    return "".join(part if number % 2 else change(part) for number, part in enumerate(_EMPHASIS.split(text)))
