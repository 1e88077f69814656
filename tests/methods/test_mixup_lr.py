"""Mixup-LR on both of its bases: the penalty's equation, what it leaves alone, its gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.lab import Lab
from support.properties import PROPERTIES, passes_are_declared
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.methods import ICT, Method
from vicinal.methods.mixmatch import MixMatch
from vicinal.methods.mixup_lr import LipschitzTerm, MixupLR, MixupLRICT
from vicinal.vicinity import LipschitzSettings, Neighbour, kl, lipschitz_penalty

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]
BASES: list[tuple[Any, type[Method]]] = [(MixupLR, MixMatch), (MixupLRICT, ICT)]

METHODS = [
    MixupLR(),
    MixupLR(views=2, detach_clean=False),
    MixupLR(bn_mode="train_live", bn_update="all", views=2),
    MixupLR(bn_mode="eval", targets="mixed"),
    MixupLR(targets="labelled", d_y="sqrt_2kl", sides="two"),
    MixupLRICT(),
    MixupLRICT(targets="mixed", d_y="l2_probs", power=2, K=0.1),
    MixupLRICT(targets="labelled", bn_mode="eval"),
]


def step_r(count: int = 8) -> Tensor:
    """Given steps, of lengths from 0.5 to 2."""
    r = torch.randn(count, Lab.features, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return r / r.norm(dim=1, keepdim=True) * torch.linspace(0.5, 2, count, dtype=torch.float64)[:, None]


@contextmanager
def held() -> Iterator[list[Tensor]]:
    """Every search inside finds the given steps; the inputs that it started from are noted."""
    seen: list[Tensor] = []

    def found(logits_of: Any, x: Tensor, *args: Any, **rest: Any) -> Neighbour:
        seen.append(x)
        return Neighbour(step_r(len(x)), torch.ones(len(x)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vicinal.methods.mixup_lr.adversarial_neighbour", found)
        yield seen


def pair(lab: Lab, **settings: Any) -> tuple[nn.Module, nn.Module]:
    return lab.pair(norm="none", double=True, **settings)


def the_penalty_is_its_equation(lab: Lab) -> None:
    """lam mean KL(p(u) || p(u + r)) / ||r||, by default; with K, power and two sides; a mean over both views."""
    student, teacher = pair(lab)
    quotients = []
    for u in lab.u:
        target, moved = student(u).softmax(dim=1).detach(), student(u + step_r())
        quotients.append(kl(target, moved) / step_r().norm(dim=1))
    with held():
        for method in (MixupLR(), MixupLRICT()):
            term = lab.terms(method, student, teacher)["lipschitz"]
            assert term.weight == 2
            torch.testing.assert_close(term.value, quotients[0].mean())
        both = lab.terms(MixupLR(views=2), student)["lipschitz"].value
        hinge = lab.terms(MixupLR(K=0.1, power=2), student)["lipschitz"].value
        two = lab.terms(MixupLR(K=0.1, sides="two"), student)["lipschitz"].value
    torch.testing.assert_close(both, torch.stack(quotients).mean())
    torch.testing.assert_close(hinge, (quotients[0] - 0.1).clamp(min=0).square().mean())
    torch.testing.assert_close(two, (quotients[0] - 0.1).abs().mean())


def without_weight_it_is_its_base(lab: Lab) -> None:
    """Terms, gradient and running statistics, bit for bit, with dropout; and no pass more."""
    for kind, base in BASES:
        found = []
        for method in (kind(lam=0.0), base()):
            student, teacher = lab.pair(dropout=0.5)
            terms = lab.loss(method, student, teacher)
            buffers = torch.cat([buffer.flatten().float() for buffer in (*student.buffers(), *teacher.buffers())])
            gradient = lab.gradient(lab.total(terms), student)
            found.append(torch.cat([buffers, gradient, torch.stack([term.value for term in terms.values()])[:2]]))
        assert torch.equal(*found)
        assert kind(lam=0.0).passes() == base().passes()
        assert terms.keys() | {"lipschitz"} == lab.terms(kind(lam=0.0), *lab.pair()).keys()


def the_base_stays_as_it_is(lab: Lab) -> None:
    """With the penalty, too: the base's terms and every running statistic, unless the passes are live."""
    for kind, base in BASES:
        for settings in (
            {},
            {"detach_clean": False},
            {"bn_mode": "eval"},
            {"targets": "mixed"},
            {"targets": "labelled"},
        ):
            student, teacher = lab.pair()
            other, other_teacher = copy.deepcopy((student, teacher))
            terms, expected = lab.loss(kind(**settings), student, teacher), lab.loss(base(), other, other_teacher)
            assert all(torch.equal(terms[name].value, expected[name].value) for name in expected)
            assert all(torch.equal(*buffers) for buffers in zip(student.buffers(), other.buffers(), strict=True))


def clean_branch(lab: Lab) -> None:
    """Detached: the gradient towards a constant target. Else the gradient of the quotient, through both predictions."""
    for kind in (MixupLR, MixupLRICT):
        student, teacher = pair(lab)
        (u, _), r, gradients = lab.u, step_r(), {}
        for detached in (True, False):
            clean = student(u)
            p = clean.softmax(dim=1)
            log_ratio = clean.log_softmax(dim=1) - student(u + r).log_softmax(dim=1)
            if detached:
                p, log_ratio = p.detach(), log_ratio - clean.log_softmax(dim=1) + clean.log_softmax(dim=1).detach()
            expected = lab.gradient(((p * log_ratio).sum(dim=1) / r.norm(dim=1)).mean(), student)
            with held():
                term = lab.loss(kind(detach_clean=detached), student, teacher)["lipschitz"]
            gradients[detached] = lab.gradient(term.value, student)
            torch.testing.assert_close(gradients[detached], expected)
        assert not torch.allclose(gradients[True], gradients[False])


