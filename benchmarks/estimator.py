"""`VicinalClassifier` with its defaults beside scikit-learn's classifiers, with few labels, on the same splits.

    VICINAL_DATA=... python benchmarks/estimator.py --output results/estimator --jobs 2

Each seed draws a stratified test part of 30 % (PneumoniaMNIST has its own) and the labelled examples of each class; all
other training examples are unlabelled. Semi-supervised classifiers get them all, supervised ones the labelled alone.
Peers get standardised features, fitted on all training examples, as the estimator does itself; images are flattened
for them. No setting is searched, here or for the estimator. Cells that the output folder holds already are kept.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal import VicinalClassifier, __version__, machine
from vicinal.reporting import Table
from vicinal.reporting.tables import mean_and_std

Array = NDArray[Any]
OURS = "VicinalClassifier"


@dataclass(frozen=True)
class Problem:
    """One split: training inputs, their labels (-1 where unlabelled), test inputs and labels."""

    X: Array
    y: Array
    X_test: Array
    y_test: Array


@dataclass(frozen=True)
class Cell:
    """One classifier's figures on one split.

    Args:
        data: name of the data set.
        per_class: labels of each class.
        seed: of the split and of the classifier.
        model: name of the classifier.
        accuracy: on the test part, in [0,1].
        brier: mean of sum_k (p_k - y_k)^2 there, in [0,2].
        seconds: processor time of the fit.
    """

    data: str
    per_class: int
    seed: int
    model: str
    accuracy: float
    brier: float
    seconds: float


def bundled(name: str) -> tuple[Array, Array, Array | None, Array | None]:
    """A set that ships with scikit-learn; ``digits`` as images in [0,1], ``digits_vectors`` as 64 features."""
    from sklearn import datasets

    X, y = getattr(datasets, f"load_{name.removesuffix('_vectors')}")(return_X_y=True)
    return (X.reshape(-1, 8, 8) / 16 if name == "digits" else X), y, None, None


def stored(name: str) -> tuple[Array, Array, Array | None, Array | None]:
    """An image set of `vicinal.data`, with its published test part; its validation part is left out."""
    import torch

    from vicinal.data import Examples, load
    from vicinal.settings import Choice

    def arrays(part: Examples | None) -> tuple[Array, Array]:
        assert part is not None
        return part.x[torch.arange(len(part))].numpy(), part.y.numpy()

    found = load(Choice(name))
    return *arrays(found.train), *arrays(found.test)


DATA: dict[str, Callable[[str], tuple[Array, Array, Array | None, Array | None]]] = {
    "digits": bundled,
    "digits_vectors": bundled,
    "breast_cancer": bundled,
    "wine": bundled,
    "pneumoniamnist": stored,
}
IMAGES = ("digits", "pneumoniamnist")


def problem(data: str, per_class: int, seed: int) -> Problem:
    """The split of this seed."""
    from sklearn.model_selection import train_test_split

    X, y, X_test, y_test = DATA[data](data)
    if X_test is None or y_test is None:
        X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, random_state=seed, stratify=y)
    draws = np.random.default_rng([seed, per_class])
    few = np.full(len(y), -1)
    for c in np.unique(y):
        rows = draws.permutation(np.flatnonzero(y == c))[:per_class]
        few[rows] = c
    return Problem(X, few, X_test, y_test)


def peers(seed: int) -> dict[str, Any]:
    """scikit-learn's classifiers; their own defaults but for what has to be said."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.semi_supervised import LabelPropagation, LabelSpreading, SelfTrainingClassifier
    from sklearn.svm import SVC

    logistic = LogisticRegression(max_iter=2000)
    # The default of 20 examples in a leaf allows no split at all of 10 labelled examples.
    boosting = HistGradientBoostingClassifier(min_samples_leaf=2, random_state=seed)
    return {
        "LogisticRegression": logistic,
        "HistGradientBoosting": boosting,
        "RandomForest": RandomForestClassifier(random_state=seed),
        "SVC (RBF)": SVC(),
        "SelfTraining (logistic regression)": SelfTrainingClassifier(logistic),
        "SelfTraining (gradient boosting)": SelfTrainingClassifier(boosting),
        "LabelSpreading (RBF)": LabelSpreading(),
        "LabelSpreading (7 neighbours)": LabelSpreading(kernel="knn"),
        "LabelPropagation (RBF)": LabelPropagation(),
        "LabelPropagation (7 neighbours)": LabelPropagation(kernel="knn"),
    }


MODELS = (OURS, f"{OURS}, supervised", *peers(0))
SEMI_SUPERVISED = ("SelfTraining", "Label")


