"""Data sets that need no files: scikit-learn's digits, two circles, two moons."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vicinal.data.labels import content_digest
from vicinal.data.types import Dataset, Examples
from vicinal.errors import InputError
from vicinal.randomness import generator
from vicinal.settings import check


def digits(*, test_size: int = 597, split_seed: int = 0) -> Dataset:
    """Scikit-learn's 1797 handwritten digits: grey images of 8x8 pixels, 17 grey levels, 10 classes.

    Args:
        test_size: number of test images, stratified by class, from 10 to 1787.
        split_seed: seed of the division into training and test part; independent of the experiment's seed, so that all
            experiments share one test part.

    Raises:
        InputError: ``test_size`` leaves a part with fewer images than classes.

    >>> digits().train.x.shape
    torch.Size([1200, 1, 8, 8])
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    read = load_digits()
    check("test_size", test_size, low=10, high=len(read.target) - 10)
    x = torch.from_numpy(read.images).to(torch.float32)[:, None] / 16
    y = torch.from_numpy(read.target).to(torch.int64)
    train, test = train_test_split(range(len(y)), test_size=test_size, stratify=read.target, random_state=split_seed)
    return _dataset(
        "digits",
        Examples(x[sorted(train)], y[sorted(train)]),
        Examples(x[sorted(test)], y[sorted(test)]),
        tuple("0123456789"),
        {"data": "sklearn.datasets.load_digits", "test_size": test_size, "split_seed": split_seed},
    )


def two_circles(
    *,
    n: int = 1000,
    ratio: float = 0.5,
    noise: float = 0.1,
    test_noise: float | None = None,
    test_size: int = 1000,
    data_seed: int = 0,
) -> Dataset:
    """Two concentric circles in the plane, one class each; the outer one has radius 1.

    Args:
        n: number of training points, half of them on each circle, at least 2.
        ratio: radius of the inner circle, in (0,1).
        noise: standard deviation of the Gaussian noise on both coordinates, at least 0.
        test_noise: that of the test points; None means ``noise``. With 0 the test part is the circles themselves, as
            `circle_rings` gives them: ``test_size // 2`` evenly spaced points on each.
        test_size: number of test points, at least 2.
        data_seed: seed of the points; independent of the experiment's seed.

    Raises:
        InputError: a setting is out of range.

    >>> data = two_circles(test_noise=0.0)
    >>> sorted({round(radius, 4) for radius in data.test.x.norm(dim=1).tolist()})
    [0.5, 1.0]
    """
    _check_ratio(ratio)

    def curve(t: Tensor, y: Tensor) -> Tensor:
        return _ring_points(2 * math.pi * t, y, ratio)

    check("test_size", test_size, low=2)
    if test_noise is None:
        test_noise = noise
        rings = None
    else:
        check("test_noise", test_noise, low=0)
        rings = circle_rings(test_size // 2, ratio) if test_noise == 0 else None
    return _planar(
        "two_circles",
        curve,
        ("outer", "inner"),
        (n, test_size),
        (noise, test_noise),
        data_seed,
        rings,
        ratio=ratio,
        test_noise=test_noise,
    )


def two_moons(*, n: int = 1000, noise: float = 0.1, test_size: int = 1000, data_seed: int = 0) -> Dataset:
    """Two interleaved half circles of radius 1 in the plane, one class each.

    The upper one is (cos t, sin t), the lower one (1 - cos t, 1/2 - sin t), for t in [0, pi].

    Args:
        n: number of training points, half of them on each moon, at least 2.
        noise: standard deviation of the Gaussian noise on both coordinates, at least 0.
        test_size: number of test points, drawn alike, at least 2.
        data_seed: seed of the points; independent of the experiment's seed.

    Raises:
        InputError: a setting is out of range.
    """

    def curve(t: Tensor, y: Tensor) -> Tensor:
        upper = torch.stack([torch.cos(math.pi * t), torch.sin(math.pi * t)], dim=1)
        return torch.where(y[:, None] == 0, upper, torch.tensor([1.0, 0.5]) - upper)

    return _planar("two_moons", curve, ("upper", "lower"), (n, test_size), (noise, noise), data_seed)


def circle_rings(n: int, ratio: float = 0.5) -> tuple[Tensor, Tensor]:
    """The circles of `two_circles` without noise: ``n`` evenly spaced points on each.

    Args:
        n: points per circle, at least 1.
        ratio: radius of the inner circle, in (0,1).

    Returns:
        Points (2n, 2) float32, and classes (2n,) int64: 0 outer, 1 inner.

    >>> x, y = circle_rings(4, ratio=0.5)
    >>> x[0].tolist(), x[4].tolist(), y.tolist()
    ([1.0, 0.0], [0.5, 0.0], [0, 0, 0, 0, 1, 1, 1, 1])
    """
    check("n", n, low=1)
    _check_ratio(ratio)
    y = torch.arange(2).repeat_interleave(n)
    return _ring_points(2 * math.pi * torch.arange(n).repeat(2) / n, y, ratio), y


def _ring_points(angle: Tensor, y: Tensor, ratio: float) -> Tensor:
    radius = torch.where(y == 0, 1.0, ratio)
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)


def _check_ratio(ratio: float) -> None:
    check("ratio", ratio, above=0)
    if not ratio < 1:
        raise InputError(f"ratio must be below 1 (the inner radius over the outer), got {ratio}")


def _planar(
    name: str,
    curve: Callable[[Tensor, Tensor], Tensor],
    classes: tuple[str, str],
    sizes: tuple[int, int],
    noises: tuple[float, float],
    data_seed: int,
    test: tuple[Tensor, Tensor] | None = None,
    **shape: float,
) -> Dataset:
    """Training and test points drawn uniformly along two curves, with Gaussian noise.

    Args:
        name: name of the data set.
        curve: points (N, 2) for positions (N,) in [0,1) and classes (N,).
        classes: names of the two classes.
        sizes: numbers of training and test points.
        noises: standard deviations of the noise in the two parts.
        data_seed: seed of the draws; the two parts have streams of their own, so neither depends on the other's size.
        test: points and classes of the test part, where they are not drawn.
        shape: settings of the curve, for provenance.
    """
    n, test_size = sizes
    check("n", n, low=2)
    check("test_size", test_size, low=2)
    check("noise", noises[0], low=0)
    parts = []
    for part, size, noise in (("train", n, noises[0]), ("test", test_size, noises[1])):
        draw = generator(data_seed, f"{name}-{part}")
        y = torch.arange(size) % 2
        x = curve(torch.rand(size, generator=draw), y) + noise * torch.randn(size, 2, generator=draw)
        parts.append(Examples(x, y))
    if test is not None:
        parts[1] = Examples(*test)
    source = {"data": name, "n": n, "test_size": test_size, "noise": noises[0], "data_seed": data_seed, **shape}
    return _dataset(name, parts[0], parts[1], classes, source)


def _dataset(
    name: str, train: Examples, test: Examples, classes: tuple[str, ...], source: dict[str, object]
) -> Dataset:
    shape = tuple(train.x[torch.tensor([0])].shape[1:])
    return Dataset(name, train, test, None, classes, shape, {**source, "content": content_digest(train, test)})
