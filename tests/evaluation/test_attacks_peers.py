"""The same attacks by other libraries: the same points where an algorithm is deterministic, else nearly the same error.

Each test skips where its library is not importable.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError, MissingExtraError
from vicinal.evaluation import figures
from vicinal.evaluation.attacks import (
    APGD,
    FGM,
    FGSM,
    PGD,
    AutoAttack,
    CountName,
    GradientAttack,
    MomentumPGD,
    PeerAttack,
    cross_entropy_against,
    peer_perturb,
    peer_robustness,
    perturb,
    robustness,
)
from vicinal.vicinity.projected import NormName

Untouched = Callable[[nn.Module], AbstractContextManager[None]]


def ball(norm: NormName) -> Any:
    return {"norm": norm, "epsilon": 0.08 if norm == "linf" else 0.6}


FIXED: dict[str, GradientAttack] = {
    "fgm": FGM(epsilon=0.6),
    "fgsm": FGSM(epsilon=0.08),
    "pgd-linf": PGD(**ball("linf"), random_start=False, steps=10),
    "pgd-l2": PGD(**ball("l2"), random_start=False, steps=10),
}
MOMENTUM = MomentumPGD(**ball("linf"), steps=10)
AUTO = AutoAttack(**ball("linf"), steps=5, queries=50)
EVERY: dict[str, GradientAttack] = {
    **FIXED,
    **{
        f"{name}-{norm}": kind(**ball(norm), steps=4, restarts=2, random_start=True)
        for norm in ("linf", "l2")
        for name, kind in (("pgd", PGD), ("momentum", MomentumPGD), ("apgd", APGD))
    },
}


@pytest.fixture(scope="module", params=["foolbox", "torchattacks"])
def peer(request: pytest.FixtureRequest) -> Any:
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture
def network(trained: nn.Module) -> nn.Module:
    """In double precision, so that no sign of a gradient hangs on the order of a sum."""
    return copy.deepcopy(trained).double()


def doubled(batches: Any) -> Any:
    return [(x.double(), y) for x, y in batches]


def check_equal(peer: Any, network: nn.Module, attack: GradientAttack, x: Tensor, y: Tensor) -> None:
    theirs = peer_perturb(peer, network, x, y, attack, seed=0)
    ours = perturb(network, x, y, attack, seed=0, count="last")
    torch.testing.assert_close(ours.x, theirs.x, rtol=0, atol=1e-5)
    assert torch.equal(ours.wrong, theirs.wrong)
    assert 0 < int(ours.wrong.sum()) < len(y)


@pytest.mark.parametrize("name", FIXED)
def test_deterministic_attacks_find_the_same_points(name: str, peer: Any, network: nn.Module, digits: Any) -> None:
    x, y = doubled(digits)[0]
    attack = FIXED[name]
    check_equal(peer, network, attack, x, y)
    theirs = peer_perturb(peer, network, x, y, attack, seed=0).x
    other = perturb(network, x, y, replace(attack, epsilon=1.02 * attack.epsilon), seed=0, count="last").x
    assert not torch.allclose(theirs, other, rtol=0, atol=1e-5)


def test_momentum_finds_the_same_points(network: nn.Module, digits: Any) -> None:
    pytest.importorskip("torchattacks")
    x, y = doubled(digits)[0]
    check_equal("torchattacks", network, MOMENTUM, x, y)
    theirs = peer_perturb("torchattacks", network, x, y, replace(MOMENTUM, momentum=0.5), seed=0)
    assert not torch.allclose(perturb(network, x, y, MOMENTUM, seed=0, count="last").x, theirs.x, rtol=0, atol=1e-5)


def mean_errors(network: nn.Module, batches: Any, attack: GradientAttack, peer: Any, **settings: Any) -> list[float]:
    """Error by a peer and by ours, means over seeds: 300 digits move by a third of a point with one of them."""
    both: list[list[float]] = [[], []]
    for seed in range(5):
        fixed: Any = {"epsilons": (attack.epsilon,), "seed": seed}
        both[0] += peer_robustness(peer, network, batches, attack, **fixed).errors.values()
        both[1] += robustness(network, batches, attack, **fixed, **settings).errors.values()
    return [sum(errors) / 5 for errors in both]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_find_nearly_the_same_error(norm: NormName, peer: Any, network: nn.Module, digits: Any) -> None:
    attack, batches = PGD(**ball(norm), steps=20), doubled(digits)
    theirs, ours = mean_errors(network, batches, attack, peer, count="last")
    # torchattacks draws L2 starts with uniform lengths, so nearer to the input than starts uniform in the ball.
    assert abs(theirs - ours) <= (0.03 if (peer, norm) == ("torchattacks", "l2") else 0.005)
    shorter = robustness(network, batches, attack, epsilons=(0.9 * attack.epsilon,), seed=0, count="last")
    assert theirs - shorter.errors[0.9 * attack.epsilon] > 0.03


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_auto_pgd_finds_nearly_the_same_error(norm: NormName, network: nn.Module, digits: Any) -> None:
    pytest.importorskip("torchattacks")
    theirs, ours = mean_errors(network, doubled(digits), APGD(**ball(norm), steps=30), "torchattacks")
    assert abs(theirs - ours) <= 0.005
    plain = PGD(**ball(norm), steps=30)(network, doubled(digits), seed=0).error
    assert ours >= plain > 0.1


def test_a_table_is_like_ours(peer: Any, trained: Any, digits: Any) -> None:
    settings: Any = {"epsilons": (0, 0.05), "seed": 0}
    theirs = peer_robustness(peer, trained, digits, FGSM(epsilon=0), **settings)
    ours = robustness(trained, digits, FGSM(epsilon=0), **settings, loss=cross_entropy_against)
    assert theirs == replace(ours, attack=f"FGSM ({peer})")
    assert theirs.clean_error == theirs.errors[0] == figures(trained, digits).error


def test_a_radius_of_zero_returns_the_input(peer: Any, trained: Any, digits: Any) -> None:
    x, y = digits[0]
    assert torch.equal(peer_perturb(peer, trained, x, y, FGM(epsilon=0), seed=0).x, x)


@contextlib.contextmanager
def marked(network: nn.Module) -> Iterator[None]:
    """One parameter is frozen, one has no gradient; and so it must be afterwards."""
    frozen, empty, *_ = network.parameters()
    gradient, empty.grad = empty.grad, None
    frozen.requires_grad_(False)
    try:
        yield
        assert empty.grad is None
        assert [p.requires_grad for p in network.parameters()] == [p is not frozen for p in network.parameters()]
    finally:
        frozen.requires_grad_(True)
        empty.grad = gradient


@pytest.mark.parametrize("attack", [FGM(epsilon=0.5), PGD(norm="linf", epsilon=0.05, steps=3)], ids=["fgm", "pgd"])
def test_nothing_is_left_behind(
    attack: GradientAttack, peer: Any, trained: Any, digits: Any, untouched: Untouched
) -> None:
    x, y = digits[0]
    with marked(trained), untouched(trained):
        first = peer_perturb(peer, trained, x, y, attack, seed=0)
    assert torch.equal(first.x, peer_perturb(peer, trained, x, y, attack, seed=0).x)
    second = peer_perturb(peer, trained, x, y, attack, seed=1)
    assert torch.equal(first.x, second.x) is not attack.random_start


@pytest.mark.parametrize("count", ["visited", "last"])
@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_left_behind_by_ours(
    name: str, count: CountName, trained: Any, digits: Any, untouched: Untouched
) -> None:
    """Beside what the tests of tables look at: which parameters learn, and which have no gradient."""
    x, y = digits[0]
    with marked(trained), untouched(trained):
        moved = perturb(trained, x, y, EVERY[name], seed=0, count=count).x
    assert not torch.equal(moved, x)
    with marked(trained), untouched(trained):
        assert torch.equal(perturb(trained, x, y, replace(EVERY[name], epsilon=0), seed=0, count=count).x, x)


def test_a_gradient_left_behind_would_be_seen(trained: Any, digits: Any) -> None:
    x, y = digits[0]
    network = copy.deepcopy(trained)
    with pytest.raises(AssertionError), marked(network):
        nn.functional.cross_entropy(network(x), y).backward()
    with pytest.raises(AssertionError), marked(network):
        network.requires_grad_(True)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_auto_attack_keeps_to_the_ball_and_leaves_nothing_behind(
    norm: NormName, trained: Any, digits: Any, untouched: Untouched
) -> None:
    pytest.importorskip("torchattacks")
    x, y = (part[:40] for part in digits[0])
    attack = replace(AUTO, **ball(norm))
    with marked(trained), untouched(trained):
        found = peer_perturb("torchattacks", trained, x, y, attack, seed=0)
    lengths = (found.x - x).flatten(1).norm(dim=1, p=float("inf") if norm == "linf" else 2)
    assert 0.5 * attack.epsilon < float(lengths.max()) <= attack.epsilon + 1e-6
    assert 0 <= float(found.x.min()) <= float(found.x.max()) <= 1
    assert torch.equal(found.x, peer_perturb("torchattacks", trained, x, y, attack, seed=0).x)
    assert torch.equal(peer_perturb("torchattacks", trained, x, y, replace(attack, epsilon=0), seed=0).x, x)
    assert len(peer_perturb("torchattacks", trained, x[:1], y[:1], attack, seed=0).x) == 1


def test_foolbox_alone_would_leave_gradients(trained: Any, digits: Any) -> None:
    """Why parameters are frozen meanwhile."""
    foolbox = pytest.importorskip("foolbox")
    network = copy.deepcopy(trained).eval()
    network.zero_grad()
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    foolbox.attacks.L2FastGradientAttack()(model, *digits[0], epsilons=0.5)
    assert any(p.grad is not None and bool(p.grad.any()) for p in network.parameters())


def test_data_without_bounds(digits: Any) -> None:
    pytest.importorskip("foolbox")
    network, x = nn.Linear(4, 2, dtype=torch.float64), torch.randn(30, 4, dtype=torch.float64)
    y = network(x).argmax(dim=1)
    attack = FGM(epsilon=0.4, bounds=None)
    theirs = peer_perturb("foolbox", network, x, y, attack, seed=0)
    torch.testing.assert_close(perturb(network, x, y, attack, seed=0).x, theirs.x, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "attack", "message"),
    [
        ("foolbox", MOMENTUM, "foolbox has no MomentumPGD"),
        ("foolbox", APGD(**ball("l2")), "foolbox has no APGD"),
        ("foolbox", AUTO, "foolbox has no AutoAttack"),
        ("foolbox", PGD(**ball("l2"), restarts=2), "restarts: foolbox gives one point"),
        ("torchattacks", FGM(epsilon=1, bounds=None), r"images (B, C, H, W) in [0, 1] alone"),
        ("torchattacks", MomentumPGD(**ball("l2")), "torchattacks has no MomentumPGD with these settings"),
        ("fool_box", FGM(epsilon=1), "peer: unknown 'fool_box'; did you mean 'foolbox'?"),
    ],
)
def test_what_a_peer_cannot_do_is_one_clear_line(
    name: Any, attack: PeerAttack, message: str, trained: Any, digits: Any
) -> None:
    if name != "fool_box":
        pytest.importorskip(name)
    with pytest.raises(InputError) as raised:
        peer_perturb(name, trained, *digits[0], attack, seed=0)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "way"), [("foolbox", "vicinal[peers]"), ("torchattacks", "--no-deps torchattacks")])
def test_a_missing_library_is_named(
    name: Any, way: str, trained: Any, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError) as raised:
        peer_perturb(name, trained, *digits[0], FGM(epsilon=1), seed=0)
    assert way in str(raised.value)
    assert "\n" not in str(raised.value)
