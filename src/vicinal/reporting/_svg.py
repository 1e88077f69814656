"""Figures as the text of an SVG: one look, whatever the user's settings are, and the same text for the same figure."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vicinal.errors import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DARK = "#444444"
LETTERS = 9.5  # points, on a picture 4.8 inches wide: ten pixels where that is 360 pixels wide
STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and read out
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # the layout's; it is wide, so that a reader's own font fits too
    "text.parse_math": False,  # a dollar in the name of a run is a dollar
    "font.size": LETTERS,
    "axes.titlesize": LETTERS + 0.5,
    "axes.titlelocation": "left",
    "axes.labelsize": LETTERS,
    "xtick.labelsize": LETTERS - 0.5,
    "ytick.labelsize": LETTERS - 0.5,
    "legend.fontsize": LETTERS - 0.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": DARK,
    "axes.axisbelow": True,
    "grid.color": "#E0E0E0",
    "grid.linewidth": 0.7,
    "hatch.linewidth": 0.9,
    "figure.constrained_layout.w_pad": 0.07,  # inches: room for half a marker on the edge of the axes
    "figure.constrained_layout.h_pad": 0.05,
}


@contextmanager
def styled(content: object) -> Iterator[type[Figure]]:
    """matplotlib's figure with the look of this package inside; the user's settings are put back afterwards.

    Args:
        content: all that the figure shows. It names the parts of the SVG, so that those of several figures on one page
            do not meet.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    # A figure of its own, outside pyplot: no list of open figures, no display.
    figure_type = require("matplotlib.figure", "figures", "drawing figures").Figure
    style = require("matplotlib.style", "figures", "drawing figures")
    salt = hashlib.sha256(repr(content).encode()).hexdigest()
    with style.context(STYLE | {"svg.hashsalt": salt}, after_reset=True), warnings.catch_warnings():
        # Names in letters that the font of the layout lacks: the reader's own font has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield figure_type


def legend_below(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Below the axes, in as many columns as fit; the picture grows by its height, so that the axes stay as large."""
    for columns in range(min(len(labels), 4), 0, -1):
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        size = legend.get_window_extent()
        if size.width <= figure.bbox.width or columns == 1:
            figure.set_figheight(figure.get_figheight() + size.height / figure.dpi)
            return
        legend.remove()


def text_of(figure: Figure) -> str:
    """The figure as an SVG element, without the prolog, which names a document type elsewhere, and without dates."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    # Places to a hundredth of a point, which is half of the text; letters are between elements and stay as they are.
    text = re.sub(r'(?<= )(?:d|x|y)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), text)
    # Nothing refers to groups, and their names would be the same in every chart of a page.
    return re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])
