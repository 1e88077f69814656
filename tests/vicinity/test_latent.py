"""Latent mixing and the latent adversary: checks V1 to V4, V7 and V8, each with its control."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vicinal.errors import InputError
from vicinal.networks import Autoencoder
from vicinal.networks.mmd_vae import mmd_vae
from vicinal.networks.pca import fit_pca
from vicinal.vicinity import Mixing, draw_mixing, latent, mix
from vicinal.vicinity.latent import codes, decoded, endpoint_mix, latent_adversary, latent_mix, mixup_r
from vicinal.vicinity.projected import projected_ascent, random_start

torch.set_num_threads(1)
PRECISIONS = [(torch.float64, 1e-10), (torch.float32, 1e-5)]
RULES: list[Callable[..., Tensor]] = [latent_mix, mixup_r, endpoint_mix]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 30, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=seeded(), dtype=torch.float64).to(dtype)


def drawn_mixing(count: int = 30) -> Mixing:
    return draw_mixing(count, 1.0, seeded(1), per="sample")


def mixed_inputs(x: Tensor, mixing: Mixing) -> Tensor:
    return mix(x, x[mixing.partner], mixing.lam)


def apart(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


def swap_coefficients(patch: pytest.MonkeyPatch) -> None:
    """Mutation: codes are mixed with lambda and 1 - lambda exchanged."""
    patch.setattr(latent, "mix", lambda first, second, lam: mix(first, second, 1 - lam))


@pytest.fixture
def vae() -> Autoencoder:
    """A small MMD-VAE in training mode, whose weights require gradients: as far from frozen as can be."""
    torch.manual_seed(0)
    made = mmd_vae((1, 4, 4), 10, latent=3, widths=[6])
    for _ in range(3):
        made(images(dtype=torch.float32))  # moves the running statistics off their start
    return made


class Circle(Autoencoder):
    """Points of the unit circle and their angles."""

    latent = 1

    def encode(self, x: Tensor) -> Tensor:
        return torch.atan2(x[:, 1:], x[:, :1])

    def decode(self, z: Tensor) -> Tensor:
        return torch.cat([z.cos(), z.sin()], dim=1)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_v1_with_all_components_it_is_input_mixup(
    dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, mixing = images(dtype=dtype), drawn_mixing()
    autoencoder = fit_pca(x, 16)
    for rule in RULES:
        assert apart(rule(autoencoder, x, mixing), mixed_inputs(x, mixing)) < tolerance
    swap_coefficients(monkeypatch)
    for rule in RULES:
        assert apart(rule(autoencoder, x, mixing), mixed_inputs(x, mixing)) > 1e-3


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_v2_with_fewer_components_it_is_mixup_of_reconstructions(dtype: torch.dtype, tolerance: float) -> None:
    x, mixing = images(dtype=dtype), drawn_mixing()
    autoencoder = fit_pca(x, 5)
    mixed = latent_mix(autoencoder, x, mixing)
    assert apart(mixed, mixup_r(autoencoder, x, mixing)) < tolerance
    assert apart(endpoint_mix(autoencoder, x, mixing), mixed_inputs(x, mixing)) < tolerance
    assert apart(mixed, mixed_inputs(x, mixing)) > 1e-3, "control: it is not input mixup"


def test_v2_control_a_curved_decoder_separates_the_two(vae: Autoencoder) -> None:
    x, mixing = images(dtype=torch.float32), drawn_mixing()
    for parameter in vae.parameters():
        parameter.data *= 2
    assert apart(latent_mix(vae, x, mixing), mixup_r(vae, x, mixing)) > 1e-3


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_v3_ends(lam: float, vae: Autoencoder) -> None:
    x = images(dtype=torch.float32)
    own = torch.arange(len(x))
    mixing = Mixing(torch.full((len(x),), lam), own.roll(1))
    ends = own if lam else mixing.partner
    z = codes(vae, x)
    assert torch.equal(latent_mix(vae, x, mixing), decoded(vae, z[ends]))
    assert torch.equal(mixup_r(vae, x, mixing), decoded(vae, z)[ends])
    for rule in (latent_mix, mixup_r):
        assert apart(rule(vae, x, mixing), x[ends]) > 1e-3, "control: a reconstruction, not the image"
    assert torch.equal(endpoint_mix(vae, x, mixing, bounds=(0, 1)), x[ends])


def test_v3_ends_of_single_rows(vae: Autoencoder) -> None:
    x = images(6, torch.float32)
    mixing = Mixing(torch.tensor([0.0, 0.25, 1.0, 0.5, 0.0, 1.0]), torch.arange(6).roll(2))
    found = endpoint_mix(vae, x, mixing)
    for row, end in ((0, int(mixing.partner[0])), (2, 2), (4, int(mixing.partner[4])), (5, 5)):
        assert torch.equal(found[row], x[end])


def test_v4_mixing_angles_stays_on_the_circle() -> None:
    angles = torch.linspace(-0.45 * math.pi, 0.45 * math.pi, 40, dtype=torch.float64)
    x = torch.stack([angles.cos(), angles.sin()], dim=1)
    lam = torch.rand(40, generator=seeded()).clamp(0.01, 0.99)
    mixing = Mixing(lam, torch.arange(40).roll(7))
    radius = latent_mix(Circle(), x, mixing).norm(dim=1)
    assert apart(radius, torch.ones(40)) < 1e-12
    assert float(mixed_inputs(x, mixing).norm(dim=1).max()) < 1, "control: chords lie inside"
    assert float(mixup_r(Circle(), x, mixing).norm(dim=1).max()) < 1, "control: and so do mixed reconstructions"


@pytest.mark.parametrize("rule", RULES)
def test_v8_codes_and_labels_share_permutation_and_coefficients(
    rule: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each example shows its own label, so a mixed example must show its mixed label."""
    y = torch.eye(8)[torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 5])]
    autoencoder = fit_pca(y, 8)
    mixing = drawn_mixing(len(y))
    labels = mixed_inputs(y, mixing)
    assert torch.equal(labels.sum(dim=1), torch.ones(len(y)))
    assert apart(rule(autoencoder, y, mixing), labels) < 1e-5
    other = Mixing(mixing.lam, mixing.partner.roll(1))
    assert apart(rule(autoencoder, y, other), labels) > 0.1, "control: another permutation"
    swap_coefficients(monkeypatch)
    assert apart(rule(autoencoder, y, mixing), labels) > 0.1


