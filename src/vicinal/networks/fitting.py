"""Fitting the preprocessing layers, on clean (un-augmented) training images, in chunks and in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vicinal.data.types import Rows, as_float
from vicinal.errors import InputError, nearest
from vicinal.networks.preprocess import (
    MEAN_TEACHER_LENGTH,
    ZCA,
    Normalise,
    PerImage,
    PreprocessName,
    Stack,
    unfitted_preprocess,
)
from vicinal.settings import check

ZCAVariant = Literal["inside", "tempens", "ict", "vat", "mean_teacher"]

# Published regularisers; Mean Teacher's goes with images of length 55.
_DEFAULT_EPS = {"inside": 1e-5, "tempens": 1e-5, "ict": 1e-6, "vat": 1e-6, "mean_teacher": 0.1}
# Eigenvalues below this share of the largest are rounding noise of the data, not directions of it.
_RANK_TOLERANCE = 1e-12


@dataclass(frozen=True)
class _Moments:
    """Mean (D,) and covariance (D, D; divided by N) in float64, of ``count`` rows."""

    count: int
    mean: Tensor
    covariance: Tensor


def fit_normalise(x: Rows, *, chunk: int = 1024) -> Normalise:
    """Mean and standard deviation over the training inputs: per channel of images, per feature of vectors.

    A channel or feature that never varies is only centred.

    Args:
        x: clean training inputs, (N, C, H, W) uint8 or float in [0,1], or (N, D).
        chunk: rows read at a time.

    Raises:
        InputError: there are no inputs, or some are not finite.
    """
    count, total, square, shift, image = 0, None, None, None, False
    for rows in _chunks(x, chunk):
        image = rows.dim() == 4
        values = rows.transpose(0, 1).flatten(1) if image else rows.T
        shift = values.mean(dim=1) if shift is None else shift
        centred = values - shift[:, None]
        total = centred.sum(dim=1) + (0 if total is None else total)
        square = centred.square().sum(dim=1) + (0 if square is None else square)
        count += values.shape[1]
    if shift is None or total is None or square is None:
        raise InputError("normalise: no training inputs to fit on")
    variance = square / count - (total / count).square()
    _require_finite("normalise", variance)
    std = variance.clamp(min=0).sqrt()
    return Normalise(shift + total / count, torch.where(std > 1e-6, std, 1.0), image=image)


def fit_zca(x: Rows, *, variant: ZCAVariant = "inside", eps: float | None = None, chunk: int = 1024) -> nn.Module:
    """Whitening fitted on the training inputs; S are the eigenvalues of their covariance (divided by N).

    | variant | before | eigenvalues become | default eps |
    |---|---|---|---|
    | ``inside`` (ours) | nothing: [0,1] | (S + eps)^(-1/2) | 1e-5 |
    | ``tempens`` | pixel/255, which is [0,1] | (S + eps)^(-1/2) | 1e-5 |
    | ``ict`` (ICT, AdvMixup) | per-channel mean and std | S^(-1/2) + eps | 1e-6 |
    | ``vat`` (VAT, VAdD) | (pixel - 127.5)/255 | S^(-1/2) + eps | 1e-6 |
    | ``mean_teacher`` | each image to length 55 | (S + eps)^(-1/2) | 0.1 |

    Outside of the root the regulariser does nothing useful: it is offered because published epsilons live in the spaces
    that it makes. A direction without variance (up to rounding) is mapped to 0 there, where the published codes
    would blow up rounding noise. The official AdvMixup code fits on one augmented pass; here images are clean.

    Args:
        x: clean training inputs, (N, C, H, W) uint8 or float in [0,1], or (N, D).
        variant: which of the five.
        eps: the regulariser, in squared units of what is whitened inside the root, in inverse units outside.
        chunk: rows read at a time. Memory beside the inputs: some five D x D matrices in float64, 75 MB each for
            3x32x32.

    Returns:
        A `ZCA`; for ``ict`` and ``mean_teacher`` a `Stack` of what comes before and the `ZCA`.

    Raises:
        InputError: there are no inputs, some are not finite, none varies, or ``eps`` is negative.

    Source: the published codes of each method.
    """
    if variant not in _DEFAULT_EPS:
        raise InputError(f"zca: unknown variant {variant!r}; {nearest(variant, _DEFAULT_EPS)}")
    eps = _DEFAULT_EPS[variant] if eps is None else eps
    check("zca: eps", eps, low=0)
    before: nn.Module | None = None
    if variant == "mean_teacher":
        before = PerImage(length=MEAN_TEACHER_LENGTH)
    elif variant == "ict":
        before = fit_normalise(x, chunk=chunk)
    moments = _moments(x, chunk, before)
    zca = ZCA(moments.mean, _whitening(moments.covariance, eps, outside=variant in ("ict", "vat")))
    return zca if before is None else Stack(before, zca)


def fit_preprocess(name: PreprocessName, x: Rows) -> nn.Module:
    """A preprocessing layer by name, fitted on clean training inputs where it needs to be.

    Args:
        name: ``none``; ``normalise`` (per-channel mean and standard deviation); ``minus_one_to_one`` ((x - 0.5)/0.5,
            the SVHN of ICT and AdvMixup); ``per_image`` (mean 0, variance 1 for each image, the SVHN of temporal
            ensembling and Mean Teacher); ``zca`` (ours) and ``zca_tempens``, ``zca_ict``, ``zca_vat``,
            ``zca_mean_teacher`` (see `fit_zca`).
        x: clean training inputs, (N, C, H, W) uint8 or float in [0,1], or (N, D).

    Raises:
        InputError: the name is not known, or the inputs cannot be fitted on.
    """
    if not len(x):
        raise InputError("preprocess: no training inputs to fit on")
    if name == "normalise":
        return fit_normalise(x)
    if name in _VARIANTS:
        return fit_zca(x, variant=_VARIANTS[name])
    return unfitted_preprocess(name, tuple(x[torch.arange(1)].shape[1:]))


_VARIANTS: dict[str, ZCAVariant] = {
    "zca": "inside",
    "zca_tempens": "tempens",
    "zca_ict": "ict",
    "zca_vat": "vat",
    "zca_mean_teacher": "mean_teacher",
}


def _chunks(x: Rows, chunk: int) -> Iterator[Tensor]:
    """The inputs in order, as float64 on their own device."""
    for start in range(0, len(x), chunk):
        yield as_float(x[torch.arange(start, min(start + chunk, len(x)))]).double()


def _moments(x: Rows, chunk: int, before: Callable[[Tensor], Tensor] | None) -> _Moments:
    """One pass over the inputs, around the mean of the first chunk so that nothing cancels."""
    count, shift, total, square = 0, None, None, None
    for rows in _chunks(x, chunk):
        rows = (rows if before is None else before(rows)).flatten(1)
        if shift is None or total is None or square is None:
            shift = rows.mean(dim=0)
            total, square = torch.zeros_like(shift), shift.new_zeros(len(shift), len(shift))
        rows = rows - shift
        count += len(rows)
        total += rows.sum(dim=0)
        square.addmm_(rows.T, rows)
    if shift is None or total is None or square is None:
        raise InputError("zca: no training inputs to fit on")
    _require_finite("zca", total)
    offset = total / count
    return _Moments(count, shift + offset, square.div_(count).sub_(torch.outer(offset, offset)))


def _whitening(covariance: Tensor, eps: float, *, outside: bool) -> Tensor:
    """U f(S) U^T for the covariance U S U^T, float64 (D, D)."""
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=0)
    if not float(values[-1]) > 0:
        raise InputError("zca: the training inputs do not vary, so there is nothing to whiten")
    kept = values > _RANK_TOLERANCE * values[-1]
    if outside:
        factors = torch.where(kept, values, 1).rsqrt().add(eps) * kept
    else:
        factors = (values + eps).rsqrt() if eps > 0 else torch.where(kept, values, 1).rsqrt() * kept
    whitening: Tensor = (vectors * factors) @ vectors.T
    return whitening


def _require_finite(where: str, values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise InputError(f"{where}: the training inputs hold values that are not finite")
