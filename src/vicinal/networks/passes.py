"""The pass policy: what one forward pass may change and what it may draw, said out loud.

A semi-supervised step runs the same network several times, and the passes differ in ways that do not show in
``network(x)``: batch or running statistics, whether running statistics move, fresh or repeated dropout masks, mixed or
full precision. A `PassPolicy` names these four, and `run` applies them to one pass and restores everything.

Half of what re-implementations get wrong is one field of it. For example, PyTorch codes that set the momentum of batch
norm to 0 for the perturbation pass still count it in ``num_batches_tracked``, and set it back to 0.1 whatever it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

from vicinal.errors import InputError
from vicinal.networks.layers import MeanOnlyBatchNorm

# Batch norms whose `forward` is known to leave every buffer alone once `track_running_stats` is False.
_KNOWN_FORWARDS = (_BatchNorm.forward, SyncBatchNorm.forward, MeanOnlyBatchNorm.forward)
_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class PassPolicy:
    """How one forward pass behaves.

    Args:
        mode: ``"train"``: batch statistics and active dropout; sub-modules that the user put in eval mode inside a
            training network stay there. ``"eval"``: every module in eval mode.
        update_stats: whether the pass may move running statistics. If not, every buffer is bit-equal afterwards.
        dropout: ``"fresh"``: random layers (dropout, input noise) draw from the global generator as usual.
            ``"shared"``: they draw from a seed, so that passes with the same seed and the same shapes share their
            masks, and the global generator does not move.
        fp32: switch autocast off and run half-precision inputs in float32.
    """

    mode: Literal["train", "eval"] = "train"
    update_stats: bool = True
    dropout: Literal["fresh", "shared"] = "fresh"
    fp32: bool = False


TRAIN = PassPolicy()
"""An ordinary training pass: it updates running statistics."""
FROZEN_STATS = PassPolicy(update_stats=False)
"""A training pass that leaves no trace: batch statistics, active dropout, untouched buffers."""
EVAL = PassPolicy(mode="eval", update_stats=False)
"""A pass in eval mode: running statistics, no dropout."""


def run(
    network: nn.Module,
    x: Tensor,
    policy: PassPolicy = TRAIN,
    *,
    call: Callable[[Any, Tensor], Tensor] | None = None,
    shared_seed: int | None = None,
) -> Tensor:
    """One forward pass under a policy; gradients flow as in a plain call.

    Args:
        network: what to run.
        x: inputs (B, ...).
        policy: how to run it.
        call: what to do with the network and the inputs, if not ``network(x)``: for example
            ``lambda net, x: net(x, preprocessed=True)``.
        shared_seed: seed of the random layers if ``policy.dropout`` is ``"shared"``, else not used.

    Returns:
        What the call returns, usually logits (B, C).

    Raises:
        InputError: shared dropout without a seed.

    >>> network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    >>> run(network, torch.randn(4, 2), FROZEN_STATS).shape
    torch.Size([4, 3])
    >>> int(network[1].num_batches_tracked)
    0
    """
    if policy.fp32 and x.dtype in _HALF:
        x = x.float()
    with applied(network, policy, shared_seed, device=x.device):
        return cast(Tensor, network(x)) if call is None else call(network, x)


@contextmanager
def applied(
    network: nn.Module, policy: PassPolicy, shared_seed: int | None = None, *, device: torch.device | None = None
) -> Iterator[None]:
    """Set a policy up for the passes inside, and put everything back after them, whatever they raise.

    The passes inside share one random stream: with shared dropout, two calls inside one context draw different masks,
    two contexts with the same seed the same ones. Inputs are not converted to float32 here: `run` does that.

    Restored are: each module's training flag, each buffer (if statistics are not to be updated), the global random
    state (if dropout is shared) and autocast. Plain Python attributes that a foreign layer changes in its forward pass
    are not. Not safe with a second thread that uses the same network. A graph that re-runs the forward pass in the
    backward pass (activation checkpointing) does that outside of the policy.

    Args:
        network: what will run.
        policy: how.
        shared_seed: seed of the random layers if ``policy.dropout`` is ``"shared"``. Across processes, put the rank
            into it, or all of them share their masks.
        device: device of the inputs; that of the first parameter if not given.

    Raises:
        InputError: shared dropout without a seed.
    """
    if policy.dropout == "shared" and shared_seed is None:
        raise InputError(
            "passes: dropout='shared' needs a shared_seed: give the same seed to the passes that share masks"
        )
    if device is None:
        device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    with ExitStack() as stack:
        if policy.mode == "eval" or not network.training:
            stack.enter_context(_mode(network, policy.mode))
        if not policy.update_stats:
            stack.enter_context(_frozen_buffers(network))
        if policy.dropout == "shared":
            stack.enter_context(_seeded(cast(int, shared_seed), device))
        if policy.fp32 and torch.is_autocast_enabled(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        yield


def _modules(network: nn.Module) -> list[nn.Module]:
    """All modules, each once.

    Walked anew for each pass, because a list kept from before could miss a layer put in since. `Module.modules` does
    the same at several times the cost.
    """
    seen = {network}
    found = [network]
    for module in found:
        for child in module._modules.values():
            if child is not None and child not in seen:
                seen.add(child)
                found.append(child)
    return found


@contextmanager
def _mode(network: nn.Module, mode: Literal["train", "eval"]) -> Iterator[None]:
    flags = [(module, module.training) for module in _modules(network)]
    try:
        if mode == "train":
            # Through the network's own method: it may keep some of its layers in eval mode by overriding it.
            network.train()
        else:
            for module, flag in flags:
                if flag:
                    object.__setattr__(module, "training", False)
        yield
    finally:
        for module, flag in flags:
            if module.training is not flag:
                object.__setattr__(module, "training", flag)


@contextmanager
def _frozen_buffers(network: nn.Module) -> Iterator[None]:
    """Nothing that runs inside changes a buffer.

    Batch norm is told not to track. Any other layer with buffers computes on clones of them, unless it declares
    ``constant_buffers = True`` (a whitening matrix need not be copied for every pass).
    """
    tracking: list[tuple[nn.Module, object]] = []
    swapped: list[tuple[dict[str, Tensor | None], dict[str, Tensor | None]]] = []
    clones: dict[int, Tensor] = {}
    try:
        for module in _modules(network):
            buffers = module._buffers
            if not buffers:
                continue
            if isinstance(module, (_BatchNorm, MeanOnlyBatchNorm)):
                if module.training and module.track_running_stats:
                    tracking.append((module, module.track_running_stats))
                    object.__setattr__(module, "track_running_stats", False)
                if type(module).forward in _KNOWN_FORWARDS:
                    continue
            if getattr(module, "constant_buffers", False):
                continue
            swapped.append((buffers, dict(buffers)))
            for name, buffer in swapped[-1][1].items():
                if buffer is not None:
                    # By identity, so that layers that share a buffer share its clone.
                    buffers[name] = clones.setdefault(id(buffer), buffer.detach().clone())
        yield
    finally:
        for module, tracked in tracking:
            object.__setattr__(module, "track_running_stats", tracked)
        for buffers, originals in swapped:
            buffers.clear()
            buffers.update(originals)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """The global generators of the CPU and of ``device`` start at ``seed`` inside, and are as before after it.

    Not through `torch.manual_seed`: it seeds every device there is, also those whose state nobody saved.
    """
    if device.type == "cpu":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
        return
    accelerator = getattr(torch, device.type)
    index = accelerator.current_device() if device.index is None else device.index
    with torch.random.fork_rng(devices=[index], device_type=device.type):
        torch.default_generator.manual_seed(seed)
        accelerator.set_rng_state(torch.Generator(device).manual_seed(seed).get_state(), index)
        yield