@pytest.mark.parametrize("rule", RULES)
def test_mixing_leaves_the_autoencoder_alone(rule: Callable[..., Tensor], vae: Autoencoder) -> None:
    """Eval mode and no graph, though it was handed over in training mode with weights that require gradients."""
    x, mixing = images(dtype=torch.float32).requires_grad_(), drawn_mixing()
    before = copy.deepcopy(vae.state_dict())
    found = rule(vae, x, mixing)
    assert not found.requires_grad
    assert vae.training
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())
    assert torch.equal(found, rule(vae.eval(), x, mixing))
    vae.train()(x)
    assert not all(torch.equal(before[name], value) for name, value in vae.state_dict().items()), "control"


def test_results_are_clipped_to_the_bounds_if_there_are_any() -> None:
    x, mixing = images(), drawn_mixing()
    autoencoder = fit_pca(x, 5)
    for rule in RULES:
        free, clipped = (rule(autoencoder, 2 * x, mixing, bounds=bounds) for bounds in (None, (0.25, 0.75)))
        assert torch.equal(clipped, free.clamp(0.25, 0.75))
        assert not torch.equal(clipped, free)


def test_codes_may_be_drawn_from_the_posterior(vae: Autoencoder) -> None:
    x, mixing = images(dtype=torch.float32), drawn_mixing()
    assert torch.equal(codes(vae, x), codes(vae, x))
    drawn = codes(vae, x, seeded())
    assert torch.equal(drawn, codes(vae, x, seeded()))
    assert apart(drawn, codes(vae, x)) > 0.1
    for rule in RULES:
        assert apart(rule(vae, x, mixing, generator=seeded()), rule(vae, x, mixing)) > 1e-4
    with pytest.raises(InputError, match="Circle has no posterior"):
        codes(Circle(), torch.zeros(2, 2), seeded())


