"""Tiny finished runs, and studies that only look."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from support.assessed import Break, Look, Stare, described

from vicinal import assessing
from vicinal.fitting import fit
from vicinal.runs import Run

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    made = {
        "plain": described(),
        "other seed": described(seed=1),
        "mixup": described(method="mixup"),
        "other data": described(data={"name": "two_moons", "noise": 0.2}),
    }
    return {name: fit(experiment, folder / name, progress=False).path for name, experiment in made.items()}


@pytest.fixture
def runs(trained: dict[str, Path], tmp_path: Path) -> dict[str, Run]:
    return {name: Run(shutil.copytree(path, tmp_path / name)) for name, path in trained.items()}


@pytest.fixture(autouse=True)
def _studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assessing, "STUDIES", {"look": Look, "stare": Stare, "break": Break})
    monkeypatch.setattr(Look, "calls", [])
    monkeypatch.setattr(Stare, "calls", [])
    assessing._assembled.cache_clear()
