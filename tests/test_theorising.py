"""What the theory says of a run: the sample, attacks, smoothness, and the training that is repeated."""

from __future__ import annotations

import copy
import json
import math
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.theory_runs import ENGINE, tiny_run
from torch import nn
from torch.nn import functional as F

from vicinal.errors import InputError
from vicinal.evaluation import APGD, FGM
from vicinal.experiment import method_class
from vicinal.networks import mlp
from vicinal.runs import Run
from vicinal.theorising import (
    REPLAY_SECONDS,
    Attacked,
    _alpha_of,
    _not_again,
    look_steps,
    smoothness_figures,
    theorise,
)
from vicinal.theorising.along import Looks
from vicinal.training import watching

# PyTorch scripts some decompositions when forward-mode differentiation is first used, which it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Mixup, two moons, logistic."""
    return tiny_run(tmp_path_factory.mktemp("runs") / "a")


@pytest.fixture(scope="module")
def found(run: Run) -> dict[str, Any]:
    """What the theory says of it."""
    return theorise(run, n=20)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_is_trained_again_to_the_same_bits_and_left_as_it_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = contents(run.path)
    again = theorise(run, n=20)["training"]
    assert again["same_weights"]
    assert again["largest_difference"] == 0
    assert [look["step"] for look in again["looks"]] == look_steps(6) == [0, 1, 2, 3, 4, 5, 6]
    assert contents(run.path) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "mean_teacher", "split": {"labels": 10}},
        {"method": "mean_teacher", "network": {"name": "mlp", "hidden": [8], "dropout": 0.5}, "split": {"labels": 10}},
        {"method": "vat", "split": {"labels": 10}},
        {"method": "supervised", "averaging": {"kind": "swa", "start": 0.5, "every": 1}},
        {"method": "supervised", "network": {"name": "mlp", "hidden": [8], "norm": "batch", "input_noise": 0.1}},
    ],
    ids=lambda changes: " ".join(map(str, changes.values()))[:40],
)
def test_whatever_is_drawn_in_a_training_is_drawn_again(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert theorise(tiny_run(tmp_path / "run", **changes), n=10)["training"]["same_weights"]


def test_other_weights_are_seen(run: Run, tmp_path: Path) -> None:
    other = tiny_run(tmp_path / "b")
    content = torch.load(other.last, weights_only=True)
    content["state_dict"]["student.head.weight"][0, 0] += 1e-3
    torch.save(content, other.last)
    again = theorise(other, n=20)["training"]
    assert not again["same_weights"]
    assert again["largest_difference"] == pytest.approx(1e-3, rel=1e-2)


def wreck(self: Looks, step: int, network: nn.Module) -> dict[str, Any]:
    for parameter in network.parameters():
        parameter.data.zero_()
    return {"step": step}


def test_whatever_a_look_does_stays_without_effect(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looks, "look", wreck)
    assert theorise(run, n=20)["training"]["same_weights"]
    monkeypatch.setattr(watching, "copy", SimpleNamespace(deepcopy=lambda network: network))  # the control
    monkeypatch.setattr("vicinal.theorising.smoothness_figures", lambda *args, **kwargs: [])
    monkeypatch.setattr("vicinal.theorising.loss_curve", lambda *args: None)
    monkeypatch.setattr("vicinal.theorising.statements", lambda *args, **kwargs: copy.copy(_NOTHING))
    assert not theorise(run, n=20)["training"]["same_weights"]


_NOTHING: dict[str, Any] = {
    "assumptions": {"separate": {"holds": True}},
    "statements": {"attack": {"values": None}},
}


def test_an_interrupted_repetition_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: Looks, step: int, network: nn.Module) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Looks, "look", stop)
    before = contents(run.path)
    with pytest.raises(KeyboardInterrupt):
        theorise(run, n=20)
    assert contents(run.path) == before
    assert list(tmp_path.iterdir()) == []


def test_the_last_look_is_at_the_network_of_the_run(found: dict[str, Any], run: Run) -> None:
    last = theorise(run, n=20, replay=True)["training"]["looks"][-1]
    assert last["mixup"] == pytest.approx(found["statements"]["mixup_loss"]["values"]["value"], rel=1e-9)
    assert last["around"] == pytest.approx(found["statements"]["expansion"]["values"]["total"], rel=1e-9)
    assert last["train_loss"] == found["train"]["loss"]
    first = found["training"]["looks"][0]
    assert first["mixup"] != pytest.approx(last["mixup"], rel=1e-3)


def test_what_is_said_is_plain_and_finite(found: dict[str, Any]) -> None:
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["alpha"] == 0.5
    assert found["minimised"]
    assert found["space"] == "input"
    assert found["cosines"] == sorted(found["cosines"])


def test_the_sample_is_of_labelled_training_points(tmp_path: Path) -> None:
    few = tiny_run(tmp_path / "few", split={"labels": 10}, method="ict")
    labelled = set(json.loads(few.split_file.read_text())["labelled"])
    assert len(labelled) == 10
    made = [theorise(few, n=n, seed=seed, replay=False) for n, seed in ((6, 0), (6, 0), (6, 1), (50, 0))]
    rows = [values["sample"]["rows"] for values in made]
    assert all(set(each) <= labelled for each in rows)
    assert rows[0] == rows[1] != rows[2]
    assert set(rows[3]) == labelled
    assert not made[0]["minimised"]
    assert made[0]["no_training"] is not None


