"""Links between pages lead somewhere: the page is there, and so is the heading."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def pages(generated: Mapping[str, str]) -> dict[str, str]:
    """All pages by their path below ``docs/``, with what they include."""
    found = dict(generated)
    for path in (ROOT / "docs").glob("*.md"):
        if not path.name.startswith("_"):
            found[path.name] = path.read_text(encoding="utf-8")

    def included(match: re.Match[str]) -> str:
        return found[match[1]] if match[1] in found else (ROOT / "docs" / match[1]).read_text(encoding="utf-8")

    return {name: re.sub(r"^```{include} (\S+)\n```", included, text, flags=re.M) for name, text in found.items()}


def slugs(text: str) -> set[str]:
    """Headings as they are linked to."""
    headings = re.findall(r"^#{1,3} (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead(pages: Mapping[str, str], name: str) -> list[str]:
    """Links of a page that lead nowhere."""
    found = []
    for link in LINK.findall(re.sub(r"^```\w*\n.*?^```", "", pages[name], flags=re.S | re.M)):
        target, _, anchor = link.partition("#")
        if "://" in link:
            continue
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), target)) if target else name
        picture = (ROOT / "docs" / path).is_file() and not path.endswith(".md")
        if not picture and (path not in pages or (anchor and anchor not in slugs(pages[path]))):
            found.append(link)
    return found


def test_no_link_is_dead(pages: dict[str, str]) -> None:
    parts = {"methods/_table.md", "methods/_families.md"}  # written to be read inside docs/methods.md
    assert not {name: links for name in pages.keys() - parts if (links := dead(pages, name))}


def test_a_dead_link_would_be_seen() -> None:
    pages = {
        "a.md": "# One\n[x](sub/b.md#two) [y](sub/b.md#one) [z](c.md) ![w](d.png)",
        "sub/b.md": "## Two\n[up](../a.md#one)",
    }
    assert dead(pages, "a.md") == ["sub/b.md#one", "c.md", "d.png"]
    assert not dead(pages, "sub/b.md")


def test_every_page_is_in_a_table_of_contents(pages: dict[str, str]) -> None:
    named = set()
    for name, text in pages.items():
        for block in re.findall(r"^```{toctree}\n(.*?)^```", text, re.S | re.M):
            entries = [line for line in block.splitlines() if line and not line.startswith(":")]
            named |= {posixpath.join(posixpath.dirname(name), f"{entry}.md") for entry in entries}
    read = {name for name in pages if name.endswith(".md") and not Path(name).name.startswith("_")}
    assert read - named == {"index.md"}
