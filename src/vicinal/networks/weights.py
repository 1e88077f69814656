"""Pretrained weights from a local file: what is read of it, what of it fits a network, and what was left out.

A file holds numbers and names: safetensors, or what ``torch.save(model.state_dict(), path)`` writes. Either is read
without running any code of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.settings import Choice, shortened

SETTING = "weights"
"""The setting of every network that names the file."""
_WRAPPERS = ("module.", "model.", "body.", "network.", "net.", "backbone.", "_orig_mod.")
"""What wrappers of a network put before its names: data parallelism, training libraries, `torch.compile`, this one."""
_NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights")
"""Where training codes keep the weights of a checkpoint that holds more."""
_SHOWN = 3


@dataclass(frozen=True)
class Start:
    """What a network started from.

    Args:
        path: the file or folder, as it was given.
        digest: of its content (BLAKE2b, 128 bits, hexadecimal).
        loaded: how many of the network's tensors came from it.
        tensors: how many tensors the network has, those of the preprocessing left out.
        absent: the network's tensors that it does not have; they start fresh.
        resized: the network's tensors that have another shape in it, with both shapes; they start fresh as well.
        unused: its tensors that the network does not have.
    """

    path: str
    digest: str
    loaded: int
    tensors: int
    absent: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line, for whoever waits for the training."""
        fresh = [*self.resized, *self.absent]
        told = [f"starts from {self.path} ({self.loaded} of {self.tensors} tensors)"]
        told += [f"new: {listed(fresh)}"] if fresh else []
        told += [f"left out: {listed(self.unused)}"] if self.unused else []
        return "; ".join(told)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON reads them back."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def require(self) -> Start:
        """This, if it is worth the name.

        Raises:
            InputError: most of the network's tensors, or most of the file's, found no counterpart.
        """
        if 2 * self.loaded >= max(self.tensors, self.loaded + len(self.resized) + len(self.unused)):
            return self
        lacks = f"; it lacks {listed(self.absent)}" if self.absent else ""
        shapes = f"; of another shape are {listed(self.resized)}" if self.resized else ""
        unused = f"; the network has no {listed(self.unused)}" if self.unused else ""
        raise InputError(
            f"network.{SETTING}: {self.path} does not fit: {self.loaded} of the network's {self.tensors} tensors are "
            f"in it{lacks}{shapes}{unused}; name the weights of this architecture"
        )


def split_weights(choice: Choice, target: Callable[..., Any]) -> tuple[Choice, str | None]:
    """A network's choice without its setting ``weights``, and the path that it names, if any.

    A class or function of somebody's own that has an argument ``weights`` gets it: then it is no path of ours.

    Args:
        choice: the network.
        target: what is called to make it.

    Raises:
        InputError: the setting is no path.

    >>> split_weights(Choice("mlp", {"hidden": [8], "weights": "mlp.safetensors"}), lambda hidden: hidden)
    (Choice(name='mlp', settings={'hidden': [8]}), 'mlp.safetensors')
    """
    if SETTING not in choice.settings or SETTING in inspect.signature(target).parameters:
        return choice, None
    value = choice.settings[SETTING]
    rest = Choice(choice.name, {name: item for name, item in choice.settings.items() if name != SETTING})
    if value is None or value in ("none", "None"):
        return rest, None
    if not isinstance(value, (str, os.PathLike)) or not str(value):
        raise InputError(f"network.{SETTING}: expected the path of a file, got {shortened(value)}")
    return rest, str(value)


