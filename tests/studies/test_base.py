"""What studies are given."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.data import Examples
from vicinal.errors import InputError
from vicinal.networks import folded
from vicinal.studies import Subject, base


def test_the_test_part_is_measured(images: Subject) -> None:
    assert images.part == "test"
    x, y = images.batches(size=7)[0]
    torch.testing.assert_close(x, images.dataset.test.x[:7])  # type: ignore[union-attr]
    assert y.tolist() == images.dataset.test.y[:7].tolist()  # type: ignore[union-attr]


def test_only_as_many_as_there_are(images: Subject) -> None:
    assert [len(y) for _, y in images.batches(50, size=20)] == [20, 20, 10]
    assert sum(len(y) for _, y in images.batches(10**6)) == images.count() == images.count(10**6)


def test_fewer_examples_are_spread_evenly(images: Subject) -> None:
    """The first rows of a folder would be of one class."""
    y = torch.arange(60) // 20
    dataset = dataclasses.replace(images.dataset, test=Examples(images.dataset.test.x, y))  # type: ignore[union-attr]
    sorted_by_class = dataclasses.replace(images, dataset=dataset)
    (_, found), *more = sorted_by_class.batches(6)
    assert not more
    assert found.bincount().tolist() == [2, 2, 2]
    assert sum(len(y) for _, y in sorted_by_class.stream(None, size=7)) == len(y)


def test_the_fast_network_is_the_network(images: Subject) -> None:
    x, _ = images.batches()[0]
    torch.testing.assert_close(images.fast(x), images.network(x))
    assert images.fast is images.fast is not images.network


def normed() -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(6)
    norm.running_mean = torch.linspace(-1, 1, 6)
    return norm


ODD: dict[str, list[nn.Module]] = {
    # (B, 1, 36) to (B, 6, 6), where the norm's channels are not the layer's, which no count tells.
    "as many rows as columns": [nn.Unflatten(2, (6, 6)), nn.Flatten(1, 2), nn.Linear(6, 6), normed(), nn.Flatten()],
    "other counts": [nn.Unflatten(2, (6, 6)), nn.Flatten(1, 2), nn.Linear(6, 8), normed(), nn.Flatten()],
}


@pytest.mark.parametrize("name", ODD)
def test_the_fast_network_works_wherever_the_network_does(name: str, images: Subject) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(2), *ODD[name], nn.LazyLinear(3)).eval()
    (x, _), *_ = images.batches(8)
    logits = network(x)
    torch.testing.assert_close(dataclasses.replace(images, network=network).fast(x), logits)
    if name == "as many rows as columns":
        with pytest.raises(InputError, match="batch norm beside a linear layer is folded"):  # negative control
            folded(network)(x)


def broken(network: nn.Module) -> nn.Module:
    raise RuntimeError("cannot be copied")


@pytest.mark.parametrize(
    "wrong",
    [
        broken,
        lambda network: nn.Sequential(network, nn.Hardtanh(-0.1, 0.1)),
        lambda network: nn.Sequential(network, nn.Linear(3, 4)),
        lambda network: Scaled(network, math.nan),
        lambda network: Scaled(network, 1.1),
    ],
)
def test_a_copy_that_is_another_function_is_not_taken(
    wrong: Any, images: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert images.faster(images.network) is not images.network
    monkeypatch.setattr(base, "folded", wrong)
    assert images.faster(images.network) is images.network
    monkeypatch.setattr(base, "folded", lambda network: Scaled(network, 1.0001))
    assert isinstance(images.faster(images.network), Scaled)


class Scaled(nn.Module):
    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.network(x)


def test_batches_start_anew_on_each_pass(images: Subject) -> None:
    again = images.again(20, 7)
    for _ in range(2):
        for (x, y), (same_x, same_y) in zip(again, images.batches(20, 7), strict=True):
            assert torch.equal(x, same_x)
            assert torch.equal(y, same_y)


def test_without_a_test_part_validation_is_measured(images: Subject) -> None:
    without = dataclasses.replace(images, dataset=dataclasses.replace(images.dataset, test=None))
    assert without.part == "validation"
    torch.testing.assert_close(without.batches(5)[0][0], images.dataset.validation.x[::12])  # type: ignore[union-attr]


def test_without_either_it_is_refused(images: Subject) -> None:
    dataset = dataclasses.replace(images.dataset, test=None, validation=None)
    with pytest.raises(InputError, match="no test and no validation part"):
        dataclasses.replace(images, dataset=dataset)


def test_scale_and_bounds(images: Subject, vectors: Subject) -> None:
    assert (images.scale, images.bounds) == (1.0, (0.0, 1.0))
    assert vectors.bounds is None
    test = vectors.dataset.test
    doubled = dataclasses.replace(
        vectors,
        dataset=dataclasses.replace(vectors.dataset, test=Examples(2 * test.x[:], test.y)),  # type: ignore[union-attr]
    )
    assert doubled.scale == pytest.approx(2 * vectors.scale)
    assert vectors.scale == pytest.approx(test.x[:].std(dim=0, correction=0).square().mean().sqrt().item())  # type: ignore[union-attr]
