"""From encoded images to uint8 tensors: the one place that decodes, for data in memory and for data streamed."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from vicinal.data._progress import track
from vicinal.errors import InputError, require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image

_CHUNK = 256
_GREY = ("1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N", "I")
_EXIF_ORIENTATION = 0x0112


class DamagedImageError(InputError):
    """A file that should be an image and cannot be read as one: the message names it and says what is wrong."""


class Encoded(Protocol):
    """Encoded images addressed by row."""

    def __len__(self) -> int: ...

    def read(self, rows: Sequence[int]) -> list[tuple[str, bytes]]:
        """Name (for messages) and encoded bytes of each row.

        Raises:
            DamagedImageError: a file cannot be read.
        """
        ...


class Files:
    """Image files by row (`Encoded`).

    Args:
        paths: one file per row.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = [str(path) for path in paths]

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, rows: Sequence[int]) -> list[tuple[str, bytes]]:
        """Names and contents of the files."""
        return [(self._paths[row], read_file(self._paths[row])) for row in rows]


def read_file(path: str) -> bytes:
    """Content of a file.

    Raises:
        DamagedImageError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DamagedImageError(f"{path}: cannot be read ({error.strerror})") from error


class Header(NamedTuple):
    """What an image says about itself before it is decoded.

    Attributes:
        name: where it is from.
        size: (height, width) in pixels.
        grey: whether it has one channel.
    """

    name: str
    size: tuple[int, int]
    grey: bool


class ImageRows:
    """Images that are decoded when they are asked for (`vicinal.data.types.Rows`).

    Args:
        encoded: the images.
        size: height and width to resize and centre-crop to, or None to take them as they are.
        grey: one channel instead of three.
    """

    def __init__(self, encoded: Encoded, size: int | None, grey: bool) -> None:
        self._encoded, self._size, self._grey = encoded, size, grey

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Rows ``index`` (int64, (B,)) as uint8 (B, C, H, W).

        Raises:
            DamagedImageError: an image is damaged.
        """
        read = self._encoded.read(index.tolist())
        return torch.from_numpy(np.stack([decode(name, data, self._size, self._grey) for name, data in read]))


def headers(encoded: Encoded, label: str) -> list[Header]:
    """Headers of all images.

    Raises:
        DamagedImageError: a file is not an image.
    """

    def look(rows: range) -> list[Header]:
        return [_header(name, data) for name, data in encoded.read(rows)]

    return [header for chunk in _in_chunks(look, len(encoded), f"looking at {label}") for header in chunk]


def damaged(encoded: Encoded, label: str) -> dict[int, str]:
    """Rows of the images that cannot be read, and what is wrong with each; every image is decoded once to find out.

    Args:
        encoded: the images.
        label: what they are, for the progress bar.
    """

    def look(rows: range) -> list[tuple[int, str]]:
        found = []
        for row in rows:
            try:
                ((name, data),) = encoded.read([row])
                decode(name, data, None, grey=False)
            except DamagedImageError as error:
                found.append((row, str(error)))
        return found

    return dict(pair for chunk in _in_chunks(look, len(encoded), f"looking at {label}") for pair in chunk)


def decode_all(encoded: Encoded, shape: tuple[int, int, int], size: int | None, label: str) -> Tensor:
    """All images as one uint8 tensor (N, C, H, W).

    Args:
        encoded: the images.
        shape: (C, H, W) that they have, after resizing to ``size`` if one is given.
        size: as for `ImageRows`.
        label: what they are, for the progress bar.

    Raises:
        DamagedImageError: an image is damaged.
    """
    out = np.empty((len(encoded), *shape), dtype=np.uint8)

    def fill(rows: range) -> None:
        for row, (name, data) in zip(rows, encoded.read(rows), strict=True):
            out[row] = decode(name, data, size, grey=shape[0] == 1)

    for _ in _in_chunks(fill, len(encoded), f"decoding {label}"):
        pass
    return torch.from_numpy(out)


def decode(name: str, data: bytes, size: int | None, grey: bool) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """One image as uint8 (C, H, W), C = 1 if ``grey`` else 3.

    Photographs are turned upright (EXIF), transparency is dropped, 16-bit grey is scaled to 8 bit, of an animation the
    first frame is taken. With ``size``, the shorter side is resized to it (bilinear, antialiased), the centre cut out.

    Raises:
        DamagedImageError: it is not an image, or damaged; the message starts with ``name``.
    """
    with _opened(name, data) as image:
        turned = _upright(image)
        plain = _eight_bit(name, turned)
        if plain.mode == "P" and "transparency" in plain.info:
            # Pillow warns about palettes with transparency unless they pass through RGBA.
            plain = plain.convert("RGBA")
        mode = "L" if grey else "RGB"
        plain = plain if plain.mode == mode else plain.convert(mode)
        pixels: np.ndarray[Any, np.dtype[np.uint8]] = np.asarray(plain if size is None else _resized(plain, size))
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _header(name: str, data: bytes) -> Header:
    with _opened(name, data) as image:
        width, height = image.size
        if _orientation(image) >= 5:
            width, height = height, width
        return Header(name, (height, width), image.mode in _GREY)


@contextmanager
def _opened(name: str, data: bytes) -> Iterator[Image]:
    """The image, with what goes wrong on opening or decoding it told as one line."""
    pil: Any = require("PIL.Image", "images", "reading images")
    try:
        with pil.open(io.BytesIO(data)) as image:
            yield image
    except InputError:
        raise
    except pil.UnidentifiedImageError as error:
        what = f"not an image that can be read ({len(data)} bytes)" if data else "an empty file, 0 bytes"
        raise DamagedImageError(f"{name}: {what}; replace or remove it") from error
    except Exception as error:
        # Decoders raise whatever their format's parser or decompressor raises on damaged bytes.
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedImageError(f"{name}: damaged image ({detail}); replace or remove it") from error


def _orientation(image: Image) -> int:
    """EXIF orientation, 1 (upright) to 8; only photographs carry one, and asking a PNG for it would decode it."""
    return int(image.getexif().get(_EXIF_ORIENTATION, 1)) if image.format in ("JPEG", "MPO") else 1


def _upright(image: Image) -> Image:
    if _orientation(image) == 1:
        return image
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _eight_bit(name: str, image: Image) -> Image:
    """Deep grey images scaled to 8 bit: 65535 becomes 255. Pillow's own conversion clips instead."""
    if image.mode == "F":
        raise DamagedImageError(f"{name}: floating-point image; save it with 8 or 16 bits, or load arrays instead")
    if not image.mode.startswith("I"):
        return image
    from PIL.Image import fromarray

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DamagedImageError(f"{name}: grey values outside 0..65535; save it with 8 or 16 bits")
    return fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _resized(image: Image, size: int) -> Image:
    """Shorter side resized to ``size``, centre cut out."""
    if image.size == (size, size):
        return image
    from PIL.Image import Resampling

    width, height = image.size
    scale = size / min(width, height)
    wide, high = max(size, round(width * scale)), max(size, round(height * scale))
    left, top = (wide - size) // 2, (high - size) // 2
    return image.resize((wide, high), Resampling.BILINEAR).crop((left, top, left + size, top + size))


def _in_chunks(work: Callable[[range], Any], total: int, label: str) -> Iterator[Any]:
    """Results of ``work`` on runs of rows, in order; Pillow decodes outside the interpreter lock, so threads help."""
    chunks = [range(first, min(first + _CHUNK, total)) for first in range(0, total, _CHUNK)]
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        try:
            yield from track(pool.map(work, chunks), len(chunks), label)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
