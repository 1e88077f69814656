"""Networks by name, by import path, and from other libraries."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from vicinal.errors import InputError, nearest
from vicinal.networks import foreign
from vicinal.networks.auto import auto
from vicinal.networks.autoencoder import Autoencoder
from vicinal.networks.classifier import Classifier
from vicinal.networks.cnn13 import cnn13
from vicinal.networks.mlp import mlp
from vicinal.networks.mmd_vae import mmd_vae
from vicinal.networks.passes import EVAL, run
from vicinal.networks.preact_resnet import preact_resnet18
from vicinal.networks.preprocess import Identity
from vicinal.networks.small_cnn import small_cnn
from vicinal.networks.weights import Start, first_line, load_weights, split_weights
from vicinal.networks.wide_resnet import wide_resnet, wrn_28_2, wrn_28_10
from vicinal.settings import Choice, build

Network: TypeAlias = Classifier | Autoencoder

NETWORKS: dict[str, Callable[..., Network]] = {
    "auto": auto,
    "mlp": mlp,
    "small_cnn": small_cnn,
    "cnn13": cnn13,
    "wide_resnet": wide_resnet,
    "wrn_28_2": wrn_28_2,
    "wrn_28_10": wrn_28_10,
    "preact_resnet18": preact_resnet18,
    "mmd_vae": mmd_vae,
}
"""The networks that come with this package: builders called with (shape, classes, settings)."""


def start_network(
    choice: Choice, dataset_shape: tuple[int, ...], classes: int, preprocess: nn.Module
) -> tuple[Network, Start | None]:
    """The network as a training starts with it: with pretrained weights where its settings ask for them.

    They come from a local file, by the setting ``weights`` that every network has, see `vicinal.networks.load_weights`,
    or from the folder of an ``hf:`` model. What they leave out, such as a head for other classes, is drawn from torch's
    global generator, as for `build_network`.

    Args:
        choice: as for `build_network`.
        dataset_shape: shape of one example.
        classes: number of classes.
        preprocess: layer that the network starts with.

    Returns:
        The network, and what it started from: None if all weights are fresh. Of weights that timm brings by itself
        (``pretrained: true``) nothing is known here.

    Raises:
        InputError: the weights do not fit or cannot be read, or as for `build_network`.
        MissingExtraError: as for `build_network`.
    """
    path = split_weights(choice, network_settings(choice.name))[1]
    network = _made(choice, dataset_shape, classes, preprocess, pretrained=path is None)
    return network, foreign.start_of(network) if path is None else load_weights(network, path)


def build_network(
    choice: Choice, dataset_shape: tuple[int, ...], classes: int, preprocess: nn.Module, *, config: str | None = None
) -> Network:
    """The network that was chosen, with fresh weights, whatever pretrained ones its settings name.

    So a trained network is built again, to take its own weights, when those that it started from are gone. Weights are
    drawn from torch's global generator: call ``torch.manual_seed`` before, and the same seed gives the same weights.

    Args:
        choice: one of `NETWORKS`; an import path of any module class or function that makes one, written
            ``package.module:Name`` or ``package.module.Name``; ``timm:NAME``; ``torchvision:NAME``; or ``hf:FOLDER``,
            an image classifier of Transformers. A class of one's own is called with the settings given and with
            ``classes``, ``num_classes``, ``in_channels`` and ``shape`` where its signature has them; it must map
            (B, ...) to logits (B, C).
        dataset_shape: shape of one example, (C, H, W) or (D,).
        classes: number of classes C.
        preprocess: layer that the network starts with, see `fit_preprocess`.
        config: of an ``hf:`` model whose folder is not to be read, see `vicinal.networks.config_of`.

    Raises:
        InputError: unknown name or setting, wrong type, import or construction fails, or the network does not
            map inputs of that shape to (B, C) logits.
        MissingExtraError: timm, torchvision or transformers is not installed.

    >>> build_network(Choice("mlp", {"hidden": [8]}), (2,), 3, Identity())(torch.zeros(4, 2)).shape
    torch.Size([4, 3])
    """
    return _made(choice, dataset_shape, classes, preprocess, pretrained=False, config=config)


def _made(
    choice: Choice,
    shape: tuple[int, ...],
    classes: int,
    preprocess: nn.Module,
    *,
    pretrained: bool,
    config: str | None = None,
) -> Network:
    target = network_settings(choice.name, config=config)
    choice, _ = split_weights(choice, target)
    settings = dict(choice.settings)
    if choice.name in NETWORKS:
        network: Network = build("network", target, settings, shape=shape, classes=classes)
        network.preprocess = preprocess
        return network
    if not pretrained and choice.name.partition(":")[0] in foreign.HAS_PRETRAINED:
        settings["pretrained"] = False
    offered = {
        "shape": shape,
        "classes": classes,
        "num_classes": classes,
        "in_channels": shape[0],
    }
    made = _call(choice.name, target, settings, offered)
    if isinstance(made, Classifier):
        network = made
        network.preprocess = preprocess
    elif isinstance(made, nn.Module):
        network = Classifier(preprocess, made, Identity(), feature_dim=None, classes=classes)
    else:
        raise InputError(f"network: {choice.name} gave a {type(made).__name__}, not a torch module")
    _verify(choice.name, network, shape, classes)
    return network


def network_settings(name: str, *, config: str | None = None) -> Callable[..., Any]:
    """What is called to make the network of that name; its signature and docstring say what may be set.

    Args:
        name: of the network.
        config: as for `build_network`.

    Raises:
        InputError: there is no such network.
        MissingExtraError: timm, torchvision or transformers is not installed.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    library, colon, model = name.partition(":")
    if colon and library == "timm":
        return foreign.timm(model)
    if colon and library == "torchvision":
        return foreign.torchvision(model)
    if colon and library == "hf":
        return foreign.hugging_face(model, config)
    if colon and library in ("huggingface", "transformers"):
        raise InputError(f"network: {name!r}: write hf:{model or 'FOLDER'} for a model of the Hugging Face hub")
    if colon or "." in name:
        return _imported(name)
    raise InputError(f"network: unknown {name!r}; {nearest(name, NETWORKS)} (or an import path 'package.module:Name')")


