"""Error on corrupted images: made here with a seed, or read from published files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vicinal.data import Examples, Subset, eval_batches, read_corrupted
from vicinal.errors import InputError, MissingExtraError
from vicinal.evaluation.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, corrupt
from vicinal.evaluation.figures import figures
from vicinal.evaluation.measures import CorruptionFigures, Corruptions
from vicinal.settings import check
from vicinal.studies.base import Again, Study, Subject

_SIZE = 200


@dataclass(frozen=True, kw_only=True)
class CorruptionErrors(Study):
    """Share of wrong predictions under each kind of corruption and at each severity, not normalised by any network.

    Gives ``n``, ``origin`` (where the corrupted images are from), ``kinds`` and ``extra`` (those that were measured),
    ``severities``, ``errors`` (kind to a list, one for each severity), ``mean`` (over ``kinds`` and severities) and
    ``mean_extra`` (over ``extra``, None if there are none), ``clean_error`` (of the same ``n`` examples as they are),
    ``notes``, a line each about what was left out and what could not be checked, and ``incomplete``, whether anything
    was left out. Kinds that need a package that is not installed are left out, and so are those that the published
    files lack: never without such a line, and measured again they may be there.

    Args:
        n: number of test examples, spread evenly over them; none for all.
        kinds: kinds of corruption that count in the mean; all 15 of the benchmark by default.
        extra: whether the benchmark's 4 further kinds are measured too, with a mean of their own.
        severities: from 1 to 5.
        files: folder of published corrupted images, see `vicinal.data.read_corrupted`; by default they are made here,
            which gives other images than the published ones, so that errors are not to be compared with published ones.
    """

    title: ClassVar[str] = "Corruptions"

    n: int | None = 200
    kinds: Sequence[str] = CORRUPTIONS
    extra: bool = True
    severities: Sequence[int] = SEVERITIES
    files: str | None = None

    def __post_init__(self) -> None:
        if self.n is not None:
            check("n", self.n, low=1)
        Corruptions(kinds=self.kinds, severities=self.severities)

    def refusal(self, subject: Subject) -> str | None:
        """Feature vectors are refused, and unless there are files, images that cannot be corrupted (below 8x8)."""
        if not subject.images:
            return "these are feature vectors; corruptions are for images"
        try:
            if self.files is None:
                corrupt(torch.zeros(1, *subject.dataset.shape), "brightness", 1, seed=0)
        except InputError as error:
            return str(error)
        return None

    def __call__(self, subject: Subject, seed: int) -> dict[str, Any]:
        """The figures. The same corrupted images for every network with this seed.

        Raises:
            InputError: no kind can be measured, or the files are not of these classes or this shape of image.
        """
        batches = subject.again(self.n, _SIZE)
        source = _Made(subject, batches, seed) if self.files is None else _Published(subject, self.files, self.n)
        further = [kind for kind in EXTRA_CORRUPTIONS if self.extra and kind not in self.kinds]
        left_out = {kind: why for kind in (*self.kinds, *further) if (why := source.why_not(kind))}
        notes = [f"left out: {kind}; {why}" for kind, why in left_out.items()] + source.notes
        main, beside = ([kind for kind in kinds if kind not in left_out] for kinds in (self.kinds, further))
        if not main:
            raise InputError(f"corruptions, {source.origin}: no kind can be measured; {'; '.join(notes)}")
        found = source.errors([*main, *beside], self.severities)
        mean, mean_extra = (
            CorruptionFigures.of(found.n, {kind: found.errors[kind] for kind in kinds}).error if kinds else None
            for kinds in (main, beside)
        )
        return {
            "n": found.n,
            "origin": source.origin,
            "kinds": main,
            "extra": beside,
            "severities": list(self.severities),
            "errors": {kind: list(errors) for kind, errors in found.errors.items()},
            "mean": mean,
            "mean_extra": mean_extra,
            "clean_error": figures(subject.fast, batches).error,
            "notes": notes,
            "incomplete": bool(left_out),
        }


class _Made:
    """Corrupted images made here."""

    def __init__(self, subject: Subject, batches: Again, seed: int) -> None:
        self._subject, self._batches, self._seed = subject, batches, seed
        self.origin = f"made with seed {seed}"
        self.notes: list[str] = []

    def why_not(self, kind: str) -> str | None:
        """Why a kind cannot be measured here; None if it can."""
        try:
            corrupt(torch.zeros(1, *self._subject.dataset.shape), kind, 1, seed=0)
        except MissingExtraError as error:
            return str(error)
        return None

    def errors(self, kinds: Sequence[str], severities: Sequence[int]) -> CorruptionFigures:
        return Corruptions(kinds=kinds, severities=severities)(self._subject.fast, self._batches, self._seed)


class _Published:
    """Corrupted images read from files, of which no more than a batch is held at a time.

    They are spread evenly over the files: the same examples as the clean ones where both are in one order.
    """

    def __init__(self, subject: Subject, files: str, n: int | None) -> None:
        self._subject, self._files = subject, files
        self._set = read_corrupted(files, classes=subject.dataset.classes)
        self.origin = f"files in {files}"
        self.notes = []
        self._labels = self._set.part(self._set.kinds[0], 1).y
        count = len(self._labels) if n is None else min(n, len(self._labels))
        self._rows = torch.arange(count) * len(self._labels) // count
        if not torch.equal(self._labels, subject.examples.y):
            self.notes.append(
                f"the labels of the files are not those of the {subject.part} part in its order: the corrupted "
                "examples are others than those of the clean error"
            )
            if read_corrupted(files).classes is None:
                self.notes.append("the files name no classes: their order is taken to be the network's, unchecked")

    def why_not(self, kind: str) -> str | None:
        """Why a kind cannot be measured here; None if it can."""
        return None if kind in self._set.kinds else "there are no files of it"

    def errors(self, kinds: Sequence[str], severities: Sequence[int]) -> CorruptionFigures:
        errors = {kind: [self._error(kind, severity) for severity in severities] for kind in kinds}
        return CorruptionFigures.of(len(self._rows), errors)

    def _error(self, kind: str, severity: int) -> float:
        part, shape = self._set.part(kind, severity), self._subject.dataset.shape
        if not torch.equal(part.y, self._labels):
            raise InputError(
                f"{self._files}: the labels of {kind} at severity {severity} are not those of {self._set.kinds[0]} at "
                "severity 1; is it unpacked completely?"
            )
        if (found := tuple(part.x[self._rows[:1]].shape[1:])) != shape:
            raise InputError(
                f"{self._files}: images of {kind} are {found} (C, H, W), but those of the network are {shape}; "
                "give files made from its data set"
            )
        examples = Examples(Subset(part.x, self._rows), part.y[self._rows])
        return figures(self._subject.fast, eval_batches(examples, _SIZE, self._subject.device)).error
