"""Scores of partly labelled data under scikit-learn's model selection."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, make_scorer
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score

from vicinal.errors import InputError
from vicinal.estimator import VicinalClassifier, labelled_scorer

QUICK: dict[str, Any] = {"steps": 30, "random_state": 0}


@pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss", make_scorer(accuracy_score)], ids=str)
def test_folds_are_scored_on_their_labelled_examples(blobs: Any, scoring: Any) -> None:
    folds = StratifiedKFold(3)
    found = cross_val_score(VicinalClassifier(**QUICK), blobs.X, blobs.y, cv=folds, scoring=labelled_scorer(scoring))
    plain = cross_val_score(VicinalClassifier(**QUICK), blobs.X, blobs.y, cv=folds, scoring="accuracy")
    wanted = []
    for fitted, held in folds.split(blobs.X, blobs.y):
        model = VicinalClassifier(**QUICK).fit(blobs.X[fitted], blobs.y[fitted])
        known = held[blobs.y[held] >= 0]
        if scoring == "neg_log_loss":
            wanted.append(-log_loss(blobs.y[known], model.predict_proba(blobs.X[known])))
        else:
            wanted.append(float((model.predict(blobs.X[known]) == blobs.y[known]).mean()))
    assert found == pytest.approx(wanted)
    assert plain.max() < 0.1  # the control: -1 counts as a class


def test_a_search_in_other_processes_can_use_it(blobs: Any) -> None:
    scorer = pickle.loads(pickle.dumps(labelled_scorer("accuracy")))
    grid = {"steps": [5, 30]}
    search = GridSearchCV(VicinalClassifier(**QUICK), grid, cv=3, scoring=scorer).fit(blobs.X, blobs.y)
    assert search.best_score_ > 0.9


def test_weights_and_marks_of_every_kind(blobs: Any) -> None:
    model = VicinalClassifier(**QUICK).fit(blobs.X, blobs.y)
    scorer, weights = labelled_scorer("accuracy"), np.arange(len(blobs.y), dtype=float)
    labelled = blobs.y >= 0
    right = (model.predict(blobs.X) == blobs.y)[labelled]
    assert scorer(model, blobs.X, blobs.y, sample_weight=weights) == pytest.approx(
        np.average(right, weights=weights[labelled])
    )
    for marked in (np.where(labelled, blobs.y, np.nan), np.where(labelled, blobs.y.astype(object), None)):
        assert scorer(model, blobs.X, marked) == right.mean()
    names = np.array(["a", "b", "c"], dtype=object)
    texts = np.where(labelled, names[blobs.truth], None)
    assert scorer(VicinalClassifier(**QUICK).fit(blobs.X, texts), blobs.X, texts) == right.mean()


def test_what_cannot_be_scored(blobs: Any) -> None:
    model = VicinalClassifier(**QUICK).fit(blobs.X, blobs.y)
    with pytest.raises(InputError, match="to score on"):
        labelled_scorer("accuracy")(model, blobs.X, np.full(len(blobs.y), -1))
    with pytest.raises(ValueError, match="accurcy"):
        labelled_scorer("accurcy")
