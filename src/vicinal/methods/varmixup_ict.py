"""VarMixup as the mixer of interpolation consistency training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from vicinal.methods.base import Cost, Needs, Origin, Step
from vicinal.methods.ict import ICT
from vicinal.methods.varmixup import RULES, LatentMethod, mixed_losses
from vicinal.vicinity import Mixing, draw_mixing


class VarMixupICT(LatentMethod, ICT):
    """Predict what mixed codes of unlabelled examples decode to as the mixture of the teacher's predictions.

    `ICT` with G(lambda mu(u_i) + (1 - lambda) mu(u_pi(i))) in the place of lambda u_i + (1 - lambda) u_pi(i), where mu
    is the encoder's mean and G the decoder of an autoencoder that stays as it is. The teacher still predicts the real
    examples, and its predictions are mixed with the same lambda and pi::

        L = mixup CE on (x, y) + w(t) mean_{i,c} ( softmax f_theta(u~_i)_c - t_ic )^2,
        t_i = lambda q_i + (1 - lambda) q_pi(i)

    With an autoencoder that loses nothing and a decoder that is affine it is ICT. Batch norm as there. The composition
    is ours. Sources: Verma et al. 2019, IJCAI; Mangla et al. 2021, Pattern Recognition Letters (our reading).

    Args:
        mode: "pure" is the rule above; "endpoint" adds to ICT's mixture only what the decoder's curvature makes of it.
        latent: mean codes, or draws from q(z|u).
        latent_labelled: whether the labelled batch, if it is mixed, is mixed in codes too; else the student sees real
            examples there.
    """

    needs: ClassVar[Needs] = Needs(views=1, teacher=True, autoencoder=True)
    cost: ClassVar[Cost] = Cost(f=1, F=1, T=1, b=1, B=1, e=1, d=1)
    source: ClassVar[str] = "ours, from Verma et al. 2019 and Mangla et al. 2021"
    origins: ClassVar[Mapping[str, Origin]] = {
        **ICT.origins,
        **LatentMethod.origins,
        "mode": "ours",
        "latent": "ours",
        "latent_labelled": "ours",
    }

    mode: Literal["pure", "endpoint"] = "pure"
    latent: Literal["mean", "sample"] = "mean"
    latent_labelled: bool = False

    def passes(self) -> Cost:
        batches = 1 + (self.mix_labelled and self.latent_labelled)
        return super().passes()._replace(e=batches, d=batches * (2 if self.mode == "endpoint" else 1))

    def supervised(self, step: Step) -> Tensor:
        if not (self.mix_labelled and self.latent_labelled):
            return super().supervised(step)
        draws = step.generator("labelled mixing")
        mixing = draw_mixing(len(step.y), self.alpha, draws, per=self.lambda_per, fold=self.fold, device=step.x.device)
        logits = step.student(self._decoded(step, step.x, mixing, "labelled codes"))
        return mixed_losses(step.y, logits, mixing).mean()

    def mixed(self, step: Step, u: Tensor, mixing: Mixing) -> Tensor:
        return self._decoded(step, u, mixing, "unlabelled codes")

    def _decoded(self, step: Step, x: Tensor, mixing: Mixing, purpose: str) -> Tensor:
        draws = step.generator(purpose) if self.latent == "sample" else None
        with self.second(x) as network:
            return RULES[self.mode](network, x, mixing, bounds=self._range, generator=draws)
