"""Smoothness: how far the loss is from linear around inputs, and how steep the network is there.

All figures come from searches, so they are lower estimates of what they estimate, and hold for the set that they ran
over: compare figures of the same examples, input scaling and settings only. Networks run in eval mode; parameters,
``.grad``, flags and buffers stay as they were. For differences below the rounding of float32, give float64 networks
and inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.networks import EVAL, applied
from vicinal.randomness import generator
from vicinal.settings import check
from vicinal.vicinity import full_precision, random_direction, unit
from vicinal.vicinity.lipschitz import LipschitzSettings, OutputMetric, adversarial_neighbour, output_distance
from vicinal.vicinity.projected import input_gradient, projected_ascent, random_start


@dataclass(frozen=True)
class LocalLinearity:
    """How far a loss is from linear within Linf balls.

    Args:
        n: number of examples.
        epsilon: radius of the balls, in units of the inputs.
        gamma: mean over examples of max |l(x + delta) - l(x) - delta^T grad l(x)|, in nats.
        slope: mean over examples of epsilon ||grad l(x)||_1, the most that the linear part changes, in nats. A network
            that is flat everywhere has a small gamma for that reason alone: read both.
    """

    n: int
    epsilon: float
    gamma: float
    slope: float


@dataclass(frozen=True)
class Steepness:
    """Local estimates of a Lipschitz constant.

    Args:
        n: number of examples.
        mean: over the examples.
        largest: of the examples, the lower estimate of the constant itself.
    """

    n: int
    mean: float
    largest: float


def local_linearity(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    epsilons: Sequence[float],
    steps: int = 20,
    starts: int = 3,
    seed: int,
) -> tuple[LocalLinearity, ...]:
    """The local linearity error gamma of the cross-entropy, by signed gradient ascent from random starts.

    Steps are 2.5 epsilon / steps long, and the best visited point of all starts counts. The gradient of what is
    maximised is zero at the input itself, so an ascent from there would never move. Starts come in opposite pairs (our
    choice): along a straight path the two ends are different maxima, and one start sees one of them.

    Args:
        network: from inputs in data space to logits (B, C).
        batches: inputs and true classes, int64 (B,).
        epsilons: radii, >= 0, in units of the inputs. The balls are not clipped to bounds of the data.
        steps: of each ascent, >= 1.
        starts: number of starts, >= 1.
        seed: of the starts.

    Returns:
        One result per radius, in their order.

    Raises:
        InputError: an argument is out of range, or there are no examples.

    Source: Qin et al. 2019 (local linearity regularisation) for gamma.
    """
    check("steps", steps, low=1)
    check("starts", starts, low=1)
    for epsilon in epsilons:
        check("epsilons", epsilon, low=0)
    found = []
    with applied(network, EVAL):
        for index, (x, y) in enumerate(batches):
            x = full_precision(x.detach())
            units = _start_pairs(x, starts, seed, index)
            found.append(_gammas(network, x, y, epsilons, steps, units).cpu())
    rows = _joined(found)
    gamma, norm = rows[:, :-1].mean(dim=0).tolist(), float(rows[:, -1].mean())
    return tuple(
        LocalLinearity(len(rows), epsilon, error, epsilon * norm)
        for epsilon, error in zip(epsilons, gamma, strict=True)
    )


def lipschitz_quotients(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    d_y: OutputMetric = "l2_logits",
    epsilon: float,
    iterations: int = 5,
    seed: int,
) -> Steepness:
    """Quotients d_y(f(x), f(x + r)) / ||r||_2 at adversarial r of length epsilon.

    The direction is searched at the distance at which the quotient is taken, from one random start.

    Args:
        network: from inputs in data space to logits (B, C).
        batches: inputs and classes, which are not used.
        d_y: distance of outputs, see `vicinal.vicinity.lipschitz.output_distance`. "kl" is no metric: its quotient
            vanishes with epsilon and compares only at the same one.
        epsilon: length of r, > 0, in units of the inputs.
        iterations: gradients of the search, >= 0; 0 measures random directions.
        seed: of the random start.

    Raises:
        InputError: an argument is out of range, or there are no examples.

    Source: the quotient of adversarial Lipschitz regularisation (arXiv:1907.05681).
    """
    check("epsilon", epsilon, above=0)
    settings = LipschitzSettings(
        d_y=d_y, xi=epsilon, iterations=iterations, epsilon_min=epsilon, epsilon_max=epsilon, direction="gaussian"
    )
    found = []
    with torch.no_grad(), applied(network, EVAL):
        for index, (x, _) in enumerate(batches):
            x = full_precision(x)
            clean = network(x)
            draws = generator(seed, "lipschitz quotients", index)
            r, _ = adversarial_neighbour(network, x, settings, draws, clean_logits=clean)
            moved = x + r
            # The step that was made, after rounding.
            length = (moved - x).double().flatten(1).norm(dim=1)
            found.append((output_distance(d_y, clean.double(), network(moved).double()) / length).cpu())
    return _steepness(found)


def jacobian_norm(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    iterations: int = 20,
    starts: int = 2,
    seed: int,
) -> Steepness:
    """Spectral norm of the Jacobian of the logits by the input, ||J(x)||_2, by power iteration on J^T J.

    Each iteration is one pass with a tangent (J d) and one backward pass (J^T J d); J itself is never formed.

    Args:
        network: from inputs in data space to logits (B, C), of layers that know forward-mode differentiation.
        batches: inputs and classes, which are not used.
        iterations: power steps, >= 1.
        starts: random starts, >= 1; the largest estimate of each example counts.
        seed: of the starts.

    Raises:
        InputError: an argument is out of range, there are no examples, or a layer does not know forward mode.
    """
    check("iterations", iterations, low=1)
    check("starts", starts, low=1)
    found = []
    with applied(network, EVAL):
        for index, (x, _) in enumerate(batches):
            x = full_precision(x.detach())
            draws = (generator(seed, "jacobian norm", index, start) for start in range(starts))
            norms = [_spectral_norm(network, x, iterations, random_direction(x, draw)) for draw in draws]
            found.append(torch.stack(norms).amax(dim=0).cpu())
    return _steepness(found)


def _start_pairs(x: Tensor, starts: int, seed: int, batch: int) -> list[Tensor]:
    """Random perturbations u in the unit cube: u, -u, another u, ..."""
    drawn = [
        random_start(x, "linf", 1.0, generator(seed, "local linearity", pair, batch)) for pair in range(-(-starts // 2))
    ]
    return [sign * u for u in drawn for sign in (1, -1)][:starts]


def _gammas(
    network: nn.Module, x: Tensor, y: Tensor, epsilons: Sequence[float], steps: int, units: Sequence[Tensor]
) -> Tensor:
    """Gamma for each radius, and the L1 norm of the gradient in the last column: float64 (B, radii + 1)."""

    def loss(at: Tensor) -> Tensor:
        # Differences of losses in float64: what they lose in float32 can be as large as gamma.
        return F.cross_entropy(network(at).double(), y, reduction="none")

    with torch.enable_grad():
        at = x.clone().requires_grad_()
        values = loss(at)
    gradient, clean = input_gradient(values, at).double().flatten(1), values.detach()

    def error(at: Tensor) -> Tensor:
        return (loss(at) - clean - ((at - x).double().flatten(1) * gradient).sum(dim=1)).abs()

    columns = []
    for epsilon in epsilons:
        gamma = torch.zeros_like(clean)
        for start in units:
            worst = projected_ascent(
                error,
                x,
                norm="linf",
                epsilon=epsilon,
                step_size=2.5 * epsilon / steps,
                steps=steps,
                start=epsilon * start,
                keep_best=True,
            )
            with torch.no_grad():
                gamma = torch.maximum(gamma, error(worst))
        columns.append(gamma)
    return torch.stack([*columns, gradient.abs().sum(dim=1)], dim=1)


def _spectral_norm(network: nn.Module, x: Tensor, iterations: int, d: Tensor) -> Tensor:
    """Lower estimates of ||J(x)||_2 from the unit directions d, float64 (B,)."""
    estimate = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for _ in range(iterations):
        base = x.clone().requires_grad_()
        try:
            with torch.enable_grad(), forward_ad.dual_level():
                logits, moved = forward_ad.unpack_dual(network(forward_ad.make_dual(base, d)))
        except NotImplementedError as error:
            raise InputError("a layer of the network does not know forward-mode differentiation") from error
        # Behind the level, where tangents are gone: inside, the backward pass would carry them too, which costs time
        # and which some layers (SiLU) do not know. The unit vector along J d, so that the length of J^T of it is the
        # estimate, without squares.
        (gradient,) = torch.autograd.grad(logits, base, unit(moved.detach()))
        estimate = gradient.double().flatten(1).norm(dim=1)
        d = unit(gradient, fallback=d)
    return estimate


def _joined(found: list[Tensor]) -> Tensor:
    if not sum(map(len, found)):
        raise InputError("smoothness: there are no examples to measure; give at least one batch")
    return torch.cat(found)


def _steepness(found: list[Tensor]) -> Steepness:
    rows = _joined(found)
    return Steepness(len(rows), float(rows.mean()), float(rows.max()))
