"""The commands that run something: what they leave behind and what they print."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from vicinal.data import as_float, load
from vicinal.experiment import Experiment
from vicinal.grid import Grid
from vicinal.runs import Run
from vicinal.settings import Choice

DOCS = Path(__file__).parents[2] / "docs"


def test_a_finished_run_holds_what_the_docs_say(finished: Path) -> None:
    table = (DOCS / "start.md").read_text(encoding="utf-8").partition("`runs/a` then holds")[2]
    promised = re.findall(r"^\| `([\w./]+)` \|", table, re.MULTILINE)
    assert len(promised) >= 6
    assert [name for name in promised if not (finished / name).exists()] == []
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}


def test_the_evaluation_names_what_was_asked(finished: Path) -> None:
    values = json.loads((finished / "evaluation.json").read_text(encoding="utf-8"))
    about = values["provenance"]
    assert (about["labels"], about["seed"], about["method"], about["steps"]) == (50, 7, "ict", 4)
    assert about["command"].startswith("vicinal fit digits --method ict --labels 50 --seed 7")
    assert 0 <= values["test"]["error"]["last"] <= 1
    assert 0 <= values["test"]["error"]["best_validation"] <= 1
    split = json.loads((finished / "split.json").read_text(encoding="utf-8"))
    assert len(split["labelled"]) == 50
    with (finished / "metrics.csv").open(encoding="utf-8") as file:
        assert [row["step"] for row in csv.DictReader(file)][-1] == "4"


def test_evaluate_prints_all_runs_and_changes_no_figure(finished: Path, tmp_path: Path, cli: Any) -> None:
    other = tmp_path / "b with spaces"
    shutil.copytree(finished, other)
    before = Run(other).evaluation()
    (other / "evaluation.json").unlink()
    answer = cli("evaluate", finished, other, "--studies", "none")
    assert answer.code == 0
    assert all(re.match(r"\d of 2 runs: ", line) for line in answer.err.splitlines()), answer.err
    figure = f"{100 * before['test']['error']['last']:.2f}"
    for path in (finished, other):
        assert re.search(rf"{re.escape(str(path))} .* 50 .* 7 .* {figure} ", answer.out), answer.out
    after = Run(other).evaluation()
    for part in ("test", "validation", "steps", "weights"):
        assert after[part] == before[part]


def test_evaluate_measures_the_weights_that_lie_there(finished: Path, tmp_path: Path, cli: Any) -> None:
    other = tmp_path / "b"
    shutil.copytree(finished, other)
    content = torch.load(other / "checkpoints" / "last.ckpt", weights_only=True)
    for name, value in content["state_dict"].items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and "preprocess" not in name:
            value.zero_()  # every input then gets class 0
    torch.save(content, other / "checkpoints" / "last.ckpt")
    assert cli("evaluate", other, "--studies", "none").code == 0
    truth = load(Choice("digits")).test
    assert truth is not None
    assert Run(other).evaluation()["test"]["error"]["last"] == pytest.approx(float((truth.y != 0).float().mean()))


def test_a_run_s_own_file_repeats_it_to_the_bit(finished: Path, tmp_path: Path, cli: Any) -> None:
    answer = cli("fit", "--config", finished / "experiment.yaml", "--output", tmp_path / "b", "--quiet")
    assert answer.code == 0
    assert Run(tmp_path / "b").experiment == Run(finished).experiment
    mine, theirs = (load_file(path / "model.safetensors") for path in (tmp_path / "b", finished))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    other = cli("fit", "--config", finished / "experiment.yaml", "--seed", 8, "--output", tmp_path / "c", "--quiet")
    assert other.code == 0
    changed = load_file(tmp_path / "c" / "model.safetensors")
    assert not all(torch.equal(changed[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("which", ["last", "best_validation"])
def test_predict_gives_the_network_s_own_labels(finished: Path, tmp_path: Path, cli: Any, which: str) -> None:
    x = load(Choice("digits")).train.x[torch.arange(700)]  # more than one batch
    np.savez(tmp_path / "new.npz", x=x.numpy())
    answer = cli("predict", finished, tmp_path / "new.npz", "--checkpoint", which, "--output", tmp_path / "labels.csv")
    assert (answer.code, answer.out) == (0, "")
    assert re.fullmatch(r"confidence: .*validation examples.*\n", answer.err)
    with (tmp_path / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    trained = Run(finished).network(which)  # type: ignore[arg-type]
    with torch.no_grad():
        p = trained.network(as_float(x)).softmax(dim=1)
    assert [row["name"] for row in rows] == [str(i) for i in range(700)]
    assert [row["label"] for row in rows] == [trained.classes[c] for c in p.argmax(dim=1).tolist()]
    assert [float(row["probability"]) for row in rows] == pytest.approx(p.amax(dim=1).tolist(), abs=1e-5)


def test_an_interrupted_run_says_how_to_go_on_and_does(
    finished: Path, tmp_path: Path, cli: Any, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that presses Ctrl-C in its third step, once."""
    monkeypatch.chdir(tmp_path)
    Path("pressing.py").write_text(
        "import os, pathlib, signal\nfrom vicinal.methods import ICT\n\n"
        "class Pressing(ICT):\n"
        '    """ICT."""\n'
        "    def loss(self, step):\n"
        "        if step.progress.step == 2 and not pathlib.Path('pressed').exists():\n"
        "            pathlib.Path('pressed').touch()\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "        return super().loss(step)\n",
        encoding="utf-8",
    )
    words = ("fit", "digits", "--method", "pressing:Pressing", "--labels", 50, "--seed", 7, "--output", "my run")
    answer = cli(*words, "--quiet", *tiny)
    assert answer.code == 130
    assert "vicinal fit --resume 'my run'" in answer.err
    assert not Run("my run").is_finished
    assert cli("evaluate", "my run").code == 2
    again = cli("fit", "--resume", "my run", "--quiet")
    assert again.code == 0, again.err
    mine, theirs = (load_file(path / "model.safetensors") for path in (Path("my run"), finished))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    refused = cli("fit", "--resume", "my run", "--quiet")
    assert refused.code == 2
    assert "finished" in refused.err


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("grid") / "tiny.yaml"
    training = {"steps": 3, "validate_every": 3, "device": "cpu", "threads": 1}
    values = {
        "title": "Tiny",
        "base": {
            "data": "digits",
            "labels": 50,
            "recipe": "none",
            "network": {"name": "mlp", "hidden": [8]},
            "training": training,
        },
        "rows": ["supervised", {"label": "Mixup", "method": {"name": "mixup", "alpha": 0.5}}],
        "seeds": [0, 1],
    }
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_a_grid_is_run_once_and_shown_in_every_form(grid: Path, tmp_path: Path, cli: Any) -> None:
    store, results = tmp_path / "store", tmp_path / "out" / "tiny"
    first = cli("benchmark", grid, "--store", store, "--jobs", 1, "--results", results)
    assert first.code == 0, first.err
    files = {path: path.read_bytes() for path in store.rglob("*") if path.is_file() and path.name != ".lock"}
    assert len([path for path in files if path.name == "evaluation.json"]) == 4
    again = cli("benchmark", grid, "--store", store, "--jobs", 1)
    assert again.code == 0
    assert "4 of 4 runs are finished already" in again.err
    assert {path: path.read_bytes() for path in files} == files

    errors = [Run(store / cell.experiment.key).evaluation()["test"]["error"]["last"] for cell in Grid.read(grid).cells]
    cells = [f"{100 * np.mean(pair):.2f} ± {100 * np.std(pair, ddof=1):.2f}" for pair in (errors[:2], errors[2:])]
    shown = {form: cli("table", grid, "--store", store, "--format", form) for form in ("terminal", "markdown", "csv")}
    for form, answer in shown.items():
        assert answer.code == 0, form
        assert all(cell in answer.out for cell in cells), (form, answer.out)
    rows = list(csv.DictReader(shown["csv"].out.splitlines()))
    assert [row["method"] for row in rows] == ["supervised", "Mixup"]
    assert [row["test error %"] for row in rows] == cells
    assert rows[0]["ratio"] == "1.00"
    values = json.loads(cli("table", grid, "--store", store, "--format", "json").out)
    assert [run["test"]["error"]["last"] for row in values["rows"] for run in row["runs"]] == errors

    assert {path.name for path in results.iterdir()} == {"table.md", "table.csv", "results.json"}
    assert (results / "table.csv").read_text(encoding="utf-8") == shown["csv"].out
    assert json.loads((results / "results.json").read_text(encoding="utf-8"))["command"].startswith("vicinal benchmark")
    assert cli("table", grid, "--store", store, "--format", "csv", "--output", tmp_path / "t.csv").out == ""
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == shown["csv"].out


