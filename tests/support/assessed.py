"""Studies that only look, and tiny experiments, for what tests how studies are made and kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from vicinal.experiment import Experiment
from vicinal.settings import check
from vicinal.studies import Study, Subject


def described(**more: Any) -> Experiment:
    training = {"steps": 4, "batch_labelled": 5, "threads": 1, "device": "cpu", "log_every": 1}
    values = {"data": "two_moons", "split": {"labels": 10}, "recipe": "none", "method": "supervised"}
    return Experiment.of({**values, "training": training, "network": {"name": "mlp", "hidden": [4]}, **more})


@dataclass(frozen=True, kw_only=True)
class Look(Study):
    """Looks at a subject.

    Args:
        n: examples to look at.
    """

    n: int = 3

    title: ClassVar[str] = "A look"
    calls: ClassVar[list[tuple[Subject, int]]] = []

    def __post_init__(self) -> None:
        check("n", self.n, low=1)

    def refusal(self, subject: Subject) -> str | None:
        return "there is nothing to see" if self.n == 99 else None

    def __call__(self, subject: Subject, seed: int) -> dict[str, Any]:
        self.calls.append((subject, seed))
        return {"n": subject.count(self.n), "pictures": {"one": "aGk="}}


@dataclass(frozen=True, kw_only=True)
class Stare(Look):
    """Looks at a subject, and at another network."""

    uses_source: ClassVar[bool] = True
    calls: ClassVar[list[tuple[Subject, int]]] = []


@dataclass(frozen=True, kw_only=True)
class Break(Study):
    """Fails."""

    title: ClassVar[str] = "A failure"

    def __call__(self, subject: Subject, seed: int) -> dict[str, Any]:
        raise RuntimeError("not today")
