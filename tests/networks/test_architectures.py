"""Parameter counts, shapes, features, heads, and the places where published codes differ."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vicinal.errors import InputError
from vicinal.networks import (
    NETWORKS,
    Classifier,
    MeanOnlyBatchNorm,
    cnn13,
    mlp,
    preact_resnet18,
    small_cnn,
    wide_resnet,
    wrn_28_2,
)

torch.set_num_threads(1)

PUBLISHED_CNN13: dict[str, dict[str, Any]] = {
    "tempens": {"norm": "weight+mean_only", "top_norm": "weight+mean_only", "input_noise": 0.15, "bias": False},
    "vat": {"bias": False, "bn_momentum": 0.01},
    "vat_svhn": {"bias": False, "bn_momentum": 0.01, "top_norm": "batch"},
    "vadd": {"norm": "mean_only", "input_noise": 0.15},
    "advmixup": {"top_norm": "batch"},
    "ict": {"norm": "weight+batch", "top_norm": "weight", "dropout": 0.0},
    "fast_swa": {"norm": "weight+batch", "top_norm": "weight"},
}


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "settings", "parameters", "features"),
    [
        ("cnn13", {}, 3_123_850, 128),
        ("cnn13", {"bias": False}, 3_121_802, 128),
        ("small_cnn", {}, 94_762, 128),
        ("wrn_28_2", {}, 1_467_610, 128),
        ("wrn_28_2", {"faithful_port": True}, 1_467_610, 128),
        ("wrn_28_10", {}, 36_479_194, 640),
        ("preact_resnet18", {"final_norm": False}, 11_171_146, 512),
        ("preact_resnet18", {}, 11_172_170, 512),
        ("preact_resnet18", {"stem": "conv-bn-relu"}, 11_172_298, 512),
        ("mlp", {"hidden": []}, 30_730, 3072),
    ],
)
def test_parameter_counts(name: str, settings: dict[str, Any], parameters: int, features: int) -> None:
    with torch.device("meta"):
        network = NETWORKS[name]((3, 32, 32), 10, **settings)
    assert (count(network), network.feature_dim) == (parameters, features)


@pytest.mark.parametrize(
    ("name", "shape", "settings"),
    [
        ("cnn13", (3, 12, 12), {}),
        ("cnn13", (1, 13, 16), {"top_norm": "mean_only"}),
        ("small_cnn", (1, 8, 8), {"widths": [16, 32, 64], "dropout": 0.2, "input_noise": 0.1}),
        ("small_cnn", (3, 32, 32), {"norm": "weight+mean_only"}),
        ("wide_resnet", (3, 8, 8), {"depth": 10, "width": 1, "dropout": 0.3, "input_noise": 0.1}),
        ("wide_resnet", (3, 9, 9), {"depth": 16, "faithful_port": True}),
        ("preact_resnet18", (3, 8, 8), {"width": 8}),
        ("preact_resnet18", (1, 11, 9), {"width": 8, "stem": "conv-bn-relu", "final_norm": False}),
        ("mlp", (2,), {"hidden": [8, 5], "norm": "batch", "activation": "softplus", "dropout": 0.1}),
        ("mlp", (1, 4, 4), {"hidden": [8], "norm": "layer", "activation": "leaky_relu", "input_noise": 0.1}),
    ],
)
def test_logits_features_and_gradients(name: str, shape: tuple[int, ...], settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](shape, 3, **settings)
    x = torch.rand(5, *shape)
    features = network.eval().features(x)
    assert features.shape == (5, network.feature_dim)
    assert torch.equal(network(x), network.head(features))
    assert network(x).shape == (5, 3)
    everything = network(x, part="all")
    assert torch.equal(everything.logits, network(x))
    assert torch.equal(everything.features, features)
    if everything.map is not None:
        assert torch.allclose(everything.map.mean(dim=(2, 3)), features, atol=1e-6)
    assert (everything.map is not None) == (len(shape) == 3 and name != "mlp")
    assert network.another_head()(features).shape == (5, 3)
    network.train()
    network(x).square().sum().backward()
    missing = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    expected = [
        "body.block2.0.bn1.weight",
        "body.block2.0.bn1.bias",
        "body.block3.0.bn1.weight",
        "body.block3.0.bn1.bias",
    ]
    assert missing == (expected if settings.get("faithful_port") else [])


@pytest.mark.parametrize("name", list(PUBLISHED_CNN13))
def test_published_cnn13_settings(name: str) -> None:
    settings = PUBLISHED_CNN13[name]
    network = cnn13((3, 12, 12), 10, **settings)
    modules = list(network.modules())
    norm, top = settings.get("norm", "batch"), settings.get("top_norm", "none")
    assert sum(isinstance(module, MeanOnlyBatchNorm) for module in modules) == 9 * norm.endswith(
        "mean_only"
    ) + top.endswith("mean_only")
    assert sum(isinstance(module, nn.BatchNorm2d) for module in modules) == 9 * norm.endswith("batch")
    assert sum(isinstance(module, nn.BatchNorm1d) for module in modules) == (top == "batch")
    weighted = [module for module in modules if nn.utils.parametrize.is_parametrized(module)]
    assert len(weighted) == 9 * norm.startswith("weight") + top.startswith("weight")
    another = network.another_head()
    assert type(another).__name__ == type(network.head).__name__
    assert not torch.equal(next(another.parameters()), next(network.head.parameters()))
    assert {m.momentum for m in modules if hasattr(m, "momentum")} == {settings.get("bn_momentum", 0.1)}
    assert network(torch.rand(2, 3, 12, 12)).shape == (2, 10)
    copied = copy.deepcopy(network).eval()
    assert torch.equal(copied(torch.ones(1, 3, 12, 12)), network.eval()(torch.ones(1, 3, 12, 12)))


def trunk(network: Classifier, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes after each convolution and pooling, in order."""
    shapes: list[tuple[int, ...]] = []
    for module in network.body:
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d)):
            module.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    network.eval()(torch.zeros(1, *shape))
    return shapes


