"""Projected gradient descent: closed forms on linear classifiers, and what must hold on any network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.evaluation import PGD, AttackFigures, figures
from vicinal.evaluation.attacks import algorithms, cross_entropy_against, log_odds_against, robustness, search
from vicinal.vicinity.projected import NormName, projected_ascent

Untouched = Callable[[nn.Module], AbstractContextManager[None]]
RADII = (0.05, 0.2, 0.5, 1.0)


class Recorder(nn.Module):
    """A network, and every input that it was shown."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(x.detach().clone())
        found: Tensor = self.network(x)
        return found


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(scale: float = 1.0) -> nn.Linear:
    """A linear classifier of two classes."""
    made = nn.Linear(4, 2)
    for parameter in made.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=seeded(1))
    return made


def points() -> list[tuple[Tensor, Tensor]]:
    """Some 15 % of them are on the wrong side."""
    x = torch.randn(400, 4, generator=seeded(2))
    y = linear()(x).detach().argmax(dim=1)
    return list(zip(x.split(150), (y ^ (torch.rand(400, generator=seeded(3)) < 0.15).long()).split(150), strict=True))


def closed_form(norm: NormName, epsilon: float) -> float:
    """Share of points whose signed distance to the boundary, in the norm of the ball, is less than epsilon."""
    w = linear().weight[1] - linear().weight[0]
    offset = linear().bias[1] - linear().bias[0]
    x, y = (torch.cat(parts) for parts in zip(*points(), strict=True))
    distance = (2 * y - 1) * (x @ w + offset) / (w.abs().sum() if norm == "linf" else w.norm())
    return float((distance < epsilon).double().mean())


