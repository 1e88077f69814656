"""Two second-order approximations of the mixup loss, and how far each is from the truth.

*Around the examples* (Zhang et al. 2021; the formulas are derived here)::

    L~ = L_std + R1 + R2 + R3
    R1 = m1/n   sum_i (h'(f_i) - y_i) grad f_i^T E_r[r - x_i]
    R2 = m2/2n  sum_i h''(f_i) grad f_i^T E_r[(r - x_i)(r - x_i)^T] grad f_i
    R3 = m2/2n  sum_i (h'(f_i) - y_i) E_r[(r - x_i)^T hess f_i (r - x_i)]

It is an expansion in 1 - lambda, whose mean m1 is 1/7 already at alpha = 0.2, so it is close for small logits only.

*Around the shrunk points* x_bar + theta_bar (x_i - x_bar), the mean of the mixes that x_i dominates (Carratino et al.
2022): what is left over has mean zero, and the approximation is much the better one.

All of it holds for softmax cross-entropy too, with the Hessian of the loss by the logits in place of h''.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vicinal.theory.curvature import EXACT, Labels, Trace, second_order
from vicinal.theory.exact import LOGISTIC, Family, Function, Loss, mixup_loss_exact, problem
from vicinal.theory.moments import NODES, folded_moments, mixup_moments


@dataclass(frozen=True)
class MixupTerms:
    """The expansion around the examples, L~ = l_std + r1 + r2 + r3.

    Args:
        l_std: mean loss at the examples, a scalar.
        r1: the term of first order.
        r2: the second-order term of the curvature of the loss by the logits.
        r3: the second-order term of the curvature of the network; exactly 0 for linear and for ReLU networks, where
            the expansion holds off the kinks only.
        standard_error: of r2 + r3, from random probes; 0 if the trace is exact.
        products: Hessian-vector products for each example; 0 for a closed form.
    """

    l_std: Tensor
    r1: Tensor
    r2: Tensor
    r3: Tensor
    standard_error: float = 0.0
    products: int = 0

    @property
    def total(self) -> Tensor:
        """L~, a scalar."""
        return self.l_std + self.r1 + self.r2 + self.r3


@dataclass(frozen=True)
class ShrunkTerms:
    """The expansion around the shrunk points, the sum of its terms.

    Args:
        l_shrunk: mean loss at the shrunk points with the shrunk labels, a scalar.
        r2: the second-order term of the curvature of the loss by the logits.
        r3: that of the curvature of the network.
        label: the term of inputs and labels that are perturbed together; at most 0 where they agree.
        standard_error: of r2 + r3, from random probes; 0 if the trace is exact.
        products: Hessian-vector products for each example; 0 for a closed form.
    """

    l_shrunk: Tensor
    r2: Tensor
    r3: Tensor
    label: Tensor
    standard_error: float = 0.0
    products: int = 0

    @property
    def total(self) -> Tensor:
        """The approximation, a scalar."""
        return self.l_shrunk + self.r2 + self.r3 + self.label


def glm_terms(
    theta: Tensor, x: Tensor, y: Tensor, alpha: float, beta: float | None = None, *, family: Family = LOGISTIC
) -> MixupTerms:
    """The expansion around the examples for f = theta^T x, in closed form.

    Args:
        theta: weights (d,); the terms have a graph to them.
        x: inputs (n, d).
        y: labels (n,).
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.
        family: the loss.

    Raises:
        InputError: the sample does not fit, or a parameter is not positive.
    """
    _, y, _ = problem(lambda at: at @ theta, x, y, family, binary=True)
    m1, m2 = mixup_moments(alpha, beta)[:2]
    z = x @ theta
    to_mean = z.mean() - z
    second_moment = z.var(correction=0) + to_mean.square()
    return MixupTerms(
        family(z, y).mean(),
        m1 * ((family.first(z) - y) * to_mean).mean(),
        m2 / 2 * (family.second(z) * second_moment).mean(),
        torch.zeros_like(z[0]),
    )


def mixup_terms(
    f: Function,
    x: Tensor,
    y: Tensor,
    alpha: float,
    beta: float | None = None,
    *,
    loss: Loss | None = None,
    trace: Trace = EXACT,
) -> MixupTerms:
    """The expansion around the examples for any twice differentiable network, by Hessian-vector products.

    With H_i the Hessian of the loss by x_i, and Sigma the covariance of the inputs::

        R1 = m1 mean_i grad l_i^T (x_bar - x_i)
        R2 + R3 = m2/2 mean_i [tr(Sigma H_i) + (x_bar - x_i)^T H_i (x_bar - x_i)]

    Args:
        f: from inputs to logits. Its parameters get no gradient, and the terms have no graph.
        x: inputs (n, ...), best in float64.
        y: labels, see `vicinal.theory.exact.problem`.
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.
        loss: of logits and labels, affine in the labels; None for binary or softmax cross-entropy.
        trace: how tr(Sigma H_i) is taken: exactly, or by random probes.

    Raises:
        InputError: the sample does not fit, an argument is out of range, or no gradient reaches the inputs.
    """
    given = problem(f, x, y, loss)
    m1, m2 = mixup_moments(alpha, beta)[:2]
    to_mean = x.mean(dim=0) - x
    found = second_order(f, given, points=x, own=to_mean, share=1.0, trace=trace)
    return MixupTerms(
        found.losses.mean(),
        m1 * (found.gradient * to_mean).flatten(1).sum(dim=1).mean(),
        m2 / 2 * found.gauss_newton,
        m2 / 2 * found.network,
        m2 / 2 * found.standard_error,
        found.products,
    )


def glm_shrunk_terms(
    theta: Tensor, x: Tensor, y: Tensor, alpha: float, beta: float | None = None, *, family: Family = LOGISTIC
) -> ShrunkTerms:
    """The expansion around the shrunk points for f = theta^T x, in closed form.

    With z_i = theta^T x_i, c_i = z_i - z_bar, u_i = z_bar + theta_bar c_i, the labels shrunk alike, S = mean c^2,
    C = mean c (y - y_bar) and q = E[(1 - theta)^2] of the folded coefficient theta::

        mean_i { h(u_i) - y~_i u_i + h''(u_i)/2 [Var(theta) c_i^2 + q S] - [Var(theta) c_i (y_i - y_bar) + q C] }

    Args:
        theta: weights (d,); the terms have a graph to them.
        x: inputs (n, d).
        y: labels (n,).
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.
        family: the loss.

    Raises:
        InputError: the sample does not fit, or a parameter is not positive.

    Source: Carratino et al. 2022; derived here.
    """
    _, y, _ = problem(lambda at: at @ theta, x, y, family, binary=True)
    mean, variance, square = folded_moments(alpha, beta)
    z = x @ theta
    c, e = z - z.mean(), y - y.mean()
    u = z.mean() + mean * c
    spread = variance * c.square() + square * c.square().mean()
    return ShrunkTerms(
        family(u, y.mean() + mean * e).mean(),
        (family.second(u) * spread).mean() / 2,
        torch.zeros_like(z[0]),
        -(variance + square) * (c * e).mean(),
    )


def shrunk_terms(
    f: Function,
    x: Tensor,
    y: Tensor,
    alpha: float,
    beta: float | None = None,
    *,
    loss: Family | None = None,
    trace: Trace = EXACT,
) -> ShrunkTerms:
    """The expansion around the shrunk points for any twice differentiable network, by Hessian-vector products.

    The mix is x~_i + delta with delta = (theta - theta_bar)(x_i - x_bar) + (1 - theta)(x_j - x_bar), of mean zero and
    covariance Var(theta) (x_i - x_bar)(x_i - x_bar)^T + q Sigma; its label moves by the same combination of labels.

    Args:
        f: from inputs to logits. Its parameters get no gradient, and the terms have no graph.
        x: inputs (n, ...), best in float64.
        y: labels, see `vicinal.theory.exact.problem`.
        alpha: first parameter of the mixing law, > 0.
        beta: second one, > 0; None for ``alpha``.
        loss: of one logit; None for binary or softmax cross-entropy.
        trace: how tr(Sigma H_i) is taken: exactly, or by random probes.

    Raises:
        InputError: the sample does not fit, an argument is out of range, or no gradient reaches the inputs.

    Source: Carratino et al. 2022; for networks derived here.
    """
    given = problem(f, x, y, loss)
    mean, variance, square = folded_moments(alpha, beta)
    centred, deviation = x - x.mean(dim=0), given.y - given.y.mean(dim=0)
    covariance = deviation.reshape(len(x), -1).T @ centred.flatten(1) / len(x)
    found = second_order(
        f,
        given._replace(y=given.y.mean(dim=0) + mean * deviation),
        points=x.mean(dim=0) + mean * centred,
        own=variance**0.5 * centred,
        share=square,
        trace=trace,
        labels=Labels(variance**0.5 * deviation, square * covariance),
    )
    return ShrunkTerms(
        found.losses.mean(),
        found.gauss_newton / 2,
        found.network / 2,
        -found.label,
        found.standard_error / 2,
        found.products,
    )


@dataclass(frozen=True)
class ExpansionReport:
    """The mixup loss of a sample and its two approximations.

    Args:
        exact: L_mix over all pairs.
        around_examples: the expansion L_std + R1 + R2 + R3.
        around_shrunk: the expansion around the shrunk points.
        m1: mean of 1 - lambda under D~: what the first expansion treats as small.
    """

    exact: float
    around_examples: MixupTerms
    around_shrunk: ShrunkTerms
    m1: float

    @property
    def gaps(self) -> tuple[float, float]:
        """Relative errors (approximation - L_mix) / L_mix of both, in their order; negative where it is too small."""
        totals = (float(self.around_examples.total), float(self.around_shrunk.total))
        return totals[0] / self.exact - 1, totals[1] / self.exact - 1


def expansion_report(
    f: Function,
    x: Tensor,
    y: Tensor,
    alpha: float,
    beta: float | None = None,
    *,
    loss: Family | None = None,
    nodes: int = NODES,
    trace: Trace = EXACT,
) -> ExpansionReport:
    """The exact mixup loss, with both approximations beside it.

    The arguments are those of `vicinal.theory.exact.mixup_loss_exact` and `mixup_terms`; the exact loss costs n^2 *
    ``nodes`` passes of single inputs.

    Raises:
        InputError: the sample does not fit, an argument is out of range, or no gradient reaches the inputs.
    """
    with torch.no_grad():
        exact = float(mixup_loss_exact(f, x, y, alpha, beta, loss=loss, nodes=nodes))
    first = mixup_terms(f, x, y, alpha, beta, loss=loss, trace=trace)
    second = shrunk_terms(f, x, y, alpha, beta, loss=loss, trace=trace)
    return ExpansionReport(exact, first, second, mixup_moments(alpha, beta).m1)
