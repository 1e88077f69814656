"""Decision regions: the boundary lies where a known classifier has it, and every point is drawn once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from torch import Tensor, nn

from vicinal.data import Dataset, SplitIndices, load
from vicinal.errors import InputError
from vicinal.reporting.regions import COLOURS, TINT, Panel, decision_regions, regions_figure
from vicinal.settings import Choice


class HalfPlane(nn.Module):
    """Class 1 where normal . x > offset, with logits that grow by ``slope`` along the normal."""

    def __init__(self, normal: tuple[float, float], offset: float, slope: float = 20.0) -> None:
        super().__init__()
        self.normal, self.offset, self.slope = torch.tensor(normal), offset, slope

    def forward(self, x: Tensor) -> Tensor:
        z = self.slope * (x @ self.normal - self.offset)
        return torch.stack([torch.zeros_like(z), z], dim=1)


class Thirds(nn.Module):
    """Three classes by the angle: the nearest of three directions."""

    def forward(self, x: Tensor) -> Tensor:
        angle = torch.tensor([0.0, 2 * torch.pi / 3, 4 * torch.pi / 3])
        return 10 * x @ torch.stack([torch.cos(angle), torch.sin(angle)])


def points(n: int = 40, classes: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return x, torch.arange(n) % classes, torch.arange(6)


def axes_of(network: nn.Module, x: Tensor, y: Tensor, labelled: Tensor, **more: object) -> Axes:
    axes = Figure().subplots()
    decision_regions(axes, network, x, y, labelled, **more)  # type: ignore[arg-type]
    return axes


def boundary(axes: Axes) -> Tensor:
    sets = [item for item in axes.collections if isinstance(item, ContourSet)]
    return torch.cat([torch.tensor(path.vertices) for item in sets for path in item.get_paths()])


def scatters(axes: Axes, *, large: bool) -> Tensor:
    drawn = [item for item in axes.collections if isinstance(item, PathCollection)]
    picked = [item for item in drawn if (item.get_sizes()[0] > 20) == large]
    return torch.cat([torch.from_numpy(np.array(item.get_offsets())) for item in picked])


def pixels(axes: Axes) -> Tensor:
    (image,) = axes.get_images()
    return torch.from_numpy(np.array(image.get_array()))


def as_set(x: Tensor) -> set[tuple[float, ...]]:
    return {tuple(round(value, 5) for value in row) for row in x.tolist()}


@pytest.mark.parametrize(("normal", "offset"), [((1.0, 0.0), 0.3), ((0.0, 1.0), -0.4), ((0.6, 0.8), 0.2)])
def test_the_boundary_lies_where_a_linear_classifier_has_it(normal: tuple[float, float], offset: float) -> None:
    line = boundary(axes_of(HalfPlane(normal, offset), *points()))
    assert len(line) > 10
    # Off by less than a cell of the grid; swapping or mirroring the axes moves it far away.
    assert (line @ torch.tensor(normal, dtype=line.dtype) - offset).abs().max() < 0.01


def test_the_regions_carry_the_colours_of_the_predicted_classes() -> None:
    axes = axes_of(HalfPlane((0.6, 0.8), 0.2), *points(), limits=(-1, 1, -2, 2), resolution=50)
    (image,) = axes.get_images()
    left, right, bottom, top = image.get_extent()
    assert (left, right, bottom, top) == (-1, 1, -2, 2)
    assert image.origin == "lower"
    colours = pixels(axes)  # row 0 is the bottom
    tint = [1 - TINT * (1 - torch.tensor([int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)])) for c in COLOURS[:2]]
    assert torch.allclose(colours[0, 0], tint[0].to(colours.dtype), atol=1e-3)  # (-1, -2): class 0
    assert torch.allclose(colours[-1, -1], tint[1].to(colours.dtype), atol=1e-3)  # (1, 2): class 1
    assert torch.allclose(colours[-1, 0], tint[1].to(colours.dtype), atol=1e-3)  # (-1, 2): class 1
    assert torch.allclose(colours[0, -1], tint[0].to(colours.dtype), atol=1e-3)  # (1, -2): class 0


def test_a_weak_prediction_is_paler_than_a_sure_one() -> None:
    axes = axes_of(HalfPlane((1.0, 0.0), 0.0, slope=1.0), *points(), limits=(-1, 1, -1, 1), resolution=3)
    middle = pixels(axes)[1, 1]
    tint = [1 - TINT * (1 - torch.tensor([int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)])) for c in COLOURS[:2]]
    assert torch.allclose(middle, ((tint[0] + tint[1]) / 2).to(middle.dtype), atol=1e-5)


def test_every_point_is_drawn_once_and_the_labelled_ones_are_large() -> None:
    x, y, labelled = points()
    axes = axes_of(HalfPlane((1.0, 0.0), 0.0), x, y, labelled)
    large, small = scatters(axes, large=True), scatters(axes, large=False)
    assert (len(large), len(small)) == (6, 34)
    assert as_set(large) == as_set(x[labelled])
    assert as_set(small) == as_set(x[6:])


def test_points_of_unknown_class_are_drawn_too() -> None:
    x, y, labelled = points()
    y = y.clone()
    y[20:] = -1
    assert len(scatters(axes_of(HalfPlane((1.0, 0.0), 0.0), x, y, labelled), large=False)) == 34


def test_a_constant_classifier_has_no_boundary() -> None:
    axes = axes_of(HalfPlane((1.0, 0.0), 50.0), *points())
    assert not [item for item in axes.collections if isinstance(item, ContourSet)]


def test_three_classes_meet_where_two_are_equally_likely() -> None:
    line = boundary(axes_of(Thirds(), *points(classes=3), limits=(-1, 1, -1, 1)))
    best = Thirds()(line.float()).topk(2, dim=1).values
    assert len(line) > 100
    assert (best[:, 0] - best[:, 1]).max() < 0.2  # in logits, which differ by up to 17 across the picture


def test_the_same_figure_is_the_same_file_with_one_panel_after_another(tmp_path: Path) -> None:
    from matplotlib.image import imread

    panel = Panel("half plane", HalfPlane((1.0, 0.0), 0.0), *points())
    other = panel._replace(network=HalfPlane((0.0, 1.0), 0.0))
    figures = {"a": ([panel], 3), "b": ([panel], 3), "two": ([panel, other], 3), "stacked": ([panel, other], 1)}
    sizes = {}
    for name, (panels, columns) in figures.items():
        regions_figure(panels, tmp_path / name, columns=columns, resolution=20)
        sizes[name] = imread(tmp_path / name, format="png").shape[:2]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    height, width = sizes["a"]
    assert sizes["two"][1] > 1.5 * width
    assert sizes["two"][0] < 1.2 * height
    assert sizes["stacked"][0] > 1.5 * height
    assert sizes["stacked"][1] < 1.2 * width


def test_drawing_leaves_the_network_and_pyplot_alone(tmp_path: Path) -> None:
    import sys

    network = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loaded = "matplotlib.pyplot" in sys.modules
    regions_figure([Panel("net", network, *points())], tmp_path / "net.png", resolution=20)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def test_a_panel_of_a_run_holds_what_the_run_was_trained_on(tmp_path: Path) -> None:
    from vicinal.experiment import Experiment
    from vicinal.fitting import fit

    experiment = Experiment.of(
        data={"name": "two_circles", "n": 60},
        method="vat",
        labels=4,
        recipe="none",
        seed=3,
        network={"name": "mlp", "hidden": [4]},
        split={"validation": 10},
        training={"steps": 2, "threads": 1, "device": "cpu"},
    )
    run = fit(experiment, tmp_path / "run", progress=False)
    data: Dataset = load(experiment.data)
    panel = Panel.of("vat", run.network().network, data, SplitIndices.load(run.split_file))
    assert len(panel.x) == 50, "the validation points are not training points"
    assert panel.y[panel.labelled].bincount().tolist() == [2, 2]
    labelled = SplitIndices.load(run.split_file).labelled
    assert isinstance(data.train.x, Tensor)
    assert torch.equal(panel.x[panel.labelled], data.train.x[labelled])
    assert torch.equal(panel.network(panel.x), run.network("last").network(panel.x))


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    x, y, labelled = points()
    with pytest.raises(InputError, match=r"expected points of shape \(N, 2\), got \(40, 3\)"):
        decision_regions(Figure().subplots(), HalfPlane((1.0, 0.0), 0.0), torch.zeros(40, 3), y, labelled)
    with pytest.raises(InputError, match="9 classes, and there are colours for 8"):
        decision_regions(Figure().subplots(), nn.Linear(2, 9), x, y, labelled)
    with pytest.raises(InputError, match="no panels"):
        regions_figure([], tmp_path / "empty.png")
    with pytest.raises(InputError, match=r"drawn in the plane.*\(1, 8, 8\)"):
        Panel.of("digits", nn.Identity(), load(Choice("digits")), SplitIndices(labelled, labelled, labelled))
