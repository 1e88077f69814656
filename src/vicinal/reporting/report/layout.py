"""Chapters of sections laid out by a template, as one text that needs nothing else to be read."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

from vicinal.errors import require
from vicinal.reporting.charts import LINE_COLOURS
from vicinal.reporting.report.blocks import Section, TableBlock, ink


class Part(NamedTuple):
    """A chapter: its heading and its sections."""

    title: str
    sections: tuple[Section, ...]


def lay_out(
    parts: Sequence[Part], *, title: str, lead: str = "", glance: TableBlock | None = None, command: str, made: str
) -> str:
    """A page as the text of an HTML file. The same arguments give the same text.

    It has no scripts and asks for nothing over a network; charts and pictures are within it.

    Args:
        parts: the chapters, at least one.
        title: of the page.
        lead: what stands before the date, as a sentence; "" for nothing.
        glance: a table above all chapters, or None.
        command: the command that made the page.
        made: date and version, as a line.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    jinja2 = require("jinja2", "figures", "the HTML report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    here = files(__package__)
    template = environment.from_string(here.joinpath("page.html.j2").read_text(encoding="utf-8"))
    text: str = template.render(
        title=title,
        parts=parts,
        glance=glance,
        lead=lead,
        command=command,
        made=made,
        style=here.joinpath("page.css").read_text(encoding="utf-8"),
        ink=ink,
        palette=LINE_COLOURS,
    )
    return text
