"""Upper bounds of the Lipschitz constants of a network and of its Jacobian, from its layers, for all inputs at once.

The rules, for the spectral norm of Jacobians J and Euclidean distances:

* g after h: Lip <= Lip(g) Lip(h), and Lip(J) <= Lip(g) Lip(J_h) + Lip(J_g) Lip(h)^2;
* a sum, as of a residual branch and its shortcut: the sum of both;
* an activation phi: max|phi'| and max|phi''|; the latter is infinite where there are kinks (ReLU, max pooling);
* a linear map A right after phi: Lip(J_{A phi}) <= max|phi''| max_k ||A_k||, with A_k the columns of A, because
  ||A diag(d)||_2 <= ||A diag(d)||_F <= max_k ||A_k|| ||d||_2. For two layers: max|phi''| max_k |v_k| ||W||_2^2.

Linear layers that follow each other are one map, whose norm is taken at its true input size (see
`vicinal.evaluation.operator_norm`): batch norm, normalisation and whitening are folded exactly into their neighbours,
and average pooling and padding count as what they are.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

from vicinal.errors import InputError
from vicinal.evaluation.operator_norm import FAILURE, longest_column, operator_norm
from vicinal.networks import ZCA, GaussianNoise, Identity, MeanOnlyBatchNorm, Normalise
from vicinal.randomness import generator
from vicinal.settings import check

_WHERE = "lipschitz bound"
_Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LipschitzBound:
    """Upper bounds of Lipschitz constants, in eval mode, for exact arithmetic with the network's weights.

    Args:
        n: 0, for no example was looked at.
        kind: the set that the bounds hold on: all inputs.
        lipschitz: of the logits, or of one of them; in logits per unit of the input.
        gradient: of the Jacobian of the logits in the spectral norm, and so of each logit's gradient, or of the
            gradient of one logit; infinite where an activation has kinks.
        tolerance: by how much the norm of each linear map is above the true one at most, relative.
        failure: probability, over random starts, that some such norm came out below the true one, at most.
    """

    n: int
    kind: Literal["everywhere"]
    lipschitz: float
    gradient: float
    tolerance: float
    failure: float


def lipschitz_bound(
    network: nn.Module, shape: tuple[int, ...], *, logit: int | None = None, tolerance: float = 0.01, seed: int = 0
) -> LipschitzBound:
    """Upper bounds of Lip(f) and Lip(J_f): products and sums over the layers.

    Known are linear layers and convolutions; batch norm with running statistics; average and max pooling; dropout and
    noise, which do nothing in eval mode; `Normalise` and `ZCA`; layer norm (1 / sqrt(eps), which constant features
    attain; nothing is said of its curvature); and ReLU, ReLU6, leaky ReLU, ELU, tanh, sigmoid, softplus, GELU and SiLU.
    Modules made of these may add branches in any way. Each linear map takes about 100 passes forward and back.

    Args:
        network: from inputs (B, *shape) in data space to logits (B, C). It is copied, in float64.
        shape: of one example: norms of convolutions depend on it.
        logit: bound this logit alone, which is tighter; None for all together.
        tolerance: relative excess of each norm that is accepted, > 0. Half of it costs sqrt(2) times as much.
        seed: of the random starts.

    Raises:
        InputError: a layer is not known (the message names it), the network does not take inputs of that shape, there
            is no such logit, or the tolerance is out of range.

    >>> network = nn.Sequential(nn.Linear(1, 1), nn.Softplus(), nn.Linear(1, 1))
    >>> for p in network.parameters():
    ...     _ = nn.init.constant_(p, 2.0)
    >>> bound = lipschitz_bound(network, (1,))  # of 2 softplus(2 x + 2) + 2
    >>> round(bound.lipschitz, 6), round(bound.gradient, 6)
    (4.0, 2.0)
    """
    check("tolerance", tolerance, above=0)
    device = next((tensor.device for tensor in (*network.parameters(), *network.buffers())), torch.device("cpu"))
    exact = _Whole(copy.deepcopy(network).double().requires_grad_(False)).eval()
    walk = _Walk(exact, torch.Size((1, *shape)), device, tolerance, seed)
    value = walk.output()
    if logit is not None:
        if len(value.shape) != 2 or not 0 <= logit < value.shape[1]:
            raise InputError(
                f"{_WHERE}: there is no logit {logit} among outputs {tuple(value.shape[1:])}; name another"
            )
        value = walk.linear(value, lambda z: z[:, logit : logit + 1])
    lipschitz, gradient = walk.closed(value)
    return LipschitzBound(0, "everywhere", lipschitz, gradient, tolerance, walk.norms * FAILURE)


@dataclass(frozen=True)
class _Value:
    """A place in the network: tail(phi(h(input))), with phi the last nonlinear step before it."""

    shape: torch.Size
    inner: torch.Size  # of what the tail starts from
    lipschitz: float  # of h
    jacobian: float  # of J_h
    slope: float = 1.0  # max|phi'|
    bend: float = 0.0  # max|phi''|
    tail: tuple[_Step, ...] = ()


class _Walk:
    """From the input through the graph of a network, in float64."""

    def __init__(self, network: _Whole, shape: torch.Size, device: torch.device, tolerance: float, seed: int) -> None:
        self.network = network
        self.shape = shape
        self.device = device
        self.tolerance = tolerance
        self.seed = seed
        self.norms = 0

    def output(self) -> _Value:
        """What the network gives, its last linear layers still open."""
        values: dict[fx.Node, _Value] = {}
        for node in _Tracer().trace(self.network).nodes:
            inputs = [values[argument] for argument in node.all_input_nodes]
            if node.op == "placeholder":
                values[node] = _Value(self.shape, self.shape, 1.0, 0.0)
            elif node.op == "output" and isinstance(node.args[0], fx.Node):
                return inputs[0]
            elif node.op == "call_module" and node.args == tuple(node.all_input_nodes) and len(inputs) == 1:
                values[node] = self._layer(self.network.get_submodule(str(node.target)), inputs[0])
            else:
                values[node] = self._call(node, inputs)
        raise _unknown("network without an output")

    def linear(self, value: _Value, step: _Step) -> _Value:
        """A value after an affine step."""
        return replace(value, shape=self._after(step, value), tail=(*value.tail, step))

    def closed(self, value: _Value) -> tuple[float, float]:
        """Bounds of the Lipschitz constants of a value, as a function of the input, and of its Jacobian."""
        norm = column = 1.0
        if value.tail:
            tail, zeros = partial(_run, value.tail), self._zeros(value.inner)
            self.norms += 1
            draws = generator(self.seed, _WHERE, self.norms)
            norm = operator_norm(tail, zeros, tolerance=self.tolerance, generator=draws)
            # Behind a kink the columns change nothing.
            column = min(norm, longest_column(tail, zeros)) if 0 < value.bend < math.inf else norm
        slope = norm * value.slope
        curved = _times(value.bend, column * value.lipschitz * value.lipschitz)
        return slope * value.lipschitz, _times(slope, value.jacobian) + curved

    def _layer(self, layer: nn.Module, value: _Value) -> _Value:
        if isinstance(layer, _BatchNorm | MeanOnlyBatchNorm) and layer.running_mean is None:
            raise _unknown(f"layer {type(layer).__name__} without running statistics, which mixes examples")
        if any(_computes(layer, kind) for kind in _LINEAR):
            return self.linear(value, layer)
        for kind, constants in _CURVED.items():
            if _computes(layer, kind):
                return self._curved(value, layer, *constants(layer))
        raise _unknown(f"layer {type(layer).__name__}")

    def _call(self, node: fx.Node, inputs: list[_Value]) -> _Value:
        if node.target in _SUMS and not node.kwargs and all(isinstance(term, fx.Node) for term in node.args):
            terms = inputs * (2 if len(inputs) == 1 else 1)  # x + x
            if terms[0].shape == terms[1].shape:
                (a, a_jacobian), (b, b_jacobian) = map(self.closed, terms)
                return _Value(terms[0].shape, terms[0].shape, a + b, a_jacobian + b_jacobian)
        elif node.target in (torch.flatten, "flatten") and len(inputs) == 1:
            flatten = cast(Callable[..., Tensor], torch.flatten)
            return self.linear(inputs[0], lambda x: flatten(x, *node.args[1:], **node.kwargs))
        elif node.target in (F.relu, torch.relu, "relu") and len(inputs) == 1:
            return self._curved(inputs[0], torch.relu, 1.0, math.inf)
        stack = [module.__name__ for _, module in node.meta.get("nn_module_stack", {}).values()]
        raise _unknown(" of ".join([f"step {getattr(node.target, '__name__', node.target)!r}", *stack[-1:]]))

    def _curved(self, value: _Value, step: _Step, slope: float, bend: float) -> _Value:
        shape = self._after(step, value)
        return _Value(shape, shape, *self.closed(value), slope, bend)

    def _after(self, step: _Step, value: _Value) -> torch.Size:
        """The shape that a step gives, found by a pass of zeros."""
        try:
            with torch.no_grad():
                return step(self._zeros(value.shape)).shape
        except (AttributeError, IndexError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{_WHERE}: {type(step).__name__} does not map what it gets, {tuple(value.shape)}, to one tensor; "
                f"shape must be that of one example, and is {tuple(self.shape[1:])}"
            ) from error

    def _zeros(self, shape: torch.Size) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=self.device)


class _Whole(nn.Module):
    """A network called with inputs alone: what else its forward takes keeps its default."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network(x)


