"""What the methods' losses must equal: each other at the ends of their settings, and their equations written out."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.methods import ICT, METHODS, VAT, AdvMixup, MeanTeacher, Mixup, Supervised, VATEntMin
from vicinal.networks import Classifier, Identity
from vicinal.vicinity import Mixing, cross_entropy, distance, draw_mixing, mix

Check = Callable[[Any], None]
Mutation = Callable[[Any, pytest.MonkeyPatch], None]

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing in the library."""
    return lambda lab, patch: patch.setattr(f"vicinal.{target}", value)


def mixed(module: str, what: str, how: str) -> Mutation:
    """The mutation that mixes wrongly in one method."""
    return lambda lab, patch: lab.mutate_mix(patch, module, what=what, how=how)


def advmixup_without_radius_is_ict(lab: Any) -> None:
    """eps = 0 gives ICT's unsupervised term, bit for bit, dropout included, however ICT treats labelled examples."""
    student, teacher = lab.pair(dropout=0.5)
    for settings in ({}, {"lambda_per": "sample"}, {"distance": "kl"}, {"alpha": 0.1}):
        for space in ("pixels", "input"):
            found = lab.consistency(AdvMixup(epsilon=0, space=space, **settings), student, teacher)
            for mix_labelled in (True, False):
                assert torch.equal(found, lab.consistency(ICT(mix_labelled=mix_labelled, **settings), student, teacher))
        assert torch.equal(found, lab.consistency(AdvMixup(pairing="real-real", **settings), student, teacher))
    assert AdvMixup(epsilon=0).regime is None


def advmixup_at_lambda_one_is_mean_teacher(lab: Any) -> None:
    """The clean end alone: Mean Teacher's term with one and the same view in both branches, bit for bit."""
    student, teacher = lab.pair()
    (u, _) = lab.u
    for name in ("mse", "kl"):
        with lab.mixing(1.0):
            found = lab.consistency(AdvMixup(distance=name), student, teacher)
        assert torch.equal(found, lab.consistency(MeanTeacher(distance=name), student, teacher, u=(u, u)))


def advmixup_is_its_equation(lab: Any) -> None:
    """Adversarial ends carry the clean predictions of their sources; one lambda and one permutation for all."""
    student, teacher = lab.pair(double=True)
    partner = torch.tensor([3, 0, 6, 1, 7, 2, 5, 4])
    (u, _) = lab.u
    q = copy.deepcopy(teacher)(u).detach().softmax(dim=1)
    moved = AdvMixup().adversarial(lab.step(copy.deepcopy(student), teacher), u, q)
    ends = {"real-adversarial": (u, moved), "adversarial-adversarial": (moved, moved), "real-real": (u, u)}
    for pairing, (first, second) in ends.items():
        for order in (partner, torch.arange(8)):
            p = copy.deepcopy(student)(0.25 * first + 0.75 * second[order]).detach().softmax(dim=1)
            expected = (p - (0.25 * q + 0.75 * q[order])).square().mean()
            with lab.mixing(0.25, partner):
                method = AdvMixup(pairing=pairing, partner="shuffled" if order is partner else "own")
                torch.testing.assert_close(lab.consistency(method, student, teacher), expected, rtol=1e-6, atol=0)


def folding_names_the_end_that_dominates(lab: Any) -> None:
    """fold="real" keeps at least half of the clean end, fold="adversarial" at most half; the draw is the same."""
    student, teacher = lab.pair()
    seen: dict[Any, list[float]] = {fold: [] for fold in (None, "real", "adversarial")}
    with pytest.MonkeyPatch.context() as patch:
        for fold, found in seen.items():
            patch.setattr(
                "vicinal.methods.advmixup.mix",
                lambda first, second, lam, found=found: found.append(float(lam[0])) or mix(first, second, lam),
            )
            for seed in range(8):
                lab.terms(AdvMixup(fold=fold), student, teacher, seed=seed)
    for plain, real, adversarial in zip(*seen.values(), strict=True):
        assert real == pytest.approx(max(plain, 1 - plain), abs=1e-6)
        assert adversarial == pytest.approx(min(plain, 1 - plain), abs=1e-6)


