"""What a method sees of a training step: the batch, its views, the networks as callables, the step's generators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from vicinal.networks import TRAIN, Classifier, Parts, PassPolicy, run
from vicinal.randomness import generator, seed_of
from vicinal.schedules import Progress

SpaceName = Literal["pixels", "input"]


class Model:
    """A network as a method sees it: called on inputs under a pass policy.

    Args:
        network: the network.
        shared_seed: seed of the masks that passes with ``dropout="shared"`` have in common within the step.
        policy: pass policy when none is given.
        gradient: False for a teacher: every pass is without a graph.
    """

    def __init__(
        self, network: nn.Module, *, shared_seed: int, policy: PassPolicy = TRAIN, gradient: bool = True
    ) -> None:
        self.network = network
        self.shared_seed = shared_seed
        self.policy = policy
        self.gradient = gradient

    def __call__(
        self,
        x: Tensor,
        policy: PassPolicy | None = None,
        *,
        space: SpaceName = "pixels",
        place: int = 0,
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Logits (B, C) for inputs (B, ...) that lie in ``space``.

        Args:
            x: the inputs.
            policy: how to run the pass.
            space: where the inputs lie: "pixels" is data space, "input" the network's preprocessed input.
            place: where ``change`` comes in: 0 is the preprocessed input, k the end of the network's k-th stage.
            change: applied to the activations there (hidden mixing).
        """
        how = {} if change is None else {"place": place, "change": change}
        return cast(Tensor, self._run(x, policy, space, how))

    def parts(self, x: Tensor, policy: PassPolicy | None = None, *, space: SpaceName = "pixels") -> Parts:
        """Logits, pooled features and the last feature map of one pass."""
        return cast(Parts, self._run(x, policy, space, {"part": "all"}))

    def features(self, x: Tensor, policy: PassPolicy | None = None, *, space: SpaceName = "pixels") -> Tensor:
        """Pooled features (B, D): a pass that leaves out the head."""
        return cast(Tensor, self._run(x, policy, space, {"part": "features"}))

    def head(self, features: Tensor, policy: PassPolicy | None = None) -> Tensor:
        """Logits (B, C) of pooled features (B, D): a pass of the head alone."""
        assert isinstance(self.network, Classifier)
        with torch.set_grad_enabled(self.gradient and torch.is_grad_enabled()):
            return run(self.network.head, features, policy or self.policy, shared_seed=self.shared_seed)

    def _run(self, x: Tensor, policy: PassPolicy | None, space: SpaceName, how: dict[str, Any]) -> Any:
        if space == "input":
            how = {**how, "preprocessed": True}
        with torch.set_grad_enabled(self.gradient and torch.is_grad_enabled()):
            return run(
                self.network,
                x,
                policy or self.policy,
                call=(lambda network, x: network(x, **how)) if how else None,
                shared_seed=self.shared_seed,
            )

    def to_space(self, x: Tensor, space: SpaceName) -> Tensor:
        """Inputs in data space carried to ``space``: themselves, or what the preprocessing layer makes of them."""
        if space == "pixels":
            return x
        assert isinstance(self.network, Classifier)
        with torch.no_grad():
            moved: Tensor = self.network.preprocess(x)
        return moved


@dataclass(frozen=True)
class Step:
    """All that a loss may look at in one training step. Labels of unlabelled data are not part of it.

    Args:
        progress: which step of how many.
        seed: the experiment's seed (of this process's share, if training is distributed).
        x: labelled inputs (B_l, ...), float32, augmented.
        y: their classes, int64 (B_l,).
        student: the network that is trained.
        u: augmented views of the unlabelled inputs, each (B_u, ...); as many as the method needs, strong ones last.
        u_index: rows of the unlabelled inputs in the training part, int64 (B_u,), or None.
        teacher: the averaged network, without gradients, or None.
    """

    progress: Progress
    seed: int
    x: Tensor
    y: Tensor
    student: Model
    u: tuple[Tensor, ...] = ()
    u_index: Tensor | None = None
    teacher: Model | None = None

    def generator(self, purpose: str) -> torch.Generator:
        """The CPU generator of one purpose in this step; asking twice gives the same draws."""
        return generator(self.seed, purpose, self.progress.step)

    @classmethod
    def of(
        cls,
        *,
        progress: Progress,
        seed: int,
        x: Tensor,
        y: Tensor,
        student: nn.Module,
        u: tuple[Tensor, ...] = (),
        u_index: Tensor | None = None,
        teacher: nn.Module | None = None,
        teacher_policy: PassPolicy = TRAIN,
    ) -> Step:
        """Build a step from plain networks."""
        shared = seed_of(seed, "shared masks", progress.step)
        return cls(
            progress=progress,
            seed=seed,
            x=x,
            y=y,
            u=u,
            u_index=u_index,
            student=Model(student, shared_seed=shared),
            teacher=None
            if teacher is None
            else Model(teacher, shared_seed=shared, policy=teacher_policy, gradient=False),
        )
