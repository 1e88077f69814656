"""Layers against their formulas, and against torch's batch norm where the flags are meant to agree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.networks import GaussianNoise, MeanOnlyBatchNorm, cnn13, initialise_from_data
from vicinal.networks.layers import normalised

torch.set_num_threads(1)


def batches(shape: tuple[int, ...], count: int = 3) -> list[Tensor]:
    made = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=made) + k for k in range(count)]


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5), (4, 3, 2, 5)])
@pytest.mark.parametrize("momentum", [0.1, 0.001, None])
def test_running_means_and_counts_are_those_of_torch_batch_norm(shape: tuple[int, ...], momentum: float | None) -> None:
    ours = MeanOnlyBatchNorm(3, momentum=momentum)
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    theirs = kind(3, momentum=momentum)
    for x in batches(shape):
        ours(x), theirs(x)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    assert torch.equal(ours.num_batches_tracked, theirs.num_batches_tracked)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 2, 5)])
def test_formula_in_training_and_evaluation(shape: tuple[int, ...]) -> None:
    layer = MeanOnlyBatchNorm(3)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, -2.0, 0.5]))
    (x,) = batches(shape, 1)
    view = (1, 3, *[1] * (len(shape) - 2))
    bias = layer.bias.view(view)
    mean = x.transpose(0, 1).flatten(1).mean(1).view(view)
    torch.testing.assert_close(layer(x), x - mean + bias)
    torch.testing.assert_close(layer.eval()(x), x - layer.running_mean.view(view) + bias)
    assert not torch.allclose(layer.running_mean.view(view), mean)


def test_tracking_off_in_training_uses_the_batch_and_changes_nothing() -> None:
    layer = MeanOnlyBatchNorm(3)
    (x,) = batches((6, 3), 1)
    layer(x)
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    layer.track_running_stats = False
    torch.testing.assert_close(layer(x + 5), x - x.mean(0))
    assert all(torch.equal(before[name], buffer) for name, buffer in layer.named_buffers())
    # In evaluation the running means are used all the same, as torch's batch norm does.
    torch.testing.assert_close(layer.eval()(x), x - before["running_mean"])


def test_without_buffers_evaluation_uses_the_batch() -> None:
    layer = MeanOnlyBatchNorm(3, track_running_stats=False, affine=False).eval()
    (x,) = batches((6, 3), 1)
    torch.testing.assert_close(layer(x), x - x.mean(0))
    assert not layer.state_dict()


def test_one_value_per_channel_is_refused_in_training_only() -> None:
    layer = MeanOnlyBatchNorm(3)
    with pytest.raises(InputError, match="larger batch"):
        layer(torch.zeros(1, 3))
    assert layer.eval()(torch.zeros(1, 3)).shape == (1, 3)


def test_half_precision_keeps_its_dtype_and_a_float32_mean() -> None:
    layer = MeanOnlyBatchNorm(1, affine=False)
    x = torch.full((4096, 1), 1.0, dtype=torch.bfloat16)
    x[::2] = 1.0078125
    assert layer(x).dtype == torch.bfloat16
    torch.testing.assert_close(layer.running_mean, torch.tensor([0.100390625]), rtol=1e-6, atol=0)


def test_noise_in_training_only_with_its_standard_deviation() -> None:
    layer = GaussianNoise(0.15)
    torch.manual_seed(0)
    x = torch.ones(20_000)
    assert float((layer(x) - x).std()) == pytest.approx(0.15, rel=0.03)
    assert layer.eval()(x) is x
    with pytest.raises(InputError, match="input_noise"):
        GaussianNoise(-1.0)


@pytest.mark.parametrize("kind", [lambda: nn.Conv2d(2, 5, 3), lambda: nn.Linear(4, 5)])
def test_weight_norm_separates_length_and_direction(kind: type[nn.Module]) -> None:
    (layer,) = normalised(kind(), "weight")
    g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    with torch.no_grad():
        g.fill_(2.0)
        v.mul_(7.0)
    torch.testing.assert_close(layer.weight.flatten(1).norm(dim=1), torch.full((5,), 2.0))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_initialisation_from_data_whitens_each_layer(bias: bool, training: bool) -> None:
    torch.manual_seed(0)
    network = cnn13((3, 12, 12), 4, norm="weight+mean_only", top_norm="weight+mean_only", bias=bias, input_noise=0.15)
    images = torch.rand(16, 3, 12, 12)
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    outputs: list[Tensor] = []

    def spreads() -> Tensor:
        outputs.clear()
        hooks = [
            module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
            for module in network.modules()
            if isinstance(module, MeanOnlyBatchNorm)
        ]
        silent = [m for m in network.modules() if isinstance(m, (nn.Dropout, GaussianNoise))]
        for module in silent:
            module.eval()
        with torch.no_grad():
            network(images)
        for module in silent:
            module.train()
        for hook in hooks:
            hook.remove()
        return torch.stack([y.transpose(0, 1).flatten(1).std(1).sub(1).abs().max() for y in outputs])

    network_before = spreads()
    network.load_state_dict(buffers, strict=False)
    initialise_from_data(network.train(training), images)
    assert all(module.training is training for module in network.modules())
    network.train()
    assert all(torch.equal(buffers[name], buffer) for name, buffer in network.named_buffers())
    assert float(spreads().max()) < 1e-3 < float(network_before.min())
