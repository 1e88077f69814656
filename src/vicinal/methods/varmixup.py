"""VarMixup (Mangla et al. 2021), its ablation Mixup-R, and what all methods with an autoencoder share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vicinal.errors import InputError
from vicinal.methods.base import Context, Cost, Method, Needs, Origin, Step, Term
from vicinal.methods.mixup import mixed_cross_entropy
from vicinal.networks import EVAL, Autoencoder, applied
from vicinal.settings import check
from vicinal.vicinity import Mixing, PerName, cross_entropy, draw_mixing, endpoint_mix, latent_mix, mix, mixup_r

RULES: dict[str, Callable[..., Tensor]] = {"pure": latent_mix, "endpoint": endpoint_mix}
"""How neighbours are made, by mode; a mode that is not here makes them as ``pure`` does."""


class LatentMethod(Method):
    """Base of the methods that work in the latent space of a trained autoencoder. Not a method by itself.

    The autoencoder is no part of the method as a module: it is not trained, not in training mode and not in
    checkpoints. It runs in float32, and what it makes of images is clipped to [0,1].

    Args:
        autoencoder: "auto" to train one first (method mmd_vae, on the same data, split, augmentation and seed), or the
            directory of a finished run of one. One of another seed has been trained on examples that validate here.
        judge: what reads the reconstructions, to say whether they are good enough: "auto" to train a supervised
            classifier like this one first, or the directory of a finished run of one.
    """

    needs: ClassVar[Needs] = Needs(autoencoder=True)
    origins: ClassVar[Mapping[str, Origin]] = {"autoencoder": "ours", "judge": "ours"}

    autoencoder: str = "auto"
    judge: str = "auto"

    def prepare(self, context: Context) -> None:
        if context.autoencoder is None:
            raise InputError(
                "method: needs a trained autoencoder; train one with: vicinal fit DATA --method mmd_vae, "
                "or leave autoencoder: auto"
            )
        _check_shape(context.autoencoder, context.shape)
        # In a tuple, where a module does not look for its parts.
        self._held = (context.autoencoder,)
        self._range = (0.0, 1.0) if len(context.shape) == 3 else None

    @contextmanager
    def second(self, x: Tensor) -> Iterator[Autoencoder]:
        """The autoencoder for inputs like ``x``: on their device, in eval mode, in float32 whatever the training's."""
        (network,) = self._held
        first = next(itertools.chain(network.parameters(), network.buffers()), x)
        if first.device != x.device:
            network.to(x.device)
        with torch.autocast(x.device.type, enabled=False), applied(network, EVAL):
            yield network


