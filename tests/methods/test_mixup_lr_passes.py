"""Mixup-LR: whose slope it penalises and where, its settings, its passes counted in images, and two moons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import pytest
import torch
from support.lab import Lab
from support.properties import rows
from torch import Tensor, nn

from vicinal.data.builtin import two_moons
from vicinal.methods import Method, Step
from vicinal.methods.mixmatch import MixMatch
from vicinal.methods.mixup_lr import LipschitzTerm, MixupLR, MixupLRICT
from vicinal.networks import EVAL, mlp, run
from vicinal.schedules import Progress
from vicinal.settings import build
from vicinal.training.teacher import Teacher, TeacherSettings
from vicinal.vicinity import LipschitzSettings, adversarial_neighbour, lipschitz_penalty

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

OFFICIAL = 1088 + 832
"""Image passes of a step of the official code, forward and backward, for 64 labelled and 64 unlabelled images."""


@contextmanager
def starts() -> Iterator[list[Tensor]]:
    """The inputs that searches start from."""
    seen: list[Tensor] = []

    def noted(logits_of: Any, x: Tensor, *args: Any, **rest: Any) -> Any:
        seen.append(x)
        return adversarial_neighbour(logits_of, x, *args, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vicinal.methods.mixup_lr.adversarial_neighbour", noted)
        yield seen


class Tripled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * x.double()


def the_slope_belongs_to_a_space(lab: Lab) -> None:
    """Of pixels that the network triples, the slope is three times that of its input."""
    network = lab.linear()
    network.preprocess = Tripled()
    values = [
        lab.terms(kind(d_y="l2_logits", space=space, xi=1.0), network, network)["lipschitz"].value.item()
        for kind in (MixupLR, MixupLRICT)
        for space in ("pixels", "input")
    ]
    assert values[0] == pytest.approx(3 * values[1])
    assert values[2] == pytest.approx(3 * values[3])


def targets_are_those_named(lab: Lab) -> None:
    """Labelled inputs, unmixed views, or the mixed unlabelled inputs that the base trains on."""
    student, teacher = lab.pair()
    mixed = MixMatch().mixed_batch(lab.step(student, views=2)).inputs[5:]
    table: list[tuple[Method, list[Tensor]]] = [
        (MixupLR(), [lab.u[0]]),
        (MixupLR(views=2), list(lab.u)),
        (MixupLR(views=2, bn_mode="eval"), [torch.cat(lab.u)]),
        (MixupLR(targets="labelled", views=2), [lab.x]),
        (MixupLR(targets="mixed"), [mixed[:8]]),
        (MixupLR(targets="mixed", views=2), [mixed]),
        (MixupLRICT(), [lab.u[0]]),
        (MixupLRICT(targets="labelled"), [lab.x]),
    ]
    for method, expected in table:
        with starts() as seen:
            lab.terms(method, student, teacher)
        assert len(seen) == len(expected)
        assert all(torch.equal(x, wanted) for x, wanted in zip(seen, expected, strict=True)), method
    with starts() as seen:
        passes = lab.record(MixupLRICT(targets="mixed"), student, teacher)
    assert any(torch.equal(item.x, seen[0]) for item in passes if item.backward == ["loss"])
    assert not torch.equal(seen[0], lab.u[0])


def the_weight_may_rise(lab: Lab) -> None:
    for kind in (MixupLR, MixupLRICT):
        method = kind(lam_ramp="linear", ramp_length=0.5)
        assert [lab.terms(method, *lab.pair(), at=at)["lipschitz"].weight for at in (0, 25, 60)] == [0, 1, 2]
        assert lab.terms(kind(), *lab.pair(), at=0)["lipschitz"].weight == 2


def settings_reach_the_search(lab: Lab) -> None:
    """All of them."""
    chosen: dict[str, Any] = {
        "d_x": "one", "d_y": "l2_probs", "K": 0.5, "power": 3, "sides": "two", "xi": 0.1, "iterations": 1,
        "epsilon_min": 0.2, "epsilon_max": 0.3, "clip": (-1.0, 1.0), "clip_result": True, "detach_clean": False,
        "direction": "gaussian", "fallback": "unit",
    }  # fmt: skip
    assert chosen.keys() == {item.name for item in fields(LipschitzSettings)}
    for kind in (MixupLR, MixupLRICT):
        seen: list[Any] = []

        def noted(plain: Any, seen: list[Any] = seen) -> Any:
            def spy(*args: Any, **rest: Any) -> Any:
                seen.extend(item for item in args if isinstance(item, LipschitzSettings))
                return plain(*args, **rest)

            return spy

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("vicinal.methods.mixup_lr.adversarial_neighbour", noted(adversarial_neighbour))
            patch.setattr("vicinal.methods.mixup_lr.lipschitz_penalty", noted(lipschitz_penalty))
            lab.terms(build("method", kind, {**chosen, "clip": [-1, 1]}), *lab.pair())
        assert seen == [LipschitzSettings(**chosen)] * 2
        defaults, plain = kind().settings(), LipschitzSettings()
        assert all(defaults[item.name] == getattr(plain, item.name) for item in fields(plain))


def images(lab: Lab, method: Method) -> tuple[int, int]:
    """Images that went forward and backward through either network in a step."""
    student, teacher = lab.pair(dropout=0.5)
    passes = lab.record(method, student, teacher)
    return sum(len(item.x) for item in passes), sum(len(item.x) * len(item.backward) for item in passes)


EVERY = [
    kind(targets=targets, bn_mode=bn_mode, detach_clean=detached, iterations=iterations, **settings)
    for kind, settings in (
        (MixupLR, {}),
        (MixupLR, {"views": 2}),
        (MixupLRICT, {}),
        (MixupLRICT, {"logging_passes": True}),
    )
    for targets in ("unlabelled", "labelled", "mixed")
    for bn_mode in ("train_cloned", "eval", "train_live")
    for detached, iterations in ((True, 2), (False, 2), (True, 0))
]


def images_are_those_declared(lab: Lab) -> None:
    for method in [*EVERY, MixupLR(lam=0.0), MixupLRICT(lam=0.0)]:
        cost = method.passes()
        forward = 5 * (cost.f + cost.t) + 8 * (cost.F + cost.T)
        assert images(lab, method) == (forward, 5 * (cost.b + cost.x) + 8 * (cost.B + cost.X)), method.settings()
    assert (str(MixupLR.cost), str(MixupLRICT.cost)) == ("f+7F+b+3B+2X", "f+5F+T+b+2B+2X")


def larger() -> Lab:
    """The batches of the official code."""
    lab, draws = Lab(), torch.Generator().manual_seed(0)
    lab.labelled = 64
    lab.x, *u = (torch.randn(64, 6, generator=draws) for _ in range(3))
    lab.y, lab.u = torch.arange(64) % 4, tuple(u)
    return lab


def half_of_the_official_images(lab: Lab) -> None:
    """896 instead of 1920, because one view's clean prediction is there already; its own way it is more than half."""
    assert sum(images(larger(), MixupLR())) == 512 + 384 == 896 <= OFFICIAL / 2
    assert sum(images(larger(), MixupLR(views=2, bn_mode="train_live"))) > OFFICIAL / 2
    assert sum(images(larger(), MixupLR(detach_clean=False))) == 896 + 64


