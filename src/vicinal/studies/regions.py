"""A picture of the regions that a classifier divides the plane into."""

from __future__ import annotations

import base64
import copy
import io
from dataclasses import dataclass
from typing import Any, ClassVar

from vicinal.errors import InputError, require
from vicinal.reporting.regions import COLOURS, Panel, decision_regions
from vicinal.settings import check
from vicinal.studies.base import Study, Subject

_DPI = 100


@dataclass(frozen=True, kw_only=True)
class Regions(Study):
    """Regions of the classes with the boundary between them, and the points that the network was trained on.

    Args:
        side: of the picture, in pixels, >= 50.
        resolution: points of the grid along each side, >= 2.

    Raises:
        InputError: a setting is out of range.
    """

    title: ClassVar[str] = "Decision regions"

    side: int = 320
    resolution: int = 250

    def __post_init__(self) -> None:
        check("side", self.side, low=50)
        check("resolution", self.resolution, low=2)

    def refusal(self, subject: Subject) -> str | None:
        """Why there is no picture: the data do not lie in the plane, or have too many classes."""
        if subject.dataset.shape != (2,):
            return "the inputs do not lie in the plane"
        if len(subject.dataset.classes) > len(COLOURS):
            return f"there are {len(subject.dataset.classes)} classes, and colours for {len(COLOURS)}"
        return None

    def __call__(self, subject: Subject, seed: int) -> dict[str, Any]:
        """The classes' names, the limits (left, right, bottom, top) of the picture, and the picture.

        Raises:
            InputError: there is none of this subject, see `refusal`.
            MissingExtraError: matplotlib is not installed.
        """
        if (reason := self.refusal(subject)) is not None:
            raise InputError(f"decision regions: {reason}")
        figure_type = require("matplotlib.figure", "figures", "drawing decision regions").Figure
        # The grid and the training points are on the CPU.
        panel = Panel.of("", copy.deepcopy(subject.network).cpu(), subject.dataset, subject.split)
        figure = figure_type(figsize=(self.side / _DPI, self.side / _DPI))
        axes = figure.add_axes((0, 0, 1, 1), frameon=False)
        decision_regions(axes, panel.network, panel.x, panel.y, panel.labelled, resolution=self.resolution)
        content = io.BytesIO()
        # Without the version of matplotlib in it, the same picture is the same file.
        figure.savefig(content, format="png", dpi=_DPI, metadata={"Software": None})
        return {
            "classes": list(subject.dataset.classes),
            "limits": [float(limit) for limit in (*axes.get_xlim(), *axes.get_ylim())],
            "pictures": {"regions": base64.b64encode(content.getvalue()).decode()},
        }