def _imported(path: str) -> Callable[..., Any]:
    module, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever the user's own module raises while it is imported
        raise InputError(f"network: cannot import {module!r} of {path!r}: {first_line(error)}") from error
    target = found
    for part in attribute.split("."):
        if not hasattr(target, part):
            public = [name for name in vars(target) if not name.startswith("_")]
            raise InputError(f"network: {module!r} has no {attribute!r}; {nearest(attribute, public)}")
        target = getattr(target, part)
    if not callable(target):
        raise InputError(f"network: {path!r} is a {type(target).__name__}, not a class or function")
    return target


def _call(name: str, target: Callable[..., Any], given: Mapping[str, Any], offered: Mapping[str, Any]) -> Any:
    """Call what the user named, with the settings given and what its signature asks for of what is ``offered``."""
    parameters = inspect.signature(target).parameters
    named = {key for key, item in parameters.items() if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)}
    takes_any = any(item.kind is item.VAR_KEYWORD for item in parameters.values())
    for key in given:
        if key not in named and not takes_any:
            raise InputError(f"network.{key}: unknown setting of {name}; {nearest(key, named)}")
    arguments = {key: value for key, value in offered.items() if key in named} | dict(given)
    missing = [key for key in named if parameters[key].default is inspect.Parameter.empty and key not in arguments]
    if missing:
        raise InputError(f"network: {name} needs settings for: {', '.join(sorted(missing))}")
    try:
        return target(**arguments)
    except Exception as error:
        raise InputError(f"network: {name} could not be built: {first_line(error)}") from error


def _verify(name: str, network: nn.Module, shape: tuple[int, ...], classes: int) -> None:
    """One pass over zeros in eval mode, which changes no state."""
    parameter: Tensor | None = next(network.parameters(), None)
    zeros = torch.zeros(2, *shape, device=None if parameter is None else parameter.device)
    try:
        with torch.no_grad():
            logits = run(network, zeros, EVAL)
    except Exception as error:
        raise InputError(
            f"network: {name} fails on inputs of shape (2, {', '.join(map(str, shape))}): {first_line(error)}"
        ) from error
    if not isinstance(logits, Tensor):
        raise InputError(f"network: {name} gives a {type(logits).__name__}, not one tensor of logits")
    if logits.shape != (2, classes):
        raise InputError(
            f"network: {name} gives {tuple(logits.shape)} for 2 inputs, not logits of shape (2, {classes})"
        )
