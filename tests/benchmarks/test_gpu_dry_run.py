"""The GPU script runs end to end without a GPU, goes on where it stopped, and refuses what it cannot do in one line."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"
WRITTEN = ("machine.json", "timing.json", "curves.csv", "curves.png", "errors.json", "summary.md")


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *words], env=environment(**more), capture_output=True, text=True, timeout=300, check=False
    )


def steps(output: Path) -> dict[str, int]:
    return {name: row["steps_done"] for name, row in json.loads((output / "errors.json").read_text()).items()}


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a dry run."""
    output = tmp_path_factory.mktemp("gpu")
    done = run("--dry-run", "--output", str(output))
    assert done.returncode == 0, done.stderr
    return output


def test_everything_is_written(dry: Path) -> None:
    assert [name for name in WRITTEN if not (dry / name).is_file()] == []
    timing = json.loads((dry / "timing.json").read_text())
    modes = {"eager", "channels_last", "channels_last bf16", "channels_last bf16 compiled"}
    assert {(row["method"], row["mode"]) for row in timing} == {
        (method, mode) for method in ("supervised", "ict", "advmixup") for mode in modes
    }
    with (dry / "curves.csv").open(newline="") as file:
        assert {row["method"] for row in csv.DictReader(file)} == {"supervised", "ict", "advmixup"}
    assert "DRY RUN" in (dry / "summary.md").read_text()


def test_errors_have_their_provenance(dry: Path) -> None:
    errors = json.loads((dry / "errors.json").read_text())
    assert errors["supervised"]["finished"]
    assert not errors["ict"]["finished"]
    for name, row in errors.items():
        assert row["recipe"] == f"cifar10-4000/{name}"
        assert 0 <= row["test_error"] <= 1
        assert row["images_per_second"] > 0
        assert row["weights"] == ("student" if name == "supervised" else "teacher")


def test_a_second_run_goes_on(dry: Path) -> None:
    before, timing = steps(dry), (dry / "timing.json").read_text()
    done = run("--dry-run", "--output", str(dry))
    assert done.returncode == 0, done.stderr
    after = steps(dry)
    assert after["supervised"] == before["supervised"]
    assert after["ict"] > before["ict"] > 0
    assert after["advmixup"] > before["advmixup"] > 0
    assert (dry / "timing.json").read_text() == timing


def test_a_stop_from_outside_is_saved(tmp_path: Path) -> None:
    """The slice is far longer than the test: only the signal can end it."""
    process = subprocess.Popen(
        [str(SCRIPT), "--dry-run", "--skip-timing", "--slice", "600", "--output", str(tmp_path)],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for _ in range(1200):
            if any(tmp_path.glob("runs/ict-*/metrics.csv")):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert steps(tmp_path)["ict"] > 0
    assert steps(tmp_path)["advmixup"] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("{folder}", "5"), "there is no folder cifar10"),
        (("{folder}/missing", "5"), "there is no folder cifar10"),
        ((), "give DATA and MINUTES"),
        (("{folder}",), "give DATA and MINUTES"),
        (("--dry-run", "--steps", "0"), "steps must be greater than 0"),
    ],
)
def test_bad_words_are_refused_in_a_line(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    done = run(*(word.format(folder=tmp_path) for word in words))
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_without_a_gpu_a_real_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data" / "cifar10").mkdir(parents=True)
    done = run(str(tmp_path / "data"), "5", "--output", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr == "benchmarks/gpu.sh: PyTorch sees no CUDA device; try the script on the CPU with --dry-run\n"
    assert not (tmp_path / "out").exists()


def test_missing_packages_are_named(tmp_path: Path) -> None:
    """A sitecustomize that hides two packages stands for an interpreter without them."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "found = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name in ('jsonargparse', 'datasets') else found(name, *more)\n"
    )
    done = run("--dry-run", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "packages are missing: jsonargparse, datasets;" in done.stderr
    assert done.stderr.count("\n") == 1
