"""Error under attack as the radius grows, after one step and after many, with signs of attacks that failed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, get_args

import torch

from vicinal.errors import InputError
from vicinal.evaluation.attacks import (
    APGD,
    FGM,
    FGSM,
    PGD,
    Flag,
    GradientAttack,
    RobustnessTable,
    Sanity,
    radius_text,
    robustness,
    sanity,
)
from vicinal.settings import check
from vicinal.studies.base import Batches, Study, Subject
from vicinal.studies.sources import black_box
from vicinal.vicinity.projected import NormName

LINF = tuple(k / 255 for k in (0, 1, 2, 4, 8, 16, 32, 64))
"""Radii for images in Linf: ordinary networks fall between 1/255 and 8/255 on photos, 16/255 and 64/255 on digits."""
L2 = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Radii for images in L2."""
MULTIPLES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2)
"""Radii for feature vectors, in units of their spread."""


@dataclass(frozen=True, kw_only=True)
class Robustness(Study):
    """Error by the radius of attacks in pixels, with white boxes of one step and of many, and a black box.

    For each norm: the single step (FGSM, FGM), which alone says little; PGD with random starts; if asked for, Auto-PGD;
    and PGD along another network's gradients, if there is one. That black box is plain PGD with the white box's starts
    and steps, so that both curves differ by their gradients alone. Momentum, which is meant to transfer better, did so
    neither in L2 nor clearly in Linf on small networks for digits (our choice).

    Beside each norm stand the flags of `sanity` at one radius. Three of them are read off the curves instead, at all
    radii: that a larger radius never helps, that PGD finds what the single step finds, and that another network's
    gradients find no more than its own. Such a flag has the numbers that break the order most, and where none do, those
    nearest to the one radius. For data without bounds *everything falls* is tested at a radius within which every
    example lies around every other; from far outside of the data, no direction may lead to a class, such as the inner
    one of two circles.

    Args:
        n: how many examples, >= 1; None for all.
        linf: radii in Linf, growing; by default 0 and 1/255 to 64/255 for images, and multiples of the features' spread
            for vectors, rounded to two digits.
        l2: radii in L2, growing; by default 0 and 0.125 to 4 for images, and for vectors as in Linf, times the root of
            the number of features.
        steps: gradient steps of PGD and Auto-PGD, >= 1.
        restarts: attempts of theirs, >= 1; an example is lost if one of them finds an error. By default 1 for images
            and 3 for vectors: in few dimensions a random start often lies on the far side of the ball, and is stuck.
        apgd: whether to run Auto-PGD too.
        sanity_n: how many examples the flags of `sanity` are for, >= 1. It takes five times as many steps.
        sanity_linf: their radius in Linf, > 0; by default the one of the curve at which PGD's error is nearest to the
            middle between the clean error and 1, as flags say little where everything stands or everything has fallen.
        sanity_l2: their radius in L2, > 0; by default as in Linf.
        slack: share of examples by which an order may be broken, >= 0. Our choice: in L2, PGD from a random start ends
            some 2 % of the radius behind the single step where a network is linear.

    Raises:
        InputError: a setting is out of range.
    """

    title: ClassVar[str] = "Robustness"
    uses_source: ClassVar[bool] = True

    n: int | None = 200
    linf: Sequence[float] | None = None
    l2: Sequence[float] | None = None
    steps: int = 20
    restarts: int | None = None
    apgd: bool = False
    sanity_n: int = 100
    sanity_linf: float | None = None
    sanity_l2: float | None = None
    slack: float = 0.02

    def __post_init__(self) -> None:
        for name, low in (("n", 1), ("steps", 1), ("restarts", 1), ("sanity_n", 1), ("slack", 0)):
            if getattr(self, name) is not None:
                check(name, getattr(self, name), low=low)
        for name in ("sanity_linf", "sanity_l2"):
            if getattr(self, name) is not None:
                check(name, getattr(self, name), above=0)
        for name in get_args(NormName):
            if getattr(self, name) is not None:
                check_radii(name, getattr(self, name))

    def radii(self, subject: Subject, norm: NormName) -> tuple[float, ...]:
        """The radii of a norm's curves: the same for all networks on the same data."""
        given = getattr(self, norm)
        if given is not None:
            return tuple(float(epsilon) for epsilon in given)
        if subject.images:
            return LINF if norm == "linf" else L2
        unit = subject.scale * (1.0 if norm == "linf" else math.sqrt(math.prod(subject.dataset.shape)))
        return tuple(rounded(multiple * unit) for multiple in MULTIPLES)

    def refusal(self, subject: Subject) -> str | None:
        """Features that do not vary are refused where radii would be in units of their spread."""
        return subject.no_unit("linf and l2") if self.linf is None or self.l2 is None else None

    def __call__(self, subject: Subject, seed: int) -> dict[str, Any]:
        """Curves and flags.

        Returns:
            ``n``; ``clean_error``; ``curves``, each a mapping with ``attack``, ``norm``, ``steps``, ``restarts``,
            ``box``, ``space``, ``count``, ``epsilons`` and ``errors``; ``source``, the name of the black box's network
            or None; ``why_not``, why there is no black box, or None; and ``sanity``, one mapping for each norm with
            ``norm``, ``epsilon``, ``n`` (of the flags of `sanity`), ``verdict``, ``holds`` and ``flags``, each a `Flag`
            as a mapping, with the number of examples that it is of.

        Raises:
            InputError: it does not apply to this subject, see `refusal`.
        """
        if (reason := self.refusal(subject)) is not None:
            raise InputError(f"robustness: {reason}")
        batches = subject.again(self.n)
        source, why_not = black_box(subject)
        leading = None if source is None else subject.faster(source)
        curves, flags, clean = [], [], 0.0
        for norm in get_args(NormName):
            tables: dict[str, RobustnessTable] = {}
            for key, attack in self._attacks(subject, norm).items():
                for box in ("white", "black") if key == "many" and leading is not None else ("white",):
                    found = robustness(
                        subject.fast,
                        batches,
                        attack,
                        epsilons=self.radii(subject, norm),
                        seed=seed,
                        source=leading if box == "black" else None,
                    )
                    tables[key if box == "white" else "transfer"] = found
                    curves.append(_curve(found, attack, box))
            clean = tables["many"].clean_error
            flags.append(self._flags(subject, norm, tables, seed))
        return {
            "n": subject.count(self.n),
            "clean_error": clean,
            "curves": curves,
            "source": None if source is None else subject.source_name or "another network",
            "why_not": why_not,
            "sanity": flags,
        }

    def _attacks(self, subject: Subject, norm: NormName) -> dict[str, GradientAttack]:
        """The attacks of a norm; their radius is a placeholder."""
        bounds, restarts = subject.bounds, self.restarts or (1 if subject.images else 3)
        single = FGSM(epsilon=0, bounds=bounds) if norm == "linf" else FGM(epsilon=0, bounds=bounds)
        many = PGD(norm=norm, epsilon=0, steps=self.steps, restarts=restarts, bounds=bounds)
        if not self.apgd:
            return {"single": single, "many": many}
        adapted = APGD(norm=norm, epsilon=0, steps=self.steps, restarts=restarts, bounds=bounds)
        return {"single": single, "many": many, "adapted": adapted}

    def _flags(self, subject: Subject, norm: NormName, tables: dict[str, RobustnessTable], seed: int) -> dict[str, Any]:
        """All flags of a norm."""
        many = tables["many"]
        epsilon = self.sanity_linf if norm == "linf" else self.sanity_l2
        if epsilon is None:
            middle = (many.clean_error + 1) / 2
            epsilon = min((radius for radius in many.errors if radius), key=lambda r: abs(many.errors[r] - middle))
        batches = subject.batches(self.sanity_n)
        # Without the source: the curves say what transfers.
        found = sanity(
            subject.fast,
            batches,
            norm=norm,
            epsilon=epsilon,
            seed=seed,
            steps=(self.steps, 5 * self.steps),
            bounds=subject.bounds,
            large=None if subject.bounds else max(_reach(batches, norm), 2 * epsilon),
            slack=self.slack,
        )
        # What the curves say is of more examples, radii and restarts.
        named = {flag.name: [flag] for flag in found.flags} | self._read_off(tables, epsilon)
        # The first where all hold: that at the nearest radius.
        worst = tuple(
            max(same, key=lambda flag: not flag.holds and flag.first - flag.second) for same in named.values()
        )
        verdict = Sanity(found.n, found.clean_error, worst)
        return {
            "norm": norm,
            "epsilon": epsilon,
            "n": verdict.n,
            "verdict": verdict.verdict,
            "holds": verdict.holds,
            "flags": [dataclasses.asdict(flag) for flag in verdict.flags],
        }

    def _read_off(self, tables: dict[str, RobustnessTable], epsilon: float) -> dict[str, list[Flag]]:
        """What the curves say at each radius, those nearest to ``epsilon`` first, under the names of `sanity`."""
        many, one = tables["many"], tables["single"]
        flags: dict[str, list[Flag]] = {}

        def ordered(name: str, claim: str, low: float, high: float) -> None:
            # Shares of n are not exact in floats: a break as large as the slack is allowed.
            flag = Flag(name, claim, low, high, low - high <= self.slack + 1e-9, many.n)
            flags.setdefault(name, []).append(flag)

        radii = [radius for radius in many.errors if radius]  # at 0 there is nothing to compare
        for a, b in sorted(pairwise(radii), key=lambda pair: abs(pair[0] - epsilon)):
            ordered(
                "larger radius", f"error at {radius_text(a)} <= at {radius_text(b)}", many.errors[a], many.errors[b]
            )
        for radius in sorted(radii, key=lambda radius: abs(radius - epsilon)):
            claim = f"error of {one.attack} <= of PGD at {radius_text(radius)}"
            ordered("many steps or one", claim, one.errors[radius], many.errors[radius])
            if "transfer" in tables:
                claim = f"error by another network's gradients <= by its own at {radius_text(radius)}"
                ordered("transfer", claim, tables["transfer"].errors[radius], many.errors[radius])
        return flags


