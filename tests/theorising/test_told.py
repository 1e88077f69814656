"""Which runs are refused, what is told along the way, and how sure the means are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.theory_runs import tiny_run

from vicinal.errors import InputError
from vicinal.runs import Run
from vicinal.theorising import check_run, theorise

# PyTorch scripts some decompositions when forward-mode differentiation is first used, which it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Mixup, two moons, logistic."""
    return tiny_run(tmp_path_factory.mktemp("runs") / "a")


def test_a_run_whose_data_changed_is_refused(tmp_path: Path) -> None:
    made = tiny_run(tmp_path / "made")
    check_run(made)
    values = made.evaluation()
    values["provenance"]["data"]["content"] = "another"
    made.evaluation_file.write_text(json.dumps(values), encoding="utf-8")
    for refused in (check_run, theorise):
        with pytest.raises(InputError, match="have changed since the run was trained") as told:
            refused(made)
        assert "\n" not in str(told.value)


def test_means_have_standard_errors(run: Run) -> None:
    found: dict[str, Any] = theorise(run, n=20)
    curve = found["curve"]
    assert curve["n"] == 20
    for name in ("surrogate", "fgm", "apgd"):
        assert len(curve[f"{name}_standard_error"]) == len(curve[name])
        assert min(curve[f"{name}_standard_error"]) > 0
    assert curve["surrogate_standard_error"][0] == pytest.approx(found["train"]["loss_standard_error"], rel=1e-3)
    look = found["training"]["looks"][-1]
    for name in ("cosine_mean", "train_loss", "held_out_loss"):
        assert look[f"{name}_standard_error"] > 0
    assert look["train_loss_standard_error"] == found["train"]["loss_standard_error"]
    assert {"mixup_standard_error", "around_standard_error", "shrunk_standard_error"} <= set(look)


def test_progress_is_told_on_standard_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    theorise(run, n=10, replay=False, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    for part in ("mixup loss", "expansions", "losses under attack", "losses by radius", "smoothness"):
        assert f"{run.path}: {part}\n" in err
    theorise(run, n=10, replay=False)
    assert capsys.readouterr() == ("", "")
