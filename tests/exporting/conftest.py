"""Runs of a moment, made once: images and feature vectors."""

from __future__ import annotations

import pytest

from vicinal.experiment import Experiment
from vicinal.fitting import fit
from vicinal.runs import Run

TINY = {"steps": 4, "validate_every": 2, "device": "cpu", "threads": 1}


@pytest.fixture(scope="session")
def image_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A convolutional network on the digits, 8x8 and grey; batch norm, and normalisation inside."""
    experiment = Experiment.of(
        data="digits",
        method="mean_teacher",
        labels=50,
        recipe="none",
        network={"name": "small_cnn", "widths": [4, 8]},
        training=TINY,
    )
    return fit(experiment, tmp_path_factory.mktemp("image") / "run", progress=False)


@pytest.fixture(scope="session")
def feature_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A perceptron on points in the plane."""
    experiment = Experiment.of(data="two_moons", method="supervised", labels=20, recipe="none", training=TINY)
    return fit(experiment, tmp_path_factory.mktemp("feature") / "run", progress=False)


@pytest.fixture(scope="session")
def foreign_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network by import path."""
    experiment = Experiment.of(
        data="two_moons",
        method="supervised",
        labels=20,
        recipe="none",
        network={"name": "torch.nn:Linear", "in_features": 2, "out_features": 2},
        training=TINY,
    )
    return fit(experiment, tmp_path_factory.mktemp("foreign") / "run", progress=False)


@pytest.fixture(params=["image_run", "feature_run"])
def any_run(request: pytest.FixtureRequest) -> Run:
    """One of the first two."""
    run: Run = request.getfixturevalue(request.param)
    return run
