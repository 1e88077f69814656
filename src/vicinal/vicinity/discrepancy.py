"""How far apart two sets of codes are, and two sets of images: maximum mean discrepancy, InfoVAE loss, PSNR."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from vicinal.errors import InputError, nearest
from vicinal.networks.mmd_vae import MMDVAE
from vicinal.settings import check
from vicinal.vicinity.adversary import full_precision

KernelName = Literal["imq", "rbf"]
EstimateName = Literal["unbiased", "biased"]

IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Multiples of the scale that the inverse multiquadratic kernel sums over, as libraries of autoencoders have them."""


def mmd2(
    q: Tensor,
    p: Tensor,
    *,
    kernel: KernelName = "imq",
    scale: float | None = None,
    estimate: EstimateName = "unbiased",
) -> Tensor:
    """The squared maximum mean discrepancy of two samples, a scalar with a graph.

    ::

        MMD^2 = E k(z, z') + E k(u, u') - 2 E k(z, u),     z, z' ~ q,  u, u' ~ p
        rbf:  k(u, v) = exp(-|u - v|^2 / s)
        imq:  k(u, v) = sum_t t s / (t s + |u - v|^2),     t in 0.1 ... 10

    The scale s has to be of the order of |u - v|^2, which is 2 d sigma^2 under the prior N(0, sigma^2). With s = d^2,
    as in a much-used script, the kernel is flat at d = 128: only the means are compared (MMD^2 -> 2 |difference|^2 / s)
    and codes that collapsed to a point cost less than the bias of the estimate.

    Args:
        q: codes (N, d).
        p: draws from the prior (M, d).
        kernel: inverse multiquadratic at several scales at once (their sum), or Gaussian.
        scale: s, in squared units of the codes, > 0; None for 2 d, which is right for the prior N(0, 1).
        estimate: "unbiased" leaves out the pairs of a draw with itself, so it may fall below 0; "biased" keeps them,
            is never below 0, and at q = p its mean is (1/N + 1/M) (k(0) - E k).

    Raises:
        InputError: shapes do not fit, too few rows, a scale that is not positive, or an unknown choice.

    Source: Gretton et al. 2012; as a divergence of codes, Zhao et al. 2019 (InfoVAE).

    >>> z = torch.tensor([[0.0], [1.0]])
    >>> mmd2(z, z, kernel="rbf", estimate="biased")
    tensor(0.)
    """
    for name, value, known in (("kernel", kernel, KernelName), ("estimate", estimate, EstimateName)):
        if value not in get_args(known):
            raise InputError(f"{name}: unknown {value!r}; {nearest(value, get_args(known))}")
    if q.dim() != 2 or p.dim() != 2 or q.shape[1] != p.shape[1]:
        raise InputError(f"mmd2: codes must be (N, d) and (M, d), got {tuple(q.shape)} and {tuple(p.shape)}")
    fewest = 2 if estimate == "unbiased" else 1
    if min(len(q), len(p)) < fewest:
        raise InputError(f"mmd2: the {estimate} estimate needs at least {fewest} rows each, got {len(q)} and {len(p)}")
    s = 2.0 * q.shape[1] if scale is None else scale
    check("scale", s, above=0)
    with torch.autocast(q.device.type, enabled=False):
        q = full_precision(q)
        p = p.to(q.dtype)
        centre = p.mean(dim=0)  # Only differences count, and they cancel less around the origin.
        q, p = q - centre, p - centre
        within = _within(q, kernel, s, estimate) + _within(p, kernel, s, estimate)
        return within - 2 * _kernel(_squared_distances(q, p), kernel, s).mean()


def _within(z: Tensor, kernel: KernelName, s: float, estimate: EstimateName) -> Tensor:
    """Mean of the kernel over the pairs of one sample."""
    values = _kernel(_squared_distances(z, z), kernel, s)
    if estimate == "biased":
        return values.mean()
    return (values.sum() - values.diagonal().sum()) / (len(z) * (len(z) - 1))


