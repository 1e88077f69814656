"""Each attack against closed forms on linear classifiers, and against NumPy on a quadratic loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.evaluation.attacks import (
    APGD,
    FGM,
    FGSM,
    PGD,
    GradientAttack,
    MomentumPGD,
    algorithms,
    perturb,
    robustness,
)
from vicinal.evaluation.attacks.algorithms import checkpoints
from vicinal.settings import settings_of
from vicinal.vicinity.projected import NormName

RADII = (0.05, 0.2, 0.5, 1.0)
ATTACKS: Mapping[str, GradientAttack] = {
    "fgm": FGM(epsilon=0, bounds=None),
    "fgsm": FGSM(epsilon=0, bounds=None),
    **{
        f"{name}-{norm}": kind(norm=norm, epsilon=0, steps=6, random_start=False, bounds=None)
        for norm in ("linf", "l2")
        for name, kind in (("pgd", PGD), ("momentum", MomentumPGD), ("apgd", APGD))
    },
}


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear() -> nn.Linear:
    made = nn.Linear(4, 2, dtype=torch.float64)
    made.weight.data, made.bias.data = drawn(2, 4, seed=1), drawn(2, seed=2)
    return made


def points() -> list[tuple[Tensor, Tensor]]:
    """Some 15 % of them are on the wrong side."""
    x = drawn(300, 4, seed=3)
    y = linear()(x).detach().argmax(dim=1) ^ (drawn(300, seed=4) > 1.03).long()
    return list(zip(x.split(128), y.split(128), strict=True))


def closed_form(norm: NormName, epsilon: float) -> float:
    """Share of points whose signed distance to the boundary is less than epsilon."""
    network, (x, y) = linear(), (torch.cat(parts) for parts in zip(*points(), strict=True))
    w, offset = network.weight[1] - network.weight[0], network.bias[1] - network.bias[0]
    distance = (2 * y - 1) * (x @ w + offset) / (w.abs().sum() if norm == "linf" else w.norm())
    return float((distance < epsilon).double().mean())


def check_closed_form(attack: GradientAttack, **settings: Any) -> None:
    found = robustness(linear(), points(), attack, epsilons=RADII, seed=0, **settings)
    assert found.clean_error == pytest.approx(closed_form(attack.norm, 0.0), abs=1e-12)
    for epsilon in RADII:
        assert found.errors[epsilon] == pytest.approx(closed_form(attack.norm, epsilon), abs=1e-12)


@pytest.mark.parametrize("count", ["visited", "last"])
@pytest.mark.parametrize("name", ATTACKS)
def test_linear_classifiers_have_a_closed_form(name: str, count: str) -> None:
    check_closed_form(ATTACKS[name], count=count)
    assert len({closed_form("l2", epsilon) for epsilon in (0, *RADII)}) == 5


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(
    "wrong", [lambda gradient, norm: -gradient.sign(), lambda gradient, norm: torch.zeros_like(gradient)]
)
def test_a_wrong_direction_misses_it(name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(algorithms, "steepest", wrong)
    with pytest.raises(AssertionError):
        check_closed_form(ATTACKS[name])


class Quadratic(nn.Module):
    """The first logit is -(x - c)^T A (x - c) / 2, which is also the loss: every example keeps its prediction."""

    def __init__(self) -> None:
        super().__init__()
        root = drawn(5, 5, seed=5)
        self.a, self.c = root @ root.T, 0.5 * drawn(5, seed=6)

    def forward(self, x: Tensor) -> Tensor:
        away = x - self.c
        value = -0.5 * ((away @ self.a) * away).sum(dim=1)
        return torch.stack([value, torch.full_like(value, -1e6)], dim=1)


def searched(attack: GradientAttack) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, and where the attack ends, (8, 5)."""
    x, y = drawn(8, 5, seed=7), torch.zeros(8, dtype=torch.int64)
    network = Quadratic()
    found = perturb(network, x, y, attack, seed=0, loss=lambda logits, y: logits[:, 0], count="last")
    assert not found.wrong.any()
    return x.numpy(), found.x.numpy()


