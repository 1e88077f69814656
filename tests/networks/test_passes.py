"""Every field of the pass policy: what a pass may change, and that everything else is bit-equal afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from vicinal.errors import InputError
from vicinal.networks import (
    EVAL,
    FROZEN_STATS,
    TRAIN,
    ZCA,
    MeanOnlyBatchNorm,
    PassPolicy,
    applied,
    cnn13,
    run,
    small_cnn,
)

torch.set_num_threads(1)

SHARED = PassPolicy(dropout="shared")


class Foreign(nn.Module):
    """A layer of someone else: it changes buffers in place, by assignment, and shares one with another module."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("scratch", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.add_(x.detach().mean(dim=0))
            self.calls = self.calls + 1
            self.scratch = x.detach()
        return x + self.seen


class StrangeBatchNorm(nn.BatchNorm1d):
    """A batch norm whose own forward does not know `track_running_stats`."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.running_mean.add_(1)
        return x - self.running_mean


def mixed_network() -> nn.Sequential:
    """One of everything: batch norms of every kind, layer norm, dropout, foreign buffers, a parametrisation."""
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Linear(4, 3),
        nn.BatchNorm1d(3, momentum=0.9),
        nn.LayerNorm(3),
        nn.Dropout(0.5),
        MeanOnlyBatchNorm(3, momentum=None),
        Foreign(),
        StrangeBatchNorm(3),
        nn.BatchNorm1d(3, track_running_stats=False),
        spectral_norm(nn.Linear(3, 3)),
        nn.Sequential(nn.InstanceNorm1d(1, track_running_stats=True), nn.ReLU(), nn.Linear(3, 2)),
    )
    network.insert(9, nn.Unflatten(1, (1, 3)))
    network.insert(11, nn.Flatten())
    return network


def state(network: nn.Module) -> dict[str, Any]:
    """All that a pass without permission must leave alone, including the identity of the buffer objects."""
    return {
        "buffers": {name: buffer.clone() for name, buffer in network.named_buffers()},
        "objects": [{name: id(buffer) for name, buffer in m._buffers.items()} for m in network.modules()],
        "parameters": {name: parameter.detach().clone() for name, parameter in network.named_parameters()},
        "training": [module.training for module in network.modules()],
        "tracking": [getattr(module, "track_running_stats", None) for module in network.modules()],
        "momentum": [getattr(module, "momentum", None) for module in network.modules()],
    }


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, at any depth."""
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["train", "eval", "partly"])
def network(request: pytest.FixtureRequest) -> nn.Sequential:
    made = mixed_network().train(request.param != "eval")
    if request.param == "partly":
        made[1].eval()
        made[3].eval()
    return made


@pytest.mark.parametrize("policy", [FROZEN_STATS, EVAL, PassPolicy(update_stats=False, dropout="shared", fp32=True)])
def test_without_update_nothing_changes(network: nn.Sequential, x: Tensor, policy: PassPolicy) -> None:
    before = state(network)
    run(network, x, policy, shared_seed=0).sum().backward()
    assert same(before, state(network))


def test_an_ordinary_pass_changes_every_kind_of_buffer(x: Tensor) -> None:
    network = mixed_network()
    before = state(network)["buffers"]
    run(network, x, TRAIN)
    after = state(network)["buffers"]
    changed = {name for name in before if not same(before[name], after[name])}
    expected = {"1.running_mean", "1.num_batches_tracked", "4.running_mean", "5.seen", "5.calls", "6.running_mean"}
    assert expected | {"8.parametrizations.weight.0._u", "10.0.running_mean"} <= changed


@pytest.mark.parametrize("policy", [TRAIN, FROZEN_STATS, EVAL])
def test_flags_come_back_also_after_an_exception(network: nn.Sequential, x: Tensor, policy: PassPolicy) -> None:
    before = state(network)

    def fails(net: nn.Module, inputs: Tensor) -> Tensor:
        net[:6](inputs)  # type: ignore[index]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(network, x, policy, call=fails)
    after = state(network)
    if policy.update_stats:
        before.pop("buffers"), after.pop("buffers"), before.pop("objects"), after.pop("objects")
    assert same(before, after)


def test_random_state_comes_back_also_after_an_exception(x: Tensor) -> None:
    network = mixed_network()
    before = torch.get_rng_state()

    def fails(net: nn.Module, inputs: Tensor) -> Tensor:
        net(inputs)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(network, x, SHARED, call=fails, shared_seed=5)
    assert torch.equal(before, torch.get_rng_state())
    run(network, x, TRAIN)
    assert not torch.equal(before, torch.get_rng_state())


def test_frozen_statistics_still_normalise_by_the_batch(x: Tensor) -> None:
    network = nn.BatchNorm1d(4)
    by_batch = run(network, x, FROZEN_STATS)
    torch.testing.assert_close(by_batch, (x - x.mean(0)) / (x.var(0, unbiased=False) + network.eps).sqrt())
    assert not torch.allclose(by_batch, run(network, x, EVAL))


