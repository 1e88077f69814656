"""What a trained network is given to label: names, order, shapes, and what does not fit."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vicinal.data import as_float, read_inputs, read_sound_inputs
from vicinal.errors import InputError

PIL: Any = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")


def picture(path: Path, value: int, size: tuple[int, int] = (8, 6), mode: str = "L") -> None:
    """An image of one value, (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.new(mode, size, value if mode == "L" else (value,) * 3).save(path)


def values(source: Path, shape: tuple[int, ...], **options: Any) -> tuple[list[str], torch.Tensor]:
    names, rows = read_inputs(source, shape, **options)
    assert len(rows) == len(names)
    return names, rows[torch.arange(len(names))]


def test_a_folder_is_read_at_any_depth_in_the_order_of_the_names(tmp_path: Path) -> None:
    for name, value in {"b.png": 20, "a/z é.png": 30, "a/deep/er/x.PNG": 10, ".hidden/h.png": 99}.items():
        picture(tmp_path / name, value)
    (tmp_path / "readme.txt").touch()
    names, x = values(tmp_path, (1, 6, 8))
    assert names == ["a/deep/er/x.PNG", "a/z é.png", "b.png"]
    assert x.shape == (3, 1, 6, 8)
    assert x.dtype == torch.uint8
    assert x[:, 0, 0, 0].tolist() == [10, 30, 20]
    _, rows = read_inputs(tmp_path, (1, 6, 8))
    assert rows[torch.tensor([2, 0])][:, 0, 0, 0].tolist() == [20, 10]


def test_one_image(tmp_path: Path) -> None:
    picture(tmp_path / "a b.png", 7)
    assert values(tmp_path / "a b.png", (1, 6, 8))[0] == ["a b.png"]


def test_channels_are_those_of_the_network(tmp_path: Path) -> None:
    picture(tmp_path / "grey.png", 40)
    picture(tmp_path / "rgb.png", 40, mode="RGB")
    for channels in (1, 3):
        x = values(tmp_path, (channels, 6, 8))[1]
        assert x.shape == (2, channels, 6, 8)
        assert x.unique().tolist() == [40]


def test_images_are_decoded_when_they_are_asked_for(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / f"{i}.png", i)
    _, rows = read_inputs(tmp_path, (1, 6, 8))
    (tmp_path / "1.png").write_bytes(b"gone")
    assert rows[torch.tensor([0, 2])][:, 0, 0, 0].tolist() == [0, 2]
    with pytest.raises(InputError, match=r"1\.png: not an image"):
        rows[torch.tensor([1])]


def test_another_size_is_refused_or_resized_as_in_training(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    picture(tmp_path / "b.png", 1, size=(9, 6))
    with pytest.raises(InputError, match=r"b\.png: is 9x6 pixels .* the run takes 8x6; resize it .* were not resized"):
        read_inputs(tmp_path, (1, 6, 8))
    names, x = values(tmp_path, (1, 4, 4), size=4)
    assert names == ["a.png", "b.png"]
    assert x.shape == (2, 1, 4, 4)


def test_damaged_images_are_left_out_and_told(tmp_path: Path) -> None:
    for i in range(4):
        picture(tmp_path / f"{i}.png", 10 * i)
    assert read_sound_inputs(tmp_path, (1, 6, 8)).damaged == {}
    (tmp_path / "0.png").write_bytes(b"")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:50])  # its header is whole
    with pytest.raises(InputError, match=r"0\.png: an empty file"):
        read_inputs(tmp_path, (1, 6, 8))
    for size, shape in ((None, (1, 6, 8)), (4, (1, 4, 4))):
        names, rows, damaged = read_sound_inputs(tmp_path, shape, size=size)
        assert names == ["1.png", "3.png"]
        assert rows[torch.arange(2)][:, 0, 0, 0].tolist() == [10, 30]
        assert list(damaged) == ["0.png", "2.png"]
        assert all(str(tmp_path / name) in message for name, message in damaged.items())
    picture(tmp_path / "wide.png", 1, size=(9, 6))
    with pytest.raises(InputError, match=r"wide\.png: is 9x6 pixels"):
        read_sound_inputs(tmp_path, (1, 6, 8))
    np.savez(tmp_path / "new.npz", x=np.zeros((2, 4)))
    assert read_sound_inputs(tmp_path / "new.npz", (4,)).damaged == {}


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes are Linux's")
def test_a_name_that_is_no_text_can_be_written(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    os.rename(os.fsencode(tmp_path / "a.png"), os.fsencode(tmp_path) + b"/\xff.png")
    names, x = values(tmp_path, (1, 6, 8))
    assert names == ["\ufffd.png"]
    assert len(x) == 1


@pytest.mark.parametrize("key", ["x", "x_test"])
@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ((5, 3, 6, 8), (3, 6, 8)),
        ((5, 6, 8, 3), (3, 6, 8)),
        ((5, 6, 8), (1, 6, 8)),
        ((5, 48), (48,)),
        ((5, 3, 6, 3), (3, 6, 3)),
        ((5, 3, 3, 3), (3, 3, 3)),
    ],
)
def test_arrays_in_every_layout(tmp_path: Path, key: str, given: tuple[int, ...], shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 256, given, dtype=np.uint8)
    np.savez(tmp_path / "new.npz", **{key: x, "y": np.zeros(3)})
    names, read = values(tmp_path / "new.npz", shape)
    assert names == ["0", "1", "2", "3", "4"]
    assert read.shape == (5, *shape)
    expected = x.transpose(0, 3, 1, 2) if given == (5, 6, 8, 3) else x
    assert np.array_equal(read.numpy().reshape(-1), expected.reshape(-1))
    assert as_float(read).dtype == torch.float32