def mix_18_updates(lab: Lab) -> None:
    """Of the running statistics in a step: 7 in the official code: MixMatch's 5, the clean and the moved pass."""
    table: dict[Method, str] = {
        MixupLR(): "F F F* F F F F F",
        MixupLR(bn_update="all"): "F* F* F* F* F* F F F",
        MixupLR(bn_update="all", bn_mode="train_live", views=2): "F* F* F* F* F* F* F F F*",
        MixupLR(bn_mode="eval"): "F F F* F F F F F F",
        MixupLRICT(): "f* F* F F F F",
        MixupLRICT(bn_mode="train_live"): "f* F* F* F F F*",
    }
    for method, row in table.items():
        assert rows(lab.record(method, *lab.pair()))[0] == row


def in_pixels(patch: pytest.MonkeyPatch) -> None:
    check_penalty = LipschitzTerm.check_penalty

    def wrong(self: LipschitzTerm) -> None:
        self.space = "pixels"
        check_penalty(self)

    patch.setattr(LipschitzTerm, "check_penalty", wrong)


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing in the library."""
    return lambda patch: patch.setattr(f"vicinal.methods.mixup_lr.{target}", value)


def the_last_view(patch: pytest.MonkeyPatch) -> None:
    penalty = LipschitzTerm.penalty
    patch.setattr(LipschitzTerm, "penalty", lambda self, step, batches, share: penalty(self, step, batches[-1:], share))


def default_search(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LipschitzTerm, "check_penalty", lambda self: setattr(self, "_settings", LipschitzSettings()))


def nothing_reused(patch: pytest.MonkeyPatch) -> None:
    """Mutation: the clean pass runs although the guess has been made."""
    penalty = LipschitzTerm.penalty

    def wrong(self: LipschitzTerm, step: Step, batches: Any, share: float) -> Any:
        return penalty(self, step, [(x, None) for x, _ in batches], share)

    patch.setattr(LipschitzTerm, "penalty", wrong)


CHECKS = [
    pytest.param(the_slope_belongs_to_a_space, in_pixels, id="space | always pixels"),
    pytest.param(targets_are_those_named, the_last_view, id="targets | the last view alone"),
    pytest.param(the_weight_may_rise, patched("ramp", lambda *_: 1.0), id="ramp | none"),
    pytest.param(settings_reach_the_search, default_search, id="settings | defaults"),
    pytest.param(images_are_those_declared, nothing_reused, id="images | a clean pass more"),
    pytest.param(half_of_the_official_images, nothing_reused, id="half the images | a clean pass more"),
    pytest.param(mix_18_updates, nothing_reused, id="18 updates | a clean pass more"),
]


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_holds(check: Check, mutate: Mutation, lab: Lab) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_fails_when_mutated(check: Check, mutate: Mutation, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(lab)


def moons(kind: Any, lam: float, seed: int, steps: int = 150) -> tuple[float, float]:
    """Mean quotient around the unlabelled points, and accuracy, after training on six labels."""
    data = two_moons(n=200, test_size=400, data_seed=seed)
    assert data.test is not None
    labelled = torch.cat([(data.train.y == c).nonzero()[:3, 0] for c in (0, 1)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = mlp((2,), 2, hidden=(32, 32))
    teacher = Teacher(student, TeacherSettings(decay=0.99))
    method = kind(lam=lam, epsilon_min=0.05, epsilon_max=0.5, xi=0.5, weight=10.0, space="pixels")
    optimizer = torch.optim.Adam(student.parameters(), 0.01)
    draws = torch.Generator().manual_seed(seed)
    for at in range(steps):
        u = data.train.x[torch.randperm(200, generator=draws)[:32]]
        step = Step.of(
            progress=Progress(at, steps),
            seed=seed,
            x=data.train.x[labelled],
            y=data.train.y[labelled],
            u=tuple(u + 0.05 * torch.randn(u.shape, generator=draws) for _ in range(method.needs.views)),
            student=student,
            teacher=teacher.network,
        )
        loss = torch.stack([term.weight * term.value for term in method.loss(step).values()]).sum()
        assert loss.isfinite()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        teacher.update(student)
    settings = LipschitzSettings(epsilon_min=0.05, epsilon_max=0.5, xi=0.5)
    x, measure = data.train.x, torch.Generator().manual_seed(0)
    r = adversarial_neighbour(lambda v: run(student, v, EVAL), x, settings, measure).r
    quotient = lipschitz_penalty(run(student, x, EVAL), run(student, x + r, EVAL), r, settings).quotient.mean()
    right = run(student, data.test.x, EVAL).argmax(dim=1) == data.test.y
    return float(quotient), float(right.float().mean())


@pytest.mark.parametrize("kind", [MixupLR, MixupLRICT])
def test_mix_23_the_slope_falls_with_lam(kind: Any) -> None:
    """Two moons, six labels, mean of five seeds; the accuracy stays above a floor."""
    found = torch.tensor([[moons(kind, lam, seed) for seed in range(5)] for lam in (0.0, 0.1, 1.0)]).mean(dim=1)
    quotients, accuracies = found.T.tolist()
    assert quotients[0] > quotients[1] > quotients[2]
    assert min(accuracies) > 0.8
