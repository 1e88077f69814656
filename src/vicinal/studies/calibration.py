"""Calibration: how far confidences can be trusted, before and after temperature scaling."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from vicinal.data import Examples, eval_batches
from vicinal.errors import InputError
from vicinal.evaluation.calibration import BINS, calibration_figures
from vicinal.evaluation.temperature import TemperatureScaling, temperature_scaling
from vicinal.settings import check
from vicinal.studies.base import Study, Subject, plain

_SIZE = 500


@dataclass(frozen=True, kw_only=True)
class Reliability(Study):
    """Figures of calibration and the bars of the reliability diagram, before and after temperature scaling.

    Gives ``n``, ``bins``, ``before`` and ``after`` (`CalibrationFigures` as a mapping), ``temperature`` (`Temperature`
    as a mapping: what was chosen, and what it did to the validation part), ``validation_n`` (examples of the validation
    part) and ``why_not``. Where no temperature could be chosen, ``after`` and ``temperature`` are None and ``why_not``
    says why, in one line. A figure that is no number, of a network that diverged, is None.

    Args:
        n: number of test examples, spread evenly over them; none for all. They pass in batches, and what is held does
            not grow with their number; the logits of the validation part are held.
        bins: number of bins of every binned figure. Only figures with the same bins compare.
    """

    title: ClassVar[str] = "Calibration"

    n: int | None = None
    bins: int = BINS

    def __post_init__(self) -> None:
        if self.n is not None:
            check("n", self.n, low=1)
        check("bins", self.bins, low=1)

    def __call__(self, subject: Subject, seed: int) -> dict[str, Any]:
        """The figures. Nothing is drawn: the seed has no effect."""
        validation = subject.validation
        scaled = self._scaled(subject, validation)
        if isinstance(scaled, str):
            before = calibration_figures(subject.network, subject.stream(self.n, _SIZE), bins=self.bins)
        else:
            before = scaled.before
        return {
            "n": before.n,
            "bins": self.bins,
            "before": plain(asdict(before)),
            "after": None if isinstance(scaled, str) else plain(asdict(scaled.after)),
            "temperature": None if isinstance(scaled, str) else plain(asdict(scaled.temperature)),
            "why_not": scaled if isinstance(scaled, str) else None,
            "validation_n": 0 if validation is None else len(validation),
        }

    def _scaled(self, subject: Subject, validation: Examples | None) -> TemperatureScaling | str:
        """Figures before and after, or why there is no temperature."""
        if validation is None:
            return "there is no validation part to choose a temperature on"
        if subject.part == "validation":
            return "the figures are of the validation part, which cannot be used to choose a temperature as well"
        batches = eval_batches(validation, _SIZE, subject.device)
        try:
            return temperature_scaling(subject.network, batches, subject.stream(self.n, _SIZE), bins=self.bins)
        except InputError as error:
            return str(error)
