"""Adversarial directions against closed forms: linear softmax models, both regimes, and numbers at the edge."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.vicinity import adversary, cross_entropy, kl, squared_error

Mutation = Callable[[pytest.MonkeyPatch], None]

torch.set_num_threads(1)
BATCH, FEATURES, CLASSES = 6, 8, 4

_search, _newton, _unit, _kl = adversary.adversarial_direction, adversary.gauss_newton_direction, adversary.unit, kl
# PyTorch scripts some decompositions when forward-mode differentiation is first used, which it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing."""
    return lambda patch: patch.setattr(f"vicinal.vicinity.adversary.{target}", value)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(classes: int = CLASSES, seed: int = 0) -> nn.Linear:
    """A linear softmax model, float64; the searches probe it in float32 inputs."""
    model = nn.Linear(FEATURES, classes).double()
    draws = seeded(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draws, dtype=torch.float64)
    return model


def inputs(*shape: int) -> Tensor:
    return torch.randn(*(shape or (BATCH, FEATURES)), generator=seeded(5))


def targets(classes: int = CLASSES) -> Tensor:
    return torch.randn(BATCH, classes, generator=seeded(6), dtype=torch.float64).softmax(dim=1)


def to(model: nn.Module, target: Tensor) -> Callable[[Tensor], Tensor]:
    """KL from a target to the model's output."""
    return lambda v: kl(target, model(v.double()))


