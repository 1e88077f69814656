"""scikit-learn's own checks of an estimator, each a test."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import check_classifiers_classes, parametrize_with_checks

from vicinal import VicinalClassifier

EXPECTED = {
    "check_classifiers_classes": (
        "its last part takes -1 for a class. Here -1 means unlabelled, as in scikit-learn's own semi-supervised "
        "classifiers, which the check spares by their names"
    )
}


def expected(estimator: Any) -> dict[str, str]:
    return EXPECTED


@parametrize_with_checks([VicinalClassifier()], expected_failed_checks=expected, xfail_strict=True)
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("name", ["SelfTrainingClassifier"])
def test_the_expected_failure_is_none_under_the_name_of_a_semi_supervised_classifier(name: str) -> None:
    check_classifiers_classes(name, VicinalClassifier())
