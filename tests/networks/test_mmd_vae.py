"""Autoencoders: shapes, spaces, the posterior, principal components, and that training rebuilds digits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.data.types import as_float
from vicinal.errors import InputError
from vicinal.networks import EVAL, Normalise, applied
from vicinal.networks.mmd_vae import MMDVAE, Posterior, mmd_vae
from vicinal.networks.pca import PCAAutoencoder, fit_pca, pca
from vicinal.settings import build
from vicinal.vicinity.discrepancy import info_vae_loss, info_vae_weights, psnr

torch.set_num_threads(1)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def maps(vae: MMDVAE) -> list[int]:
    """Channels of the encoder's stages."""
    return [layer.out_channels for layer in vae.encoder.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize(
    ("shape", "widths", "stages", "latent"),
    [
        ((3, 32, 32), None, [64, 128, 256, 512], 128),
        ((3, 64, 64), None, [64, 128, 256, 512, 512], 256),
        ((1, 28, 28), None, [64, 128, 256], 128),
        ((1, 8, 8), None, [64, 128], 16),
        ((1, 8, 8), [4, 6, 8], [4, 6], 16),
        ((1, 8, 8), [4], [4], 16),
        ((2, 9, 13), [4, 6], [4, 6], 16),
        ((1, 3, 5), [4, 6], [4], 16),
        ((1, 2, 2), [4], [4], 16),
    ],
)
def test_stages_and_codes_fit_the_image(
    shape: tuple[int, ...], widths: list[int] | None, stages: list[int], latent: int
) -> None:
    with torch.device("meta"):
        vae = mmd_vae(shape, 10, widths=widths).eval()
        x = torch.empty(3, *shape)
        assert vae(x).shape == x.shape
    assert maps(vae) == stages
    assert vae.latent == latent


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 11), (5,)])
@pytest.mark.parametrize("stochastic", [True, False])
def test_every_parameter_is_trained(shape: tuple[int, ...], stochastic: bool) -> None:
    torch.manual_seed(0)
    vae = mmd_vae(shape, 3, latent=4, widths=[6, 8], stochastic=stochastic)
    x = drawn(5, *shape)
    posterior = vae.posterior(x)
    assert posterior.mean.shape == (5, 4)
    assert (posterior.log_variance is not None) == stochastic
    parts = info_vae_loss(vae, x, torch.Generator().manual_seed(0))
    assert set(parts) == {"reconstruction", "mmd"} | ({"kl"} if stochastic else set())
    torch.stack(list(parts.values())).sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in vae.parameters() if p.grad is not None)
    assert [name for name, p in vae.named_parameters() if p.grad is None] == []


def test_forward_decodes_the_mean_code() -> None:
    torch.manual_seed(0)
    vae = mmd_vae((1, 8, 8), 10, latent=4, widths=[6]).eval()
    x = drawn(5, 1, 8, 8)
    assert torch.equal(vae(x), vae.decode(vae.posterior(x).mean))
    assert torch.equal(vae(x), vae(x)), "no noise"


def test_samples_follow_the_posterior() -> None:
    mean, log_variance = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.25, 4.0]]).log()
    posterior = Posterior(mean.expand(20_000, 2), log_variance.expand(20_000, 2))
    z = posterior.sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(dim=0), mean[0], atol=0.05, rtol=0)
    torch.testing.assert_close(z.std(dim=0), torch.tensor([0.5, 2.0]), atol=0.05, rtol=0)
    assert torch.equal(z, posterior.sample(torch.Generator().manual_seed(0)))
    assert Posterior(mean, None).sample(torch.Generator()) is mean


def test_images_come_back_in_pixels_whatever_the_preprocessing() -> None:
    torch.manual_seed(0)
    vae = mmd_vae((1, 8, 8), 10, latent=4, widths=[6]).eval()
    x, z = drawn(5, 1, 8, 8), drawn(5, 4)
    plain = vae.encode(x)
    made = vae.decode(z).detach()
    vae.preprocess = Normalise([0.3], [0.2])
    assert not torch.equal(vae.encode(x), plain), "used on the way in"
    assert torch.equal(vae.decode(z), made)
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
    assert torch.equal(vae.residual(x, z), made - x)


def test_vectors_are_rebuilt_standardised_and_come_back_in_their_units() -> None:
    torch.manual_seed(0)
    vae = mmd_vae((2,), 10, latent=2, widths=[6]).eval()
    x, z = drawn(5, 2) * torch.tensor([1.0, 1000.0]), drawn(5, 2)
    raw = vae.decode(z).detach()
    vae.preprocess = Normalise([1.0, 500.0], [2.0, 300.0], image=False)
    torch.testing.assert_close(vae.decode(z), raw * torch.tensor([2.0, 300.0]) + torch.tensor([1.0, 500.0]))
    torch.testing.assert_close(vae.residual(x, z), raw - vae.preprocess(x))
    assert float(raw.min()) < 0 or float(raw.max()) > 1, "no sigmoid"


