"""Folded networks: the same outputs and input gradients, in fewer operations, and an original that nobody touched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from support.folding import BATCH_NORMS, count, enlivened, gap, seen
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from vicinal.errors import InputError
from vicinal.networks import (
    NETWORKS,
    Classifier,
    FoldedNorm,
    Normalise,
    folded,
)

torch.set_num_threads(1)

Case = tuple[str, tuple[int, ...], dict[str, Any], int, int]
"""Name, shape and settings of a network, how many of its norms can be folded, and how many cannot."""
CASES: dict[str, Case] = {
    "auto": ("auto", (1, 8, 8), {}, 3, 0),
    "small_cnn": ("small_cnn", (3, 8, 8), {"widths": [8, 6, 4]}, 3, 0),
    "small_cnn dropout": ("small_cnn", (3, 8, 8), {"widths": [8, 6], "dropout": 0.3, "input_noise": 0.1}, 2, 0),
    "small_cnn mean only": ("small_cnn", (3, 8, 8), {"widths": [8, 6], "norm": "weight+mean_only"}, 2, 0),
    "small_cnn no norm": ("small_cnn", (3, 8, 8), {"widths": [8, 6], "norm": "weight"}, 0, 0),
    "cnn13": ("cnn13", (3, 12, 12), {}, 9, 0),
    "cnn13 of AdvMixup": ("cnn13", (3, 12, 12), {"top_norm": "batch"}, 10, 0),
    "cnn13 of tempens": ("cnn13", (3, 12, 12), {"norm": "weight+mean_only", "top_norm": "weight+mean_only"}, 10, 0),
    "cnn13 of ICT": ("cnn13", (3, 12, 12), {"norm": "weight+batch", "top_norm": "weight"}, 9, 0),
    # Norms between a sum and an activation have no linear neighbour; the second of each unit has, and the very first.
    "wide_resnet": ("wide_resnet", (3, 8, 8), {"depth": 10, "width": 1, "dropout": 0.3}, 4, 3),
    # The ported bug leaves two norms without a call.
    "wide_resnet port": ("wide_resnet", (3, 8, 8), {"depth": 10, "faithful_port": True}, 4, 3),
    "wrn_28_2": ("wrn_28_2", (3, 8, 8), {}, 13, 12),
    "preact_resnet18": ("preact_resnet18", (3, 8, 8), {"width": 4}, 8, 9),
    "preact_resnet18 stem": ("preact_resnet18", (3, 8, 8), {"width": 4, "stem": "conv-bn-relu"}, 9, 9),
    "mlp": ("mlp", (6,), {"hidden": [8, 5], "norm": "batch", "activation": "softplus"}, 2, 0),
    "mlp layer": ("mlp", (1, 4, 4), {"hidden": [8], "norm": "layer"}, 0, 0),
    # It unpacks what it computes into as many parts as there are, which cannot be traced.
    "mmd_vae": ("mmd_vae", (3, 8, 8), {"widths": [8, 6], "latent": 4}, 0, 4),
    "mmd_vae without noise": ("mmd_vae", (3, 8, 8), {"widths": [8, 6], "latent": 4, "stochastic": False}, 2, 2),
    "mmd_vae vectors": ("mmd_vae", (6,), {"widths": [8], "latent": 4}, 0, 0),
}


def made(case: Case) -> tuple[nn.Module, Tensor]:
    """The network of a case, in training mode, and inputs."""
    name, shape, settings, *_ = case
    torch.manual_seed(0)
    network = enlivened(NETWORKS[name](shape, 3, **settings))
    if len(shape) == 3 and isinstance(network, Classifier):
        network.preprocess = Normalise([0.4] * shape[0], [0.3] * shape[0])
    return network, torch.rand(4, *shape)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_every_network_stays_the_same_function(name: str, channels_last: bool) -> None:
    network, x = made(CASES[name])
    copied = folded(network, channels_last=channels_last)
    assert type(copied) is type(network)
    *_, expected, left = CASES[name]
    assert (count(copied, FoldedNorm), count(copied, *BATCH_NORMS)) == (expected, left)
    assert not any(is_parametrized(module) for module in copied.modules())
    network.eval()
    assert gap(seen(copied, x), seen(network, x), but="gradient") < 1e-5
    # In float32 the kink of an activation may lie between the two roundings, and the gradient is another beyond it.
    exact = copy.deepcopy(network).double()
    assert gap(seen(folded(exact, channels_last=channels_last), x.double()), seen(exact, x.double())) < 1e-12
    last = [w.is_contiguous(memory_format=torch.channels_last) for w in copied.parameters() if w.dim() == 4]
    assert all(last) or not channels_last
    if expected:
        other = enlivened(copy.deepcopy(network))
        next(module for module in other.modules() if isinstance(module, BATCH_NORMS)).running_mean.add_(0.1)
        assert gap(seen(copied, x), seen(other, x)) > 1e-5


@pytest.mark.parametrize("name", CASES)
def test_the_original_stays_as_it_is_and_shares_nothing(name: str) -> None:
    network, _x = made(CASES[name])
    next(network.modules()).eval()
    frozen = next(network.parameters()).requires_grad_(False)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    flags = [module.training for module in network.modules()]
    kinds = [type(module) for module in network.modules()]
    copied = folded(network)
    assert [module.training for module in network.modules()] == flags
    assert [type(module) for module in network.modules()] == kinds
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    assert all(parameter.requires_grad is (parameter is not frozen) for parameter in network.parameters())
    assert all(bool((parameter.grad == 1).all()) for parameter in network.parameters())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in copied.parameters())
    assert not any(module.training for module in copied.modules())
    places = {tensor.data_ptr() for tensor in network.state_dict().values() if tensor.numel()}
    assert not any(tensor.data_ptr() in places for tensor in copied.state_dict().values() if tensor.numel())
    # Weight normalisation of the original still works: a copy's class is shared with it.
    for module in network.modules():
        if is_parametrized(module):
            assert module.weight.grad_fn is not None


def test_folding_twice_changes_nothing() -> None:
    network, x = made(CASES["cnn13 of AdvMixup"])
    once = folded(network)
    twice = folded(once)
    assert all(torch.equal(a, b) for a, b in zip(seen(once, x).values(), seen(twice, x).values(), strict=True))
    assert count(twice, FoldedNorm) == count(once, FoldedNorm) == 10


@pytest.mark.parametrize("name", ["small_cnn", "cnn13 of ICT", "mlp"])
def test_there_is_no_way_back_to_training(name: str) -> None:
    network, x = made(CASES[name])
    copied = folded(network).train()
    with pytest.raises(InputError, match="for evaluation alone") as raised:
        copied(x)
    assert "\n" not in str(raised.value)
    assert gap(seen(copied.eval(), x), seen(network.eval(), x)) < 1e-5
