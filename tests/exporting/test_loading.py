"""Loading: nothing that a file names is run, and what is damaged or foreign is told in one line."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vicinal.errors import InputError
from vicinal.exporting import export, load
from vicinal.networks import Identity, build_network
from vicinal.runs import Run
from vicinal.settings import Choice


@pytest.fixture
def folder(image_run: Run, tmp_path: Path) -> Path:
    export(image_run, "hub-folder", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def change(folder: Path) -> Callable[..., Path]:
    """Changes what the folder's description says."""

    def changed(**values: Any) -> Path:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**about, **values}), encoding="utf-8")
        return folder

    return changed


def test_what_a_file_names_is_not_run(
    change: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\ndef make(**settings): ...\n"
    (tmp_path / "evil_weights.py").write_text(text, encoding="utf-8")
    for name in ("evil_weights:make", "evil_weights.make", "timm:resnet18", "torchvision:resnet18", "os:system"):
        with pytest.raises(InputError, match=r"none of vicinal's own, and what a file names is not run"):
            load(change(network={"name": name}))
    assert not (tmp_path / "ran").exists()
    # The control: the same name on a command line is somebody's own, and is imported.
    with pytest.raises(InputError):
        build_network(Choice("evil_weights:make"), (2,), 2, Identity())
    assert (tmp_path / "ran").exists()


def test_a_network_of_another_s_code_is_given(foreign_run: Run, tmp_path: Path) -> None:
    made = export(foreign_run, "hub-folder", tmp_path / "model")
    assert "differ" in made.check
    with pytest.raises(InputError, match=r"network is 'torch.nn:Linear'.*load\(path, network=...\)"):
        load(tmp_path / "model")
    loaded = load(tmp_path / "model", network=torch.nn.Linear(2, 2))
    x = torch.randn(5, 2)
    with torch.no_grad():
        assert torch.equal(loaded.network(x), foreign_run.network().network(x))
    with pytest.raises(InputError, match=r"do not fit the network 'torch\.nn:Linear'"):
        load(tmp_path / "model", network=torch.nn.Linear(2, 3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"network": {"name": "small_cnn", "widths": [4, 9]}}, "the weights do not fit the network 'small_cnn'"),
        ({"network": {"name": "small_cnn", "width": 3}}, "network.width: unknown setting"),
        ({"network": 3}, "network: expected a name"),
        ({"network": {"name": "mmd_vae"}}, "do not fit|autoencoder"),
        ({"preprocess": "zca_itc"}, "preprocess: unknown 'zca_itc'"),
        ({"preprocess": None}, "preprocess or step is missing"),
        ({"shape": [1, 8]}, "shape: expected"),
        ({"shape": [1, 8, -8]}, "shape: expected"),
        ({"shape": "8x8"}, "shape: expected"),
        ({"classes": ["a"]}, "classes: expected"),
        ({"classes": [0, 1]}, "classes: expected"),
        ({"library_name": "other"}, "not a model that vicinal exported"),
        ({"description_version": 2}, "written by a newer vicinal"),
        ({"description_version": 0}, "description_version: expected a whole number of at least 1, got 0"),
        ({"description_version": True}, "description_version: expected"),
        ({"description_version": None}, "description_version: expected"),
        ({"classes": ["a", "b"] + ["a"] * 8}, "classes: two have the same name"),
        ({"temperature": "1.5"}, "temperature: expected a number greater than 0 or null, got '1.5'"),
        ({"temperature": True}, "temperature: expected"),
        ({"temperature": -1.0}, "temperature: expected"),
        ({"temperature": float("nan")}, "temperature: expected"),
    ],
)
def test_a_wrong_description_is_told(change: Callable[..., Path], values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(change(**values))
    assert "\n" not in str(caught.value)


def test_damage_is_told(folder: Path, tmp_path: Path, image_run: Run) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for content in (b"", whole[:50], whole[:-10], struct.pack("<Q", 2**40) + whole[8:]):
        weights.write_bytes(content)
        with pytest.raises(InputError, match="not a readable safetensors file"):
            load(folder)
        with pytest.raises(InputError, match="not a readable safetensors file"):
            load(weights)
    weights.write_bytes(whole)
    load(folder)
    for text, message in (
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff{}", "not text in UTF-8"),
    ):
        (folder / "config.json").write_bytes(text)
        with pytest.raises(InputError, match=message) as caught:
            load(folder)
        assert "\n" not in str(caught.value)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"has no config\.json"):
        load(folder)
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "nothing")


def test_a_file_of_weights_alone_has_no_description(folder: Path, tmp_path: Path) -> None:
    load(folder / "model.safetensors")
    save_file(load_file(folder / "model.safetensors"), tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match="has no description; export it anew"):
        load(tmp_path / "bare.safetensors")


def test_loading_leaves_the_global_generator_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    load(folder)
    assert torch.equal(torch.get_rng_state(), before)
