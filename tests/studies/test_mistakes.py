"""The most confident mistakes against all predictions sorted at once; their pictures and names."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vicinal.data import Dataset, Examples, Split, load, make_split
from vicinal.errors import InputError, MissingExtraError
from vicinal.evaluation import figures
from vicinal.settings import Choice
from vicinal.studies import Subject, mistakes
from vicinal.studies.mistakes import Mistakes


class Said(nn.Module):
    """A network whose logits are the first features of its inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3]


def told(logits: Tensor, y: Tensor, subject: Subject) -> Subject:
    """A subject whose network gives these logits."""
    examples = Examples(logits, y)
    shape = tuple(logits.shape[1:])
    dataset = dataclasses.replace(subject.dataset, test=examples, classes=("a", "b", "c"), shape=shape)
    return dataclasses.replace(subject, network=Said(), dataset=dataset)


def many(vectors: Subject, n: int = 700) -> Subject:
    """Of forty different examples, so that confidences are often equal, to the bit."""
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 4, generator=draws)[torch.randint(40, (n,), generator=draws)]
    return told(logits, torch.randint(3, (n,), generator=draws), vectors)


def check_against_all_at_once(subject: Subject, count: int) -> None:
    found = Mistakes(count=count)(subject, 0)
    x, y = subject.examples.x[torch.arange(len(subject.examples))], subject.examples.y.numpy()
    logits = subject.network(x).detach().double().numpy()
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predicted = logits.argmax(axis=1)
    rows = [row for row in range(len(y)) if predicted[row] != y[row]]
    rows.sort(key=lambda row: (-round(p[row].max(), 12), row))
    assert (found["n"], found["wrong"]) == (len(y), len(rows))
    assert found["wrong"] / found["n"] == figures(subject.network, [(x, subject.examples.y)]).error
    assert [item["index"] for item in found["items"]] == rows[:count]
    for item in found["items"]:
        row = item["index"]
        assert (item["label"], item["predicted"]) == ("abc"[y[row]], "abc"[predicted[row]])
        assert (item["confidence"], item["of_label"]) == pytest.approx((p[row].max(), p[row, y[row]]), abs=1e-12)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("count", [1, 12, 100, 10**6])
@pytest.mark.parametrize("size", [7, 500])
def test_against_all_predictions_at_once(
    count: int, size: int, vectors: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mistakes, "_SIZE", size)
    check_against_all_at_once(many(vectors), count)
    check_against_all_at_once(vectors, count)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("sorted", lambda each, key: sorted(each, key=lambda one: -key(one)[0]), id="least confident"),
        pytest.param("sorted", lambda each, key: each, id="the first"),
        pytest.param("sorted", lambda each, key: sorted(each, key=lambda m: (key(m)[0], -m.row)), id="later of equal"),
        pytest.param(
            "_mistakes",
            lambda logits, y, first, made=mistakes._mistakes: made(logits, y, 0),
            id="rows of the batch",
        ),
    ],
)
def test_other_choices_are_told_apart(
    name: str, value: Callable[..., Any], vectors: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mistakes, "_SIZE", 70)
    monkeypatch.setattr(mistakes, name, value, raising=False)
    with pytest.raises(AssertionError):
        check_against_all_at_once(many(vectors), 12)


