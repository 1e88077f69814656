"""Life among scikit-learn's tools: pipelines, searches, copies, files."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from vicinal import VicinalClassifier

QUICK: dict[str, Any] = {"steps": 40, "random_state": 0}


def test_a_pipeline(blobs: Any) -> None:
    pipe = make_pipeline(FunctionTransformer(lambda x: x[:, :3]), VicinalClassifier(**QUICK))
    assert pipe.fit(blobs.X, blobs.y).predict_proba(blobs.X).shape == (120, 3)
    assert pipe[-1].n_features_in_ == 3


def test_a_search_over_settings_with_unlabelled_examples(blobs: Any) -> None:
    grid = {
        "method": ["vat", {"name": "mixup", "alpha": 0.2}],
        "experiment": [None, {"network": {"hidden": [8]}}],
    }
    search = GridSearchCV(VicinalClassifier(**QUICK), grid, cv=StratifiedKFold(3), error_score="raise")
    search.fit(blobs.X, blobs.y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.predict(blobs.X).shape == (120,)


def test_cross_validation_scores_the_labelled_alone(blobs: Any) -> None:
    scores = cross_val_score(VicinalClassifier(random_state=0), blobs.X, blobs.y, cv=3)
    assert scores.mean() > 0.8  # nine tenths are unlabelled: counted as errors they would leave 0.1


def test_calibration_after_the_fit(blobs: Any) -> None:
    model = VicinalClassifier(**QUICK).fit(blobs.X[::2], blobs.truth[::2])
    calibrated = CalibratedClassifierCV(FrozenEstimator(model)).fit(blobs.X[1::2], blobs.truth[1::2])
    assert calibrated.predict_proba(blobs.X).shape == (120, 3)


def test_a_clone_is_unfitted_and_equal(blobs: Any) -> None:
    given = {"method": {"name": "vat", "weight": 2.0}, "experiment": {"training": {"batch_labelled": 4}}}
    model = VicinalClassifier(**given, **QUICK).fit(blobs.X, blobs.y)
    copied = clone(model)
    assert copied.get_params() == model.get_params()
    assert not hasattr(copied, "network_")
    assert (copied.fit(blobs.X, blobs.y).predict_proba(blobs.X) == model.predict_proba(blobs.X)).all()


def dumped(model: Any) -> Any:
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize("again", [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy, dumped])
@pytest.mark.parametrize("kind", ["vectors", "images", "teacher"])
def test_a_copy_predicts_the_same(blobs: Any, stripes: Any, again: Any, kind: str) -> None:
    data = stripes if kind == "images" else blobs
    model = VicinalClassifier("ict" if kind == "teacher" else "auto", **QUICK).fit(data.X, data.y)
    copied = again(model)
    assert (copied.predict_proba(data.X) == model.predict_proba(data.X)).all()
    assert copied.experiment_ == model.experiment_
    assert copied.set_params(warm_start=True, steps=2).fit(data.X, data.y).predict(data.X).shape == (len(data.y),)


def test_an_unfitted_one_is_pickled() -> None:
    assert pickle.loads(pickle.dumps(VicinalClassifier("ict"))).method == "ict"


def test_skops_trusts_nothing_but_the_class(blobs: Any) -> None:
    skops_io = pytest.importorskip("skops.io")
    model = VicinalClassifier(**QUICK).fit(blobs.X, blobs.y)
    file = skops_io.dumps(model)
    assert skops_io.get_untrusted_types(data=file) == ["vicinal.estimator.classifier.VicinalClassifier"]
    loaded = skops_io.loads(file, trusted=["vicinal.estimator.classifier.VicinalClassifier"])
    assert (loaded.predict_proba(blobs.X) == model.predict_proba(blobs.X)).all()


def test_data_frames_keep_their_names(blobs: Any) -> None:
    frame = pd.DataFrame(blobs.X, columns=list("abcd"))
    model = VicinalClassifier(**QUICK).fit(frame, pd.Series(blobs.y))
    assert model.feature_names_in_.tolist() == list("abcd")
    assert (model.predict(frame) == VicinalClassifier(**QUICK).fit(blobs.X, blobs.y).predict(blobs.X)).all()
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("dcba")])


def test_nothing_warns_even_where_warnings_are_seen(blobs: Any) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        VicinalClassifier(**QUICK, validation_fraction=0.3).fit(blobs.X, blobs.truth).predict(blobs.X)
    # torch 2.13 deprecates what Lightning 2.6 calls; the project's configuration names it.
    assert [str(one.message) for one in seen if "LeafSpec" not in str(one.message)] == []
