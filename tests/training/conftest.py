"""What the tests of training share."""

from __future__ import annotations

from typing import Any

import pytest

from vicinal.experiment import Experiment
from vicinal.fitting import fit


@pytest.fixture(scope="session")
def companions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Runs of two steps on the digits that the methods that mix codes may start from."""
    folder, made = tmp_path_factory.mktemp("companions"), {}
    training = {"steps": 2, "batch_labelled": 5, "batch_unlabelled": 8, "threads": 1, "device": "cpu"}
    for name, method in (("autoencoder", "mmd_vae"), ("judge", "supervised")):
        network: dict[str, Any] = (
            {"name": "mmd_vae"} if method == "mmd_vae" else {"name": "small_cnn", "widths": [4, 6]}
        )
        experiment = Experiment.of(
            data="digits", labels=50, recipe="none", method=method, network=network, training=training
        )
        made[name] = str(fit(experiment, folder / name, progress=False).path)
    return made