def test_no_more_than_asked_is_held(vectors: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    def counted(each: list[Any], key: Callable[[Any], Any]) -> list[Any]:
        held.append(len(each))
        return sorted(each, key=key)

    monkeypatch.setattr(mistakes, "_SIZE", 10)
    monkeypatch.setattr(mistakes, "sorted", counted, raising=False)
    Mistakes(count=5)(many(vectors), 0)
    assert len(held) == 70
    assert max(held) <= 15


def test_without_mistakes_there_is_nothing_to_show(vectors: Subject, images: Subject) -> None:
    logits = torch.eye(3).repeat(4, 1)
    found = Mistakes()(told(logits, logits.argmax(dim=1), vectors), 0)
    assert found == {"n": 12, "wrong": 0, "items": []}
    found = Mistakes()(told(logits.reshape(12, 1, 1, 3), logits.argmax(dim=1), images), 0)
    assert found == {"n": 12, "wrong": 0, "items": [], "pictures": {}}


def test_a_confidence_that_is_no_number_is_not_listed(vectors: Subject) -> None:
    logits = torch.tensor([[math.nan, 0.0, 0.0], [0.0, 1.0, 0.0]])
    found = Mistakes()(told(logits, torch.tensor([2, 2]), vectors), 0)
    assert found["wrong"] == 2
    assert [item["index"] for item in found["items"]] == [1]
    json.dumps(found, allow_nan=False)


def opened(png: str) -> np.ndarray:
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    image = pil.open(io.BytesIO(base64.b64decode(png, validate=True)))
    assert image.format == "PNG"
    return np.asarray(image)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((1, 8, 8), (96, 96)),
        ((3, 32, 20), (96, 60)),
        ((1, 28, 28), (112, 112)),
        ((3, 95, 50), (190, 100)),
        ((1, 96, 2), (96, 2)),
        ((3, 10, 191), (10, 191)),
        ((3, 192, 80), (96, 40)),
        ((1, 500, 300), (100, 60)),
        ((2, 8, 8), None),
    ],
)
def test_pictures_are_the_images(
    shape: tuple[int, ...], shown: tuple[int, ...] | None, dtype: torch.dtype, images: Subject
) -> None:
    levels = torch.randint(256, (3, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    levels[:, 0, 0, :2] = torch.tensor([0, 255], dtype=torch.uint8)
    x = levels if dtype == torch.uint8 else levels.float() / 255
    subject = told(x, torch.full((3,), 2), images)
    subject = dataclasses.replace(subject, network=nn.Sequential(nn.Flatten(), First()))
    found = Mistakes(count=2)(subject, 0)
    if shown is None:
        assert "pictures" not in found
        return
    assert list(found["pictures"]) == [str(item["index"]) for item in found["items"]] == ["0", "1"]
    for row in (0, 1):
        picture = opened(found["pictures"][str(row)])
        assert picture.shape == (shown if shape[0] == 1 else (*shown, 3))
        original = levels[row].movedim(0, 2).squeeze(2).numpy()
        if (factor := shown[0] // shape[1]) >= 1:
            assert np.array_equal(picture, original.repeat(factor, axis=0).repeat(factor, axis=1))
        else:
            assert abs(float(picture.mean()) - float(original.mean())) < 1


class First(nn.Module):
    """Always the first class."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([[1.0, 0.0, 0.0]]).expand(len(x), -1)


def test_pictures_need_pillow_and_feature_vectors_do_not(
    images: Subject, vectors: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    vector = Mistakes()(many(vectors), 0)
    assert vector["items"]
    assert "pictures" not in vector
    with pytest.raises(MissingExtraError, match=r"showing mistakes needs the package 'PIL\.Image'"):
        Mistakes()(dataclasses.replace(images, network=First()), 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Image files: two classes of five in each part."""
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    draws = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in "ab":
            place = tmp_path / part / name
            place.mkdir(parents=True)
            for k in range(5):
                pil.fromarray(draws.integers(0, 256, (8, 8), dtype=np.uint8)).save(place / f"{part}{name}{k}.png")
    return tmp_path


def of_folder(dataset: Dataset) -> Subject:
    split = make_split(dataset, Split(labels=4, validation=4), seed=0)
    return Subject(network=First(), dataset=dataset, split=split)


def test_files_are_named(folder: Path) -> None:
    dataset = load(Choice(str(folder)))
    found = Mistakes()(of_folder(dataset), 0)
    assert [item["name"] for item in found["items"]] == [f"test/b/testb{k}.png" for k in range(5)]
    # Rows of a validation part that was split off are rows of the training part.
    subject = of_folder(dataclasses.replace(dataset, test=None))
    assert subject.part == "validation"
    found = Mistakes()(subject, 0)
    expected = [f"train/b/trainb{row - 5}.png" for row in subject.split.validation.tolist() if row >= 5]
    assert [item["name"] for item in found["items"]] == expected
    assert len(expected) == 2


def test_a_folder_that_has_changed_names_nothing(folder: Path) -> None:
    subject = of_folder(load(Choice(str(folder))))
    (folder / "test" / "a" / "testa0.png").rename(folder / "test" / "b" / "new.png")
    assert [item["name"] for item in Mistakes()(subject, 0)["items"]] == [None] * 5
    elsewhere = dataclasses.replace(subject, dataset=dataclasses.replace(subject.dataset, source={"data": "none"}))
    assert [item["name"] for item in Mistakes()(elsewhere, 0)["items"]] == [None] * 5


def test_there_is_at_least_one() -> None:
    with pytest.raises(InputError, match="count must be at least 1"):
        Mistakes(count=0)
