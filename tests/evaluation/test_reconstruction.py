"""What an autoencoder keeps: errors by hand, a judge with known answers, the gate, and no trace left."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.evaluation import Reconstruction, reconstruction
from vicinal.evaluation.reconstruction import GATE
from vicinal.networks import Autoencoder, fit_pca, mmd_vae

torch.set_num_threads(1)
Batches = list[tuple[Tensor, Tensor]]


class Darkened(Autoencoder):
    """Rebuilds images with 0.1 off every pixel, and in every second batch row 0.3."""

    latent = 64

    def encode(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def decode(self, z: Tensor) -> Tensor:
        off = torch.full((len(z), 1), 0.1)
        off[1::2] = 0.3
        return (z - off).view(-1, 1, 8, 8)


class Bright(nn.Module):
    """Class 1 where the mean is above a threshold, else class 0."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(dim=1) - self.threshold
        return torch.stack([-bright, bright], dim=1)


def grey(*levels: float) -> Batches:
    """Images of one grey each, in batches of two; class 1 from 0.5 on."""
    values = torch.tensor(levels)
    x, y = values.view(-1, 1, 1, 1).expand(-1, 1, 8, 8).clone(), (values >= 0.5).long()
    return list(zip(x.split(2), y.split(2), strict=True))


def test_errors_are_means_over_examples() -> None:
    found = reconstruction(Darkened(), grey(0.5, 0.5, 0.9, 0.9, 0.7))
    assert found.n == 5
    assert found.squared_error == pytest.approx((3 * 0.01 + 2 * 0.09) / 5, rel=1e-5)
    assert found.psnr == pytest.approx((3 * 20 + 2 * 10.4576) / 5, rel=1e-5)
    assert (found.accuracy, found.accuracy_rebuilt, found.passed) == (None, None, None)
    worse = -10 * torch.tensor(found.squared_error).log10()
    assert abs(found.psnr - float(worse)) > 1, "control: not the decibels of the mean error"


def test_the_mean_image_is_what_a_code_without_information_gives(digits: Batches) -> None:
    x = torch.cat([part for part, _ in digits])
    mean = x.mean(dim=0, keepdim=True)

    class Mean(Darkened):
        def decode(self, z: Tensor) -> Tensor:
            return mean.expand(len(z), -1, -1, -1)

    assert reconstruction(Mean(), digits).psnr == pytest.approx(11.4, abs=0.3)
    assert reconstruction(fit_pca(x, 16), digits).psnr > 18


def test_the_judge_reads_examples_and_reconstructions() -> None:
    """By hand: 0.55 and 0.75 fall below the threshold when they lose 0.1 and 0.3; 0.95 does not."""
    found = reconstruction(Darkened(), grey(0.55, 0.75, 0.95, 0.95, 0.2, 0.1, 0.3, 0.4), Bright(0.5))
    assert found.accuracy == 1.0
    assert found.accuracy_rebuilt == 6 / 8
    assert found.passed is False


@pytest.mark.parametrize("n", [10, 20, 30, 597, 1000])
def test_the_gate_is_ten_points(n: int) -> None:
    """A loss of 10 points passes, whatever the rounding of the two shares, and one example more does not."""
    for right in range(n // 10, n + 1):
        lost = n // 10
        passed = Reconstruction(n, 0.0, 0.0, right / n, (right - lost) / n).passed
        failed = Reconstruction(n, 0.0, 0.0, right / n, (right - lost - 1) / n).passed
        assert (passed, failed) == (True, False)
    assert GATE == 0.1
    assert Reconstruction(n, 0.0, 0.0, 0.5, 0.9).passed is True


def test_rounding_decides_without_a_tolerance() -> None:
    """Control: for some counts 10 points are more than 0.1."""
    assert any(right / 1000 - (right - 100) / 1000 > GATE for right in range(100, 1001))


def test_no_trace(
    digits: Batches, trained: nn.Module, untouched: Callable[[Any], AbstractContextManager[None]]
) -> None:
    """Both run in eval mode though they are in training mode, and the batches do not matter."""
    torch.manual_seed(0)
    network = mmd_vae((1, 8, 8), 10, latent=4, widths=[4])
    with untouched(network), untouched(trained):
        found = reconstruction(network, digits, trained)
    x, y = (torch.cat(parts) for parts in zip(*digits, strict=True))
    whole = reconstruction(network.eval(), [(x, y)], trained)
    assert whole.accuracy == found.accuracy
    assert whole.squared_error == pytest.approx(found.squared_error, rel=1e-6)
    assert found.accuracy is not None
    assert found.accuracy > 0.8


def test_nothing_to_rebuild() -> None:
    with pytest.raises(InputError, match="no examples to rebuild"):
        reconstruction(Darkened(), [])
