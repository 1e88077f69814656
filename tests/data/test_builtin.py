"""The data sets that need no files."""

from __future__ import annotations

import math

import pytest
import torch

from vicinal.data import Dataset, circle_rings, load
from vicinal.errors import InputError
from vicinal.settings import Choice


def named(name: str, **settings: object) -> Dataset:
    return load(Choice(name, settings))


def points(data: Dataset) -> torch.Tensor:
    assert isinstance(data.train.x, torch.Tensor)
    return data.train.x


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    data, read = named("digits"), load_digits()
    assert data.test is not None
    assert data.is_images
    assert (data.shape, len(data.train), len(data.test)) == ((1, 8, 8), 1200, 597)
    assert data.classes == tuple("0123456789")
    x = torch.cat([points(data), data.test.x[torch.arange(597)]])
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (0, 1)
    # The two parts together are the 1797 images with their labels, each once.
    ours = sorted(
        zip(map(tuple, (x.reshape(-1, 64) * 16).tolist()), torch.cat([data.train.y, data.test.y]).tolist(), strict=True)
    )
    assert ours == sorted(zip(map(tuple, read.data.tolist()), read.target.tolist(), strict=True))
    # Stratified: the test part holds a third of each class.
    for c in range(10):
        assert abs(int((data.test.y == c).sum()) - 597 / 1797 * int((read.target == c).sum())) < 1


def test_the_test_digits_depend_on_their_own_seed_only() -> None:
    digests = [
        named("digits", **settings).source["content"] for settings in ({}, {}, {"split_seed": 1}, {"test_size": 600})
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_circles_without_noise_lie_on_their_radii() -> None:
    data = named("two_circles", n=200, ratio=0.3, noise=0.0)
    radius = points(data).norm(dim=1)
    expected = torch.where(data.train.y == 0, 1.0, 0.3)
    assert torch.allclose(radius, expected, atol=1e-6)
    angles = torch.atan2(points(data)[:, 1], points(data)[:, 0])
    assert ((angles / (math.pi / 2)).floor().long() + 2).bincount(minlength=4).min() > 25, "all around"


@pytest.mark.parametrize("name", ["two_circles", "two_moons"])
def test_noise_has_the_standard_deviation_asked_for(name: str) -> None:
    clean, noisy = (points(named(name, n=4000, noise=noise)) for noise in (0.0, 0.2))
    assert abs((noisy - clean).std().item() - 0.2) < 0.01
    assert abs((noisy - clean).mean().item()) < 0.02


@pytest.mark.parametrize("name", ["two_circles", "two_moons"])
def test_planar_sets_are_balanced_and_named_by_their_seed(name: str) -> None:
    data = named(name, n=101, test_size=40)
    assert data.test is not None
    assert (data.shape, data.is_images, len(data.train), len(data.test)) == ((2,), False, 101, 40)
    assert data.train.y.bincount().tolist() == [51, 50]
    assert torch.equal(points(data), points(named(name, n=101, test_size=40)))
    assert not torch.equal(points(data), points(named(name, n=101, data_seed=1)))
    even = named(name, n=40, test_size=40)
    assert even.test is not None
    assert not torch.equal(points(even), even.test.x[torch.arange(40)]), "the parts are drawn apart"
    # Neither part depends on the other's size.
    assert torch.equal(points(data), points(named(name, n=101, test_size=7)))


def test_moons_without_noise_lie_on_two_half_circles() -> None:
    data = named("two_moons", noise=0.0)
    upper, lower = (points(data)[data.train.y == c] for c in (0, 1))
    assert torch.allclose(upper.norm(dim=1), torch.ones(len(upper)), atol=1e-6)
    assert torch.allclose((lower - torch.tensor([1.0, 0.5])).norm(dim=1), torch.ones(len(lower)), atol=1e-6)
    assert upper[:, 1].min() >= -1e-6
    assert lower[:, 1].max() <= 0.5 + 1e-6


def test_rings_are_evenly_spaced() -> None:
    x, y = circle_rings(12, ratio=0.4)
    assert y.tolist() == [0] * 12 + [1] * 12
    assert y.dtype == torch.int64
    for ring, radius in ((x[:12], 1.0), (x[12:], 0.4)):
        assert torch.allclose(ring.norm(dim=1), torch.full((12,), radius))
        steps = (ring - ring.roll(1, 0)).norm(dim=1)
        assert torch.allclose(steps, torch.full((12,), 2 * radius * math.sin(math.pi / 12)), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("digits", {"test_size": 5}, "data: test_size must be at least 10"),
        ("digits", {"test_size": 1795}, "data: test_size must be at most 1787"),
        ("digits", {"test_sise": 5}, "data.test_sise: unknown setting; did you mean 'test_size'"),
        ("two_circles", {"ratio": 0.0}, "data: ratio must be greater than 0"),
        ("two_circles", {"ratio": 1.0}, "data: ratio must be below 1"),
        ("two_circles", {"noise": -0.1}, "data: noise must be at least 0"),
        ("two_moons", {"n": 1}, "data: n must be at least 2"),
        ("two_moons", {"test_size": 0}, "data: test_size must be at least 2"),
        ("two_moons", {"n": "many"}, "data.n: expected int, got 'many'"),
    ],
)
def test_wrong_settings_are_refused(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        named(name, **settings)
