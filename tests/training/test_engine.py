"""What the engine may change, and what it must not: memory layout, allocator, compiler."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vicinal import machine
from vicinal.errors import InputError
from vicinal.experiment import Experiment
from vicinal.fitting import fit

torch.set_num_threads(1)


def described(method: str = "advmixup", seed: int = 0, **more: Any) -> Experiment:
    """A small run with everything that draws."""
    values: dict[str, Any] = {
        "data": "digits",
        "labels": 50,
        "recipe": "none",
        "network": {"name": "small_cnn", "widths": [4, 6], "dropout": 0.2, "input_noise": 0.1},
        "augment": {"crop": 1},
    }
    training = {"steps": 6, "batch_labelled": 7, "batch_unlabelled": 9, "learning_rate": 0.02, "threads": 1}
    training |= {"device": "cpu", "log_every": 2, "validate_every": 3, **more.pop("training", {})}
    return Experiment.of({**values, **more, "method": method, "seed": seed, "training": training})


def trained(experiment: Experiment, folder: Path) -> dict[str, Tensor]:
    return fit(experiment, folder, progress=False).checkpoint("last")["state_dict"]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Bit-equal, buffers and counters included."""
    assert one.keys() == other.keys()
    return all(
        torch.equal(value, other[key]) if isinstance(value, Tensor) else value == other[key]
        for key, value in one.items()
    )


def test_channels_last_gives_the_same_numbers_up_to_rounding(tmp_path: Path) -> None:
    # Without dropout and noise: those draw in the order in which the numbers lie.
    network = {"name": "small_cnn", "widths": [4, 6]}
    weights = [
        trained(described(network=network, training={"channels_last": last, "steps": 3}), tmp_path / str(last))
        for last in (True, False)
    ]
    for key, value in weights[0].items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(value, weights[1][key], rtol=1e-3, atol=1e-4)


def test_the_allocator_changes_no_bit(tmp_path: Path) -> None:
    assert machine.tune_allocator() is (platform.libc_ver()[0] == "glibc")
    first = trained(described(), tmp_path / "default")
    assert same(first, trained(described(training={"tune_allocator": True}), tmp_path / "tuned"))


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
@pytest.mark.slow  # the compiler's own start
@pytest.mark.parametrize("broken", [False, True])
def test_compiled_or_told_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool) -> None:
    experiment = described(
        "supervised", network={"name": "mlp", "hidden": [4]}, augment={}, training={"compile": True, "steps": 4}
    )
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch._dynamo.reset()
    if broken:
        monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, str(tmp_path / "no-such-compiler")))
        with pytest.raises(InputError, match=r"^training.compile: .*leave it off"):
            fit(experiment, tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()
        return
    plain = trained(
        described("supervised", network={"name": "mlp", "hidden": [4]}, augment={}, training={"steps": 4}),
        tmp_path / "plain",
    )
    try:
        compiled = trained(experiment, tmp_path / "run")
    except InputError as error:
        assert "training.compile" in str(error)  # noqa: PT017
        pytest.skip(f"nothing to compile with: {error}")
    for key, value in plain.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(value, compiled[key], rtol=1e-4, atol=1e-5)
