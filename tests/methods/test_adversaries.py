"""The adversarial ends: their length, their regime, the masks they are searched under, and what they cost a mean."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.methods import METHODS, VAT, AdvMixup
from vicinal.networks import PassPolicy
from vicinal.vicinity import Mixing, adversary, distance, draw_mixing

Check = Callable[[Any], None]
Mutation = Callable[[Any, pytest.MonkeyPatch], None]

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

_adversarial, _unit, _random = AdvMixup.adversarial, adversary.unit, adversary.random_direction


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing in the library."""
    return lambda lab, patch: patch.setattr(f"vicinal.{target}", value)


def mixed(module: str, what: str, how: str) -> Mutation:
    """The mutation that mixes wrongly in one method."""
    return lambda lab, patch: lab.mutate_mix(patch, module, what=what, how=how)


def advmixup_at_lambda_zero_is_adversarial_consistency(lab: Any) -> None:
    """mean_j D(q_j, f(u_j + r_j)), whatever the partners; r from one step of the inner problem, written out."""
    student, teacher = lab.pair(double=True)
    step = lab.step(copy.deepcopy(student), teacher)
    (u, _), epsilon, xi = lab.u, 0.7, 1e-2
    for name in ("mse", "kl"):
        q = copy.deepcopy(teacher)(u).detach().softmax(dim=1)
        probe = u + xi * adversary.random_direction(u, step.generator("adversary"))
        probe.requires_grad_()
        (g,) = torch.autograd.grad(distance(name, q, copy.deepcopy(student)(probe)).sum(), probe)
        r = epsilon * g / g.norm(dim=1, keepdim=True)
        expected = distance(name, q, copy.deepcopy(student)(u + r)).mean().detach()
        for partner in (torch.arange(8), torch.arange(8).roll(3), torch.randperm(8, generator=torch.Generator())):
            with lab.mixing(0.0, partner):
                found = lab.consistency(AdvMixup(distance=name, epsilon=epsilon, xi=xi), student, teacher)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def shared_masks_repeat_the_pass(lab: Any) -> None:
    """With eps = 0 the clean and the moved pass are the same function at the same point; fresh masks are not."""
    student = lab.network(dropout=0.5)
    assert abs(lab.terms(VAT(epsilon=0), student)["smoothness"].value.item()) < 1e-6
    assert lab.terms(VAT(epsilon=0, masks="fresh"), student)["smoothness"].value.item() > 1e-3


def directions(lab: Any, method: Any, student: nn.Module, teacher: nn.Module, seed: int) -> Tensor:
    """What the search found, from the start that ``seed`` draws; masks and everything else stay the same."""
    found = []
    module = "advmixup" if isinstance(method, AdvMixup) else "vat"

    def spy(divergence: Any, x: Tensor, **settings: Any) -> Tensor:
        settings["generator"] = torch.Generator().manual_seed(seed)
        found.append(adversary.adversarial_direction(divergence, x, **settings))
        return found[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"vicinal.methods.{module}.adversarial_direction", spy)
        lab.terms(method, student, teacher)
    return found[0]


def the_regime_is_the_reported_one(lab: Any) -> None:
    """First order: the start plays no part. Second order: it decides."""
    student, teacher = lab.pair(dropout=0.5, norm="none", double=True)
    table = [
        (AdvMixup(xi=1e-4), "first order"),
        (AdvMixup(xi=1e-4, distance="kl", iterations=3), "first order"),
        (VAT(xi=1e-4), "second order"),
        (VAT(xi=1e-4, masks="fresh"), "first order"),
    ]
    for method, regime in table:
        assert method.regime == regime
        first, second = (directions(lab, method, student, teacher, seed) for seed in (0, 1))
        same = (first * second).sum(dim=1).min() > 0.999
        assert same == (regime == "first order")


def radii_are_epsilon(lab: Any) -> None:
    """||r_i|| = eps for every i, in the space of the ball, also where the gradient all but vanishes."""
    student, teacher = lab.pair()
    step = lab.step(student, teacher)
    for certainty in (1.0, 1e-8):
        labels = nn.functional.one_hot(torch.arange(8) % 4, 4)
        q = certainty * labels + (1 - certainty) * student(lab.u[0]).softmax(dim=1)
        for epsilon in (1e-1, 1.0, 8.0):
            moved = AdvMixup(epsilon=epsilon).adversarial(step, lab.u[0], q.detach())
            torch.testing.assert_close((moved - lab.u[0]).norm(dim=1), torch.full((8,), epsilon), rtol=1e-5, atol=1e-5)


