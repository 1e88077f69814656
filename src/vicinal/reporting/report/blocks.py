"""What a page is made of: tables, charts, pictures and text, as values that the template lays out."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Union

from vicinal.reporting.tables import Table

_WIDEST = 600
_SHEET, _PADDING = 120, 2  # letters across a sheet of A4, and beside a column's own
_NUMBER = re.compile(r"-|[-+]?\d([^A-Za-z]|(?<=\d)e[-+]\d)*(se \S+)?[^A-Za-z]*(\d+ of \d+\))?")


@dataclass(frozen=True)
class TableBlock:
    """A table as it stands on the page.

    Args:
        table: its text.
        shades: background of cells as #rrggbb, by row and column.
        marked: rows to set apart, such as the baseline.
        colours: number in the palette of the mark before a row's label, by row.
        scale: what the lightest and the darkest shade mean, or None without shades.
        flat: whether its cells stay on one line, however far it scrolls.
    """

    kind: ClassVar[str] = "table"
    table: Table
    shades: Mapping[tuple[int, int], str] = field(default_factory=dict)
    marked: frozenset[int] = frozenset()
    colours: Mapping[int, int] = field(default_factory=dict)
    scale: tuple[str, str] | None = None
    flat: bool = False

    @property
    def wide(self) -> bool:
        """Whether it needs more than the width of a sheet of paper, so that its cells are broken there."""
        rows = self.table.rows
        needed = (
            max([*(len(row[i]) for row in rows), *map(len, column.split())], default=0)
            for i, column in enumerate(self.table.columns)
        )
        return sum(_PADDING + letters for letters in needed) > _SHEET

    @property
    def again(self) -> tuple[bool, ...]:
        """Whether each row has the label of the row above it."""
        labels = [row[0] for row in self.table.rows]
        return tuple(i > 0 and labels[i] == labels[i - 1] for i in range(len(labels)))

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Whether each column holds numbers alone, which are aligned to the right."""
        columns = range(len(self.table.columns))
        return tuple(i > 0 and all(_NUMBER.fullmatch(row[i]) for row in self.table.rows) for i in columns)


class Drawing(NamedTuple):
    """A drawing as an address that needs no request, and how wide it may grow, in CSS pixels."""

    source: str
    widest: int


@dataclass(frozen=True)
class Chart:
    """A drawing, which is made when it is asked for.

    Args:
        draw: gives the text of its SVG.
        alt: what it shows, for those who cannot see it.
        caption: below it, or "".
    """

    draw: Callable[[], str]
    alt: str
    caption: str = ""

    def drawn(self) -> Drawing:
        """The drawing; it may grow by a quarter."""
        svg = self.draw()
        found = re.search(r'<svg[^>]* width="([\d.]+)pt"', svg)
        width = round(float(found[1]) * 4 / 3 * 1.25) if found else _WIDEST
        return Drawing("data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii"), width)


@dataclass(frozen=True)
class Picture:
    """A PNG picture, in base64, with what it shows and what stands below it."""

    png: str
    alt: str
    caption: str

    @property
    def source(self) -> str:
        """The picture as an address that needs no request."""
        return f"data:image/png;base64,{self.png}"


@dataclass(frozen=True)
class Charts:
    """Charts beside one another where there is room."""

    kind: ClassVar[str] = "charts"
    items: tuple[Chart, ...]


@dataclass(frozen=True)
class Pictures:
    """Pictures beside one another where there is room, under a heading or none; ``small`` for thumbnails."""

    kind: ClassVar[str] = "pictures"
    items: tuple[Picture, ...]
    heading: str = ""
    small: bool = False


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; ``tone`` is "", "note" or "warning"."""

    kind: ClassVar[str] = "paragraph"
    text: str
    tone: str = ""


@dataclass(frozen=True)
class Point:
    """One statement of a summary: what it is about, and what is to be said; ``tone`` is "" or "warning"."""

    head: str
    text: str
    tone: str = ""


@dataclass(frozen=True)
class Points:
    """Statements."""

    kind: ClassVar[str] = "points"
    items: tuple[Point, ...]


@dataclass(frozen=True)
class Code:
    """Text as it is in a file."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Details:
    """What is folded away on a screen, and printed in full."""

    kind: ClassVar[str] = "details"
    summary: str
    blocks: tuple[Block, ...]


Block = Union[TableBlock, Charts, Pictures, Paragraph, Points, Code, Details]  # noqa: UP007  (Details names it)


@dataclass(frozen=True)
class Section:
    """A section of a chapter: the last part of its address, its heading and its blocks."""

    name: str
    title: str
    blocks: tuple[Block, ...]


def tables_in(blocks: Sequence[Block]) -> Iterator[Table]:
    """All tables, in the order of the page."""
    for block in blocks:
        if isinstance(block, TableBlock):
            yield block.table
        elif isinstance(block, Details):
            yield from tables_in(block.blocks)


_RAMP = ((255, 255, 255), (253, 224, 170), (236, 150, 40), (200, 80, 0), (110, 35, 0))  # ever darker: also in grey


def shade(value: float, low: float, high: float) -> str:
    """Colour of a cell, from white at ``low`` to dark brown at ``high``; its lightness alone tells the value.

    >>> shade(0.0, 0.0, 1.0), shade(1.0, 0.0, 1.0), shade(0.5, 0.0, 1.0)
    ('#ffffff', '#6e2300', '#ec9628')
    """
    share = min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.0
    place = share * (len(_RAMP) - 1)
    i = min(int(place), len(_RAMP) - 2)
    mixed = (round(a + (b - a) * (place - i)) for a, b in zip(_RAMP[i], _RAMP[i + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def ink(background: str) -> str:
    """Black or white, whichever is easier to read on a colour #rrggbb (relative luminance of WCAG 2).

    >>> ink("#ffffff"), ink("#6e2300")
    ('#000000', '#ffffff')
    """
    linear = []
    for i in (1, 3, 5):
        value = int(background[i : i + 2], 16) / 255
        linear.append(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"
