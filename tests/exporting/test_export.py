"""Models that leave: their outputs are the run's in every format, for any batch, and nothing else is ever written."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vicinal.data import as_float, load
from vicinal.errors import InputError, MissingExtraError
from vicinal.exporting import export, programs, writing
from vicinal.exporting import load as load_exported
from vicinal.runs import Run


def examples(run: Run, count: int) -> Tensor:
    """Test examples as a user has them: images in [0,1], or vectors."""
    test = load(run.experiment.data).test
    assert test is not None
    return as_float(test.x[torch.arange(count)])


def logits(run: Run, x: Tensor, which: Any = "last") -> Tensor:
    with torch.no_grad():
        found: Tensor = run.network(which).network(x)
    return found


@pytest.fixture
def runtime() -> Any:
    pytest.importorskip("onnx", reason="the extra 'export' is not installed")
    pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    return pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")


@pytest.mark.parametrize("which", ["last", "best_validation"])
def test_onnx_gives_the_run_s_logits_for_any_batch(any_run: Run, tmp_path: Path, runtime: Any, which: Any) -> None:
    made = export(any_run, "onnx", tmp_path / "model.onnx", which=which)
    assert made.files == (tmp_path / "model.onnx",)
    assert "16 test examples (ONNX Runtime" in made.check
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"], "weights are inside"
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    ((given,), (out,)) = session.get_inputs(), session.get_outputs()
    images = any_run is not None and len(any_run.network().shape) == 3
    assert (given.name, out.name) == ("images" if images else "features", "logits")
    assert given.shape == ["batch", *any_run.network().shape]
    for count in (1, 2, 37):
        x = examples(any_run, count)
        assert np.abs(session.run(None, {given.name: x.numpy()})[0] - logits(any_run, x, which).numpy()).max() < 1e-4
    texts = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(texts["classes"])) == any_run.network().classes
    assert json.loads(texts["config"])["preprocess"] == "normalise"
    assert json.loads(texts["input"])["shape"] == ["batch", *any_run.network().shape]


def test_the_program_of_pytorch_gives_them_too_and_is_no_pickle(
    any_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(any_run, "torch-export", tmp_path / "model.pt2")
    extra = {"config.json": ""}

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    for count in (1, 37):
        x = examples(any_run, count)
        assert torch.allclose(program.module()(x), logits(any_run, x), atol=1e-4)
    assert tuple(json.loads(extra["config.json"])["classes"]) == any_run.network().classes


@pytest.mark.parametrize("form", ["safetensors", "hub-folder"])
@pytest.mark.parametrize("which", ["last", "best_validation"])
def test_what_vicinal_loads_again_is_the_run_s_to_the_bit(any_run: Run, tmp_path: Path, form: Any, which: Any) -> None:
    made = export(any_run, form, tmp_path / "model", which=which)
    loaded, trained = load_exported(tmp_path / "model"), any_run.network(which)
    assert (loaded.shape, loaded.classes) == (trained.shape, trained.classes)
    assert not loaded.network.training
    x = examples(any_run, 37)
    with torch.no_grad():
        assert torch.equal(loaded.network(x), logits(any_run, x, which))
    names = ["README.md", "config.json", "model.safetensors"] if form == "hub-folder" else ["model"]
    assert [path.name for path in made.files] == names


@pytest.mark.parametrize(
    ("form", "name"), [("torch-export", "to_torch_export"), ("safetensors", "_weights"), ("hub-folder", "_weights")]
)
def test_a_model_that_differs_is_not_written(
    image_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any, name: str
) -> None:
    """The control: something in a network changes while it is written."""
    write = getattr(writing, name)

    def wrong(given: Any, about: Any) -> bytes:
        network = given if isinstance(given, torch.nn.Module) else given.network
        network.preprocess.mean.add_(0.1)
        try:
            return bytes(write(given, about))
        finally:
            network.preprocess.mean.sub_(0.1)

    monkeypatch.setattr(writing, name, wrong)
    with pytest.raises(InputError, match=r"differ from the run's by .*; nothing was written"):
        export(image_run, form, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_onnx_model_that_differs_is_not_written(
    feature_run: Run, tmp_path: Path, runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(content: bytes) -> Any:
        name, run = programs.onnx_runner(content) or ("", None)
        assert run is not None
        return name, lambda x: run(x) + 2e-4

    monkeypatch.setattr(writing, "onnx_runner", wrong)
    with pytest.raises(InputError, match=r"ONNX Runtime .* differ from the run's by 2.*; nothing was written"):
        export(feature_run, "onnx", tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_onnx_runtime_it_says_that_nothing_was_checked(
    feature_run: Run, tmp_path: Path, runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs.importlib.util, "find_spec", lambda name: None)
    made = export(feature_run, "onnx", tmp_path / "model.onnx")
    assert made.check.startswith("not checked: ONNX Runtime is not installed")
    assert (tmp_path / "model.onnx").exists()


def test_without_onnx_it_says_what_to_install(
    feature_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(module: str, extra: str, purpose: str) -> None:
        raise MissingExtraError(f"{purpose} needs {module}: vicinal[{extra}]")

    monkeypatch.setattr(programs, "require", missing)
    with pytest.raises(MissingExtraError, match=r"exporting to ONNX needs onnx: vicinal\[export\]"):
        export(feature_run, "onnx", tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_data_that_are_gone_are_replaced_by_random_inputs(
    image_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(choice: Any) -> None:
        raise InputError("data: gone")

    monkeypatch.setattr(writing, "load_data", gone)
    assert "random inputs (the run's data are not there)" in export(image_run, "safetensors", tmp_path / "m").check


def test_what_cannot_leave_is_refused(image_run: Run, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    (tmp_path / "taken").touch()
    for name, message in (("full", "not empty"), ("taken", "is a file"), ("taken/below", "cannot be written")):
        with pytest.raises(InputError, match=message):
            export(image_run, "hub-folder", tmp_path / name)
    with pytest.raises(InputError, match="cannot be written"):
        export(image_run, "safetensors", tmp_path / "nowhere" / "m.safetensors")
    other = Run(tmp_path / "unfinished")
    shutil.copytree(image_run.path, other.path)
    other.evaluation_file.unlink()
    with pytest.raises(InputError, match="not finished; go on with: vicinal fit --resume"):
        export(other, "safetensors", tmp_path / "m.safetensors")


@pytest.mark.parametrize("form", ["onnx", "torch-export", "safetensors"])
def test_only_an_earlier_export_is_replaced(feature_run: Run, tmp_path: Path, form: Any) -> None:
    if form == "onnx":
        pytest.importorskip("onnx", reason="the extra 'export' is not installed")
        pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    target = tmp_path / "model"
    export(feature_run, form, target)
    export(feature_run, form, target)
    export(feature_run, "safetensors", target)
    other = tmp_path / "other"
    for content in (b"", b"thesis", b"PK" + bytes(50), feature_run.model_file.read_bytes()):
        other.write_bytes(content)
        with pytest.raises(InputError, match="exists already and is no model that vicinal exported"):
            export(feature_run, form, other)
        assert other.read_bytes() == content


def test_nothing_of_the_run_is_replaced(image_run: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(image_run.path, run.path)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    for name in ("model.safetensors", "split.json", "checkpoints", "companions.json", "x/../metrics.csv"):
        with pytest.raises(InputError, match="belongs to the run; choose a new name"):
            export(run, "hub-folder" if name == "checkpoints" else "safetensors", run.path / name)
    assert {path: path.read_bytes() for path in before} == before
    assert export(run, "safetensors", run.path / "model for others.safetensors").files
    with pytest.raises(InputError, match="belongs to the run"):
        export(run, "safetensors", run.path / "model for others.safetensors")


def test_a_network_that_diverged_is_refused(image_run: Run, tmp_path: Path) -> None:
    other = Run(tmp_path / "run")
    shutil.copytree(image_run.path, other.path)
    content = torch.load(other.last, weights_only=True)
    for name, value in content["state_dict"].items():
        if name.endswith("head.weight"):
            value.fill_(float("nan"))
    torch.save(content, other.last)
    with pytest.raises(InputError, match="diverged"):
        export(other, "safetensors", tmp_path / "m.safetensors")


def test_a_network_that_cannot_be_traced_is_told_in_one_line(any_run: Run) -> None:
    class Branch(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    about = {"shape": [2], "input": {"name": "features"}}
    with pytest.raises(InputError, match=r"cannot be written for torch.export: ") as caught:
        programs.to_torch_export(Branch(), about)
    assert "\n" not in str(caught.value)
