"""A network for evaluation alone: the same function in fewer operations, for attacks and others that pass many times.

In eval mode batch norm is an affine map per channel, and so is part of the convolution or linear layer next to it:
w (s x + t) + b behind the norm, s (w x + b) + t before it, with s = gamma / sqrt(var + eps) and t = beta - s mean.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from vicinal.errors import InputError
from vicinal.networks.autoencoder import Autoencoder
from vicinal.networks.classifier import Classifier
from vicinal.networks.layers import MeanOnlyBatchNorm

M = TypeVar("M", bound=nn.Module)
_Call = Callable[[Any, Tensor], Any]

# By their forward, as a subclass may compute something else.
_NORMS = (_BatchNorm.forward, SyncBatchNorm.forward, MeanOnlyBatchNorm.forward)
_LAYERS = (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward, nn.Linear.forward)


def folded(network: M, *, channels_last: bool = True) -> M:
    """A copy that computes the same in eval mode, faster, and is good for nothing else.

    It is in eval mode, its parameters require no gradients, and parametrised weights (weight normalisation) are plain
    ones. Batch norms, also those of the mean alone, are folded into the convolution or linear layer that they follow,
    or else into the one that follows them, where that is exact: no other layer takes what lies between the two, both
    are called once, neither has hooks, and a convolution behind the norm does not pad with zeros (those would have to
    be normalised too). Folding is computed in float64; what comes out differs by rounding.

    It stays what it was: a `Classifier` gives the same features and feature map, takes preprocessed inputs, and offers
    the same places for changes of hidden activations; an `Autoencoder` gives the same codes. A network that
    `torch.fx` cannot follow (its forward pass branches on values, say) keeps its norms and gets the layout alone.

    There is no way back to training: in training mode a pass through a folded norm raises `InputError`.

    Args:
        network: any module that is called with inputs (B, ...); it stays as it is, to the bit.
        channels_last: whether weights of 2-D convolutions are laid out channels last. Then activations are, too,
            whatever the layout of the inputs; on CPUs that is what makes most of the difference.

    Raises:
        InputError: by the copy: in training mode; or where a norm beside a linear layer gets inputs that are not (B, D)
            (its channels are then not those that the layer mixes).

    >>> network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU())
    >>> folded(network)
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): FoldedNorm()
      (2): ReLU()
    )
    """
    made = copy.deepcopy(network).eval().requires_grad_(False)
    made.zero_grad(set_to_none=True)
    for module in list(made.modules()):
        if is_parametrized(module):
            _materialise(module)
    pairs = _pairs(made)
    # Into the layer before first: behind it nothing is padded, so that is always exact.
    for fold, takes_norm in ((_into_layer_before, 1), (_into_layer_behind, 0)):
        for pair in pairs:
            modules = made.get_submodule(pair[0]), made.get_submodule(pair[1])
            norm, layer = modules[takes_norm], modules[1 - takes_norm]
            able = _is_norm(norm) and _is_layer(layer) and (takes_norm or _pads_nothing(layer))
            if able and _fit(norm, layer, before=bool(takes_norm)):
                fold(cast(Any, layer), *_affine(norm))
                _retire(norm, beside_linear=isinstance(layer, nn.Linear))
    if channels_last:
        cast(Any, made).to(memory_format=torch.channels_last)
    return made


class FoldedNorm(nn.Identity):
    """What stays where a batch norm was folded into its neighbour: nothing, in eval mode."""

    beside_linear: bool

    def forward(self, x: Tensor) -> Tensor:
        """``x``, (B, C) or (B, C, ...).

        Raises:
            InputError: the module is in training mode, or the shape is not what the folding took for granted.
        """
        if self.training:
            raise InputError(
                "folded: this copy is for evaluation alone, its batch norms are folded; train the network it is of"
            )
        if self.beside_linear and x.dim() != 2:
            raise InputError(
                f"folded: batch norm beside a linear layer is folded for inputs (B, D), got {tuple(x.shape)}; "
                "use the network as it is"
            )
        return x


def _retire(norm: nn.Module, *, beside_linear: bool) -> None:
    """Turn a norm into a `FoldedNorm`: the object itself, because the network may hold it in more places than one."""
    norm._parameters.clear()
    norm._buffers.clear()
    norm.__class__ = FoldedNorm
    cast(FoldedNorm, norm).beside_linear = beside_linear


def _materialise(module: nn.Module) -> None:
    """Make parametrised tensors plain parameters with the values that they have.

    Not by `remove_parametrizations`, which takes the properties away from the class, and copies share the class with
    their original.
    """
    names = list(cast(nn.ModuleDict, module.parametrizations))
    values = {name: cast(Tensor, getattr(module, name)).detach().clone() for name in names}
    module.__class__ = type(module).__bases__[0]
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def _is_norm(module: nn.Module) -> bool:
    """Whether this is a batch norm that uses running statistics."""
    return type(module).forward in _NORMS and isinstance(module.running_mean, Tensor) and not module.training


def _is_layer(module: nn.Module) -> bool:
    return type(module).forward in _LAYERS


def _fit(norm: nn.Module, layer: nn.Module, *, before: bool) -> bool:
    """Whether both have the same channels and types of numbers, and nobody has hooks on what lies between.

    Args:
        norm: one of the `_NORMS`.
        layer: one of the `_LAYERS`.
        before: whether the layer comes before the norm, rather than behind it.
    """
    if isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
        return False  # of (B, C, ..., D): the layer mixes the last axis, and never the channels
    mean, weight = cast(Tensor, norm.running_mean), cast(Tensor, layer.weight)
    # Linear layers take (B, T, D) too, of which a norm takes T to be the channels.
    if len(mean) != (weight.shape[0] if before else weight.shape[1] * cast(int, getattr(layer, "groups", 1))):
        return False
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooked = any(getattr(module, name) for module in (norm, layer) for name in hooks)
    return not hooked and mean.dtype == weight.dtype


def _pads_nothing(layer: nn.Module) -> bool:
    """Whether everything that the layer multiplies comes from its input."""
    if isinstance(layer, nn.Linear) or layer.padding_mode != "zeros" or layer.padding == "valid":
        return True
    padding = layer.padding
    return isinstance(padding, tuple) and not any(padding)


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """s and t, each (C,) in float64."""
    mean = cast(Tensor, norm.running_mean).double()
    scale = torch.ones_like(mean)
    if isinstance(norm, _BatchNorm):
        scale = (cast(Tensor, norm.running_var).double() + norm.eps).rsqrt()
        if norm.affine:
            scale = scale * norm.weight.double()
    shift = -scale * mean
    return scale, shift + norm.bias.double() if isinstance(norm.bias, Tensor) else shift


def _into_layer_before(layer: Any, scale: Tensor, shift: Tensor) -> None:
    weight: Tensor = layer.weight.double()
    bias = 0 if layer.bias is None else layer.bias.double() * scale
    _set(layer, weight * scale.view(-1, *[1] * (weight.dim() - 1)), bias + shift)


def _into_layer_behind(layer: Any, scale: Tensor, shift: Tensor) -> None:
    weight: Tensor = layer.weight.double()
    outside, inside = weight.shape[:2]  # inside: of one group
    groups = len(scale) // inside
    each = partial(torch.repeat_interleave, repeats=outside // groups, dim=0)
    moved = (weight.reshape(outside, inside, -1).sum(dim=2) * each(shift.view(groups, inside))).sum(dim=1)
    bias = moved if layer.bias is None else layer.bias.double() + moved
    _set(layer, weight * each(scale.view(groups, inside)).view(outside, inside, *[1] * (weight.dim() - 2)), bias)


def _set(layer: Any, weight: Tensor, bias: Tensor) -> None:
    """New parameters: a tensor that other layers share stays theirs."""
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    layer.bias = nn.Parameter(bias.to(dtype), requires_grad=False)


def _pairs(network: nn.Module) -> list[tuple[str, str]]:
    """Names of modules, the second of which is called once, with what one call of the first gives to nobody else.

    That holds however the network may be called: there must be a pair in each graph.
    """
    found: list[list[tuple[str, str]]] = []
    for call in _calls(network):
        try:
            found.append(_pairs_of(_Tracer().trace(_Called(network, call))))
        except Exception:  # whatever a network does with what stands for its input
            return []
    return [pair for pair in found[0] if all(pair in others for others in found)]


def _calls(network: nn.Module) -> list[_Call]:
    """The ways to call a network, each giving all that others see of it then."""
    calls: list[_Call] = [lambda net, x: net(x)]
    if isinstance(network, Classifier):
        calls += [partial(_with_place, place=place) for place in range(len(network.stages) + 1)]
    elif isinstance(network, Autoencoder):
        calls.append(lambda net, x: ((codes := net.encode(x)), net.decode(codes)))
    return calls


def _pairs_of(graph: fx.Graph) -> list[tuple[str, str]]:
    times = Counter(node.target for node in graph.nodes if node.op == "call_module")
    # A parameter that the forward pass also uses itself must stay what it is.
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    pairs = []
    for node in graph.nodes:
        first = node.args[0] if len(node.args) == 1 and not node.kwargs else None
        if not (node.op == "call_module" and isinstance(first, fx.Node) and first.op == "call_module"):
            continue
        names = str(first.target), str(node.target)
        if list(first.users) == [node] and all(times[name] == 1 and name not in read for name in names):
            pairs.append((names[0].removeprefix("network."), names[1].removeprefix("network.")))
    return pairs


def _with_place(network: Classifier, x: Tensor, *, place: int) -> tuple[Any, ...]:
    """All that a classifier lets others see in one pass, so that each of these counts as used."""
    seen: list[Tensor] = []

    def change(activations: Tensor) -> Tensor:
        seen.append(activations)
        return activations

    return *cast(tuple[Any, ...], network(x, part="all", place=place, change=change)), *seen


class _Called(nn.Module):
    def __init__(self, network: nn.Module, call: _Call) -> None:
        super().__init__()
        self.network = network
        self.call = call

    def forward(self, x: Tensor) -> Any:
        return self.call(self.network, x)


class _Tracer(fx.Tracer):
    """Looks into modules that are made of others, and takes all else as it is, whoever wrote it."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None or super().is_leaf_module(m, module_qualified_name)
