"""Adversarial Lipschitz regularisation: a penalty on the slope of a network, found sample by sample.

The Lipschitz constant is the supremum of d_Y(f(x), f(x')) / d_X(x, x'). It is approached at each sample by an
adversarial x' = x + r and the quotient there is penalised. Mixing controls how the slope *changes* along chords
between examples: every affine f has no mixing residual, however steep it is. This is the term that sees the steepness.

The pieces work on callables: `adversarial_neighbour` finds r, the caller runs its passes, `lipschitz_penalty` turns
their logits into a loss. Which batch statistics and dropout masks a pass uses is the caller's affair, so nothing here
touches parameters, their ``.grad``, buffers or flags.

Sources: adversarial Lipschitz regularisation (arXiv:1907.05681) for definition and search, Mixup-LR (arXiv:2009.11416)
for the pair L2 and KL. What their texts leave open, or could not be recovered, is our reading of the official code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args, get_origin, get_type_hints

import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.errors import InputError, nearest
from vicinal.settings import check
from vicinal.vicinity.adversary import full_precision, random_direction, unit

InputMetric = Literal["l2", "one"]
OutputMetric = Literal["kl", "sqrt_2kl", "l2_logits", "l2_probs", "abs"]


@dataclass(frozen=True, kw_only=True)
class LipschitzSettings:
    """How the quotient is searched and penalised: as in Mixup-LR's official code, but for ``clip`` and ``fallback``.

    Args:
        d_x: distance of inputs: "l2", or "one" (constant 1: with ``d_y`` "kl", ``K`` 0 and ``power`` 1 that is VAT).
        d_y: distance of outputs, see `output_distance`. KL is no metric: for a small step KL / ||r|| falls to 0 with
            ||r||, so ``K`` has no scale of its own there. "sqrt_2kl" has the local Lipschitz constant as its limit.
        K: slope that is free of charge, >= 0, in units of ``d_y`` per unit of ``d_x``.
        power: exponent of the excess, 1 (as published for semi-supervised learning) or more (2: for critics).
        sides: "one": only slopes above ``K`` cost; "two": those below as well.
        xi: length of the probing step, > 0. The published 10 is no small step: as long as the longest r. What it finds
            is a good direction at that distance and not a Hessian's eigenvector; for that, take 1e-2.
        iterations: steps of the search, >= 0; 0 keeps the random start.
        epsilon_min: smallest length of r, >= 0.
        epsilon_max: largest; the length is uniform between the two, for each sample.
        clip: None, or bounds (low, high) to which probed inputs are clamped. The official code's (-1, 1) fits inputs
            that lie there. It moves standardised ones themselves, and r is exactly 0 where they lie far outside.
        clip_result: whether x + r is clamped as well (official code for critics); r is then what is left of it.
        detach_clean: whether the clean output is a constant. True is consistency with a fixed target (official
            code of both, semi-supervised), False the gradient of the quotient itself (official code for critics).
        direction: distribution of the random start before it is normalised: "uniform" in a cube (official code; it
            prefers the cube's diagonals) or "gaussian" (no direction preferred).
        fallback: what becomes of a sample without a usable gradient: "epsilon" keeps its last direction (the random
            start, if there never was a gradient) at its drawn length; "unit" is the official code's: a fresh
            direction of length 1 where the length of r lies outside [epsilon_min, epsilon_max], which by rounding
            also befalls good ones if the two are equal.

    Raises:
        InputError: a number out of its range, or a choice that does not exist.
    """

    d_x: InputMetric = "l2"
    d_y: OutputMetric = "kl"
    K: float = 0.0
    power: int = 1
    sides: Literal["one", "two"] = "one"
    xi: float = 10.0
    iterations: int = 2
    epsilon_min: float = 0.1
    epsilon_max: float = 10.0
    clip: tuple[float, float] | None = None
    clip_result: bool = False
    detach_clean: bool = True
    direction: Literal["uniform", "gaussian"] = "uniform"
    fallback: Literal["epsilon", "unit"] = "epsilon"

    def __post_init__(self) -> None:
        for name, annotation in get_type_hints(type(self)).items():
            if get_origin(annotation) is Literal and getattr(self, name) not in get_args(annotation):
                given = getattr(self, name)
                raise InputError(f"{name}: unknown choice {given!r}; {nearest(str(given), get_args(annotation))}")
        check("K", self.K, low=0)
        check("power", self.power, low=1)
        check("xi", self.xi, above=0)
        check("iterations", self.iterations, low=0)
        check("epsilon_min", self.epsilon_min, low=0)
        check("epsilon_max", self.epsilon_max, low=self.epsilon_min, above=0)
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise InputError(f"clip: expected (low, high) with low < high, got {self.clip}")
        if self.clip_result and self.clip is None:
            raise InputError("clip_result: there is nothing to clip to; give clip=(low, high)")


class Neighbour(NamedTuple):
    """Adversarial steps; the neighbour is x + r.

    Attributes:
        r: (B, ...), at least float32, detached, finite.
        epsilon: lengths that were drawn, (B,), like ``r``; those of r unless ``clip_result`` or ``fallback`` change it.
    """

    r: Tensor
    epsilon: Tensor


class Penalty(NamedTuple):
    """The penalty of each sample.

    Attributes:
        value: (B,), with a graph; 0 without gradient where the quotient is not finite.
        quotient: d_Y / d_X, (B,), detached; NaN or infinite where the sample was excluded.
    """

    value: Tensor
    quotient: Tensor

    def mean(self) -> Tensor:
        """Mean of the values over the samples that were not excluded; 0 if all were."""
        return self.value.sum() / self.quotient.isfinite().sum().clamp(min=1)

    def excluded(self) -> Tensor:
        """How many samples were excluded, an integer scalar."""
        return (~self.quotient.isfinite()).sum()


def output_distance(name: OutputMetric, clean_logits: Tensor, moved_logits: Tensor) -> Tensor:
    """d_Y between two outputs, (B,), at least float32, differentiable in both; at distance 0 the gradient is 0.

    KL comes from log-softmaxes. From probabilities it is infinite without a gradient once one of them underflows, so
    that the worst offenders would not be trained.

    Args:
        name: "kl": KL(p || q) of the softmaxes p (clean) and q (moved); "sqrt_2kl": sqrt(2 KL(p || q)), locally the
            Fisher metric's distance; "l2_logits", "l2_probs": L2 norm of the difference of logits or of softmaxes;
            "abs": absolute difference of a scalar output.
        clean_logits: f(x), (B, C); (B,) or (B, 1) for "abs".
        moved_logits: f(x + r), likewise.

    Raises:
        InputError: unknown name, different shapes, or a number of classes that the distance has no meaning for.

    >>> output_distance("kl", torch.zeros(1, 2), torch.tensor([[0.0, 120.0]]))
    tensor([59.3069])
    """
    potential = _potential(name, clean_logits, moved_logits)
    return potential if name == "kl" else _root(2 * potential)


def adversarial_neighbour(
    logits_of: Callable[[Tensor], Tensor],
    x: Tensor,
    settings: LipschitzSettings,
    generator: torch.Generator,
    *,
    clean_logits: Tensor | None = None,
) -> Neighbour:
    """The adversarial direction search: r_i = epsilon_i d_i, with d_i found by ``iterations`` normalised gradients.

    ::

        d <- unit(random);  repeat:  d <- unit( grad_d d_Y(f(x), f(clip(x + xi d))) )
        epsilon_i ~ U(epsilon_min, epsilon_max)

    An iteration is one forward pass and one backward pass to the inputs alone, outside of autocast.

    Args:
        logits_of: maps inputs (B, ...) to logits (B, C), with a graph. Its pass policy should leave buffers alone and
            give the same dropout masks in each call, else r answers to the difference of the masks.
        x: inputs (B, ...) of any shape.
        settings: of the search.
        generator: CPU generator of all draws.
        clean_logits: logits_of(x), if the caller has them, from the same masks (for a small ``xi``, in the same
            precision too); else one more pass without a graph.

    Returns:
        The steps. A sample's step depends on other samples only as far as its logits do (batch statistics).

    Raises:
        InputError: inputs without an axis besides the batch's, or logits that ``d_y`` has no meaning for.

    Source: the official code; without its clamp and with its fallback mended, unless asked for.
    """
    if x.dim() < 2:
        raise InputError(f"adversarial_neighbour: expected inputs (B, ...), got shape {tuple(x.shape)}; add an axis")
    x = full_precision(x.detach())
    d = _random(settings.direction, x, generator)
    with torch.autocast(x.device.type, enabled=False):
        if settings.iterations and clean_logits is None:
            with torch.no_grad():
                clean_logits = logits_of(x)
        for _ in range(settings.iterations):
            assert clean_logits is not None
            probe = d.requires_grad_()
            with torch.enable_grad():
                moved = logits_of(_clipped(x + settings.xi * probe, settings.clip))
                total = _potential(settings.d_y, clean_logits.detach(), moved).sum()
            (gradient,) = torch.autograd.grad(total, probe)
            d = unit(gradient, fallback=probe.detach() if settings.fallback == "epsilon" else None)
    # Clamped, for rounding can leave the interval.
    drawn = torch.rand(len(x), generator=generator).to(x.device, x.dtype, non_blocking=True)
    low, high = settings.epsilon_min, settings.epsilon_max
    epsilon = (low + (high - low) * drawn).clamp(low, high)
    r = epsilon.view(-1, *[1] * (x.dim() - 1)) * d
    if settings.fallback == "unit":
        length = r.flatten(1).norm(dim=1)
        outside = ((length < low) | (length > high)).view(-1, *[1] * (x.dim() - 1))
        r = torch.where(outside, _random(settings.direction, x, generator), r)
    if settings.clip_result:
        # An input that is not finite has no neighbour in the range; its r stays.
        r = torch.where(x.isfinite(), _clipped(x + r, settings.clip) - x, r)
    return Neighbour(r, epsilon)


def lipschitz_penalty(clean_logits: Tensor, moved_logits: Tensor, r: Tensor, settings: LipschitzSettings) -> Penalty:
    """The penalty max(q - K, 0)^power of the quotient q = d_Y(f(x), f(x + r)) / d_X(x, x + r).

    If two-sided, the absolute value of q - K takes the hinge's place. A sample whose quotient is not finite (logits
    that are not, or r = 0) costs nothing, sends no gradient back and is left out of the mean; the official code
    averages over it.

    Args:
        clean_logits: f(x), (B, C), with a graph if the gradient is to go through it.
        moved_logits: f(x + r), (B, C), with a graph.
        r: (B, ...), a constant.
        settings: of distances, hinge and clean branch.

    Raises:
        InputError: logits that ``d_y`` has no meaning for.

    >>> steep = lipschitz_penalty(torch.zeros(1, 1), torch.full((1, 1), 6.0), torch.tensor([[0.0, 2.0]]),
    ...                           LipschitzSettings(d_y="abs", K=1.0, power=2))
    >>> steep.value, steep.quotient
    (tensor([4.]), tensor([3.]))
    """
    if settings.detach_clean:
        clean_logits = clean_logits.detach()
    length = full_precision(r.detach()).flatten(1).norm(dim=1) if settings.d_x == "l2" else 1.0
    with torch.no_grad():
        quotient = output_distance(settings.d_y, clean_logits, moved_logits) / length
    # Computed again from harmless rows in place of those: masked afterwards, they would still send back 0 * inf = NaN.
    usable = quotient.isfinite()
    rows = usable.view(-1, *[1] * (moved_logits.dim() - 1))
    distance = output_distance(settings.d_y, clean_logits.where(rows, 0), moved_logits.where(rows, 0))
    excess = distance / torch.where(usable, length, 1) - settings.K
    # relu and not clamp, whose gradient is 1 at equality.
    excess = excess.abs() if settings.sides == "two" else F.relu(excess)
    return Penalty(torch.where(usable, excess**settings.power, 0), quotient)


def _potential(name: OutputMetric, clean_logits: Tensor, moved_logits: Tensor) -> Tensor:
    """KL, or half the squared distance: the search climbs it, as a root changes no direction but is not smooth at 0."""
    if name not in get_args(OutputMetric):
        raise InputError(f"d_y: unknown distance {name!r}; {nearest(str(name), get_args(OutputMetric))}")
    if clean_logits.shape != moved_logits.shape or clean_logits.dim() not in (1, 2):
        shapes = f"{tuple(clean_logits.shape)} and {tuple(moved_logits.shape)}"
        raise InputError(f"output_distance: expected logits (B, C) and (B, C), got {shapes}")
    clean, moved = (full_precision(logits).unsqueeze(-1).flatten(1) for logits in (clean_logits, moved_logits))
    if name == "abs" and clean.shape[1] != 1:
        raise InputError(f"d_y: 'abs' is for one output per sample, got {clean.shape[1]}; take 'l2_logits'")
    if name in ("kl", "sqrt_2kl", "l2_probs") and clean.shape[1] < 2:
        raise InputError(f"d_y: the softmax of one output is always 1, so {name!r} is always 0; take 'abs'")
    if name in ("kl", "sqrt_2kl"):
        return _kl(F.log_softmax(clean, dim=1), F.log_softmax(moved, dim=1))
    if name == "l2_probs":
        clean, moved = clean.softmax(dim=1), moved.softmax(dim=1)
    return 0.5 * (moved - clean).square().sum(dim=1)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q), (B,), from log-probabilities (B, C).

    The terms are p (e^g - 1 - g), g = log q - log p, as sum_c q_c - p_c = 0 may be added: none is negative, and a KL
    far below the rounding of float32 keeps its digits, which `sqrt_2kl` of a small step depends on.
    """
    p, gap = log_p.exp(), log_q - log_p
    small = gap.clamp(max=1)  # e^g overflows where p has underflowed
    return torch.where(gap < 1, p * (torch.expm1(small) - small), log_q.exp() - p - p * gap).sum(dim=1)


def _root(squared: Tensor) -> Tensor:
    """The square root, with gradient 0 at 0; NaN stays NaN."""
    zero = squared <= 0
    return torch.where(zero, 0, torch.where(zero, 1, squared).sqrt())


def _random(name: Literal["uniform", "gaussian"], x: Tensor, generator: torch.Generator) -> Tensor:
    """Random directions of norm 1, shaped and typed like ``x``, from a CPU generator."""
    if name == "gaussian":
        return random_direction(x, generator)
    cube = torch.rand(x.shape, generator=generator) - 0.5
    return unit(cube.to(x.device, x.dtype, non_blocking=True))


def _clipped(x: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    return x if bounds is None else x.clamp(*bounds)