class _Tracer(fx.Tracer):
    """Looks into modules that are no layers of torch's or of this package's own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return any(_computes(m, kind) for kind in _LINEAR) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except InputError:
            raise
        except Exception as error:  # whatever a module does with what stands for its input
            raise _unknown(f"module {type(m).__name__}, which cannot be followed into its layers") from error


def _run(steps: Iterable[_Step], x: Tensor) -> Tensor:
    for step in steps:
        x = step(x)
    return x


def _times(a: float, b: float) -> float:
    """A product in which 0 times infinity is 0: behind a zero map nothing bends."""
    return a * b if a and b else 0.0


def _unknown(what: str) -> InputError:
    return InputError(f"{_WHERE}: none is known for the {what}; build the network of known layers and sums")


def _computes(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether the layer is one of these, and computes what they do: a subclass may have a forward of its own."""
    return isinstance(layer, kind) and type(layer).forward is kind.forward


def _overlap(directions: int, layer: Any) -> tuple[float, float]:
    """Max pooling: each input counts as often as there are windows over it."""
    sizes = (
        value if isinstance(value, tuple) else (value,) * directions
        for value in (layer.kernel_size, layer.stride, layer.dilation)
    )
    windows = (min(k, -(-(dilation * (k - 1) + 1) // stride)) for k, stride, dilation in zip(*sizes, strict=True))
    return math.sqrt(math.prod(windows)), math.inf


def _layer_norm(layer: Any) -> tuple[float, float]:
    return (1.0 if layer.weight is None else float(layer.weight.abs().max())) / math.sqrt(layer.eps), math.inf


def _gelu(layer: Any) -> tuple[float, float]:
    # x Phi(x) is steepest at sqrt(2) and most curved at 0; of torch's approximation, found numerically and rounded up.
    exact = (1 + math.erf(1)) / 2 + math.exp(-1) / math.sqrt(math.pi)
    return (1.128994 if layer.approximate == "tanh" else exact), math.sqrt(2 / math.pi)


_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
_LINEAR: tuple[type[nn.Module], ...] = (
    *(nn.Linear, nn.Identity, nn.Flatten, nn.Unflatten, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    *(_BatchNorm, SyncBatchNorm, MeanOnlyBatchNorm),
    *(Identity, Normalise, ZCA, GaussianNoise),
)
# Layer -> max|phi'| and max|phi''|. The second is that of functions without kinks; torch's softplus has one of 2e-9.
_CURVED: dict[type[nn.Module], Callable[[Any], tuple[float, float]]] = {
    nn.ReLU: lambda _: (1.0, math.inf),
    nn.ReLU6: lambda _: (1.0, math.inf),
    nn.LeakyReLU: lambda layer: (max(1.0, abs(layer.negative_slope)), math.inf),
    nn.ELU: lambda layer: (max(1.0, abs(layer.alpha)), 1.0 if layer.alpha == 1 else math.inf),
    nn.Tanh: lambda _: (1.0, 4 / (3 * math.sqrt(3))),
    nn.Sigmoid: lambda _: (0.25, 1 / (6 * math.sqrt(3))),
    nn.Softplus: lambda layer: (1.0, layer.beta / 4),
    nn.GELU: _gelu,
    nn.SiLU: lambda _: (1.0998394, 0.5),
    nn.MaxPool1d: partial(_overlap, 1),
    nn.MaxPool2d: partial(_overlap, 2),
    nn.MaxPool3d: partial(_overlap, 3),
    nn.LayerNorm: _layer_norm,
}
