"""Contact sheets: many small pictures with a caption each, on one page, to see at a glance what data hold."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vicinal.data import as_float
from vicinal.errors import InputError, require

SIDE = 72
"""Height and width of the square that a picture is fitted into, in pixels."""
COLUMNS = 10
_GAP, _LINE = 6, 13
_WIDTH = COLUMNS * (SIDE + _GAP) + _GAP
_INK, _FAINT = (20, 20, 20), (110, 110, 110)


class Section(NamedTuple):
    """Pictures under one heading.

    Attributes:
        title: the heading.
        pictures: images (C, H, W), C = 1 or 3, uint8 or float32 in [0,1]; sizes may differ.
        captions: a short text below each; none for no text.
    """

    title: str
    pictures: Sequence[Tensor]
    captions: Sequence[str] = ()


def contact_sheet(sections: Sequence[Section]) -> bytes:
    """A page of pictures, `COLUMNS` in a row, section below section, as PNG.

    Args:
        sections: at least one; captions that are wider than a picture are cut off.

    Raises:
        InputError: nothing to show, a picture that is neither grey nor RGB, or not as many captions as pictures.
        MissingExtraError: Pillow is not installed.
    """
    pil: Any = require("PIL.Image", "images", "drawing a contact sheet")
    from PIL import ImageDraw, ImageFont

    if not sections:
        raise InputError("contact sheet: there is nothing to show; give at least one section")
    for section in sections:
        if section.captions and len(section.captions) != len(section.pictures):
            raise InputError(
                f"contact sheet: {len(section.pictures)} pictures and {len(section.captions)} captions; "
                "give one for each, or none"
            )
    font: Any = ImageFont.load_default()
    page = pil.new("RGB", (_WIDTH, _GAP + sum(_height(section) for section in sections)), "white")
    draw, top = ImageDraw.Draw(page), _GAP
    for section in sections:
        _text(draw, (_GAP, top), section.title, font, _INK, _WIDTH - 2 * _GAP)
        for k, picture in enumerate(section.pictures):
            row, column = divmod(k, COLUMNS)
            left, upper = _GAP + column * (SIDE + _GAP), top + _LINE + _GAP + row * _cell(section)
            small = thumbnail(picture)
            page.paste(small, (left + (SIDE - small.width) // 2, upper + (SIDE - small.height) // 2))
            if section.captions:
                _text(draw, (left, upper + SIDE + 1), section.captions[k], font, _FAINT, SIDE)
        top += _height(section)
    content = io.BytesIO()
    page.save(content, "PNG", optimize=True)
    return content.getvalue()


def thumbnail(x: Tensor, side: int = SIDE) -> Any:
    """An image as a Pillow image whose longer side is ``side``: small ones in whole pixels, large ones averaged.

    Args:
        x: (C, H, W), C = 1 or 3, uint8 or float32 in [0,1].
        side: in pixels.

    Raises:
        InputError: it is neither grey nor RGB.
        MissingExtraError: Pillow is not installed.
    """
    pil: Any = require("PIL.Image", "images", "showing images")
    if x.dim() != 3 or x.shape[0] not in (1, 3):
        raise InputError(f"contact sheet: pictures have 1 or 3 channels, (C, H, W), got {tuple(x.shape)}")
    pixels = (255 * as_float(x.cpu())).round().to(torch.uint8).movedim(0, 2).squeeze(2)
    image = pil.fromarray(pixels.numpy())
    longer = max(image.size)
    if 2 * longer <= side:
        factor = side // longer
        return image.resize((factor * image.width, factor * image.height), pil.Resampling.NEAREST)
    size = tuple(max(1, round(side * length / longer)) for length in image.size)
    return (
        image if longer == side else image.resize(size, pil.Resampling.BOX if longer > side else pil.Resampling.BICUBIC)
    )


def _cell(section: Section) -> int:
    """Height of a row of pictures."""
    return SIDE + _GAP + (_LINE if section.captions else 0)


def _height(section: Section) -> int:
    rows = math.ceil(len(section.pictures) / COLUMNS)
    return _LINE + 2 * _GAP + rows * _cell(section)


def _text(draw: Any, place: tuple[int, int], text: str, font: Any, colour: tuple[int, int, int], width: int) -> None:
    """One line, cut off where it would be wider than ``width`` pixels."""
    text = " ".join(text.split())
    try:
        while draw.textlength(text, font=font) > width:
            text = text[:-2].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
        draw.text(place, text, fill=colour, font=font)
    except UnicodeEncodeError:  # a Pillow without FreeType has a font of Latin letters alone
        _text(draw, place, text.encode("latin-1", "replace").decode("latin-1"), font, colour, width)
