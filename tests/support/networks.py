"""Networks of tests: layers with drawn weights, away from where they start, and logits that are changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@contextmanager
def drawn(seed: int = 0) -> Iterator[None]:
    """Layers made inside draw their weights from this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def used(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """The network with running statistics and gains away from where they start, float64, in eval mode."""
    with torch.no_grad(), drawn(1):
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.weight.uniform_(-2, 2)
        network.train()(torch.randn(32, *shape))
    return network.double().eval()


class Changed(nn.Module):
    """A network whose logits are changed."""

    def __init__(self, network: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.network(x))