def test_the_trunk_of_the_small_cnn() -> None:
    network = small_cnn((1, 8, 8), 10, widths=[16, 32, 64])
    assert trunk(network, (1, 8, 8)) == [(16, 8, 8), (16, 4, 4), (32, 4, 4), (32, 2, 2), (64, 2, 2)]


def test_a_shortcut_that_changes_shape_starts_from_the_activated_input() -> None:
    network = preact_resnet18((3, 8, 8), 4, width=4)
    changing, plain = network.body.stage2.eval()
    with torch.no_grad():
        changing.conv2.weight.zero_()
        plain.conv2.weight.zero_()
    x = torch.randn(2, 4, 4, 4)
    torch.testing.assert_close(changing(x), changing.shortcut(changing.bn1(x).relu()))
    y = torch.randn(2, 8, 2, 2)
    assert torch.equal(plain(y), y)


def test_the_trunk_of_cnn13() -> None:
    assert trunk(cnn13((3, 32, 32), 10), (3, 32, 32)) == [
        *[(128, 32, 32)] * 3,
        (128, 16, 16),
        *[(256, 16, 16)] * 3,
        (256, 8, 8),
        (512, 6, 6),
        (256, 6, 6),
        (128, 6, 6),
    ]


def test_port_bug_is_off_by_default_and_only_there() -> None:
    torch.manual_seed(0)
    right = wrn_28_2((3, 8, 8), 4)
    port = wrn_28_2((3, 8, 8), 4, faithful_port=True)
    port.load_state_dict(right.state_dict())
    x = torch.randn(4, 3, 8, 8)
    for network in (right, port):
        network(x).logsumexp(1).sum().backward()

    def moved(network: Classifier) -> dict[str, bool]:
        return {
            name: parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
            for name, parameter in network.named_parameters()
        }

    assert all(moved(right).values())
    assert {name.rsplit(".", 1)[0] for name, does in moved(port).items() if not does} == {
        "body.block2.0.bn1",
        "body.block3.0.bn1",
    }
    assert not torch.allclose(right.eval()(x), port.eval()(x))


