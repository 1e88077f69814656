"""``vicinal theory``: what it prints and writes, and how it refuses."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.theory_runs import tiny_run

from vicinal import theorising

# PyTorch scripts some decompositions when forward-mode differentiation is first used, which it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
FILES = ("theory.html", "theory.json", "theory.md")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of ReLUs with batch norm."""
    network = {"name": "mlp", "hidden": [8], "norm": "batch"}
    return tiny_run(tmp_path_factory.mktemp("runs") / "a", network=network).path


def test_it_prints_and_writes_what_the_theory_says(cli: Any, run: Path, tmp_path: Path) -> None:
    answer = cli("theory", run, "--n", 20, "-o", tmp_path / "out")
    assert answer.code == 0, answer.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    written = json.loads((tmp_path / "out" / "theory.json").read_text(encoding="utf-8"))
    (found,) = written["runs"]
    assert written["command"].startswith("vicinal theory ")
    assert found["training"]["same_weights"]
    assert found["sample"]["n"] == 20
    for text in ("The theorem does not apply", "batch-norm layer", "expansion around the examples", "bit by bit"):
        assert text in answer.out
    assert "holds, by" not in answer.out.partition("bound of the surrogate")[2].partition("regulariser")[0]
    assert len(answer.out.splitlines()) < 60
    assert "## Statements" in (tmp_path / "out" / "theory.md").read_text(encoding="utf-8")


def test_of_one_run_the_files_go_beside_it_and_of_several_into_a_folder(
    cli: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "a")
    shutil.copytree(run, "b")
    assert cli("theory", "a", "--n", 10, "--no-replay").code == 0
    assert all(Path("a", name).is_file() for name in FILES)
    answer = cli("theory", "a", "b", "--n", 10, "--no-replay")
    assert answer.code == 0
    assert all(Path("theory", name).is_file() for name in FILES)
    assert [found["run"] for found in json.loads(Path("theory/theory.json").read_text())["runs"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        (("--alpha", "0.2"), "alpha", 0.2),
        (("--space", "pixels"), "space", "pixels"),
        (("--seed", "3"), "seed", 3),
        (("--n", "12"), "n", 12),
        ((), "alpha", 0.5),
    ],
)
def test_flags_reach_the_statements(
    cli: Any, run: Path, tmp_path: Path, flags: tuple[str, ...], key: str, value: Any
) -> None:
    assert cli("theory", run, "--n", 10, "--no-replay", *flags, "-o", tmp_path).code == 0
    assert json.loads((tmp_path / "theory.json").read_text())["runs"][0][key] == value


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--alpha", "0"), "--alpha: expected a number above 0, got '0'"),
        (("--alpha", "nan"), "--alpha: expected a number above 0"),
        (("--n", "1"), "--n: expected a whole number of at least 2"),
        (("--space", "latent"), "--space: expected input or pixels"),
        (("--reply",), "unknown flag --reply; did you mean '--replay'?"),
    ],
)
def test_bad_flags_are_refused_in_one_line(cli: Any, run: Path, flags: tuple[str, ...], says: str) -> None:
    answer = cli("theory", run, *flags)
    assert answer.code == 2
    assert answer.out == ""
    assert says in answer.err
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize(("name", "says"), [("none", "no such directory"), ("unfinished", "--resume")])
def test_runs_that_are_none_are_refused(cli: Any, run: Path, tmp_path: Path, name: str, says: str) -> None:
    if name == "unfinished":
        shutil.copytree(run, tmp_path / name)
        (tmp_path / name / "evaluation.json").unlink()
    answer = cli("theory", tmp_path / name, "--no-replay")
    assert answer.code == 2
    assert says in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not any((tmp_path / name / file).exists() for file in FILES)


def test_an_output_that_is_a_file_is_refused_before_any_work(
    cli: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theorising, "theorise", None)
    (tmp_path / "taken").write_text("")
    answer = cli("theory", run, "-o", tmp_path / "taken")
    assert answer.code == 2
    assert "is not a folder" in answer.err


def test_a_bad_run_is_refused_before_work_on_the_others(
    cli: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "b")
    values = json.loads((tmp_path / "b" / "evaluation.json").read_text(encoding="utf-8"))
    values["provenance"]["data"]["content"] = "another"
    (tmp_path / "b" / "evaluation.json").write_text(json.dumps(values), encoding="utf-8")
    monkeypatch.setattr(theorising, "theorise", None)
    answer = cli("theory", run, tmp_path / "b", "-o", tmp_path / "new")
    assert answer.code == 2
    assert "have changed" in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("where", ["taken/new", "closed/new"])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    cli: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(theorising, "theorise", None)
    (tmp_path / "taken").write_text("")
    (tmp_path / "closed").mkdir()

    def refused(**_settings: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    if where.startswith("closed"):  # a folder's own mode stops no superuser
        monkeypatch.setattr("tempfile.TemporaryFile", refused)
    answer = cli("theory", run, "-o", tmp_path / where)
    assert answer.code == 2
    assert "cannot write in" in answer.err
    assert len(answer.err.splitlines()) == 1


def test_an_interrupted_command_writes_nothing(
    cli: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(theorising, "theorise", stop)
    answer = cli("theory", run, "-o", tmp_path / "new" / "folder")
    assert answer.code == 130
    assert "nothing was written" in answer.err
    assert list(tmp_path.iterdir()) == []