def check_closed_form(norm: NormName, **settings: Any) -> None:
    for epsilon in RADII:
        found = PGD(norm=norm, epsilon=epsilon, bounds=None, **settings)(linear(), points(), seed=0)
        assert found.error == pytest.approx(closed_form(norm, epsilon), abs=1e-9)
        assert found.clean_error == pytest.approx(closed_form(norm, 0.0), abs=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_linear_classifiers_have_a_closed_form(norm: NormName) -> None:
    check_closed_form(norm, random_start=False)
    check_closed_form(norm, step_size=1.0, restarts=2)  # from anywhere in the ball; L2 turns slowly in short steps
    assert len({closed_form(norm, epsilon) for epsilon in (0, *RADII)}) == 5


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_sure_predictions_are_no_defence(scale: float) -> None:
    """Cross-entropy in float32 has no gradient once a prediction is sure; its increasing function here has."""
    attack = PGD(norm="l2", epsilon=0.5, bounds=None, random_start=False)
    assert attack(linear(scale), points(), seed=0).error == pytest.approx(closed_form("l2", 0.5), abs=1e-9)
    found = robustness(linear(scale), points(), attack, epsilons=(0.5,), seed=0, loss=cross_entropy_against)
    masked = found.errors[0.5] < closed_form("l2", 0.5) - 0.05
    assert masked is (scale > 1)


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        pytest.param("steepest", lambda gradient, norm: -gradient.sign(), id="downhill"),
        pytest.param("steepest", lambda gradient, norm: torch.zeros_like(gradient), id="stands still"),
        pytest.param("project", lambda x, moved, *ball: moved, id="leaves the ball"),
    ],
)
def test_a_wrong_attack_misses_the_closed_form(target: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(algorithms, target, wrong)
    with pytest.raises(AssertionError):
        check_closed_form("linf", random_start=False)


def test_log_odds_are_those_of_the_softmax() -> None:
    logits, y = 3 * torch.randn(50, 7, generator=seeded(), dtype=torch.float64), torch.arange(50) % 7
    found = log_odds_against(logits, y)
    p = logits.softmax(dim=1).gather(1, y.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(found, ((1 - p) / p).log())
    torch.testing.assert_close(F.softplus(found), F.cross_entropy(logits, y, reduction="none"))
    torch.testing.assert_close(F.softplus(found), cross_entropy_against(logits, y))


def test_a_radius_of_zero_is_the_clean_error(trained: nn.Module, digits: Any) -> None:
    network = Recorder(trained)
    found = PGD(norm="linf", epsilon=0)(network, digits, seed=0)
    assert found.error == found.clean_error == figures(trained, digits).error
    assert len(network.shown) == len(digits)
    assert all(torch.equal(shown, x) for shown, (x, _) in zip(network.shown, digits, strict=True))


def test_what_never_helps_the_defender(trained: nn.Module, digits: Any) -> None:
    """A larger radius, more steps of one length, more restarts, many steps instead of one; and all is lost at 1."""
    radii = (0.0, 0.02, 0.05, 0.1, 0.2, 1.0)
    for norm, scale in (("linf", 1.0), ("l2", 8.0)):
        many = [PGD(norm=norm, epsilon=scale * e, steps=10)(trained, digits, seed=0).error for e in radii]
        fast = [
            PGD(norm=norm, epsilon=scale * e, steps=1, step_size=scale * (e or 1), random_start=False)(
                trained, digits, seed=0
            ).error
            for e in radii
        ]
        assert many == sorted(many)
        assert many[0] < 0.1
        assert many[-1] > 0.99
        assert all(a >= b for a, b in zip(many, fast, strict=True))
        assert many[3] > fast[3]
    settings = {"norm": "linf", "epsilon": 0.05, "step_size": 0.005}
    for name, counts in (("steps", (1, 2, 5, 10, 20)), ("restarts", (1, 2, 4))):
        found = [PGD(**settings | {"steps": 5, name: n})(trained, digits, seed=0).error for n in counts]
        assert found == sorted(found)
        assert found[0] < found[-1] or name == "restarts"


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_visited_point_is_outside_of_ball_or_bounds(norm: NormName, trained: nn.Module, digits: Any) -> None:
    x, y = digits[0]
    epsilon = 0.1 if norm == "linf" else 0.8
    for row in range(0, 60, 20):  # one by one, so that each visited point has its input
        network = Recorder(trained)
        PGD(norm=norm, epsilon=epsilon, steps=6, restarts=2)(network, [(x[row : row + 1], y[row : row + 1])], seed=row)
        shown = torch.cat(network.shown)
        moved = shown - x[row]
        assert moved.flatten(1).norm(dim=1, p=float("inf") if norm == "linf" else 2).max() <= epsilon + 1e-6
        assert shown.min() >= 0
        assert shown.max() <= 1
        assert moved.abs().max() > epsilon / 64


def test_the_fooled_leave_the_batch_and_the_others_are_led_by_projected_ascent(trained: nn.Module, digits: Any) -> None:
    x, y = digits[0]
    network = Recorder(trained)
    found = PGD(norm="linf", epsilon=0.1, steps=8, random_start=False)(network, [(x, y)], seed=0)
    sizes = [len(shown) for shown in network.shown]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 3
    stood = round((1 - found.error) * found.n)
    assert 0 < stood <= sizes[-1]
    trained.eval()
    moved = projected_ascent(
        lambda v: log_odds_against(trained(v), y),
        x,
        norm="linf",
        epsilon=0.1,
        step_size=0.03125,
        steps=8,
        bounds=(0, 1),
    )
    last = network.shown[-1]
    with torch.no_grad():
        kept = last[trained(last).argmax(dim=1) == y[_rows_of(last, moved)]]
    trained.train()
    assert len(kept) == stood


def _rows_of(some: Tensor, of: Tensor) -> Tensor:
    """Which row of ``of`` each of ``some`` is; an error if it is none."""
    gaps = torch.cdist(some.flatten(1), of.flatten(1), p=float("inf"))
    assert gaps.amin(dim=1).max() < 1e-6
    return gaps.argmin(dim=1)


def test_starts_come_from_the_seed_the_restart_and_the_batch_alone(trained: nn.Module, digits: Any) -> None:
    def starts(batches: Any, seed: int = 0, restarts: int = 1) -> list[Tensor]:
        network = Recorder(trained)
        PGD(norm="linf", epsilon=1e-4, steps=1, restarts=restarts)(network, batches, seed)
        return network.shown[1::3]

    x, y = digits[0]
    one = starts([(x, y)])[0]
    torch.rand(1)  # the global generator has no part in it
    assert torch.equal(one, starts([(x, y)])[0])
    assert not torch.equal(one, starts([(x, y)], seed=1)[0])
    first, second = starts([(x, y)] * 2)
    assert not torch.equal(first, second)
    # Sample 5 starts where it did although others were fooled before the attack.
    wrong = torch.where(torch.arange(len(y)) < 5, (y + 1) % 10, y)
    assert torch.equal(starts([(x, wrong)])[0], one[-len(starts([(x, wrong)])[0]) :])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nothing_is_left_behind(norm: NormName, trained: nn.Module, digits: Any, untouched: Untouched) -> None:
    attack = PGD(norm=norm, epsilon=0.1, steps=3, restarts=2)
    with untouched(trained), torch.no_grad():
        first = attack(trained, digits, seed=0)
    assert first == attack(trained, digits, seed=0)
    assert isinstance(first, AttackFigures)
    assert first.n == 300
    assert all(type(value) in (int, float) for value in vars(first).values())


def test_a_trace_would_be_seen(
    trained: nn.Module, digits: Any, untouched: Untouched, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    monkeypatch.setattr(search, "applied", lambda network, policy: contextlib.nullcontext())
    with pytest.raises(AssertionError), untouched(trained):
        PGD(norm="l2", epsilon=0.1, steps=1)(trained, digits, seed=0)
    trained.load_state_dict(before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": "l1"}, "norm: unknown 'l1'"),
        ({"epsilon": -0.1}, "epsilon must be at least 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"restarts": 0}, "restarts must be at least 1"),
        ({"step_size": 0.0}, "step_size must be greater than 0"),
        ({"bounds": (1.0, 0.0)}, "bounds: expected (low, high)"),
        ({"restarts": 2, "random_start": False}, "restarts: without random starts"),
    ],
)
def test_bad_settings_are_one_clear_line(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        PGD(**{"norm": "linf", "epsilon": 0.1, **wrong})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_inputs_out_of_bounds_and_no_inputs_are_refused() -> None:
    with pytest.raises(InputError, match=r"outside of \[0.0, 1.0\]; give the data's bounds"):
        PGD(norm="linf", epsilon=0.1)(linear(), points(), seed=0)
    with pytest.raises(InputError, match="no examples"):
        PGD(norm="linf", epsilon=0.1)(linear(), [], seed=0)
