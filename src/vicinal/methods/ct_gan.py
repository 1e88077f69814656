"""CT-GAN's semi-supervised classifier (Wei et al. 2018)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.methods.base import Context, Cost, Method, Needs, Origin, Step, Term
from vicinal.networks import FROZEN_STATS
from vicinal.networks.generator import Generator, OutputName
from vicinal.settings import check
from vicinal.vicinity import cross_entropy, squared_error


class CTGAN(Method):
    """Tell real examples from a generator's by the K logits that classify, and be consistent under dropout.

    The classifier is its own discriminator: with logits l, s(x) = log sum_k exp l_k(x) and D = sigmoid(s), and h the
    pooled features::

        L = mean_i CE(y_i, l(x_i)) + gan_weight ( mean_i -log D(u_i) + mean_i -log(1 - D(G(z_i))) ) + weight CT
        CT = mean_{i,c} ( softmax l(u_i; w1)_c - softmax l(u_i; w2)_c )^2
             + feature_weight mean_{i,d} ( h(u_i; w1)_d - h(u_i; w2)_d )^2

    w1 and w2 are two dropout draws of the same view, both with gradient; a network without dropout or noise has CT = 0,
    and the method is then the feature-matching GAN alone. No margin is taken off CT (M = 0), and there is no ramp. No
    gradient of L reaches the generator G. It follows the student by feature matching, one step of an Adam of its own
    after each of the student's::

        L_G = mean_d | mean_i h(u_i)_d - mean_i h(G(z'_i))_d |

    That Adam's state and the generator are saved with the method. The gradient of L_G is taken for the generator alone:
    the student's ``.grad`` is left as it is. Adding a constant to all logits leaves the cross-entropy and CT as they
    are; only D moves.

    Batch norm (the published classifier has none; ours): the labelled and the first unlabelled pass update running
    statistics; the second, those on generated examples and those of the generator's step use their own batch and leave
    no trace. Runs in one process. Weights are published for these reductions. Source: Wei et al. 2018, ICLR; official
    code. Its variant that ensembles predictions over epochs is left out.

    Args:
        weight: of the consistency term CT.
        gan_weight: of the two terms of the discriminator.
        feature_weight: of the features within CT.
        latent: size of the generator's codes z ~ N(0, I) (our reading).
        width: channels of the generator's last hidden map, see `vicinal.networks.generator.Generator` (our reading).
        output: range of generated images. "tanh" and "sigmoid" give the data's [0,1]; "wide_tanh" is what the official
            code does: real images there lie in [-0.5, 0.5] and generated ones in [-1, 1].
        generator_learning_rate: of the generator's Adam.
        generator_beta1: of the generator's Adam; its beta2 is 0.999.
    """

    needs: ClassVar[Needs] = Needs(views=1, features=True)
    cost: ClassVar[Cost] = Cost(f=1, F=5, d=2, b=1, B=3, X=1, y=1)
    source: ClassVar[str] = "Wei et al. 2018 (ICLR)"
    origins: ClassVar[Mapping[str, Origin]] = {
        "weight": "official-code",
        "gan_weight": "official-code",
        "feature_weight": "official-code",
        "latent": "ours",
        "width": "ours",
        "output": "ours",
        "generator_learning_rate": "official-code",
        "generator_beta1": "official-code",
    }
    experiment: ClassVar[Mapping[str, Any]] = {
        "training": {
            "optimizer": "adam",
            "learning_rate": 3e-4,
            "momentum": 0.5,
            "weight_decay": 0.0,
            "schedule": "constant",
        },
        "averaging": {"kind": "ema"},
    }

    weight: float = 0.5
    gan_weight: float = 0.5
    feature_weight: float = 0.1
    latent: int = 100
    width: int = 64
    output: OutputName = "tanh"
    generator_learning_rate: float = 3e-4
    generator_beta1: float = 0.5

    def __post_init__(self) -> None:
        for name in ("weight", "gan_weight", "feature_weight"):
            check(name, getattr(self, name), low=0)
        for name in ("latent", "width"):
            check(name, getattr(self, name), low=1)
        check("generator_learning_rate", self.generator_learning_rate, above=0)
        check("generator_beta1", self.generator_beta1, low=0, high=1)
        self._adam: torch.optim.Adam | None = None
        self._saved: dict[str, Any] = {}

    def prepare(self, context: Context) -> None:
        _refuse_several_processes()
        self.generator = Generator(context.shape, latent=self.latent, width=self.width, output=self.output)
        self._adam, self._saved = None, {}

    def trained(self) -> Iterable[nn.Parameter]:
        """None: the generator has an optimiser of its own."""
        return ()

    def loss(self, step: Step) -> dict[str, Term]:
        supervised = cross_entropy(step.y, step.student(step.x)).mean()
        (u,) = step.u
        first = step.student.parts(u)
        second = step.student.parts(u, FROZEN_STATS)
        with torch.no_grad():
            fake = self._generated(step, u, "generated examples")
        # -log sigmoid(s) = softplus(-s), and -log(1 - sigmoid(s)) = softplus(s).
        real_score, fake_score = (
            logits.logsumexp(dim=1) for logits in (first.logits, step.student(fake, FROZEN_STATS))
        )
        adversarial = F.softplus(-real_score).mean() + F.softplus(fake_score).mean()
        consistency = squared_error(first.logits.softmax(dim=1), second.logits).mean()
        consistency = consistency + self.feature_weight * (first.features - second.features).square().mean()
        return {
            "supervised": Term(supervised),
            "adversarial": Term(adversarial, self.gan_weight),
            "consistency": Term(consistency, self.weight),
        }

    def after_step(self, step: Step) -> None:
        """The generator's step.

        Raises:
            InputError: there is more than one process.
        """
        _refuse_several_processes()
        (u,) = step.u
        with torch.no_grad():
            real = step.student.features(u, FROZEN_STATS).mean(dim=0)
        with torch.enable_grad():
            fake = self._generated(step, u, "generated examples, the generator's step")
            matching = (real - step.student.features(fake, FROZEN_STATS).mean(dim=0)).abs().mean()
        parameters = list(self.generator.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(matching, parameters), strict=True):
            parameter.grad = gradient
        adam = self._optimizer()
        adam.step()
        adam.zero_grad()

    def get_extra_state(self) -> dict[str, Any]:
        """The state of the generator's Adam, saved with the weights."""
        return self._saved if self._adam is None else self._adam.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up the generator's Adam where the saved one stood."""
        self._adam, self._saved = None, copy.deepcopy(state)

    def _optimizer(self) -> torch.optim.Adam:
        # Made when it is first needed: by then the generator lies on its device, and its state is put there too.
        if self._adam is None:
            self._adam = torch.optim.Adam(
                self.generator.parameters(), self.generator_learning_rate, betas=(self.generator_beta1, 0.999)
            )
            if self._saved:
                self._adam.load_state_dict(self._saved)
        return self._adam

    def _generated(self, step: Step, u: Tensor, purpose: str) -> Tensor:
        made: Tensor = self.generator(self.generator.codes(len(u), step.generator(purpose), u))
        return made


def _refuse_several_processes() -> None:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise InputError("ct_gan: runs in one process, as nothing keeps generators equal; set training.devices to 1")
