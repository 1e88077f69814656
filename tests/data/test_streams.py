"""Streams and batches: each row once per epoch, the same from any start, on any number of ranks and workers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vicinal.data import Batch, Batches, Examples, Split, SplitIndices, Stream, eval_batches, from_arrays, make_split
from vicinal.errors import InputError

# Row i of x holds i everywhere, so that rows can be told apart.
DATA = from_arrays(
    np.arange(11, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(2, axis=2).repeat(2, axis=3),
    [0, 1, -1, 1, 0, -1, 0, 1, 1, 0, -1],
)
SPLIT = make_split(DATA, Split(labels=4, validation=2), 0)
SIZES = {"labelled_batch": 4, "unlabelled_batch": 6, "seed": 3}


class Store:
    """Rows that do not lie in memory."""

    def __len__(self) -> int:
        return len(DATA.train)

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        assert isinstance(DATA.train.x, torch.Tensor)
        return DATA.train.x[index]


STREAMED = Examples(Store(), DATA.train.y)


def same(one: Batch, other: Batch) -> bool:
    return one.step == other.step and all(
        (a is None and b is None) or (a is not None and b is not None and a.dtype == b.dtype and torch.equal(a, b))
        for a, b in zip(one[1:], other[1:], strict=True)
    )


def all_same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 17), batch=st.integers(1, 40), seed=st.integers(0, 99))
def test_every_row_comes_once_per_epoch(n: int, batch: int, seed: int) -> None:
    indices = torch.arange(n) * 7 + 3
    stream = Stream(indices, batch, seed, "labelled")
    epochs = 4
    taken = [stream.batch(step) for step in range(-(-epochs * n // batch))]
    assert all(len(part) == batch and part.dtype == torch.int64 for part in taken)
    sequence = torch.cat(taken).tolist()
    for epoch in range(epochs):
        assert sorted(sequence[epoch * n : (epoch + 1) * n]) == indices.tolist()


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 17), batch=st.integers(1, 40), step=st.integers(0, 60))
def test_a_step_does_not_depend_on_the_steps_asked_before(n: int, batch: int, step: int) -> None:
    walked = Stream(torch.arange(n), batch, 1, "labelled")
    for before in range(step):
        walked.batch(before)
    assert torch.equal(walked.batch(step), Stream(torch.arange(n), batch, 1, "labelled").batch(step))


def test_epochs_seeds_and_purposes_are_ordered_differently() -> None:
    def order(seed: int, purpose: str, step: int) -> tuple[int, ...]:
        return tuple(Stream(torch.arange(50), 50, seed, purpose).batch(step).tolist())

    orders = {order(0, "labelled", 0), order(0, "labelled", 1), order(1, "labelled", 0), order(0, "unlabelled", 0)}
    assert len(orders) == 4


def test_first_places_are_shared_evenly() -> None:
    first = Counter(int(Stream(torch.arange(5), 1, seed, "labelled").batch(0)) for seed in range(500))
    assert min(first.values()) > 60
    assert len(first) == 5


def test_a_batch_holds_the_rows_it_names() -> None:
    for batch in Batches(DATA.train, SPLIT, steps=7, **SIZES):
        assert batch.u is not None
        assert batch.u_index is not None
        assert batch.x.dtype == torch.uint8
        assert batch.x[:, 0, 0, 0].tolist() == batch.x_index.tolist()
        assert batch.u[:, 0, 0, 0].tolist() == batch.u_index.tolist()
        assert torch.equal(batch.y, DATA.train.y[batch.x_index])
        assert set(batch.x_index.tolist()) <= set(SPLIT.labelled.tolist())
        assert set(batch.u_index.tolist()) <= set(SPLIT.unlabelled.tolist())
        assert (len(batch.x), len(batch.u)) == (4, 6)


@pytest.mark.parametrize("train", [DATA.train, STREAMED], ids=["resident", "streamed"])
def test_resuming_goes_on_where_the_uninterrupted_run_would(train: Examples) -> None:
    whole = Batches(train, SPLIT, steps=11, **SIZES)
    assert (len(whole), whole.start) == (11, 0)
    resumed = Batches(train, SPLIT, steps=11, start=5, **SIZES)
    assert (len(resumed), resumed.start) == (11, 5)
    assert all_same(list(whole)[5:], list(resumed))
    assert all_same(list(whole), list(whole))


def test_a_changed_start_counts_from_the_next_iteration() -> None:
    batches = Batches(DATA.train, SPLIT, steps=4, **SIZES)
    batches.start = 2
    assert [batch.step for batch in batches] == [2, 3]


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_rows_give_the_same_batches_as_resident_ones(workers: int) -> None:
    resident = list(Batches(DATA.train, SPLIT, steps=6, start=1, **SIZES))
    before = torch.random.get_rng_state()
    streamed = list(Batches(STREAMED, SPLIT, steps=6, start=1, workers=workers, **SIZES))
    assert all_same(resident, streamed)
    assert torch.equal(before, torch.random.get_rng_state()), "the global generator is left alone"


@settings(max_examples=20, deadline=None)
@given(world=st.sampled_from([1, 2, 3]), times=st.integers(1, 3), seed=st.integers(0, 50))
def test_ranks_share_each_batch_out_among_them(world: int, times: int, seed: int) -> None:
    sizes = {"labelled_batch": world * times, "unlabelled_batch": 2 * world * times, "seed": seed, "steps": 4}
    whole = list(Batches(DATA.train, SPLIT, **sizes))
    shares = [list(Batches(DATA.train, SPLIT, rank=rank, world=world, **sizes)) for rank in range(world)]
    for step, batch in enumerate(whole):
        for name in ("x", "y", "x_index", "u", "u_index"):
            expected = getattr(batch, name)
            joined = torch.empty_like(expected)
            for rank in range(world):
                joined[rank::world] = getattr(shares[rank][step], name)
            assert torch.equal(joined, expected)


@pytest.mark.parametrize("streamed", [False, True])
def test_labels_outside_the_labelled_rows_are_never_read(streamed: bool) -> None:
    def batches(y: torch.Tensor, split: SplitIndices) -> list[Batch]:
        x = Store() if streamed else DATA.train.x
        return list(Batches(Examples(x, y), split, steps=9, **SIZES))

    hidden = torch.full_like(DATA.train.y, -1)
    hidden[SPLIT.labelled] = DATA.train.y[SPLIT.labelled]
    assert not torch.equal(hidden, DATA.train.y), "there is something to hide"
    assert all_same(batches(DATA.train.y, SPLIT), batches(hidden, SPLIT))
    # Control: a label that is read does show.
    changed = DATA.train.y.clone()
    changed[SPLIT.labelled[0]] += 1
    assert not all_same(batches(DATA.train.y, SPLIT), batches(changed, SPLIT))


def test_without_a_wish_for_unlabelled_rows_there_are_none() -> None:
    nothing = replace(SPLIT, unlabelled=torch.zeros(0, dtype=torch.int64))
    sizes = {**SIZES, "unlabelled_batch": 0}
    batch = next(iter(Batches(DATA.train, nothing, steps=1, unlabelled=False, **sizes)))
    assert batch.u is None
    assert batch.u_index is None
    full = next(iter(Batches(DATA.train, SPLIT, steps=1, **SIZES)))
    assert torch.equal(batch.x_index, full.x_index), "the labelled stream does not depend on the unlabelled one"


@pytest.mark.parametrize("rows", [DATA.train, STREAMED], ids=["resident", "streamed"])
@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_every_example_once_in_order(rows: Examples, workers: int) -> None:
    seen = list(eval_batches(rows, 4, workers=workers))
    assert [len(y) for _, y in seen] == [4, 4, 3]
    assert torch.equal(torch.cat([y for _, y in seen]), DATA.train.y)
    x = torch.cat([x for x, _ in seen])
    assert x.dtype == torch.float32
    assert torch.equal(x[:, 0, 0, 0], torch.arange(11) / 255)


def test_evaluation_passes_floats_as_they_are() -> None:
    x = torch.rand(5, 2, generator=torch.Generator().manual_seed(0))
    (seen, _), *rest = eval_batches(Examples(x, torch.zeros(5, dtype=torch.int64)), 10)
    assert torch.equal(seen, x)
    assert not rest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labelled_batch": 0}, "batch size must be at least 1"),
        ({"unlabelled_batch": -6}, "batch size must be at least 1"),
        ({"labelled_batch": 3, "world": 2}, "labelled batch size 3 must be divisible"),
        ({"unlabelled_batch": 5, "world": 2}, "unlabelled batch size 5 must be divisible"),
    ],
)
def test_wrong_batch_sizes_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Batches(DATA.train, SPLIT, **{**SIZES, "steps": 1, **change})


def test_missing_rows_are_refused() -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(InputError, match="uses unlabelled examples, but there are none"):
        Batches(DATA.train, replace(SPLIT, unlabelled=empty), steps=1, **SIZES)
    with pytest.raises(InputError, match="labelled: there are no rows to draw from"):
        Batches(DATA.train, replace(SPLIT, labelled=empty), steps=1, **SIZES)
    with pytest.raises(InputError, match="batch size must be at least 1"):
        list(eval_batches(DATA.train, 0))


def test_only_two_epochs_are_kept() -> None:
    stream = Stream(torch.arange(3), 1, 0, "labelled")
    for step in islice(range(100), 30):
        stream.batch(step)
    assert len(stream._epochs) == 2
