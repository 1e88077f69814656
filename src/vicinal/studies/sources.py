"""The other network whose gradients lead black-box attacks: whether it can."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.evaluation.attacks import SpaceName
from vicinal.evaluation.attacks.losses import log_odds_against
from vicinal.networks import EVAL, Classifier, applied
from vicinal.studies.base import Subject
from vicinal.vicinity.projected import input_gradient

_PROBED, _COUNTED = 20, 100
"""Examples on which its gradients are looked at, and its errors are counted."""


def black_box(subject: Subject, space: SpaceName = "pixels") -> tuple[nn.Module | None, str | None]:
    """The network whose gradients lead black-box attacks on a subject, if there is one that takes its inputs.

    Args:
        subject: with or without a source.
        space: where the attack is. In ``"input"`` the source needs a preprocessing layer that keeps the inputs' shape.

    Returns:
        The source and None; or None and why there is none, in one line: it does not take these inputs; its logits or
        gradients cannot lead anywhere, on 20 examples; or it is no better than chance, on 100.
    """
    source = subject.source
    if source is None:
        return None, "no other network was given"
    if space == "input" and not isinstance(source, Classifier):
        return None, "the other network has no preprocessing layer of its own"
    with applied(source, EVAL):
        why_not = _why_not(source, subject, space)
    return (source, None) if why_not is None else (None, why_not)


def _why_not(source: nn.Module, subject: Subject, space: SpaceName) -> str | None:
    """Why a network in eval mode cannot lead, in one line; None if it can."""
    ((x, y),) = subject.batches(_PROBED)
    classes = len(subject.dataset.classes)

    def logits_at(points: Tensor) -> Tensor:
        return cast(Tensor, source(points, preprocessed=True) if space == "input" else source(points))

    try:
        with torch.no_grad():
            points = cast(Classifier, source).preprocess(x) if space == "input" else x
            fits = points.shape == x.shape and logits_at(points).shape == (len(x), classes)
    except (RuntimeError, ValueError):
        points, fits = x, False
    if not fits:
        return "the other network does not take these inputs, or gives other classes"
    with torch.enable_grad():
        at = points.detach().clone().requires_grad_()
        logits = logits_at(at)
    if not bool(logits.isfinite().all()):
        return "the other network's logits are not finite; it diverged"
    try:
        gradients = input_gradient(log_odds_against(logits, y), at)
    except InputError:
        return "no gradient of the other network reaches its inputs"
    if not bool(gradients.isfinite().all()):
        return "the other network's gradients are not finite"
    if not bool(gradients.any()):
        return "the other network's gradients are all zero"
    wrong = n = 0
    with torch.no_grad():
        for inputs, labels in subject.stream(_COUNTED):
            wrong, n = wrong + int((source(inputs).argmax(dim=1) != labels).sum()), n + len(labels)
    return None if wrong / n < 1 - 1 / classes else "the other network is no better than chance"
