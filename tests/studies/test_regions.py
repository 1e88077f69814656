"""The picture of decision regions: its size, what it shows and where, and what there is no picture of."""

from __future__ import annotations

import base64
import dataclasses
import io

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor, nn

from vicinal.data import Examples
from vicinal.errors import InputError
from vicinal.reporting.regions import COLOURS, TINT
from vicinal.studies import Subject
from vicinal.studies.regions import Regions


class Sides(nn.Module):
    """Class 1 where the first (or the other) coordinate is greater than 0, and sure of it."""

    def __init__(self, coordinate: int = 0) -> None:
        super().__init__()
        self.coordinate = coordinate

    def forward(self, x: Tensor) -> Tensor:
        z = 1000 * x[:, self.coordinate]
        return torch.stack([-z, z], dim=1)


def picture(subject: Subject, **settings: int) -> np.ndarray:
    """The picture, floats in [0,1] (height, width, 3)."""
    content = base64.b64decode(Regions(**settings)(subject, 0)["pictures"]["regions"], validate=True)
    found: np.ndarray = imread(io.BytesIO(content), format="png")[:, :, :3]
    return found


def tint(label: int) -> np.ndarray:
    colour = np.array([int(COLOURS[label][i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return 1 - TINT * (1 - colour)


def test_the_picture_has_the_asked_size_and_the_same_subject_gives_the_same_file(plane: Subject) -> None:
    assert picture(plane).shape == (320, 320, 3)
    assert picture(plane, side=150, resolution=20).shape == (150, 150, 3)
    assert Regions()(plane, 0) == Regions()(plane, 1)


def shown(subject: Subject) -> None:
    """Regions left and right, to the very edges; the line is in between, at the limits' zero."""
    found, limits = picture(subject), Regions()(subject, 0)["limits"]
    for column, label in ((0, 0), (-1, 1)):
        np.testing.assert_allclose(found[::40, column], np.tile(tint(label), (8, 1)), atol=0.01)
    top = found[0]  # above all points
    black = np.flatnonzero(top.sum(axis=1) < 0.5 * top.sum(axis=1).max())
    assert len(black) > 0
    assert np.mean(black) == pytest.approx(-limits[0] / (limits[1] - limits[0]) * 320, abs=3)


def test_regions_and_boundary_lie_where_the_network_has_them(plane: Subject) -> None:
    shown(dataclasses.replace(plane, network=Sides()))


def test_other_regions_are_told_apart(plane: Subject) -> None:
    with pytest.raises(AssertionError):
        shown(dataclasses.replace(plane, network=Sides(1)))


def test_training_points_are_drawn_within_the_limits(plane: Subject) -> None:
    found = Regions()(plane, 0)
    x = plane.dataset.train.x[:]
    left, right, bottom, top = found["limits"]
    assert found["classes"] == ["a", "b"]
    assert left < float(x[:, 0].min()) < float(x[:, 0].max()) < right
    assert bottom < float(x[:, 1].min()) < float(x[:, 1].max()) < top
    assert right - left == pytest.approx(top - bottom)
    fewer = dataclasses.replace(plane, split=dataclasses.replace(plane.split, labelled=plane.split.labelled[:1]))
    assert np.abs(picture(plane) - picture(fewer)).max() > 0.3


def test_the_network_stays_as_it_was(plane: Subject) -> None:
    before = {name: tensor.clone() for name, tensor in plane.network.state_dict().items()}
    Regions(resolution=10)(plane, 0)
    assert not plane.network.training
    for name, tensor in plane.network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_what_is_not_in_the_plane_is_refused(plane: Subject, vectors: Subject, images: Subject) -> None:
    assert Regions().refusal(plane) is None
    for subject in (vectors, images):
        assert Regions().refusal(subject) == "the inputs do not lie in the plane"
        with pytest.raises(InputError, match="decision regions: the inputs do not lie in the plane"):
            Regions()(subject, 0)


def test_more_classes_than_colours_are_refused(plane: Subject) -> None:
    for classes in (len(COLOURS), len(COLOURS) + 1):
        names = tuple(map(str, range(classes)))
        y = torch.arange(len(plane.dataset.train)) % classes
        dataset = dataclasses.replace(plane.dataset, classes=names, train=Examples(plane.dataset.train.x, y))
        reason = Regions().refusal(dataclasses.replace(plane, dataset=dataset))
        assert reason == (None if classes == len(COLOURS) else f"there are {classes} classes, and colours for 8")


@pytest.mark.parametrize("settings", [{"side": 10}, {"resolution": 1}])
def test_bad_settings_are_one_clear_line(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match="must be at least") as raised:
        Regions(**settings)
    assert "\n" not in str(raised.value)