def own(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """KL from the model's own prediction at ``x``: the second-order regime."""
    return to(model, model(x.double()).detach().softmax(dim=1))


def search(divergence: Callable[[Tensor], Tensor], x: Tensor, *, xi: float = 1e-3, k: int = 1, seed: int = 0) -> Tensor:
    return adversary.adversarial_direction(divergence, x, xi=xi, iterations=k, generator=seeded(seed)).double()


def newton(model: nn.Module, x: Tensor, *, k: int = 1, seed: int = 0) -> Tensor:
    return adversary.gauss_newton_direction(
        lambda v: model(v.double()), x, iterations=k, generator=seeded(seed)
    ).double()


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return nn.functional.cosine_similarity(a.double().flatten(1), b.double().flatten(1), dim=1)


def hessians(model: nn.Linear, x: Tensor) -> Tensor:
    """W^T (diag p - p p^T) W of each sample, (B, D, D)."""
    p = model(x.double()).detach().softmax(dim=1)
    weight = model.weight.detach()
    return weight.T @ (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) @ weight


def rows_have_length_one() -> None:
    """Also where the gradient is 1e-15 or subnormal, and in float64."""
    for scale in (1.0, 1e-15, 1e-30, 1e-42, 1e15, 1e30):
        for dtype in (torch.float32, torch.float64):
            rows = adversary.unit(scale * torch.randn(4, 2, 3, generator=seeded(), dtype=dtype))
            # A subnormal float32 holds three digits at this size, so only its length is exact.
            torch.testing.assert_close(rows.flatten(1).norm(dim=1), torch.ones(4, dtype=dtype), atol=1e-5, rtol=0)
    rows = inputs()
    torch.testing.assert_close(cosines(adversary.unit(1e-20 * rows), rows), torch.ones(BATCH, dtype=torch.float64))


def useless_rows_take_the_fallback() -> None:
    rows, fallback = torch.ones(4, 2), torch.tensor([[0.0, 1.0]]).expand(4, 2)
    rows[0], rows[1, 0], rows[2, 1] = 0, math.nan, math.inf
    expected = torch.tensor([[0, 1], [0, 1], [0, 1], [0.5**0.5, 0.5**0.5]])
    torch.testing.assert_close(adversary.unit(rows, fallback), expected)
    torch.testing.assert_close(adversary.unit(rows), expected * torch.tensor([[0], [0], [0], [1]]))


def searched_directions_have_length_one() -> None:
    """Through the search: gradients of order 1, of 1e-15, exactly zero (the start stays), and on images."""
    for shape in ((BATCH, FEATURES), (3, 1, 4, 4)):
        x = inputs(*shape)
        slope = torch.randn(shape, generator=seeded(2))
        for scale in (1.0, 1e-15, 0.0):
            found = search(lambda v, s=scale, g=slope: (s * g * v).flatten(1).sum(dim=1), x, k=2)
            lengths = found.flatten(1).norm(dim=1)
            torch.testing.assert_close(lengths, torch.ones_like(lengths), atol=1e-5, rtol=0)
            expected = slope if scale else adversary.random_direction(x, seeded())
            torch.testing.assert_close(cosines(found, expected), torch.ones_like(lengths), atol=1e-5, rtol=0)


def first_order_closed_form() -> None:
    """Linear softmax, target q: r is along W^T (p - q); with squared error, W^T (diag p - p p^T)(p - q)."""
    model, x, q = linear(), inputs(), targets()
    p = model(x.double()).detach().softmax(dim=1)
    expected = (p - q) @ model.weight.detach()
    one = torch.ones(BATCH, dtype=torch.float64)
    torch.testing.assert_close(cosines(search(to(model, q), x), expected), one, atol=1e-4, rtol=0)
    back = p * (p - q) - p * (p * (p - q)).sum(dim=1, keepdim=True)
    found = search(lambda v: squared_error(q, model(v.double())), x)
    torch.testing.assert_close(cosines(found, back @ model.weight.detach()), one, atol=1e-4, rtol=0)


def first_order_is_fgm() -> None:
    """The direction is that of the fast gradient method for the soft label, whatever the start and K."""
    model, x, q = linear(), inputs(), targets()
    at = x.double().requires_grad_()
    (fgm,) = torch.autograd.grad(cross_entropy(q, model(at)).sum(), at)
    for k, seed in ((1, 0), (1, 1), (3, 0), (3, 2)):
        assert cosines(search(to(model, q), x, k=k, seed=seed), fgm).min() > 0.9999


def small_steps_climb() -> None:
    model, x, q = linear(), inputs(), targets()
    divergence = to(model, q)
    assert (divergence(x + 0.1 * search(divergence, x)) >= divergence(x)).all()


def second_order_gradient_vanishes() -> None:
    """The model's own prediction as target: no gradient at r = 0, and the start decides, at least on the sign."""
    model, x = linear(), inputs()
    at = x.double().requires_grad_()
    (gradient,) = torch.autograd.grad(own(model, x)(at).sum(), at)
    assert gradient.abs().max() < 1e-14
    assert cosines(search(own(model, x), x, seed=0), search(own(model, x), x, seed=1)).min() < 0


def one_power_step() -> None:
    """One iteration is unit(H d), by finite differences and exactly."""
    model, x = linear(), inputs()
    start = adversary.random_direction(x, seeded()).double()
    expected = (hessians(model, x) @ start[:, :, None]).squeeze(2)
    one = torch.ones(BATCH, dtype=torch.float64)
    torch.testing.assert_close(cosines(newton(model, x), expected), one, atol=1e-10, rtol=0)
    torch.testing.assert_close(cosines(search(own(model, x), x), expected), one, atol=1e-4, rtol=0)


def power_iteration() -> None:
    model, x = linear(), inputs()
    top = torch.linalg.eigh(hessians(model, x)).eigenvectors[:, :, -1]
    assert cosines(newton(model, x, k=60), top).abs().min() > 0.9999
    assert cosines(search(own(model, x), x, k=60), top).abs().min() > 0.9999


def two_classes_need_one_step() -> None:
    """Rank-one Hessian: +-(w1 - w0) / ||w1 - w0|| after a single iteration."""
    model, x = linear(2), inputs()
    gap = (model.weight[1] - model.weight[0]).detach().expand(BATCH, -1)
    for found in (newton(model, x), search(own(model, x), x)):
        torch.testing.assert_close(found.abs(), adversary.unit(gap).abs(), atol=1e-4, rtol=0)
        torch.testing.assert_close(found.sign() * found[:, :1].sign(), (gap.sign() * gap[:, :1].sign()))


def smoothness_is_curvature() -> None:
    """LDS = KL(p || p(u + r)) >= 0, and (eps^2 / 2) d^T H d for small eps."""
    model, x, epsilon = linear(), inputs(), 1e-3
    d = newton(model, x, k=5)
    lds = own(model, x)(x.double() + epsilon * d)
    curvature = (d[:, None, :] @ hessians(model, x) @ d[:, :, None]).flatten()
    torch.testing.assert_close(lds, epsilon**2 / 2 * curvature, rtol=1e-2, atol=0)
    for scale in (0.1, 1.0, 10.0):
        assert own(model, x)(x.double() + scale * d).min() >= 0


def probing_steps() -> None:
    """In float32, the published xi = 1e-6 gives noise; 1e-2 gives the exact power step."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.Tanh(), nn.Linear(32, 10))
    draws = seeded(1)
    for parameter in body.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draws) / math.sqrt(parameter.shape[-1])
    x = torch.rand(16, 3, 8, 8, generator=seeded(4))
    p = body(x).detach().softmax(dim=1)
    exact = adversary.gauss_newton_direction(body, x, iterations=1, generator=seeded())
    found = {xi: cosines(search(lambda v: kl(p, body(v)), x, xi=xi), exact).median() for xi in (1e-6, 1e-2)}
    assert found[1e-2] > 0.99
    assert found[1e-6].abs() < 0.5


def the_search_leaves_no_trace() -> None:
    """Parameters and their .grad, filled before, are bit-equal; no graph comes out; inputs stay as they are."""
    model, x, q = linear(), inputs(), targets()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7)
    before, x_before = [parameter.detach().clone() for parameter in model.parameters()], x.clone()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for found in (search(to(model, q), x, k=2), newton(model, x, k=2)):
        assert not found.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, x_before)
    assert not x.requires_grad
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
        assert torch.equal(parameter.grad, torch.full_like(parameter, 7))


def _clamped(x: Tensor, fallback: Tensor | None = None) -> Tensor:
    return (x.flatten(1) / x.flatten(1).norm(dim=1, keepdim=True).clamp(min=1e-12)).view_as(x)


def _raw(x: Tensor, fallback: Tensor | None = None) -> Tensor:
    return x


def _start_only(divergence: Callable[[Tensor], Tensor], x: Tensor, *, generator: torch.Generator, **_: Any) -> Tensor:
    return adversary.random_direction(x, generator)


def _downhill(divergence: Callable[[Tensor], Tensor], x: Tensor, **settings: Any) -> Tensor:
    return -_search(divergence, x, **settings)


def _single(logits_of: Callable[[Tensor], Tensor], x: Tensor, *, iterations: int, generator: torch.Generator) -> Tensor:
    return _newton(logits_of, x, iterations=1, generator=generator)


def _heated(logits_of: Callable[[Tensor], Tensor], x: Tensor, **settings: Any) -> Tensor:
    return _newton(lambda v: 2 * logits_of(v), x, **settings)


def _well_probed(divergence: Callable[[Tensor], Tensor], x: Tensor, *, xi: float, **settings: Any) -> Tensor:
    return _search(divergence, x, xi=1e-2, **settings)


def _through_grad(outputs: Tensor, inputs: Tensor) -> tuple[Tensor]:
    outputs.backward()
    return (inputs.grad,)


def swapped_kl(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(globals(), "kl", lambda target, logits: _kl(logits.softmax(dim=1), target.log()))


def stale_target(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(globals(), "own", lambda model, x: to(model, targets(model.out_features)))


IDENTITIES = [
    pytest.param(rows_have_length_one, patched("unit", _raw), id="length one | not normalised"),
    pytest.param(rows_have_length_one, patched("unit", _clamped), id="length one | norm clamped at 1e-12"),
    pytest.param(useless_rows_take_the_fallback, patched("unit", lambda x, f=None: _unit(x)), id="fallback | zeros"),
    pytest.param(searched_directions_have_length_one, patched("unit", _clamped), id="||d|| = 1 | clamped at 1e-12"),
    pytest.param(first_order_closed_form, swapped_kl, id="W^T (p - q) | KL arguments swapped"),
    pytest.param(first_order_closed_form, patched("adversarial_direction", _start_only), id="W^T (p - q) | random"),
    pytest.param(first_order_is_fgm, swapped_kl, id="first order is FGM | KL arguments swapped"),
    pytest.param(first_order_is_fgm, patched("adversarial_direction", _start_only), id="first order is FGM | random"),
    pytest.param(small_steps_climb, patched("adversarial_direction", _downhill), id="KL rises | downhill"),
    pytest.param(second_order_gradient_vanishes, stale_target, id="second order | target of other weights"),
    pytest.param(one_power_step, patched("gauss_newton_direction", _heated), id="power step | other temperature"),
    pytest.param(one_power_step, stale_target, id="power step | target of other weights"),
    pytest.param(power_iteration, patched("gauss_newton_direction", _single), id="eigenvector | a single step"),
    pytest.param(power_iteration, stale_target, id="eigenvector | target of other weights"),
    pytest.param(two_classes_need_one_step, patched("adversarial_direction", _start_only), id="two classes | random"),
    pytest.param(two_classes_need_one_step, patched("unit", _raw), id="two classes | not normalised"),
    pytest.param(smoothness_is_curvature, patched("unit", _raw), id="LDS | not normalised"),
    pytest.param(smoothness_is_curvature, stale_target, id="LDS | target of other weights"),
    pytest.param(probing_steps, patched("adversarial_direction", _well_probed), id="xi | always 1e-2"),
    pytest.param(
        the_search_leaves_no_trace,
        lambda patch: patch.setattr(torch.autograd, "grad", _through_grad),
        id="no trace | backward into the parameters",
    ),
]


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_holds(check: Callable[[], None], mutate: Mutation) -> None:
    check()


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_fails_when_mutated(
    check: Callable[[], None], mutate: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check()