def test_first_shortcut_of_a_wide_resnet_is_activated_and_the_others_raw() -> None:
    network = wide_resnet((3, 8, 8), 4, depth=16)
    flags = [[unit.activated_shortcut for unit in getattr(network.body, f"block{k}")] for k in (1, 2, 3)]
    assert flags == [[True, False], [False, False], [False, False]]
    unit = network.body.block2[0].eval()
    with torch.no_grad():
        unit.conv2.weight.zero_()
    x = -torch.rand(2, 32, 4, 4)
    torch.testing.assert_close(unit(x), unit.shortcut(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cnn13((1, 8, 8), 10), "12x12, got 8x8"),
        (lambda: cnn13((64,), 10), "takes images"),
        (lambda: cnn13((3, 12, 12), 10, dropout=1.0), "dropout"),
        (lambda: cnn13((3, 12, 12), 10, slope=-1.0), "slope"),
        (lambda: cnn13((3, 12, 12), 10, input_noise=-0.1), "input_noise"),
        (lambda: small_cnn((1, 3, 8), 10), "4x4, got 3x8"),
        (lambda: small_cnn((1, 8, 8), 10, widths=[]), "at least one stage"),
        (lambda: small_cnn((1, 8, 8), 10, widths=[0]), "widths"),
        (lambda: mlp((2,), 2, hidden=[-1]), "hidden"),
        (lambda: mlp((2,), 2, dropout=-0.5), "dropout"),
        (lambda: wide_resnet((3, 8, 8), 2, depth=27), "6 n"),
        (lambda: wide_resnet((3, 8, 8), 2, width=0), "width"),
        (lambda: preact_resnet18((3, 4, 4), 2), "8x8"),
    ],
)
def test_bad_settings(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_one_seed_gives_one_network() -> None:
    def made(seed: int) -> Classifier:
        torch.manual_seed(seed)
        return small_cnn((1, 8, 8), 3, norm="weight+mean_only")

    first, again, other = made(0).state_dict(), made(0).state_dict(), made(1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("name", ["tempens", "ict", "fast_swa"])
def test_saved_weights_load(name: str, tmp_path: Any) -> None:
    saved = cnn13((3, 12, 12), 4, **PUBLISHED_CNN13[name])
    x = torch.rand(4, 3, 12, 12)
    saved(x)
    save_file(saved.state_dict(), tmp_path / "model.safetensors")
    loaded = cnn13((3, 12, 12), 4, **PUBLISHED_CNN13[name])
    assert not torch.equal(loaded.eval()(x), saved.eval()(x))
    loaded.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(loaded(x), saved(x))


@pytest.mark.parametrize(
    ("name", "shape", "settings", "places"),
    [
        ("cnn13", (3, 12, 12), {"dropout": 0.0}, 2),
        ("small_cnn", (1, 8, 8), {"widths": [4, 8, 8]}, 3),
        ("wide_resnet", (3, 8, 8), {"depth": 10, "width": 1}, 3),
        ("preact_resnet18", (3, 8, 8), {"width": 4}, 4),
        ("mlp", (2,), {"hidden": [8, 5]}, 2),
    ],
)
def test_activations_may_be_changed_at_each_place(
    name: str, shape: tuple[int, ...], settings: dict[str, Any], places: int
) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](shape, 3, **settings).eval()
    x = torch.rand(5, *shape)
    assert len(network.stages) == places
    seen = []
    for place in range(places + 1):

        def note(activations: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(activations.shape))
            return activations

        assert torch.allclose(network(x, place=place, change=note), network(x), atol=1e-6)
        assert torch.allclose(network(x, place=place, change=lambda a: a.flip(0)), network(x).flip(0), atol=1e-6)
        assert not torch.allclose(network(x, place=place, change=lambda a: 0.5 * a), network(x), atol=1e-6)
    assert len(set(seen)) == places + 1
