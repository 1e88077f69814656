"""MMD^2 (check V5 and the bandwidth trap), the InfoVAE loss and PSNR, against closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.networks.mmd_vae import MMDVAE, mmd_vae
from vicinal.vicinity import discrepancy
from vicinal.vicinity.discrepancy import IMQ_SCALES, info_vae_loss, info_vae_weights, mmd2, psnr

torch.set_num_threads(1)
BATCH = 128


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def repeated(times: int, d: int, *, shift: float = 0.0, std: float = 1.0, **settings: Any) -> Tensor:
    """MMD^2 of batches of shifted and scaled Gaussian codes against the prior, float64 (times,)."""
    draws = seeded()
    found = []
    for _ in range(times):
        q, p = (torch.randn(BATCH, d, generator=draws, dtype=torch.float64) for _ in range(2))
        found.append(mmd2(shift + std * q, p, **settings))
    return torch.stack(found)


def in_standard_errors(values: Tensor) -> float:
    """The mean, in units of its own standard error."""
    return float(values.mean() / (values.std() / math.sqrt(len(values))))


def rbf_mean(variance: float, s: float, d: int) -> float:
    """E exp(-|w|^2 / s) of w ~ N(0, variance I), in d dimensions."""
    return float((1 + 2 * variance / s) ** (-d / 2))


def collapsed(variance: float, s: float, d: int) -> float:
    """MMD^2 of N(0, variance I) and N(0, I) in closed form."""
    return rbf_mean(2 * variance, s, d) + rbf_mean(2, s, d) - 2 * rbf_mean(1 + variance, s, d)


def bias(s: float, d: int) -> float:
    """Mean of the biased estimate at q = p."""
    return 2 / BATCH * (1 - rbf_mean(2, s, d))


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_v5_equal_laws_score_nothing_and_others_do(kernel: Any) -> None:
    equal = repeated(60, 8, kernel=kernel)
    assert abs(in_standard_errors(equal)) < 3
    assert float(equal.min()) < 0, "unbiased: half of the estimates of 0 lie below it"
    assert in_standard_errors(repeated(20, 8, kernel=kernel, shift=0.3)) > 5
    assert in_standard_errors(repeated(20, 8, kernel=kernel, std=0.1)) > 5


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_v5_control_the_biased_estimate_is_positive_and_off(kernel: Any) -> None:
    biased = repeated(60, 8, kernel=kernel, estimate="biased")
    assert float(biased.min()) >= 0
    assert in_standard_errors(biased) > 5


@pytest.mark.parametrize(
    ("d", "s", "published_collapse", "published_bias"),
    [(128, 128**2, (6.0e-5, 0.05e-5), (2.4e-4, 0.05e-4)), (128, 2 * 128, (0.151, 5e-4), (9.9e-3, 1e-4))],
)
def test_bandwidth_trap(
    d: int, s: float, published_collapse: tuple[float, float], published_bias: tuple[float, float]
) -> None:
    """With s = d^2 a collapsed code costs less than the bias; with s = 2 d fifteen times as much."""
    value, tolerance = published_collapse
    assert collapsed(0.01, s, d) == pytest.approx(value, abs=tolerance)
    value, tolerance = published_bias
    assert bias(s, d) == pytest.approx(value, abs=tolerance)
    assert (collapsed(0.01, s, d) > bias(s, d)) == (s == 2 * d)

    how: dict[str, Any] = {"kernel": "rbf", "scale": float(s)}
    equal, biased = repeated(40, d, **how), repeated(40, d, **how, estimate="biased")
    found = repeated(40, d, std=0.1, **how)
    assert abs(in_standard_errors(equal)) < 3
    assert abs(in_standard_errors(biased - bias(s, d))) < 3
    assert abs(in_standard_errors(found - collapsed(0.01, s, d))) < 3
    if s == 2 * d:
        assert float(equal.std()) == pytest.approx(7e-4, rel=0.3)
        torch.testing.assert_close(repeated(3, d, kernel="rbf"), equal[:3])  # the default scale


def test_a_flat_kernel_compares_means_alone() -> None:
    """MMD^2 -> 2 |difference of means|^2 / s as s grows; a scale of the data's order is the control."""
    draws = seeded()
    q, p = (torch.randn(BATCH, 5, generator=draws, dtype=torch.float64) for _ in range(2))
    q = q * 0.1 + 1
    gap = float((q.mean(dim=0) - p.mean(dim=0)).square().sum())
    for scale, close in ((1e6, True), (10.0, False)):
        found = float(mmd2(q, p, kernel="rbf", scale=scale, estimate="biased")) * scale / (2 * gap)
        assert (found == pytest.approx(1, rel=1e-4)) == close


