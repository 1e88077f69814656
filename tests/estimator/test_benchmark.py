"""The comparison with scikit-learn's classifiers: fair splits, right figures, and a table that stars the best."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "estimator.py"


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_of_the_estimator", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_split_has_so_many_labels_and_no_test_example(bench: Any) -> None:
    split = bench.problem("wine", 5, 0)
    assert np.bincount(split.y[split.y >= 0]).tolist() == [5, 5, 5]
    assert len(split.X) + len(split.X_test) == 178
    train, test = ({tuple(row) for row in part} for part in (split.X, split.X_test))
    assert not train & test
    again, other = bench.problem("wine", 5, 0), bench.problem("wine", 5, 1)
    assert (again.y == split.y).all()
    assert not np.array_equal(other.X_test, split.X_test)


@pytest.mark.parametrize("model", ["VicinalClassifier", "LogisticRegression", "SVC (RBF)", "LabelPropagation (RBF)"])
def test_a_cell_is_measured(bench: Any, model: str) -> None:
    cell = bench.measured("wine", 5, 100, model)
    assert cell.accuracy > 0.8
    assert 0 < cell.brier < 0.4


def test_supervised_peers_see_the_labelled_alone(bench: Any) -> None:
    supervised = [model for model in bench.peers(0) if not model.startswith(bench.SEMI_SUPERVISED)]
    assert supervised == ["LogisticRegression", "HistGradientBoosting", "RandomForest", "SVC (RBF)"]


def test_the_table_stars_what_is_within_the_best_ones_error(bench: Any) -> None:
    figures = {"VicinalClassifier": (0.90, 0.94), "LogisticRegression": (0.89, 0.92), "SVC (RBF)": (0.5, 0.6)}
    cells = [
        bench.Cell("wine", 5, seed, model, accuracy, 1 - accuracy, 0.1)
        for model, values in figures.items()
        for seed, accuracy in enumerate(values)
    ]
    starred = {row[0]: (row[1].endswith("*"), row[2].endswith("*")) for row in bench.table(cells, "wine", 5).rows}
    assert starred == {
        "VicinalClassifier": (True, True),
        "LogisticRegression": (True, True),
        "SVC (RBF)": (False, False),
    }
