"""Second derivatives of a loss by the inputs along given directions: one Hessian-vector product for each.

The Hessian of l(f(x), y) has two parts, J^T (d2l/df2) J and sum_c (dl/df_c) d2f_c/dx2. One backward pass through the
graph of the input gradient gives both products with a direction: the gradient is linear in the weights dl/df, so its
derivative by them is J v, and its derivative by the input, at fixed weights, is the second part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from vicinal.errors import InputError, nearest
from vicinal.settings import check
from vicinal.theory.exact import Function, Problem, traced

TraceName = Literal["exact", "hutchinson"]

_VALUES = 1 << 20


@dataclass(frozen=True)
class Trace:
    """How tr(Sigma H_i) is taken, Sigma being the covariance of the inputs.

    Args:
        kind: ``"exact"``: rank(Sigma) products, at most min(n - 1, d); ``"hutchinson"``: random centred examples as
            probes, drawn anew for each example, whose covariance is Sigma exactly.
        probes: number of random probes, >= 2.
        generator: CPU generator of the probes.

    Raises:
        InputError: an unknown kind, too few probes, or no generator.
    """

    kind: TraceName = "exact"
    probes: int = 16
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(TraceName):
            raise InputError(f"trace: unknown {self.kind!r}; {nearest(self.kind, get_args(TraceName))}")
        if self.kind == "hutchinson":
            check("probes", self.probes, low=2)
            if self.generator is None:
                raise InputError("trace: random probes need a generator; give Trace its generator")


EXACT = Trace()
"""The exact trace."""


class Labels(NamedTuple):
    """Shifts of the labels that go with those of the inputs, for the mean of epsilon^T J v.

    Attributes:
        own: with the own direction of each point, like the labels (n,) or (n, C).
        covariance: of the rest of v with each label, (1, d) or (C, d).
    """

    own: Tensor
    covariance: Tensor


class Second(NamedTuple):
    """Second-order terms of a loss around some points, for perturbations v of covariance a Sigma + b_i b_i^T.

    Attributes:
        losses: at the points, (n,).
        gradient: of each loss by its point, (n, ...).
        gauss_newton: mean over points of E[v^T J^T (d2l/df2) J v], a scalar.
        network: mean over points of E[v^T (sum_c dl/df_c d2f_c) v], a scalar.
        label: mean over points of E[epsilon^T J v], a scalar; 0 without shifts of the labels.
        standard_error: of gauss_newton + network, from the random probes; 0 for the exact trace.
        products: Hessian-vector products for each point.
    """

    losses: Tensor
    gradient: Tensor
    gauss_newton: Tensor
    network: Tensor
    label: Tensor
    standard_error: float
    products: int


def second_order(
    f: Function,
    given: Problem,
    *,
    points: Tensor,
    own: Tensor,
    share: float,
    trace: Trace,
    labels: Labels | None = None,
) -> Second:
    """Losses, gradients and second-order terms for v with E[v v^T] = share Sigma + own_i own_i^T.

    Args:
        f: from inputs to logits, twice differentiable (of a ReLU network the network's own part is exactly 0).
        given: the sample, whose inputs define Sigma, with the labels at the points.
        points: where to expand, like ``given.x``.
        own: a direction for each point, like ``given.x``.
        share: a >= 0.
        trace: how the part of Sigma is taken.
        labels: shifts of the labels, if there are any.

    Raises:
        InputError: no gradient reaches the inputs.
    """
    x = given.x
    centred = (x - x.mean(dim=0)).flatten(1)
    axes = _axes(centred) if trace.kind == "exact" else None
    rows = max(1, _VALUES // max(x[0].numel(), 1))
    losses, gradients, owns, passes, label = [], [], [], [], x.new_zeros(())
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        graph = _Graph(f, points[part], given.y[part], given)
        losses.append(graph.losses)
        gradients.append(graph.gradient.detach())
        owns.append(torch.stack(graph.along(own[part])))
        count = len(graph.losses)
        directions = axes[:, None].expand(-1, count, -1) if axes is not None else _probes(centred, count, trace)
        found = [share * torch.stack(graph.along(v.reshape(graph.x.shape))) for v in directions]
        passes.append(torch.stack(found) if found else owns[-1].new_zeros(0, 2, count))
        if labels is not None:
            label = label + graph.with_labels(own[part], Labels(labels.own[part], labels.covariance))
    own_terms = torch.cat(owns, dim=1).mean(dim=1)
    means = torch.cat(passes, dim=2).mean(dim=2)  # (directions, 2), over the points
    if axes is not None:
        terms, error = own_terms + means.sum(dim=0), 0.0
    else:
        # Probes of different passes are independent, so the passes' means tell how far their own mean may be off.
        terms, error = own_terms + means.mean(dim=0), float(means.sum(dim=1).std()) / math.sqrt(len(means))
    return Second(torch.cat(losses), torch.cat(gradients), terms[0], terms[1], label / len(x), error, len(means) + 1)


def _axes(centred: Tensor) -> Tensor:
    """Directions (rank, d) whose outer products sum to the covariance of the rows."""
    _, size, axes = torch.linalg.svd(centred / math.sqrt(len(centred)), full_matrices=False)
    kept = size > size.max() * max(centred.shape) * torch.finfo(centred.dtype).eps
    scaled: Tensor = size[kept, None] * axes[kept]
    return scaled


def _probes(centred: Tensor, count: int, trace: Trace) -> Iterator[Tensor]:
    """Centred examples drawn uniformly, (count, d) at a time."""
    for _ in range(trace.probes):
        yield centred[torch.randint(len(centred), (count,), generator=trace.generator).to(centred.device)]


class _Graph:
    """A batch, with the graph of its input gradient."""

    def __init__(self, f: Function, x: Tensor, y: Tensor, given: Problem) -> None:
        self.x, outputs = traced(f, x)
        with torch.enable_grad():
            self.logits = outputs.detach().requires_grad_()
            values = given.loss(self.logits, y)
            (self.slope,) = torch.autograd.grad(values.sum(), self.logits, create_graph=True)
            self.weight = self.slope.detach().requires_grad_()
            (self.gradient,) = torch.autograd.grad(outputs, self.x, self.weight, create_graph=True)
        self.losses = values.detach()

    def along(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """v^T J^T (d2l/df2) J v and v^T (sum_c dl/df_c d2f_c) v for each row, (B,) each."""
        moved, bent = torch.autograd.grad(
            self.gradient, (self.weight, self.x), v, retain_graph=True, materialize_grads=True
        )
        (curved,) = torch.autograd.grad(self.slope, self.logits, moved, retain_graph=True, materialize_grads=True)
        return _dot(moved, curved), _dot(bent, v)

    def with_labels(self, own: Tensor, labels: Labels) -> Tensor:
        """Sum over the rows of E[epsilon^T J v]."""
        total = _dot(self._pushed(own), labels.own).sum()
        for c, direction in enumerate(labels.covariance):
            pushed = self._pushed(direction.expand(len(self.x), -1).reshape(self.x.shape))
            total = total + pushed.reshape(len(self.x), -1)[:, c].sum()
        return total

    def _pushed(self, v: Tensor) -> Tensor:
        """J v, like the logits."""
        (moved,) = torch.autograd.grad(self.gradient, self.weight, v, retain_graph=True)
        return moved


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(dim=1) if a.dim() > 1 else a * b