def load_weights(network: nn.Module, path: str) -> Start:
    """Put a file's weights into a network, in place, where name and shape agree.

    Names may differ by what wrappers put before them (``module.``, ``model.``, ``body.`` and the like), on either side.
    The preprocessing is not touched: it is fitted on the data. A tensor of another shape, such as a head for another
    number of classes, keeps its fresh weights.

    Args:
        network: freshly made.
        path: the file.

    Raises:
        InputError: the file is missing or cannot be read, or most of it does not fit.
    """
    offered, digest = read_weights(path)
    wanted = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    trials = [_paired(wanted, offered, ours, theirs) for ours in _wrappings(wanted) for theirs in _wrappings(offered)]
    found = max(trials, key=lambda trial: (len(trial.fitting), len(trial.pairs)))  # of equals the one with least change
    fitting, pairs = found.fitting, found.pairs
    # A count of batches is a scalar and fits any other: it says nothing of whether the weights fit.
    counted = [name for name in wanted if _counts(name)]
    start = Start(
        path,
        digest,
        loaded=sum(name in fitting for name in counted),
        tensors=len(counted),
        absent=tuple(name for name in counted if name not in pairs),
        resized=tuple(
            f"{name} {_shape(wanted[name])} instead of {_shape(offered[other])}"
            for name, other in pairs.items()
            if name not in fitting and _counts(name)
        ),
        unused=tuple(name for name in found.unused if _counts(name)),
    ).require()
    network.load_state_dict({name: offered[other] for name, other in fitting.items()}, strict=False)
    return start


def read_weights(path: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file by name, and a digest of the file. No code of the file is run.

    Args:
        path: safetensors, or a torch file of a state dict or of a checkpoint that holds one; told by its content.

    Raises:
        InputError: no such file, unreadable, or no weights in it.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"network.{SETTING}: {path}: no such file; name a safetensors file or a torch state dict")
    try:
        with file.open("rb") as stream:
            safe = stream.read(9)[8:] == b"{"  # the length of the header, then the header, which is JSON
            if safe:
                from safetensors.torch import load_file

                content: Any = load_file(file)
            else:
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file makes its reader raise
        raise InputError(
            f"network.{SETTING}: {path}: cannot be read as safetensors or as a torch state dict without running code "
            f"({first_line(error)}); write it with torch.save(model.state_dict(), path)"
        ) from error
    found = _tensors(content)
    if not found:
        raise InputError(f"network.{SETTING}: {path}: holds no tensors by name; name the file of a state dict")
    return found, digest_of([file])


def digest_of(files: Collection[Path]) -> str:
    """One digest of the content of files, one after the other: BLAKE2b, 128 bits, hexadecimal, as by ``b2sum -l 128``.

    Args:
        files: their paths, in order.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def listed(names: Collection[str]) -> str:
    """Some of many names.

    >>> listed(["a", "b"]), listed(list("abcdef"))
    ('a, b', 'a, b, c and 3 more')
    """
    shown = ", ".join(list(names)[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


@dataclass(frozen=True)
class _Pairing:
    """Names of the network's tensors with those of the file's that belong to them, and what is left of the file.

    Attributes:
        pairs: those of one name.
        fitting: those of them that are of one shape.
        unused: the file's names without a counterpart.
    """

    pairs: dict[str, str]
    fitting: dict[str, str]
    unused: list[str]


def _paired(wanted: Mapping[str, Tensor], offered: Mapping[str, Tensor], ours: str, theirs: str) -> _Pairing:
    """Pairs by name, once ``theirs`` is replaced by ``ours`` at the beginning of the file's names."""
    renamed = {ours + name.removeprefix(theirs): name for name in offered if name.startswith(theirs)}
    pairs = {name: renamed[name] for name in wanted if name in renamed and not _is_preprocess(name)}
    unused = [
        other for name, other in renamed.items() if name not in pairs and not _is_preprocess(other.removeprefix(theirs))
    ]
    fitting = {name: other for name, other in pairs.items() if wanted[name].shape == offered[other].shape}
    return _Pairing(pairs, fitting, unused)


def _wrappings(names: Collection[str]) -> list[str]:
    """All that can be taken off the beginning of names, nothing first."""
    found = [""]
    for prefix in found:
        found += [prefix + more for more in _WRAPPERS if any(name.startswith(prefix + more) for name in names)]
    return found


def _tensors(content: Any) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _NESTED if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        content = inner
    return {}


def _is_preprocess(name: str) -> bool:
    return name.startswith("preprocess.")


def _counts(name: str) -> bool:
    return not _is_preprocess(name) and not name.endswith("num_batches_tracked")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