def _squared_distances(u: Tensor, v: Tensor) -> Tensor:
    """|u_i - v_j|^2, (N, M), without the (N, M, d) differences."""
    squares = u.square().sum(dim=1)[:, None] + v.square().sum(dim=1)
    return torch.addmm(squares, u, v.T, alpha=-2).clamp(min=0)


def _kernel(squared: Tensor, kernel: KernelName, s: float) -> Tensor:
    if kernel == "rbf":
        return (-squared / s).exp()
    return torch.stack([t * s / (t * s + squared) for t in IMQ_SCALES]).sum(dim=0)


def info_vae_loss(
    vae: MMDVAE,
    x: Tensor,
    generator: torch.Generator,
    *,
    kernel: KernelName = "imq",
    scale: float | None = None,
    estimate: EstimateName = "unbiased",
) -> dict[str, Tensor]:
    """The parts of the InfoVAE loss of one batch, unweighted scalars with a graph; `info_vae_weights` has the weights.

    With one code z_i ~ q(z|x_i) and one draw u_i ~ N(0, I) for each row::

        reconstruction = mean_i |G(z_i) - x_i|^2 / 2      (summed over values: -log p(x|z) at unit variance)
        mmd            = MMD^2({z_i}, {u_i})
        kl             = mean_i KL(q(z|x_i) || N(0, I))   (where the encoder is stochastic)

    Images are compared in pixels, vectors standardised. Because the error is summed and not averaged, the balance of
    reconstruction against the rest grows with the number of values of an example.

    Args:
        vae: the network, in training mode: its batch norms move.
        x: inputs (B, ...) in data space.
        generator: CPU generator of the codes' noise and of the prior's draws.
        kernel: of MMD^2.
        scale: of MMD^2.
        estimate: of MMD^2.

    Raises:
        InputError: as `mmd2`.

    Source: Zhao et al. 2019 (InfoVAE).
    """
    posterior = vae.posterior(x)
    z = posterior.sample(generator)
    u = torch.randn(z.shape, generator=generator).to(z.device, non_blocking=True)
    parts = {
        "reconstruction": 0.5 * full_precision(vae.residual(x, z)).flatten(1).square().sum(dim=1).mean(),
        "mmd": mmd2(z, u, kernel=kernel, scale=scale, estimate=estimate),
    }
    if posterior.log_variance is not None:
        mean, log_variance = full_precision(posterior.mean), full_precision(posterior.log_variance)
        parts["kl"] = 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(dim=1).mean()
    return parts


def info_vae_weights(a: float = 1.0, b: float = 1000.0) -> dict[str, float]:
    """Weights of the parts: L = reconstruction + (1 - a) kl + (a + b - 1) mmd.

    Args:
        a: 1 leaves the KL out (MMD-VAE); 0 keeps it whole.
        b: weight of MMD^2 at a = 1. VarMixup's could not be recovered: 1000 is our reading, for 32x32 colour images.

    >>> info_vae_weights(a=0.5, b=0.75)
    {'reconstruction': 1.0, 'kl': 0.5, 'mmd': 0.25}
    """
    return {"reconstruction": 1.0, "kl": 1.0 - a, "mmd": a + b - 1.0}


def psnr(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, -10 log10 of its mean squared error, in dB, (B,); equal images: inf.

    Args:
        x: images (B, ...) in [0,1].
        reconstruction: like ``x``.

    Raises:
        InputError: the shapes differ.

    >>> psnr(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.1))
    tensor([20.])
    """
    if x.shape != reconstruction.shape:
        raise InputError(f"psnr: images must have one shape, got {tuple(x.shape)} and {tuple(reconstruction.shape)}")
    return -10 * (full_precision(x) - full_precision(reconstruction)).square().flatten(1).mean(dim=1).log10()
