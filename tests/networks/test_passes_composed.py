"""Passes under a policy inside of what else runs in a training step: autograd, forward mode, DDP."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.networks import FROZEN_STATS, MeanOnlyBatchNorm, PassPolicy, run

torch.set_num_threads(1)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(1))


def buffers(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_gradients_are_those_of_a_plain_call(x: Tensor) -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), MeanOnlyBatchNorm(3))
    twin = copy.deepcopy(network)
    inputs, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
    (ours,) = torch.autograd.grad(run(network, inputs, FROZEN_STATS).square().sum(), inputs)
    (theirs,) = torch.autograd.grad(twin(plain).square().sum(), plain)
    assert torch.equal(ours, theirs)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch itself, on the first use of jvp
def test_forward_mode_agrees_with_differences(x: Tensor) -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), MeanOnlyBatchNorm(3)).double()
    before = buffers(network)
    point, direction = x.double(), torch.ones_like(x.double())

    def function(z: Tensor) -> Tensor:
        return run(network, z, PassPolicy(update_stats=False, dropout="shared"), shared_seed=0)

    _, tangent = torch.func.jvp(function, (point,), (direction * point,))
    step = 1e-6
    numeric = (function(point + step * direction * point) - function(point - step * direction * point)) / (2 * step)
    torch.testing.assert_close(tangent, numeric, rtol=1e-6, atol=1e-7)
    assert same(before, buffers(network))


@pytest.fixture
def process_group(tmp_path: Any) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_under_ddp(x: Tensor) -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), MeanOnlyBatchNorm(3), nn.Dropout())
    wrapped = nn.parallel.DistributedDataParallel(network)
    before = buffers(network)
    for policy in (FROZEN_STATS, PassPolicy(update_stats=False, dropout="shared")):
        run(wrapped, x, policy, shared_seed=0).sum().backward()
    assert same(before, buffers(network))
    assert all(parameter.grad is not None for parameter in network.parameters())