def searches_run_in_full_precision(lab: Any) -> None:
    """Under bfloat16 autocast the other passes are half precision, the search is not."""
    for method in (AdvMixup(), AdvMixup(iterations=2), VAT(), VAT(search="gauss_newton"), VAT(masks="fresh")):
        student, teacher = lab.pair()
        with torch.autocast("cpu", torch.bfloat16):
            passes = lab.record(method, student, teacher)
        assert {made.dtype for made in passes if "search" in made.backward} == {torch.float32}
        assert {made.dtype for made in passes if "search" not in made.backward} == {torch.bfloat16}


@contextmanager
def replicated(lab: Any) -> Iterator[None]:
    """The second half of a doubled unlabelled batch draws what the first half does."""

    def mixing(count: int, alpha: float, generator: torch.Generator, **settings: Any) -> Mixing:
        lam, partner = draw_mixing(count // 2, alpha, generator, **settings)
        return Mixing(lam.repeat(2), torch.cat([partner, partner + count // 2]))

    def starts(x: Tensor, generator: torch.Generator) -> Tensor:
        return _random(x[: len(x) // 2], generator).repeat(2, 1)

    with pytest.MonkeyPatch.context() as patch:
        for module in ("ict", "advmixup"):
            patch.setattr(f"vicinal.methods.{module}.draw_mixing", mixing)
        patch.setattr("vicinal.vicinity.adversary.random_direction", starts)
        yield


def a_doubled_batch_changes_nothing(lab: Any) -> None:
    """Losses are means: doubling the unlabelled batch with its draws leaves loss and gradient, batch norm included."""
    doubled = tuple(torch.cat([u, u]) for u in lab.u)
    names = ("mean_teacher", "vat", "vat_entmin", "ict", "advmixup")
    methods = [METHODS[name]() for name in names] + [VAT(search="gauss_newton"), AdvMixup(distance="kl")]
    for method in methods:
        found = []
        for u in (lab.u, doubled):
            student, teacher = lab.pair(double=True)
            if u is lab.u:
                loss = lab.total(lab.loss(method, student, teacher, u=u))
            else:
                with replicated(lab):
                    loss = lab.total(lab.loss(method, student, teacher, u=u))
            found.append(torch.cat([loss.detach()[None], lab.gradient(loss, student)]))
        torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


def _mean_times_batch(name: Any, target: Tensor, logits: Tensor) -> Tensor:
    return distance(name, target, logits) * len(target)


def _steepest_teacher(self: AdvMixup, step: Any, u: Tensor, q: Tensor) -> Tensor:
    return 2 * u - _adversarial(self, step, u, q)


def _fresh(dropout: Any, **rest: Any) -> PassPolicy:
    return PassPolicy(**rest)


def _never_full(fp32: bool = False, **rest: Any) -> PassPolicy:
    return PassPolicy(**rest)


def _no_search(x: Tensor, fallback: Tensor | None = None) -> Tensor:
    return _unit(x) if fallback is None else fallback


def _clamped(x: Tensor, fallback: Tensor | None = None) -> Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp(min=1e-3)


IDENTITIES = [
    pytest.param(
        searches_run_in_full_precision, patched("methods.advmixup.PassPolicy", _never_full), id="fp32 | not in AdvMixup"
    ),
    pytest.param(
        searches_run_in_full_precision, patched("methods.vat.PassPolicy", _never_full), id="fp32 | not in VAT"
    ),
    pytest.param(
        advmixup_at_lambda_zero_is_adversarial_consistency,
        patched("methods.advmixup.AdvMixup.adversarial", _steepest_teacher),
        id="AdvMixup at 0 | downhill",
    ),
    pytest.param(
        advmixup_at_lambda_zero_is_adversarial_consistency,
        mixed("advmixup", "targets", "own"),
        id="AdvMixup at 0 | partner not applied to targets",
    ),
    pytest.param(
        shared_masks_repeat_the_pass, patched("methods.vat.PassPolicy", _fresh), id="shared masks | drawn afresh"
    ),
    pytest.param(
        the_regime_is_the_reported_one,
        patched("methods.vat.PassPolicy", _fresh),
        id="regime | VAT's masks drawn afresh",
    ),
    pytest.param(
        the_regime_is_the_reported_one,
        patched("vicinity.adversary.unit", _no_search),
        id="regime | search does nothing",
    ),
    pytest.param(
        radii_are_epsilon,
        patched("vicinity.adversary.unit", lambda x, fallback=None: x),
        id="||r|| = eps | not normalised",
    ),
    pytest.param(radii_are_epsilon, patched("vicinity.adversary.unit", _clamped), id="||r|| = eps | norm clamped"),
    pytest.param(
        a_doubled_batch_changes_nothing,
        patched("methods.ict.distance", _mean_times_batch),
        id="doubled batch | a sum over samples",
    ),
]


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_holds(check: Check, mutate: Mutation, lab: Any) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "mutate"), IDENTITIES)
def test_identity_fails_when_mutated(check: Check, mutate: Mutation, lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(lab, monkeypatch)
    with pytest.raises(AssertionError):
        check(lab)
