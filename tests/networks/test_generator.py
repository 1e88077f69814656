"""Generators: shapes, ranges, and that a pass leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from vicinal.errors import InputError
from vicinal.networks.generator import Generator
from vicinal.randomness import generator as draws

torch.set_num_threads(1)


def made(shape: tuple[int, ...], **settings: Any) -> Generator:
    torch.manual_seed(0)
    return Generator(shape, **{"latent": 7, "width": 4, **settings})


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 5, 9), (1, 1, 1), (1, 3, 40), (4, 6, 6), (5,), (1,)]
)
def test_examples_have_the_shape_of_the_data(shape: tuple[int, ...]) -> None:
    network = made(shape)
    x = network(torch.randn(3, 7))
    assert x.shape == (3, *shape)
    assert x.flatten(1).std(dim=0).min() > 0, "a number that does not depend on the code"


@pytest.mark.parametrize(
    ("output", "low", "high"), [("tanh", 0.0, 1.0), ("sigmoid", 0.0, 1.0), ("wide_tanh", -0.5, 1.5)]
)
def test_images_fill_their_range_and_no_more(output: Any, low: float, high: float) -> None:
    network = made((1, 8, 8), output=output)
    last = network.layers[-1]
    assert isinstance(last, nn.ConvTranspose2d)
    for bias, expected in ((50.0, high), (-50.0, low), (0.0, (low + high) / 2)):
        last.weight.data.zero_()
        last.bias.data.fill_(bias)  # type: ignore[union-attr]
        torch.testing.assert_close(network(torch.randn(2, 7)), torch.full((2, 1, 8, 8), expected))


def test_tanh_is_the_sigmoid_of_twice_the_slope() -> None:
    x, twice = made((1, 8, 8), output="tanh"), made((1, 8, 8), output="sigmoid")
    z = torch.randn(4, 7)
    assert not torch.allclose(x(z), twice(z))
    for parameter in twice.layers[-1].parameters():
        parameter.data *= 2
    torch.testing.assert_close(x(z), twice(z))


def test_vectors_have_no_bounds() -> None:
    network = made((5,))
    network.layers[-1].bias.data.fill_(50.0)
    assert network(torch.randn(2, 7)).min() > 10


def test_a_pass_changes_no_buffer() -> None:
    network = made((1, 8, 8)).train()
    assert not list(network.buffers())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_codes_come_from_the_generator_alone() -> None:
    network = made((1, 8, 8))
    like = torch.zeros(1, dtype=torch.float64)
    state = torch.random.get_rng_state()
    first, again, other = (network.codes(3, draws(seed, "codes"), like) for seed in (0, 0, 1))
    assert first.shape == (3, 7)
    assert first.dtype == torch.float64
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: made((8, 8)), "shape"),
        (lambda: made((1, 8, 8), output="relu"), "output"),
        (lambda: made((1, 8, 8), latent=0), "latent"),
        (lambda: made((1, 8, 8), width=0), "width"),
    ],
)
def test_bad_input(call: Callable[[], object], what: str) -> None:
    with pytest.raises(InputError, match=what):
        call()
