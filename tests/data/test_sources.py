"""What a name means, and what the settings of each source are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vicinal.data import SOURCES, load, source_settings
from vicinal.errors import InputError
from vicinal.settings import Choice, settings_of


@pytest.mark.parametrize("name", SOURCES)
def test_every_setting_has_a_type_a_default_and_a_help_text(name: str) -> None:
    found = settings_of(source_settings(name))
    assert found
    for setting in found:
        assert setting.help, setting.name
        assert setting.type is not None
    assert SOURCES[name].__name__ == name
    assert (SOURCES[name].__doc__ or "").strip()


def test_paths_and_hub_ids_have_the_settings_of_what_reads_them(tmp_path: Path) -> None:
    (tmp_path / "a.npz").touch()
    (tmp_path / "a.parquet").touch()
    assert {s.name for s in settings_of(source_settings(str(tmp_path / "a.npz")))} == {"layout"}
    for name in (str(tmp_path), str(tmp_path / "a.parquet"), "someone/something"):
        names = {s.name for s in settings_of(source_settings(name))}
        assert names == {"image_column", "label_column", "config", "revision", "size", "grey"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "digit",
            "unknown data set 'digit': no such file or folder exists, and it is no known name; did you mean 'digits'",
        ),
        ("zzz", "known: cifar10, cifar100, digits"),
        ("missing.npz", "unknown data set 'missing.npz': no such file"),
        ("folder/missing.npz", "unknown data set 'folder/missing.npz': no such file"),
        ("folder/missing.parquet", "no such file or folder exists"),
        ("a/b/c", "unknown data set 'a/b/c'"),
        ("./a", "unknown data set './a'"),
        ("/a", "unknown data set '/a'"),
        ("a/", "unknown data set 'a/'"),
        ("~/nowhere-at-all", "unknown data set"),
    ],
)
def test_names_that_mean_nothing_are_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for ask in (lambda: load(Choice(name)), lambda: source_settings(name)):
        with pytest.raises(InputError, match=message) as caught:
            ask()
        assert str(caught.value).startswith("data: ")
        assert "\n" not in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.touch()
    with pytest.raises(InputError, match=r"data.csv: not a file that can be loaded; give a .npz or .parquet file"):
        load(Choice(str(path)))


def test_registered_names_win_over_files_and_paths_are_relative_to_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert source_settings("digits") is SOURCES["digits"]
    assert source_settings("./digits") is not SOURCES["digits"]
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3)), y=[0, 1])
    assert load(Choice("a.npz")).source["data"] == "a.npz"


def test_importing_stays_light() -> None:
    heavy = ("lightning", "sklearn", "scipy", "datasets", "PIL", "matplotlib", "pyarrow", "rich", "jsonargparse")
    code = f"import sys, vicinal.data; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
