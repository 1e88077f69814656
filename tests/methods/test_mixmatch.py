"""MixMatch: its equation written out, its gradient and its modes; each check fails under its mutation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support.lab import Lab
from support.properties import PROPERTIES, passes_are_declared
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.methods import Method
from vicinal.methods.mixmatch import MixMatch
from vicinal.networks import FROZEN_STATS
from vicinal.schedules import linear_ramp
from vicinal.vicinity import Mixing, cross_entropy, draw_mixing
from vicinal.vicinity.interpolation import sharpen

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]
_guessed = MixMatch.guessed

METHODS = [
    MixMatch(),
    MixMatch(lambda_per="batch", bn_update="all", ramp_length=1.0),
    MixMatch(layout="joint", mixing="separate"),
    MixMatch(mixing="none", fold=False),
]


@contextmanager
def mixing(lam: Tensor, partner: Tensor) -> Iterator[None]:
    """Joint mixing has these coefficients and partners."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vicinal.methods.mixmatch.draw_mixing", lambda *_, **__: Mixing(lam, partner))
        yield


def drawn() -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(3)
    return 0.5 + 0.5 * torch.rand(21, generator=draws), torch.randperm(21, generator=draws)


def the_loss_is_the_equation(lab: Lab) -> None:
    """From networks whose batches do not matter, in float64; labelled and unlabelled rows mix with each other."""
    network = lab.network(double=True, norm="none")
    lam, partner = drawn()
    with torch.no_grad():
        p = sum(network(view).softmax(dim=1) for view in lab.u) / 2
        q = p.square() / p.square().sum(dim=1, keepdim=True)
        inputs = torch.cat([lab.x, *lab.u])
        targets = torch.cat([F.one_hot(lab.y, 4).double(), q, q])
        keep = lam[:, None]
        mixed = network(keep * inputs + (1 - keep) * inputs[partner])
        targets = keep * targets + (1 - keep) * targets[partner]
        supervised = -(targets[:5] * mixed[:5].log_softmax(dim=1)).sum() / 5
        brier = (mixed[5:].softmax(dim=1) - targets[5:]).square().sum() / (16 * 4)
    for layout in ("interleaved", "joint"):
        with mixing(lam, partner):
            terms = lab.terms(MixMatch(layout=layout), network)
        assert terms["supervised"].value.item() == pytest.approx(supervised.item(), rel=1e-6)
        assert terms["consistency"].value.item() == pytest.approx(brier.item(), rel=1e-6)
        assert (terms["supervised"].weight, terms["consistency"].weight) == (1.0, 75.0)


def mix_22_gradient_is_a_derivative(lab: Lab) -> None:
    """With the guesses held, dL/dtheta by central differences in float64, through interleaved batch statistics."""
    student = lab.network(double=True)
    guesses = [_guessed(MixMatch(), lab.step(copy.deepcopy(student), views=2), view) for view in (0, 1)]

    def value(network: nn.Module, method: MixMatch) -> Tensor:
        return lab.total(lab.loss(method, network))

    for method in (MixMatch(weight=3.0), MixMatch(weight=3.0, layout="joint")):
        found = lab.gradient(value(student, method), student)
        draws = torch.Generator().manual_seed(4)
        along = torch.randn(len(found), generator=draws, dtype=torch.float64)
        ends = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MixMatch, "guessed", lambda self, step, view: guesses[view])
            for h in (1e-5, -1e-5):
                moved = copy.deepcopy(student)
                start = nn.utils.parameters_to_vector(student.parameters()).detach()
                nn.utils.vector_to_parameters(start + h * along, moved.parameters())
                ends.append(value(moved, method).item())
        assert float(found @ along) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


def mix_22_guesses_have_no_graph(lab: Lab) -> None:
    passes = lab.record(MixMatch(), lab.network(dropout=0.5))
    assert [item.backward for item in passes] == [[], [], ["loss"], ["loss"], ["loss"]]
    assert [torch.equal(item.x, u) for item, u in zip(passes, lab.u, strict=False)] == [True, True]


def modes_mix_what_they_say(lab: Lab) -> None:
    """Which rows are as they were, and that the others have partners of the right kind."""
    unmixed = torch.cat([lab.x, *lab.u])
    marks = torch.cat([torch.zeros(5), torch.ones(16)])
    for mode, labelled, unlabelled in (
        ("joint", True, True),
        ("separate", True, True),
        ("labelled", True, False),
        ("unlabelled", False, True),
        ("none", False, False),
    ):
        method = MixMatch(mixing=mode, fold=False)
        lam, partner = method._draw(lab.step(lab.network(), views=2), 5, 16)
        assert partner.sort().values.tolist() == list(range(21))
        assert (bool((lam[:5] < 1).all()), bool((lam[5:] < 1).all())) == (labelled, unlabelled)
        assert torch.equal(lam[:5] == 1, torch.full((5,), not labelled))
        assert torch.equal(marks[partner], marks) == (mode != "joint")
        inputs = method.mixed_batch(lab.step(lab.network(), views=2)).inputs
        changed = (inputs != unmixed).any(dim=1)
        assert (bool(changed[:5].any()), bool(changed[5:].any())) == (labelled, unlabelled)


