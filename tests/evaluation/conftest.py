"""What the tests of measurements share: a trained network, and a check that measuring leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.networks import mlp

Batches = list[tuple[Tensor, Tensor]]


@pytest.fixture(scope="session")
def digits() -> Batches:
    """The first 300 digits, 8x8 in [0,1], in batches of 128."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x = torch.from_numpy(found.images[:300]).float().unsqueeze(1) / 16
    return list(zip(x.split(128), torch.from_numpy(found.target[:300]).long().split(128), strict=True))


@pytest.fixture(scope="session")
def trained(digits: Batches) -> nn.Module:
    """A small network with batch norm and dropout, trained on them, in train mode."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = mlp((1, 8, 8), 10, hidden=[32], norm="batch", dropout=0.1)
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
        for _ in range(15):
            for x, y in digits:
                optimiser.zero_grad()
                F.cross_entropy(network(x), y).backward()
                optimiser.step()
    return network


@pytest.fixture
def untouched() -> Callable[[nn.Module], AbstractContextManager[None]]:
    """A context that compares a network's tensors, gradients and flags, and the global generator, before and after."""

    def state(network: nn.Module) -> dict[str, Tensor]:
        tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict(keep_vars=True).items()}
        gradients = {f"{name}.grad": p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
        flags = {f"{name}.training": torch.tensor(module.training) for name, module in network.named_modules()}
        return {**tensors, **gradients, **flags, "generator": torch.get_rng_state()}

    @contextmanager
    def compared(network: nn.Module) -> Iterator[None]:
        before = state(network)
        yield
        after = state(network)
        assert before.keys() == after.keys()
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())

    return compared
