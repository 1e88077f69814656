"""Tiny runs that the theory is told of, made in a tenth of a second each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vicinal.experiment import Experiment
from vicinal.fitting import fit
from vicinal.runs import Run

ENGINE = {"steps": 6, "validate_every": 3, "device": "cpu", "threads": 1}


def tiny_run(folder: Path, **changes: Any) -> Run:
    """A run of mixup with alpha 0.5 on 60 points of two moons, of a logistic network; or as ``changes`` say."""
    described: dict[str, Any] = {
        "data": {"name": "two_moons", "n": 60, "test_size": 40},
        "method": {"name": "mixup", "alpha": 0.5},
        "network": {"name": "mlp", "hidden": []},
        "training": ENGINE,
        "recipe": "none",
    }
    return fit(Experiment.of(described | changes), folder, progress=False)
