"""Images: layouts, kinds of numbers, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vicinal import VicinalClassifier
from vicinal.errors import InputError

QUICK: dict[str, Any] = {"steps": 40, "random_state": 0}


def test_it_learns_from_few_images(stripes: Any) -> None:
    model = VicinalClassifier(random_state=0, steps=80).fit(stripes.X, stripes.y)
    assert model.score(stripes.X, stripes.truth) > 0.95
    assert model.shape_ == (1, 8, 8)
    assert model.experiment_.network.name == "small_cnn"


@pytest.mark.parametrize(
    "turned",
    [
        lambda x: x,
        lambda x: x[..., None],
        lambda x: x[:, None],
        lambda x: x / 255,
        lambda x: (x / 255).astype(np.float32)[:, None],
        lambda x: x.tolist(),
    ],
    ids=["grey", "channels last", "channels first", "floats", "float32", "lists"],
)
def test_every_layout_gives_the_same_model(stripes: Any, turned: Any) -> None:
    X = turned(stripes.X)
    if isinstance(X, list):
        X = np.array(X, dtype=np.uint8)
    p = VicinalClassifier(**QUICK).fit(stripes.X, stripes.y).predict_proba(stripes.X)
    assert np.allclose(VicinalClassifier(**QUICK).fit(X, stripes.y).predict_proba(X), p, atol=1e-3)


def test_colours(stripes: Any) -> None:
    colours = np.repeat(stripes.X[..., None], 3, axis=-1)
    model = VicinalClassifier(**QUICK).fit(colours, stripes.y)
    assert model.shape_ == (3, 8, 8)
    with pytest.raises(ValueError, match="features"):
        model.predict(colours.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.zeros((40, 8, 8), dtype=np.int64), "uint8"),
        (np.full((40, 8, 8), 2.0), r"must lie in \[0,1\]"),
        (np.zeros((40, 8, 8, 2), dtype=np.uint8), "channels"),
        (np.zeros((40, 3, 8, 3), dtype=np.uint8), r"experiment=\{'data': \{'layout'"),
        (np.zeros((40, 2, 8, 8, 3), dtype=np.uint8), "shape"),
    ],
    ids=["integers", "too bright", "two channels", "either layout", "videos"],
)
def test_what_is_no_image(stripes: Any, X: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        VicinalClassifier(**QUICK).fit(X, stripes.y)


def test_a_layout_can_be_named(stripes: Any) -> None:
    thin = np.repeat(stripes.X[:, None, :, :3], 3, axis=1)
    model = VicinalClassifier(**QUICK, experiment={"data": {"layout": "NCHW"}}).fit(thin, stripes.y)
    assert model.shape_ == (3, 8, 3)


def test_other_shapes_than_those_of_fit(stripes: Any) -> None:
    model = VicinalClassifier(**QUICK).fit(stripes.X, stripes.y)
    for X in (stripes.X[:, :, :7], stripes.X.reshape(40, 8, 2, 4)):
        with pytest.raises(InputError, match="those of fit had"):
            model.predict(X)
    flat = VicinalClassifier(**QUICK).fit(stripes.X.reshape(40, 64), stripes.y)
    with pytest.raises(ValueError, match="features"):
        flat.predict(stripes.X)


def test_augmentation_can_be_asked_for(stripes: Any) -> None:
    model = VicinalClassifier(**QUICK, experiment={"augment": {"flip": True, "crop": 1}}).fit(stripes.X, stripes.y)
    assert model.experiment_.augment.flip
