"""`VicinalClassifier`: what it learns, what it promises, what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from vicinal import VicinalClassifier
from vicinal.errors import InputError

QUICK: dict[str, Any] = {"steps": 60, "random_state": 0}


def test_it_learns_from_three_labels_a_class(blobs: Any) -> None:
    model = VicinalClassifier(random_state=0).fit(blobs.X, blobs.y)
    assert model.score(blobs.X, blobs.truth) > 0.95
    assert model.experiment_.method.name == "vat"
    labelled = blobs.y >= 0
    assert VicinalClassifier(**QUICK).fit(blobs.X[labelled], blobs.y[labelled]).experiment_.method.name == "supervised"


@pytest.mark.parametrize("shape", ["moons", "circles"])
def test_few_dimensions_and_many_examples(shape: str) -> None:
    from sklearn.datasets import make_circles, make_moons

    made = {
        "moons": make_moons(500, noise=0.08, random_state=0),
        "circles": make_circles(500, noise=0.04, factor=0.5, random_state=0),
    }[shape]
    X, truth = made
    y = np.full(500, -1)
    for c in range(2):
        y[np.flatnonzero(truth == c)[:4]] = c
    assert VicinalClassifier(random_state=0).fit(X, y).score(X, truth) > 0.97
    small = {"method": {"epsilon": 0.005}}  # about the distance to the nearest neighbour
    assert VicinalClassifier(random_state=0, experiment=small).fit(X, y).score(X, truth) < 0.95


def test_unlabelled_examples_are_used(blobs: Any) -> None:
    labelled = blobs.y >= 0
    alone = VicinalClassifier(**QUICK).fit(blobs.X[labelled], blobs.y[labelled])
    both = VicinalClassifier(**QUICK).fit(blobs.X, blobs.y)
    assert not np.allclose(alone.predict_proba(blobs.X), both.predict_proba(blobs.X), atol=1e-3)


@pytest.mark.parametrize(
    ("names", "mark"),
    [
        (np.array([10, 20, 30]), -1),
        (np.array(["a", "b", "c"], dtype=object), None),
        (np.array([0.0, 1.0, 2.0]), np.nan),
    ],
    ids=["integers", "texts", "floats"],
)
def test_labels_of_every_kind_give_the_same_model(blobs: Any, names: Any, mark: Any) -> None:
    y = names[blobs.truth]
    y[blobs.y < 0] = mark
    model = VicinalClassifier(**QUICK).fit(blobs.X, y)
    assert model.classes_.tolist() == names.tolist()
    assert model.predict(blobs.X).dtype == names.dtype
    plain = VicinalClassifier(**QUICK).fit(blobs.X, blobs.y)
    assert (model.predict(blobs.X) == names[plain.predict(blobs.X)]).all()
    assert model.score(blobs.X, y) == plain.score(blobs.X, blobs.y)


def test_the_score_leaves_unlabelled_examples_out(blobs: Any) -> None:
    model = VicinalClassifier(**QUICK).fit(blobs.X, blobs.y)
    labelled = blobs.y >= 0
    right = (model.predict(blobs.X) == blobs.y)[labelled]
    assert model.score(blobs.X, blobs.y) == right.mean()
    weights = np.arange(len(blobs.y), dtype=float)
    assert model.score(blobs.X, blobs.y, weights) == pytest.approx(np.average(right, weights=weights[labelled]))
    assert model.score(pd.DataFrame(blobs.X).values.tolist(), blobs.y) == right.mean()
    with pytest.raises(InputError, match="to score on"):
        model.score(blobs.X, np.full(len(blobs.y), -1))


def test_probabilities_and_decisions_agree(blobs: Any) -> None:
    model = VicinalClassifier(**QUICK).fit(blobs.X, blobs.y)
    p, f = model.predict_proba(blobs.X), model.decision_function(blobs.X)
    assert p.shape == f.shape == (120, 3)
    assert np.allclose(p.sum(axis=1), 1, atol=1e-12)
    assert np.allclose(np.log(p[:, 0] / p[:, 1]), f[:, 0] - f[:, 1])
    two = VicinalClassifier(**QUICK).fit(blobs.X[blobs.truth < 2], blobs.y[blobs.truth < 2])
    f = two.decision_function(blobs.X)
    assert f.shape == (120,)
    assert np.allclose(1 / (1 + np.exp(-f)), two.predict_proba(blobs.X)[:, 1])


def test_a_seed_decides_everything(blobs: Any) -> None:
    def p(seed: Any) -> Any:
        made = VicinalClassifier(steps=60, random_state=seed, experiment={"network": {"dropout": 0.2}})
        return made.fit(blobs.X, blobs.y).predict_proba(blobs.X)

    first = p(3)
    assert (p(3) == first).all()
    assert (p(np.int64(3)) == first).all()
    assert not (p(4) == first).all()
    assert (p(np.random.RandomState(5)) == p(np.random.RandomState(5))).all()
    np.random.seed(7)
    free = p(None)
    assert not (p(None) == free).all()
    np.random.seed(7)
    assert (p(None) == free).all()


def test_it_leaves_nothing_behind(
    blobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.get_num_threads()
    model = VicinalClassifier(**QUICK, validation_fraction=0.2, experiment={"network": {"dropout": 0.1}})
    model.fit(blobs.X, blobs.truth).predict(blobs.X)
    assert [path.name for path in tmp_path.rglob("*")] == ["temporary"]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.get_num_threads() == states[2]
    assert capfd.readouterr() == ("", "")


def test_it_tells_what_it_does_when_asked(blobs: Any, capfd: pytest.CaptureFixture[str]) -> None:
    VicinalClassifier(**QUICK, verbose=1).fit(blobs.X, blobs.y)
    out = capfd.readouterr().out
    for words in ("120 examples", "9 labelled", "method vat(epsilon=", "network mlp(", "60 steps", "seed 0"):
        assert words in out


def test_weights_of_classes_move_the_border() -> None:
    rng = np.random.default_rng(0)
    X = np.r_[rng.normal(-0.5, 1, (190, 2)), rng.normal(0.5, 1, (10, 2))]
    y = np.repeat([0, 1], [190, 10])

    def found(**weight: Any) -> float:
        model = VicinalClassifier(random_state=0, experiment={"network": {"hidden": []}}, **weight)
        return float((model.fit(X, y).predict(X) == 1).mean())

    plain, balanced = found(), found(class_weight="balanced")
    assert plain < 0.1
    assert balanced > 0.25
    assert found(class_weight={0: 1, 1: 19}) == balanced
    assert found(class_weight={0: 2, 1: 2}) == plain


def test_balanced_is_what_the_weighted_loss_gives() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    X = np.r_[rng.normal(-0.7, 1, (150, 2)), rng.normal(0.7, 1, (30, 2))]
    y = np.repeat([0, 1], [150, 30])
    linear = {"network": {"hidden": []}, "training": {"weight_decay": 0.0, "learning_rate": 0.05}}
    ours = VicinalClassifier(random_state=0, steps=400, class_weight="balanced", experiment=linear).fit(X, y)
    theirs = LogisticRegression(class_weight="balanced", C=1e6).fit(X, y)
    plain = LogisticRegression(C=1e6).fit(X, y)
    p = ours.predict_proba(X)[:, 1]
    assert np.abs(p - theirs.predict_proba(X)[:, 1]).mean() < 0.03
    assert np.abs(p - plain.predict_proba(X)[:, 1]).mean() > 0.1


def test_a_warm_start_goes_on(blobs: Any) -> None:
    model = VicinalClassifier(random_state=0, warm_start=True).fit(blobs.X, blobs.y)
    before = model.predict_proba(blobs.X)
    model.set_params(steps=1, learning_rate=1e-6).fit(blobs.X + 0.0, blobs.y)
    assert np.allclose(model.predict_proba(blobs.X), before, atol=1e-3)
    cold = VicinalClassifier(random_state=0, steps=1, learning_rate=1e-6).fit(blobs.X, blobs.y)
    assert not np.allclose(cold.predict_proba(blobs.X), before, atol=0.1)
    model.fit(100 * blobs.X, blobs.y)  # the standardisation is the first one's too
    assert np.allclose(model.predict_proba(blobs.X), before, atol=1e-3)


def test_a_warm_start_of_a_teacher_goes_on(blobs: Any) -> None:
    model = VicinalClassifier("mean_teacher", random_state=0, steps=100, warm_start=True).fit(blobs.X, blobs.y)
    before = model.predict_proba(blobs.X)
    model.set_params(steps=1, learning_rate=1e-6).fit(blobs.X, blobs.y)
    assert np.allclose(model.predict_proba(blobs.X), before, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": [0, 1] * 60}, "the last fit had the classes"),
        ({"X": np.zeros((120, 5))}, "is expecting 4 features"),
        ({"network": {"name": "mlp", "hidden": [5]}}, "another structure"),
    ],
)
def test_a_warm_start_that_does_not_fit(blobs: Any, change: dict[str, Any], words: str) -> None:
    model = VicinalClassifier(**QUICK, warm_start=True).fit(blobs.X, blobs.y)
    if "network" in change:
        model.set_params(network=change["network"])
    with pytest.raises(ValueError, match=words):
        model.fit(change.get("X", blobs.X), change.get("y", blobs.y))


def test_a_validation_share_selects(blobs: Any) -> None:
    # With a constant rate the first steps do not know how many follow: step 8 of 20 is the end of 8.
    def p(steps: int, every: int, share: float = 0.3) -> Any:
        over = {"training": {"schedule": "constant", "validate_every": every}}
        model = VicinalClassifier(steps=steps, random_state=1, validation_fraction=share, experiment=over)
        return model.fit(blobs.X, blobs.truth).predict_proba(blobs.X)

    selected = p(20, 2)
    equal = [steps for steps in range(2, 21, 2) if (p(steps, steps) == selected).all()]
    assert len(equal) == 1
    assert equal[0] < 20  # the first without a wrong answer
    assert not (p(20, 2, share=0.0) == selected).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "vta"}, "did you mean 'vat'"),
        ({"method": "varmixup"}, "autoencoder"),
        ({"method": "fixmatch"}, "for images"),
        ({"network": "resnet"}, "network"),
        ({"preprocess": "standard"}, "preprocess"),
        ({"device": "gpu"}, "device"),
        ({"steps": 0}, "steps"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"validation_fraction": 1.5}, "fraction"),
        ({"random_state": -1}, "random_state"),
        ({"random_state": "x"}, "seed"),
        ({"class_weight": "balance"}, "class_weight"),
        ({"class_weight": {0: -1}}, "class_weight"),
        ({"experiment": "digits/vat"}, "expected nested settings"),
        ({"experiment": {"seed": 3}}, "use random_state"),
        ({"experiment": {"data": "digits"}}, "X and y are the data"),
        ({"experiment": {"trainig": {}}}, "did you mean 'training'"),
        ({"experiment": {"augment": {"crop": 2}}}, "for images"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_arguments_that_are_wrong(blobs: Any, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as told:
        VicinalClassifier(**{**QUICK, **arguments}).fit(blobs.X, blobs.y)
    assert "\n" not in str(told.value) or "class_weight" in arguments  # scikit-learn's own has several lines


def test_columns_without_scale_or_with_any(blobs: Any) -> None:
    p = VicinalClassifier(**QUICK).fit(blobs.X, blobs.y).predict_proba(blobs.X)
    X = blobs.X * [1e-9, 1e9, 1, 1] + [0, 0, 1e7, 0]
    assert np.allclose(VicinalClassifier(**QUICK).fit(X, blobs.y).predict_proba(X), p, atol=1e-2)
    constant = np.c_[blobs.X, np.full(120, 3.0)]
    assert VicinalClassifier(**QUICK).fit(constant, blobs.y).score(constant, blobs.truth) > 0.9
    raw = VicinalClassifier(**QUICK, preprocess="none").fit(blobs.X, blobs.y)
    assert raw.scaler_ is None
    assert raw.network_(torch.tensor(blobs.X[:1], dtype=torch.float32)).numpy() == pytest.approx(
        raw.decision_function(blobs.X[:1]), abs=1e-4
    )


@pytest.mark.parametrize("preprocess", ["none", "normalise"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_whole_numbers_are_features_as_they_are(dtype: Any, preprocess: str) -> None:
    rng = np.random.default_rng(0)
    X = (rng.integers(0, 2, (60, 5)) if dtype is bool else rng.integers(0, 200, (60, 5))).astype(dtype)
    y = X[:, 0] > X[:, 0].mean()
    made = [
        VicinalClassifier(**QUICK, preprocess=preprocess).fit(given, y).predict_proba(given)
        for given in (X, X.astype(np.float64))
    ]
    assert (made[0] == made[1]).all()


def test_examples_that_are_all_equal() -> None:
    model = VicinalClassifier(**QUICK).fit(np.ones((12, 3)), [0, 1, 1, 1] + [-1] * 8)
    assert model.predict(np.ones((2, 3))).tolist() == [1, 1]


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, vicinal; print(*sorted({'sklearn', 'lightning', 'torch'} & set(sys.modules)))"
    more = "import sys, vicinal; vicinal.VicinalClassifier; print(*sorted({'sklearn', 'lightning'} & set(sys.modules)))"
    found = [
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.split()
        for text in (code, more)
    ]
    assert found == [[], ["sklearn"]]
    import vicinal

    assert "VicinalClassifier" in vicinal.__all__
    with pytest.raises(AttributeError, match="VicinalClasifier"):
        vicinal.VicinalClasifier  # noqa: B018