class Reference:
    """The same loss, ball and box in NumPy, for one vector."""

    def __init__(self, x: np.ndarray, norm: str, epsilon: float, box: float | None) -> None:
        network = Quadratic()
        self.a, self.c = network.a.numpy(), network.c.numpy()
        self.x, self.norm, self.epsilon, self.box = x, norm, epsilon, box

    def value(self, v: np.ndarray) -> float:
        return float(-0.5 * (v - self.c) @ self.a @ (v - self.c))

    def gradient(self, v: np.ndarray) -> np.ndarray:
        return -self.a @ (v - self.c)

    def direction(self, g: np.ndarray) -> np.ndarray:
        return np.sign(g) if self.norm == "linf" else g / np.sqrt(np.sum(g**2))

    def back(self, v: np.ndarray) -> np.ndarray:
        d = v - self.x
        if self.norm == "linf":
            d = np.clip(d, -self.epsilon, self.epsilon)
        else:
            d = d * min(1.0, self.epsilon / max(np.sqrt(np.sum(d**2)), 1e-300))
        return self.x + d if self.box is None else np.clip(self.x + d, -self.box, self.box)

    def momentum(self, steps: int, mu: float) -> np.ndarray:
        v, velocity = self.x, np.zeros_like(self.x)
        for _ in range(steps):
            g = self.gradient(v)
            velocity = mu * velocity + g / np.abs(g).sum()
            v = self.back(v + self.epsilon / steps * self.direction(velocity))
        return v

    def auto(self, steps: int, alpha: float = 0.75, rho: float = 0.75, marks: bool = True) -> tuple[np.ndarray, int]:
        """The best point, and how often the step was halved."""
        shares = [0.0, 0.22]
        while marks and shares[-1] <= 1:
            shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
        checks = {int(np.ceil(round(share * steps, 9))) for share in shares[1:]} if marks else set()
        now = before = best = self.x
        last = highest = highest_then = self.value(now)
        eta, rises, mark, reduced, halvings = 2 * self.epsilon, 0, 0, False, 0
        for k in range(1, steps + 1):
            z = self.back(now + eta * self.direction(self.gradient(now)))
            new = z if k == 1 else self.back(now + alpha * (z - now) + (1 - alpha) * (now - before))
            before, now = now, new
            value = self.value(now)
            rises, last = rises + (value > last), value
            if value > highest:
                best, highest = now, value
            if k in checks and k < steps:
                reduced = rises < rho * (k - mark) or (not reduced and highest == highest_then)
                if reduced:
                    eta, now, last, halvings = eta / 2, best, highest, halvings + 1
                highest_then, rises, mark = highest, 0, k
        return best, halvings


BALLS = [("linf", 0.7), ("l2", 1.1)]


def compare(attack: GradientAttack, reference: Callable[[Reference], np.ndarray]) -> None:
    x, found = searched(attack)
    expected = np.stack([reference(Reference(row, attack.norm, attack.epsilon, None)) for row in x])
    # Where an ascent has converged, rounding of the loss (1e-16) decides what the best point is, by its root.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("norm", "epsilon"), BALLS)
@pytest.mark.parametrize("mu", [1.0, 0.5, 0.0])
def test_momentum_is_that_of_numpy(norm: Any, epsilon: float, mu: float) -> None:
    attack = MomentumPGD(norm=norm, epsilon=epsilon, steps=12, momentum=mu, bounds=None)
    compare(attack, lambda reference: reference.momentum(12, mu))
    with pytest.raises(AssertionError):
        compare(attack, lambda reference: reference.momentum(12, mu + 0.3))


def test_without_momentum_it_is_projected_gradient_ascent() -> None:
    settings: Any = {"norm": "linf", "epsilon": 0.7, "steps": 9, "random_start": False, "bounds": None}
    plain = searched(PGD(**settings, step_size=0.7 / 9))[1]
    assert np.array_equal(searched(MomentumPGD(**settings, momentum=0.0))[1], plain)
    assert not np.allclose(searched(MomentumPGD(**settings))[1], plain)


