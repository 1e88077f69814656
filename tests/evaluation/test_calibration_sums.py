"""Sums of calibration add up: over batches, over objects, over processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

from vicinal.evaluation.calibration import AdaptiveCalibration, Calibration, CalibrationStudy, ClasswiseCalibration


def random_logits(n: int = 200, classes: int = 5) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    return 3 * torch.randn(n, classes, generator=draws), torch.randint(classes, (n,), generator=draws)


@pytest.mark.parametrize("make", [lambda: CalibrationStudy(5), lambda: _Parts()], ids=["study", "parts"])
def test_batches_and_parts_add_up(make: Callable[[], Any]) -> None:
    logits, y = random_logits()
    whole, parts, doubled = make(), [make(), make()], make()
    whole.update(logits, y)
    for index, (a, b) in enumerate(zip(logits.split(7), y.split(7), strict=True)):
        parts[index % 2].update(a, b)
    doubled.merge(whole)
    doubled.update(logits[:99], y[:99])
    parts[0].merge(parts[1])
    assert numbers(parts[0]) == pytest.approx(numbers(whole), abs=1e-12)
    assert numbers(doubled) != pytest.approx(numbers(whole), abs=1e-6)
    kept, before = whole.reduced(), numbers(whole)
    whole.update(logits[:99], y[:99])
    assert numbers(kept) == before != numbers(whole)


class _Parts:
    """The states of a study by themselves."""

    def __init__(self) -> None:
        self.states = [AdaptiveCalibration(), ClasswiseCalibration(5), Calibration()]

    def update(self, logits: Tensor, y: Tensor) -> None:
        for state in self.states:
            state.update(logits.softmax(dim=1), y)

    def merge(self, other: _Parts) -> None:
        for state, more in zip(self.states, other.states, strict=True):
            state.merge(more)  # type: ignore[arg-type]

    def reduced(self) -> _Parts:
        total = _Parts()
        total.states = [state.reduced() for state in self.states]
        return total


def numbers(state: Any) -> list[float]:
    if isinstance(state, _Parts):
        return [state.ece for state in state.states]
    found = state.figures()
    return [found.nll, found.error, found.ece, found.adaptive_ece, found.classwise_ece, found.overconfidence]


PROCESS = """
import json, sys, torch
from torch import distributed
from vicinal.evaluation.calibration import CalibrationStudy
rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
logits = 3 * torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
y = torch.arange(30) % 4
whole, share = CalibrationStudy(4), CalibrationStudy(4)
whole.update(logits, y)
if rank == 0:
    share.update(logits, y)
once, twice = share.reduced().figures(), share.reduced().figures()
share.update(logits[:10], y[:10])
whole.update(logits[:10], y[:10])
own = share.figures().n
whole.update(logits[:10], y[:10])
both = share.reduced()
distributed.destroy_process_group()
close = abs(both.figures().adaptive_ece - whole.figures().adaptive_ece) < 1e-12
print(json.dumps([once == twice, once.n, both.figures().n, close, own]))
"""


def test_processes_add_up(tmp_path: Path) -> None:
    """Two real ones, one of them without examples at first; asking twice counts nobody twice."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            text=True,
        )
        for rank in range(2)
    ]
    found = [json.loads(process.communicate(timeout=60)[0]) for process in started]
    assert found == [[True, 30, 50, True, 40], [True, 30, 50, True, 10]]


@pytest.mark.parametrize("others", [1, 0, 2])
def test_the_whole_state_is_reduced(others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if so many more processes had seen the same; another number of them is told apart."""
    logits, y = random_logits()
    alone, pair = CalibrationStudy(5), CalibrationStudy(5)
    alone.update(logits, y)
    pair.update(logits, y)
    pair.update(logits, y)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_backend", lambda: "gloo")
    monkeypatch.setattr(distributed, "all_reduce", lambda packed: packed.mul_(1 + others))
    total, before = alone.reduced(), alone.figures()
    assert (total.figures().n == pair.figures().n) is (others == 1)
    assert numbers(total) == pytest.approx(numbers(pair), abs=1e-12)
    assert alone.figures() == before
