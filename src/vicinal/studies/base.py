"""What a study is: settings that, called with a trained network and its data, give plain figures for a report."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from vicinal.data import Dataset, Examples, SplitIndices, eval_batches
from vicinal.errors import InputError
from vicinal.networks import EVAL, applied, folded

Batches = list[tuple[Tensor, Tensor]]

_PROBED, _LOOSE = 8, 1e-2
"""How many examples a faster copy is checked on, and how far its logits may be off there, as a share of the largest:
more than rounding makes, also with TF32, and less than another function would."""


class Again:
    """Batches that are made anew each time that they are iterated over, so that no more than one of them is held.

    Args:
        start: gives the batches from the first on.
    """

    def __init__(self, start: Callable[[], Iterator[tuple[Tensor, Tensor]]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._start()


@dataclass(frozen=True)
class Subject:
    """A trained classifier and the data that it is measured on.

    Args:
        network: in eval mode, from data space to logits (B, C).
        dataset: its data. The test part is measured; where there is none, the validation part.
        split: which training rows were labelled, unlabelled, and kept for validation.
        device: where to measure.
        preprocess: name of the preprocessing inside of the network, or None.
        source: another network on the same data, whose gradients lead black-box attacks, or None.
        source_name: what to call it.
        source_preprocess: name of the preprocessing inside of the source, or None.

    Raises:
        InputError: there is neither a test nor a validation part.
    """

    network: nn.Module
    dataset: Dataset
    split: SplitIndices
    device: torch.device | str = "cpu"
    preprocess: str | None = None
    source: nn.Module | None = None
    source_name: str | None = None
    source_preprocess: str | None = None

    def __post_init__(self) -> None:
        if self.dataset.test is None and self.validation is None:
            raise InputError(f"{self.dataset.name}: there is no test and no validation part to measure on; add one")

    @property
    def part(self) -> Literal["test", "validation"]:
        """The part that figures are of."""
        return "validation" if self.dataset.test is None else "test"

    @property
    def examples(self) -> Examples:
        """The examples that figures are of."""
        return cast(Examples, self.validation if self.dataset.test is None else self.dataset.test)

    @functools.cached_property
    def validation(self) -> Examples | None:
        """What was kept of the training part, or published, for choosing settings."""
        return self.split.validation_examples(self.dataset)

    @property
    def images(self) -> bool:
        """Whether inputs are images, with values in [0,1], rather than feature vectors."""
        return self.dataset.is_images

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Smallest and largest value of an input; None for feature vectors."""
        return (0.0, 1.0) if self.images else None

    def count(self, n: int | None = None) -> int:
        """How many examples a study of at most ``n`` runs over; None for all."""
        return len(self.examples) if n is None else min(n, len(self.examples))

    def stream(self, n: int | None = None, size: int = 200) -> Iterator[tuple[Tensor, Tensor]]:
        """At most ``n`` of the `examples`, evenly spread (None: all), made when they are asked for.

        Yields:
            Inputs, float32, and classes, int64, on the device.
        """
        yield from eval_batches(self.examples.spread(n), size, self.device)

    def batches(self, n: int | None = None, size: int = 200) -> Batches:
        """What `stream` yields, all at once."""
        return list(self.stream(n, size))

    def again(self, n: int | None = None, size: int = 200) -> Again:
        """What `stream` yields, for several passes: what is held does not grow with the number of examples."""
        return Again(lambda: self.stream(n, size))

    @functools.cached_property
    def fast(self) -> nn.Module:
        """The network for many passes, see `faster`."""
        return self.faster(self.network)

    def faster(self, network: nn.Module) -> nn.Module:
        """A copy for many passes, equal up to rounding, with normalisation folded into its layers.

        Where the copy cannot be made, or is another function on a few of the examples, it is the network itself.

        Args:
            network: from inputs like the subject's to logits (B, C).
        """
        ((x, _),) = self.batches(_PROBED)
        with torch.no_grad(), applied(network, EVAL):
            logits = network(x)
        try:
            with torch.no_grad():
                made = folded(network)
                found = made(x)
        except Exception:  # whatever folding did to somebody else's network, it works as it is
            return network
        # Where the network diverged, so did the copy.
        slack = _LOOSE * float(logits.nan_to_num(0, 0, 0).abs().max())
        same = found.shape == logits.shape and torch.allclose(found, logits, rtol=0, atol=slack, equal_nan=True)
        return made if same else network

    @property
    def scale(self) -> float:
        """Unit of radii: 1 for images; for feature vectors the root mean square of their standard deviations.

        Those of the examples, over at most 1000 of them.
        """
        if self.images:
            return 1.0
        x = torch.cat([x for x, _ in self.batches(1000)])
        return float(x.double().var(dim=0, correction=0).mean().sqrt())

    def no_unit(self, give: str) -> str | None:
        """Why there is no unit for radii, in one line; None if there is one.

        Args:
            give: the settings that take the place of radii in this unit, such as ``"epsilon"``.
        """
        return None if self.scale else f"the features do not vary, so that there is no unit for radii; give {give}"


@dataclass(frozen=True, kw_only=True)
class Study(ABC):
    """Settings of one study. Called with a subject and a seed it gives figures as plain values, ready for JSON.

    In what it gives, shares are in [0,1]; numbers are finite, and None where there is none; pictures stand under
    ``"pictures"``, by name, as PNG in base64.
    """

    title: ClassVar[str]
    """Heading of its section in a report."""

    uses_source: ClassVar[bool] = False
    """Whether figures depend on another network, the source of black-box attacks."""

    def refusal(self, subject: Subject) -> str | None:
        """Why it does not apply to this subject, in one line; None if it does."""
        return None

    @abstractmethod
    def __call__(self, subject: Subject, seed: int) -> dict[str, Any]:
        """The figures."""


def plain(value: Any) -> Any:
    """A value for JSON: tuples as lists, and None for numbers that are not finite.

    >>> plain({"errors": (0.5, math.nan), "n": 2})
    {'errors': [0.5, None], 'n': 2}
    """
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
