"""Adversaries on the manifold: check V7, closed forms of linear models, limits; each check fails when mutated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.lab import Lab
from support.properties import PROPERTIES, ledger_is, passes_are_declared
from torch import Tensor, nn

from vicinal.methods import Method, on_manifold
from vicinal.methods.on_manifold import OnManifoldTraining, VarMixupInputAdv, VarMixupLatentAdv
from vicinal.methods.varmixup import VarMixup
from vicinal.networks import TRAIN, PassPolicy, fit_pca
from vicinal.vicinity import cross_entropy, draw_mixing, latent_adversary, latent_mix

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

ROWS = [
    (OnManifoldTraining(), "8f+e+8d+b+5x+5y", "f f f f f f f f*"),
    (OnManifoldTraining(epsilon=0), "f+e+d+b", "f*"),
    (VarMixupLatentAdv(), "8f+e+8d+b+5x+5y", "f f f f f f f f*"),
    (VarMixupLatentAdv(steps=1, mode="joint"), "5f+e+4d+2b+x+y", "f* f f f f*"),
    (VarMixupInputAdv(), "11f+e+d+b+10x", "f f f f f f f f f f f*"),
    (VarMixupInputAdv(steps=1, mode="endpoint", search="eval"), "2f+e+2d+b+x", "f f*"),
    (VarMixupInputAdv(epsilon=0), "f+e+d+b", "f*"),
]
MODULE = "vicinal.methods.on_manifold."


def another(method: Method) -> Any:
    return type(method)(**method.settings())


def inputs(lab: Lab, method: Method, student: nn.Module) -> Tensor:
    """What the student learns from."""
    return lab.record(method, student)[-1].x.detach()


def v7_searches_find_no_less_and_stay_in_the_ball(lab: Lab) -> None:
    """Under one dropout mask: the loss at the codes found is at least that at zeta = 0, for every example."""
    asked: list[dict[str, Any]] = []
    search = on_manifold.latent_adversary

    def noted(objective: Any, decode: Any, z: Tensor, **settings: Any) -> Tensor:
        found = search(objective, decode, z, **settings)
        with torch.no_grad():
            asked.append({"z": z, "found": found, "gain": objective(decode(found)) - objective(decode(z))})
        return found

    for method in (OnManifoldTraining(box=None), VarMixupLatentAdv(epsilon=0.5), VarMixupLatentAdv(steps=1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"{MODULE}latent_adversary", noted)
            lab.loss(method, lab.network(dropout=0.5))
        found = asked[-1]
        assert (found["gain"] >= -1e-6).all()
        assert found["gain"].max() > 0
        assert (found["found"] - found["z"]).abs().max() <= method.epsilon + 1e-6


def searches_see_one_mask(lab: Lab) -> None:
    """Without shared masks the best of all points would be that of the luckiest mask."""
    student = lab.network(dropout=0.5, norm="none")
    for method in (OnManifoldTraining(epsilon=1e-12), VarMixupLatentAdv(epsilon=1e-12)):
        outputs: list[Tensor] = []
        handle = student.register_forward_hook(lambda _, x, logits, outputs=outputs: outputs.append(logits.detach()))
        lab.loss(method, student)
        handle.remove()
        assert len(outputs) == 8
        for other in outputs[1:-1]:
            torch.testing.assert_close(other, outputs[0])


def corner_of_a_linear_model(lab: Lab) -> None:
    """With a linear decoder and two classes, zeta = epsilon sign( D^T (w_other - w_own) )."""
    lab = Lab()
    lab.y = lab.y % 2
    lab.autoencoder = fit_pca(torch.cat([lab.x, lab.u[0]]), 4)  # type: ignore[assignment]
    student = lab.linear(double=False)
    student.head.weight.data[2:], student.head.bias.data[2:] = 0.0, -1e3  # the other classes are out
    weight = student.head.weight.detach()
    zero = torch.zeros(1, 4)
    slopes = (lab.autoencoder.decode(torch.eye(4)) - lab.autoencoder.decode(zero)) @ (
        weight[1 - lab.y] - weight[lab.y]
    ).T
    corner = lab.autoencoder.encode(lab.x) + 0.3 * slopes.T.sign()
    found = inputs(lab, OnManifoldTraining(box=None), student)
    torch.testing.assert_close(found, lab.autoencoder.decode(corner), atol=1e-5, rtol=0)
    boxed = inputs(lab, OnManifoldTraining(box=(-0.5, 0.5)), student)
    inside = lab.autoencoder.encode(lab.x).clamp(-0.5, 0.5) + 0.3 * slopes.T.sign()
    torch.testing.assert_close(boxed, lab.autoencoder.decode(inside.clamp(-0.5, 0.5)), atol=1e-5, rtol=0)


def without_radius_they_are_varmixup(lab: Lab) -> None:
    """Bit for bit; and on-manifold training then sees reconstructions."""
    student = lab.network(dropout=0.5)
    expected = lab.terms(VarMixup(), student)["supervised"].value
    for method in (VarMixupLatentAdv(epsilon=0), VarMixupInputAdv(epsilon=0)):
        assert torch.equal(lab.terms(method, student)["supervised"].value, expected)
    student = lab.network(norm="none")
    expected = lab.terms(VarMixup(), student)["supervised"].value
    for method in (VarMixupLatentAdv(), VarMixupInputAdv(epsilon=0.1)):
        assert lab.terms(method, student)["supervised"].value > expected
    x = lab.autoencoder(lab.x)
    assert torch.equal(inputs(lab, OnManifoldTraining(epsilon=0, box=None), student), x)


def attacked_inputs_are_coded_with_clean_labels(lab: Lab) -> None:
    student, kept = lab.network(), []
    student.register_forward_hook(lambda _, x, logits: kept.append((x[0], logits)))
    mixing = draw_mixing(5, 1.0, torch.Generator().manual_seed(0), per="sample")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vicinal.methods.adversarial_training.projected_ascent", lambda objective, x, **_: x + 0.5)
        patch.setattr("vicinal.methods.varmixup.draw_mixing", lambda *_, **__: mixing)
        value = lab.loss(VarMixupInputAdv(), student)["supervised"].value
    ((x, logits),) = kept
    assert torch.equal(x, latent_mix(lab.autoencoder, lab.x + 0.5, mixing))
    own, other = (cross_entropy(y, logits) for y in (lab.y, lab.y[mixing.partner]))
    torch.testing.assert_close(value, (mixing.lam * own + (1 - mixing.lam) * other).mean())


def patched(target: str, value: object) -> Mutation:
    return lambda patch: patch.setattr(target, value)


def other_search(**changed: Callable[[Any], Any]) -> Mutation:
    def wrong(objective: Any, decode: Any, z: Tensor, **given: Any) -> Tensor:
        return latent_adversary(objective, decode, z, **{**given, **{k: f(given[k]) for k, f in changed.items()}})

    return patched(f"{MODULE}latent_adversary", wrong)


def random_codes(objective: Any, decode: Any, z: Tensor, *, epsilon: float, generator: Any, **_: Any) -> Tensor:
    return z + epsilon * torch.randn(z.shape, generator=generator).sign()


def always_searching(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(VarMixupInputAdv, "sources", lambda self, step: step.student(step.x).sum() * 0 + step.x)


CHECKS = [
    pytest.param(v7_searches_find_no_less_and_stay_in_the_ball, other_search(epsilon=lambda e: 2 * e), id="V7 | ball"),
    pytest.param(
        v7_searches_find_no_less_and_stay_in_the_ball,
        patched(f"{MODULE}latent_adversary", random_codes),
        id="V7 | no search",
    ),
    pytest.param(
        searches_see_one_mask,
        patched(f"{MODULE}PassPolicy", lambda **given: PassPolicy(**{**given, "dropout": "fresh"})),
        id="masks | fresh",
    ),
    pytest.param(corner_of_a_linear_model, other_search(step_size=lambda s: s / 10), id="corner | short steps"),
    pytest.param(corner_of_a_linear_model, other_search(box=lambda _: None), id="corner | no box"),
    pytest.param(without_radius_they_are_varmixup, always_searching, id="radius 0 | a pass more"),
    pytest.param(
        attacked_inputs_are_coded_with_clean_labels,
        patched(f"{MODULE}VarMixupInputAdv.sources", lambda self, step: step.x),
        id="attacked | clean inputs",
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


@pytest.mark.parametrize("method", [row[0] for row in ROWS])
@pytest.mark.parametrize("holds", PROPERTIES)
def test_property(holds: Callable[[Lab, Method], None], method: Method, lab: Lab) -> None:
    holds(lab, another(method))


@pytest.mark.parametrize(("method", "cost", "row"), ROWS)
def test_ledger_and_cost(method: Method, cost: str, row: str, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(method.passes()) == cost
    passes_are_declared(lab, method)
    ledger_is(lab, method, row)
    for module in (MODULE, "vicinal.methods.adversarial_training."):
        monkeypatch.setattr(f"{module}PassPolicy", lambda **_: TRAIN)
    if method.passes().x:
        with pytest.raises(AssertionError):
            ledger_is(lab, method, row)