def ict_at_the_ends_is_mean_teacher(lab: Any) -> None:
    """lambda = 1: bit for bit, dropout included. lambda = 0: the same loss on the permuted examples."""
    student, teacher = lab.pair(dropout=0.5)
    (u, _) = lab.u
    with lab.mixing(1.0):
        found = lab.consistency(ICT(), student, teacher)
    assert torch.equal(found, lab.consistency(MeanTeacher(), student, teacher, u=(u, u)))
    student, teacher = lab.pair(double=True)
    order = torch.arange(8).flip(0)
    with lab.mixing(0.0, order):
        found = lab.consistency(ICT(), student, teacher)
    expected = lab.consistency(MeanTeacher(), student, teacher, u=(u[order], u[order]))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def ict_does_not_care_who_is_the_partner(lab: Any) -> None:
    """(lambda, pi) -> (1 - lambda, inverse of pi) leaves the loss as it is, in either mixing space."""
    student, teacher = lab.pair(double=True)
    partner = torch.tensor([3, 0, 6, 1, 7, 2, 5, 4])
    for space in ("probabilities", "logits"):
        with lab.mixing(0.25, partner):
            found = lab.consistency(ICT(mix_space=space), student, teacher)
        with lab.mixing(0.75, partner.argsort()):
            swapped = lab.consistency(ICT(mix_space=space), student, teacher)
        torch.testing.assert_close(found, swapped, rtol=1e-12, atol=0)


class Log(nn.Module):
    """Logits whose softmax is the input, if that lies on the simplex: a student affine in probabilities."""

    def forward(self, x: Tensor) -> Tensor:
        return x.log()


def ict_of_an_affine_student_is_zero(lab: Any) -> None:
    network = Classifier(Identity(), nn.Identity(), Log(), feature_dim=6, classes=6)
    u = lab.u[0].double().softmax(dim=1)
    method = ICT(lambda_per="sample", mix_labelled=False)
    lab.x = lab.x.double().softmax(dim=1)
    assert lab.consistency(method, network, network, u=(u,)) < 1e-30
    assert lab.consistency(ICT(mix_space="logits", mix_labelled=False), network, network, u=(u,)) > 1e-6


def ict_target(lab: Any, logits: Tensor, mix_space: Any) -> Tensor:
    """The target for the two rows of logits mixed half and half."""
    classes, seen = logits.shape[1], []
    network = Classifier(Identity(), nn.Identity(), nn.Identity(), feature_dim=classes, classes=classes)
    lab.x, lab.y = logits, torch.tensor([0, 1])

    def spy(name: Any, target: Tensor, output: Tensor) -> Tensor:
        seen.append(target[0])
        return distance(name, target, output)

    with lab.mixing(0.5), pytest.MonkeyPatch.context() as patch:
        patch.setattr("vicinal.methods.ict.distance", spy)
        lab.terms(ICT(mix_space=mix_space), network, network, u=(logits,))
    return seen[0]


def ict_mixing_spaces(lab: Any) -> None:
    """The published example of what mixing logits (official code) makes of mixing probabilities (paper)."""
    z = torch.tensor([[8.0, 0, 0], [0, 2, 0]])
    assert ict_target(lab, z, "logits").tolist() == pytest.approx([0.936, 0.047, 0.017], abs=5e-4)
    assert ict_target(lab, z, "probabilities").tolist() == pytest.approx([0.553, 0.394, 0.053], abs=5e-4)
    peaks = torch.zeros(2, 10)
    peaks[0, 0], peaks[1, 1] = 8, 4
    assert float(ict_target(lab, peaks, "logits")[0]) == pytest.approx(0.78, abs=5e-3)
    assert float(ict_target(lab, peaks, "probabilities")[0]) == pytest.approx(0.51, abs=5e-3)


def mixup_is_soft_label_cross_entropy(lab: Any) -> None:
    """lambda CE(y) + (1 - lambda) CE(y') is the cross-entropy with the mixed label, in mixup and in ICT."""
    student, teacher = lab.pair()
    partner = torch.tensor([2, 0, 4, 1, 3])
    labels = nn.functional.one_hot(lab.y, 4).float()
    logits = copy.deepcopy(student)(0.25 * lab.x + 0.75 * lab.x[partner])
    expected = cross_entropy(0.25 * labels + 0.75 * labels[partner], logits).mean()
    with lab.mixing(0.25, partner):
        torch.testing.assert_close(lab.terms(Mixup(), student)["supervised"].value, expected)
        torch.testing.assert_close(lab.terms(ICT(), student, teacher)["supervised"].value, expected)
    plain = lab.terms(Supervised(), student)["supervised"].value
    assert torch.equal(plain, lab.terms(ICT(mix_labelled=False), student, teacher)["supervised"].value)
    for name in ("mean_teacher", "vat", "vat_entmin", "advmixup"):
        assert torch.equal(plain, lab.terms(METHODS[name](), student, teacher)["supervised"].value)