def quadratic(x: Tensor) -> Tensor:
    """An objective whose maximum is the origin, so that most of what a search finds there is worse than no search."""
    return -x.square().flatten(1).sum(dim=1)


@pytest.mark.parametrize("steps", [0, 1, 7])
@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("z", [torch.zeros(20, 4), torch.randn(20, 4, generator=torch.Generator().manual_seed(3))])
def test_v7_the_attack_never_lowers_the_objective_and_stays_in_its_ball(z: Tensor, epsilon: float, steps: int) -> None:
    found = latent_adversary(quadratic, torch.tanh, z, epsilon=epsilon, step_size=0.1, steps=steps, generator=seeded())
    assert bool((quadratic(found.tanh()) >= quadratic(z.tanh())).all())
    assert apart(found, z) <= epsilon + 1e-6
    if epsilon == 0:
        assert torch.equal(found, z)


def test_v7_control_a_search_that_forgets_where_it_came_from() -> None:
    """The best of all points that the ascent visits is not enough, because its random start may be a bad one."""
    z = torch.zeros(20, 4)
    found = projected_ascent(
        lambda code: quadratic(code.tanh()),
        z,
        norm="linf",
        epsilon=0.3,
        step_size=0.1,
        steps=1,
        start=random_start(z, "linf", 0.3, seeded()),
        keep_best=True,
    )
    assert not bool((quadratic(found.tanh()) >= quadratic(z.tanh())).all())


def test_the_attack_of_a_linear_objective_ends_in_the_corner() -> None:
    slope = torch.tensor([1.0, -2.0, 0.5])
    z = torch.randn(5, 3, generator=seeded())
    found = latent_adversary(
        lambda x: x @ slope, lambda code: code, z, epsilon=0.3, step_size=0.1, steps=6, generator=seeded()
    )
    torch.testing.assert_close(found, z + 0.3 * slope.sign())


def test_box_of_the_codes() -> None:
    """On-manifold training's box: codes outside come to its border first, and nothing leaves it."""
    z = 2 * torch.randn(200, 3, generator=seeded())
    inside = z.clamp(-2, 2)
    found = latent_adversary(
        lambda x: x.sum(dim=1),
        lambda code: code,
        z,
        epsilon=0.3,
        step_size=0.1,
        steps=6,
        generator=seeded(),
        box=(-2, 2),
    )
    torch.testing.assert_close(found, (inside + 0.3).clamp(max=2))
    assert float(z.abs().max()) > 2, "control"
    with pytest.raises(InputError, match="bounds"):
        latent_adversary(quadratic, torch.tanh, z, epsilon=0.3, step_size=0.1, steps=1, generator=seeded(), box=(2, -2))


def test_the_attack_leaves_weights_alone_and_repeats(vae: Autoencoder) -> None:
    vae.eval()
    x = images(dtype=torch.float32)
    before = copy.deepcopy(vae.state_dict())
    z = codes(vae, x)

    def attack(seed: int) -> Tensor:
        return latent_adversary(
            lambda made: (made - x).square().flatten(1).sum(dim=1),
            vae.decode,
            z,
            epsilon=0.3,
            step_size=0.1,
            steps=1,
            generator=seeded(seed),
        )

    assert torch.equal(attack(0), attack(0))
    assert not torch.equal(attack(0), attack(1))
    assert not attack(0).requires_grad
    assert all(parameter.grad is None for parameter in vae.parameters())
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())