def test_train_mode_respects_what_the_user_froze(x: Tensor) -> None:
    network = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4))
    network[0].eval()
    seen: list[tuple[bool, bool]] = []
    run(network, x, FROZEN_STATS, call=lambda net, z: seen.append((net[0].training, net[1].training)) or net(z))
    run(network.eval(), x, FROZEN_STATS, call=lambda net, z: seen.append((net[0].training, net[1].training)) or net(z))
    assert seen == [(False, True), (True, True)]


def test_a_batch_norm_in_eval_mode_is_left_alone() -> None:
    network = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4))
    network[0].eval()
    with applied(network, FROZEN_STATS):
        assert [module.track_running_stats for module in network] == [True, False]


def test_train_mode_goes_through_an_overridden_train() -> None:
    class KeepsNormFrozen(nn.Sequential):
        def train(self, mode: bool = True) -> KeepsNormFrozen:
            super().train(mode)
            self[0].eval()
            return self

    network = KeepsNormFrozen(nn.BatchNorm1d(4), nn.Dropout()).eval()
    with applied(network, TRAIN):
        assert [module.training for module in network] == [False, True]
    assert not any(module.training for module in network.modules())


def test_shared_masks_repeat_and_fresh_ones_do_not() -> None:
    network = cnn13((3, 12, 12), 4, input_noise=0.15)
    images = torch.rand(2, 3, 12, 12)
    first, again = (run(network, images, SHARED, shared_seed=7) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, run(network, images, SHARED, shared_seed=8))
    fresh, other = (run(network, images, TRAIN) for _ in range(2))
    assert not torch.equal(fresh, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_shared_masks_on_a_gpu() -> None:
    network, ones = nn.Dropout(0.5), torch.ones(1000, device="cuda")
    before = torch.cuda.get_rng_state(), torch.get_rng_state()
    assert torch.equal(*(run(network, ones, SHARED, shared_seed=7) for _ in range(2)))
    assert torch.equal(before[0], torch.cuda.get_rng_state())
    assert torch.equal(before[1], torch.get_rng_state())
    assert not torch.equal(network(ones), network(ones))


def test_two_calls_in_one_context_draw_different_masks(x: Tensor) -> None:
    network = nn.Dropout(0.5)
    with applied(network, SHARED, 1):
        assert not torch.equal(network(x), network(x))


def test_shared_dropout_needs_a_seed(x: Tensor) -> None:
    with pytest.raises(InputError, match="shared_seed"):
        run(nn.Dropout(), x, SHARED)


def test_fp32_switches_autocast_off(x: Tensor) -> None:
    network = nn.Linear(4, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert run(network, x).dtype == torch.bfloat16
        assert run(network, x.bfloat16(), PassPolicy(fp32=True)).dtype == torch.float32
        assert torch.is_autocast_enabled("cpu")
    assert run(network.double(), x.double(), PassPolicy(fp32=True)).dtype == torch.float64


def test_call_decides_what_runs() -> None:
    network = small_cnn((1, 8, 8), 3, widths=[4, 4])
    network.preprocess = nn.Hardtanh(0, 0.01)
    images = torch.rand(4, 1, 8, 8)
    direct = run(network, images, FROZEN_STATS, call=lambda net, z: net(z, preprocessed=True))
    assert not torch.allclose(direct, run(network, images, FROZEN_STATS))


def test_constant_buffers_are_not_cloned() -> None:
    layer = ZCA(torch.zeros(4), torch.eye(4))
    network = nn.Sequential(layer, Foreign())
    before = layer.matrix
    with applied(network, FROZEN_STATS):
        assert layer.matrix is before
        inside = network[1].seen
    assert network[1].seen is not inside


def test_shared_buffers_stay_shared_inside() -> None:
    network = nn.Sequential(Foreign(), Foreign())
    network[1].seen = network[0].seen
    with applied(network, FROZEN_STATS):
        assert network[0].seen is network[1].seen


def test_layers_put_in_later_are_covered(x: Tensor) -> None:
    network = nn.Sequential(nn.BatchNorm1d(4))
    run(network, x, FROZEN_STATS)
    network.append(nn.BatchNorm1d(4))
    before = state(network)
    run(network, x, FROZEN_STATS)
    assert same(before, state(network))


@pytest.mark.parametrize("build", [lambda: cnn13((3, 12, 12), 4), mixed_network])
def test_policies_leave_the_state_dict_layout_alone(build: Callable[[], nn.Module]) -> None:
    network = build()
    keys = list(network.state_dict())
    with applied(network, FROZEN_STATS):
        assert list(network.state_dict()) == keys
    assert list(network.state_dict()) == keys
