"""Published sets of corrupted images, made small in their layouts; and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vicinal.data import corrupted as module
from vicinal.data import eval_batches
from vicinal.data.corrupted import read_corrupted
from vicinal.errors import InputError

Writer = Callable[..., np.ndarray]
N = 6
Y = np.array([3, 0, 2, 1, 1, 0])


def images(seed: int, rows: int = 5 * N) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """As CIFAR-10-C: two corruptions of six images, and labels five times."""
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "gaussian_noise.npy", images(0))
    np.save(folder / "fog.npy", images(1))
    np.save(folder / "labels.npy", np.tile(Y, 5))
    (folder / "README.txt").write_text("not an array")
    return folder


@pytest.fixture
def folders(tmp_path: Path, write_image: Writer) -> Path:
    """As Tiny-ImageNet-C: corruption / severity / class / *.JPEG."""
    folder = tmp_path / "Tiny-ImageNet-C"
    for k, kind in enumerate(("snow", "brightness")):
        for severity in range(1, 6):
            for c, name in enumerate(("n02", "n01")):
                for i in range(2):
                    path = folder / kind / str(severity) / name / f"test_{i}.JPEG"
                    write_image(path, seed=1000 * k + 100 * severity + 10 * c + i, size=(8, 8))
    return folder


def everything(part: Any) -> torch.Tensor:
    found: torch.Tensor = part.x[torch.arange(len(part))]
    return found


def test_arrays_are_read_severity_by_severity(arrays: Path) -> None:
    data = read_corrupted(arrays)
    assert (data.kinds, data.classes, data.path) == (("fog", "gaussian_noise"), None, arrays)
    for seed, kind in enumerate(("gaussian_noise", "fog")):
        published = images(seed)
        for severity in range(1, 6):
            part = data.part(kind, severity)
            expected = published[(severity - 1) * N : severity * N].transpose(0, 3, 1, 2)
            assert part.y.tolist() == Y.tolist()
            assert part.y.dtype == torch.int64
            assert everything(part).dtype == torch.uint8
            assert np.array_equal(everything(part).numpy(), expected)
            assert np.array_equal(part.x[torch.tensor([4, 1])].numpy(), expected[[4, 1]])
    x, y = next(iter(eval_batches(data.part("fog", 5), 4)))
    assert x.dtype == torch.float32
    assert np.allclose(x.numpy() * 255, images(1)[4 * N : 4 * N + 4].transpose(0, 3, 1, 2))
    assert y.tolist() == Y[:4].tolist()


def test_labels_of_the_second_set_need_not_be_int64(arrays: Path) -> None:
    np.save(arrays / "labels.npy", np.tile(Y, 5).astype(np.uint8))
    assert read_corrupted(str(arrays), classes=list("abcd")).part("fog", 2).y.tolist() == Y.tolist()


def test_rows_of_another_severity_are_out_of_reach(arrays: Path) -> None:
    part = read_corrupted(arrays).part("fog", 1)
    with pytest.raises(IndexError):
        part.x[torch.tensor([N])]


def test_arrays_are_read_only_when_they_are_asked_for(arrays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening and choosing looks at headers; a batch takes the bytes of its own rows; a worker is sent a name."""
    opened: list[np.ndarray] = []
    mapped = module._mapped

    def recorded(path: Path) -> np.ndarray:
        opened.append(mapped(path))
        return opened[-1]

    monkeypatch.setattr(module, "_mapped", recorded)
    part = read_corrupted(arrays).part("fog", 3)
    assert all(isinstance(each, np.memmap) for each in opened)
    assert len(pickle.dumps(part.x)) < 1000
    before = everything(part)
    changed = np.load(arrays / "fog.npy")
    changed[2 * N] = 255 - changed[2 * N]
    changed[3 * N] = 0
    opened.clear()
    np.save(arrays / "fog.npy", changed)
    after = everything(part)
    assert torch.equal(after[1:], before[1:])
    assert torch.equal(after[0], 255 - before[0])


def test_folders_are_read_class_by_class(folders: Path) -> None:
    from vicinal.data.decode import decode

    data = read_corrupted(folders)
    assert (data.kinds, data.classes) == (("brightness", "snow"), ("n01", "n02"))
    for kind in data.kinds:
        for severity in (1, 5):
            part = data.part(kind, severity)
            assert part.y.tolist() == [0, 0, 1, 1]
            paths = [
                folders / kind / str(severity) / name / f"test_{i}.JPEG" for name in ("n01", "n02") for i in (0, 1)
            ]
            expected = np.stack([decode(str(path), path.read_bytes(), None, grey=False) for path in paths])
            assert np.array_equal(everything(part).numpy(), expected)
            assert everything(part).shape == (4, 3, 8, 8)
    one, five = everything(data.part("snow", 1)), everything(data.part("snow", 5))
    assert not torch.equal(one, five)


