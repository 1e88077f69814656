"""What holds of all methods with an autoencoder (check V6), and VarMixup within ICT; each check fails when mutated."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from support.lab import ImageLab, Lab
from support.properties import PROPERTIES, ledger_is, passes_are_declared
from support.training import examples, module_of, trained
from torch import Tensor

from vicinal.errors import InputError
from vicinal.methods import ICT, Context, Method, step
from vicinal.methods.on_manifold import OnManifoldTraining, VarMixupInputAdv, VarMixupLatentAdv
from vicinal.methods.varmixup import LatentMethod, MixupR, VarMixup
from vicinal.methods.varmixup_ict import VarMixupICT
from vicinal.networks import FROZEN_STATS, fit_pca, mmd_vae
from vicinal.settings import parse_settings

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]

ROWS = [
    (VarMixupICT(), "f+F+T+e+d+b+B", "f* F*", "F*"),
    (VarMixupICT(mode="endpoint", mix_labelled=False), "f+F+T+e+2d+b+B", "f* F*", "F*"),
    (VarMixupICT(latent_labelled=True), "f+F+T+2e+2d+b+B", "f* F*", "F*"),
    (VarMixupICT(logging_passes=True), "2f+2F+T+t+e+d+b+B", "f* F* f* F*", "F* f*"),
]
KINDS = (VarMixup, MixupR, OnManifoldTraining, VarMixupLatentAdv, VarMixupInputAdv, VarMixupICT)


def inputs(lab: Lab, method: Method, batch: str) -> Tensor:
    """The inputs of that batch that the student sees."""
    passes = lab.record(method, *lab.pair())
    return [made for made in passes if made.network == "student" and made.batch == batch][-1].x.detach()


def v6_autoencoders_stay_as_they_are(lab: Lab) -> None:
    """Through an epoch of every method, bit for bit, though handed over in training mode with weights to be trained."""
    lab = ImageLab()
    for method in [kind() for kind in KINDS] + [VarMixupICT(latent_labelled=True), VarMixup(latent="sample")]:
        torch.manual_seed(0)
        network = mmd_vae(lab.shape, lab.classes, latent=3, widths=[4])
        lab.autoencoder = network  # type: ignore[assignment]
        before = copy.deepcopy(network.state_dict())
        _, weights = trained(lab, method, lab.network(), *examples(lab))
        assert not all(torch.equal(*pair) for pair in zip(weights, lab.network().parameters(), strict=True))
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items()), method
        assert all(parameter.grad is None for parameter in network.parameters())
        assert network.training
    network(torch.rand(4, *lab.shape))
    assert not all(torch.equal(before[name], value) for name, value in network.state_dict().items()), "control"


def autoencoders_are_no_part_of_the_module(lab: Lab) -> None:
    """Neither trained with the method, nor put in training mode with it, nor in its checkpoints."""
    for kind in KINDS:
        torch.manual_seed(0)
        lab.autoencoder = mmd_vae(lab.shape, lab.classes, latent=3, widths=[4]).eval()  # type: ignore[assignment]
        module = module_of(lab, kind(), lab.network()).train()
        assert not lab.autoencoder.training
        assert list(module.method.parameters()) == []
        assert not any(name.startswith("method.") for name in module.state_dict())


def ict_with_a_lossless_autoencoder_is_ict(lab: Lab) -> None:
    """Targets and inputs share lambda and partners, so with all principal components nothing changes but rounding."""
    student, teacher = lab.pair()
    lab.autoencoder = fit_pca(torch.cat([lab.x, *lab.u]), 6)  # type: ignore[assignment]
    for settings in ({}, {"lambda_per": "sample", "fold": True}, {"mix_space": "logits"}, {"mix_labelled": False}):
        expected = lab.terms(ICT(**settings), student, teacher)
        for more in ({}, {"mode": "endpoint"}, {"latent_labelled": True}):
            found = lab.terms(VarMixupICT(**settings, **more), student, teacher)
            for name, term in expected.items():
                torch.testing.assert_close(found[name].value, term.value)
                assert found[name].weight == term.weight


def ict_mixes_codes_where_it_says(lab: Lab) -> None:
    inside = lab.autoencoder(torch.cat([lab.x, lab.u[0]])).abs().max()  # of a decoder that ends with tanh
    for labelled in (False, True):
        method = VarMixupICT(latent_labelled=labelled)
        assert inputs(lab, method, "F").abs().max() <= inside
        assert (inputs(lab, method, "f").abs().max() <= inside) == labelled


def patched(target: str, value: object) -> Mutation:
    return lambda patch: patch.setattr(target, value)


def trained_autoencoders(patch: pytest.MonkeyPatch) -> None:
    """Mutation: the autoencoder runs as it comes, in training mode."""
    for target in ("vicinal.vicinity.latent._frozen", "vicinal.methods.varmixup.applied"):
        patch.setattr(target, lambda *_: nullcontext())


def held_in_the_tree(patch: pytest.MonkeyPatch) -> None:
    original = LatentMethod.prepare

    def wrong(self: LatentMethod, context: Context) -> None:
        original(self, context)
        self.second_network = context.autoencoder

    patch.setattr(LatentMethod, "prepare", wrong)


CHECKS = [
    pytest.param(v6_autoencoders_stay_as_they_are, trained_autoencoders, id="V6 | training mode"),
    pytest.param(autoencoders_are_no_part_of_the_module, held_in_the_tree, id="module tree | held in it"),
    pytest.param(
        ict_with_a_lossless_autoencoder_is_ict,
        patched("vicinal.methods.varmixup_ict.VarMixupICT.mixed", lambda self, step, u, mixing: u),
        id="ICT | not mixed",
    ),
    pytest.param(
        ict_mixes_codes_where_it_says,
        patched("vicinal.methods.varmixup_ict.VarMixupICT.supervised", ICT.supervised),
        id="ICT | labelled inputs mixed",
    ),
    pytest.param(
        ict_mixes_codes_where_it_says,
        patched("vicinal.methods.varmixup_ict.VarMixupICT.mixed", ICT.mixed),
        id="ICT | inputs mixed",
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
    holds(lab, type(method)(**method.settings()))


@pytest.mark.parametrize(("method", "cost", "row", "teacher"), ROWS)
def test_ledger_and_cost(
    method: Method, cost: str, row: str, teacher: str, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert str(method.passes()) == cost
    passes_are_declared(lab, method)
    ledger_is(lab, method, row, teacher)
    run = step.run
    monkeypatch.setattr(step, "run", lambda network, x, policy, **rest: run(network, x, FROZEN_STATS, **rest))
    with pytest.raises(AssertionError):
        ledger_is(lab, method, row, teacher)


@pytest.mark.parametrize("kind", KINDS)
def test_an_autoencoder_is_needed_and_must_fit(kind: type[LatentMethod], lab: Lab) -> None:
    student = lab.network()
    with pytest.raises(
        InputError, match=r"train one with: vicinal fit DATA --method mmd_vae, or leave autoencoder: auto"
    ):
        kind().prepare(Context(student, lab.shape, lab.rows))
    for other in (mmd_vae((7,), 4, widths=[4]), mmd_vae((1, 6, 6), 4, widths=[4]), fit_pca(torch.randn(9, 7), 2)):
        with pytest.raises(InputError, match=r"^method.autoencoder: it does not rebuild examples of shape \(6,\)"):
            kind().prepare(Context(student, lab.shape, lab.rows, other))


@pytest.mark.parametrize(
    ("kind", "settings", "what"),
    [
        (VarMixup, {"alpha": 0.0}, "alpha"),
        (VarMixup, {"share": 1.5}, "share"),
        (VarMixup, {"mode": "pur"}, "mode"),
        (MixupR, {"mode": "endpoint"}, "mode"),
        (VarMixupLatentAdv, {"mode": "endpoint"}, "mode"),
        (VarMixupLatentAdv, {"alpha": -1.0}, "alpha"),
        (VarMixupLatentAdv, {"steps": 0}, "steps"),
        (VarMixupInputAdv, {"share": -1.0}, "share"),
        (VarMixupInputAdv, {"epsilon": -1.0}, "epsilon"),
        (OnManifoldTraining, {"box": (1.0, -1.0)}, "bounds"),
        (VarMixupICT, {"alpha": 0.0}, "alpha"),
    ],
)
def test_bad_settings(kind: type[Method], settings: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        kind(**parse_settings("method", kind, settings))


def test_means_alone_of_an_autoencoder_without_posterior(lab: Lab) -> None:
    for method in (VarMixup(latent="sample"), VarMixupICT(latent="sample")):
        with pytest.raises(InputError, match="no posterior to draw from"):
            lab.loss(method, *lab.pair())