@pytest.mark.parametrize(("norm", "epsilon"), BALLS)
@pytest.mark.parametrize("steps", [7, 40, 100])
def test_auto_pgd_is_that_of_numpy(norm: Any, epsilon: float, steps: int) -> None:
    attack = APGD(norm=norm, epsilon=epsilon, steps=steps, random_start=False, bounds=None)
    compare(attack, lambda reference: reference.auto(steps)[0])
    for wrong in ({"alpha": 1.0}, {"marks": False}):
        with pytest.raises(AssertionError):
            compare(attack, lambda reference, wrong=wrong: reference.auto(steps, **wrong)[0])
    halvings = [Reference(row, norm, epsilon, None).auto(steps)[1] for row in searched(attack)[0]]
    assert max(halvings) > 0


def test_auto_pgd_keeps_to_a_box() -> None:
    norm, epsilon, box = "linf", 0.7, 1.5
    x = drawn(8, 5, seed=7).clamp(-box, box)
    attack = APGD(norm=norm, epsilon=epsilon, steps=40, random_start=False, bounds=(-box, box))
    y = torch.zeros(8, dtype=torch.int64)
    found = perturb(Quadratic(), x, y, attack, seed=0, loss=lambda logits, y: logits[:, 0], count="last").x.numpy()
    expected = [Reference(row, norm, epsilon, box).auto(40)[0] for row in x.numpy()]
    free = [Reference(row, norm, epsilon, None).auto(40)[0] for row in x.numpy()]
    np.testing.assert_allclose(found, np.stack(expected), rtol=0, atol=1e-10)
    assert not np.allclose(found, np.stack(free))


def test_steps_that_halve_come_nearer_to_a_maximum_than_fixed_ones() -> None:
    """The maximum of 0 lies inside of the balls: fixed steps circle it."""
    ball: Any = {"norm": "l2", "epsilon": 5.0, "steps": 20, "random_start": False, "bounds": None}
    gaps = []
    for attack in (APGD(**ball), PGD(**ball)):
        x, found = searched(attack)
        reference = Reference(x[0], "l2", 5.0, None)
        assert np.linalg.norm(x - reference.c, axis=1).max() < 5
        gaps.append(np.array([-reference.value(row) for row in found]))
    assert (gaps[0] <= gaps[1]).all()
    assert gaps[0].mean() < 0.1 * gaps[1].mean()


def test_checkpoints_are_the_papers() -> None:
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert [mark / 1000 for mark in checkpoints(1000)] == [0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99]
    assert checkpoints(20)[:3] == (5, 9, 12)  # rounded up


def test_a_zero_gradient_and_a_tiny_one() -> None:
    rows = torch.tensor([[0.0, 0.0], [3e-38, -1e-38], [torch.inf, 1.0], [torch.nan, 1.0], [3.0, 1.0]])
    found = algorithms._of_l1_norm_one(rows)
    torch.testing.assert_close(found, torch.tensor([[0, 0], [0.75, -0.25], [0, 0], [0, 0], [0.75, 0.25]]))


def test_settings_say_what_is_fixed() -> None:
    assert {setting.name for setting in settings_of(FGM)} == {"bounds"}
    assert (FGM(epsilon=1).norm, FGSM(epsilon=1).norm) == ("l2", "linf")
    assert {setting.name for setting in settings_of(APGD)} == {
        "steps", "restarts", "random_start", "bounds", "momentum", "rho",
    }  # fmt: skip
    assert all(setting.help for setting in settings_of(MomentumPGD))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MomentumPGD(norm="linf", epsilon=1, momentum=1.5), "momentum must be at most 1"),
        (lambda: MomentumPGD(norm="linf", epsilon=1, step_size=0.0), "step_size must be greater than 0"),
        (lambda: APGD(norm="linf", epsilon=1, momentum=0.0), "momentum must be greater than 0"),
        (lambda: APGD(norm="l2", epsilon=1, rho=1.5), "rho must be at most 1"),
        (lambda: APGD(norm="l3", epsilon=1), "norm: unknown 'l3'"),
        (lambda: FGM(epsilon=-1), "epsilon must be at least 0"),
        (lambda: FGSM(epsilon=1, bounds=(1, 0)), "bounds: expected (low, high)"),
    ],
)
def test_bad_settings_are_one_clear_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as raised:
        make()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
