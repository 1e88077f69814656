"""The most confident wrong predictions, with pictures of them."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from vicinal.data import as_float
from vicinal.data.folders import list_folder
from vicinal.data.images import is_image_folder
from vicinal.errors import require
from vicinal.networks import EVAL, applied
from vicinal.settings import check
from vicinal.studies.base import Study, Subject

_SIZE = 500

_SIDE = 96
"""Pixels of a picture's longer side at the least; it has fewer than twice as many."""


@dataclass(frozen=True, kw_only=True)
class Mistakes(Study):
    """The wrong predictions that the network is most confident of, over all examples, the most confident first.

    Gives ``n``, ``wrong`` (how many predictions are wrong) and ``items``, each with ``index`` (row of the part that is
    measured), ``name`` (of its file, within the folder of the data; None where there is none), ``label`` and
    ``predicted`` (names of classes), ``confidence`` (probability of the predicted class) and ``of_label`` (of the true
    one), both in [0,1]. Images of 1 or 3 channels are among ``pictures``, PNG in base64, by index as text: enlarged
    by repeating pixels, or shrunk, by whole factors, so that the longer side has 96 to 191 pixels.

    Of equal confidences the smaller index comes first. Where the confidence is not a number, as the network diverged, a
    prediction can be wrong but is not among the items.

    Args:
        count: number of predictions; there are fewer items where fewer are wrong.
    """

    title: ClassVar[str] = "Mistakes"

    count: int = 12

    def __post_init__(self) -> None:
        check("count", self.count, low=1)

    def __call__(self, subject: Subject, seed: int) -> dict[str, Any]:
        """The mistakes. Nothing is drawn: the seed has no effect.

        Raises:
            MissingExtraError: the examples are images, and Pillow is not installed.
        """
        n = wrong = 0
        most: list[_Mistake] = []
        with torch.no_grad(), applied(subject.network, EVAL):
            for x, y in subject.stream(size=_SIZE):
                found = _mistakes(subject.network(x), y, n)
                n, wrong = n + len(y), wrong + len(found)
                sure = [each for each in found if math.isfinite(each.confidence)]
                most = sorted(most + sure, key=lambda each: (-each.confidence, each.row))[: self.count]
        values: dict[str, Any] = {"n": n, "wrong": wrong, "items": _items(subject, most)}
        if subject.images and subject.dataset.shape[0] in (1, 3):
            images = subject.examples.x
            values["pictures"] = {str(each.row): _picture(images[torch.tensor([each.row])][0]) for each in most}
        return values


class _Mistake(NamedTuple):
    """A wrong prediction: its row, classes by index, probabilities."""

    row: int
    label: int
    predicted: int
    confidence: float
    of_label: float


def _mistakes(logits: Tensor, y: Tensor, first: int) -> list[_Mistake]:
    """All wrong predictions of a batch whose first example has the row ``first``."""
    p, predicted = logits.double().softmax(dim=1), logits.argmax(dim=1)
    rows = (predicted != y).nonzero()[:, 0]
    confidence, of_label = (p[rows, classes[rows]] for classes in (predicted, y))
    columns = (first + rows, y[rows], predicted[rows], confidence, of_label)
    return [_Mistake(*each) for each in zip(*(column.tolist() for column in columns), strict=True)]


def _items(subject: Subject, mistakes: list[_Mistake]) -> list[dict[str, Any]]:
    classes, names = subject.dataset.classes, _file_names(subject)
    return [
        {
            "index": each.row,
            "name": names[each.row] if names else None,
            "label": classes[each.label],
            "predicted": classes[each.predicted],
            "confidence": each.confidence,
            "of_label": each.of_label,
        }
        for each in mistakes
    ]


def _file_names(subject: Subject) -> list[str] | None:
    """Names of the files of all examples, where these were read from a folder of image files.

    The folder is listed again, as images that lie in memory do not keep their names; if labels no longer fit, it is
    another one by now and names nothing.
    """
    source, split = str(subject.dataset.source.get("data", "")), subject.split
    if not source or not is_image_folder(source):
        return None
    root, split_off = Path(source).expanduser(), subject.part == "validation" and not split.published_validation
    listed = list_folder(root).get("train" if split_off else subject.part)
    if listed is None:
        return None
    files = list(zip(listed.paths, listed.labels, strict=True))
    if split_off:
        files = [files[row] for row in split.validation.tolist() if row < len(files)]
    labels = [subject.dataset.classes[label] for label in subject.examples.y.tolist()]
    if [label for _, label in files] != labels:
        return None
    return [path.relative_to(root).as_posix() for path, _ in files]


def _picture(x: Tensor) -> str:
    """An image (C, H, W) as in the data, C = 1 or 3, as PNG in base64."""
    pil: Any = require("PIL.Image", "images", "showing mistakes")
    pixels = (255 * as_float(x.cpu())).round().to(torch.uint8).movedim(0, 2).squeeze(2)
    image = pil.fromarray(pixels.numpy())
    longer = max(image.size)
    if longer < _SIDE:
        factor = math.ceil(_SIDE / longer)
        image = image.resize((factor * image.width, factor * image.height), pil.Resampling.NEAREST)
    elif longer >= 2 * _SIDE:
        image = image.reduce(longer // _SIDE)
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return base64.b64encode(content.getvalue()).decode("ascii")
