"""Pretrained weights from a file: what is loaded, what starts fresh, what is refused, and that no code runs."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.networks import Classifier, Identity, Normalise, build_network, load_weights, mlp, start_network
from vicinal.networks import weights as weights_module
from vicinal.networks.weights import digest_of, read_weights, split_weights
from vicinal.settings import Choice

torch.set_num_threads(1)


class Net(nn.Module):
    """Somebody's network: a stem, a block with a batch norm, and a head."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.block = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block(self.norm(self.stem(x))).mean((2, 3)))


class Mine(nn.Module):
    """A network with a setting ``weights`` of its own."""

    def __init__(self, num_classes: int, weights: str = "none") -> None:
        super().__init__()
        self.name = weights
        self.fc = nn.Linear(2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


class Malice:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["MALICE"],)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    nets = types.ModuleType("somebody_s")
    vars(nets).update(Net=Net, Mine=Mine)
    monkeypatch.setitem(sys.modules, "somebody_s", nets)


def trained(classes: int = 5, channels: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(1)
    state = Net(channels, classes).state_dict()
    state["norm.running_mean"] += 0.5
    return state


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    def save(state: Any, name: str = "net.pth") -> str:
        path = tmp_path / name
        save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
        return str(path)

    return save


def started(path: str, classes: int = 5, shape: tuple[int, ...] = (3, 8, 8)) -> tuple[Any, Any]:
    torch.manual_seed(0)
    return start_network(Choice("somebody_s:Net", {"weights": path}), shape, classes, Identity())


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth", "a name without an ending"])
def test_a_file_is_loaded_whole(saved: Callable[..., str], name: str) -> None:
    state = trained()
    network, start = started(saved(state, name))
    assert all(torch.equal(value, network.body.state_dict()[key]) for key, value in state.items())
    assert (start.loaded, start.tensors) == (10, 10)
    assert (start.absent, start.resized, start.unused) == ((), (), ())
    assert start.digest == hashlib.blake2b(Path(start.path).read_bytes(), digest_size=16).hexdigest()
    assert str(start) == f"starts from {start.path} (10 of 10 tensors)"
    # The control: the same network, built to take other weights, starts without them.
    plain = build_network(Choice("somebody_s:Net", {"weights": start.path}), (3, 8, 8), 5, Identity())
    assert not torch.equal(plain.body.stem.weight, state["stem.weight"])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {f"model.{key}": value for key, value in state.items()},
        lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
        lambda state: (
            {f"net.body.{key}": value for key, value in state.items()} | {"net.preprocess.mean": torch.ones(3)}
        ),
        lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    ],
)
def test_wrappers_are_taken_off(saved: Callable[..., str], wrap: Callable[[Any], Any], monkeypatch: Any) -> None:
    path = saved(wrap(trained()))
    network, start = started(path)
    assert torch.equal(network.body.stem.weight, trained()["stem.weight"])
    assert (start.loaded, start.unused) == (10, ())
    # The control: without the names of wrappers and of the places in a checkpoint, nothing is found.
    monkeypatch.setattr(weights_module, "_WRAPPERS", ())
    monkeypatch.setattr(weights_module, "_NESTED", ())
    with pytest.raises(InputError):
        started(path)


def test_a_head_for_other_classes_starts_fresh(saved: Callable[..., str]) -> None:
    path = saved({**trained(classes=9), "projection.weight": torch.zeros(2)})
    network, start = started(path)
    fresh, _ = start_network(Choice("somebody_s:Net"), (3, 8, 8), 5, Identity())
    torch.manual_seed(0)
    fresh = build_network(Choice("somebody_s:Net"), (3, 8, 8), 5, Identity())
    assert torch.equal(network.body.fc.weight, fresh.body.fc.weight)  # the draws of a network without weights
    assert torch.equal(network.body.norm.running_mean, trained()["norm.running_mean"])
    assert start.resized == ("body.fc.weight 5x4 instead of 9x4", "body.fc.bias 5 instead of 9")
    assert str(start) == (
        f"starts from {path} (8 of 10 tensors); new: body.fc.weight 5x4 instead of 9x4, body.fc.bias 5 instead of 9; "
        "left out: projection.weight"
    )


def test_the_preprocessing_stays_the_data_s(tmp_path: Path) -> None:
    source = mlp((2,), 3, hidden=[4, 4])
    source.preprocess = Normalise([5.0, 5.0], [2.0, 2.0], image=False)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    choice = Choice("mlp", {"hidden": [4, 4], "weights": str(tmp_path / "model.safetensors")})
    own = Normalise([0.0, 0.0], [1.0, 1.0], image=False)
    network, start = start_network(choice, (2,), 3, own)
    assert isinstance(network, Classifier)
    assert torch.equal(network.head.weight, source.head.weight)
    assert start is not None
    assert (start.loaded, start.tensors, start.unused) == (6, 6, ())
    assert not any(torch.equal(value, torch.full_like(value, 5.0)) for value in own.state_dict().values())


