"""Runs that another run needs: made once, shared, named, refused, and brought to their end after a kill."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from vicinal import fitting
from vicinal.companions import autoencoder_of, companions_of
from vicinal.errors import InputError
from vicinal.experiment import Experiment
from vicinal.fitting import finish, fit
from vicinal.grid import Grid, run_grid, run_path
from vicinal.methods import METHODS, Method, Step
from vicinal.networks import Autoencoder
from vicinal.runs import Run

torch.set_num_threads(1)

TRAINING = {
    "steps": 6,
    "batch_labelled": 10,
    "batch_unlabelled": 12,
    "checkpoint_every": 2,
    "device": "cpu",
    "threads": 1,
}
SMALL = {"name": "mmd_vae", "latent": 3, "widths": [4]}


def described(method: Any = "varmixup", **more: Any) -> Experiment:
    network = SMALL if method == "mmd_vae" else {"name": "mlp", "hidden": [8]}
    values = {"data": "digits", "labels": 50, "recipe": "none", "seed": 4, "network": network, "training": TRAINING}
    return Experiment.of({**values, "method": method, **more})


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """Small autoencoders, which no recipe changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vicinal.experiment.recipes.names", list)
        patch.setattr(
            METHODS["mmd_vae"], "experiment", {"network": SMALL, "training": {**TRAINING, "optimizer": "adam"}}
        )
        yield