class VarMixup(LatentMethod):
    """Cross-entropy on what mixed codes of labelled pairs decode to, with the mixed label.

    With mu the encoder's mean, G the decoder of an autoencoder that stays as it is, lambda ~ Beta(alpha, alpha) and a
    random permutation pi of the batch::

        L = mean_i [ lambda_i CE(y_i, f(x~_i)) + (1 - lambda_i) CE(y_pi(i), f(x~_i)) ]
        x~_i = G( lambda_i mu(x_i) + (1 - lambda_i) mu(x_pi(i)) )

    At lambda = 1 that is the reconstruction G(mu(x_i)): the classifier never sees a real example, and its accuracy is
    bounded by the autoencoder. Every run therefore reports what a classifier trained without mixing loses on
    reconstructions; if it is more than 10 points, the run says nothing about the method. For affine G it is mixup of
    reconstructions (`MixupR`).

    Augmentation comes first, then coding, mixing, decoding and clipping, in data space; normalisation is the
    classifier's first layer. Batch norm: every pass updates running statistics. Source: Mangla et al. 2021, Pattern
    Recognition Letters. Its text could not be recovered: the rule, its settings and how real examples come in are our
    reading.

    Args:
        alpha: Beta parameter, > 0.
        lambda_per: one lambda per batch or per sample.
        mode: "pure" is the rule above; "alternate" takes a batch of it with probability ``share`` and a real one
            otherwise; "joint" takes the mean of its loss and that of the real batch; "endpoint" learns from
            lambda x_i + (1 - lambda) x_j + [x~ - lambda G(mu_i) - (1 - lambda) G(mu_j)], which is x_i at lambda = 1.
        share: probability of a batch by the rule in the mode "alternate".
        beside: what a real batch is in the modes "alternate" and "joint": the examples as they are, or input mixup.
        latent: mean codes, or draws from q(z|x).
    """

    cost: ClassVar[Cost] = Cost(f=1, b=1, e=1, d=1)
    source: ClassVar[str] = "Mangla et al. 2021 (Pattern Recognition Letters)"
    origins: ClassVar[Mapping[str, Origin]] = {
        **LatentMethod.origins,
        "alpha": "ours",
        "lambda_per": "ours",
        "mode": "ours",
        "share": "ours",
        "beside": "ours",
        "latent": "ours",
    }

    alpha: float = 1.0
    lambda_per: PerName = "sample"
    mode: Literal["pure", "alternate", "joint", "endpoint"] = "pure"
    share: float = 0.5
    beside: Literal["clean", "mixup"] = "clean"
    latent: Literal["mean", "sample"] = "mean"

    def __post_init__(self) -> None:
        check("alpha", self.alpha, above=0)
        check("share", self.share, low=0, high=1)

    def passes(self) -> Cost:
        """Passes of one step with these settings; of the dearer one in the mode "alternate"."""
        if self.mode == "alternate" and self.share == 0:
            return Cost()
        made, joint = self.vicinal_passes(), self.mode == "joint"
        return made._replace(f=made.f + joint, b=made.b + joint)

    def vicinal_passes(self) -> Cost:
        """Passes of the loss on neighbours."""
        return Cost(f=1, b=1, e=1, d=2 if self.mode == "endpoint" else 1)

    def loss(self, step: Step) -> dict[str, Term]:
        if self.mode == "joint":
            return {"supervised": Term(self._real(step), 0.5), "varmixup": Term(self._vicinal(step), 0.5)}
        if self.mode == "alternate" and float(torch.rand((), generator=step.generator("alternation"))) >= self.share:
            return {"supervised": Term(self._real(step))}
        return {"supervised": Term(self._vicinal(step))}

    def neighbours(self, step: Step, mixing: Mixing) -> Tensor:
        """What the student learns from instead of the labelled inputs, (B, ...), detached."""
        return self._mixed(RULES.get(self.mode, latent_mix), step, mixing)

    def sources(self, step: Step) -> Tensor:
        """The inputs (B, ...) that are coded: the labelled ones."""
        return step.x

    def _mixed(self, rule: Callable[..., Tensor], step: Step, mixing: Mixing) -> Tensor:
        x = self.sources(step)
        with self.second(x) as network:
            return rule(network, x, mixing, bounds=self._range, generator=self._draws(step))

    def _draws(self, step: Step) -> torch.Generator | None:
        return step.generator("labelled codes") if self.latent == "sample" else None

    def _vicinal(self, step: Step) -> Tensor:
        draws = step.generator("labelled mixing")
        mixing = draw_mixing(len(step.y), self.alpha, draws, per=self.lambda_per, device=step.x.device)
        return mixed_losses(step.y, step.student(self.neighbours(step, mixing)), mixing).mean()

    def _real(self, step: Step) -> Tensor:
        if self.beside == "mixup":
            return mixed_cross_entropy(step, self.alpha, self.lambda_per, fold=False)
        return cross_entropy(step.y, step.student(step.x)).mean()


class MixupR(VarMixup):
    """Mixup of reconstructions: what VarMixup would be if only its images were blurred, without a path through codes.

    `VarMixup` with x~_i = lambda G(mu(x_i)) + (1 - lambda) G(mu(x_pi(i))). What VarMixup gains over it comes from the
    curvature of G. Source: ours, to ablate Mangla et al. 2021.

    Args:
        mode: as there, without "endpoint", which would be input mixup.
    """

    source: ClassVar[str] = "ours, to ablate Mangla et al. 2021"

    mode: Literal["pure", "alternate", "joint"] = "pure"

    def neighbours(self, step: Step, mixing: Mixing) -> Tensor:
        return self._mixed(mixup_r, step, mixing)


def mixed_losses(y: Tensor, logits: Tensor, mixing: Mixing) -> Tensor:
    """The cross-entropy with mixed one-hot labels, (B,).

    Args:
        y: classes of the examples that were mixed, int64 (B,).
        logits: of the mixtures (B, C).
        mixing: how they were mixed.
    """
    return mix(cross_entropy(y, logits), cross_entropy(y[mixing.partner], logits), mixing.lam)


def _check_shape(network: Autoencoder, shape: tuple[int, ...]) -> None:
    """Refuse an autoencoder of other data before the training's first step does in words of its own."""
    first = next(itertools.chain(network.parameters(), network.buffers()), torch.empty(0))
    zeros = torch.zeros(2, *shape, device=first.device)
    try:
        with torch.no_grad(), applied(network, EVAL):
            fits = network(zeros).shape == zeros.shape
    except (RuntimeError, ValueError):
        fits = False
    if not fits:
        raise InputError(
            f"method.autoencoder: it does not rebuild examples of shape {shape}; name one trained on these data"
        )
