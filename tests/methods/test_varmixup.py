"""VarMixup and its ablation: checks V1 to V4 and V8 on what the student sees and learns; each fails when mutated."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.lab import ImageLab, Lab
from support.properties import PROPERTIES, ledger_is, passes_are_declared
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.methods import Context, Method, Mixup, Supervised, Term, varmixup
from vicinal.methods.mixup import mixed_cross_entropy
from vicinal.methods.varmixup import MixupR, VarMixup, mixed_losses
from vicinal.networks import Autoencoder, fit_pca, mmd_vae
from vicinal.vicinity import Mixing, endpoint_mix, mix, mixup_r

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

MODULE = "vicinal.methods.varmixup."
ROWS = [
    (VarMixup(), "f+e+d+b", "f*"),
    (VarMixup(mode="endpoint"), "f+e+2d+b", "f*"),
    (VarMixup(mode="joint"), "2f+e+d+2b", "f* f*"),
    (VarMixup(mode="joint", beside="mixup"), "2f+e+d+2b", "f* f*"),
    (VarMixup(mode="alternate", share=1), "f+e+d+b", "f*"),
    (VarMixup(mode="alternate", share=0), "f+b", "f*"),
    (MixupR(), "f+e+d+b", "f*"),
    (MixupR(mode="joint"), "2f+e+d+2b", "f* f*"),
]
RULES = [VarMixup(), VarMixup(mode="endpoint"), MixupR()]


class Circle(Autoencoder):
    """Points of the unit circle and their angles."""

    latent = 1

    def encode(self, x: Tensor) -> Tensor:
        return torch.atan2(x[:, 1:], x[:, :1])

    def decode(self, z: Tensor) -> Tensor:
        return torch.cat([z.cos(), z.sin()], dim=1)


class CircleLab(Lab):
    """Labelled points of the right half of the unit circle, in float64."""

    shape = (2,)
    features = 2

    def __init__(self) -> None:
        super().__init__()
        angles = torch.tensor([-1.5, -0.9, 0.1, 0.8, 1.4], dtype=torch.float64)
        self.x = torch.stack([angles.cos(), angles.sin()], dim=1)
        self.autoencoder = Circle()  # type: ignore[assignment]


def seen(lab: Lab, method: Method, student: nn.Module | None = None, **step: Any) -> Tensor:
    """The examples that the student learns from."""
    passes = lab.record(
        method, lab.network(double=lab.x.dtype == torch.float64) if student is None else student, **step
    )
    return [made for made in passes if made.network == "student"][-1].x.detach()


def linear_autoencoder(lab: Lab, latent: int, dtype: torch.dtype) -> None:
    """Give the lab principal components, and examples of that type."""
    lab.x = lab.x.to(dtype)
    lab.autoencoder = fit_pca(torch.cat([lab.x, lab.u[0].to(dtype)]), latent)  # type: ignore[assignment]


def apart(first: Tensor, second: Tensor) -> float:
    return float((first - second).detach().abs().max())


def v1_with_all_components_it_is_mixup(lab: Lab) -> None:
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        lab = Lab()
        linear_autoencoder(lab, 6, dtype)
        plain = Mixup(lambda_per="sample")
        student = lab.network(double=dtype == torch.float64)
        for method in RULES:
            assert apart(seen(lab, method), seen(lab, plain)) < tolerance
            found, expected = (lab.terms(kind, student)["supervised"].value for kind in (method, plain))
            assert apart(found, expected) < tolerance


def v2_with_fewer_components_it_is_mixup_of_reconstructions(lab: Lab) -> None:
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        lab = Lab()
        linear_autoencoder(lab, 3, dtype)
        mixed = seen(lab, VarMixup())
        assert apart(mixed, seen(lab, MixupR())) < tolerance
        assert apart(mixed, seen(lab, Mixup(lambda_per="sample"))) > 1e-3


def v3_ends(lab: Lab) -> None:
    """Reconstructions, and examples themselves in the mode "endpoint", bit for bit; codes bend what lies between."""
    partner = torch.arange(5).roll(1)
    rebuilt = lab.autoencoder(lab.x)
    for lam, own in ((1.0, torch.arange(5)), (0.0, partner)):
        with pytest.MonkeyPatch.context() as patch:
            mixing = Mixing(torch.full((5,), lam), partner)
            patch.setattr("vicinal.methods.varmixup.draw_mixing", lambda *_, _mixing=mixing, **__: _mixing)
            for method in (VarMixup(), MixupR()):
                assert torch.equal(seen(lab, method), rebuilt[own])
            assert torch.equal(seen(lab, VarMixup(mode="endpoint")), lab.x[own])
    assert apart(rebuilt, lab.x) > 1e-3
    assert apart(seen(lab, VarMixup()), seen(lab, MixupR())) > 1e-3


def v4_mixing_angles_stays_on_the_circle(lab: Lab) -> None:
    lab = CircleLab()
    assert apart(seen(lab, VarMixup()).norm(dim=1), torch.ones(5)) < 1e-12
    for method in (Mixup(lambda_per="sample"), MixupR()):
        radius = seen(lab, method).norm(dim=1)
        assert radius.max() < 1 + 1e-12
        assert radius.min() < 0.99, "control: chords lie inside"


def v8_labels_are_mixed_like_codes(lab: Lab) -> None:
    """Examples show their own label, so that the mixed label, read off the gradient, is what the student sees."""
    for method in RULES:
        for mode in ("batch", "sample"):
            lab = Lab()
            lab.x = F.one_hot(lab.y, 6).float()
            lab.autoencoder = fit_pca(torch.eye(6), 6)  # type: ignore[assignment]
            method.lambda_per = mode
            student, kept = lab.linear(double=False), []
            student.register_forward_hook(lambda _, x, logits, kept=kept: kept.append((x[0], logits)))
            (term,) = lab.loss(method, student).values()
            ((x, logits),) = kept
            (gradient,) = torch.autograd.grad(term.value, logits)
            labels = logits.softmax(dim=1) - 5 * gradient
            torch.testing.assert_close(labels.sum(dim=1), torch.ones(5))
            torch.testing.assert_close(labels, x[:, :4], atol=1e-5, rtol=0)
            assert ((x > 0.05).sum(dim=1) == 2).any(), "some example is a mixture"


def joint_is_the_mean_of_both(lab: Lab) -> None:
    student = lab.network()
    for beside, plain in (("clean", Supervised()), ("mixup", Mixup(lambda_per="sample"))):
        for kind in (VarMixup, MixupR):
            found = lab.total(lab.terms(kind(mode="joint", beside=beside), student))
            both = [lab.total(lab.terms(method, student)) for method in (plain, kind())]
            torch.testing.assert_close(found, (both[0] + both[1]) / 2)


def alternate_takes_one_or_the_other(lab: Lab) -> None:
    """At its ends one of them, bit for bit; between them that share of steps, drawn for each."""
    student = lab.network(dropout=0.5)
    for beside, plain in (("clean", Supervised()), ("mixup", Mixup(lambda_per="sample"))):
        real = lab.total(lab.terms(plain, student))
        vicinal = lab.total(lab.terms(VarMixup(), student))
        for share, expected in ((0.0, real), (1.0, vicinal)):
            method = VarMixup(mode="alternate", share=share, beside=beside)
            assert torch.equal(lab.total(lab.terms(method, student)), expected)
    student = lab.network(norm="none")
    method = lab.prepare(VarMixup(mode="alternate", share=0.3), student)
    clean = lab.loss(Supervised(), student)["supervised"].value
    taken = [not torch.equal(lab.loss(method, student, at=at)["supervised"].value, clean) for at in range(200)]
    assert 0.2 < sum(taken) / 200 < 0.4


def images_are_clipped_and_vectors_are_not(lab: Lab) -> None:
    for method in RULES:
        images, vectors = seen(ImageLab(), method), seen(Lab(), method)
        assert (images.min(), vectors.min() < -0.1) == (0, True)
        assert images.max() <= 1


def codes_are_means_or_draws(lab: Lab) -> None:
    torch.manual_seed(0)
    lab.autoencoder = mmd_vae(lab.shape, 4, latent=3, widths=[8]).eval()  # type: ignore[assignment]
    for mode in ("pure", "endpoint"):
        means = [seen(lab, VarMixup(mode=mode), seed=1) for _ in range(2)]
        drawn = [seen(lab, VarMixup(mode=mode, latent="sample"), seed=seed) for seed in (1, 1, 2)]
        assert torch.equal(*means)
        assert torch.equal(drawn[0], drawn[1])
        assert apart(drawn[0], means[0]) > 1e-2
        assert apart(drawn[0], drawn[2]) > 1e-2


def autoencoders_run_in_full_precision(lab: Lab) -> None:
    torch.manual_seed(0)
    lab.autoencoder = mmd_vae(lab.shape, 4, latent=3, widths=[8]).eval()  # type: ignore[assignment]
    expected = seen(lab, VarMixup())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(seen(lab, VarMixup()), expected)


def patched(target: str, value: object) -> Mutation:
    return lambda patch: patch.setattr(target, value)


def swapped(first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
    return mix(first, second, 1 - lam)


def other_partners(y: Tensor, logits: Tensor, mixing: Mixing) -> Tensor:
    return mixed_losses(y, logits, Mixing(mixing.lam, mixing.partner.roll(1)))


def other_mixup(step: Any, alpha: float, per: Any, fold: bool) -> Tensor:
    return mixed_cross_entropy(step, alpha / 10, per, fold)


def other_torch(**changed: object) -> Mutation:
    """The mutation under which torch has something else by that name, for the method alone."""
    return patched(f"{MODULE}torch", SimpleNamespace(**{**vars(torch), **changed}))


def fixed_range(given: object) -> Mutation:
    original = VarMixup.prepare

    def wrong(self: VarMixup, context: Context) -> None:
        original(self, context)
        self._range = given  # type: ignore[assignment]

    return patched("vicinal.methods.varmixup.VarMixup.prepare", wrong)


CHECKS = [
    pytest.param(v1_with_all_components_it_is_mixup, patched("vicinal.vicinity.latent.mix", swapped), id="V1 | lambda"),
    pytest.param(v1_with_all_components_it_is_mixup, patched(f"{MODULE}mix", swapped), id="V1 | labels' lambda"),
    pytest.param(
        v2_with_fewer_components_it_is_mixup_of_reconstructions,
        patched(f"{MODULE}mixup_r", endpoint_mix),
        id="V2 | endpoint",
    ),
    pytest.param(v3_ends, patched("vicinal.vicinity.latent.mix", swapped), id="V3 | lambda"),
    pytest.param(v3_ends, lambda patch: patch.setitem(varmixup.RULES, "pure", mixup_r), id="V3 | Mixup-R"),
    pytest.param(
        v4_mixing_angles_stays_on_the_circle,
        lambda patch: patch.setitem(varmixup.RULES, "pure", mixup_r),
        id="V4 | Mixup-R",
    ),
    pytest.param(v8_labels_are_mixed_like_codes, patched(f"{MODULE}mixed_losses", other_partners), id="V8 | partners"),
    pytest.param(v8_labels_are_mixed_like_codes, patched(f"{MODULE}mix", swapped), id="V8 | lambda"),
    pytest.param(joint_is_the_mean_of_both, patched(f"{MODULE}Term", lambda value, *_: Term(value)), id="joint | sum"),
    pytest.param(
        joint_is_the_mean_of_both, patched(f"{MODULE}mixed_cross_entropy", other_mixup), id="joint | other alpha"
    ),
    pytest.param(alternate_takes_one_or_the_other, other_torch(rand=lambda *_, **__: 0.2), id="alternate | always"),
    pytest.param(alternate_takes_one_or_the_other, other_torch(rand=lambda *_, **__: 0.8), id="alternate | never"),
    pytest.param(images_are_clipped_and_vectors_are_not, fixed_range(None), id="clipping | none"),
    pytest.param(images_are_clipped_and_vectors_are_not, fixed_range((0.0, 1.0)), id="clipping | everywhere"),
    pytest.param(
        codes_are_means_or_draws, patched(f"{MODULE}VarMixup._draws", lambda self, step: None), id="codes | means"
    ),
    pytest.param(
        codes_are_means_or_draws,
        patched(f"{MODULE}VarMixup._draws", lambda self, step: step.generator("codes")),
        id="codes | draws",
    ),
    pytest.param(
        autoencoders_run_in_full_precision,
        other_torch(autocast=lambda *_, **__: nullcontext()),
        id="precision | the training's",
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


@pytest.mark.parametrize("method", [row[0] for row in ROWS], ids=str)
@pytest.mark.parametrize("holds", PROPERTIES)
def test_property(holds: Callable[[Lab, Method], None], method: Method, lab: Lab) -> None:
    holds(lab, type(method)(**method.settings()))


@pytest.mark.parametrize(("method", "cost", "row"), ROWS)
def test_ledger_and_cost(method: Method, cost: str, row: str, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(method.passes()) == cost
    passes_are_declared(lab, method)
    ledger_is(lab, method, row)
    monkeypatch.setattr("vicinal.methods.step.run", lambda network, x, policy, **rest: network.eval()(x))
    with pytest.raises(AssertionError):
        ledger_is(lab, method, row)