def test_a_failed_cell_gives_exit_code_1_and_the_rest_is_shown(grid: Path, tmp_path: Path, cli: Any) -> None:
    values = yaml.safe_load(grid.read_text(encoding="utf-8"))
    values |= {"rows": ["supervised"], "seeds": [0], "labels": [50, 5000]}
    del values["base"]["labels"]
    mixed = tmp_path / "mixed.yaml"
    mixed.write_text(yaml.safe_dump(values), encoding="utf-8")
    answer = cli("benchmark", mixed, "--store", tmp_path / "store", "--jobs", 1, "--results", tmp_path / "results")
    assert answer.code == 1
    failures = [line for line in answer.err.splitlines() if line.startswith("vicinal: failed: ")]
    assert len(failures) == 1
    assert "5000 asked for" in failures[0]
    assert "supervised" in answer.out
    assert not (tmp_path / "results").exists(), "half a grid is not a result"


def test_a_folder_of_images_with_an_odd_name(tmp_path: Path, cli: Any, tiny: tuple[str, ...]) -> None:
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "meine Bilder, größer [x] é"
    draws = np.random.default_rng(0)
    for name in ("Katze 1", "Hund ß"):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            image.fromarray(draws.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / name / f"bild {i}.png")
    run = tmp_path / "run é"
    words = ("fit", folder, "--method", "supervised", "--split.validation", 2, "--output", run, "--quiet", *tiny)
    answer = cli(*words)
    assert answer.code == 0, answer.err
    assert Experiment.from_yaml(run / "experiment.yaml").data.name == str(folder)
    labelled = cli("predict", run, folder)
    rows = list(csv.DictReader(labelled.out.splitlines()))
    assert [row["name"] for row in rows] == sorted(
        f"{name}/bild {i}.png" for name in ("Hund ß", "Katze 1") for i in range(6)
    )
    assert {row["label"] for row in rows} <= {"Hund ß", "Katze 1"}
    one = cli("predict", run, folder / "Hund ß" / "bild 3.png")
    assert one.out.splitlines()[1].split(",")[1:] == next(
        line.split(",")[1:] for line in labelled.out.splitlines() if line.startswith("Hund ß/bild 3.png")
    )


