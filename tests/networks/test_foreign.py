"""Image classifiers of Transformers, from folders of its own making, and what is told where it is not installed."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError, MissingExtraError
from vicinal.networks import (
    FROZEN_STATS,
    Classifier,
    Identity,
    build_network,
    config_of,
    foreign,
    network_settings,
    run,
    start_network,
)
from vicinal.settings import Choice, documented

torch.set_num_threads(1)

VIT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "patch_size": 8}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTConfig", {**VIT, "image_size": 16}),
    "resnet": ("ResNetConfig", {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a small model of each kind, for five classes, as Transformers writes it."""
    transformers = pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng(devices=[]), foreign._quiet(transformers):
        torch.manual_seed(3)
        for name, (kind, settings) in CONFIGS.items():
            config = getattr(transformers, kind)(num_labels=5, **settings)
            model = transformers.AutoModelForImageClassification.from_config(config)
            nn.init.normal_(model.classifier[-1].weight if name == "resnet" else model.classifier.weight)
            model.save_pretrained(place / name)
    return place


def started(folder: Path, classes: int = 5, shape: tuple[int, ...] = (3, 16, 16), **settings: Any) -> tuple[Any, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return start_network(Choice(f"hf:{folder}", settings), shape, classes, Identity())


@pytest.mark.parametrize("name", list(CONFIGS))
def test_outputs_are_those_of_the_library(folders: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def no_network(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    network, start = started(folders / name)
    assert all(module.training for module in network.modules())
    assert isinstance(network, Classifier)
    assert network.feature_dim is None
    with foreign._quiet(transformers):
        theirs = transformers.AutoModelForImageClassification.from_pretrained(folders / name)
    x = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(network.eval()(x), theirs(pixel_values=x).logits, atol=1e-6)
        fresh = build_network(Choice(f"hf:{folders / name}"), (3, 16, 16), 5, Identity())
        assert not torch.allclose(fresh.eval()(x), theirs(pixel_values=x).logits, atol=1e-3)
    assert (start.loaded, start.absent, start.resized, start.unused) == (start.tensors, (), (), ())
    content = (folders / name / "model.safetensors").read_bytes()
    assert start.digest == hashlib.blake2b(content, digest_size=16).hexdigest()


def test_another_number_of_classes_is_a_new_head(folders: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network, start = started(folders / "vit", classes=7)
    again, _ = started(folders / "vit", classes=7)
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 7)
    assert start.resized == ("classifier.bias 7 instead of 5", "classifier.weight 7x8 instead of 5x8")
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items())
    assert capfd.readouterr() == ("", "")


def test_grey_images_fill_every_channel(folders: Path) -> None:
    grey, _ = started(folders / "resnet", shape=(1, 16, 16))
    coloured, _ = started(folders / "resnet")
    x = torch.rand(2, 1, 16, 16)
    assert torch.allclose(grey.eval()(x), coloured.eval()(x.repeat(1, 3, 1, 1)))


def test_penalties_on_gradients_reach_the_weights(folders: Path) -> None:
    def differentiated(**settings: Any) -> Tensor:
        network, _ = started(folders / "vit", **settings)
        x = torch.rand(2, 3, 16, 16, requires_grad=True)
        (slope,) = torch.autograd.grad(run(network, x, FROZEN_STATS).square().sum(), x, create_graph=True)
        slope.square().sum().backward()
        found: Tensor = network.body.model.vit.layers[0].attention.q_proj.weight.grad
        return found

    assert float(differentiated().abs().sum()) > 0
    with pytest.raises(RuntimeError, match=r"derivative for .*attention.* is not implemented"):
        differentiated(attention="sdpa")  # the control


def test_the_configuration_alone_builds_it_again(folders: Path, tmp_path: Path) -> None:
    network, _ = started(folders / "vit", image_size=24, shape=(3, 24, 24), hidden_dropout_prob=0.25)
    config = config_of(network)
    assert config is not None
    gone = Choice(f"hf:{tmp_path / 'gone'}", {"image_size": 24, "hidden_dropout_prob": 0.25})
    again = build_network(gone, (3, 24, 24), 5, Identity(), config=config)
    again.load_state_dict(network.state_dict())
    x = torch.rand(2, 3, 24, 24)
    assert torch.equal(again.eval()(x), network.eval()(x))
    with pytest.raises(InputError, match="is no folder"):
        build_network(gone, (3, 24, 24), 5, Identity())
    assert config_of(build_network(Choice("mlp"), (2,), 2, Identity())) is None


def test_weights_in_half_precision_are_trained_in_full(folders: Path, tmp_path: Path) -> None:
    import transformers

    with foreign._quiet(transformers):
        model = transformers.AutoModelForImageClassification.from_pretrained(folders / "vit")
        model.half().save_pretrained(tmp_path)
    network, _ = started(tmp_path)
    restored = build_network(Choice(f"hf:{tmp_path}"), (3, 16, 16), 5, Identity(), config=config_of(network))
    assert {p.dtype for net in (network, restored) for p in net.parameters()} == {torch.float32}


def test_weights_of_another_file_win(folders: Path, tmp_path: Path) -> None:
    network, _ = started(folders / "vit", classes=7)
    state = {f"module.{key}": value + 1 for key, value in network.body.model.state_dict().items()}
    torch.save(state, tmp_path / "own.pth")
    other, start = started(folders / "vit", classes=7, weights=str(tmp_path / "own.pth"))
    assert start.path == str(tmp_path / "own.pth")
    assert torch.equal(other.body.model.classifier.bias, network.body.model.classifier.bias + 1)
    assert started(folders / "vit", pretrained=False)[1] is None


def test_a_name_means_the_copy_in_the_local_cache(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def snapshot_download(name: str, *, local_files_only: bool) -> str:
        asked.append((name, local_files_only))
        return str(folders / "vit")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    network, start = start_network(Choice("hf:someone/vit"), (3, 16, 16), 5, Identity())
    assert asked == [("someone/vit", True)]
    assert start is not None
    assert start.path == "someone/vit"
    wanted = started(folders / "vit")[0].state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("folder", "settings", "shape", "message"),
    [
        (
            "vit",
            {},
            (3, 8, 8),
            r"takes images of 16x16, and the data have 8x8 .*--data.size 16.*--network.image_size 8",
        ),
        ("vit", {}, (4, 16, 16), "takes images of 3 channels, and the data have 4"),
        ("vit", {}, (12,), "takes images, and the data are feature vectors"),
        (
            "vit",
            {"hiden_size": 3},
            (3, 16, 16),
            "hiden_size is no field of its configuration; did you mean 'hidden_size'",
        ),
        ("vit", {"trust_remote_code": True}, (3, 16, 16), "trust_remote_code is no field of its configuration"),
        ("vit", {"hidden_size": 16}, (3, 16, 16), "of another shape are .*name the weights of this architecture"),
        ("nothing-there", {}, (3, 16, 16), "no folder, and no model of that name is in the local cache"),
        (".", {}, (3, 16, 16), "has no config.json"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    folders: Path, folder: str, settings: dict[str, Any], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        start_network(Choice(f"hf:{folders / folder}", settings), shape, 5, Identity())
    assert "\n" not in str(caught.value)


def test_code_beside_a_model_is_not_run(folders: Path, tmp_path: Path) -> None:
    code = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\nclass Config: ...\nclass Model: ...\n"
    (tmp_path / "theirs.py").write_text(code, encoding="utf-8")
    about = json.loads((folders / "vit" / "config.json").read_text(encoding="utf-8"))
    remote = {"AutoConfig": "theirs.Config", "AutoModelForImageClassification": "theirs.Model"}
    (tmp_path / "config.json").write_text(json.dumps({**about, "model_type": "theirs", "auto_map": remote}))
    with pytest.raises(InputError, match="hf:") as caught:
        started(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_the_settings_are_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", types.ModuleType("transformers"))
    assert set(documented(network_settings("hf:anything"))) >= {"pretrained", "attention", "settings"}


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"vicinal\[transformers\]"):
        network_settings("hf:some/model")
