"""The mixup loss itself: over all pairs of a sample, with the mixing coefficient integrated and not drawn.

Losses are of the family l(x, y) = h(f(x)) - y f(x), with h twice differentiable, or softmax cross-entropy. Both are
affine in the label, which is what the rewriting over D~ needs; the squared error (f - y)^2 taken literally is not, and
f^2 / 2 - y f, which differs from half of it by y^2 / 2, is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.theory.moments import NODES, Rule, beta_rule, d_tilde_rule, parameters
from vicinal.vicinity import cross_entropy

Function = Callable[[Tensor], Tensor]
"""From inputs (B, ...) to logits (B,) or (B, C): deterministic, and each row's output depends on that row alone."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits (B,) or (B, C) and labels of the same shape to one number per sample (B,)."""

_VALUES = 1 << 20
"""Input values in one pass, so that the pairs of a large sample do not have to fit in memory at once."""


@dataclass(frozen=True)
class Family:
    """A loss h(f) - y f of one logit; calling it gives the loss, (B,).

    Args:
        name: what it is called.
        h: the convex function of the logit.
        first: h', the prediction.
        second: h'', its slope.
    """

    name: str
    h: Function
    first: Function
    second: Function

    def __call__(self, f: Tensor, y: Tensor) -> Tensor:
        return self.h(f) - y * f


def _softplus(u: Tensor) -> Tensor:
    # F.softplus is the identity above 20, which is off by 2e-9 there.
    return -F.logsigmoid(-u)


def _logistic_slope(u: Tensor) -> Tensor:
    return torch.sigmoid(u) * torch.sigmoid(-u)


LOGISTIC = Family("logistic", _softplus, torch.sigmoid, _logistic_slope)
"""Binary cross-entropy of one logit, h(u) = log(1 + e^u)."""

GAUSSIAN = Family("gaussian", lambda u: u.square() / 2, lambda u: u, torch.ones_like)
"""Half the squared error without its term y^2 / 2, which is not affine in y, h(u) = u^2 / 2."""


class Problem(NamedTuple):
    """A sample and its loss, as the functions of this room use them.

    Attributes:
        x: inputs (n, ...).
        y: labels in the type of ``x``, (n,) or (n, C).
        loss: of the logits.
    """

    x: Tensor
    y: Tensor
    loss: Loss


def problem(f: Function, x: Tensor, y: Tensor, loss: Loss | None, *, binary: bool = False) -> Problem:
    """Check a sample against the logits, and bring its labels into their shape.

    Args:
        f: from inputs to logits.
        x: inputs (n, ...), floating point.
        y: labels: numbers (n,) for one logit; class indices int64 (n,) or probabilities (n, C) for C of them.
        loss: of logits and labels; None for `LOGISTIC` of one logit, else softmax cross-entropy.
        binary: whether there has to be one logit.

    Raises:
        InputError: there are no examples, or the shapes or types do not fit.
    """
    if not x.is_floating_point() or len(x) == 0:
        raise InputError("x: expected at least one example, in floating point (float64 for differences of losses)")
    with torch.no_grad():
        shape = f(x[:1]).shape
    if len(shape) not in (1, 2) or (len(shape) == 2 and (binary or shape[1] < 2)):
        wanted = "one logit per example, (n,)" if binary else "logits (n,) or (n, C) with C of at least 2"
        raise InputError(f"f: expected {wanted}, got {tuple(shape)} for one example; reshape its output")
    if len(shape) == 2 and y.dim() == 1 and not y.is_floating_point():
        if not bool(((y >= 0) & (y < shape[1])).all()):
            raise InputError(f"y: class indices must be in 0..{shape[1] - 1}; leave out examples without a label")
        y = F.one_hot(y.long(), shape[1])
    if y.shape != (len(x), *shape[1:]):
        raise InputError(f"y: expected labels {(len(x), *shape[1:])}, got {tuple(y.shape)}")
    if loss is None:
        loss = LOGISTIC if len(shape) == 1 else _softmax
    return Problem(x, y.to(x.dtype), loss)


