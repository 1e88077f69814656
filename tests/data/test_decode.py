"""Decoding: formats and modes, damage, resizing, and rows that are decoded when asked for."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vicinal.data.decode import Files, ImageRows, decode, decode_all, headers
from vicinal.errors import InputError

pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def encoded(image: Any, kind: str = "png", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(data: bytes, size: int | None = None, *, grey: bool = False) -> np.ndarray:
    pixels = decode("a.png", data, size, grey)
    assert pixels.dtype == np.uint8
    return pixels


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "ppm"])
def test_lossless_formats_give_the_pixels(kind: str) -> None:
    assert np.array_equal(read(encoded(pil.fromarray(RGB), kind)), RGB.transpose(2, 0, 1))
    assert np.array_equal(read(encoded(pil.fromarray(GREY), kind), grey=True), GREY[None])


def test_grey_in_a_coloured_set_gets_three_equal_channels() -> None:
    assert np.array_equal(read(encoded(pil.fromarray(GREY))), np.stack([GREY] * 3))


def test_palettes_transparency_and_print_colours_become_rgb() -> None:
    few = np.where(GREY[..., None] > 127, np.uint8([255, 0, 10]), np.uint8([0, 200, 30]))
    palette = pil.fromarray(few).convert("P", palette=1)
    assert palette.mode == "P"
    assert np.array_equal(read(encoded(palette)), few.transpose(2, 0, 1))
    # Pillow warns about this one unless it is converted by way of RGBA; warnings are errors here.
    assert np.array_equal(read(encoded(palette, transparency=b"\x00\x80")), few.transpose(2, 0, 1))
    alpha = np.dstack([RGB, GREY])
    assert np.array_equal(read(encoded(pil.fromarray(alpha))), RGB.transpose(2, 0, 1))
    cmyk = read(encoded(pil.fromarray(RGB).convert("CMYK"), "tiff"))
    assert np.array_equal(cmyk, RGB.transpose(2, 0, 1))


def test_bits_become_black_and_white() -> None:
    bits = GREY > 127
    assert np.array_equal(read(encoded(pil.fromarray(bits)), grey=True), bits[None] * np.uint8(255))


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_deep_grey_is_scaled_not_clipped(kind: str) -> None:
    deep = np.array([[0, 257, 128, 129], [32768, 65535, 65278, 25700]], dtype=np.uint16)
    expected = np.array([[0, 1, 0, 1], [128, 255, 254, 100]], dtype=np.uint8)
    data = encoded(pil.fromarray(deep), kind)
    assert np.array_equal(read(data, grey=True)[0], expected)
    assert np.array_equal(read(data), np.stack([expected] * 3))


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 16 * 8, dtype=np.uint8).reshape(16, 8)
    exif = pil.Exif()
    exif[0x0112] = 6  # shown turned by a quarter, clockwise
    path = tmp_path / "photo.jpg"
    pil.fromarray(smooth).save(path, quality=100, exif=exif)
    upright = read(path.read_bytes(), grey=True)[0]
    assert upright.shape == (8, 16)
    assert np.abs(upright.astype(int) - np.rot90(smooth, -1)).max() < 8
    assert headers(Files([path]), "photo")[0].size == (8, 16)


def test_size_resizes_the_shorter_side_and_cuts_the_centre() -> None:
    # Left third black, middle grey, right third white: the centre of a 10x30 image is the middle third.
    wide = np.repeat(np.array([0, 100, 255], dtype=np.uint8), 10)[None].repeat(10, 0)
    middle = read(encoded(pil.fromarray(wide)), 10, grey=True)
    assert middle.shape == (1, 10, 10)
    assert (middle == 100).all()
    assert read(encoded(pil.fromarray(wide.T)), 5, grey=True).shape == (1, 5, 5)
    assert read(encoded(pil.fromarray(RGB)), 9).shape == (3, 9, 9)
    square = RGB[:, :4]
    assert np.array_equal(read(encoded(pil.fromarray(square)), 4), square.transpose(2, 0, 1)), "the right size is kept"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a.png: an empty file, 0 bytes"),
        (b"no image at all", "a.png: not an image that can be read"),
        (
            encoded(pil.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))[:-3000],
            "a.png: damaged",
        ),
        (encoded(pil.fromarray(RGB.repeat(20, 0).repeat(20, 1)), "jpeg")[:700], "a.png: damaged"),
        (encoded(pil.fromarray(np.ones((3, 3), dtype=np.float32)), "tiff"), "a.png: floating-point image"),
        (
            encoded(pil.fromarray(np.full((3, 3), 70_000, dtype=np.int32)), "tiff"),
            "a.png: grey values outside 0..65535",
        ),
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "float", "32 bit"],
)
def test_damage_is_told_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(data)
    assert "\n" not in str(caught.value)


def files(folder: Path, count: int) -> Files:
    paths = []
    for k in range(count):
        paths.append(folder / f"{k}.png")
        pil.fromarray(np.full((2, 3, 3), k % 256, dtype=np.uint8)).save(paths[-1])
    return Files(paths)


def test_rows_decoded_one_by_one_equal_those_decoded_at_once(tmp_path: Path) -> None:
    # More rows than one chunk, so that the order across threads is seen.
    made = files(tmp_path, 300)
    whole = decode_all(made, (3, 2, 3), None, "made")
    assert whole[:, 0, 0, 0].tolist() == [k % 256 for k in range(300)]
    rows = pickle.loads(pickle.dumps(ImageRows(made, None, grey=False)))
    index = torch.tensor([299, 0, 7, 7])
    assert len(rows) == 300
    assert torch.equal(rows[index], whole[index])
    assert [header.size for header in headers(made, "made")] == [(2, 3)] * 300


def test_a_damaged_file_among_many_is_named(tmp_path: Path) -> None:
    made = files(tmp_path, 300)
    (tmp_path / "280.png").write_bytes(b"oops")
    for work in (lambda: headers(made, "made"), lambda: decode_all(made, (3, 2, 3), None, "made")):
        with pytest.raises(InputError, match=r"280\.png: not an image"):
            work()
    with pytest.raises(InputError, match=r"280\.png: not an image"):
        ImageRows(made, None, grey=False)[torch.tensor([1, 280])]
    (tmp_path / "280.png").unlink()
    with pytest.raises(InputError, match=r"280\.png: cannot be read \(No such file"):
        decode_all(made, (3, 2, 3), None, "made")