def test_settings_are_read_as_they_are_typed() -> None:
    vae = build("network", mmd_vae, {"latent": "5", "widths": "[4, 6]"}, shape=(1, 8, 8), classes=10)
    assert (vae.latent, maps(vae)) == (5, [4, 6])
    assert build("network", mmd_vae, {"latent": "none"}, shape=(1, 8, 8), classes=10).latent == 16
    assert build("network", pca, {}, shape=(1, 4, 4), classes=10).latent == 16


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((1, 1, 8), {}, "at least 2x2"),
        ((1, 8, 8), {"widths": []}, "at least one stage"),
        ((1, 8, 8), {"widths": [0]}, "widths must be at least 1"),
        ((1, 8, 8), {"latent": 0}, "latent must be at least 1"),
        ((4, 4), {}, "takes images"),
    ],
)
def test_bad_sizes(shape: tuple[int, ...], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mmd_vae(shape, 10, **settings)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("shape", [(1, 4, 4), (16,)])
def test_full_rank_components_lose_nothing(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    x = drawn(40, *shape, dtype=dtype)
    x.flatten(1)[:, 3] = 0.5  # a value that never varies
    autoencoder = fit_pca(x, 16)
    assert autoencoder(x).dtype == dtype
    assert float((autoencoder(x) - x).abs().max()) < tolerance
    assert float((fit_pca(x, 8)(x) - x).abs().max()) > 1e-3, "control: half of the components do lose"


def test_components_are_the_best_linear_codes() -> None:
    """Codes are uncorrelated with variance 1, and the error left is the sum of the variances left out."""
    x = drawn(200, 6, dtype=torch.float64) @ drawn(6, 6, seed=1, dtype=torch.float64)
    autoencoder = fit_pca(x, 4)
    z = autoencoder.encode(x)
    torch.testing.assert_close(z.T @ z / len(z), torch.eye(4, dtype=torch.float64))
    centred = x - x.mean(dim=0)
    variances = torch.linalg.eigvalsh(centred.T @ centred / len(x))
    torch.testing.assert_close((autoencoder(x) - x).square().sum(dim=1).mean(), variances[:2].sum())


def test_components_travel_and_stay_as_they_are() -> None:
    x = drawn(10, 1, 3, 3)
    fitted, fresh = fit_pca(x, 4), pca((1, 3, 3), 10, latent=4)
    fresh.load_state_dict(fitted.state_dict())
    with applied(fresh, EVAL):
        assert torch.equal(fresh(x), fitted(x))


def test_components_behind_a_preprocessing_layer() -> None:
    x = drawn(30, 2) * torch.tensor([1.0, 1000.0])
    autoencoder = PCAAutoencoder((2,), 2)
    autoencoder.preprocess = Normalise([0.5, 500.0], [0.3, 300.0], image=False)
    torch.testing.assert_close(autoencoder.fit(x)(x), x, rtol=1e-5, atol=1e-4)
    assert float((fit_pca(x, 1)(x) - x).abs().max()) > 0.1, "control"


def test_what_components_cannot_be_fitted_on() -> None:
    with pytest.raises(InputError, match="latent must be at most 4"):
        fit_pca(drawn(9, 4), 5)
    with pytest.raises(InputError, match="at least 2 examples"):
        fit_pca(drawn(1, 4), 2)
    with pytest.raises(InputError, match="not finite"):
        fit_pca(torch.full((3, 4), torch.nan), 2)
    with pytest.raises(InputError, match=r"shape \(4,\)"):
        PCAAutoencoder((4,), 2).fit(drawn(9, 5))


@pytest.mark.parametrize(("b", "learns"), [(10.0, True), (1000.0, False)])
def test_training_rebuilds_digits(b: float, learns: bool) -> None:
    """300 steps on 8x8 digits; the weight that fits 3072 values a picture drowns the error of 64: the control."""
    from sklearn.datasets import load_digits

    x = as_float(torch.from_numpy(load_digits().images).float()[:, None] / 16)
    train, held_out = x[:1200], x[1200:]
    torch.manual_seed(0)
    draws = torch.Generator().manual_seed(0)
    vae = mmd_vae((1, 8, 8), 10, latent=16, widths=[16, 32])
    optimiser = torch.optim.Adam(vae.parameters(), lr=1e-3)
    weights = info_vae_weights(b=b)
    for _ in range(300):
        parts = info_vae_loss(vae, train[torch.randint(len(train), (128,), generator=draws)], draws)
        optimiser.zero_grad()
        torch.stack([weights[name] * part for name, part in parts.items()]).sum().backward()
        optimiser.step()
    with torch.no_grad(), applied(vae, EVAL):
        reached = float(psnr(held_out, vae(held_out)).mean())
    mean_image = float(psnr(held_out, train.mean(dim=0).expand_as(held_out)).mean())
    assert (reached > mean_image + 3) == learns
