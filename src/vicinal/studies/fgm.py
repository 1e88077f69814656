"""The robustness tables of AdvMixup: one step of the fast gradient method in the network's preprocessed input."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import nn

from vicinal.evaluation.attacks import FGM, RobustnessTable, SpaceName, robustness
from vicinal.networks import EVAL, Classifier, PreprocessName, applied
from vicinal.settings import check
from vicinal.studies.base import Study, Subject
from vicinal.studies.robustness import check_radii, rounded
from vicinal.studies.sources import black_box


@dataclass(frozen=True)
class PublishedTable:
    """One data set's part of the published table.

    Args:
        shape: of its images, (C, H, W).
        preprocess: names of the preprocessings in whose output these radii mean what they meant there.
        epsilons: radii in L2.
        white: error in per cent as printed, by method and radius, under the network's own gradients.
        black: the same under another network's.
        provenance: where the numbers are from.
    """

    shape: tuple[int, ...]
    preprocess: tuple[PreprocessName, ...]
    epsilons: tuple[float, ...]
    white: Mapping[str, tuple[float, ...]]
    black: Mapping[str, tuple[float, ...]]
    provenance: str = "slides of the paper"


PUBLISHED: dict[str, PublishedTable] = {
    "cifar10": PublishedTable(
        shape=(3, 32, 32),
        # The paper's ZCA is that of ICT. That of VAT gives the same lengths: both whiten exactly, and the length of a
        # whitened vector does not depend on how it is scaled before. The others shrink directions of little variance.
        preprocess=("zca_ict", "zca_vat"),
        epsilons=(1.0, 2.0, 3.0, 5.0, 8.0),
        white={
            "Supervised": (58.50, 77.73, 86.73, 94.2, 96.91),
            "ICT": (24.77, 43.28, 56.24, 69.42, 78.38),
            "AdvMixup": (17.40, 30.91, 42.52, 58.59, 70.82),
        },
        black={
            "Supervised": (29.25, 39.38, 48.83, 63.06, 75.75),
            "ICT": (9.78, 12.68, 16.03, 24.85, 37.83),
            "AdvMixup": (8.62, 10.17, 12.34, 17.34, 25.77),
        },
    ),
    "svhn": PublishedTable(
        shape=(3, 32, 32),
        preprocess=("minus_one_to_one",),
        epsilons=(0.1, 0.5, 1.0, 2.0, 3.0),
        white={
            "Supervised": (19.81, 51.71, 69.94, 82.28, 86.46),
            "ICT": (7.72, 28.57, 41.87, 52.35, 58.00),
            "AdvMixup": (5.11, 14.59, 24.39, 37.84, 47.63),
        },
        black={
            "Supervised": (14.37, 24.76, 36.92, 52.91, 62.05),
            "ICT": (4.19, 8.17, 15.59, 30.43, 41.29),
            "AdvMixup": (3.47, 6.62, 12.31, 24.92, 35.39),
        },
    ),
}
"""The published robustness table by data set, for printing beside what is measured; no figure here is computed from it.

