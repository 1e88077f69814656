"""Neighbours in the latent space of an autoencoder: mixed codes (VarMixup), and adversarial ones.

With the encoder's mean mu and the decoder G, a pair (i, j) has the neighbours::

    latent_mix     G(lam mu_i + (1 - lam) mu_j)                        (the paper's rule, as we read it)
    mixup_r        lam G(mu_i) + (1 - lam) G(mu_j)                     (Mixup-R: reconstructions, without a latent path)
    endpoint_mix   lam x_i + (1 - lam) x_j + latent_mix - mixup_r      (ours)

The first two are equal where G is affine, so a gain of the first over the second comes from the curvature of G. Neither
ever gives a real image: at lam = 1 both give the reconstruction G(mu_i). The third gives x_i there, and input mixup
where G is affine.

The autoencoder runs in eval mode and without a graph, and nothing of it changes: `mix` labels with the same `Mixing`.

Source: VarMixup (arXiv:2003.06566). Its text could not be recovered beyond the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vicinal.errors import InputError
from vicinal.networks import EVAL, Autoencoder, applied
from vicinal.vicinity.adversary import full_precision
from vicinal.vicinity.interpolation import Mixing, mix
from vicinal.vicinity.projected import check_bounds, projected_ascent, random_start

Bounds = tuple[float, float]


def codes(autoencoder: Autoencoder, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Codes (B, d_z) of inputs (B, ...) in data space, detached.

    Args:
        autoencoder: as in eval mode, whatever its flags.
        x: inputs.
        generator: None for the means mu(x), or a CPU generator for a draw from q(z|x).

    Raises:
        InputError: a draw from an autoencoder that has no posterior.
    """
    with _frozen(autoencoder):
        if generator is None:
            return autoencoder.encode(x)
        posterior = getattr(autoencoder, "posterior", None)
        if posterior is None:
            raise InputError(f"latent: {type(autoencoder).__name__} has no posterior to draw from; take the means")
        drawn: Tensor = posterior(x).sample(generator)
        return drawn


def decoded(autoencoder: Autoencoder, z: Tensor, bounds: Bounds | None = None) -> Tensor:
    """Data (B, ...) of codes (B, d_z), clipped to ``bounds`` if there are any, detached."""
    with _frozen(autoencoder):
        return _clipped(autoencoder.decode(z), bounds)


def latent_mix(
    autoencoder: Autoencoder,
    x: Tensor,
    mixing: Mixing,
    *,
    bounds: Bounds | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """VarMixup's neighbours G(lam z_i + (1 - lam) z_j), like ``x``, detached; one encoder and one decoder pass.

    Args:
        autoencoder: trained.
        x: inputs (B, ...) in data space, not normalised.
        mixing: coefficients and partners; the labels' too.
        bounds: smallest and largest value of the data, or None.
        generator: None for mean codes, or a CPU generator for draws from q(z|x).

    Raises:
        InputError: a draw from an autoencoder that has no posterior.
    """
    z = codes(autoencoder, x, generator)
    return decoded(autoencoder, mix(z, z[mixing.partner], mixing.lam), bounds)


def mixup_r(
    autoencoder: Autoencoder,
    x: Tensor,
    mixing: Mixing,
    *,
    bounds: Bounds | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mixed reconstructions lam G(z_i) + (1 - lam) G(z_j); arguments and passes as for `latent_mix`."""
    made = decoded(autoencoder, codes(autoencoder, x, generator))
    # Clipped after mixing, so that an affine G makes this equal to `latent_mix` with bounds too.
    return _clipped(mix(made, made[mixing.partner], mixing.lam), bounds)


def endpoint_mix(
    autoencoder: Autoencoder,
    x: Tensor,
    mixing: Mixing,
    *,
    bounds: Bounds | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Input mixup plus what the curvature of G adds to it; x_i at lam = 1 and x_j at lam = 0, bit for bit.

    Arguments as for `latent_mix`; one encoder and two decoder passes.
    """
    x = x.detach()
    z = codes(autoencoder, x, generator)
    made = decoded(autoencoder, z)
    mixed = mix(x, x[mixing.partner], mixing.lam)
    bent = decoded(autoencoder, mix(z, z[mixing.partner], mixing.lam))
    moved = mixed + (bent - mix(made, made[mixing.partner], mixing.lam))
    # A row's result may depend in the last bit on where in the batch it stands, and at the ends nothing may be left.
    end = ((mixing.lam == 0) | (mixing.lam == 1)).view(-1, *[1] * (x.dim() - 1))
    return _clipped(torch.where(end, mixed, moved), bounds)


def latent_adversary(
    objective: Callable[[Tensor], Tensor],
    decode: Callable[[Tensor], Tensor],
    z: Tensor,
    *,
    epsilon: float,
    step_size: float,
    steps: int,
    generator: torch.Generator,
    box: Bounds | None = None,
) -> Tensor:
    """Codes z + zeta, |zeta|_inf <= epsilon, that make objective(decode(z + zeta)) large.

    Signed gradient ascent from a random start in the cube; the best of all points visited and of zeta = 0 is kept, so
    the objective never falls. Passes: ``steps`` forward and backward, and two forward. One step's ascent is the
    single-step attack. The paper's own construction of its adversarial variant could not be recovered; this is our
    reading, after on-manifold adversarial training (Stutz et al. 2019), which has no mixing, the radius 0.3 and the box
    (-2, 2).

    Args:
        objective: maps data (B, ...) to one number per sample (B,), with a graph: the loss of the classifier.
        decode: the decoder of a frozen autoencoder in eval mode, with a graph.
        z: codes (B, d_z).
        epsilon: radius, in units of the codes, >= 0.
        step_size: length of a step in each coordinate, > 0.
        steps: number of steps, >= 0.
        generator: CPU generator of the start.
        box: None, or bounds (low, high) of z + zeta in every coordinate. Codes outside of it are first brought to its
            border, and the cube lies around that.

    Returns:
        Codes (B, d_z), detached. Parameters and their ``.grad`` are left alone; pass policies are the caller's.

    Raises:
        InputError: an argument is out of range, or no gradient reaches the codes.
    """
    check_bounds(box)
    z = _clipped(full_precision(z.detach()), box)
    highest = torch.full((len(z),), -torch.inf, dtype=torch.float64, device=z.device)

    def value(point: Tensor) -> Tensor:
        nonlocal highest
        values = objective(decode(point))
        highest = torch.fmax(highest, values.detach().double())
        return values

    found = projected_ascent(
        value,
        z,
        norm="linf",
        epsilon=epsilon,
        step_size=step_size,
        steps=steps,
        start=random_start(z, "linf", epsilon, generator),
        bounds=box,
        keep_best=True,
    )
    if epsilon == 0:
        return found
    with torch.no_grad():
        unmoved = objective(decode(z)).double()
    return torch.where((highest > unmoved)[:, None], found, z)


@contextmanager
def _frozen(autoencoder: Autoencoder) -> Iterator[None]:
    with torch.no_grad(), applied(autoencoder, EVAL):
        yield


def _clipped(x: Tensor, bounds: Bounds | None) -> Tensor:
    return x if bounds is None else x.clamp(*bounds)
