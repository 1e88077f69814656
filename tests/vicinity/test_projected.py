"""Projected gradient ascent against closed forms on linear objectives, a NumPy reference, and its limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.vicinity import projected
from vicinal.vicinity.projected import NormName, projected_ascent, random_start

Mutation = Callable[[pytest.MonkeyPatch], None]
NORMS: tuple[NormName, ...] = ("linf", "l2")


def patched(target: str, value: object) -> Mutation:
    return lambda patch: patch.setattr(f"vicinal.vicinity.projected.{target}", value)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(*shape: int) -> Tensor:
    return torch.rand(*(shape or (6, 2, 3)), generator=seeded(1))


def network(seed: int = 2) -> nn.Module:
    made = nn.Sequential(nn.Flatten(), nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0))
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=seeded(seed))
    return made


def rows(perturbation: Tensor, norm: NormName) -> Tensor:
    return perturbation.flatten(1).norm(dim=1, p=math.inf if norm == "linf" else 2)


def one_step_is_the_fast_gradient() -> None:
    """Steps 1, step size epsilon, no start: FGSM in Linf, and the unit gradient in L2, clipped to the bounds."""
    x, objective = inputs(), network()
    at = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(at).sum(), at)
    directions = {"linf": gradient.sign(), "l2": gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1)}
    for norm in NORMS:
        found = projected_ascent(objective, x, norm=norm, epsilon=0.3, step_size=0.3, steps=1, bounds=(0, 1))
        torch.testing.assert_close(found, (x + 0.3 * directions[norm]).clamp(0, 1), atol=1e-6, rtol=0)


def a_linear_objective_is_maximised() -> None:
    """w^T (x + delta) - w^T x is at most epsilon times the dual norm of w, which is reached from any start."""
    x, w = inputs(), torch.randn(2, 3, generator=seeded(3))
    for norm, dual in (("linf", w.abs().sum()), ("l2", w.norm())):
        for start in (None, random_start(x, norm, 0.2, seeded())):
            ascent = {"norm": norm, "epsilon": 0.2, "step_size": 0.02, "steps": 100, "start": start}
            moved = projected_ascent(lambda v: (v * w).flatten(1).sum(dim=1), x, **ascent)
            gain = ((moved - x) * w).flatten(1).sum(dim=1)
            torch.testing.assert_close(gain, (0.2 * dual).expand(6), atol=1e-5, rtol=0)


def points_stay_in_the_ball_and_the_bounds() -> None:
    x, steep = inputs(), network()
    for norm in NORMS:
        for start in (None, random_start(x, norm, 0.3, seeded()), torch.full_like(x, 7.0)):
            for steps in (0, 1, 5):
                moved = projected_ascent(
                    steep, x, norm=norm, epsilon=0.3, step_size=0.2, steps=steps, start=start, bounds=(0, 1)
                )
                assert rows(moved - x, norm).max() <= 0.3 + 1e-6
                assert moved.min() >= 0
                assert moved.max() <= 1


def follows_the_reference() -> None:
    """Five L2 steps on a quadratic, in float64, written again with NumPy."""
    a, x = np.diag([1.0, 4.0, 0.5]), np.array([[0.3, -0.2, 0.9], [0.1, 0.5, -0.4]])
    point = x.copy()
    for _ in range(5):
        gradient = point @ a
        point = point + 0.15 * gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
        delta = point - x
        length = np.linalg.norm(delta, axis=1, keepdims=True)
        point = np.where(length > 0.4, x + delta * 0.4 / length, point)
    matrix = torch.from_numpy(a)
    found = projected_ascent(
        lambda v: 0.5 * ((v @ matrix) * v).sum(dim=1),
        torch.from_numpy(x),
        norm="l2",
        epsilon=0.4,
        step_size=0.15,
        steps=5,
    )
    torch.testing.assert_close(found, torch.from_numpy(point), atol=1e-12, rtol=0)


def an_increasing_function_changes_nothing() -> None:
    x, objective = inputs().double(), network().double()
    for norm in NORMS:
        ascent = {"norm": norm, "epsilon": 0.3, "step_size": 0.05, "steps": 8}
        found = projected_ascent(lambda v: 1e-9 * objective(v).exp(), x, **ascent)
        torch.testing.assert_close(found, projected_ascent(objective, x, **ascent), atol=1e-9, rtol=0)


def samples_without_a_direction_stay() -> None:
    """A gradient that is zero or not a number moves nothing, and does not disturb the others."""
    x = torch.full((3, 2), 0.5)
    slope = torch.tensor([[0.0, 0.0], [math.nan, math.nan], [3.0, 4.0]])
    for norm in NORMS:
        moved = projected_ascent(lambda v: (slope * v).sum(dim=1), x, norm=norm, epsilon=0.1, step_size=0.1, steps=3)
        assert torch.equal(moved[:2], x[:2])
        assert moved[2].isfinite().all()
        assert (moved[2] > x[2]).all()


def the_best_point_is_kept() -> None:
    """Steps that are too long jump over the ridge; the best point is at least as good as all visited ones."""
    x, visited = torch.zeros(4, 1), []
    peaks = torch.tensor([0.0, 0.05, 0.3, 0.5])

    def ridge(v: Tensor) -> Tensor:
        visited.append(-(v[:, 0] - peaks).abs())
        return visited[-1]

    for start in (None, torch.full_like(x, 0.25)):
        visited.clear()
        best = projected_ascent(ridge, x, norm="linf", epsilon=0.6, step_size=0.2, steps=6, start=start, keep_best=True)
        seen = torch.stack(visited)
        assert len(seen) == 7  # the start, and each point that a step reached
        torch.testing.assert_close(-(best[:, 0] - peaks).abs(), seen.detach().amax(dim=0))


def nothing_else_is_touched() -> None:
    """No gradient arrives at parameters or at the input, the result has no graph, and gradients may be switched off."""
    model, x = network(), inputs().requires_grad_()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        moved = projected_ascent(
            model, x, norm="linf", epsilon=0.1, step_size=0.05, steps=2, start=torch.full_like(x, 0.01), keep_best=True
        )
    assert not moved.requires_grad
    assert x.grad is None
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert parameter.grad is None
        assert parameter.requires_grad
        assert torch.equal(parameter, old)


def random_starts_fill_the_ball() -> None:
    """(||r|| / epsilon)^D is uniform in L2, each entry in Linf; the same generator draws the same."""
    x = torch.zeros(4000, 1, 3)
    for norm in NORMS:
        start = random_start(x, norm, 0.5, seeded())
        assert torch.equal(start, random_start(x, norm, 0.5, seeded()))
        assert not torch.equal(start, random_start(x, norm, 0.5, seeded(1)))
        shares = rows(start, norm) / 0.5
        assert shares.max() <= 1 + 1e-6
        levels = (shares**3).sort().values
        assert (levels - torch.linspace(0, 1, 4000)).abs().max() < 0.03  # Kolmogorov-Smirnov, some 1e-3 level
        assert start.mean(dim=0).abs().max() < 0.02


_keep, _ascent, _start = projected.project, projected_ascent, random_start


def _backward(outputs: Tensor, inputs: Tensor, weights: Tensor, **_: Any) -> tuple[Tensor]:
    outputs.backward(weights)
    return (inputs.grad,)


def _last(patch: pytest.MonkeyPatch) -> None:
    def without(*args: Any, **settings: Any) -> Tensor:
        return _ascent(*args, **{**settings, "keep_best": False})

    patch.setitem(globals(), "projected_ascent", without)


def _shell(patch: pytest.MonkeyPatch) -> None:
    """Starts on the sphere, or in the corners."""

    def on_the_shell(x: Tensor, norm: NormName, epsilon: float, generator: torch.Generator) -> Tensor:
        start = _start(x, norm, epsilon, generator)
        return epsilon * projected.steepest(start, norm)

    patch.setitem(globals(), "random_start", on_the_shell)


IDENTITIES = [
    pytest.param(one_step_is_the_fast_gradient, patched("steepest", lambda g, norm: g), id="FGSM | raw gradient"),
    pytest.param(one_step_is_the_fast_gradient, patched("steepest", lambda g, norm: -g.sign()), id="FGSM | downhill"),
    pytest.param(
        a_linear_objective_is_maximised,
        patched("project", lambda x, v, norm, epsilon, bounds: _keep(x, v, norm, epsilon / 2, bounds)),
        id="dual norm | half the ball",
    ),
    pytest.param(
        points_stay_in_the_ball_and_the_bounds,
        patched("project", lambda x, v, norm, epsilon, bounds: v.clamp(0, 1)),
        id="ball | not projected",
    ),
    pytest.param(
        points_stay_in_the_ball_and_the_bounds,
        patched("project", lambda x, v, norm, epsilon, bounds: _keep(x, v, norm, epsilon, None)),
        id="bounds | not clipped",
    ),
    pytest.param(
        follows_the_reference,
        patched("project", lambda x, v, norm, epsilon, bounds: _keep(x, v, "linf", epsilon, bounds)),
        id="reference | a cube for a ball",
    ),
    pytest.param(
        an_increasing_function_changes_nothing, patched("steepest", lambda g, norm: g), id="increasing | raw gradient"
    ),
    pytest.param(
        samples_without_a_direction_stay,
        patched("steepest", lambda g, norm: g / g.norm(dim=1, keepdim=True)),
        id="no direction | 0 / 0",
    ),
    pytest.param(the_best_point_is_kept, _last, id="best | last"),
    pytest.param(
        nothing_else_is_touched,
        lambda patch: patch.setattr(torch.autograd, "grad", _backward),
        id="no trace | backward into the parameters",
    ),
    pytest.param(random_starts_fill_the_ball, _shell, id="uniform | on the sphere"),
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


@pytest.mark.parametrize("norm", NORMS)
def test_a_radius_of_zero_returns_the_inputs_to_the_bit(norm: NormName) -> None:
    x = torch.tensor([[-0.0, 1e-42, 3.0, 0.1]])
    start = torch.ones_like(x)
    found = projected_ascent(
        lambda v: v.sum(dim=1), x, norm=norm, epsilon=0, step_size=0, steps=9, start=start, bounds=(0, 1)
    )
    assert torch.equal(found.view(torch.int32), x.view(torch.int32))
    assert found.data_ptr() != x.data_ptr()
    moved = projected_ascent(lambda v: v.sum(dim=1), x, norm=norm, epsilon=1e-3, step_size=1e-3, steps=1)
    assert not torch.equal(moved, x)


def test_half_precision_inputs_are_searched_in_float32() -> None:
    x = inputs().bfloat16()
    moved = projected_ascent(network(), x, norm="linf", epsilon=1e-3, step_size=1e-3, steps=1)
    assert moved.dtype == torch.float32
    assert (moved != x.float()).all()  # such a step is lost in bfloat16


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": "l1"}, "norm: unknown 'l1'; "),
        ({"epsilon": -1.0}, "epsilon must be at least 0"),
        ({"step_size": 0.0}, "step_size must be greater than 0"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"bounds": (1.0, 0.0)}, "bounds: expected (low, high)"),
        ({"objective": lambda v: v.detach().sum(dim=1)}, "no gradient reaches the inputs"),
    ],
)
def test_bad_arguments_are_one_clear_line(wrong: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"objective": lambda v: v.sum(dim=1), "norm": "l2", "epsilon": 0.1, "step_size": 0.1}
    settings |= {"steps": 1, **wrong}
    with pytest.raises(InputError) as raised:
        projected_ascent(x=torch.zeros(2, 3), **settings)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