def check_radii(name: str, radii: Sequence[float]) -> None:
    """Check that radii are finite numbers that grow from 0 or more.

    Raises:
        InputError: they do not, or none of them is greater than 0.
    """
    grows = all(low < high for low, high in pairwise(radii))
    if not (len(radii) and grows and radii[0] >= 0 and 0 < radii[-1] < math.inf):
        raise InputError(f"{name}: expected radii that grow from 0 or more, such as [0, 0.5, 1], got {list(radii)}")


def rounded(value: float) -> float:
    """To two digits, so that what is measured on the data does not decide which radii runs are compared at.

    >>> rounded(0.1443), rounded(12.7)
    (0.14, 13.0)
    """
    return float(f"{value:.2g}")


def _curve(table: RobustnessTable, attack: GradientAttack, box: str) -> dict[str, Any]:
    """A table as plain values."""
    return {
        "attack": table.attack if isinstance(attack, FGM) else f"{table.attack}-{attack.steps}",
        "norm": table.norm,
        "steps": attack.steps,
        "restarts": attack.restarts,
        "box": box,
        "space": table.space,
        "count": table.count,
        "epsilons": list(table.errors),
        "errors": list(table.errors.values()),
    }


def _reach(batches: Batches, norm: NormName) -> float:
    """A radius within which every example lies around every other."""
    x = torch.cat([x.flatten(1) for x, _ in batches]).double()
    ranges = x.amax(dim=0) - x.amin(dim=0)
    return float(ranges.max() if norm == "linf" else ranges.norm())
