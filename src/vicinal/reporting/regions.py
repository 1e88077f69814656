"""Pictures of what a classifier learnt in the plane: class probabilities, the boundary, and the training points."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

import torch
from torch import Tensor, nn

from vicinal.data import Dataset, SplitIndices, as_float
from vicinal.errors import InputError, require
from vicinal.evaluation import probabilities

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which readers with any common colour vision tell apart; classes differ in their marker too.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
UNKNOWN = "#555555"
TINT = 0.4  # share of a class's colour in its region, the rest is white
BATCH = 10_000

Limits = tuple[float, float, float, float]


class Panel(NamedTuple):
    """One picture of a figure.

    Attributes:
        title: what stands above it, such as the method, the seed and the test error.
        network: from points (B, 2) to logits (B, C).
        x: training points, float32 (N, 2).
        y: their classes, int64 (N,); -1 where unknown.
        labelled: rows of the points whose label was used, int64 (L,).
    """

    title: str
    network: nn.Module
    x: Tensor
    y: Tensor
    labelled: Tensor

    @classmethod
    def of(cls, title: str, network: nn.Module, dataset: Dataset, split: SplitIndices) -> Self:
        """The panel of a network that was trained on data in the plane, with the points that it was trained on.

        Args:
            title: what stands above it.
            network: from points (B, 2) to logits (B, C).
            dataset: the data.
            split: which of its training points were used, and which of them with their label.

        Raises:
            InputError: the data do not lie in the plane.
        """
        x = dataset.train.x
        if dataset.shape != (2,) or not isinstance(x, Tensor):
            raise InputError(f"{dataset.name}: regions are drawn in the plane; these data have shape {dataset.shape}")
        used = torch.cat([split.labelled, split.unlabelled]).unique()
        labelled = torch.searchsorted(used, split.labelled)
        return cls(title, network, as_float(x[used]), dataset.train.y[used], labelled)


def decision_regions(
    axes: Axes,
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    labelled: Tensor,
    *,
    limits: Limits | None = None,
    resolution: int = 250,
) -> None:
    """Draw a classifier's regions and its training points.

    The background blends the classes' colours by their predicted probabilities, so a sure prediction is a clear colour;
    the black line is the decision boundary (for two classes, probability 0.5). Small dots are training points
    without a label, large edged markers the labelled ones, all in the colour of their true class.

    Args:
        axes: where to draw.
        network: from points (B, 2) to logits (B, C), evaluated in eval mode.
        x: training points, float32 (N, 2).
        y: their classes, int64 (N,); -1 where unknown, drawn in grey.
        labelled: rows of the points whose label was used, int64 (L,).
        limits: left, right, bottom and top of the picture; None takes the points and a margin.
        resolution: grid points along each side, at least 2.

    Raises:
        InputError: the points do not lie in the plane, or there are more classes than colours.
    """
    if x.dim() != 2 or x.shape[1] != 2:
        raise InputError(f"decision regions: expected points of shape (N, 2), got {tuple(x.shape)}")
    left, right, bottom, top = limits or _limits(x)
    across, up = torch.linspace(left, right, resolution), torch.linspace(bottom, top, resolution)
    grid = torch.cartesian_prod(up, across).flip(1)  # rows from the bottom upwards, as origin="lower" wants them
    p = probabilities(network, grid.split(BATCH)).view(resolution, resolution, -1)
    classes = p.shape[2]
    if classes > len(COLOURS):
        raise InputError(f"decision regions: {classes} classes, and there are colours for {len(COLOURS)}")
    tints = 1 - TINT * (1 - torch.tensor([_rgb(colour) for colour in COLOURS[:classes]]))
    extent = (left, right, bottom, top)
    axes.imshow((p @ tints).numpy(), origin="lower", extent=extent, interpolation="bilinear", zorder=0)
    for c in range(1, classes):
        others = torch.cat([p[..., :c], p[..., c + 1 :]], dim=2).amax(dim=2)
        margin = p[..., c] - others
        if margin.min() < 0 < margin.max():
            values = (across.numpy(), up.numpy(), margin.numpy())
            axes.contour(*values, levels=[0.0], colors="black", linewidths=1.8, zorder=2)
    has_label = torch.zeros(len(x), dtype=torch.bool)
    has_label[labelled] = True
    for c in (-1, *range(classes)):
        colour, marker = (UNKNOWN, "o") if c < 0 else (COLOURS[c], MARKERS[c])
        small, large = x[(y == c) & ~has_label], x[(y == c) & has_label]
        if len(small):
            axes.scatter(small[:, 0], small[:, 1], s=4, c=colour, linewidths=0, zorder=3)
        if len(large):
            axes.scatter(
                large[:, 0], large[:, 1], s=85, c=colour, marker=marker, edgecolors="black", linewidths=1.6, zorder=4
            )
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])


def regions_figure(
    panels: Sequence[Panel], path: str | os.PathLike[str], *, columns: int = 3, resolution: int = 250
) -> None:
    """Draw several classifiers beside one another, on the same limits, into a PNG file.

    Args:
        panels: at least one.
        path: the file; what lies there is replaced.
        columns: panels in a row, at least 1.
        resolution: as for `decision_regions`.

    Raises:
        InputError: no panels, or one that cannot be drawn.
        MissingExtraError: matplotlib is not installed.
    """
    figure_type = require("matplotlib.figure", "figures", "drawing figures").Figure
    if not panels:
        raise InputError("figure: there are no panels to draw")
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    # A figure of its own, outside pyplot: no global state, no display.
    lines = max(panel.title.count("\n") + 1 for panel in panels)
    figure = figure_type(figsize=(3.1 * columns, (3.15 + 0.25 * lines) * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).flatten()
    limits = _limits(torch.cat([panel.x for panel in panels]))
    for axes, panel in zip(places, panels, strict=False):
        decision_regions(axes, panel.network, panel.x, panel.y, panel.labelled, limits=limits, resolution=resolution)
        axes.set_title(panel.title, fontsize=10.5)
    for axes in places[len(panels) :]:
        axes.remove()
    # Without the version of matplotlib in it, the same picture is the same file.
    figure.supxlabel("large: labelled; dots: without a label; line: decision boundary", fontsize=9)
    # Tight: square axes leave room that the layout does not know of, and would cut titles for it.
    figure.savefig(path, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})


def _limits(x: Tensor) -> Limits:
    """A square around the points, with a tenth of its side as margin on each side."""
    low, high = x.amin(dim=0), x.amax(dim=0)
    centre, half = (low + high) / 2, float((high - low).max()) * 0.6 or 1.0
    return float(centre[0]) - half, float(centre[0]) + half, float(centre[1]) - half, float(centre[1]) + half


def _rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
