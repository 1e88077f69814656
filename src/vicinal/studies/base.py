"""What a study is: settings that, called with a trained network and its data, give plain figures for a report."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from vicinal.data import Dataset, Examples, SplitIndices, eval_batches
from vicinal.errors import InputError
from vicinal.networks import folded

Batches = list[tuple[Tensor, Tensor]]


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

    @functools.cached_property
    def fast(self) -> nn.Module:
        """The network for many passes: equal up to rounding, with normalisation folded into its layers."""
        return folded(self.network)

    @property
    def scale(self) -> float:
        """Unit of radii: 1 for images; for feature vectors the root mean square of their standard deviations.

        Those of the examples, over at most 1000 of them.
        """
        if self.images:
            return 1.0
        x = torch.cat([x for x, _ in self.batches(1000)])
        return float(x.double().var(dim=0, correction=0).mean().sqrt())


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
