"""Labelled and unlabelled rows, step by step.

Nothing here keeps state between steps: which rows step k takes is a function of the seed and k. A run that starts at
step k takes what the uninterrupted one would have taken, on any number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vicinal.data.split import SplitIndices
from vicinal.data.types import Batch, Examples, as_float
from vicinal.errors import InputError
from vicinal.randomness import generator
from vicinal.settings import check


class Stream:
    """An endless sequence of rows: each epoch is one permutation of them, so each row comes once per epoch.

    Args:
        indices: the rows, int64 (n,).
        batch_size: rows per step; may exceed n, then a batch goes over several epochs.
        seed: seed of the experiment.
        purpose: name of the stream, so that two streams with one seed differ.
        device: where the rows are wanted; the order does not depend on it.

    >>> stream = Stream(torch.tensor([10, 11, 12]), 2, seed=0, purpose="example")
    >>> sorted(torch.cat([stream.batch(0), stream.batch(1), stream.batch(2)]).tolist())
    [10, 10, 11, 11, 12, 12]
    """

    def __init__(
        self, indices: Tensor, batch_size: int, seed: int, purpose: str, device: torch.device | str = "cpu"
    ) -> None:
        check("batch size", batch_size, low=1)
        if not len(indices):
            raise InputError(f"{purpose}: there are no rows to draw from")
        self.indices = indices
        self.batch_size = batch_size
        self.seed = seed
        self.purpose = purpose
        self._device = device
        self._epochs: dict[int, Tensor] = {}

    def batch(self, step: int) -> Tensor:
        """Rows of one step, int64 (batch_size,): positions step B .. step B + B - 1 of the sequence."""
        n, first = len(self.indices), step * self.batch_size
        last = first + self.batch_size
        parts = [
            self._epoch(epoch)[max(first - epoch * n, 0) : last - epoch * n]
            for epoch in range(first // n, (last - 1) // n + 1)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _epoch(self, epoch: int) -> Tensor:
        """The rows in the order of one epoch."""
        if epoch not in self._epochs:
            if len(self._epochs) == 2:
                self._epochs.pop(next(iter(self._epochs)))
            order = torch.randperm(len(self.indices), generator=generator(self.seed, self.purpose, epoch))
            self._epochs[epoch] = self.indices[order].to(self._device)
        return self._epochs[epoch]


class Batches:
    """The batches of a training, from ``start`` to ``steps``; iterating again begins at ``start`` again.

    Rows that lie in memory are moved to ``device`` once and picked there. Other rows are decoded when they are needed,
    by ``workers`` processes that work ahead. Labels are taken for ``split.labelled`` only: replacing every other label
    by -1 changes nothing.

    Args:
        train: the training part.
        split: which of its rows are labelled and unlabelled.
        labelled_batch: labelled rows per step, over all ranks.
        unlabelled_batch: unlabelled rows per step, over all ranks.
        seed: seed of the experiment; orders come from the purposes ``"labelled"`` and ``"unlabelled"``.
        steps: number of steps of the whole training.
        start: first step.
        unlabelled: whether unlabelled rows are wanted at all.
        device: the training device.
        rank: which of the ``world`` processes this is: it gets rows rank, rank + world, ... of each batch.
        world: number of processes.
        workers: processes that decode rows which do not lie in memory; 0 decodes in this one.

    Raises:
        InputError: a batch size is not positive or not divisible by ``world``; no labelled rows, or no unlabelled ones
            although they are wanted.
    """

    def __init__(
        self,
        train: Examples,
        split: SplitIndices,
        *,
        labelled_batch: int,
        unlabelled_batch: int,
        seed: int,
        steps: int,
        start: int = 0,
        unlabelled: bool = True,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        for name, size in (("labelled", labelled_batch), ("unlabelled", unlabelled_batch if unlabelled else 0)):
            if size % world:
                raise InputError(f"{name} batch size {size} must be divisible by the number of processes, {world}")
        if unlabelled and not len(split.unlabelled):
            raise InputError(
                "the method uses unlabelled examples, but there are none: keep the labelled ones in the pool "
                "(labelled_in_unlabelled), or ask for fewer labels"
            )
        self.start = start
        self.steps = steps
        self.device = torch.device(device)
        self._workers = workers
        resident = isinstance(train.x, Tensor)
        place = self.device if resident else torch.device("cpu")
        x = train.x.to(place) if isinstance(train.x, Tensor) else train.x
        known = torch.full((len(train),), -1)
        known[split.labelled] = train.y[split.labelled]
        labelled_stream = Stream(split.labelled, labelled_batch, seed, "labelled", place)
        pool = Stream(split.unlabelled, unlabelled_batch, seed, "unlabelled", place) if unlabelled else None
        self._reader = _Reader(Examples(x, known.to(place)), labelled_stream, pool, rank, world)
        self._resident = resident

    def __len__(self) -> int:
        """Number of steps of the whole training, those before ``start`` included."""
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        if self._resident:
            return (self._reader[step] for step in range(self.start, self.steps))
        return (_moved(batch, self.device) for batch in self._loader())

    def _loader(self) -> Any:
        return _loader(self._reader, range(self.start, self.steps), self._workers, self.device)


class _Reader(Dataset[Batch]):
    """Item k is the batch of step k, so that a loader's workers need nothing but the step."""

    def __init__(self, examples: Examples, labelled: Stream, unlabelled: Stream | None, rank: int, world: int) -> None:
        self._examples, self._labelled, self._unlabelled = examples, labelled, unlabelled
        self._rank, self._world = rank, world

    def __getitem__(self, step: int) -> Batch:
        x_index = self._labelled.batch(step)[self._rank :: self._world]
        x, y = self._examples.x[x_index], self._examples.y[x_index]
        if self._unlabelled is None:
            return Batch(step, x, y, x_index, None, None)
        u_index = self._unlabelled.batch(step)[self._rank :: self._world]
        return Batch(step, x, y, x_index, self._examples.x[u_index], u_index)


