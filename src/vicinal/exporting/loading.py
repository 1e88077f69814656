"""Loading an exported model without running anything that comes with it.

A safetensors file holds numbers and texts alone, and its description is JSON. It names one of this package's own
networks, whose settings are checked by type; any other name, an import path above all, is never followed: whoever
trusts such a network gives it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.exporting.description import read_description
from vicinal.networks import NETWORKS, Autoencoder, Classifier, Identity, build_network, unfitted_preprocess
from vicinal.runs import TrainedNetwork
from vicinal.settings import Choice

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def load(path: str | os.PathLike[str], *, network: nn.Module | None = None) -> TrainedNetwork:
    """A model that was exported as ``safetensors`` or ``hub-folder``. No code of the file or folder is run.

    Args:
        path: the ``.safetensors`` file, or the folder.
        network: an untrained network of the model's architecture, for a model whose network is not this package's own.

    Returns:
        The network in eval mode, from images in [0,1] (or feature vectors) to logits, with its shape and class names.

    Raises:
        InputError: not such a file or folder, damaged, or its network has to be given.
    """
    path = Path(path).expanduser()
    text, weights = _read_folder(path) if path.is_dir() else _read_file(path)
    where = str(path)
    about = read_description(where, text)
    choice, shape, classes = Choice.of("network", about["network"]), tuple(about["shape"]), tuple(about["classes"])
    preprocess = unfitted_preprocess(about["preprocess"], shape)
    if network is None:
        if choice.name not in NETWORKS:
            raise InputError(
                f"{where}: its network is {choice.name!r}, none of vicinal's own, and what a file names is not run; "
                "make it yourself, untrained, and give it: load(path, network=...)"
            )
        with torch.random.fork_rng(devices=[]):  # for the first weights, which are replaced
            made = build_network(choice, shape, len(classes), preprocess)
        if isinstance(made, Autoencoder):
            raise InputError(f"{where}: holds an autoencoder, not a classifier")
    elif isinstance(network, Classifier):
        made, made.preprocess = network, preprocess
    else:
        made = Classifier(preprocess, network, Identity(), feature_dim=None, classes=len(classes))
    try:
        made.load_state_dict(weights)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:160]
        raise InputError(f"{where}: the weights do not fit the network {choice.name!r} ({detail})") from error
    return TrainedNetwork(made.eval(), shape, classes, about["step"])


def _read_folder(folder: Path) -> tuple[str, Mapping[str, Tensor]]:
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: has no {name}; name a folder that was exported with --format hub-folder")
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{folder / CONFIG}: not text in UTF-8 ({error.reason}); export the model anew") from error
    return text, _weights(folder / WEIGHTS)


def _read_file(path: Path) -> tuple[str, Mapping[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
    except SafetensorError as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
    if "config" not in texts:
        raise InputError(f"{path}: has no description; export it anew with: vicinal export RUN --format safetensors")
    return texts["config"], _weights(path)


def _weights(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