def measured(data: str, per_class: int, seed: int, model: str) -> Cell:
    """Fit one classifier on one split."""
    import torch
    from sklearn.preprocessing import StandardScaler

    torch.set_num_threads(1)
    split = problem(data, per_class, seed)
    if model.startswith(OURS):
        made: Any = VicinalClassifier("supervised" if "supervised" in model else "auto", random_state=seed)
        X, X_test, uses = split.X, split.X_test, True
    else:
        made = peers(seed)[model]
        flat, flat_test = (part.reshape(len(part), -1) for part in (split.X, split.X_test))
        scaler = StandardScaler().fit(flat)
        X, X_test, uses = scaler.transform(flat), scaler.transform(flat_test), model.startswith(SEMI_SUPERVISED)
    rows = np.ones(len(split.y), dtype=bool) if uses else split.y >= 0
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence, and of examples that no label reaches
        made.fit(X[rows], split.y[rows])
        seconds = time.process_time() - started
        # Without probabilities of its own, an SVC is scored by the certainty of its answer.
        p = (
            made.predict_proba(X_test)
            if hasattr(made, "predict_proba")
            else np.eye(len(made.classes_))[made.predict(X_test)]
        )
    # An example that no label reaches has no probabilities: equal ones, and whatever class is first.
    p = np.where(np.isfinite(p).all(axis=1, keepdims=True), p, 1 / p.shape[1])
    truth = np.searchsorted(made.classes_, split.y_test)
    brier = float(((p - np.eye(p.shape[1])[truth]) ** 2).sum(axis=1).mean())
    return Cell(data, per_class, seed, model, float((p.argmax(axis=1) == truth).mean()), brier, seconds)


def table(cells: list[Cell], data: str, per_class: int) -> Table:
    """One data set's table; a star marks the best mean, and those within its standard error."""
    chosen = {m: [c for c in cells if (c.data, c.per_class, c.model) == (data, per_class, m)] for m in MODELS}
    chosen = {model: found for model, found in chosen.items() if found}
    accuracy = _starred({m: [100 * c.accuracy for c in found] for m, found in chosen.items()}, 1, 1)
    brier = _starred({m: [c.brier for c in found] for m, found in chosen.items()}, -1, 3)
    rows = tuple(
        (m, accuracy[m], brier[m], str(len(found)), f"{mean_and_std([c.seconds for c in found])[0]:.1f}")
        for m, found in chosen.items()
    )
    title = f"{data}, {per_class} labels per class"
    return Table(title, ("classifier", "accuracy %", "Brier", "seeds", "s"), rows)


def _starred(values: dict[str, list[float]], sign: int, digits: int) -> dict[str, str]:
    figures = {model: mean_and_std(found) for model, found in values.items()}
    best = max(figures, key=lambda model: sign * figures[model][0])
    mean, spread = figures[best]
    error = 0.0 if np.isnan(spread) else spread / len(values[best]) ** 0.5

    def shown(model: str) -> str:
        own, own_spread = figures[model]
        spread_text = "" if np.isnan(own_spread) else f" ± {own_spread:.{digits}f}"
        return f"{own:.{digits}f}{spread_text}{' *' if sign * (mean - own) <= error else '  '}"

    return {model: shown(model) for model in values}


def notes(seeds: list[int]) -> str:
    """How the numbers were made, below the tables."""
    described = machine.describe()
    return "\n".join(
        f"- {line}"
        for line in (
            f"mean ± std over seeds {', '.join(map(str, seeds))}: the seed draws the split, the labelled examples and "
            "the classifier's own randomness; *: the best mean, and every other within its standard error",
            "all training examples without a label are unlabelled ones; supervised rows see the labelled alone",
            "Brier: mean of sum_k (p_k - y_k)^2; SVC has no probabilities and is scored as if sure of its answer",
            "s: seconds of processor time of the fit, one thread",
            "no setting is searched; the estimator's defaults were chosen on splits from seed 100 on of digits and "
            "breast_cancer (other draws of the same examples) and on pneumoniamnist's validation part, not on wine",
            f"commit {machine.commit()}, vicinal {__version__}, torch {described['torch']}, {described['processor']}",
            f"command: python {shlex.join(sys.argv)}",
        )
    )


def main() -> None:
    """Measure what is missing, and write the tables."""
    from joblib import Parallel, delayed

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--per-class", nargs="+", type=int, default=[5, 10])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--output", type=Path, help="folder for results.json and table.md")
    parser.add_argument("--quick", action="store_true", help="two small sets, one seed outside of the table's")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.data, arguments.per_class, arguments.seeds = ["breast_cancer", "wine"], [5], [100]
    cells: list[Cell] = []
    results = None if arguments.output is None else arguments.output / "results.json"
    if results is not None and results.exists():
        cells = [Cell(**values) for values in json.loads(results.read_text(encoding="utf-8"))["cells"]]
    done = {(c.data, c.per_class, c.seed, c.model) for c in cells}
    for data in arguments.data:
        wanted = [(data, n, seed, m) for n in arguments.per_class for seed in arguments.seeds for m in MODELS]
        cells += Parallel(arguments.jobs)(delayed(measured)(*cell) for cell in wanted if cell not in done)
        for n in arguments.per_class:
            print(table(cells, data, n).markdown(), flush=True)
        if results is not None:
            results.parent.mkdir(parents=True, exist_ok=True)
            values = {"machine": machine.describe(), "commit": machine.commit(), "cells": [asdict(c) for c in cells]}
            results.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    if results is not None:
        tables = [table(cells, data, n).markdown() for data in arguments.data for n in arguments.per_class]
        text = "\n".join([*tables, notes(arguments.seeds)]) + "\n"
        (results.parent / "table.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
