"""Is a figure under attack robustness, or an attack that failed? Signs of masked gradients, with their numbers.

No flag proves anything: a network may pass them all and fall to another attack. One that does not hold says that the
figure beside it is too good to be believed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.evaluation.attacks.algorithms import FGM, FGSM, PGD, GradientAttack
from vicinal.evaluation.attacks.losses import Loss, log_odds_against
from vicinal.evaluation.attacks.search import Bounds, Scene, SpaceName, attacked
from vicinal.settings import check
from vicinal.vicinity.projected import NormName, check_bounds

_ROUNDING = 1e-9
"""Far below a share of one example: 1 - 0.99 is greater than 0.01 in floats."""


@dataclass(frozen=True)
class Flag:
    """One thing that holds where an attack works.

    Args:
        name: of the check.
        claim: what should hold of the two numbers, in words.
        first: a share of the examples, in [0,1].
        second: another one.
        holds: whether it does, up to the slack that was allowed.
        n: number of examples that the shares are of.
    """

    name: str
    claim: str
    first: float
    second: float
    holds: bool
    n: int

    def __str__(self) -> str:
        return f"{self.name}: {self.claim}: {self.first:.4f}, {self.second:.4f}: {'yes' if self.holds else 'NO'}"


@dataclass(frozen=True)
class Sanity:
    """All flags of one network, set and radius.

    Args:
        n: number of examples.
        clean_error: share of wrong predictions without an attack, in [0,1].
        flags: the checks.
    """

    n: int
    clean_error: float
    flags: tuple[Flag, ...]

    @property
    def holds(self) -> bool:
        """Whether every flag holds."""
        return all(flag.holds for flag in self.flags)

    @property
    def verdict(self) -> str:
        """One line to print beside the figures."""
        failed = [flag.name for flag in self.flags if not flag.holds]
        return f"gradient masking suspected: {', '.join(failed)}" if failed else "no sign of gradient masking"


def sanity(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    norm: NormName,
    epsilon: float,
    seed: int,
    steps: tuple[int, int] = (20, 100),
    source: nn.Module | None = None,
    space: SpaceName = "pixels",
    bounds: Bounds = (0.0, 1.0),
    large: float | None = None,
    loss: Loss = log_odds_against,
    slack: float = 0.005,
    floor: float = 0.01,
) -> Sanity:
    """Check that attacks on a network behave as attacks that work do; nothing of the networks changes.

    * *more steps*: PGD with the larger number of steps finds at least the error of the smaller.
    * *larger radius*: PGD at twice the radius finds at least the error at the radius.
    * *many steps or one*: PGD finds at least the error of the single step of the norm, FGSM or FGM.
    * *everything falls*: at the radius ``large`` no accuracy is left.
    * *transfer*: gradients of another network find at most the error that the network's own do (if there is one).
    * *gradients*: at the inputs, hardly any gradient is exactly zero or not finite.

    The two numbers of a flag are errors, except in *everything falls* (accuracy at the large radius, and how much may
    be left) and *gradients* (the shares that are zero, and not finite). The clean passes are shared by all checks.

    Args:
        network: from inputs in data space to logits (B, C), C >= 2.
        batches: inputs and true classes, int64 (B,).
        norm: of the balls.
        epsilon: radius, > 0, in units of the space.
        seed: of the random starts.
        steps: a smaller and a larger number.
        source: another network, for *transfer*.
        space: see `perturb`.
        bounds: of the data, or None.
        large: radius at which nothing may stand; None for one from which every image can be reached, where the data
            are attacked in pixels and have bounds.
        loss: what is made large. With the cross-entropy of a sure network, *gradients* will not hold.
        slack: share of examples by which an order may be broken, as random starts differ. Our choice.
        floor: accuracy that may be left at the large radius. Our choice.

    Raises:
        InputError: an argument is out of range, there are no examples, or what `perturb` refuses.
    """
    check("epsilon", epsilon, above=0)
    check_bounds(bounds)
    few, many = steps
    if not 1 <= few < many:
        raise InputError(f"steps: expected a smaller and a larger number of at least 1, got {steps}")
    if large is None and (bounds is None or space == "input"):
        raise InputError("large: there are no bounds to take it from; give the radius at which nothing may stand")

    def pgd(radius: float, count: int = few) -> PGD:
        return PGD(norm=norm, epsilon=radius, steps=count, bounds=bounds)

    one = FGSM(epsilon=epsilon, bounds=bounds) if norm == "linf" else FGM(epsilon=epsilon, bounds=bounds)
    white = Scene(network, network, space, loss)
    jobs: dict[str, tuple[Scene, GradientAttack]] = {
        "few": (white, pgd(epsilon)),
        "many": (white, pgd(epsilon, many)),
        "twice": (white, pgd(2 * epsilon)),
        "one": (white, one),
    }
    if source is not None:
        jobs["transfer"] = (Scene(network, source, space, loss), pgd(epsilon))
    n, clean, zero, broken, lost = 0, 0, 0, 0, dict.fromkeys([*jobs, "large"], 0)
    with ExitStack() as stack:
        for scene in {scene for scene, _ in jobs.values()}:
            stack.enter_context(scene.opened())
        for index, (x, y) in enumerate(batches):
            if "large" not in jobs:
                jobs["large"] = (white, pgd(_reach(x, norm, bounds) if large is None else large))
            starts = {scene: scene.start(x, bounds) for scene, _ in jobs.values()}
            wrong = {scene: scene.wrong(start, y) for scene, start in starts.items()}
            for name, (scene, attack) in jobs.items():
                start, count = starts[scene], attack.count
                found = attacked(
                    scene, attack, start, y, wrong[scene], count=count, bounds=bounds, seed=seed, batch=index
                )
                lost[name] += int(found.wrong.sum())
            rows = {"y": y, "point": starts[white]}
            white.look(rows, gradient=True, value=True, judge=False)
            gradients = rows["gradient"].flatten(1)
            zero += int((gradients == 0).all(dim=1).sum())
            broken += int((~torch.isfinite(gradients)).any(dim=1).sum())
            n, clean = n + len(y), clean + int(wrong[white].sum())
    if not n:
        raise InputError("sanity: there are no examples to attack; give at least one batch")
    error = {name: count / n for name, count in lost.items()}
    single = type(one).__name__

    def ordered(name: str, claim: str, low: str, high: str) -> Flag:
        return Flag(name, claim, error[low], error[high], error[low] <= error[high] + slack + _ROUNDING, n)

    flags = [
        ordered("more steps", f"error after {few} steps <= after {many}", "few", "many"),
        ordered("larger radius", f"error at {radius_text(epsilon)} <= at {radius_text(2 * epsilon)}", "few", "twice"),
        ordered("many steps or one", f"error of {single} <= of PGD", "one", "few"),
        Flag(
            "everything falls",
            f"accuracy at radius {radius_text(jobs['large'][1].epsilon)} is at most {100 * floor:g} %",
            1 - error["large"],
            floor,
            1 - error["large"] <= floor + _ROUNDING,
            n,
        ),
    ]
    if source is not None:
        flags.append(ordered("transfer", "error by another network's gradients <= by its own", "transfer", "few"))
    flags.append(
        Flag(
            "gradients",
            f"shares that are zero and not finite, together <= {slack:g}",
            zero / n,
            broken / n,
            zero + broken <= slack * n + _ROUNDING,
            n,
        )
    )
    return Sanity(n, clean / n, tuple(flags))


def radius_text(epsilon: float) -> str:
    """A radius in words: in steps of 8-bit images where it is a whole number of them and no short decimal.

    >>> radius_text(16 / 255), radius_text(0.2), radius_text(0.125), radius_text(1.0)
    ('16/255', '0.2', '0.125', '1')
    """
    steps = 255 * epsilon
    whole = abs(steps - round(steps)) < 1e-4 and abs(epsilon - round(epsilon, 2)) > 1e-9
    return f"{round(steps)}/255" if whole else f"{epsilon:.4g}"


def _reach(x: Tensor, norm: NormName, bounds: Bounds) -> float:
    """A radius within which every image lies around every other."""
    low, high = bounds or (0.0, 1.0)
    return (high - low) * (1.0 if norm == "linf" else math.sqrt(x.shape[1:].numel()))
