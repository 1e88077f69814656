"""What an exported model says about itself: plain values from which its network is built again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeGuard

import vicinal
from vicinal.errors import InputError
from vicinal.networks import NETWORKS, auto_name, network_settings, split_weights
from vicinal.predicting import Calibration
from vicinal.runs import Run, TrainedNetwork
from vicinal.settings import Choice, parse_settings, shortened

VERSION = 1
"""Of this description; a reader refuses a newer one."""
OUTPUT = "logits"


def input_name(shape: tuple[int, ...]) -> str:
    """What the model's input is called.

    >>> input_name((3, 32, 32)), input_name((64,))
    ('images', 'features')
    """
    return "images" if len(shape) == 3 else "features"


def describe(run: Run, trained: TrainedNetwork, calibration: Calibration) -> dict[str, Any]:
    """The description of a run's model.

    Settings that the run left to defaults are written out, so that a later version with other defaults builds the same
    network.

    Args:
        run: the run.
        trained: its network.
        calibration: of its confidences.
    """
    experiment, shape = run.experiment, trained.shape
    size = experiment.data.settings.get("size")
    # What the network started from is of no use to whoever loads what it became.
    choice, _ = split_weights(experiment.network, network_settings(experiment.network.name))
    if choice.name == "auto":
        choice = Choice(auto_name(shape))
    if choice.name in NETWORKS:
        choice = Choice(choice.name, parse_settings("network", NETWORKS[choice.name], choice.settings))
    given: dict[str, Any] = {"name": input_name(shape), "dtype": "float32", "shape": ["batch", *shape]}
    if len(shape) == 3:
        given |= {
            "range": [0, 1],
            "layout": "NCHW",
            "channels": {1: "grey", 3: "RGB"}.get(shape[0], "as in training"),
            "resized_to": size,
        }
    return {
        "library_name": "vicinal",
        "vicinal_version": vicinal.__version__,
        "description_version": VERSION,
        "network": choice.as_dict(),
        "preprocess": experiment.preprocess,
        "shape": list(shape),
        "classes": list(trained.classes),
        "step": trained.step,
        "input": given,
        "output": {"name": OUTPUT, "dtype": "float32", "shape": ["batch", len(trained.classes)]},
        "temperature": calibration.temperature,
    }


def as_metadata(about: Mapping[str, Any]) -> dict[str, str]:
    """The description as texts by name, for file headers: the whole, and what most readers want, each as JSON."""
    names = ("classes", "shape", "input", "output", "preprocess", "temperature")
    return {
        "config": json.dumps(about, ensure_ascii=False),
        **{name: json.dumps(about[name], ensure_ascii=False) for name in names},
    }


def read_description(where: str, text: str) -> dict[str, Any]:
    """A description, checked as far as its network can be built from it.

    Args:
        where: the file, for messages.
        text: JSON.

    Raises:
        InputError: it is none, or of a newer version.
    """
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: its description is not valid JSON ({error})") from error
    if not isinstance(about, dict) or about.get("library_name") != "vicinal":
        raise InputError(f"{where}: not a model that vicinal exported")
    version = about.get("description_version")
    if type(version) is not int or version < 1:
        raise InputError(f"{where}: description_version: expected a whole number of at least 1, got {version!r}")
    if version > VERSION:
        raise InputError(f"{where}: written by a newer vicinal ({about.get('vicinal_version')}); update this one")
    shape, classes = about.get("shape"), about.get("classes")
    if not _all(shape, int) or len(shape) not in (1, 3) or min(shape) < 1:
        raise InputError(f"{where}: shape: expected [C, H, W] or [D], got {shape!r}")
    if not _all(classes, str) or len(classes) < 2:
        raise InputError(f"{where}: classes: expected their names, got {classes!r}")
    if len(set(classes)) < len(classes):
        raise InputError(f"{where}: classes: two have the same name, in {shortened(classes)}")
    temperature = about.get("temperature")
    if temperature is not None and not (
        type(temperature) in (int, float) and math.isfinite(temperature) and temperature > 0
    ):
        raise InputError(f"{where}: temperature: expected a number greater than 0 or null, got {temperature!r}")
    if not isinstance(about.get("preprocess"), str) or not isinstance(about.get("step"), int):
        raise InputError(f"{where}: preprocess or step is missing")
    Choice.of(f"{where}: network", about.get("network"))
    return about


def _all(values: Any, kind: type) -> TypeGuard[list[Any]]:
    return isinstance(values, list) and bool(values) and all(type(value) is kind for value in values)
