"""Writing a run's model in one of the formats, after comparing what is written with the run itself."""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from vicinal.data import as_float
from vicinal.data import load as load_data
from vicinal.errors import InputError, MissingExtraError
from vicinal.exporting.card import model_card
from vicinal.exporting.description import as_metadata, describe
from vicinal.exporting.loading import CONFIG, WEIGHTS, load
from vicinal.exporting.programs import Runner, onnx_runner, to_onnx, to_torch_export, torch_export_runner
from vicinal.networks import NETWORKS, build_network, config_of, unfitted_preprocess
from vicinal.predicting import calibration, classifier, logits_of
from vicinal.randomness import generator
from vicinal.runs import Run, TrainedNetwork, WhichName, write_atomic

FormatName = Literal["onnx", "torch-export", "safetensors", "hub-folder"]
FORMATS: tuple[str, ...] = get_args(FormatName)
TOLERANCE = 1e-4
"""Largest difference of a logit, in units of the largest logit where that is greater than 1."""
_CHECKED = 16


class Exported(NamedTuple):
    """What was written.

    Attributes:
        files: in the order of their names.
        check: how the outputs compare with the run's, in one line.
    """

    files: tuple[Path, ...]
    check: str


def export(run: Run, form: FormatName, target: str | os.PathLike[str], *, which: WhichName = "last") -> Exported:
    """Write a run's model for use elsewhere: from images in [0,1] (or feature vectors), to logits, any batch size.

    Normalisation is inside. The outputs are compared with the run's on some of its own examples (on random ones where
    its data are not there any more), and a model that differs is not written.

    Args:
        run: a finished run of a classifier.
        form: ``onnx`` (checked through ONNX Runtime where that is installed) and ``torch-export`` (which PyTorch's
            own loader may unpickle: open only files that you trust) are programs; ``safetensors`` is a file of weights
            with the description in its header, and ``hub-folder`` a folder of weights, description and model card in
            the Hugging Face hub's layout: `load` reads both.
        target: the file, new or an earlier export; the folder, new or empty. In the run's directory nothing is
            replaced.
        which: weights at the end of training, or at the lowest validation error.

    Raises:
        InputError: the run is not finished or no classifier, the network does not fit the format, the outputs differ,
            or the target cannot be written.
        MissingExtraError: the format needs the extra ``export``.
    """
    target = Path(target)
    _check_target(run, form, target)
    steps = run.evaluation()["steps"]
    if steps["best_validation"] == steps["last"]:
        which = "last"  # the end was better than every step that was validated on the way
    trained = classifier(run, which)
    found = calibration(run, which, trained)
    about = describe(run, trained, found)
    x, source = _examples(run, trained)
    expected = logits_of(trained.network, [x])
    if not bool(expected.isfinite().all()):
        raise InputError(f"{run.path}: its outputs are not finite numbers: the network diverged; train it anew")
    try:
        files, runner = _made(run, trained, form, about, model_card(run, trained, found, which))
    except InputError as error:
        raise InputError(f"{run.path}: {error}") from error
    check = "not checked: ONNX Runtime is not installed (pip install 'vicinal[export]')"
    if runner is not None:
        check = _compared(run, runner, x, expected, source)
    return Exported(_write(target, files), check)


def _made(
    run: Run, trained: TrainedNetwork, form: FormatName, about: Mapping[str, Any], card: str
) -> tuple[dict[str, bytes], tuple[str, Runner] | None]:
    """The files by name (the empty name is the target itself), and what runs them."""
    if form == "onnx":
        content = to_onnx(trained.network, about)
        return {"": content}, onnx_runner(content)
    if form == "torch-export":
        content = to_torch_export(trained.network, about)
        return {"": content}, torch_export_runner(content)
    weights = _weights(trained, about)
    if form == "safetensors":
        return {"": weights}, _loader(run, trained, {f"x{Path(WEIGHTS).suffix}": weights})
    config = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
    files = {WEIGHTS: weights, CONFIG: config.encode(), "README.md": card.encode()}
    return files, _loader(run, trained, files)


