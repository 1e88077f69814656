"""Networks that folding has something to do on, and what can be seen of a network in eval mode."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vicinal.networks import Autoencoder, Classifier, MeanOnlyBatchNorm

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, MeanOnlyBatchNorm)


def enlivened(network: nn.Module) -> nn.Module:
    """With statistics, scales (some of them negative) and biases as training could leave them."""
    draws = torch.Generator().manual_seed(7)
    for module in network.modules():
        if isinstance(module, BATCH_NORMS):
            for name in ("running_mean", "bias", "weight", "running_var"):
                tensor = getattr(module, name, None)
                if tensor is not None:
                    found = torch.randn(tensor.shape, generator=draws).to(tensor)
                    tensor.data = 0.5 + found.square() if name == "running_var" else found
    return network


def count(network: nn.Module, *kinds: type[nn.Module]) -> int:
    return sum(isinstance(module, kinds) for module in network.modules())


def seen(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Outputs and input gradient in eval mode."""
    at = x.clone().requires_grad_()
    logits = network(at)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3)).to(logits)
    (gradient,) = torch.autograd.grad((weights * logits).sum(), at)
    found = {"logits": logits.detach(), "gradient": gradient}
    if isinstance(network, Classifier):
        parts = network(network.preprocess(x), preprocessed=True, part="all")
        found |= {"parts.logits": parts.logits, "features": parts.features}
        found |= {"map": parts.map} if parts.map is not None else {}
        for place in range(len(network.stages) + 1):
            found[f"changed at {place}"] = network(x, place=place, change=lambda h: h.sin() + h.flip(0))
    if isinstance(network, Autoencoder):
        found["codes"] = network.encode(x)
    return {name: tensor.detach() for name, tensor in found.items()}


def gap(a: dict[str, Tensor], b: dict[str, Tensor], *, but: str = "") -> float:
    """The largest difference, relative to the length of what differs."""
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).norm() / b[name].norm()) for name in a if name != but)
