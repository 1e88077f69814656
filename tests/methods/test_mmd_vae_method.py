"""The MMD-VAE's own training: its loss, what it may look at, what validation measures; with mutations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.lab import ImageLab, Lab
from support.properties import draws_are_the_steps_own, settings_are_explained
from support.training import examples, trained
from torch import Tensor, nn

from vicinal.data import Examples
from vicinal.errors import InputError
from vicinal.evaluation.reconstruction import reconstruction
from vicinal.experiment import Experiment
from vicinal.methods import Context, Cost
from vicinal.methods.mmd_vae import MMDVAETraining
from vicinal.networks import MMDVAE, Posterior, mmd_vae
from vicinal.vicinity import info_vae_loss, mmd2

torch.set_num_threads(1)

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]
MODULE = "vicinal.methods.mmd_vae."


class VAELab(ImageLab):
    """The lab of images with autoencoders for students."""

    def network(self, seed: int = 0, *, stochastic: bool = True, **_: Any) -> MMDVAE:  # type: ignore[override]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return mmd_vae(self.shape, self.classes, latent=3, widths=[6], stochastic=stochastic)


def terms_of(lab: Lab, method: MMDVAETraining, network: nn.Module | None = None, **step: Any) -> dict[str, Any]:
    return lab.loss(method, lab.network() if network is None else network, **step)


def equations_hold(lab: Lab) -> None:
    """Each term from what the network's halves gave: codes, draws of the prior, and what was rebuilt."""
    network, codes, rebuilt = lab.network(), [], []
    network.decoder.register_forward_hook(lambda _, z, x: codes.append(z[0]))
    network.decoder.register_forward_hook(lambda _, z, x: rebuilt.append(x))
    found = terms_of(lab, MMDVAETraining(kl_weight=0.5), network)
    (z,), (x,), (u,) = codes, rebuilt, lab.u[:1]
    expected = sum(((x[i] - u[i]) ** 2).sum() / 2 for i in range(8)) / 8
    torch.testing.assert_close(found["reconstruction"].value, expected)
    draws = lab.step(network).generator("codes")
    noise, prior = torch.randn(8, 3, generator=draws), torch.randn(8, 3, generator=draws)
    torch.testing.assert_close(found["mmd"].value, mmd2(z, prior))
    with torch.no_grad():
        mean, log_variance = network.posterior(u)
    torch.testing.assert_close(z, mean + (log_variance / 2).exp() * noise)
    law = torch.distributions.Normal(mean, (log_variance / 2).exp())
    kl = torch.distributions.kl_divergence(law, torch.distributions.Normal(torch.zeros(3), torch.ones(3))).sum() / 8
    torch.testing.assert_close(found["kl"].value, kl)


def weights_grow_with_the_example(lab: Lab) -> None:
    """1000 for 32x32 colour images, and in proportion to the number of values."""
    for shape, weight in (((3, 32, 32), 1000.0), ((1, 8, 8), 1000 / 48), ((6,), 6000 / 3072)):
        network = mmd_vae(shape, 4, latent=2, widths=[4])
        method = MMDVAETraining()
        method.prepare(Context(network, shape, 40))
        u = (torch.rand(4, *shape),)
        assert method.loss(lab.step(network, u=u))["mmd"].weight == pytest.approx(weight)
        given = MMDVAETraining(mmd_weight=7.0)
        given.prepare(Context(network, shape, 40))
        assert given.loss(lab.step(network, u=u))["mmd"].weight == 7.0
    found = terms_of(lab, MMDVAETraining(kl_weight=0.25))
    assert (found["reconstruction"].weight, found["kl"].weight) == (1.0, 0.25)
    assert list(terms_of(lab, MMDVAETraining())) == ["reconstruction", "mmd"]


def labels_are_never_used(lab: Lab) -> None:
    """Nor the labelled batch: with other labels, and other labelled rows, the same losses and weights, bit for bit."""
    data, split = examples(lab)
    network = lab.network()
    losses, weights = trained(lab, MMDVAETraining(), network, data, split)
    other = split.__class__(split.labelled.flip(0)[:6], split.unlabelled, split.validation)
    for changed, rows in ((Examples(data.x, (data.y + 1) % 4), split), (data, other)):
        again, same = trained(lab, MMDVAETraining(), network, changed, rows)
        assert again == losses
        assert all(torch.equal(*pair) for pair in zip(weights, same, strict=True))


