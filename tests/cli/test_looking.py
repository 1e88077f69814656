"""The commands that show what there is, the help of all, and how words become settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from vicinal import recipes
from vicinal.cli import _COMMANDS
from vicinal.experiment import Experiment, all_settings
from vicinal.methods import METHODS


def shown(cli: Any, *words: object) -> Experiment:
    """The experiment that show-config prints, read back from its text."""
    answer = cli("show-config", *words)
    assert answer.code == 0, answer.err
    return Experiment.of(yaml.safe_load(answer.out))


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"], *([name, "--help"] for name in _COMMANDS)])
def test_help_fits_a_screen_and_shows_an_example(cli: Any, words: list[str]) -> None:
    answer = cli(*words)
    assert answer.code == 0
    assert answer.err == ""
    lines = answer.out.splitlines()
    assert len(lines) <= 40
    assert [line for line in lines if len(line) > 80] == []
    example = lines[lines.index("example:") + 1]
    assert example.startswith(
        f"  vicinal {words[0] if words and not words[0].startswith('-') and words != ['help'] else ''}"
    )
    assert cli("help", *words).out == answer.out if words and words[0] in _COMMANDS else True


def test_the_overview_names_every_command(cli: Any) -> None:
    out = cli().out
    assert [name for name in _COMMANDS if f"\n  {name} " not in out] == []


def test_version(cli: Any) -> None:
    import vicinal

    assert cli("--version").out == f"{vicinal.__version__}\n"


@pytest.mark.parametrize(
    ("words", "spared"),
    [
        (["--help"], {"torch", "numpy", "yaml", "rich", "jsonargparse"}),
        (["fit", "--help"], {"torch", "numpy", "yaml", "rich", "jsonargparse"}),
        (["methods"], {"lightning", "sklearn", "scipy", "datasets", "jsonargparse"}),
        (["show-config", "digits", "--method", "ict", "--method.weight", "2"], {"lightning", "sklearn", "datasets"}),
    ],
)
def test_what_is_not_needed_is_not_imported(words: list[str], spared: set[str]) -> None:
    code = f"import sys\nfrom vicinal.cli import main\nassert main({words!r}) == 0\nprint('modules:', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.partition("modules:")[2].split())
    assert "vicinal.cli" in imported
    assert imported & spared == set()


def test_methods_are_listed_and_explained(cli: Any) -> None:
    out = cli("methods").out
    assert [name for name in METHODS if not any(line.startswith(f"{name} ") for line in out.splitlines())] == []
    assert max(map(len, out.splitlines())) <= 80
    page = cli("methods", "advmixup").out
    for name in all_settings()["method"]:
        assert (f"--method.{name} (" in page) == hasattr(METHODS["advmixup"](), name)


def test_recipes_are_listed_shown_and_copied(cli: Any, tmp_path: Path) -> None:
    listed = cli("recipes")
    assert listed.out == cli("recipes", "list").out
    names = recipes.names()
    words = listed.out.replace(",", " ").split()
    assert [name for name in names if not set(name.split("/")) <= set(words)] == []
    copy = tmp_path / "mine.yaml"
    assert cli("recipes", "copy", names[0], copy).code == 0
    assert copy.read_text(encoding="utf-8") == cli("recipes", "show", names[0]).out
    refused = cli("recipes", "copy", names[1], copy)
    assert refused.code == 2
    assert "exists already" in refused.err


@pytest.mark.parametrize("name", recipes.names())
def test_what_show_config_prints_is_the_same_experiment(cli: Any, tmp_path: Path, name: str) -> None:
    first = cli("show-config", "--recipe", name)
    file = tmp_path / "experiment.yaml"
    file.write_text(first.out, encoding="utf-8")
    second = cli("show-config", "--config", file)
    assert second.out == first.out
    assert Experiment.from_yaml(file).key == Experiment.of(recipe=name).key
    assert Experiment.from_yaml(file).recipe == name
    assert cli("recipes", "show", name).out == first.out
    # Every setting has its comment, and no comment is a setting.
    lines = first.out.splitlines()
    bare = [
        line
        for i, line in enumerate(lines)
        if not line.lstrip().startswith("#") and not lines[i - 1].lstrip().startswith("#")
    ]
    assert {line.strip().partition(":")[0] for line in bare} == {"name"}


FORMS = [
    (["--method.weight", "20"], ("method", "weight"), 20.0),
    (["--method.weight=20"], ("method", "weight"), 20.0),
    (["--method.weight", "1e1"], ("method", "weight"), 10.0),
    (["--method.weight=1", "--method.weight", "2"], ("method", "weight"), 2.0),
    (["--seed", "3", "--seed=4"], ("seed",), 4),
    (["--labels=50"], ("split", "labels"), 50),
    (["--split.labels", "50"], ("split", "labels"), 50),
    (["--split.labels", "null"], ("split", "labels"), None),
    (["--split.labels", "none"], ("split", "labels"), None),
    (["--split.validation", "0.25"], ("split", "validation"), 0.25),
    (["--split.validation", "25"], ("split", "validation"), 25),
    (["--split.balanced", "false"], ("split", "balanced"), False),
    (["--split.balanced=False"], ("split", "balanced"), False),
    (["--training.threads", "2"], ("training", "threads"), 2),
    (["--network", "small_cnn", "--network.widths", "[16,32]"], ("network", "widths"), [16, 32]),
    (["--network=small_cnn", "--network.widths=[16, 32]"], ("network", "widths"), [16, 32]),
    (["--network.widths=[16, 32]", "--network=small_cnn"], ("network", "widths"), [16, 32]),
    (["--network", "small_cnn", "--network.norm", "none"], ("network", "norm"), "none"),
    (["--data.split_seed", "5"], ("data", "split_seed"), 5),
    (["--teacher.decay", "0.9"], ("teacher", "decay"), 0.9),
    (["--preprocess", "none"], ("preprocess",), "none"),
]


@pytest.mark.parametrize(("words", "where", "value"), FORMS)
@pytest.mark.parametrize("order", ["data first", "data last"])
def test_forms_of_flags(cli: Any, words: list[str], where: tuple[str, ...], value: object, order: str) -> None:
    base = ["--method", "ict", "--recipe", "none"]
    line = ["digits", *base, *words] if order == "data first" else [*words, *base, "digits"]
    found: Any = yaml.safe_load(cli("show-config", *line).out)
    for key in where:
        found = found[key]
    assert found == value
    assert type(found) is type(value)


def test_a_negative_number_is_a_value_and_not_a_flag(cli: Any) -> None:
    for words in (["--method.weight", "-1e-3"], ["--method.weight=-1e-3"]):
        answer = cli("show-config", "digits", "--method", "ict", *words)
        assert "weight must be at least 0, got -0.001" in answer.err


def test_layers_the_later_ones_win(cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "my settings é.yaml"
    file.write_text(
        "data: digits\nlabels: 40\nseed: 2\nmethod: {name: ict, weight: 5, alpha: 0.2}\ntraining: {steps: 7}\n",
        encoding="utf-8",
    )
    plain = shown(cli, "--config", file)
    assert (plain.split.labels, plain.seed, plain.training.steps, plain.recipe) == (40, 2, 7, None)
    over = shown(cli, "--config", file, "--seed", 3, "--labels", 30, "--method.weight", 6, "--training.devices", 2)
    assert (over.split.labels, over.seed, over.training.steps, over.training.devices) == (30, 3, 7, 2)
    assert dict(over.method.settings) == {**plain.method.settings, "weight": 6.0}
    assert shown(cli, "--config", file, "--split.labels", 20).split.labels == 20
    assert shown(cli, "--config", file, "--split.labels", "null").split.labels is None
    other = shown(cli, "--config", file, "--method", "vat")
    assert other.method.settings["weight"] == 1.0, "another method does not inherit ICT's weight"
    assert shown(cli, "two_moons", "--config", file).data.name == "two_moons"
    named = tmp_path / "named.yaml"
    named.write_text("recipe: cifar10-4000/ict\nmethod: {weight: 5}\n", encoding="utf-8")
    merged = shown(cli, "--config", named, "--training.steps", 9)
    assert (merged.method.name, merged.method.settings["weight"], merged.training.steps) == ("ict", 5.0, 9)
    assert merged.network.name == "cnn13"


def test_numbers_in_files_may_be_written_as_texts_and_without_a_point(cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(
        "data: digits\nmethod: ict\ntraining: {steps: '20', learning_rate: 1e-3, weight_decay: 5E-4, threads: none}\n",
        encoding="utf-8",
    )
    training = shown(cli, "--config", file).training
    assert (training.steps, training.learning_rate, training.weight_decay, training.threads) == (20, 1e-3, 5e-4, None)
