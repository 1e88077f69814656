"""The theory's benchmarks: all ways compute one figure, growth is read right, and claims are counted as they fall."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import theory_cost
import theory_smoothness
import torch

# What torch itself scripts when forward-mode derivatives are first taken.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def test_all_ways_give_the_same_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    row = theory_cost.measure(6, 9, rounds=1)
    assert row["difference"] < 1e-12
    assert row["probes_off"] < 5
    assert row["products"] == {"exact": 7, "probes": theory_cost.PROBES + 1}
    moments = theory_cost.mixup_moments
    monkeypatch.setattr(theory_cost, "mixup_moments", lambda alpha: moments(2 * alpha))
    assert theory_cost.measure(6, 9, rounds=1)["difference"] > 0.01  # the control


def test_growth_is_the_exponent() -> None:
    rows = [
        {"d": d, "ms": {"full": 3 * d**2, "exact": d, "probes": 7}, "ratio": {"exact": d, "probes": d**2}}
        for d in (2, 4, 8)
    ]
    found = theory_cost.growths(rows)
    expected = {"full": 2, "exact": 1, "probes": 0, "full / exact": 1, "full / probes": 2}
    assert found == pytest.approx(expected, abs=1e-9)


def test_tables_are_written(tmp_path: Path) -> None:
    rows = [theory_cost.measure(d, 5, rounds=2) for d in (2, 4, 8)]
    described = {
        **theory_cost.provenance(),
        "growth": theory_cost.growths(rows),
        "growth_upper_half": theory_cost.growths(rows[1:]),
    }
    theory_cost.show(theory_cost.table(rows, described), {**described, "rows": rows}, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["rows"][0]["d"] == 2
    assert "growth with d over the larger half" in (tmp_path / "table.md").read_text()


@pytest.fixture(scope="module")
def runs() -> list[dict[str, dict[str, float]]]:
    settings: dict[str, Any] = {"alpha": 0.2, "weight": 0.1, "steps": 8, "activation": "silu"}
    return [theory_smoothness.one_seed(seed, points=20, settings=settings) for seed in range(2)]


def test_each_way_of_training_has_all_figures(runs: list[dict[str, dict[str, float]]]) -> None:
    for run in runs:
        assert tuple(run) == theory_smoothness.WAYS
        for figures in run.values():
            assert figures.keys() == theory_smoothness.FIGURES.keys()
            assert torch.tensor(list(figures.values())).isfinite().all()
        assert run["erm"] != run["mixup"] != run["mixup + penalty"]
    described = {**theory_cost.provenance(), "signs": theory_smoothness.signs(runs), "settings": {}, "points": 20}
    assert "test errors are within" in theory_smoothness.table(runs, described).markdown()


def test_claims_are_counted_whichever_way_they_fall(runs: list[dict[str, dict[str, float]]]) -> None:
    one = {way: dict.fromkeys(theory_smoothness.FIGURES, 1.0) for way in theory_smoothness.WAYS}
    lower = {**one, "mixup": dict.fromkeys(theory_smoothness.FIGURES, 0.5)}
    found = theory_smoothness.signs([one, lower, lower])
    assert found["H4, gap"] == "lower on 2 of 3 seeds, median ratio 0.50"
    assert found["H5, slope with the penalty"] == "lower on 0 of 3 seeds, median ratio 2.00"