def test_the_networks_order_of_classes_counts(folders: Path) -> None:
    usual, other = read_corrupted(folders), read_corrupted(folders, classes=("n02", "n01"))
    a, b = usual.part("snow", 2), other.part("snow", 2)
    assert a.y.tolist() == b.y.tolist() == [0, 0, 1, 1]
    assert torch.equal(everything(a)[:2], everything(b)[2:])


def test_images_are_decoded_only_when_they_are_asked_for(folders: Path) -> None:
    part = read_corrupted(folders).part("snow", 1)
    (folders / "snow" / "1" / "n02" / "test_1.JPEG").write_bytes(b"damaged")
    assert part.x[torch.tensor([0, 2])].shape == (2, 3, 8, 8)
    with pytest.raises(InputError, match=r"test_1.JPEG: not an image"):
        everything(part)


def said(path: Path, kind: str | None = None, severity: Any = 1, **settings: Any) -> str:
    """The one line that opening, choosing or reading ends with."""

    def read() -> None:
        data = read_corrupted(path, **settings)
        everything(data.part(kind or data.kinds[0], severity))

    with pytest.raises(InputError) as raised:
        read()
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("fog", images(0).astype(np.float32), "expected images uint8 (5 n, H, W, 3), got float32 (30, 8, 8, 3)"),
        (
            "fog",
            images(0).transpose(0, 3, 1, 2).copy(),
            "expected images uint8 (5 n, H, W, 3), got uint8 (30, 3, 8, 8)",
        ),
        ("fog", images(0, 29), "29 images, but labels.npy has 30 labels"),
        ("fog", np.array([{}], dtype=object), "fog.npy: not a readable .npy file of a plain array"),
        ("labels", np.tile(Y, 4)[:23], "23 labels; expected those of the test set five times"),
        ("labels", np.zeros(0, dtype=np.int64), "labels.npy"),
        ("labels", np.repeat(Y, 5), "its five fifths differ"),
        ("labels", np.tile(Y, 5) + 0.5, "labels must be whole numbers"),
        ("labels", np.tile(Y, 5) - 1, "has no label (-1)"),
        ("labels", np.array(3), "one label per example"),
    ],
)
def test_arrays_in_another_layout_are_refused(arrays: Path, name: str, content: np.ndarray, message: str) -> None:
    np.save(arrays / f"{name}.npy", content)
    assert message in said(arrays)


def test_damaged_and_missing_arrays_are_refused(arrays: Path) -> None:
    whole = (arrays / "fog.npy").read_bytes()
    for content in (whole[:1000], whole[:5], b"", b"<html>not found</html>"):
        (arrays / "fog.npy").write_bytes(content)
        assert "fog.npy: not a readable .npy file" in said(arrays)
    with (arrays / "fog.npy").open("wb") as file:
        np.savez(file, images(0))
    assert "fog.npy: not a readable .npy file" in said(arrays)
    (arrays / "fog.npy").unlink()
    assert "label 3, but there are 2 classes" in said(arrays, classes=("a", "b"))
    assert "no corruption 'gausian_noise'; did you mean 'gaussian_noise'?" in said(arrays, "gausian_noise")
    for severity in (0, 6, 1.5, "1"):
        assert "choose one of 1, 2, 3, 4, 5" in said(arrays, severity=severity)
    (arrays / "labels.npy").rename(arrays / "gone")
    assert "there is no labels.npy" in said(arrays)
    (arrays / "gone").rename(arrays / "labels.npy")
    (arrays / "gaussian_noise.npy").unlink()
    assert "but no corruption" in said(arrays)
    assert "no such folder" in said(arrays / "none")
    (arrays / "labels.npy").unlink()
    assert "neither .npy files nor folders of corruptions (found README.txt); is it unpacked?" in said(arrays)


def test_folders_in_another_layout_are_refused(folders: Path, write_image: Writer) -> None:
    assert "n02: none of the 2 classes; give those of the training set" in said(folders, classes=("n01", "n03"))
    assert "n03: no images of this class" in said(folders, classes=("n01", "n02", "n03"))
    assert "no corruption 'fog'" in said(folders, "fog")
    write_image(folders / "snow" / "2" / "n02" / "test_1.JPEG", size=(8, 6))
    assert "is 6x8 pixels (width x height), but" in said(folders, "snow", 2)
    for path in (folders / "snow" / "3" / "n01").iterdir():
        path.unlink()
    assert "n01: no images of this class; is the archive unpacked completely?" in said(folders, "snow", 3)
    (folders / "snow" / "4").rename(folders / "snow" / "four")
    assert "there is no folder '4'" in said(folders)


def test_a_folder_of_classes_is_not_one_of_corruptions(tmp_path: Path, write_image: Writer) -> None:
    write_image(tmp_path / "cat" / "0.png")
    assert "cat: there is no folder '1'; expected corruption/severity/class" in said(tmp_path)
    for severity in range(1, 6):
        write_image(tmp_path / "cat" / str(severity) / "0.png")
    assert "there are no class folders (found 0.png)" in said(tmp_path)
