"""Errors on corrupted images against every image corrupted and classified on its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vicinal.errors import InputError
from vicinal.evaluation import corrupt, measures
from vicinal.evaluation.measures import CorruptionFigures, Corruptions

KINDS = ("gaussian_noise", "contrast", "spatter")
SEVERITIES = (5, 1)


def check_against_single_images(trained: nn.Module, digits: Any) -> None:
    batches = [(x[:20], y[:20]) for x, y in digits]
    found = Corruptions(kinds=KINDS, severities=SEVERITIES)(trained, iter(batches), 3)
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    trained.eval()
    errors = {}
    for kind in KINDS:
        errors[kind] = []
        for severity in SEVERITIES:
            made = [corrupt(x[k : k + 1], kind, severity, seed=3, first=k) for k in range(len(x))]
            wrong = [int(trained(each).argmax()) != int(label) for each, label in zip(made, y, strict=True)]
            errors[kind].append(sum(wrong) / len(wrong))
    trained.train()
    assert found.n == len(y) == 60
    assert found.errors == {kind: tuple(each) for kind, each in errors.items()}
    assert found.by_kind == {kind: pytest.approx(sum(each) / 2) for kind, each in errors.items()}
    assert found.error == pytest.approx(sum(sum(each) for each in errors.values()) / 6)
    assert len({error for each in errors.values() for error in each}) > 2


def test_against_single_images(trained: nn.Module, digits: Any, untouched: Any) -> None:
    with untouched(trained):
        check_against_single_images(trained, digits)


def other(**changes: Any) -> Callable[..., Tensor]:
    return lambda x, kind, severity, **given: corrupt(x, kind, severity, **{**given, **changes})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("corrupt", other(first=0), id="every batch from number 0"),
        pytest.param("corrupt", other(seed=0), id="another seed"),
        pytest.param("corrupt", lambda x, kind, severity, **given: corrupt(x, kind, 1, **given), id="one severity"),
        pytest.param("corrupt", lambda x, kind, severity, **given: x, id="not corrupted"),
    ],
)
def test_other_images_are_told_apart(
    name: str, value: Any, trained: nn.Module, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, name, value)
    with pytest.raises(AssertionError):
        check_against_single_images(trained, digits)
    trained.train()


def test_no_batch_is_held(trained: nn.Module, digits: Any) -> None:
    """Each is corrupted in every way before the next one is asked for."""
    seen: list[int] = []

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            return trained(x)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for k, (x, y) in enumerate(digits):
            assert len(seen) == 6 * k
            yield x[:5], y[:5]

    Corruptions(kinds=KINDS, severities=SEVERITIES)(Counting(), batches(), 0)
    assert seen == [5] * 18


def test_means_weigh_kinds_alike() -> None:
    found = CorruptionFigures.of(8, {"fog": [0.5, 0.25], "snow": [1.0, 0.0]})
    assert dataclasses.asdict(found) == {
        "n": 8,
        "error": 0.4375,
        "by_kind": {"fog": 0.375, "snow": 0.5},
        "errors": {"fog": (0.5, 0.25), "snow": (1.0, 0.0)},
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ()}, "kinds: there are none; give at least one"),
        ({"severities": ()}, "severities: there are none"),
        ({"kinds": ("fgo",)}, "unknown corruption 'fgo'; did you mean 'fog'?"),
        ({"severities": (0,)}, "severities must be at least 1"),
    ],
)
def test_what_is_refused(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Corruptions(**settings)


def test_no_examples_are_refused(trained: nn.Module) -> None:
    with pytest.raises(InputError, match="no examples to measure"):
        Corruptions()(trained, [], 0)
