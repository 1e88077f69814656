"""On-manifold adversarial training (Stutz et al. 2019), and two readings of an adversarial VarMixup."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

from torch import Tensor

from vicinal.methods.adversarial_training import PGDTraining
from vicinal.methods.base import Context, Cost, Origin, Step, Term
from vicinal.methods.varmixup import LatentMethod, VarMixup, mixed_losses
from vicinal.networks import Autoencoder, PassPolicy
from vicinal.settings import check
from vicinal.vicinity import Mixing, codes, cross_entropy, decoded, latent_adversary, mix
from vicinal.vicinity.projected import check_bounds


class OnManifoldTraining(LatentMethod):
    """Learn from adversarial examples that stay on the data's manifold: codes are moved, not pixels.

    With mu the encoder's mean and G the decoder of an autoencoder that stays as it is::

        L = mean_i CE( y_i, f(G(z_i + zeta_i)) ),  z_i = mu(x_i)
        zeta_i ~ argmax CE( y_i, f(G(z_i + zeta)) )  over |zeta|_inf <= epsilon, z_i + zeta in the box

    by signed gradient ascent from a random start: ``steps`` steps of ``step_size`` epsilon / ``steps`` in each
    coordinate. The best of all points visited and of zeta = 0 is kept, all of them seen under the same dropout masks.
    zeta is a constant. Nothing is mixed, and no real example is seen.

    Batch norm: the search uses batch statistics and leaves the running ones alone; the pass on the decoded adversaries
    updates them. Source: Stutz et al. 2019, CVPR; official code. There the search is 40 steps of Adam, and each class
    has a VAE-GAN of its own; here it is a signed ascent, and one autoencoder of all classes.

    Args:
        epsilon: radius in units of the codes, >= 0; their prior has standard deviation 1.
        steps: gradient steps, >= 1.
        step_size: length of a step as a multiple of epsilon / steps, > 0.
        box: smallest and largest value of a code's coordinates, or None. Codes outside are first brought to its border.
    """

    cost: ClassVar[Cost] = Cost(f=8, b=1, x=5, e=1, d=8, y=5)
    source: ClassVar[str] = "Stutz et al. 2019 (CVPR)"
    origins: ClassVar[Mapping[str, Origin]] = {
        **LatentMethod.origins,
        "epsilon": "paper",
        "steps": "ours",
        "step_size": "ours",
        "box": "paper",
    }

    epsilon: float = 0.3
    steps: int = 5
    step_size: float = 2.5
    box: tuple[float, float] | None = (-2.0, 2.0)

    def __post_init__(self) -> None:
        check("epsilon", self.epsilon, low=0)
        check("steps", self.steps, low=1)
        check("step_size", self.step_size, above=0)
        check_bounds(self.box)

    def passes(self) -> Cost:
        return self._searching()

    def _searching(self) -> Cost:
        if not self.epsilon:
            return Cost(f=1, b=1, e=1, d=1)
        # Two more forward passes than steps: of the last point and of zeta = 0.
        made = self.steps + 3
        return Cost(f=made, b=1, x=self.steps, e=1, d=made, y=self.steps)

    def loss(self, step: Step) -> dict[str, Term]:
        with self.second(step.x) as network:
            z = codes(network, step.x)
            x = self.adversarial(step, network, z, lambda logits: cross_entropy(step.y, logits))
        return {"supervised": Term(cross_entropy(step.y, step.student(x)).mean())}

    def adversarial(self, step: Step, network: Autoencoder, z: Tensor, losses: Callable[[Tensor], Tensor]) -> Tensor:
        """What the worst codes near ``z`` decode to, (B, ...), detached.

        Args:
            step: the step, for the student and the draws.
            network: the autoencoder, in eval mode.
            z: codes (B, d_z).
            losses: from logits (B, C) to what is to become large, (B,).
        """
        policy = PassPolicy(update_stats=False, dropout="shared", fp32=True)
        worst = latent_adversary(
            lambda x: losses(step.student(x, policy)),
            lambda code: network.decode(code) if self._range is None else network.decode(code).clamp(*self._range),
            z,
            epsilon=self.epsilon,
            step_size=self.step_size * self.epsilon / self.steps,
            steps=self.steps,
            generator=step.generator("adversary"),
            box=self.box,
        )
        return decoded(network, worst, self._range)


class VarMixupLatentAdv(VarMixup, OnManifoldTraining):
    """VarMixup whose mixed codes are moved to where the student errs most.

    `VarMixup` with x~_i = G(z~_i + zeta_i), zeta_i being the search of `OnManifoldTraining` against the mixed label::

        z~_i = lambda_i mu(x_i) + (1 - lambda_i) mu(x_pi(i))
        zeta_i ~ argmax [ lambda_i CE(y_i, f(G(z~_i + zeta))) + (1 - lambda_i) CE(y_pi(i), f(G(z~_i + zeta))) ]

    With epsilon = 0 it is VarMixup. This and `VarMixupInputAdv` are two readings of an adversarial VarMixup; neither is
    called the paper's.

    Args:
        mode: as in VarMixup, without "endpoint".
    """

    cost: ClassVar[Cost] = OnManifoldTraining.cost
    source: ClassVar[str] = "ours, from Mangla et al. 2021 and Stutz et al. 2019"
    origins: ClassVar[Mapping[str, Origin]] = {
        **OnManifoldTraining.origins,
        **VarMixup.origins,
        "epsilon": "ours",
        "box": "ours",
    }

    mode: Literal["pure", "alternate", "joint"] = "pure"
    box: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        VarMixup.__post_init__(self)
        OnManifoldTraining.__post_init__(self)

    def vicinal_passes(self) -> Cost:
        return self._searching()

    def neighbours(self, step: Step, mixing: Mixing) -> Tensor:
        with self.second(step.x) as network:
            z = codes(network, step.x, self._draws(step))
            mixed = mix(z, z[mixing.partner], mixing.lam)
            return self.adversarial(step, network, mixed, lambda logits: mixed_losses(step.y, logits, mixing))


class VarMixupInputAdv(VarMixup, PGDTraining):
    """VarMixup of adversarial examples: inputs are attacked first, then coded and mixed, with clean labels.

    `VarMixup` with mu(x_i + r_i) in the place of mu(x_i), where r_i is the search of `PGDTraining` against y_i; with
    one step of ``step_size`` 1 and no random start it is the fast gradient's. In the mode "endpoint" the ends are the
    adversarial examples.

    With epsilon = 0 it is VarMixup. This and `VarMixupLatentAdv` are two readings of an adversarial VarMixup; neither
    is called the paper's.
    """

    cost: ClassVar[Cost] = Cost(f=11, b=1, x=10, e=1, d=1)
    source: ClassVar[str] = "ours, from Mangla et al. 2021 and Madry et al. 2018"
    origins: ClassVar[Mapping[str, Origin]] = {**PGDTraining.origins, **VarMixup.origins}

    def __post_init__(self) -> None:
        VarMixup.__post_init__(self)
        PGDTraining.__post_init__(self)

    def prepare(self, context: Context) -> None:
        VarMixup.prepare(self, context)
        PGDTraining.prepare(self, context)

    def vicinal_passes(self) -> Cost:
        searches = self.steps if self.epsilon else 0
        made = super().vicinal_passes()
        return made._replace(f=1 + searches, x=searches)

    def sources(self, step: Step) -> Tensor:
        return self.adversarial(step) if self.epsilon else step.x