def _loader(run: Run, trained: TrainedNetwork, files: Mapping[str, bytes]) -> tuple[str, Runner]:
    """The network that `load` makes of the files."""
    choice, untrained = run.experiment.network, None
    if choice.name not in NETWORKS:  # made by its own code, not by the file's
        preprocess = unfitted_preprocess(run.experiment.preprocess, trained.shape)
        with torch.random.fork_rng(devices=[]):
            config = config_of(trained.network)
            untrained = build_network(choice, trained.shape, len(trained.classes), preprocess, config=config)
    with tempfile.TemporaryDirectory(prefix="vicinal-") as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        source = Path(folder) if CONFIG in files else Path(folder, *files)
        return "vicinal.exporting.load", load(source, network=untrained).network


def _check_target(run: Run, form: FormatName, target: Path) -> None:
    """Refuse to replace what is no earlier export, and anything of the run.

    Raises:
        InputError: it would be replaced.
    """
    parts = {path.resolve() for path in vars(run).values()}
    if target.resolve().is_relative_to(run.path.resolve()) and (target.exists() or target.resolve() in parts):
        raise InputError(f"{target}: belongs to the run; choose a new name")
    if form == "hub-folder":
        if target.exists() and not target.is_dir():
            raise InputError(f"{target}: is a file; name a folder, new or empty")
        if target.is_dir() and any(target.iterdir()):
            raise InputError(f"{target}: is not empty; name a folder that is new or empty")
    elif target.is_file() and not _is_export(target):
        raise InputError(f"{target}: exists already and is no model that vicinal exported; choose another name")
    elif target.is_dir():
        raise InputError(f"{target}: is a folder; name a file")


def _is_export(path: Path) -> bool:
    """Whether a file is an earlier export in one of the formats, by its first bytes and its description in it."""
    with path.open("rb") as file:
        start = file.read(9)
        if len(start) < 9:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            # A safetensors header holds the description as a text in JSON, so that its quotes are escaped.
            mark = b'\\"library_name\\": \\"vicinal\\"' if start[8:] == b"{" else b'"library_name": "vicinal"'
            known = start[8:] == b"{" or start[:2] == b"PK" or start[:1] == b"\x08"  # safetensors, torch.export, ONNX
            return known and content.find(mark) >= 0


def _examples(run: Run, trained: TrainedNetwork) -> tuple[Tensor, str]:
    """Inputs to compare outputs on, (n, ...), and what they are."""
    try:
        dataset = load_data(run.experiment.data)
    except (InputError, MissingExtraError, OSError):
        x = torch.rand(_CHECKED, *trained.shape, generator=generator(0, "export"))
        return x, "random inputs (the run's data are not there)"
    part, name = (dataset.train, "training") if dataset.test is None else (dataset.test, "test")
    examples = part.spread(_CHECKED)
    if dataset.shape != trained.shape:
        raise InputError(f"{run.experiment.data.name}: the data have changed since the run was trained")
    return as_float(examples.x[torch.arange(len(examples))]), f"{name} examples"


def _compared(run: Run, runner: tuple[str, Runner], x: Tensor, expected: Tensor, source: str) -> str:
    """How far outputs are from the run's, over a whole batch and one row.

    Raises:
        InputError: too far.
    """
    name, call = runner
    with torch.no_grad():
        outputs = torch.cat([call(x), call(x[:1])]).double()
    wanted = torch.cat([expected, expected[:1]])
    difference = float((outputs - wanted).abs().max())
    limit = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= limit:
        raise InputError(
            f"{run.path}: outputs of {name} differ from the run's by {difference:.1e} on {len(x)} {source}, more than "
            f"{limit:.0e}; nothing was written"
        )
    return f"logits differ from the run's by at most {difference:.1e} on {len(x)} {source} ({name})"


def _weights(trained: TrainedNetwork, about: Mapping[str, Any]) -> bytes:
    from safetensors.torch import save

    tensors = {name: value.contiguous() for name, value in trained.network.state_dict().items()}
    content: bytes = save(tensors, metadata={"format": "pt", **as_metadata(about)})
    return content


def _write(target: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Write one file (with an empty name), or the files of a folder."""
    try:
        if "" in files:
            write_atomic(target, files[""])
            return (target,)
        target.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomic(target / name, content)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror}") from error
    return tuple(target / name for name in sorted(files))