@pytest.mark.parametrize("estimate", ["unbiased", "biased"])
@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd2_is_its_definition(kernel: str, estimate: Any) -> None:
    """Pair by pair; samples of different sizes, far from the origin."""
    draws = seeded()
    q, p = 50 + torch.randn(7, 3, generator=draws).double(), 50 + torch.randn(5, 3, generator=draws).double()
    s = 4.0

    def k(u: Tensor, v: Tensor) -> float:
        gap = float((u - v).square().sum())
        return math.exp(-gap / s) if kernel == "rbf" else sum(t * s / (t * s + gap) for t in IMQ_SCALES)

    def within(rows: Tensor) -> float:
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if estimate == "biased" or i != j]
        return sum(k(rows[i], rows[j]) for i, j in pairs) / len(pairs)

    cross = sum(k(u, v) for u in q for v in p) / (len(q) * len(p))
    expected = within(q) + within(p) - 2 * cross
    assert float(mmd2(q, p, kernel=kernel, scale=s, estimate=estimate)) == pytest.approx(expected, abs=1e-12)
    single = float(mmd2(q.float(), p.float(), kernel=kernel, scale=s, estimate=estimate))
    assert single == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_gradient_of_mmd2(kernel: Any) -> None:
    draws = seeded()
    q = torch.randn(6, 3, generator=draws, dtype=torch.float64, requires_grad=True)
    p = torch.randn(6, 3, generator=draws, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: mmd2(z, p, kernel=kernel), q)
    (equal,) = torch.autograd.grad(mmd2(q, q.detach(), kernel=kernel, estimate="biased"), q)
    assert bool(torch.isfinite(equal).all()), "distances of zero"


def test_half_precision_codes_are_compared_in_full() -> None:
    q, p = torch.randn(64, 16, generator=seeded()), torch.randn(64, 16, generator=seeded(1))
    with torch.autocast("cpu", torch.bfloat16):
        assert (q @ p.T).dtype == torch.bfloat16, "control: where nobody prevents it, products are rounded"
        inside = mmd2(q, p)
    assert torch.equal(inside, mmd2(q, p))
    rounded = q.bfloat16()
    assert torch.equal(mmd2(rounded, p), mmd2(rounded.float(), p))


@pytest.mark.parametrize(
    ("q", "p", "settings", "message"),
    [
        ((4, 3), (4, 2), {}, "must be"),
        ((4,), (4,), {}, "must be"),
        ((1, 3), (4, 3), {}, "at least 2 rows"),
        ((0, 3), (4, 3), {"estimate": "biased"}, "at least 1 rows"),
        ((4, 3), (4, 3), {"scale": 0.0}, "scale must be greater"),
        ((4, 3), (4, 3), {"kernel": "rfb"}, "did you mean 'rbf'"),
        ((4, 3), (4, 3), {"estimate": "unbiassed"}, "did you mean 'unbiased'"),
    ],
)
def test_bad_input(q: tuple[int, ...], p: tuple[int, ...], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mmd2(torch.zeros(q), torch.zeros(p), **settings)


def test_info_vae_parts_are_their_equations(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    vae = mmd_vae((1, 4, 4), 10, latent=3, widths=[4]).eval()
    x = torch.rand(6, 1, 4, 4, generator=seeded(1))

    @torch.no_grad()
    def agree() -> bool:
        parts = info_vae_loss(vae, x, seeded(2))
        draws = seeded(2)
        mean, log_variance = vae.posterior(x)
        assert log_variance is not None
        z = mean + log_variance.exp().sqrt() * torch.randn(6, 3, generator=draws)
        u = torch.randn(6, 3, generator=draws)
        prior = torch.distributions.Normal(0.0, 1.0)
        code = torch.distributions.Normal(mean, log_variance.exp().sqrt())
        expected = {
            "reconstruction": sum(0.5 * float((vae.decode(z) - x)[i].square().sum()) for i in range(6)) / 6,
            "mmd": float(mmd2(z, u)),
            "kl": float(torch.distributions.kl_divergence(code, prior).sum(dim=1).mean()),
        }
        assert parts.keys() == expected.keys()
        return all(float(parts[name]) == pytest.approx(expected[name], rel=1e-5) for name in parts)

    assert agree()
    # Control: a quarter of the differences of 16 values, squared and summed, is the error averaged over values.
    monkeypatch.setattr(discrepancy, "full_precision", lambda values: values / 4)
    assert not agree()


def test_a_perfect_autoencoder_loses_the_prior_alone() -> None:
    """Identity as encoder and decoder of standard normal vectors: no error, and MMD^2 of two equal laws."""
    vae = MMDVAE(nn.Identity(), nn.Identity(), latent=4, image=False, stochastic=False)
    draws = seeded()
    parts = [info_vae_loss(vae, torch.randn(BATCH, 4, generator=draws), draws) for _ in range(30)]
    assert {float(part["reconstruction"]) for part in parts} == {0.0}
    assert abs(in_standard_errors(torch.stack([part["mmd"] for part in parts]))) < 3
    shifted = [info_vae_loss(vae, 1 + torch.randn(BATCH, 4, generator=draws), draws)["mmd"] for _ in range(10)]
    assert in_standard_errors(torch.stack(shifted)) > 5


def test_weights() -> None:
    assert info_vae_weights() == {"reconstruction": 1.0, "kl": 0.0, "mmd": 1000.0}, "MMD-VAE"
    assert info_vae_weights(a=0.5, b=0.03)["mmd"] == pytest.approx(-0.47)


def test_psnr_is_one_number_for_each_image() -> None:
    x = torch.rand(3, 2, 4, 4, generator=seeded())
    found = psnr(x, x + torch.tensor([0.1, 0.01, 0.0]).view(3, 1, 1, 1))
    assert found[:2].tolist() == pytest.approx([20, 40], abs=1e-3)
    assert math.isinf(float(found[2]))
    with pytest.raises(InputError, match="one shape"):
        psnr(x, x[:1])