@pytest.mark.parametrize(
    ("method", "settings", "alpha", "own"),
    [
        ("mixup", {"alpha": 0.2}, 0.2, True),
        ("mixmatch", {}, 0.75, True),
        ("supervised", {}, 1.0, False),
        ("temporal_ensembling", {"alpha": 0.6}, 1.0, False),  # a decay
        ("temporal_ensembling_sntg", {}, 1.0, False),
    ],
)
def test_alpha_is_the_methods_if_it_is_of_a_mixing_law(
    method: str, settings: dict[str, Any], alpha: float, own: bool
) -> None:
    assert _alpha_of(method_class(method)(**settings)) == (
        alpha,
        "the method's" if own else _alpha_of(method_class("supervised")())[1],
    )


@pytest.mark.parametrize(
    ("seconds", "asked", "again"),
    [
        (REPLAY_SECONDS, None, True),
        (REPLAY_SECONDS + 1, None, False),
        (REPLAY_SECONDS + 1, True, True),
        (1.0, False, False),
    ],
)
def test_long_trainings_are_repeated_on_demand(seconds: float, asked: bool | None, again: bool) -> None:
    why = _not_again(seconds, asked)
    assert (why is None) == again
    assert why is None or "--replay" in why


@pytest.mark.parametrize("kind", [APGD, FGM])
def test_attacks_reach_the_closed_form_of_a_linear_network(kind: Any) -> None:
    draws = torch.Generator().manual_seed(0)
    theta, x = torch.randn(5, generator=draws), torch.randn(30, 5, generator=draws)
    eta, y = torch.rand(30, generator=draws), (torch.rand(30, generator=draws) < 0.5).long()

    def logits(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.zeros(len(x)), x @ theta], dim=1)

    margin = (2 * y - 1) * (x @ theta)
    reached = Attacked(kind)(logits, x, y, eta)
    assert torch.allclose(reached, F.softplus(eta * theta.norm() - margin), atol=1e-5)
    assert not torch.allclose(reached, F.softplus(eta.mean() * theta.norm() - margin), atol=1e-2)  # one radius for all


def net(activation: Any, hidden: list[int] | None = None) -> nn.Module:
    torch.manual_seed(0)
    return mlp((3,), 2, hidden=[8] if hidden is None else hidden, activation=activation).eval()


def smooth(network: nn.Module) -> dict[tuple[str, str, str], Any]:
    draws = torch.Generator().manual_seed(1)
    x, y = torch.randn(12, 3, generator=draws), torch.arange(12) % 2
    return {(row["of"], row["kind"], row["name"]): row for row in smoothness_figures(network, x, y, seed=0)}


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_estimates_are_below_the_bounds(activation: str) -> None:
    for of in ("f", "gradient"):
        rows = [row for (which, *_), row in smooth(net(activation)).items() if which == of]
        (above,) = [row["largest"] for row in rows if row["kind"] == "upper bound"]
        below = [row["largest"] for row in rows if row["kind"] == "lower estimate"]
        assert all(0 < value <= above * (1 + 1e-4) for value in below)
        assert not all(1000 * value <= above for value in below)  # what a network 1000 times as large would have


def test_a_network_of_relus_has_no_bound_on_its_gradient() -> None:
    rows = smooth(net("relu"))
    bound = rows["gradient", "upper bound", "product of the layers' bounds"]
    hessian = rows["gradient", "lower estimate", "Hessian norm"]
    assert bound["largest"] is None
    assert "infinite" in bound["why_not"]
    assert "kinks" in hessian["why_not"]
    assert rows["gradient", "lower estimate", "mixup gap"]["largest"] > 0


def test_an_affine_network_does_not_bend() -> None:
    rows = smooth(net("relu", []))
    assert rows["gradient", "upper bound", "product of the layers' bounds"]["largest"] == 0
    assert rows["gradient", "lower estimate", "Hessian norm"]["largest"] == 0
    assert rows["gradient", "lower estimate", "mixup gap"]["largest"] < 1e-9


def test_of_a_relu_network_with_batch_norm_no_bound_is_given(tmp_path: Path) -> None:
    made = tiny_run(tmp_path / "bn", network={"name": "mlp", "hidden": [8], "norm": "batch"})
    found = theorise(made, n=20, replay=False)
    for name in ("surrogate_bound", "class_surrogate_bound", "logistic_bound", "jensen_bound"):
        assert not found["statements"][name]["applies"]
        assert found["statements"][name]["values"] is None
    assert not found["assumptions"]["no_batch_norm"]["holds"]
    assert found["statements"]["expansion"]["values"] is not None


def test_a_run_that_trained_no_classifier_is_refused(tmp_path: Path) -> None:
    made = tiny_run(
        tmp_path / "vae", data="digits", method="mmd_vae", network="mmd_vae", training={**ENGINE, "steps": 1}
    )
    with pytest.raises(InputError, match="trained no classifier"):
        theorise(made)


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"n": 1}, "n "), ({"alpha": 0.0}, "alpha"), ({"space": "latent"}, "space: unknown 'latent'")],
)
def test_settings_out_of_range_are_refused(run: Run, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        theorise(run, **settings)


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    made = tiny_run(tmp_path / "unfinished")
    made.last.unlink()
    with pytest.raises(InputError, match="--resume"):
        theorise(made)


def test_looks_are_spread_over_the_training() -> None:
    for steps in (1, 2, 60, 5000):
        found = look_steps(steps)
        assert found[0] == 0
        assert found[-1] == steps
        assert len(found) <= 11
        assert found == sorted(set(found))
    assert math.isclose(look_steps(10**9)[5] / look_steps(10**9)[4], 10, rel_tol=0.01)
