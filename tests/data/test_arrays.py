"""Arrays in memory and in .npz files: layouts, types, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vicinal.data import Dataset, from_arrays, load
from vicinal.errors import InputError
from vicinal.settings import Choice

Y = np.array([0, 1, 2, -1])
NHWC = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
NCHW = NHWC.transpose(0, 3, 1, 2)
VECTORS = np.random.default_rng(0).normal(size=(4, 7))


def inputs(data: Dataset) -> torch.Tensor:
    assert isinstance(data.train.x, torch.Tensor)
    return data.train.x


@pytest.mark.parametrize(
    ("x", "layout"),
    [
        (NCHW, "auto"),
        (NHWC, "auto"),
        (torch.from_numpy(NHWC), "auto"),
        (NHWC, "NHWC"),
        (NCHW, "NCHW"),
        (NHWC.tolist(), "auto"),
    ],
    ids=["nchw", "nhwc", "tensor", "nhwc named", "nchw named", "list"],
)
def test_both_layouts_give_the_same_images(x: Any, layout: Any) -> None:
    if isinstance(x, list):
        x = np.asarray(x, dtype=np.uint8)
    data = from_arrays(x, Y, layout=layout)
    assert data.shape == (3, 5, 6)
    assert inputs(data).dtype == torch.uint8
    assert np.array_equal(inputs(data).numpy(), NCHW)
    assert inputs(data).is_contiguous()
    assert data.train.y.tolist() == [0, 1, 2, -1]
    assert data.train.y.dtype == torch.int64
    assert data.classes == ("0", "1", "2")


def test_grey_images_need_no_channel_axis() -> None:
    data = from_arrays(NHWC[..., 0], Y)
    assert data.shape == (1, 5, 6)
    assert np.array_equal(inputs(data)[:, 0].numpy(), NHWC[..., 0])


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_float_images_become_float32(kind: Any) -> None:
    data = from_arrays((NHWC / 255).astype(kind), Y)
    assert inputs(data).dtype == torch.float32
    assert np.allclose(inputs(data).numpy(), NCHW / 255, atol=1e-3)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32, np.uint8, bool])
def test_vectors_of_any_numbers_become_float32(kind: Any) -> None:
    data = from_arrays((VECTORS * 3).astype(kind), Y)
    assert (data.shape, data.is_images) == ((7,), False)
    assert inputs(data).dtype == torch.float32
    assert np.allclose(inputs(data).numpy(), (VECTORS * 3).astype(kind))
    assert inputs(from_arrays(np.asfortranarray(VECTORS), Y)).is_contiguous()


def test_arrays_are_copied() -> None:
    x, y = VECTORS.astype(np.float32), Y.copy()
    data = from_arrays(x, y)
    x[:], y[:] = 0, 0
    assert np.allclose(inputs(data).numpy(), VECTORS)
    assert data.train.y.tolist() == [0, 1, 2, -1]


@pytest.mark.parametrize("y", [Y.astype(np.float32), Y[:, None], Y.tolist(), Y.astype(np.int8), torch.from_numpy(Y)])
def test_labels_of_any_whole_type_are_taken(y: Any) -> None:
    assert from_arrays(VECTORS, y).train.y.tolist() == [0, 1, 2, -1]


def test_names_allow_for_classes_without_examples() -> None:
    data = from_arrays(VECTORS, [0, 2, 2, -1], classes=["a", "b", "c"])
    assert data.classes == ("a", "b", "c")


def test_the_content_is_named_by_inputs_and_labels_of_all_parts() -> None:
    plain = from_arrays(VECTORS, Y)
    assert plain.source["content"] == from_arrays(VECTORS, Y, name="other").source["content"]
    others = [
        from_arrays(VECTORS + 1e-3, Y),
        from_arrays(VECTORS, [0, 1, 2, 2]),
        from_arrays(VECTORS, Y, VECTORS, abs(Y)),
        from_arrays(VECTORS, Y, None, None, VECTORS, abs(Y)),
    ]
    assert len({data.source["content"] for data in (plain, *others)}) == 5


KEYS = {
    "ours": ("x_train", "y_train", "x_test", "y_test", "x_validation", "y_validation"),
    "medmnist": ("train_images", "train_labels", "test_images", "test_labels", "val_images", "val_labels"),
}


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_files_are_read_by_their_keys(tmp_path: Path, keys: tuple[str, ...]) -> None:
    path = str(tmp_path / "data.npz")
    values = (NHWC, Y[:, None], NHWC[:2], Y[:2], NHWC[1:3], Y[1:3])
    np.savez(path, **dict(zip(keys, values, strict=True)))
    data = load(Choice(path))
    assert data.test is not None
    assert data.validation is not None
    assert (data.name, data.source["data"]) == ("data.npz", path)
    assert (len(data.train), len(data.test), len(data.validation)) == (4, 2, 2)
    assert data.validation.y.tolist() == [1, 2]
    assert torch.equal(data.test.x[torch.arange(2)], inputs(data)[:2])


def test_a_file_with_x_and_y_has_a_training_part_only(tmp_path: Path) -> None:
    path = str(tmp_path / "data.npz")
    np.savez_compressed(path, x=NHWC, y=Y)
    data = load(Choice(path, {"layout": "NHWC"}))
    assert (len(data.train), data.test, data.validation) == (4, None, None)


def changed(x: np.ndarray, value: Any) -> np.ndarray:
    x = x.copy()
    x.reshape(-1)[-1] = value
    return x


BAD: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "NaN pixel": ((changed(NHWC / 255, np.nan), Y), {}, "x_train: example 3 contains NaN or infinity"),
    "infinite feature": ((changed(VECTORS, np.inf), Y), {}, "x_train: example 3 contains NaN or infinity"),
    "too large for float32": ((changed(VECTORS, 1e300), Y), {}, "contains NaN or infinity"),
    "0..255 as float": ((NHWC.astype(np.float32), Y), {}, r"float images must lie in \[0,1\], got values from"),
    "negative pixels": ((changed(NHWC / 255, -0.1), Y), {}, r"must lie in \[0,1\]"),
    "int pixels": ((NHWC.astype(np.int64), Y), {}, "images must be uint8 in 0..255 or float"),
    "strings": ((np.array([["a"], ["b"]]), [0, 1]), {}, "expected numbers"),
    "one axis": ((VECTORS[:, 0], Y), {}, r"got shape \(4,\)"),
    "five axes": ((NHWC[None], Y), {}, r"got shape \(1, 4, 5, 6, 3\)"),
    "ragged": (([[1.0], [1.0, 2.0]], [0, 1]), {}, "differ in shape"),
    "no examples": ((VECTORS[:0], Y[:0]), {}, "there are no examples"),
    "no pixels": ((NHWC[:, :0], Y), {}, "there are no examples"),
    "ambiguous layout": ((NHWC[:, :3], Y), {}, "both could be the channels; set layout"),
    "no channel axis": ((NHWC[:, :, :, :2], Y), {}, "neither has 1 or 3 channels"),
    "short labels": ((VECTORS, Y[:3]), {}, "3 labels for 4 examples"),
    "one-hot labels": ((VECTORS, np.eye(4)), {}, r"shape \(N,\), got shape \(4, 4\)"),
    "fractions": ((VECTORS, [0, 1, 0.5, 1]), {}, "whole numbers .class indices., got 0.5"),
    "NaN labels": ((VECTORS, [0, 1, np.nan, 1]), {}, "mark unlabelled examples by -1"),
    "text labels": ((VECTORS, ["a", "b", "a", "b"]), {}, "labels must be whole numbers"),
    "label -2": ((VECTORS, [0, 1, -2, 1]), {}, "label -2 is negative"),
    "gap": ((VECTORS, [0, 2, 2, 0]), {}, "no training example has label 1, but labels go up to 2"),
    "test class not trained": ((VECTORS, [0, 1, 1, 0], VECTORS[:1], [2]), {}, "no training example has label 2"),
    "one class": ((VECTORS, [1, 1, 1, -1]), {}, r"belong to one class \(1\)"),
    "one named class": ((VECTORS, [1, 1, 1, -1]), {"classes": ["a", "b"]}, r"belong to one class \(b\)"),
    "no labels": ((VECTORS, [-1] * 4), {}, "no labels at all"),
    "label without name": ((VECTORS, Y), {"classes": ["a", "b"]}, "label 2 is out of range: there are 2 class names"),
    "names twice": ((VECTORS, Y), {"classes": ["a", "b", "a"]}, "two classes have the same name"),
    "unlabelled test": ((VECTORS, Y, VECTORS, Y), {}, "y_test: row 3 has no label"),
    "test without labels": ((VECTORS, Y, VECTORS), {}, "y_test is missing"),
    "labels without test": ((VECTORS, Y, None, Y), {}, "x_test is missing"),
    "test of another shape": (
        (VECTORS, Y, VECTORS[:, :5], abs(Y)),
        {},
        r"x_test: examples have shape \(5,\), but in x_train \(7,\)",
    ),
    "nothing": ((None, None), {}, "x_train and y_train are missing"),
}


@pytest.mark.parametrize(("given", "settings", "message"), BAD.values(), ids=BAD)
def test_unfit_arrays_are_refused(given: tuple[Any, ...], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        from_arrays(*given, **settings)
    assert "\n" not in str(caught.value)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x_train=NHWC)
    with pytest.raises(InputError, match=r"data: .*data.npz: there is no array 'y_train'; found: x_train"):
        load(Choice(str(path)))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"data.npz: not a readable .npz file"):
        load(Choice(str(path)))
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"data.npz: not a readable .npz file"):
        load(Choice(str(path)))
    np.savez(path, x=np.array([{"code": "not run"}], dtype=object), y=Y[:1])
    with pytest.raises(InputError, match=r"data.npz: not a readable .npz file"):
        load(Choice(str(path)))
    with path.open("wb") as file:
        np.save(file, NHWC)  # a single array under the wrong ending
    with pytest.raises(InputError, match=r"data.npz: not a readable .npz file"):
        load(Choice(str(path)))
    np.savez(path, x=NHWC, y=Y[:2])
    with pytest.raises(InputError, match=r"data.npz: y_train: 2 labels for 4 examples"):
        load(Choice(str(path)))
    with pytest.raises(InputError, match="layout: expected one of 'auto', 'NCHW', 'NHWC'"):
        load(Choice(str(path), {"layout": "HWC"}))
