"""Lower estimates of Lipschitz constants, mostly of gradients: Hessian norms, quotients, and the mixup gap.

The gradient of f is beta-Lipschitz on a convex set exactly if, for all x, x' and lambda there,
|lambda f(x) + (1 - lambda) f(x') - f(lambda x + (1 - lambda) x')| <= beta / 2 lambda (1 - lambda) ||x - x'||^2.
So what mixup penalises gives a lower estimate of beta from forward passes alone, on the chords between examples; it
says nothing of what lies off them.

Each figure says which set it ran over; figures of different sets, logits or input scalings do not compare. All are at
most the bounds of `vicinal.evaluation.lipschitz_bounds`. Networks run in eval mode; parameters, ``.grad``, flags and
buffers stay as they were. Differences that are small beside the logits need float64 networks and inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.networks import EVAL, applied
from vicinal.randomness import generator
from vicinal.settings import check
from vicinal.vicinity import full_precision, mix, random_direction, unit

Kind = Literal["examples", "chords"]


@dataclass(frozen=True)
class LowerEstimate:
    """Local estimates of a Lipschitz constant, none of them above it.

    Args:
        n: number of examples or chords.
        kind: the set that they ran over: single examples (and what is near them), or chords, the straight lines
            between two examples of a batch.
        mean: over that set.
        largest: of that set, the lower estimate of the constant itself.
    """

    n: int
    kind: Kind
    mean: float
    largest: float


def hessian_norm(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    logit: int | None = None,
    iterations: int = 20,
    starts: int = 2,
    seed: int,
) -> LowerEstimate:
    """Largest absolute eigenvalue of the Hessian of a logit by the input, by power iteration with its products.

    The figure is ||H v|| for a unit v, so that a dominant eigenvalue may be negative. A network of ReLUs has a Hessian
    of zero beside its kinks: use `gradient_quotients` at a stated radius, or `mixup_gap`, for it.

    Args:
        network: from inputs in data space to logits (B, C), twice differentiable.
        batches: inputs and classes, int64 (B,).
        logit: of which logit; None for that of each example's class.
        iterations: products with the Hessian, >= 1.
        starts: random starts, >= 1; the largest estimate of each example counts.
        seed: of the starts.

    Raises:
        InputError: an argument is out of range, or there are no examples.
    """
    check("iterations", iterations, low=1)
    check("starts", starts, low=1)
    found = []
    with applied(network, EVAL):
        for index, (x, y) in enumerate(batches):
            x = full_precision(x.detach())
            at, gradient = _gradient(network, x, y, logit, again=True)
            largest = x.new_zeros(len(x), dtype=torch.float64)
            for start in range(starts):
                d = random_direction(x, generator(seed, "hessian norm", index, start))
                for _ in range(iterations):
                    moved = _product(gradient, at, d)
                    d = unit(moved, fallback=d)
                    largest = torch.maximum(largest, _lengths(moved))
            found.append(largest)
    return _estimate("examples", found)


def gradient_quotients(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    radius: float | None = None,
    logit: int | None = None,
    neighbours: int = 1,
    seed: int,
) -> LowerEstimate:
    """Quotients ||grad f_k(x) - grad f_k(x')|| / ||x - x'|| for a logit k.

    Args:
        network: from inputs in data space to logits (B, C), differentiable.
        batches: inputs and classes, int64 (B,).
        radius: distance of x' from an example x, in random directions, > 0; None takes other examples of the batch as
            x'. Across the kinks of ReLUs quotients grow as the radius shrinks: they compare at the same one only.
        logit: k; None for the logit of the class of x.
        neighbours: number of x' for each example, >= 1; with a radius the largest quotient of each example counts.
        seed: of the directions or partners.

    Raises:
        InputError: an argument is out of range, or there are no examples or no two different ones in a batch.
    """
    check("neighbours", neighbours, low=1)
    if radius is not None:
        check("radius", radius, above=0)
    found = []
    with applied(network, EVAL):
        for index, (x, y) in enumerate(batches):
            x = full_precision(x.detach())
            draws = generator(seed, "gradient quotients", index)
            if radius is None:
                others = [x[partner] for partner in _partners(x, neighbours, draws)]
            else:
                others = [x + radius * random_direction(x, draws) for _ in range(neighbours)]
            here = _gradient(network, x, y, logit)[1]
            rows = []
            for other in others:
                there = _gradient(network, other, y, logit)[1]
                apart = _lengths(other - x)  # as it is after rounding
                row = torch.where(apart > 0, _lengths(there - here) / apart, 0)
                rows.append(row[apart > 0] if radius is None else row)
            found += rows if radius is None else [torch.stack(rows).amax(dim=0)]
    return _estimate("chords" if radius is None else "examples", found)


def pair_quotients(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, neighbours: int = 1, seed: int
) -> LowerEstimate:
    """Quotients ||f(x) - f(x')|| / ||x - x'|| of the logits of pairs of examples: a lower estimate of Lip(f).

    Args:
        network: from inputs in data space to logits (B, C).
        batches: inputs and classes, which are not used.
        neighbours: partners of each example, >= 1; of those in its batch each is taken once at most.
        seed: of the partners.

    Raises:
        InputError: an argument is out of range, or there are no two different examples in a batch.
    """
    check("neighbours", neighbours, low=1)
    found = []
    with torch.no_grad(), applied(network, EVAL):
        for index, (x, _) in enumerate(batches):
            x = full_precision(x)
            logits = network(x)
            for partner in _partners(x, neighbours, generator(seed, "pair quotients", index)):
                apart = _lengths(x - x[partner])
                found.append((_lengths(logits - logits[partner]) / apart)[apart > 0])
    return _estimate("chords", found)


def mixup_gap(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    lambdas: Sequence[float] = (0.5,),
    logit: int | None = None,
    neighbours: int = 1,
    seed: int,
) -> LowerEstimate:
    """max 2 ||e|| / (lambda (1 - lambda) ||x - x'||^2), e = lambda f(x) + (1 - lambda) f(x') - f(lambda x + ...).

    A lower estimate of the Lipschitz constant of the Jacobian, from forward passes alone, which has a meaning for
    networks of ReLUs too, along chords of finite length.

    Args:
        network: from inputs in data space to logits (B, C).
        batches: inputs and classes, which are not used.
        lambdas: in (0, 1); the largest figure of each chord counts. Near 0 and 1 little is left of e but rounding.
        logit: of this logit alone, and so for its gradient; None for the norm over all.
        neighbours: partners of each example, >= 1; of those in its batch each is taken once at most, and with the size
            of the batch every chord is.
        seed: of the partners.

    Raises:
        InputError: an argument is out of range, or there are no two different examples in a batch.
    """
    check("neighbours", neighbours, low=1)
    if not lambdas or not all(0 < lam < 1 for lam in lambdas):
        raise InputError(f"lambdas must lie between 0 and 1, without either, got {list(lambdas)}; give at least one")
    found = []
    with torch.no_grad(), applied(network, EVAL):
        for index, (x, _) in enumerate(batches):
            x = full_precision(x)
            logits = network(x)
            columns = _columns(logits, logit)
            for partner in _partners(x, neighbours, generator(seed, "mixup gap", index)):
                apart = _lengths(x - x[partner])
                figures = []
                for lam in lambdas:
                    share = torch.full((len(x),), lam, dtype=torch.float64, device=x.device)
                    between = mix(logits.double(), logits[partner].double(), share)
                    e = between - network(mix(x, x[partner], share)).double()
                    figures.append(2 * _lengths(e[:, columns]) / (lam * (1 - lam) * apart.square()))
                found.append(torch.stack(figures).amax(dim=0)[apart > 0])
    return _estimate("chords", found)


def _gradient(
    network: nn.Module, x: Tensor, y: Tensor, logit: int | None, *, again: bool = False
) -> tuple[Tensor, Tensor]:
    """The inputs, and the gradient of a logit by them, (B, ...); differentiable by them once more if ``again``."""
    at = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = network(at)
        wanted = logits[:, _columns(logits, logit)] if logit is not None else logits.gather(1, y.view(-1, 1))
        (gradient,) = torch.autograd.grad(wanted.sum(), at, create_graph=again)
    return at, gradient


def _product(gradient: Tensor, at: Tensor, d: Tensor) -> Tensor:
    """The Hessian times d, row by row."""
    if not gradient.requires_grad:
        return torch.zeros_like(d)  # an affine network without trainable parameters
    (moved,) = torch.autograd.grad(gradient, at, d, retain_graph=True, materialize_grads=True)
    return moved.detach()


def _columns(logits: Tensor, logit: int | None) -> slice:
    if logit is None:
        return slice(None)
    if not 0 <= logit < logits.shape[1]:
        raise InputError(f"logit must be one of 0 to {logits.shape[1] - 1}, got {logit}")
    return slice(logit, logit + 1)


def _partners(x: Tensor, neighbours: int, draws: torch.Generator) -> Iterator[Tensor]:
    """Partners of each row, never itself and never the same one twice: steps round a random circle of all rows."""
    circle = torch.randperm(len(x), generator=draws)
    place = circle.argsort()
    for step in range(1, min(neighbours, len(x) - 1) + 1):
        yield circle[(place + step) % len(x)].to(x.device)


def _lengths(x: Tensor) -> Tensor:
    """L2 norm of each row, float64 (B,)."""
    found: Tensor = x.detach().double().flatten(1).norm(dim=1)
    return found


def _estimate(kind: Kind, found: list[Tensor]) -> LowerEstimate:
    rows = torch.cat(found) if found else torch.empty(0)
    if not len(rows):
        raise InputError(f"curvature: there are no {kind} to measure; give at least one batch of different examples")
    return LowerEstimate(len(rows), kind, float(rows.mean()), float(rows.max()))
