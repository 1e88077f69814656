"""Networks by name, import path and library, and one-line errors for what cannot be built."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError, MissingExtraError
from vicinal.networks import NETWORKS, Classifier, Identity, Normalise, build_network, mlp, network_settings
from vicinal.settings import Choice, parse_settings, settings_of

torch.set_num_threads(1)


class Own(nn.Module):
    """Somebody's network: it wants classes and channels, and has state that training moves."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.linear = nn.Linear(in_channels, width)
        self.out = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.linear(self.norm(x).mean((2, 3))))


class Required(nn.Module):
    def __init__(self, *, classes: int, depth: int) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError("depth is too small\nand more lines")
        self.linear = nn.Linear(2, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Lazy(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.linear = nn.LazyLinear(classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def own_classifier(shape: tuple[int, ...], classes: int, hidden: int = 3) -> Classifier:
    return mlp(shape, classes, hidden=[hidden])


def no_module(classes: int) -> int:
    return classes


NOT_CALLABLE = 3


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """This file under a fixed name, whatever name the test runner imported it by."""
    module = types.ModuleType("somebody")
    nets = types.ModuleType("somebody.nets")
    vars(nets).update({key: value for key, value in globals().items() if not key.startswith("__")})
    monkeypatch.setitem(sys.modules, "somebody", module)
    monkeypatch.setitem(sys.modules, "somebody.nets", nets)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_name_documents_all_its_settings(name: str) -> None:
    settings = settings_of(network_settings(name))
    assert [setting.name for setting in settings if not setting.help] == []
    parsed = parse_settings("network", network_settings(name), {setting.name: setting.default for setting in settings})
    assert {key: list(v) if isinstance(v, (list, tuple)) else v for key, v in parsed.items()} == {
        s.name: list(s.default) if isinstance(s.default, tuple) else s.default for s in settings
    }


def test_registered_network_gets_its_settings_and_preprocess() -> None:
    preprocess = Normalise([0.5], [0.5])
    network = build_network(Choice("small_cnn", {"widths": [4, 6], "dropout": 0.1}), (1, 8, 8), 3, preprocess)
    assert network.preprocess is preprocess
    assert network.feature_dim == 6
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize("path", ["somebody.nets:Own", "somebody.nets.Own"])
def test_import_path(path: str) -> None:
    before = torch.get_rng_state()
    torch.manual_seed(0)
    network = build_network(Choice(path, {"width": 5}), (3, 4, 4), 7, Identity())
    assert isinstance(network.body, Own)
    assert (network.feature_dim, network.classes) == (None, 7)
    assert network.body.out.in_features == 5
    assert network(torch.rand(2, 3, 4, 4)).shape == (2, 7)
    torch.manual_seed(0)
    plain = Own(3, 7, 5)
    assert all(
        torch.equal(plain.state_dict()[key], value)
        for key, value in Own.state_dict(network.body).items()
        if "norm" not in key
    )
    torch.set_rng_state(before)


def test_verification_leaves_no_trace() -> None:
    torch.manual_seed(0)
    network = build_network(Choice("somebody.nets:Own"), (3, 4, 4), 7, Identity())
    state = torch.get_rng_state()
    torch.manual_seed(0)
    plain = Own(3, 7)
    assert torch.equal(state, torch.get_rng_state())
    assert all(
        torch.equal(value, network.body.get_submodule("").state_dict()[key])
        for key, value in plain.state_dict().items()
    )
    assert all(module.training for module in network.modules())


def test_own_builder_of_a_classifier_keeps_its_features() -> None:
    network = build_network(
        Choice("somebody.nets:own_classifier", {"hidden": 9}), (2,), 4, Normalise([0.0] * 2, [2.0] * 2, image=False)
    )
    assert network.feature_dim == 9
    assert isinstance(network.preprocess, Normalise)


def test_lazy_layers_are_settled_when_built() -> None:
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(build_network(Choice("somebody.nets:Lazy"), (5,), 3, Identity()).body.linear.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_nested_attribute_after_a_colon() -> None:
    assert network_settings("torch.nn:modules.linear.Linear") is nn.Linear


@pytest.mark.parametrize(
    ("name", "settings", "shape", "message"),
    [
        ("smal_cnn", {}, (3, 8, 8), "did you mean 'small_cnn'"),
        ("mlp", {"hiden": [3]}, (2,), "did you mean 'hidden'"),
        ("mlp", {"hidden": "wide"}, (2,), "network.hidden: expected"),
        ("mlp", {"activation": "rleu"}, (2,), "network.activation: expected one of 'relu'"),
        ("mlp", {"hidden": [0]}, (2,), "network: hidden must be at least 1"),
        ("mlp", {"shape": [3]}, (2,), "network.shape: unknown setting"),
        ("cnn13", {}, (1, 8, 8), "network: cnn13 needs images of at least 12x12"),
        ("somebody.absent:Own", {}, (3, 4, 4), "cannot import 'somebody.absent'"),
        (":Own", {}, (3, 4, 4), "cannot import ''"),
        ("huggingface:google/vit", {}, (3, 4, 4), "write hf:google/vit for a model"),
        ("somebody.nets:Onw", {}, (3, 4, 4), "did you mean 'Own'"),
        ("somebody.nets:NOT_CALLABLE", {}, (3, 4, 4), "is a int, not a class"),
        ("somebody.nets:no_module", {}, (3, 4, 4), "gave a int, not a torch module"),
        ("somebody.nets:Own", {"widht": 3}, (3, 4, 4), "did you mean 'width'"),
        ("somebody.nets:Own", {"width": -1}, (3, 4, 4), "could not be built"),
        ("somebody.nets:Own", {"num_classes": 2}, (3, 4, 4), r"gives \(2, 2\) for 2 inputs"),
        ("somebody.nets:Own", {}, (3,), "fails on inputs of shape"),
        ("somebody.nets:Pair", {}, (3,), "gives a tuple"),
        ("somebody.nets:Required", {}, (2,), "needs settings for: depth"),
        ("somebody.nets:Required", {"depth": 0}, (2,), "could not be built: depth is too small$"),
    ],
)
def test_errors_are_one_line(name: str, settings: dict[str, Any], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_network(Choice(name, settings), shape, 7, Identity())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "advice"), [("timm:resnet18", r"vicinal\[timm\]"), ("torchvision:resnet18", "belongs to your torch")]
)
def test_libraries_that_are_not_installed(name: str, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # None makes the import fail as if it were absent, wherever this runs.
    for module in ("timm", "torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=advice):
        build_network(Choice(name), (3, 8, 8), 10, Identity())


def test_timm_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, *_others: Any) -> None:
            if name == "timm":
                raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(
        InputError, match=r"timm:resnet18' cannot be imported: operator torchvision::nms does not exist$"
    ):
        build_network(Choice("timm:resnet18"), (3, 8, 8), 10, Identity())


def test_timm_and_torchvision_get_what_they_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def create_model(name: str, **arguments: Any) -> nn.Module:
        asked.append((name, arguments))
        return Own(arguments["in_chans"], arguments["num_classes"])

    def get_model(name: str, **arguments: Any) -> nn.Module:
        asked.append((name, arguments))
        return Own(3, arguments["num_classes"])

    for module, attributes in {
        "timm": {"create_model": create_model},
        "torchvision": {},
        "torchvision.models": {"get_model": get_model},
    }.items():
        fake = types.ModuleType(module)
        vars(fake).update(attributes)
        monkeypatch.setitem(sys.modules, module, fake)
    build_network(Choice("timm:small", {"drop_rate": 0.1}), (1, 8, 8), 5, Identity())
    build_network(Choice("torchvision:small"), (3, 8, 8), 5, Identity())
    assert asked == [
        ("small", {"pretrained": False, "in_chans": 1, "num_classes": 5, "drop_rate": 0.1}),
        ("small", {"weights": None, "num_classes": 5}),
    ]
    with pytest.raises(InputError, match="fails on inputs"):
        build_network(Choice("torchvision:small"), (1, 8, 8), 5, Identity())
