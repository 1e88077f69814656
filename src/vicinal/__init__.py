"""Robust, calibrated classifiers from few labels, by vicinal risk minimisation.

A training point is replaced by a neighbourhood of it (mixed with another point, moved adversarially, or averaged with a
teacher), and what that bought is measured: accuracy, robustness, calibration, smoothness.

The rooms, from the foundations up: `vicinal.data` (where examples come from), `vicinal.networks` (what is trained),
`vicinal.vicinity` (how a neighbour is made), `vicinal.methods` (one published loss a file), `vicinal.training`,
`vicinal.evaluation`, `vicinal.reporting`, and `vicinal.experiment` (the description of one run). `VicinalClassifier` is
the scikit-learn face of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vicinal.estimator import VicinalClassifier
    from vicinal.experiment import Experiment
    from vicinal.fitting import fit

__version__ = "0.1.0"

__all__ = ["Experiment", "VicinalClassifier", "__version__", "fit"]

_ROOMS = {"Experiment": "experiment", "VicinalClassifier": "estimator", "fit": "fitting"}


def __getattr__(name: str) -> Any:
    # Imported when they are asked for: they bring torch, and one of them scikit-learn.
    if name in _ROOMS:
        return getattr(importlib.import_module(f"vicinal.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
