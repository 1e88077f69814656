"""Preprocessing layers and their fits against direct formulas on small sets."""

from __future__ import annotations

import copy
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from vicinal.errors import InputError
from vicinal.networks import (
    ZCA,
    Identity,
    Normalise,
    PerImage,
    PreprocessName,
    ZCAVariant,
    fit_normalise,
    fit_preprocess,
    fit_zca,
    small_cnn,
    unfitted_preprocess,
)

torch.set_num_threads(1)

NAMES: tuple[PreprocessName, ...] = get_args(PreprocessName)
VARIANTS: tuple[ZCAVariant, ...] = get_args(ZCAVariant)


def images(count: int = 400, shape: tuple[int, ...] = (3, 4, 4)) -> Tensor:
    """Images in [0,1] whose neighbouring pixels depend on each other, as uint8."""
    made = torch.Generator().manual_seed(0)
    size = torch.Size(shape).numel()
    mixing = torch.randn(size, size, generator=made) / size**0.5 + torch.eye(size)
    x = torch.rand(count, size, generator=made) @ mixing
    x = (x - x.min()) / (x.max() - x.min())
    return (x.view(count, *shape) * 255).round().to(torch.uint8)


def scaled(x: Tensor, variant: str) -> Tensor:
    """What each published code whitens, as rows in float64."""
    pixels = x.double()
    if variant == "ict":
        mean = pixels.mean((0, 2, 3), keepdim=True)
        return ((pixels - mean) / pixels.var((0, 2, 3), keepdim=True, unbiased=False).sqrt()).flatten(1)
    if variant == "vat":
        return ((pixels - 127.5) / 255).flatten(1)
    rows = (pixels / 255).flatten(1)
    if variant == "mean_teacher":
        rows = rows - rows.mean(1, keepdim=True)
        rows = 55 * rows / rows.norm(dim=1, keepdim=True)
    return rows


def whitened(rows: Tensor, variant: str) -> Tensor:
    """The formula of each published code, by singular values of the covariance."""
    centred = rows - rows.mean(0)
    u, s, _ = torch.linalg.svd(centred.T @ centred / len(rows))
    f = {
        "inside": (s + 1e-5) ** -0.5,
        "tempens": (s + 1e-5) ** -0.5,
        "ict": s**-0.5 + 1e-6,
        "vat": s**-0.5 + 1e-6,
        "mean_teacher": (s + 0.1) ** -0.5,
    }[variant]
    return centred @ (u * f) @ u.T


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_their_published_formulas(variant: ZCAVariant) -> None:
    x = images()
    layer = fit_zca(x, variant=variant)
    expected = whitened(scaled(x, variant), variant)
    torch.testing.assert_close(layer(x / 255).flatten(1).double(), expected, rtol=1e-3, atol=1e-3)
    other = "mean_teacher" if variant != "mean_teacher" else "inside"
    assert not torch.allclose(layer(x / 255).flatten(1).double(), whitened(scaled(x, other), other), atol=1e-2)


def test_the_regulariser_matters_inside_the_root_and_not_outside() -> None:
    x = images()
    x[:, 0, 0, 0] = 128
    x[:200, 0, 0, 0] = 129  # a direction with next to no variance: S is about 4e-6
    inside, outside = (fit_zca(x, variant=name)(x / 255).flatten(1).var(0).min() for name in ("inside", "vat"))
    assert float(inside) < 0.5
    assert float(outside) > 0.95


@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_whitened_covariance(eps: float) -> None:
    x = images()
    z = fit_zca(x, eps=eps)(x / 255).flatten(1).double()
    covariance = z.T @ z / len(z)
    error = (covariance - torch.eye(48)).abs().max()
    assert float(error) < 1e-4 if eps == 0 else float(error) > 1e-2
    torch.testing.assert_close(z.mean(0), torch.zeros(48, dtype=torch.float64), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("variant", "eps"), [("inside", 0.0), ("ict", None), ("vat", None)])
def test_directions_without_variance_are_dropped_not_blown_up(variant: ZCAVariant, eps: float | None) -> None:
    x = images(30)  # 30 images span at most 29 of 48 directions
    layer: Any = fit_zca(x, variant=variant, eps=eps)
    z = layer(x / 255).flatten(1).double()
    values = torch.linalg.eigvalsh(z.T @ z / len(z))
    torch.testing.assert_close(values[-29:], torch.ones(29, dtype=torch.float64), rtol=1e-3, atol=0)
    assert float(values[:-29].abs().max()) < 1e-8
    torch.testing.assert_close(layer.inverse(layer(x / 255)), x / 255, rtol=0, atol=1e-4)
    assert float(layer(torch.rand(10, 3, 4, 4)).abs().max()) < 100


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("per_image", "zca_mean_teacher")])
def test_affine_layers_invert_and_commute_with_mixing(name: PreprocessName) -> None:
    x = images()
    layer: Any = fit_preprocess(name, x)
    a, b = torch.rand(2, 5, 3, 4, 4)
    assert layer.affine
    torch.testing.assert_close(layer.inverse(layer(a)), a, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer(0.3 * a + 0.7 * b), 0.3 * layer(a) + 0.7 * layer(b), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["per_image", "zca_mean_teacher"])
def test_layers_that_are_not_affine_say_so(name: PreprocessName) -> None:
    layer: Any = fit_preprocess(name, images())
    a, b = torch.rand(2, 5, 3, 4, 4)
    assert not layer.affine
    assert not torch.allclose(layer(0.3 * a + 0.7 * b), 0.3 * layer(a) + 0.7 * layer(b), atol=1e-2)