def test_half_precision_is_read_into_full(saved: Callable[..., str]) -> None:
    network, _ = started(saved({key: v.half() if v.is_floating_point() else v for key, v in trained().items()}))
    assert network.body.stem.weight.dtype == torch.float32
    assert torch.equal(network.body.stem.weight, trained()["stem.weight"].half().float())


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (
            mlp((2,), 3, hidden=[4]).state_dict(),
            ["0 of the network's 10 tensors", "lacks body.stem.weight", "no body.1"],
        ),
        (
            {f"stem.{i}": torch.zeros(2) for i in range(11)} | trained(),
            ["10 of the network's 10", "has no stem.0", "more"],
        ),
        ({name: value[..., None] for name, value in trained().items()}, ["another shape are body.stem.weight"]),
        ([1, 2], ["holds no tensors by name"]),
        ({"epoch": 3}, ["holds no tensors by name"]),
    ],
)
def test_what_does_not_fit_is_refused(saved: Callable[..., str], state: Any, words: list[str]) -> None:
    path = saved(state)
    with pytest.raises(InputError, match=r"network\.weights: ") as caught:
        started(path)
    assert "\n" not in str(caught.value)
    assert [word for word in [path, *words] if word not in str(caught.value)] == []


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x20\0\0\0\0\0\0\0{garbage")
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "empty.pth").touch()
    for path, words in [
        (damaged, "cannot be read"),
        (tmp_path / "text.pth", "cannot be read"),
        (tmp_path / "empty.pth", "cannot be read"),
        (tmp_path / "absent.pth", "no such file"),
        (tmp_path, "no such file"),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            read_weights(str(path))
        assert "\n" not in str(caught.value)


def test_no_code_of_a_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALICE", str(tmp_path / "ran"))
    torch.save({"stem.weight": Malice()}, tmp_path / "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Malice()))
    for name in ("evil.pth", "evil.pkl"):
        with pytest.raises(InputError, match="without running code"):
            load_weights(Net(3, 5), str(tmp_path / name))
    assert not (tmp_path / "ran").exists()
    pickle.loads((tmp_path / "evil.pkl").read_bytes())  # the control: this runs it
    assert (tmp_path / "ran").exists()


def test_timm_and_torchvision_start_from_a_file_too(saved: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def make(_name: str, **arguments: Any) -> nn.Module:
        asked.append(arguments)
        return Net(3, arguments["num_classes"])

    for module, attribute in {"timm": "create_model", "torchvision": "", "torchvision.models": "get_model"}.items():
        fake = types.ModuleType(module)
        vars(fake)[attribute] = make
        monkeypatch.setitem(sys.modules, module, fake)
    path = saved(trained())
    for name, settings in {"timm:small": {"pretrained": True}, "torchvision:small": {}}.items():
        network, start = start_network(Choice(name, {**settings, "weights": path}), (3, 8, 8), 5, Identity())
        assert torch.equal(network.body.stem.weight, trained()["stem.weight"])
        assert start is not None
    build_network(Choice("timm:small", {"pretrained": True}), (3, 8, 8), 5, Identity())
    # Only a training asks the library for weights, and only where no file was named.
    assert start_network(Choice("timm:small", {"pretrained": True}), (3, 8, 8), 5, Identity())[1] is None
    sizes = {"in_chans": 3, "num_classes": 5}
    assert asked == [
        {"pretrained": False, **sizes},
        {"weights": None, "num_classes": 5},
        {"pretrained": False, **sizes},
        {"pretrained": True, **sizes},
    ]


def test_an_argument_of_one_s_own_stays_one_s_own() -> None:
    choice = Choice("somebody_s:Mine", {"weights": "imagenet"})
    network, start = start_network(choice, (2,), 3, Identity())
    assert (network.body.name, start) == ("imagenet", None)
    assert split_weights(choice, Mine) == (choice, None)


@pytest.mark.parametrize("value", [3, "", ["a"]])
def test_a_setting_that_is_no_path(value: object) -> None:
    with pytest.raises(InputError, match=r"network\.weights: expected the path of a file"):
        split_weights(Choice("mlp", {"weights": value}), mlp)


def test_one_digest_of_several_files(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    assert digest_of([tmp_path / "a", tmp_path / "b"]) == hashlib.blake2b(b"ab", digest_size=16).hexdigest()
    assert digest_of([tmp_path / "b", tmp_path / "a"]) != digest_of([tmp_path / "a", tmp_path / "b"])
