"""Contact sheets: every picture is on the page, in its place, unchanged where it fits."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vicinal.errors import InputError
from vicinal.reporting.contact_sheet import COLUMNS, SIDE, Section, contact_sheet, thumbnail

pil: Any = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")


def plain(level: int, shape: tuple[int, ...] = (1, 8, 8)) -> Tensor:
    return torch.full(shape, level, dtype=torch.uint8)


def opened(content: bytes) -> np.ndarray:
    with pil.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def test_every_picture_is_there_as_often_as_it_is_given() -> None:
    levels = [30 + 5 * k for k in range(23)]
    page = opened(contact_sheet([Section("numbers", [plain(level) for level in levels])]))
    grey = page[(page == page[..., :1]).all(axis=-1)][:, 0]
    for level in levels:
        assert (grey == level).sum() >= SIDE * SIDE, level
    # The control: a picture that was not given is not there (writing has a few pixels of any grey).
    assert (grey == 200).sum() < SIDE
    first, last = np.argwhere((page == levels[0]).all(axis=-1)), np.argwhere((page == levels[22]).all(axis=-1))
    assert first[:, 0].max() < last[:, 0].min(), "the third row is below the first"
    assert np.median(last[:, 1]) - np.median(first[:, 1]) == pytest.approx(2 * (SIDE + 6)), "in its third column"


def test_sections_and_captions_make_room() -> None:
    pictures = [plain(50)] * (COLUMNS + 1)
    sizes = [
        opened(contact_sheet(sections)).shape
        for sections in (
            [Section("a", pictures)],
            [Section("a", pictures, ["x"] * len(pictures))],
            [Section("a", pictures), Section("b", [])],
        )
    ]
    assert len({size[1] for size in sizes}) == 1
    assert sizes[0][0] < sizes[1][0]
    assert sizes[0][0] < sizes[2][0]


@pytest.mark.parametrize("text", ["", "a" * 500, "größer é", "猫 und 犬", "two\nlines"])
def test_any_caption_fits_below_its_picture(text: str) -> None:
    content = opened(contact_sheet([Section(text, [plain(255), plain(255)], [text, "x"])]))
    assert (content[20:, SIDE + 7 : SIDE + 11] > 200).all(), "nothing is written between two pictures"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 8, 8), (72, 72)),
        ((3, 8, 4), (36, 72)),
        ((3, 300, 600), (72, 36)),
        ((1, 72, 10), (10, 72)),
        ((3, 1, 500), (72, 1)),
    ],
)
def test_thumbnails_keep_their_proportions(shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    assert thumbnail(plain(9, shape)).size == expected


def test_small_pictures_are_enlarged_in_whole_pixels_and_colours_stay() -> None:
    x = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = x.numpy().transpose(1, 2, 0).repeat(9, axis=0).repeat(9, axis=1)
    assert np.array_equal(np.asarray(thumbnail(x)), expected)
    assert np.array_equal(np.asarray(thumbnail(x.float() / 255)), expected)


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to show"):
        contact_sheet([])
    with pytest.raises(InputError, match="2 pictures and 1 captions"):
        contact_sheet([Section("a", [plain(1)] * 2, ["x"])])
    for shape in ((2, 8, 8), (8, 8)):
        with pytest.raises(InputError, match="1 or 3 channels"):
            contact_sheet([Section("a", [plain(1, shape)])])
