"""Temperature scaling: logits divided by one number, chosen on validation data, so that confidences fit accuracy.

Report figures before and after: networks trained with mixing are often under-confident, and a comparison after scaling
tells another story than one before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.evaluation.calibration import BINS, CalibrationFigures, CalibrationStudy
from vicinal.networks import EVAL, applied
from vicinal.settings import check

Batches = Iterable[tuple[Tensor, Tensor]]

BOUNDS = (0.1, 10.0)
"""Smallest and largest temperature that is looked for (our choice)."""


@dataclass(frozen=True)
class Temperature:
    """A temperature and what it did to the examples that it was chosen on.

    Args:
        value: T > 0; greater than 1 makes confidences smaller.
        n: number of examples that it was chosen on.
        nll_before: their mean negative log-likelihood with T = 1, in nats.
        nll_after: the same with this T; never greater.
    """

    value: float
    n: int
    nll_before: float
    nll_after: float


@dataclass(frozen=True)
class TemperatureScaling:
    """Calibration of a test set before and after temperature scaling; the error is the same.

    Args:
        temperature: what was chosen, on other examples.
        before: figures with T = 1.
        after: figures with the chosen temperature.
    """

    temperature: Temperature
    before: CalibrationFigures
    after: CalibrationFigures


class Tempered(nn.Module):
    """A network whose logits are divided by a temperature.

    The quotients are float64: in float32 two logits next to each other can become equal, and the prediction another.

    Args:
        network: from inputs to logits (B, C).
        temperature: T > 0.

    Raises:
        InputError: a temperature that is not positive.
    """

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        check("temperature", temperature, above=0)
        self.network, self.temperature = network, temperature

    def forward(self, x: Tensor) -> Tensor:
        """Logits / T, float64 (B, C)."""
        return cast(Tensor, self.network(x)).double() / self.temperature


def fit_temperature(logits: Tensor, y: Tensor, *, bounds: tuple[float, float] = BOUNDS) -> Temperature:
    """The temperature T that makes the negative log-likelihood of softmax(logits / T) smallest.

    The search is over 1/T, in which the likelihood is concave, by LBFGS with a line search, in float64; a result out
    of bounds is moved to the nearest of them, which is the best within them. Should the search fail, T = 1 is kept, so
    that the likelihood of these examples never falls. Predictions never change, as T > 0.

    Args:
        logits: of validation examples (N, C), finite. Not of the training set, on which confidences are too high, nor
            of the test set.
        y: their classes, int64 (N,).
        bounds: smallest and largest T, 0 < low <= 1 <= high. Where every validation example is classified correctly,
            the likelihood has no maximum and the lower bound is the result; where predictions are no better than
            chance, it is the upper one.

    Raises:
        InputError: no examples, logits that are not finite, other shapes, or bounds that are none.

    Source: Guo et al. 2017. The code published with the method searches over T from 1.5, by 200 iterations of LBFGS at
    rate 0.01; ours is the same minimum where that has converged.

    >>> found = fit_temperature(torch.tensor([[3.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1]))
    >>> round(found.value, 4)  # 3 / log 3, where the confidence is the accuracy, 3/4
    2.7307
    """
    low, high = bounds
    if not 0 < low <= 1 <= high < math.inf:
        raise InputError(f"temperature: bounds must be 0 < low <= 1 <= high, got {bounds}")
    if logits.ndim != 2 or y.shape != logits.shape[:1]:
        raise InputError(
            f"temperature: expected logits (N, C) and classes (N,), got {tuple(logits.shape)} and {tuple(y.shape)}"
        )
    if not len(y):
        raise InputError("temperature: there are no examples to choose it on; give a validation set")
    logits = logits.detach().double()
    if not bool(logits.isfinite().all()):
        raise InputError("temperature: some logits are not finite; look for a network that diverged")
    before = _nll(logits, y, 1.0)
    value = min(max(_search(logits, y), low), high)
    after = _nll(logits, y, value)
    if not after < before:  # not a number, too
        value, after = 1.0, before
    return Temperature(value, len(y), before, after)


def temperature_scaling(
    network: nn.Module, validation: Batches, test: Batches, *, bins: int = BINS, bounds: tuple[float, float] = BOUNDS
) -> TemperatureScaling:
    """Choose a temperature on one set, and measure calibration on another before and after, in one pass over each.

    Eval mode; flags and buffers are left as they were. The logits of the validation set are kept in memory, those of
    the test set are not.

    Args:
        network: from inputs in data space to logits (B, C).
        validation: inputs and classes, int64 (B,), that the network was not trained on.
        test: inputs and classes of the examples to measure.
        bins: number of bins of every binned figure.
        bounds: see `fit_temperature`.

    Raises:
        InputError: one of the sets is empty, or as for `fit_temperature`.
    """
    with torch.no_grad(), applied(network, EVAL):
        pairs = [(network(x), y) for x, y in validation]
    if not pairs:
        raise InputError("temperature: there are no examples to choose it on; give a validation set")
    logits, y = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    temperature = fit_temperature(logits, y, bounds=bounds)
    before, after = (CalibrationStudy(logits.shape[1], bins) for _ in range(2))
    with torch.no_grad(), applied(network, EVAL):
        for x, y in test:
            logits = network(x).double()
            before.update(logits, y)
            after.update(logits / temperature.value, y)
    return TemperatureScaling(temperature, before.figures(), after.figures())


def _nll(logits: Tensor, y: Tensor, temperature: float) -> float:
    return float(F.cross_entropy(logits / temperature, y))


def _search(logits: Tensor, y: Tensor) -> float:
    """The unbounded minimiser T of the convex function of 1/T; infinity where 1/T would not be positive."""
    # In units of the logits' own spread, so that the start and the tolerances fit logits of any size.
    scale = float((logits - logits.mean(dim=1, keepdim=True)).square().mean().sqrt())
    if not scale > 0:
        return 1.0  # all classes are alike, at every temperature
    others = logits.scatter(1, y[:, None], -math.inf).amax(dim=1)
    if bool((logits.gather(1, y[:, None])[:, 0] > others).all()):
        return 0.0  # the larger 1/T, the better; a search would stop where gradients vanish
    scaled = logits / scale
    inverse = torch.ones((), dtype=torch.float64, device=logits.device, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [inverse], max_iter=200, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        value = F.cross_entropy(inverse * scaled, y)
        (inverse.grad,) = torch.autograd.grad(value, inverse)
        return float(value.detach())

    with torch.enable_grad():
        optimiser.step(loss)
    found = float(inverse.detach())
    return scale / found if found > 0 else math.inf