def folded_rows_keep_their_label(lab: Lab) -> None:
    """lambda >= 1/2, per sample or per batch; the labelled rows' own class then has at least half of the target."""
    for per, distinct in (("sample", 21), ("batch", 1)):
        for seed in range(8):
            step = lab.step(lab.network(), views=2, seed=seed)
            method = MixMatch(lambda_per=per)
            lam, _ = method._draw(step, 5, 16)
            assert lam.min() >= 0.5
            assert len(lam.unique()) == distinct
            own = method.mixed_batch(step).targets[:5].gather(1, lab.y[:, None])
            assert own.min() >= 0.5


def unmixed_and_joint_it_is_supervised_and_consistency(lab: Lab) -> None:
    """mixing = none: plain cross-entropy of the labelled rows, and T = 1 squared error to the mean prediction."""
    network = lab.network(norm="none", double=True)
    terms = lab.terms(MixMatch(mixing="none", temperature=1.0), network)
    torch.testing.assert_close(terms["supervised"].value, cross_entropy(lab.y, network(lab.x)).mean())
    p = [network(view).softmax(dim=1) for view in lab.u]
    expected = ((p[0] - p[1]) / 2).square().mean()
    torch.testing.assert_close(terms["consistency"].value, expected)


def mix_19_the_weight_rises_linearly(lab: Lab) -> None:
    """Half of 75 halfway through the ramp, over 1/64 of the training: 16384 of 2^20 steps."""
    assert linear_ramp(0.5) == 0.5
    assert MixMatch().ramp_length == 16384 / 2**20
    for length, at, expected in (
        (1 / 64, 0, 0.0),
        (1.0, 50, 37.5),
        (0.5, 25, 37.5),
        (0.5, 50, 75.0),
        (1 / 64, 2, 75.0),
    ):
        terms = lab.terms(MixMatch(ramp_length=length), lab.network(), at=at)
        assert terms["consistency"].weight == pytest.approx(expected)


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing in the library."""
    return lambda patch: patch.setattr(f"vicinal.methods.mixmatch.{target}", value)


def with_a_graph(self: MixMatch, step: Any, view: int) -> Tensor:
    return step.student(step.u[view], FROZEN_STATS)


def graph_through_the_guess(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MixMatch, "guessed", with_a_graph)
    patch.setattr(Tensor, "detach", lambda self: self)


def forgets(setting: str, value: Any) -> Mutation:
    """The mutation in which a setting of the draws always has the same value."""
    return patched("draw_mixing", lambda *args, **rest: draw_mixing(*args, **{**rest, setting: value}))


def always(mode: str) -> Mutation:
    draw = MixMatch._draw

    def wrong(self: MixMatch, *args: Any) -> Mixing:
        changed = MixMatch(**{**self.settings(), "mixing": mode})
        return draw(changed, *args)

    return lambda patch: patch.setattr(MixMatch, "_draw", wrong)


CHECKS = [
    pytest.param(the_loss_is_the_equation, patched("sharpen", lambda p, t: p), id="equation | not sharpened"),
    pytest.param(
        the_loss_is_the_equation,
        patched("squared_error", lambda target, z: (z.softmax(dim=1) - target).square().sum(dim=1)),
        id="equation | a sum over classes",
    ),
    pytest.param(the_loss_is_the_equation, patched("mix", lambda a, b, lam: a), id="equation | not mixed"),
    pytest.param(mix_22_gradient_is_a_derivative, graph_through_the_guess, id="22 dL/dtheta | through the guess"),
    pytest.param(mix_22_guesses_have_no_graph, graph_through_the_guess, id="22 guesses | with a graph"),
    pytest.param(modes_mix_what_they_say, always("joint"), id="modes | always joint"),
    pytest.param(modes_mix_what_they_say, always("separate"), id="modes | always separate"),
    pytest.param(folded_rows_keep_their_label, forgets("fold", False), id="folding | forgotten"),
    pytest.param(folded_rows_keep_their_label, forgets("per", "batch"), id="folding | one lambda"),
    pytest.param(unmixed_and_joint_it_is_supervised_and_consistency, always("joint"), id="unmixed | joint"),
    pytest.param(
        mix_19_the_weight_rises_linearly, patched("ramp", lambda name, progress, length: 1.0), id="19 ramp | none"
    ),
]


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_holds(check: Check, mutate: Mutation, lab: Lab) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_fails_when_mutated(check: Check, mutate: Mutation, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(lab)


@pytest.mark.parametrize("method", METHODS, ids=["official", "port", "separate", "none"])
@pytest.mark.parametrize("holds", [holds for holds in PROPERTIES if holds is not passes_are_declared])
def test_property(holds: Callable[[Lab, Method], None], method: Method, lab: Lab) -> None:
    """All but one. A block is neither batch: ``test_mixmatch_passes.py`` counts images."""
    if holds.__name__ == "settings_are_explained":
        method = MixMatch()
    holds(lab, method)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, "alpha must be greater than 0"),
        ({"temperature": 0.0}, "temperature must be greater than 0"),
        ({"weight": -1.0}, "weight must be at least 0"),
        ({"ramp_length": 1.5}, "ramp_length must be at most 1"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MixMatch(**settings)


def test_guesses_are_sharpened_means() -> None:
    """The published example: (.6, .3, .1) becomes (.7826, .1957, .0217)."""
    assert MixMatch().temperature == 0.5
    found = sharpen(torch.tensor([[0.6, 0.3, 0.1]]), MixMatch().temperature)
    assert found[0].tolist() == pytest.approx([0.7826, 0.1957, 0.0217], abs=5e-5)
    assert str(MixMatch().passes()) == "f+4F+b+2B"
