"""MixMatch: what its passes see and which of them move running statistics; its decay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.lab import Lab
from support.properties import rows
from support.training import examples
from torch import nn

from vicinal.data import Batches
from vicinal.methods.base import Model
from vicinal.methods.mixmatch import MixMatch
from vicinal.networks import EVAL, FROZEN_STATS, TRAIN, PassPolicy
from vicinal.training.config import Training
from vicinal.training.module import VicinalModule
from vicinal.vicinity.interpolation import interleave

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Check = Callable[[Lab], None]
Mutation = Callable[[pytest.MonkeyPatch], None]


def guesses_are_in_training_mode(lab: Lab) -> None:
    """Batch statistics, not running ones: these may be whatever they are."""
    other = lab.network()
    for module in other.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean += 3  # type: ignore[operator]
    found = [MixMatch().mixed_batch(lab.step(network, views=2)).targets for network in (lab.network(), other)]
    assert torch.equal(*found)


def blocks_are_interleaved(lab: Lab) -> None:
    """Rows go through the network in the blocks' order and come back in their own."""
    student, seen = lab.network(), []
    batch = MixMatch().mixed_batch(lab.step(student, views=2))
    student.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    MixMatch().mixed_terms(lab.step(student, views=2), batch)
    for x, block in zip(seen, interleave((5, 8, 8)), strict=True):
        assert torch.equal(x, batch.inputs[block])


def mix_18_updates(lab: Lab) -> None:
    """Of the running statistics in a step: 1 (official code), 3, or 5 (its PyTorch port); one pass in one layout."""
    table = {
        MixMatch(): "F F F* F F",
        MixMatch(bn_update="mixed"): "F F F* F* F*",
        MixMatch(bn_update="all"): "F* F* F* F* F*",
        MixMatch(layout="joint"): "F F F*",
        MixMatch(layout="joint", bn_update="all"): "F* F* F*",
    }
    for method, row in table.items():
        network = lab.network(dropout=0.5)
        assert rows(lab.record(method, network))[0] == row
        (counter,) = (int(value) for name, value in network.named_buffers() if "batches" in name)
        assert counter == row.count("*")


def images_are_those_declared(lab: Lab) -> None:
    """Forward and backward passes, counted in images: a block holds a share of each batch."""
    for method in (
        MixMatch(),
        MixMatch(lambda_per="batch", bn_update="all"),
        MixMatch(layout="joint", mixing="separate"),
    ):
        passes = lab.record(method, lab.network(dropout=0.5))
        cost = method.passes()
        assert sum(len(item.x) for item in passes) == 5 * cost.f + 8 * cost.F
        assert sum(len(item.x) * len(item.backward) for item in passes) == 5 * cost.b + 8 * cost.B


def stepped(lab: Lab, decay: float) -> nn.Module:
    """The network after one training step with MixMatch's own optimiser and decay."""
    settings = {**MixMatch.experiment["training"], "weight_decay": decay, "learning_rate": 0.01}
    training = Training(**{**settings, "batch_labelled": 8, "batch_unlabelled": 8, "steps": 4})
    module = VicinalModule(lab.network(), MixMatch(), training, seed=3)
    optimizer = module.configure_optimizers()["optimizer"]
    data, split = examples(lab)
    batch = next(iter(Batches(data, split, labelled_batch=8, unlabelled_batch=8, seed=0, steps=4)))
    module.training_step(batch, 0).backward()
    module.optimizer_step(0, 0, optimizer, None)
    return module.student  # type: ignore[return-value]


def mix_21_decay_is_for_kernels(lab: Lab) -> None:
    """After the step, weights x (1 - wd lr); biases, and all of batch norm, as without decay."""
    decayed, plain = stepped(lab, 0.5), stepped(lab, 0.0)
    kernels = {f"{name}.weight" for name, module in decayed.named_modules() if isinstance(module, nn.Linear)}
    for (name, p), other in zip(decayed.named_parameters(), plain.parameters(), strict=True):
        factor = 1 - 0.5 * 0.01 if p.dim() > 1 else 1.0
        assert (p.dim() > 1) == (name in kernels)
        torch.testing.assert_close(p, factor * other, rtol=1e-6, atol=0)
    assert all(torch.equal(*pair) for pair in zip(decayed.buffers(), plain.buffers(), strict=True))


def patched(target: str, value: object) -> Mutation:
    """The mutation that replaces one thing in the library."""
    return lambda patch: patch.setattr(f"vicinal.methods.mixmatch.{target}", value)


def policies(first: PassPolicy, later: PassPolicy) -> Mutation:
    """The mutation of what moves running statistics."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr("vicinal.methods.mixmatch.TRAIN", first)
        patch.setattr("vicinal.methods.mixmatch.FROZEN_STATS", later)

    return mutate


def wasteful(patch: pytest.MonkeyPatch) -> None:
    call = Model.__call__
    patch.setattr(
        Model, "__call__", lambda self, *args, **rest: (call(self, *args, **rest), call(self, *args, **rest))[1]
    )


def decays_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Training, "decays", lambda self, parameter: True)


CHECKS = [
    pytest.param(guesses_are_in_training_mode, patched("FROZEN_STATS", EVAL), id="guesses | eval mode"),
    pytest.param(
        blocks_are_interleaved,
        patched("interleave", lambda sizes: torch.arange(sum(sizes)).split(sizes)),
        id="blocks | not interleaved",
    ),
    pytest.param(mix_18_updates, policies(TRAIN, TRAIN), id="18 updates | always all"),
    pytest.param(mix_18_updates, policies(FROZEN_STATS, FROZEN_STATS), id="18 updates | never any"),
    pytest.param(images_are_those_declared, wasteful, id="images | twice as many"),
    pytest.param(mix_21_decay_is_for_kernels, decays_everything, id="21 decay | of everything"),
]


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_holds(check: Check, mutate: Mutation, lab: Lab) -> None:
    check(lab)


@pytest.mark.parametrize(("check", "mutate"), CHECKS)
def test_check_fails_when_mutated(check: Check, mutate: Mutation, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(lab)