class _Slices(Dataset[tuple[Tensor, Tensor]]):
    """Item k is the k-th run of ``batch_size`` examples, in order."""

    def __init__(self, examples: Examples, batch_size: int) -> None:
        self._examples, self._batch_size = examples, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._examples) / self._batch_size)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        first = item * self._batch_size
        index = torch.arange(first, min(first + self._batch_size, len(self._examples)))
        return self._examples.x[index], self._examples.y[index]


def eval_batches(
    examples: Examples, batch_size: int, device: torch.device | str = "cpu", workers: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """All examples once, in order, for evaluation.

    Args:
        examples: a part of a data set.
        batch_size: examples per batch; the last may be shorter.
        device: where they are wanted.
        workers: processes that decode rows which do not lie in memory; 0 decodes in this one.

    Yields:
        Inputs, float32 (images in [0,1]), and labels, int64 (B,).
    """
    check("batch size", batch_size, low=1)
    slices, place = _Slices(examples, batch_size), torch.device(device)
    batches = _loader(slices, range(len(slices)), 0 if isinstance(examples.x, Tensor) else workers, place)
    for x, y in batches:
        yield as_float(x.to(place, non_blocking=True)), y.to(place, non_blocking=True)


def _loader(items: Dataset[Any], order: range, workers: int, device: torch.device) -> Any:
    """Items in order, made ahead by worker processes if there are any."""
    if not workers:
        return (items[k] for k in order)
    # The loader draws a base seed for its workers, which use none: a generator of its own leaves the global one alone.
    return DataLoader(
        items,
        batch_size=None,
        sampler=cast(Any, order),
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )


def _as_it_is(item: Any) -> Any:
    return item


def _moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on the training device; copies from pinned memory overlap with the computation."""
    tensors = [None if item is None else item.to(device, non_blocking=True) for item in batch[1:]]
    return Batch(batch.step, *cast(Any, tensors))
