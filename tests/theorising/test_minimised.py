"""Whether the mixup loss is what a run minimised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.theory_runs import tiny_run

from vicinal.assembling import Assembled
from vicinal.networks import Classifier
from vicinal.theorising.minimised import beside


@pytest.mark.parametrize(
    ("changes", "up_to"),
    [
        ({}, []),
        ({"network": {"name": "mlp", "hidden": [4], "norm": "none", "dropout": 0.5}}, ["dropout"]),
        ({"network": {"name": "mlp", "hidden": [4], "norm": "none", "input_noise": 0.1}}, ["input noise"]),
        ({"network": {"name": "mlp", "hidden": [4], "norm": "batch"}}, ["batch norm"]),
        ({"method": "supervised"}, None),
        ({"method": {"name": "mixup", "alpha": 0.4}}, None),
        (
            {"data": "digits", "augment": {"crop": 1}, "network": {"name": "small_cnn", "widths": [2, 2]}},
            ["augmentation", "batch norm"],
        ),
    ],
    ids=str,
)
def test_what_was_minimised_besides_the_mixup_loss(
    tmp_path: Path, changes: dict[str, Any], up_to: list[str] | None
) -> None:
    made = tiny_run(tmp_path / "made", **changes)
    network = made.network("last").network
    assert isinstance(network, Classifier)
    assert beside(Assembled(made.experiment), network, 0.5) == up_to