def mix_22_gradient_is_a_derivative(lab: Lab) -> None:
    """With r and guesses held, of the whole loss, through batch statistics and both branches, in float64."""
    student, teacher = lab.pair(double=True)
    guesses = [student(u).detach() for u in lab.u]
    draws = torch.Generator().manual_seed(4)
    start = nn.utils.parameters_to_vector(student.parameters()).detach()
    along = torch.randn(len(start), generator=draws, dtype=torch.float64)
    live = {"detach_clean": False, "bn_mode": "train_live"}
    for method in (MixupLR(**live, weight=3.0), MixupLRICT(**live, weight=3.0)):
        with held(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(MixMatch, "guessed", lambda self, step, view: guesses[view])
            patch.setattr(MixupLR, "guessed", MixMatch.guessed)
            same = copy.deepcopy(student)
            found = lab.gradient(lab.total(lab.loss(method, same, teacher)), same)
            ends = []
            for h in (1e-5, -1e-5):
                moved = copy.deepcopy(student)
                nn.utils.vector_to_parameters(start + h * along, moved.parameters())
                ends.append(lab.total(lab.terms(method, moved, teacher)).item())
        assert float(found @ along) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


def affine_functions_cost_their_norm(lab: Lab) -> None:
    """f(x) = Wx + b has no mixing residual, but the penalty lam max(||W|| - K, 0), whatever the bias."""
    network = lab.linear()
    norm = torch.linalg.matrix_norm(network.head.weight, 2).item()
    for K in (0.0, 1.0, norm + 0.1):
        for kind in (MixupLR, MixupLRICT):
            method = kind(d_y="l2_logits", K=K, iterations=60, xi=1.0)
            term = lab.terms(method, network, copy.deepcopy(network))["lipschitz"]
            assert term.weight * term.value.item() == pytest.approx(2 * max(norm - K, 0), rel=1e-4)


def other_penalty(**settings: Any) -> Mutation:
    """The mutation of the penalty that has other settings."""
    return lambda patch: patch.setattr(
        "vicinal.methods.mixup_lr.lipschitz_penalty",
        lambda clean, moved, r, given: lipschitz_penalty(clean, moved, r, replace(given, **settings)),
    )


def live(patch: pytest.MonkeyPatch) -> None:
    plain = LipschitzTerm.penalty_policy.fget  # type: ignore[attr-defined]
    patch.setattr(LipschitzTerm, "penalty_policy", property(lambda self: replace(plain(self), update_stats=True)))


def searches_without_weight(patch: pytest.MonkeyPatch) -> None:
    check_penalty = LipschitzTerm.check_penalty

    def wrong(self: LipschitzTerm) -> None:
        self.lam = max(self.lam, 1e-9)
        check_penalty(self)

    patch.setattr(LipschitzTerm, "check_penalty", wrong)


def the_second_view(patch: pytest.MonkeyPatch) -> None:
    penalty = LipschitzTerm.penalty
    patch.setattr(LipschitzTerm, "penalty", lambda self, step, batches, share: penalty(self, step, batches[-1:], share))


def half_of_it(patch: pytest.MonkeyPatch) -> None:
    def wrong(clean: Tensor, moved: Tensor, r: Tensor, settings: LipschitzSettings) -> Any:
        return lipschitz_penalty(clean.detach(), moved, r, settings)

    patch.setattr("vicinal.methods.mixup_lr.lipschitz_penalty", wrong)


CHECKS = [
    pytest.param(the_penalty_is_its_equation, other_penalty(d_x="one"), id="equation | VAT"),
    pytest.param(the_penalty_is_its_equation, other_penalty(sides="one"), id="equation | one side"),
    pytest.param(the_penalty_is_its_equation, the_second_view, id="equation | the last view alone"),
    pytest.param(without_weight_it_is_its_base, searches_without_weight, id="lam 0 | searches all the same"),
    pytest.param(the_base_stays_as_it_is, live, id="base | live statistics"),
    pytest.param(clean_branch, half_of_it, id="clean branch | always a constant"),
    pytest.param(mix_22_gradient_is_a_derivative, half_of_it, id="22 dL/dtheta | half of it"),
    pytest.param(affine_functions_cost_their_norm, other_penalty(power=2), id="affine | squared"),
    pytest.param(affine_functions_cost_their_norm, other_penalty(K=0.0), id="affine | no K"),
]


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_holds(check: Check, mutate: Mutation, lab: Lab) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_fails_when_mutated(check: Check, mutate: Mutation, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(lab)


@pytest.mark.parametrize("method", METHODS, ids=range(len(METHODS)))
@pytest.mark.parametrize("holds", [holds for holds in PROPERTIES if holds is not passes_are_declared])
def test_property(holds: Callable[[Lab, Method], None], method: Method, lab: Lab) -> None:
    """All but one: a block is neither batch, so passes are counted in images, in ``test_mixup_lr_passes.py``."""
    if holds.__name__ == "settings_are_explained":
        method = type(method)()
    holds(lab, method)


@pytest.mark.parametrize("kind", [MixupLR, MixupLRICT])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lam": -1.0}, "lam must be at least 0"),
        ({"K": -1.0}, "K must be at least 0"),
        ({"epsilon_max": 0.01}, "epsilon_max must be at least 0.1"),
        ({"clip": (1.0, -1.0)}, "clip"),
        ({"clip_result": True}, "clip_result"),
        ({"d_y": "kI"}, "d_y"),
        ({"weight": -1.0}, "weight must be at least 0"),
    ],
)
def test_bad_settings_are_refused(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**settings)


def test_views_are_one_or_two() -> None:
    for views in (0, 3):
        with pytest.raises(InputError, match="views"):
            MixupLR(views=views)
