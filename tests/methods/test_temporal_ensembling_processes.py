"""Temporal ensembling in a distributed training: every process keeps the same bank."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, distributed

from vicinal.methods.temporal_ensembling import gathered

torch.set_num_threads(1)


@pytest.fixture
def alone() -> Iterator[None]:
    """A distributed training of one process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_one_process_gathers_its_own(alone: None) -> None:
    rows = torch.arange(6).view(3, 2)
    assert torch.equal(gathered(rows), rows)
    assert gathered(rows) is not rows


def test_without_processes_nothing_is_copied() -> None:
    rows = torch.arange(3)
    assert gathered(rows) is rows


def test_gathered_rows_come_in_the_order_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process r of two has rows r, r + 2, ...: the inverse of what the batches hand out."""
    batch = torch.arange(12).view(6, 2)

    def all_gather(parts: list[Tensor], rows: Tensor) -> None:
        assert torch.equal(rows, batch[1::2])
        for rank, part in enumerate(parts):
            part.copy_(batch[rank::2])

    for name, value in (("is_initialized", lambda: True), ("get_world_size", lambda: 2), ("all_gather", all_gather)):
        monkeypatch.setattr(distributed, name, value)
    assert torch.equal(gathered(batch[1::2]), batch)
    monkeypatch.setattr(torch, "stack", lambda parts, dim: torch.cat(parts).unsqueeze(0))
    assert not torch.equal(gathered(batch[1::2]), batch)
