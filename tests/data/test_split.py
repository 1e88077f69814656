"""Label splits: sizes, balance, disjointness, nesting, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vicinal.data import Dataset, Examples, Split, SplitIndices, from_arrays, make_split
from vicinal.errors import InputError

TEN_EACH = [0, 1, 2] * 10


def labelled_set(y: Sequence[int]) -> Dataset:
    """A data set in which row i of x holds i everywhere, so that rows can be told apart."""
    x = np.arange(len(y), dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(2, axis=2).repeat(2, axis=3)
    return from_arrays(x, y, classes=[f"class{c}" for c in range(max(y) + 1)])


def rows(index: torch.Tensor) -> set[int]:
    assert index.dtype == torch.int64
    assert index.tolist() == sorted(set(index.tolist())), "ascending, none twice"
    return set(index.tolist())


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(4, 12), min_size=2, max_size=5),
    unknown=st.integers(0, 8),
    validation=st.floats(0, 0.4),
    share=st.floats(0, 1),
    balanced=st.booleans(),
    kept=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_split_is_what_it_says(counts, unknown, validation, share, balanced, kept, seed) -> None:  # type: ignore[no-untyped-def]
    y = [c for c, count in enumerate(counts) for _ in range(count)] + [-1] * unknown
    y = torch.tensor(y)[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))].tolist()
    classes = len(counts)
    held = round(validation * sum(counts))
    # What the smallest class has left, at least, after validation.
    room = min(count - math.ceil(held * count / sum(counts)) for count in counts)
    labels = classes + int(share * classes * (room - 1))
    data = labelled_set(y)
    config = Split(labels=labels, validation=validation, balanced=balanced, labelled_in_unlabelled=kept)
    try:
        split = make_split(data, config, seed)
    except InputError:
        assume(balanced)  # an unbalanced draw may leave a class without any
        raise
    labelled, unlabelled, selecting = rows(split.labelled), rows(split.unlabelled), rows(split.validation)
    assert len(labelled) == labels
    assert len(selecting) == held
    assert not selecting & (labelled | unlabelled)
    assert all(y[row] >= 0 for row in labelled | selecting)
    assert {row for row in range(len(y)) if y[row] == -1} <= unlabelled
    assert (labelled <= unlabelled) if kept else not labelled & unlabelled
    assert labelled | unlabelled | selecting == set(range(len(y)))
    per_class = [sum(y[row] == c for row in labelled) for c in range(classes)]
    assert min(per_class) >= 1
    if balanced:
        assert max(per_class) - min(per_class) <= 1
    # Stratified: no class is off its share by more than the rounding and the row that each class keeps.
    for c, count in enumerate(counts):
        assert abs(sum(y[row] == c for row in selecting) - held * count / sum(counts)) < 1 + 1e-9
    assert split.digest == make_split(data, config, seed).digest


def test_seeds_give_different_splits_and_the_split_seed_wins() -> None:
    data = labelled_set(TEN_EACH)
    config = Split(labels=9)
    digests = {make_split(data, config, seed).digest for seed in range(5)}
    assert len(digests) == 5
    pinned = replace(config, seed=3)
    assert (
        make_split(data, pinned, 0).digest == make_split(data, pinned, 1).digest == make_split(data, config, 3).digest
    )


def test_fewer_labels_lie_in_more_labels_and_share_the_validation_rows() -> None:
    data = labelled_set(TEN_EACH)
    few, many = (make_split(data, Split(labels=labels), 5) for labels in (6, 18))
    assert rows(few.labelled) < rows(many.labelled)
    assert torch.equal(few.validation, many.validation)


def test_a_remainder_goes_to_classes_drawn_by_the_seed() -> None:
    data = labelled_set(TEN_EACH)
    favoured = set()
    for seed in range(20):
        split = make_split(data, Split(labels=4, validation=0), seed)
        counts = torch.bincount(data.train.y[split.labelled], minlength=3)
        assert sorted(counts.tolist()) == [1, 1, 2]
        favoured.add(int(counts.argmax()))
    assert favoured == {0, 1, 2}


def test_every_labelled_row_is_taken_by_default_and_a_tenth_is_held_out() -> None:
    split = make_split(labelled_set([*TEN_EACH, -1, -1]), Split(), 0)
    assert (len(split.labelled), len(split.validation), len(split.unlabelled)) == (27, 3, 29)


def test_a_published_validation_part_is_used_unless_a_size_is_given() -> None:
    plain = labelled_set(TEN_EACH)
    published = Examples(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1]))
    data = replace(plain, validation=published)
    split = make_split(data, Split(), 0)
    assert len(split.validation) == 0
    assert split.validation_examples(data) is published
    carved = make_split(data, Split(validation=6), 0)
    chosen = carved.validation_examples(data)
    assert chosen is not None
    assert torch.equal(chosen.y, data.train.y[carved.validation])
    assert chosen.x[torch.arange(6)][:, 0, 0, 0].tolist() == carved.validation.tolist()
    assert make_split(data, Split(validation=0), 0).validation_examples(data) is None


def test_validation_rows_of_a_row_store_are_found_by_row() -> None:
    class Store:
        def __len__(self) -> int:
            return len(TEN_EACH)

        def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
            return index.to(torch.uint8).reshape(-1, 1, 1, 1)

    plain = labelled_set(TEN_EACH)
    data = replace(plain, train=Examples(Store(), plain.train.y))
    split = make_split(data, Split(validation=6), 0)
    chosen = split.validation_examples(data)
    assert chosen is not None
    assert len(chosen.x) == 6
    assert chosen.x[torch.tensor([5, 0])].flatten().tolist() == split.validation[[5, 0]].tolist()


def test_saving_and_loading_keeps_everything(tmp_path: Path) -> None:
    split = make_split(labelled_set(TEN_EACH), Split(labels=6), 1)
    split.save(tmp_path / "split.json")
    read = SplitIndices.load(tmp_path / "split.json")
    assert read.digest == split.digest
    for name in ("labelled", "unlabelled", "validation"):
        assert torch.equal(getattr(read, name), getattr(split, name))
        assert getattr(read, name).dtype == torch.int64
    other = replace(split, published_validation=True)
    other.save(tmp_path / "other.json")
    assert SplitIndices.load(tmp_path / "other.json").published_validation
    assert other.digest != split.digest


@pytest.mark.parametrize(
    "text", ["", "[]", '{"labelled": [1]}', '{"labelled": ["a"], "unlabelled": [], "validation": []}']
)
def test_a_broken_split_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"split.json: not a readable split"):
        SplitIndices.load(path)


@pytest.mark.parametrize(
    ("y", "config", "message"),
    [
        (TEN_EACH, {"labels": 31}, "31 asked for, but only 27"),
        (TEN_EACH, {"labels": 2}, "cannot be balanced over 3 classes"),
        (TEN_EACH, {"labels": 0}, "labels must be at least 1"),
        (TEN_EACH, {"labels": -5}, "labels must be at least 1"),
        (TEN_EACH, {"validation": -1}, "validation must be at least 0"),
        (TEN_EACH, {"validation": float("nan")}, "validation must be at least 0"),
        (TEN_EACH, {"validation": 1.0}, "a fraction must be below 1"),
        (TEN_EACH, {"validation": 30}, "leave too few to train on"),
        (TEN_EACH, {"validation": 0.95}, "leave too few to train on"),
        ([0] * 20 + [1] * 3, {"labels": 10, "validation": 0}, "class 'class1' has 3 labelled examples left"),
        ([0, 0, 2, 2], {}, "class 'class1' has no labelled training example"),
        (
            [0] * 200 + [1],
            {"labels": 2, "balanced": False, "validation": 0, "seed": 0},
            "leave class 'class1' without any",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(y: list[int], config: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_split(labelled_set(y), Split(**config), 0)  # type: ignore[arg-type]