def weights_follow_the_published_ramp(lab: Any) -> None:
    """100 exp(-5) = 0.67 at the start, 100 from a share of 0.25 (ICT) or 0.27 (Mean Teacher) on; VAT has no ramp."""
    student, teacher = lab.pair()
    for method, end in ((ICT(), 25), (AdvMixup(), 25), (MeanTeacher(), 27)):
        weights = [lab.terms(method, student, teacher, at=at)["consistency"].weight for at in (0, end, 99)]
        assert weights == pytest.approx([100 * math.exp(-5), 100, 100])
        assert weights[0] == pytest.approx(0.67, abs=5e-3)
    assert lab.terms(VAT(weight=0.3), student, at=0)["smoothness"].weight == 0.3


def vat_entmin_is_vat_and_entropy(lab: Any) -> None:
    student = lab.network(dropout=0.5)
    parts, whole, plain = (lab.terms(method, student) for method in (VAT(entropy_weight=1), VATEntMin(), VAT()))
    assert list(parts) == list(whole) == ["supervised", "smoothness", "entropy"]
    assert all(torch.equal(parts[name].value, whole[name].value) for name in parts)
    assert whole["entropy"].weight == 1
    assert torch.equal(plain["smoothness"].value, whole["smoothness"].value)
    assert "entropy" not in plain


def _sharpened(name: Any, target: Tensor, logits: Tensor) -> Tensor:
    return distance(name, (2 * target.log()).softmax(dim=1), logits)


def _unmixed_losses(first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
    return first if first.dim() == 1 else mix(first, second, lam)


def _half_entropy(self: VATEntMin) -> None:
    VAT.__init__(self, entropy_weight=0.5)


def _unfolded(*args: Any, fold: bool, **rest: Any) -> Mixing:
    return draw_mixing(*args, **rest)


IDENTITIES = [
    pytest.param(
        folding_names_the_end_that_dominates,
        patched("methods.advmixup.draw_mixing", _unfolded),
        id="folding | forgotten",
    ),
    pytest.param(
        advmixup_without_radius_is_ict, mixed("advmixup", "targets", "own"), id="eps 0 | partner not applied to targets"
    ),
    pytest.param(
        advmixup_without_radius_is_ict,
        patched("methods.advmixup.AdvMixup._searches", True),
        id="eps 0 | searches, and moves the masks",
    ),
    pytest.param(
        advmixup_at_lambda_one_is_mean_teacher,
        mixed("advmixup", "inputs", "swapped"),
        id="AdvMixup at 1 | ends swapped",
    ),
    pytest.param(
        advmixup_is_its_equation, mixed("advmixup", "targets", "swapped"), id="AdvMixup | targets with 1 - lambda"
    ),
    pytest.param(
        ict_at_the_ends_is_mean_teacher, mixed("ict", "targets", "swapped"), id="ICT at 1 | targets with 1 - lambda"
    ),
    pytest.param(
        ict_does_not_care_who_is_the_partner, mixed("ict", "targets", "own"), id="ICT partners | not applied to targets"
    ),
    pytest.param(
        ict_of_an_affine_student_is_zero,
        patched("methods.ict.distance", _sharpened),
        id="ICT of affine | sharpened targets",
    ),
    pytest.param(ict_mixing_spaces, patched("methods.ict.mix", lambda a, b, lam: a), id="ICT spaces | not mixed"),
    pytest.param(
        mixup_is_soft_label_cross_entropy, patched("methods.mixup.mix", _unmixed_losses), id="mixup | labels not mixed"
    ),
    pytest.param(
        weights_follow_the_published_ramp, patched("schedules.sigmoid_ramp", lambda t: min(t, 1)), id="ramp | linear"
    ),
    pytest.param(
        vat_entmin_is_vat_and_entropy,
        patched("methods.vat.VATEntMin.__init__", _half_entropy),
        id="VAT+EntMin | other weight",
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