def test_the_method_of_the_docs_works_as_it_is_printed(
    tmp_path: Path, cli: Any, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (DOCS / "experiments.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n# my_methods\.py\n(.*?)```", page, re.DOTALL)
    line = re.search(r"^    vicinal (fit .*my_methods:PlainEntMin.*)$", page, re.MULTILINE)
    assert code is not None
    assert line is not None
    monkeypatch.chdir(tmp_path)
    Path("my_methods.py").write_text(code.group(1), encoding="utf-8")
    answer = cli(*line.group(1).split(), "--quiet", *tiny)
    assert answer.code == 0, answer.err
    (run,) = Path("runs").iterdir()
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        columns = next(csv.reader(file))
    assert any("entropy" in column for column in columns)
    assert Run(run).experiment.method == Choice("my_methods:PlainEntMin", {"weight": 0.3})
    page = cli("methods", "my_methods:PlainEntMin")
    assert "--method.weight (default: 1.0)" in page.out
    wrong = cli(*line.group(1).replace("runs/mine", "runs/other").replace("weight", "wieght").split())
    assert wrong.code == 2
    assert "did you mean 'weight'?" in wrong.err


def test_a_network_of_one_s_own(
    tmp_path: Path, cli: Any, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_networks.py").write_text(
        "from torch import nn\n\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, classes, hidden=16, rates=(0.0,)):\n"
        "        assert isinstance(hidden, int) and rates == [0.1, 0.2]\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, classes))\n",
        encoding="utf-8",
    )
    words = ["fit", "digits", "--method", "supervised", "--network", "my_networks:Net", "--network.hidden", "12"]
    answer = cli(*words, "--network.rates=[0.1, 0.2]", "-o", "run", "--quiet", *tiny[4:])
    assert answer.code == 0, answer.err
    assert load_file("run/model.safetensors")["body.1.weight"].shape == (12, 64)


@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_leaves_is_no_error(buffered: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = [sys.executable, *([] if buffered else ["-u"]), "-m", "vicinal", "recipes", "--help"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
