"""The MMD-VAE's own training (Zhao et al. 2019): what latent mixing needs before it can begin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.methods.base import Context, Cost, Method, Needs, Origin, Step, Term
from vicinal.networks import MMDVAE
from vicinal.settings import check
from vicinal.vicinity import EstimateName, KernelName, info_vae_loss

_REFERENCE = 3 * 32 * 32
"""Values of an example at which the weight of the MMD is 1000."""


class MMDVAETraining(Method):
    """Learn to rebuild examples from codes that are distributed like N(0, I) as a whole; labels are not used.

    With q(z|x) the encoder's Gaussian, z_i ~ q(z|u_i), G the decoder and n_i ~ N(0, I)::

        L = mean_i |G(z_i) - u_i|^2 / 2 + mmd_weight MMD^2({z_i}, {n_i}) + kl_weight mean_i KL( q(z|u_i) || N(0, I) )

    over the pool of all training inputs. The error is a sum over values: pixels, or standardised features. In InfoVAE's
    terms kl_weight = 1 - a and mmd_weight = a + b - 1; the MMD-VAE has a = 1 and so no KL, which lets codes stay
    informative. The KL is a term only where it has a weight.

    There is no labelled pass and nothing supervised. Validation measures the mean squared error of reconstructions of
    mean codes. Batch norm: the one pass updates running statistics.

    Sources: Zhao et al. 2019 (InfoVAE); Gretton et al. 2012 (MMD). How VarMixup's authors trained theirs could not be
    recovered: all settings are our reading.

    Args:
        mmd_weight: weight of MMD^2, >= 0; None for 1000 D / 3072 with D values in an example: 1000 is meant for 32x32
            colour images, and the error that it is balanced against is a sum over values.
        kl_weight: weight of the KL, >= 0; needs a stochastic encoder.
        kernel: of MMD^2, see `vicinal.vicinity.mmd2`.
        scale: of MMD^2, in squared units of the codes, > 0; None for twice the size of a code.
        estimate: of MMD^2.
    """

    needs: ClassVar[Needs] = Needs(views=1)
    cost: ClassVar[Cost] = Cost(f=0, F=1, b=0, B=1)
    source: ClassVar[str] = "Zhao et al. 2019 (InfoVAE, AAAI)"
    origins: ClassVar[Mapping[str, Origin]] = {
        "mmd_weight": "ours",
        "kl_weight": "paper",
        "kernel": "ours",
        "scale": "ours",
        "estimate": "ours",
    }
    experiment: ClassVar[Mapping[str, Any]] = {
        "network": "mmd_vae",
        "training": {"optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 0.0, "batch_unlabelled": 128},
    }
    trains: ClassVar[Literal["classifier", "autoencoder"]] = "autoencoder"

    mmd_weight: float | None = None
    kl_weight: float = 0.0
    kernel: KernelName = "imq"
    scale: float | None = None
    estimate: EstimateName = "unbiased"

    def __post_init__(self) -> None:
        if self.mmd_weight is not None:
            check("mmd_weight", self.mmd_weight, low=0)
        check("kl_weight", self.kl_weight, low=0)
        if self.scale is not None:
            check("scale", self.scale, above=0)
        self._mmd_weight = 1000.0 if self.mmd_weight is None else self.mmd_weight

    def prepare(self, context: Context) -> None:
        network = context.network
        if not isinstance(network, MMDVAE):
            raise InputError(f"network: mmd_vae trains the network mmd_vae, and this is a {type(network).__name__}")
        if self.kl_weight and not network.stochastic:
            raise InputError("kl_weight: a deterministic encoder has no KL; set kl_weight 0 or network.stochastic true")
        if self.mmd_weight is None:
            self._mmd_weight = 1000.0 * torch.Size(context.shape).numel() / _REFERENCE

    def loss(self, step: Step) -> dict[str, Term]:
        (u,) = step.u
        parts = info_vae_loss(
            cast(MMDVAE, step.student.network),
            u,
            step.generator("codes"),
            kernel=self.kernel,
            scale=self.scale,
            estimate=self.estimate,
        )
        terms = {"reconstruction": Term(parts["reconstruction"]), "mmd": Term(parts["mmd"], self._mmd_weight)}
        if self.kl_weight:
            terms["kl"] = Term(parts["kl"], self.kl_weight)
        return terms

    def measured(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The mean squared error of each example's values, in data space, summed over the batch."""
        return cast(Tensor, (network(x) - x).square().flatten(1).mean(dim=1).sum())
