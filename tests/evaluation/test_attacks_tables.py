"""Spaces, white and black boxes, rules of counting, several radii in one call, and what is left behind: nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.evaluation import figures
from vicinal.evaluation.attacks import (
    APGD,
    FGM,
    FGSM,
    PGD,
    GradientAttack,
    MomentumPGD,
    log_odds_against,
    perturb,
    robustness,
    tables,
)
from vicinal.networks import Classifier, Normalise, mlp

Untouched = Callable[[nn.Module], AbstractContextManager[None]]
ATTACKS: dict[str, GradientAttack] = {
    "fgm": FGM(epsilon=0.5),
    "fgsm": FGSM(epsilon=0.05),
    **{
        f"{name}-{norm}": kind(norm=norm, epsilon=0.05 if norm == "linf" else 0.5, steps=5)
        for norm in ("linf", "l2")
        for name, kind in (("pgd", PGD), ("momentum", MomentumPGD), ("apgd", APGD))
    },
}


class Recorder(nn.Module):
    """A network, and the size of each batch that it was shown."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        found: Tensor = self.network(x)
        return found


@pytest.fixture(scope="module")
def other() -> Classifier:
    """A network with weights and a preprocessing of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        made = mlp((1, 8, 8), 10, hidden=[16], norm="batch")
    made.preprocess = Normalise([0.5], [0.25])
    return made


@pytest.mark.parametrize("count", ["visited", "last"])
@pytest.mark.parametrize("space", ["pixels", "input"])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_radius_of_zero_returns_the_input(name: str, space: Any, count: Any, other: Classifier, digits: Any) -> None:
    x, y = digits[0]
    found = perturb(other, x, y, tables.replace(ATTACKS[name], epsilon=0), seed=0, space=space, count=count)
    assert torch.equal(found.x, x if space == "pixels" else other.preprocess(x))
    assert found.x is not x
    assert float(found.wrong.double().mean()) == figures(other, digits[:1]).error
    moved = perturb(other, x, y, tables.replace(ATTACKS[name], epsilon=1e-3), seed=0, space=space, count="last")
    assert not torch.equal(moved.x, found.x)


@pytest.mark.parametrize("space", ["pixels", "input"])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_copy_as_source_is_a_white_box(name: str, space: Any, trained: Any, other: Classifier, digits: Any) -> None:
    x, y = digits[0]
    settings: Any = {"seed": 0, "space": space}
    for count in ("visited", "last"):
        white = perturb(trained, x, y, ATTACKS[name], count=count, **settings)
        black = perturb(trained, x, y, ATTACKS[name], source=copy.deepcopy(trained), count=count, **settings)
        assert torch.equal(white.x, black.x)
        assert torch.equal(white.wrong, black.wrong)
        foreign = perturb(trained, x, y, ATTACKS[name], source=other, count=count, **settings)
        assert not torch.equal(white.x, foreign.x)
        assert foreign.wrong.sum() < white.wrong.sum() or space == "input"


def test_a_shared_source_says_so_in_the_table(trained: Any, other: Classifier, digits: Any) -> None:
    settings: Any = {"epsilons": (0, 0.5), "seed": 0, "space": "input"}
    white, black = (robustness(trained, digits, FGM(epsilon=0), **settings, source=net) for net in (None, other))
    assert (white.box, black.box, white.space, white.norm, white.attack) == ("white", "black", "input", "l2", "FGM")
    assert white.clean_error == white.errors[0] == figures(trained, digits).error
    # The target is fed what the source's preprocessing made of the images, which it was not trained on.
    assert black.clean_error == black.errors[0] > white.clean_error


def test_input_space_is_that_of_the_preprocessing(other: Classifier, digits: Any) -> None:
    """(x - 0.5) / 0.25 makes a radius four times as long; and there are no bounds."""
    x, y = digits[0]
    inside = perturb(other, x, y, FGM(epsilon=2.0), seed=0, space="input").x
    outside = perturb(other, x, y, FGM(epsilon=0.5, bounds=None), seed=0).x
    torch.testing.assert_close(inside, other.preprocess(outside), rtol=0, atol=1e-5)
    torch.testing.assert_close((inside - other.preprocess(x)).flatten(1).norm(dim=1), torch.full((len(x),), 2.0))
    assert outside.min() < 0
    assert perturb(other, x, y, FGM(epsilon=0.5), seed=0).x.min() == 0
    same = perturb(other, x, y, FGM(epsilon=0.5), seed=0, space="input").x
    assert not torch.allclose(same, inside, atol=1e-2)


def test_a_black_box_in_input_space_is_fed_straight_to_the_target(trained: Any, other: Classifier, digits: Any) -> None:
    x, y = digits[0]
    found = perturb(trained, x, y, FGM(epsilon=3.0), seed=0, source=other, space="input")
    target, source = copy.deepcopy(trained).eval(), copy.deepcopy(other).eval()
    z = source.preprocess(x).requires_grad_()
    loss = nn.functional.cross_entropy(source.head(source.body(z)), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, z)
    moved = (z + 3.0 * gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).detach()
    wrong = target.head(target.body(moved)).argmax(dim=1) != y
    torch.testing.assert_close(found.x, moved, rtol=0, atol=1e-5)
    assert torch.equal(found.wrong, wrong)
    pixels = perturb(trained, x, y, FGM(epsilon=3.0), seed=0, source=other)
    assert not torch.equal(pixels.wrong, wrong)


@pytest.mark.parametrize("name", ATTACKS)
def test_several_radii_are_each_as_alone(name: str, trained: Any, digits: Any) -> None:
    attack, radii = ATTACKS[name], (0.0, 0.02, 0.1)
    table = robustness(trained, digits, attack, epsilons=radii, seed=0)
    for epsilon in radii:
        alone = tables.replace(attack, epsilon=epsilon)(trained, digits, seed=0)
        assert (alone.error, alone.clean_error) == (table.errors[epsilon], table.clean_error)
    assert list(table.errors) == list(radii)
    assert table.errors[0.1] > table.errors[0.0]


def test_the_clean_pass_is_shared_and_no_pass_is_wasted(trained: Any, digits: Any) -> None:
    network, source = Recorder(trained), Recorder(copy.deepcopy(trained))
    robustness(network, digits, FGSM(epsilon=0), epsilons=(0, 0.01, 0.02), seed=0)
    assert len(network.sizes) == len(digits) * (1 + 2 * 2)
    network.sizes.clear()
    attack = PGD(norm="linf", epsilon=1e-6, steps=4)
    robustness(network, digits[:1], attack, epsilons=(1e-6,), seed=0, source=source)
    assert (len(network.sizes), len(source.sizes)) == (1 + 5, 4)
    network.sizes.clear()
    robustness(network, digits[:1], attack, epsilons=(1e-6,), seed=0, source=source, count="last")
    assert (len(network.sizes), len(source.sizes)) == (1 + 1, 4 + 4)


@pytest.mark.parametrize("name", [name for name in ATTACKS if "-" in name])
def test_points_that_count_are_wrong_and_lie_in_ball_and_bounds(name: str, trained: Any, digits: Any) -> None:
    x, y = digits[0]
    attack = ATTACKS[name]
    attack = tables.replace(attack, epsilon=2 * attack.epsilon)
    found = perturb(trained, x, y, attack, seed=0)
    trained.eval()
    wrong = trained(found.x).argmax(dim=1) != y
    trained.train()
    assert torch.equal(wrong, found.wrong)
    assert 0 < int(wrong.sum()) < len(y)
    moved = (found.x - x).flatten(1).norm(dim=1, p=float("inf") if attack.norm == "linf" else 2)
    assert attack.epsilon / 2 < moved.max() <= attack.epsilon + 1e-6
    assert (found.x.min(), found.x.max()) == (0, 1)
    assert int(found.wrong.sum()) == round(len(y) * attack(trained, digits[:1], seed=0).error)


def test_the_two_rules_of_counting(trained: Any, digits: Any) -> None:
    """The last point of an attack counts for all, or any point of those that were right."""
    x, y = digits[0]
    y = torch.where(torch.arange(len(y)) < 20, (y + 1) % 10, y)
    settings: Any = {"seed": 0, "count": "visited"}
    left = perturb(trained, x, y, FGM(epsilon=2.0), **settings)
    assert torch.equal(left.x[:20], x[:20])
    assert left.wrong[:20].all()
    published = perturb(trained, x, y, FGM(epsilon=2.0), seed=0)
    assert bool((published.x != x).flatten(1).any(dim=1).all())
    # Towards the true class: what is wrong as it is becomes right, which the published rule alone counts.
    helped = perturb(trained, x, y, FGM(epsilon=2.0), seed=0, loss=lambda logits, y: -log_odds_against(logits, y))
    assert not helped.wrong[:20].all()
    assert helped.wrong.sum() < published.wrong.sum()


@pytest.mark.parametrize("name", ATTACKS)
def test_a_larger_radius_never_helps(name: str, trained: Any, digits: Any) -> None:
    attack = tables.replace(ATTACKS[name], **({"steps": 10} if "-" in name else {}))
    radii = tuple(attack.epsilon * factor for factor in (0, 0.5, 1, 2, 4))
    errors = list(robustness(trained, digits, attack, epsilons=radii, seed=0, count="visited").errors.values())
    assert errors == sorted(errors)
    assert errors[-1] > errors[0] + 0.5


@pytest.mark.parametrize("space", ["pixels", "input"])
@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_left_behind(
    name: str, space: Any, trained: Any, other: Classifier, digits: Any, untouched: Untouched
) -> None:
    with untouched(trained), untouched(other), torch.no_grad():
        first = robustness(trained, digits, ATTACKS[name], epsilons=(0.1,), seed=0, source=other, space=space)
    assert first == robustness(trained, digits, ATTACKS[name], epsilons=(0.1,), seed=0, source=other, space=space)


def test_any_loss_leads(trained: Any, digits: Any) -> None:
    def margin(logits: Tensor, y: Tensor) -> Tensor:
        true = logits.gather(1, y.unsqueeze(1)).squeeze(1)
        return logits.scatter(1, y.unsqueeze(1), -torch.inf).amax(dim=1) - true

    table = {
        name: robustness(trained, digits, PGD(norm="linf", epsilon=0), epsilons=(0.1,), seed=0, loss=loss).errors[0.1]
        for name, loss in {
            "margin": margin,
            "log odds": log_odds_against,
            "friendly": lambda logits, y: -margin(logits, y),
        }.items()
    }
    assert abs(table["margin"] - table["log odds"]) < 0.05
    assert table["friendly"] < 0.2 * table["margin"]


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.flatten(1).sum(dim=1), x.flatten(1).mean(dim=1)], dim=1).detach()


@pytest.mark.parametrize(
    ("network", "settings", "message"),
    [
        (nn.Linear(64, 10), {"space": "input"}, "space: 'input' needs networks with a preprocessing layer"),
        (nn.Linear(64, 10), {"space": "pixel"}, "space: unknown 'pixel'; did you mean 'pixels'?"),
        (nn.Linear(64, 10), {"count": "any"}, "count: unknown 'any'; known: last, visited"),
        (nn.Linear(64, 10), {"epsilons": ()}, "epsilons: there are none"),
        (nn.Linear(64, 10), {"epsilons": (-1.0,)}, "epsilon must be at least 0"),
        (
            nn.Linear(64, 10),
            {"loss": nn.functional.cross_entropy, "count": "last"},
            "loss: expected one number per example",
        ),
        (Detached(), {}, "no gradient reaches the inputs"),
    ],
)
def test_what_cannot_be_attacked_is_one_clear_line(network: nn.Module, settings: Any, message: str) -> None:
    batch = torch.full((3, 64), 0.5), torch.tensor([0, 1, 0])
    with pytest.raises(InputError) as raised:
        robustness(network, [batch], PGD(norm="linf", epsilon=0), **{"epsilons": (0.1,), "seed": 0, **settings})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