@pytest.fixture(scope="module")
def first(_small: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of VarMixup that made its companions itself."""
    return fit(described(), tmp_path_factory.mktemp("first") / "run", progress=False)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The method of each training in this process, in order."""
    done: list[str] = []
    train = fitting._train

    def counted(parts: Any, run: Run, **more: Any) -> None:
        done.append(parts.experiment.method.name)
        train(parts, run, **more)

    monkeypatch.setattr(fitting, "_train", counted)
    return done


def figures(run: Run) -> dict[str, Any]:
    return {key: value for key, value in run.evaluation().items() if key != "provenance"}


def test_a_run_brings_its_autoencoder_and_its_judge(tmp_path: Path, fits: list[str]) -> None:
    """First them, then itself; on the same data, split, augmentation and seed; and the gate is in its evaluation."""
    experiment = described(augment={"crop": 1})
    run = fit(experiment, tmp_path / "run", progress=False)
    assert fits == ["mmd_vae", "supervised", "varmixup"]
    assert json.loads(run.companions_file.read_text()) == {"autoencoder": "autoencoder", "judge": "judge"}
    found = [Run.open(run.path / name) for name in ("autoencoder", "judge")]
    for companion in found:
        told = companion.experiment
        for key in ("data", "split", "augment", "seed"):
            assert getattr(told, key) == getattr(experiment, key)
        assert companion.split_file.read_text() == run.split_file.read_text()
    assert [companion.experiment.method.name for companion in found] == ["mmd_vae", "supervised"]
    assert found[1].experiment.network == experiment.network
    assert found[1].experiment.training == experiment.training
    gate = run.evaluation()["gate"]
    assert gate.keys() == {"n", "squared_error", "psnr", "accuracy", "accuracy_rebuilt", "passed"}
    assert gate["n"] == 597
    assert gate["squared_error"] == found[0].evaluation()["test"]["squared_error"]["last"]
    assert gate["psnr"] == found[0].evaluation()["test"]["psnr"]["last"]
    assert gate["accuracy"] == pytest.approx(1 - found[1].evaluation()["test"]["error"]["last"])
    assert gate["passed"] == (gate["accuracy"] - gate["accuracy_rebuilt"] <= 0.1)
    assert not any("autoencoder" in name or name.startswith("method.") for name in run.checkpoint("last")["state_dict"])


def test_an_autoencoder_is_measured_by_its_error(tmp_path: Path) -> None:
    run = fit(described("mmd_vae"), tmp_path / "run", progress=False)
    found = run.evaluation()
    assert found["test"].keys() == {"n", "squared_error", "psnr"}
    assert "gate" not in found
    assert found["validation"]["squared_error"]["best_validation"] <= found["validation"]["squared_error"]["last"]


def test_the_autoencoder_comes_back_frozen(first: Run) -> None:
    network = autoencoder_of(first)
    assert isinstance(network, Autoencoder)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert autoencoder_of(Run.open(first.path / "judge")) is None


def test_a_named_autoencoder_gives_the_figures_of_the_run_that_made_it(
    first: Run, tmp_path: Path, fits: list[str]
) -> None:
    """And another one, as a control, does not."""
    named = {name: str(first.path / name) for name in ("autoencoder", "judge")}
    again = fit(described({"name": "varmixup", **named}), tmp_path / "again", progress=False)
    assert fits == ["varmixup"]
    assert figures(again) == figures(first)
    assert (again.path / json.loads(again.companions_file.read_text())["judge"]).resolve() == first.path / "judge"
    other = str(finish(described("mmd_vae", seed=5), tmp_path / "vae").path)
    second = fit(described({"name": "varmixup", **named, "autoencoder": other}), tmp_path / "second", progress=False)
    assert figures(second)["test"] != figures(first)["test"]
    assert figures(second)["gate"]["psnr"] != figures(first)["gate"]["psnr"]


@pytest.mark.parametrize(
    "method", ["mixup_r", "varmixup_latent_adv", "varmixup_input_adv", "on_manifold_training", "varmixup_ict"]
)
def test_the_whole_family_runs_on_named_companions(method: str, first: Run, tmp_path: Path, fits: list[str]) -> None:
    named = {name: str(first.path / name) for name in ("autoencoder", "judge")}
    run = fit(described({"name": method, **named}), tmp_path / "run", progress=False)
    assert fits == [method]
    assert figures(run)["gate"] == figures(first)["gate"]
    assert figures(run)["test"] != figures(first)["test"]


def test_a_grid_shares_companions(tmp_path: Path, fits: list[str]) -> None:
    """One autoencoder for each seed, and the judge is the supervised row."""
    base = {**described().as_dict(), "recipe": "none"}
    base = {key: base[key] for key in ("data", "split", "network", "training", "recipe")}
    rows = {"rows": ["varmixup", "mixup_r", "supervised"], "seeds": [0, 1], "base": base}
    assert run_grid(Grid.of("g", rows), tmp_path / "store", jobs=1) == {}
    assert sorted(fits) == sorted(["mmd_vae", "varmixup", "mixup_r", "supervised"] * 2)
    assert len(list((tmp_path / "store").iterdir())) == 8
    assert run_grid(Grid.of("g", rows), tmp_path / "store", jobs=1) == {}
    assert len(fits) == 8


def test_companions_outlive_a_run_that_fails(tmp_path: Path, fits: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Method, step: Step) -> None:
        raise InputError("method: no loss today")

    with monkeypatch.context() as patch:
        patch.setattr(METHODS["varmixup"], "loss", wrong)
        with pytest.raises(InputError, match="no loss today"):
            fit(described(), tmp_path / "run", progress=False)
    assert Run(tmp_path / "run" / "autoencoder").is_finished
    made = len(fits)
    assert fit(described(), tmp_path / "run", resume=True, progress=False).is_finished
    assert len(fits) == made + 1  # the run alone: its companions were there


def test_a_store_keeps_runs_of_other_autoencoders_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_path("runs", described())
    assert before == run_path("runs", described())
    assert run_path("runs", described("supervised")).name == described("supervised").key
    kind = METHODS["mmd_vae"]
    monkeypatch.setattr(kind, "experiment", {**kind.experiment, "network": {**SMALL, "latent": 4}})
    assert run_path("runs", described()) != before


def test_methods_that_need_none_have_none() -> None:
    assert companions_of(described("supervised")) == companions_of(described("ict")) == {}


def unfinished(tmp_path: Path) -> str:
    run = Run(tmp_path / "unfinished")
    with run.locked():
        run.claim(described("mmd_vae"), resume=False)
    return str(run.path)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        (
            "autoencoder",
            lambda path: str(path / "none"),
            "none: no such directory; give the directory of a finished run",
        ),
        ("judge", str, "not a run directory .* or auto"),
        ("autoencoder", unfinished, "unfinished is not finished; go on with: vicinal fit --resume .*unfinished$"),
        (
            "autoencoder",
            lambda path: str(finish(described("supervised"), path / "classifier").path),
            "trained no autoencoder; name a run of a method such as mmd_vae",
        ),
        (
            "judge",
            lambda path: str(finish(described("mmd_vae"), path / "vae").path),
            "trained no classifier; name a run of a method such as supervised",
        ),
        (
            "autoencoder",
            lambda path: str(finish(described("mmd_vae", data="two_moons"), path / "vae").path),
            r"it does not rebuild examples of shape \(1, 8, 8\); name one trained on these data",
        ),
    ],
)
def test_a_named_run_that_does_not_serve(
    name: str, make: Any, message: str, tmp_path: Path, fits: list[str], request: pytest.FixtureRequest
) -> None:
    """One line that says which setting, what is wrong and what to do; before anything else is trained or written."""
    given = make(tmp_path)
    fits.clear()
    with pytest.raises(InputError, match=f"^method.{name}: .*{message}") as caught:
        fit(described({"name": "varmixup", name: given}), tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value)
    assert fits in ([], ["supervised", "varmixup"])  # whether it fits is known when both are loaded
    assert not (tmp_path / "run").exists()


class Killed(BaseException):
    """What no handler of errors catches."""


@pytest.mark.parametrize("victim", ["mmd_vae", "supervised", "varmixup"])
def test_a_killed_companion_goes_on(
    victim: str, first: Run, tmp_path: Path, fits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the figures of a run that was not killed; what was finished is not trained again."""
    experiment = described()
    kind = METHODS[victim]

    def killed(self: Method, step: Step) -> None:
        if step.progress.step == 4:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(kind, "after_step", killed)
        with pytest.raises(Killed):
            fit(experiment, tmp_path / "run", progress=False)
    order = ["mmd_vae", "supervised", "varmixup"]
    assert fits == order[: order.index(victim) + 1]
    run = Run(tmp_path / "run")
    assert not run.is_finished
    stopped = {"mmd_vae": Run(run.path / "autoencoder"), "supervised": Run(run.path / "judge"), "varmixup": run}[victim]
    assert 0 < stopped.checkpoint("last")["global_step"] < 6
    fits.clear()
    resumed = fit(experiment, tmp_path / "run", resume=True, progress=False)
    assert fits == order[order.index(victim) :]
    assert figures(resumed) == figures(first)
    for name in ("autoencoder", "judge"):
        assert figures(Run.open(resumed.path / name)) == figures(Run.open(first.path / name))
