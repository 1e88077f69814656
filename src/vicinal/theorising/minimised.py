"""Whether the mixup loss that the theory is about is the loss that a run minimised."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vicinal.assembling import Assembled
from vicinal.methods import Mixup
from vicinal.networks import Classifier, GaussianNoise, MeanOnlyBatchNorm


def beside(parts: Assembled, network: Classifier, alpha: float) -> list[str] | None:
    """What a training by mixup had besides the mixup loss of the examples as they lie in the data set.

    Args:
        parts: of the run.
        network: that it trained.
        alpha: of the mixing law that the theory is told of.

    Returns:
        Of "augmentation", "input noise", "dropout" and "batch norm" those that there were; nothing of them makes the
        minimised loss the mixup loss itself. None where the method's loss is another one.
    """
    if type(parts.method) is not Mixup or alpha != parts.method.alpha:
        return None
    layers = list(network.modules())
    found = {
        "augmentation": parts.experiment.augment.active,
        "input noise": any(isinstance(layer, GaussianNoise) and layer.std for layer in layers),
        "dropout": any(_drops(layer) for layer in layers),
        "batch norm": any(isinstance(layer, (_BatchNorm, MeanOnlyBatchNorm)) for layer in layers),
    }
    return [name for name, there in found.items() if there]


def _drops(layer: nn.Module) -> bool:
    """Whether a layer leaves out something at random; those of other packages go by their names."""
    rate = getattr(layer, "p", getattr(layer, "drop_prob", None))
    named = any(word in type(layer).__name__.lower() for word in ("drop", "stochasticdepth"))
    return named and (rate is None or bool(rate))