@pytest.mark.parametrize("chunk", [1, 7, 400])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_chunks_change_nothing(chunk: int, dtype: torch.dtype) -> None:
    x = images() if dtype == torch.uint8 else images() / 255
    torch.testing.assert_close(fit_zca(x, chunk=chunk).matrix, fit_zca(x).matrix, rtol=1e-5, atol=1e-5)
    normalise = fit_normalise(x, chunk=chunk)
    pixels = images().double() / 255
    torch.testing.assert_close(normalise.mean.flatten().double(), pixels.mean((0, 2, 3)), rtol=1e-6, atol=0)
    expected = pixels.var((0, 2, 3), unbiased=False).sqrt()
    torch.testing.assert_close(normalise.std.flatten().double(), expected, rtol=1e-6, atol=0)


def test_fits_read_rows_by_index_only() -> None:
    class Store:
        """A store that decodes rows when asked, and is no tensor."""

        def __init__(self, x: Tensor) -> None:
            self.x, self.largest = x, 0

        def __len__(self) -> int:
            return len(self.x)

        def __getitem__(self, index: Tensor) -> Tensor:
            self.largest = max(self.largest, len(index))
            return self.x[index]

    x = images()
    for fit in (fit_zca, fit_normalise):
        store = Store(x)
        fitted, direct = fit(store, chunk=64), fit(x)
        assert store.largest == 64
        for name, buffer in direct.named_buffers():
            torch.testing.assert_close(fitted.get_buffer(name), buffer, rtol=1e-4, atol=1e-4)


def test_vectors_are_normalised_by_feature_and_whitened() -> None:
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.1, 0.0]) + 3
    z = fit_normalise(x)(x)
    torch.testing.assert_close(z.std(0, unbiased=False), torch.tensor([1.0, 1.0, 1.0, 0.0]), rtol=1e-4, atol=1e-6)
    assert fit_zca(x)(x).shape == x.shape


def test_minus_one_to_one_and_per_image() -> None:
    x = torch.tensor([0.0, 0.25, 1.0, 0.75]).view(1, 1, 2, 2)
    scale = fit_preprocess("minus_one_to_one", images(shape=(1, 2, 2)))
    torch.testing.assert_close(scale(x).flatten(), torch.tensor([-1.0, -0.5, 1.0, 0.5]))
    z = PerImage()(torch.rand(6, 3, 4, 4)).flatten(1)
    torch.testing.assert_close(z.mean(1), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.var(1, unbiased=False), torch.ones(6), rtol=1e-4, atol=0)
    z = PerImage(length=55)(torch.rand(6, 3, 4, 4)).flatten(1)
    torch.testing.assert_close(z.norm(dim=1), torch.full((6,), 55.0), rtol=1e-4, atol=0)


def test_a_constant_image_has_a_finite_gradient() -> None:
    x = torch.full((1, 1, 3, 3), 0.5, requires_grad=True)
    z = PerImage()(x)
    z.sum().backward()
    assert not z.any()
    assert bool(torch.isfinite(x.grad).all())


def test_whitening_is_not_done_in_half_precision() -> None:
    x = images()
    layer = fit_zca(x)
    exact = layer(x / 255)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x / 255), exact)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_fitted_travels_with_the_weights(name: PreprocessName) -> None:
    x = images(shape=(3, 8, 8))
    network = small_cnn((3, 8, 8), 3, widths=[4, 4])
    other = copy.deepcopy(network)
    network.preprocess = fit_preprocess(name, x)
    assert not list(network.preprocess.parameters())
    other.preprocess = unfitted_preprocess(name, (3, 8, 8))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other.eval()(x / 255), network.eval()(x / 255))


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_declares_its_buffers_constant(name: PreprocessName) -> None:
    layer: Any = fit_preprocess(name, images())
    assert all(module.constant_buffers for module in layer.modules())
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    layer.train()(torch.rand(4, 3, 4, 4))
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_preprocess("zac", images()), "did you mean 'zca"),  # type: ignore[arg-type]
        (lambda: unfitted_preprocess("normalize", (3, 4, 4)), "did you mean 'normalise'"),  # type: ignore[arg-type]
        (lambda: fit_zca(images(), variant="insid"), "did you mean 'inside'"),  # type: ignore[arg-type]
        (lambda: fit_zca(images(), eps=-1.0), "at least 0"),
        (lambda: fit_zca(images()[:0]), "no training inputs"),
        (lambda: fit_normalise(images()[:0]), "no training inputs"),
        (lambda: fit_preprocess("none", images()[:0]), "no training inputs"),
        (lambda: fit_zca(torch.full((4, 1, 2, 2), 0.5)), "do not vary"),
        (lambda: fit_zca(torch.full((4, 1, 2, 2), torch.nan)), "not finite"),
        (lambda: fit_normalise(torch.full((4, 1, 2, 2), torch.inf)), "not finite"),
        (lambda: Normalise([0.5], [0.0]), "greater than 0"),
        (lambda: Normalise([0.5], [1.0, 1.0]), "one number per channel"),
        (lambda: ZCA(torch.zeros(3), torch.eye(2)), r"matrix \(D, D\)"),
        (lambda: fit_zca(images(), variant="mean_teacher").inverse(torch.rand(2, 3, 4, 4)), "no way back"),
        (lambda: fit_zca(images())(torch.rand(2, 1, 4, 4)), "fitted on 48"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_identity_is_the_input() -> None:
    x = torch.rand(2, 3)
    assert Identity()(x) is x
    assert Identity().inverse(x) is x