def one_pass_over_the_pool(lab: Lab) -> None:
    """One encoder and one decoder pass with gradients, on the unlabelled view; batch norm moves once."""
    network, seen = lab.network(), []
    for name in ("encoder", "decoder"):
        getattr(network, name).register_forward_pre_hook(lambda _, x, name=name: seen.append((name, x[0])))
    lab.total(terms_of(lab, MMDVAETraining(), network)).backward()
    assert [name for name, _ in seen] == ["encoder", "decoder"]
    assert torch.equal(seen[0][1], lab.u[0])
    assert MMDVAETraining().passes() == Cost(f=0, F=1, b=0, B=1)
    assert str(MMDVAETraining().passes()) == "F+B"
    assert all(parameter.grad is not None for parameter in network.parameters())
    counts = {int(buffer) for name, buffer in network.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {1}


def unlabelled_data_moves_the_gradient(lab: Lab) -> None:
    gradients = []
    for u in (lab.u, lab.other_u):
        network = lab.network()
        gradients.append(lab.gradient(lab.total(terms_of(lab, MMDVAETraining(), network, u=u)), network))
    assert gradients[0].isfinite().all()
    assert not torch.equal(*gradients)


def measured_is_the_squared_error_of_evaluation(lab: Lab) -> None:
    """The sum over a batch; over a set and divided by its size it is what the evaluation calls squared error."""
    network = lab.network().eval()
    x, y = torch.rand(9, *lab.shape), torch.zeros(9, dtype=torch.int64)
    with torch.no_grad():
        parts = [MMDVAETraining().measured(network, x[k:j], y[k:j]) for k, j in ((0, 4), (4, 9))]
        by_hand = sum(((network(x[i : i + 1]) - x[i]) ** 2).mean() for i in range(9))
    assert all(part.dim() == 0 for part in parts)
    torch.testing.assert_close(sum(parts), by_hand)
    assert float(sum(parts)) / 9 == pytest.approx(reconstruction(network, [(x, y)]).squared_error, rel=1e-5)


def draws_are_its_own(lab: Lab) -> None:
    """The same step twice gives the same terms; another step or seed others; none from the global generator."""
    draws_are_the_steps_own(lab, MMDVAETraining())
    values = [terms_of(lab, MMDVAETraining(), **step)["mmd"].value for step in ({}, {"at": 31}, {"seed": 2})]
    assert len({value.item() for value in values}) == 3


def parts(change: Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]]) -> Mutation:
    original = info_vae_loss

    def wrong(vae: MMDVAE, x: Tensor, generator: torch.Generator, **settings: Any) -> dict[str, Tensor]:
        return change(original(vae, x, generator, **settings), x)

    return lambda patch: patch.setattr(f"{MODULE}info_vae_loss", wrong)


def averaged(found: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """Mutation: the error is a mean over values."""
    return {**found, "reconstruction": found["reconstruction"] / x[0].numel()}


def deterministic(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Posterior, "sample", lambda self, generator: self.mean + 0 * self.log_variance)


def of_the_labelled(patch: pytest.MonkeyPatch) -> None:
    original = MMDVAETraining.loss
    patch.setattr(
        MMDVAETraining, "loss", lambda self, step: original(self, replace(step, u=(step.x + step.y.view(-1, 1, 1, 1),)))
    )


def global_draws(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Posterior, "sample", lambda self, generator: self.mean + torch.randn_like(self.mean))


def twice(patch: pytest.MonkeyPatch) -> None:
    original = MMDVAETraining.loss
    patch.setattr(MMDVAETraining, "loss", lambda self, step: (original(self, step), original(self, step))[0])


def unchanging_weight(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MMDVAETraining, "prepare", lambda self, context: None)


def counted(patch: pytest.MonkeyPatch) -> None:
    """Mutation: validation measures a mean over the batch."""
    original = MMDVAETraining.measured
    patch.setattr(MMDVAETraining, "measured", lambda self, network, x, y: original(self, network, x, y) / len(x))


CHECKS = [
    pytest.param(equations_hold, parts(averaged), id="equations | mean over values"),
    pytest.param(equations_hold, deterministic, id="equations | no noise"),
    pytest.param(weights_grow_with_the_example, unchanging_weight, id="weight | 1000 everywhere"),
    pytest.param(labels_are_never_used, of_the_labelled, id="labels | used"),
    pytest.param(one_pass_over_the_pool, of_the_labelled, id="passes | of the labelled batch"),
    pytest.param(one_pass_over_the_pool, twice, id="passes | a pass more"),
    pytest.param(unlabelled_data_moves_the_gradient, of_the_labelled, id="unlabelled data | not used"),
    pytest.param(measured_is_the_squared_error_of_evaluation, counted, id="measured | a mean"),
    pytest.param(draws_are_its_own, global_draws, id="draws | global"),
]


@pytest.fixture
def lab() -> Lab:
    made = VAELab()
    made.x, made.u, made.other_u = made.x.sigmoid(), *(tuple(v.sigmoid() for v in u) for u in (made.u, made.other_u))
    return made


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_holds(check: Check, mutate: Mutation, lab: Lab) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_fails_when_mutated(check: Check, mutate: Mutation, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(lab)


def test_settings_are_explained(lab: Lab) -> None:
    settings_are_explained(lab, MMDVAETraining())


def test_a_deterministic_encoder_has_no_kl(lab: Lab) -> None:
    network = lab.network(stochastic=False)
    assert list(terms_of(lab, MMDVAETraining(), network)) == ["reconstruction", "mmd"]
    with pytest.raises(InputError, match="kl_weight: a deterministic encoder has no KL"):
        lab.prepare(MMDVAETraining(kl_weight=1.0), network)


def test_another_network_is_refused(lab: Lab) -> None:
    with pytest.raises(InputError, match="mmd_vae trains the network mmd_vae, and this is a Classifier"):
        MMDVAETraining().prepare(Context(ImageLab().network(), lab.shape, lab.rows))


@pytest.mark.parametrize("settings", [{"mmd_weight": -1.0}, {"kl_weight": -1.0}, {"scale": 0.0}])
def test_bad_settings(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        MMDVAETraining(**settings)


def test_it_brings_its_network_and_optimiser() -> None:
    found = Experiment.of(data="digits", method="mmd_vae", recipe="none")
    assert found.network.name == "mmd_vae"
    training = found.training
    assert (training.optimizer, training.learning_rate, training.weight_decay) == ("adam", 1e-3, 0.0)


def test_training_lowers_the_error(lab: Lab) -> None:
    network, method = lab.network(), lab.prepare(MMDVAETraining(mmd_weight=0.1), lab.network())
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    before = method.measured(network.eval(), lab.u[0], lab.y).detach()
    network.train()
    for at in range(60):
        optimiser.zero_grad()
        lab.total(lab.loss(method, network, at=at)).backward()
        optimiser.step()
    assert method.measured(network.eval(), lab.u[0], lab.y) < before / 2