def traced(f: Function, x: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs that gradients are taken by, and the logits with a graph to them.

    Raises:
        InputError: no gradient reaches the inputs.
    """
    at = x.detach().requires_grad_()
    with torch.enable_grad():
        outputs = f(at)
    if not outputs.requires_grad:
        raise InputError(
            "f: no gradient reaches the inputs; use a function that neither detaches them nor switches gradients off"
        )
    return at, outputs


def _softmax(f: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(y, f)


def mixup_loss_exact(
    f: Function,
    x: Tensor,
    y: Tensor,
    alpha: float,
    beta: float | None = None,
    *,
    loss: Loss | None = None,
    nodes: int = NODES,
) -> Tensor:
    """L_mix = 1/n^2 sum_{i,j} E_{lambda ~ Beta(alpha, beta)} l(lambda x_i + (1 - lambda) x_j, the same mix of labels).

    The pairs i = j count, so a mini-batch mixed with a uniformly random permutation is an unbiased estimate of it.

    Args:
        f: from inputs to logits; passes see many mixed inputs at once.
        x: inputs (n, ...), best in float64.
        y: labels, see `problem`.
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.
        loss: of logits and labels, need not be affine in the labels; None for binary or softmax cross-entropy.
        nodes: quadrature nodes, >= 1.

    Returns:
        A scalar with a graph, from n^2 * nodes passes of single inputs.

    Raises:
        InputError: the sample does not fit, or an argument is out of range.

    >>> x, y = torch.tensor([[1.0], [-1.0]]), torch.tensor([1.0, 0.0])
    >>> mixup_loss_exact(lambda x: 0 * x[:, 0], x, y, alpha=1.0)
    tensor(0.6931)
    """
    given = problem(f, x, y, loss)
    rule = beta_rule(alpha, beta, nodes)
    return _pairs(f, given, rule, rule.lam)


def mixup_loss_rewritten(
    f: Function,
    x: Tensor,
    y: Tensor,
    alpha: float,
    beta: float | None = None,
    *,
    loss: Loss | None = None,
    nodes: int = NODES,
    scale: float = 1.0,
) -> Tensor:
    """The same loss as perturbed inputs with their own labels.

    It is 1/n sum_i E_{lambda ~ D~} E_r l(lambda x_i + (1 - lambda) r, y_i), with r uniform over the inputs.
    Equal to `mixup_loss_exact` for every loss that is affine in the label.

    Args:
        f: from inputs to logits.
        x: inputs (n, ...), best in float64; r runs over them.
        y: labels, see `problem`.
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.
        loss: of logits and labels; None for binary or softmax cross-entropy.
        nodes: quadrature nodes per Beta law, >= 1.
        scale: t in [0,1]: 1 - lambda becomes t (1 - lambda), to see of which order an expansion around lambda = 1 is.

    Raises:
        InputError: the sample does not fit, or an argument is out of range.

    Source: derived here (see `vicinal.theory.moments`).
    """
    given = problem(f, x, y, loss)
    rule = d_tilde_rule(alpha, beta, nodes)
    moved = Rule(1 - scale * (1 - rule.lam), rule.weight)
    return _pairs(f, given, moved, torch.ones_like(rule.lam))


def _pairs(f: Function, given: Problem, rule: Rule, kept: Tensor) -> Tensor:
    """Mean over ordered pairs of the loss at lam x_i + (1 - lam) x_j with the label kept y_i + (1 - kept) y_j."""
    x, y, loss = given
    n = len(x)
    lam, kept, weight = (values.to(x) for values in (rule.lam, kept, rule.weight))
    total = x.new_zeros(())
    rows = max(1, _VALUES // max(x.numel(), 1))
    for start in range(0, n * len(lam), rows):
        row = torch.arange(start, min(start + rows, n * len(lam)), device=x.device)
        node, i = row // n, row % n
        points = _mixed(x, i, lam[node]).flatten(0, 1)
        labels = _mixed(y, i, kept[node]).flatten(0, 1)
        total = total + weight[node] @ loss(f(points), labels).view(len(row), n).sum(dim=1)
    return total / n**2


def _mixed(values: Tensor, i: Tensor, lam: Tensor) -> Tensor:
    """Row i of ``values``, by its coefficient, with every row: (rows, n, ...)."""
    lam = lam.view(-1, *[1] * values.dim())
    return lam * values[i].unsqueeze(1) + (1 - lam) * values


def squared_mixup_loss(residuals: Tensor, alpha: float, beta: float | None = None) -> Tensor:
    """L_mix of (theta^T x - y)^2: E[lambda^2 + (1 - lambda)^2] mean e^2 + 2 E[lambda (1 - lambda)] (mean e)^2.

    A linear model's residual of a mix is the mix of the residuals. So with centred inputs the mixup minimiser is the
    least-squares solution, for every alpha.

    Args:
        residuals: e_i = theta^T x_i - y_i, (n,).
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.

    Raises:
        InputError: a parameter is not positive.

    Source: derived here.

    >>> squared_mixup_loss(torch.tensor([1.0, -1.0]), alpha=1.0)
    tensor(0.6667)
    """
    both = _product(alpha, beta)
    return (1 - 2 * both) * residuals.square().mean() + 2 * both * residuals.mean().square()


def mixup_least_squares(x: Tensor, y: Tensor, alpha: float, beta: float | None = None) -> Tensor:
    """The minimiser theta of `squared_mixup_loss`, (d,), the one of least norm if there are several.

    Args:
        x: inputs (n, d); append a column of ones for an intercept.
        y: targets (n,).
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.

    Raises:
        InputError: a parameter is not positive.
    """
    both = _product(alpha, beta)
    # The loss is a sum of squares of linear forms: n residuals, and their mean as one row more.
    spread, shift = ((1 - 2 * both) / len(x)) ** 0.5, (2 * both) ** 0.5
    rows = torch.cat([spread * x, shift * x.mean(dim=0, keepdim=True)])
    targets = torch.cat([spread * y, shift * y.mean(dim=0, keepdim=True)])
    theta: Tensor = torch.linalg.pinv(rows) @ targets
    return theta


def _product(alpha: float, beta: float | None) -> float:
    """E[lambda (1 - lambda)]."""
    alpha, beta = parameters(alpha, beta)
    total = alpha + beta
    return alpha / total * beta / (total + 1)
