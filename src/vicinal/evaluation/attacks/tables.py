"""Errors under attack: of one radius, and of several in one call; and the perturbed inputs themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.evaluation.attacks.losses import Loss, log_odds_against
from vicinal.evaluation.attacks.search import CountName, Perturbed, Scene, SpaceName, attacked
from vicinal.vicinity.projected import NormName

if TYPE_CHECKING:
    from vicinal.evaluation.attacks.algorithms import GradientAttack


@dataclass(frozen=True)
class AttackFigures:
    """What an attack did to a set.

    Args:
        n: number of examples.
        clean_error: share of wrong predictions without the attack, in [0,1].
        error: share of examples that the attack leaves wrong, in [0,1]: those that are wrong as they are or at any
            visited point, or those that are wrong at the last one, see `search`.
    """

    n: int
    clean_error: float
    error: float


@dataclass(frozen=True)
class RobustnessTable:
    """Error by the radius of an attack, with all that is needed to read it.

    Args:
        attack: name of the attack.
        norm: of the balls.
        space: where the perturbation was added; radii are in units of that space.
        box: ``"white"``, or ``"black"`` if the gradients were another network's.
        count: whether any visited point counts, or the last one.
        n: number of examples.
        clean_error: share of wrong predictions on the unperturbed inputs of that space, in [0,1].
        errors: radius to error, in [0,1], in the order that was asked for.
    """

    attack: str
    norm: NormName
    space: SpaceName
    box: Literal["white", "black"]
    count: CountName
    n: int
    clean_error: float
    errors: dict[float, float]


def perturb(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: GradientAttack,
    *,
    seed: int,
    batch: int = 0,
    source: nn.Module | None = None,
    space: SpaceName = "pixels",
    loss: Loss = log_odds_against,
    count: CountName | None = None,
) -> Perturbed:
    """One batch, attacked in eval mode; parameters, ``.grad``, flags and buffers of both networks stay as they were.

    Args:
        network: the target, from inputs in data space to logits (B, C), C >= 2.
        x: inputs (B, ...), in data space whatever ``space`` is.
        y: true classes, int64 (B,).
        attack: such as ``FGM(epsilon=8)``. With radius 0 the inputs come back as they are, to the bit.
        seed: of the random starts.
        batch: number of this batch, part of the random starts.
        source: network whose gradients lead the attack (black box); None for the target's own (white box).
        space: ``"pixels"``, or ``"input"``: what the preprocessing gives, without clipping. See `search`.
        loss: what is made large, one number per example. The sample's own gradient is normalised by every attack here,
            so the log-odds are the cross-entropy without its loss of direction where a prediction is sure.
        count: what counts, see `search`; None for what the attack is usually counted by.

    Raises:
        InputError: an argument is out of range, inputs lie outside of the attack's bounds, or no gradient reaches them.

    >>> import torch
    >>> from vicinal.evaluation.attacks import FGM
    >>> network = nn.Linear(2, 2, bias=False)
    >>> network.weight.data = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    >>> perturb(network, torch.tensor([[0.5, 0.5]]), torch.tensor([0]), FGM(epsilon=0.5), seed=0)
    Perturbed(x=tensor([[0.2000, 0.1000]]), wrong=tensor([False]))
    """
    scene = Scene(network, network if source is None else source, space, loss)
    rule = count or attack.count
    with scene.opened():
        start = scene.start(x, attack.bounds)
        # Where the last point alone counts, nobody asks how the inputs fare as they are.
        unasked = rule == "last" and attack.epsilon > 0
        wrong = torch.zeros_like(y, dtype=torch.bool) if unasked else scene.wrong(start, y)
        return attacked(
            scene,
            attack,
            start,
            y,
            wrong,
            count=rule,
            bounds=attack.bounds,
            seed=seed,
            batch=batch,
        )


def robustness(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    attack: GradientAttack,
    *,
    epsilons: Sequence[float],
    seed: int,
    source: nn.Module | None = None,
    space: SpaceName = "pixels",
    loss: Loss = log_odds_against,
    count: CountName | None = None,
) -> RobustnessTable:
    """Errors under one attack at several radii, over a whole set, a batch at a time.

    The clean pass is shared. Nothing else is: that an input is lost at a small radius is not carried to the larger
    ones, or the table could not show where a larger radius finds less, which is a sign of masked gradients.

    Args:
        network: the target, from inputs in data space to logits (B, C), C >= 2.
        batches: inputs in data space and true classes, int64 (B,); the numbering of batches is part of the random
            starts.
        attack: its own ``epsilon`` is not used. A ``step_size`` of it holds at every radius; None scales with it.
        epsilons: radii, each >= 0, in units of the space.
        seed: of the random starts, which are the same directions at every radius.
        source: see `perturb`.
        space: see `perturb`.
        loss: see `perturb`.
        count: see `perturb`.

    Raises:
        InputError: no radii, no examples, or what `perturb` refuses.

    >>> import torch
    >>> from vicinal.evaluation.attacks import FGSM
    >>> network, batch = nn.Linear(1, 2, bias=False), (torch.tensor([[0.1], [0.5]]), torch.tensor([1, 1]))
    >>> network.weight.data = torch.tensor([[-1.0], [1.0]])
    >>> robustness(network, [batch], FGSM(epsilon=0, bounds=None), epsilons=(0, 0.2, 1), seed=0).errors
    {0: 0.0, 0.2: 0.5, 1: 1.0}
    """
    if not len(epsilons):
        raise InputError("epsilons: there are none; give at least one radius")
    attacks = [replace(attack, epsilon=epsilon) for epsilon in epsilons]
    scene = Scene(network, network if source is None else source, space, loss)
    rule = count or attack.count
    n, clean, lost = 0, 0, [0] * len(attacks)
    with scene.opened():
        for index, (x, y) in enumerate(batches):
            x = scene.start(x, attack.bounds)
            wrong = scene.wrong(x, y)
            n, clean = n + len(y), clean + int(wrong.sum())
            for place, one in enumerate(attacks):
                found = attacked(scene, one, x, y, wrong, count=rule, bounds=attack.bounds, seed=seed, batch=index)
                lost[place] += int(found.wrong.sum())
    if not n:
        raise InputError("attack: there are no examples to attack; give at least one batch")
    return RobustnessTable(
        attack=type(attack).__name__,
        norm=attack.norm,
        space=space,
        box="white" if scene.source is network else "black",
        count=rule,
        n=n,
        clean_error=clean / n,
        errors={epsilon: count / n for epsilon, count in zip(epsilons, lost, strict=True)},
    )