The number of labels, the source of the black box and the weights that were attacked are not stated. That the attack was
FGM in L2 in the preprocessed input, CIFAR-10 whitened and SVHN in [-1,1], is our reading of the official code.
"""

_VALUES = 3072
"""Values of the images that the published radii are for."""


@dataclass(frozen=True, kw_only=True)
class SingleStep(Study):
    """Error after one step x + epsilon g / ||g||_2 in the preprocessed input, white box and black box, as AdvMixup's.

    All examples are perturbed, nothing is clipped, and the error is that of the perturbed inputs. g is the gradient of
    the log-odds against the true class, which has the direction of the cross-entropy's. The black box is as published:
    the *source* preprocesses and gives the gradient, and the result is fed straight into the target.

    A network that is no `Classifier` has no preprocessed input to attack: then the space is ``"pixels"``.

    One step is not robustness: read it beside the many steps of `Robustness`.

    Args:
        n: how many examples, >= 1; None for all, as published.
        epsilons: radii in L2 in units of that space, growing. By default the published ones for CIFAR-10 and SVHN, if
            the network preprocesses as published. Else our choice: c sqrt(d / 3072) times 1, 2, 3, 5 and 8 for inputs
            of d values, rounded to two digits. c is 1 where preprocessing standardises or whitens, as for CIFAR-10; 3/8
            for images in [-1,1], so that the largest is SVHN's; half of that for images in [0,1]; and the features'
            spread for vectors that are left as they are.

    Raises:
        InputError: a setting is out of range.
    """

    title: ClassVar[str] = "One step in the preprocessed input"
    uses_source: ClassVar[bool] = True

    n: int | None = None
    epsilons: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.n is not None:
            check("n", self.n, low=1)
        if self.epsilons is not None:
            check_radii("epsilons", self.epsilons)

    def radii(self, subject: Subject) -> tuple[tuple[float, ...], bool]:
        """The radii, and whether they are the published ones of this data set, in the space that they were meant in."""
        table = _table(subject) if _space(subject) == "input" else None
        if self.epsilons is not None:
            given = tuple(float(epsilon) for epsilon in self.epsilons)
            return given, table is not None and given == table.epsilons
        if table is not None:
            return table.epsilons, True
        unit = _unit(subject) * math.sqrt(math.prod(subject.dataset.shape) / _VALUES)
        return tuple(rounded(unit * multiple) for multiple in (1, 2, 3, 5, 8)), False

    def refusal(self, subject: Subject) -> str | None:
        """Features that do not vary are refused where radii would be in units of their spread."""
        return subject.no_unit("epsilons") if self.epsilons is None and not any(self.radii(subject)[0]) else None

    def __call__(self, subject: Subject, seed: int) -> dict[str, Any]:
        """Errors by radius.

        Returns:
            ``n``; ``space``, ``"input"`` or ``"pixels"``; ``preprocess``, the name of the network's preprocessing, or
            None in pixels; ``epsilons``; ``published``, see `radii`; ``published_table``, the paper's numbers
            if they are for these data, shares in [0,1], or None; ``white``, an error for each radius; ``black``, the
            same or None; ``source``, the name of the black box's network or None; ``source_preprocess``, the name of
            its preprocessing, or None in pixels; ``why_not``, why there is no black box, or None; ``note``, that the
            source preprocesses in another way than the target, or None; and ``clean_error``. With such a source, a
            black box of radius 0 is not the clean error, and black does not compare with white.
        """
        space = _space(subject)
        epsilons, published = self.radii(subject)
        attack = FGM(epsilon=0, bounds=None)
        source, why_not = black_box(subject, space)

        def under(gradients: nn.Module | None) -> RobustnessTable:
            examples = subject.stream(self.n)  # a batch at a time, as these are all examples
            return robustness(
                subject.fast, examples, attack, epsilons=epsilons, seed=seed, space=space, source=gradients
            )

        white = under(None)
        return {
            "n": white.n,
            "space": space,
            "preprocess": subject.preprocess if space == "input" else None,
            "epsilons": list(epsilons),
            "published": published,
            "published_table": _plain(table) if (table := _table(subject)) and published else None,
            "white": list(white.errors.values()),
            "black": None if source is None else list(under(subject.faster(source)).errors.values()),
            "source": None if source is None else subject.source_name or "another network",
            "source_preprocess": None if source is None or space == "pixels" else subject.source_preprocess,
            "why_not": why_not,
            "note": None if source is None or space == "pixels" else _note(subject),
            "clean_error": white.clean_error,
        }


def _space(subject: Subject) -> SpaceName:
    return "input" if isinstance(subject.network, Classifier) else "pixels"


@torch.no_grad()
def _note(subject: Subject) -> str | None:
    """That the source preprocesses in another way, told by what both make of a few examples; None if it does not."""
    network, source = cast(Classifier, subject.network), cast(Classifier, subject.source)
    ((x, _),) = subject.batches(20)
    with applied(network, EVAL), applied(source, EVAL):
        own, others = network.preprocess(x), source.preprocess(x)
    if own.shape == others.shape and torch.allclose(own, others, rtol=1e-3, atol=1e-3 * float(own.abs().max())):
        return None
    names = [name or "unnamed" for name in (subject.source_preprocess, subject.preprocess)]
    return (
        f"the other network preprocesses in another way ({names[0]}) than this one ({names[1]}): errors in "
        "the black box are not comparable with those in the white box"
    )


def _table(subject: Subject) -> PublishedTable | None:
    """The published table for these data in this preprocessing, if there is one."""
    for name, table in PUBLISHED.items():
        named = re.match(rf"{name}(?!\d)", subject.dataset.name)  # CIFAR-100 is another data set
        if named and subject.dataset.shape == table.shape and subject.preprocess in table.preprocess:
            return table
    return None


def _plain(table: PublishedTable) -> dict[str, Any]:
    def shares(rows: Mapping[str, tuple[float, ...]]) -> dict[str, list[float]]:
        return {name: [round(error / 100, 6) for error in errors] for name, errors in rows.items()}

    return {
        "epsilons": list(table.epsilons),
        "white": shares(table.white),
        "black": shares(table.black),
        "provenance": table.provenance,
    }


def _unit(subject: Subject) -> float:
    """c: about how far the values of an input are spread in the space of the attack."""
    name = None if _space(subject) == "pixels" else subject.preprocess
    if name not in (None, "none", "minus_one_to_one"):
        return 1.0
    spread = 3 / 16 if subject.images else subject.scale
    return 2 * spread if name == "minus_one_to_one" else spread