def test_x_goes_before_x_test(tmp_path: Path) -> None:
    np.savez(tmp_path / "new.npz", x_test=np.zeros((2, 4)), x=np.ones((3, 4)))
    assert values(tmp_path / "new.npz", (4,))[1].tolist() == [[1.0] * 4] * 3


@pytest.mark.parametrize(
    ("arrays", "shape", "message"),
    [
        ({"pixels": np.zeros((2, 4))}, (4,), r"no array 'x' or 'x_test'; found: pixels"),
        ({"x": np.zeros((2, 4))}, (5,), r"x: has shape \(2, 4\), but the run takes vectors of 5 numbers, \(N, 5\)"),
        ({"x": np.zeros((2, 4))}, (1, 2, 2), r"\(2, 4\), but the run takes images \(N, 1, 2, 2\) or \(N, 2, 2, 1\)"),
        ({"x": np.zeros((2, 1, 3, 4))}, (1, 4, 3), r"\(2, 1, 3, 4\), but the run takes images"),
        ({"x": np.zeros((2, 2, 2))}, (3, 2, 2), r"\(2, 2, 2\), but the run takes images"),
        ({"x": np.zeros((2, 1, 2, 2))}, (4,), r"\(2, 1, 2, 2\), but the run takes vectors"),
        ({"x": np.zeros((0, 4))}, (4,), r"there are no examples"),
        ({"x": np.full((2, 4), np.nan)}, (4,), r"example 0 contains NaN"),
        ({"x": np.full((2, 1, 2, 2), 7.0)}, (1, 2, 2), r"must lie in \[0,1\]"),
        ({"x": np.array(["a", "b"])}, (4,), r"expected numbers"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], shape: tuple[int, ...], message: str) -> None:
    np.savez(tmp_path / "new.npz", **arrays)
    with pytest.raises(InputError, match=message) as caught:
        read_inputs(tmp_path / "new.npz", shape)
    assert "new.npz" in str(caught.value)


def test_what_is_not_there_or_no_input(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.npz").write_bytes(b"PK\x03\x04")
    picture(tmp_path / "pictures" / "a.png", 1)
    for name, shape, message in [
        ("nothing", (4,), "no such file or folder"),
        ("notes.txt", (1, 6, 8), "neither an image"),
        ("empty", (1, 6, 8), "no images in this folder"),
        ("no.npz", (4,), "not a readable"),
        ("pictures", (4,), "images, but the run takes vectors of 4 numbers"),
    ]:
        with pytest.raises(InputError, match=message):
            read_inputs(tmp_path / name, shape)
