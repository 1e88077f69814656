"""What the statements assume, checked on a trained network and a sample, each with the figure that says so."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from vicinal.networks import Classifier, MeanOnlyBatchNorm
from vicinal.settings import check
from vicinal.theory.adversarial import Radii, mixup_radius
from vicinal.theory.exact import traced
from vicinal.theory.generalising import PLUGGED_IN
from vicinal.theory.kinks import jumps
from vicinal.theory.trained import Trained

ASSUMPTIONS = {
    "separate": "each output depends on its own input alone, so that the loss is a function of single examples",
    "binary": "two classes, hence one logit",
    "no_batch_norm": "no batch norm, so that the trained and the measured function are one",
    "twice_differentiable": "f has two continuous derivatives, as a Taylor expansion to second order needs",
    "centred": "the inputs have mean zero",
    "right_side": "theta is in Theta: each example's log-odds of its own class are at least 0",
    "homogeneous": "f(x) = grad f(x)^T x and f(2x) = 2 f(x)",
    "flat": "the logits' Hessians vanish at the examples",
    "affine": "the logits are affine in the input",
    "linear_head": "the logits are a linear layer on features that the network gives",
    "fixed_features": "the features were not trained on the sample",
    "fixed_class": "the class, and all that bounds it, was fixed before the sample was drawn",
}
"""Names of the assumptions, and what they say."""

_KINKED = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.Threshold,
    nn.Hardtanh,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardshrink,
    nn.Softshrink,
    nn.Softsign,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
)
"""Layers whose first or second derivative jumps."""


_BATCH_NORM = (
    "in training mode an output depends on its whole batch, so that the loss that was minimised is no function of "
    "single examples, and no statement is about it; in evaluation mode, which is what is measured, each such layer is "
    "a fixed affine map: the expansions of that function stand, but its shifts break f = grad f^T x, and so the bound"
)


@dataclass(frozen=True)
class Check:
    """One assumption on one network and sample.

    Args:
        holds: whether it does, as far as this sample tells.
        figure: the number that decides; what it measures stands in ``says``.
        says: one line, with the number.
        more: what it means for the statements, where there is more to say.
    """

    holds: bool
    figure: float
    says: str
    more: str = ""


def check_assumptions(model: Trained, alpha: float, *, tolerance: float = 1e-6) -> tuple[dict[str, Check], Radii]:
    """All assumptions, and the radii that some of them are read off with.

    Args:
        model: network and sample.
        alpha: of the mixing law Beta(alpha, alpha), > 0, for the radii.
        tolerance: relative error up to which an equality counts as true, our choice, > 0.

    Raises:
        InputError: an argument is out of range, or no gradient reaches the inputs.
    """
    check("tolerance", tolerance, above=0)
    radii = mixup_radius(model.log_odds, model.x, model.ones, alpha, tolerance=tolerance)
    found = radii.assumptions
    error, curvature = _along(model)
    bend, apart = _bend(model), _apart(model)
    # The log-odds of more than two classes are curved where the logits are not: the logits count.
    radii = replace(
        radii,
        assumptions=replace(
            found,
            homogeneous=error <= tolerance,
            flat=curvature <= tolerance,
            homogeneity_error=error,
            curvature=curvature,
        ),
    )
    checks = {
        "separate": Check(
            apart <= tolerance,
            apart,
            f"an output differs by {apart:.3g} of the largest logit where other examples are beside it",
        ),
        "binary": Check(model.classes == 2, model.classes, f"{model.classes} classes"),
        "no_batch_norm": _batch_norm(model),
        "twice_differentiable": _smooth(model, curvature, bend > tolerance, tolerance),
        "centred": Check(
            found.centred, found.offset, f"the mean of the inputs is {found.offset:.3g} of their typical norm"
        ),
        "right_side": Check(
            found.theta_in_theta,
            found.wrong_side,
            f"{found.wrong_side:.1%} of the examples have log-odds of their own class below 0",
        ),
        "homogeneous": Check(
            error <= tolerance,
            error,
            f"f(x) and grad f(x)^T x, or f(2x) and 2 f(x), differ by {error:.3g} of the largest logit"
            + ("" if error <= tolerance else " (biases? batch norm? inputs shifted by the preprocessing?)"),
        ),
        "flat": Check(
            curvature <= tolerance, curvature, f"Hessian times chord is at most {curvature:.3g} of the slope"
        ),
        "affine": Check(
            bend <= tolerance, bend, f"the logits half way along chords are off the chord by {bend:.3g} of the largest"
        ),
        **_last_layer(model),
    }
    return {name: checks[name] for name in ASSUMPTIONS}, radii


def _along(model: Trained) -> tuple[float, float]:
    """Homogeneity error of the logits over the largest, and their curvature along chords over the largest slope."""
    x = model.x
    at, z = traced(model.logits, x)
    own = F.one_hot(model.y, model.classes).bool()
    others = z.detach().masked_fill(own, -torch.inf).softmax(dim=1)
    weight = (own.to(others) - others).requires_grad_()  # the log-odds' derivative by the logits
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(z, at, weight, create_graph=True)
    pushed, _ = torch.autograd.grad(gradient, (weight, at), x, retain_graph=True, materialize_grads=True)
    (bent,) = torch.autograd.grad(gradient, at, x.roll(-1, dims=0) - x, materialize_grads=True)
    with torch.no_grad():
        z = z.detach()
        off = torch.maximum(_free(z - pushed).abs(), _free(model.logits(2 * x) - 2 * z).abs() / 2)
        error = _share(off.max(), _free(z).abs().max())
        return error, _share(bent.flatten(1).norm(dim=1).max(), gradient.flatten(1).norm(dim=1).max())


def _bend(model: Trained) -> float:
    """How far the logits half way between neighbours in the sample are from affine, over the largest."""
    following = model.x.roll(-1, dims=0)
    with torch.no_grad():
        z = _free(model.logits(model.x))
        between = _free(model.logits((model.x + following) / 2))
        return _share((between - (z + z.roll(-1, dims=0)) / 2).abs().max(), z.abs().max())


def _apart(model: Trained) -> float:
    """How far logits of the whole sample are from those of each half of it, over the largest."""
    with torch.no_grad():
        whole = model.logits(model.x)
        halves = torch.cat([model.logits(part) for part in model.x.tensor_split(2)])
        return _share((whole - halves).abs().max(), whole.abs().max())


def _free(z: Tensor) -> Tensor:
    """Logits up to the constant that softmax does not see."""
    return z - z.mean(dim=1, keepdim=True)


def _share(part: Tensor, whole: Tensor) -> float:
    return float(part / whole.clamp(min=torch.finfo(whole.dtype).tiny))


def _batch_norm(model: Trained) -> Check:
    count = sum(isinstance(layer, (_BatchNorm, MeanOnlyBatchNorm)) for layer in model.modules())
    if not count:
        return Check(True, 0, "no batch norm")
    return Check(False, count, f"{count} batch-norm layer(s)", _BATCH_NORM)


def _smooth(model: Trained, curvature: float, bent: bool, tolerance: float) -> Check:
    kinds = Counter(type(layer).__name__ for layer in model.modules() if isinstance(layer, _KINKED))
    named = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    if not named and curvature == 0 and bent:
        named = "f is bent and its Hessian is 0"
    count = sum(kinds.values())
    if not named:
        # Kinks of functions have no layer to be known by.
        found = jumps(model, tolerance=tolerance)
        if not found.jumping:
            return Check(True, 0, f"no kinked layer found, gradients continuous along {found.chords} chords")
        count = found.jumping
        named = f"the gradient jumps on {count} of {found.chords} chords, by up to {found.largest:.3g} of the largest"
    more = "the remainder of an expansion is of third order off the kinks only"
    if curvature == 0:
        more += "; the Hessian of f is 0 almost everywhere, so that R3 = 0 and what the kinks add is not seen"
    return Check(False, count, f"f has kinks ({named})", more)


def _last_layer(model: Trained) -> dict[str, Check]:
    head = model.head()
    body = model.network.body if isinstance(model.network, Classifier) else model.network
    trained = sum(parameter.numel() for parameter in body.parameters())
    fitted = isinstance(model.network, Classifier) and any(True for _ in model.network.preprocess.buffers())
    read_off = (*PLUGGED_IN, *(("statistics of the preprocessing",) if fitted else ()))
    return {
        "linear_head": Check(
            head is not None,
            head.in_features if head else 0,
            f"a linear layer on {head.in_features} features" if head else "the network gives no features for its head",
        ),
        "fixed_features": Check(
            trained == 0,
            trained,
            f"{trained} trained parameters below the last layer"
            + (": its features were chosen after the sample was seen" if trained else ""),
        ),
        "fixed_class": Check(False, len(read_off), f"read off the sample: {', '.join(read_off)}"),
    }
