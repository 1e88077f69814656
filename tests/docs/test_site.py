"""The generated pages: one for each method and part, complete, and equal to what code and results say."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from vicinal import recipes
from vicinal.experiment import Experiment
from vicinal.methods import METHODS, Supervised

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent.name for path in (ROOT / "results").glob("*/grid.yaml"))


def section(page: str, title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert found, f"no section {title}"
    return found[1]


def table(text: str) -> list[dict[str, str]]:
    """The first Markdown table of a text, by its headings."""
    lines = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def rows_of(name: str) -> dict[str, dict[str, dict[str, str]]]:
    """A method's rows as the tables in ``results/`` print them, by folder and label."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for folder in FOLDERS:
        results = json.loads((ROOT / "results" / folder / "results.json").read_text(encoding="utf-8"))
        labels = {row["row"] for row in results["rows"] if row["runs"][0]["provenance"]["method"] == name}
        printed = table((ROOT / "results" / folder / "table.md").read_text(encoding="utf-8"))
        if labels:
            found[folder] = {row["method"]: row for row in printed if row["method"] in labels}
    return found


@pytest.mark.parametrize("name", METHODS)
def test_a_page_says_what_the_code_says(name: str, generated: Mapping[str, str]) -> None:
    page, method = generated[f"methods/{name}.md"], METHODS[name]
    text = (inspect.getdoc(method) or "").partition("Args:")[0]
    plain = page.replace("\\", "")
    assert page.startswith(f"# {name}\n")
    assert text.splitlines()[0].replace("`", "").rstrip(".") in re.sub(r"[`\[\]]|\(\w+\.md\)", "", plain)
    assert method.source in plain
    assert f"`{method().passes()}`" in section(page, "Cost of a step")
    for line in re.findall(r"^ {4}(.+)$", text, re.MULTILINE):  # the equations
        assert line.strip() in page
    needed = {key for key, value in method.needs._asdict().items() if value}
    assert set(re.findall(r"^- `(\w+)`", section(page, "Needs"), re.MULTILINE)) == needed


@pytest.mark.parametrize("name", METHODS)
def test_its_settings_and_recipes_are_those_of_the_code(name: str, generated: Mapping[str, str]) -> None:
    page, method = generated[f"methods/{name}.md"], METHODS[name]()
    told = table(section(page, "Settings")) if method.settings() else []
    assert {row["setting"].strip("`"): row["default"].strip("`") for row in told} == {
        key: "none" if value is None else str(value) for key, value in method.settings().items()
    }
    for row in told:
        assert row["from"] == method.origins[row["setting"].strip("`")].replace("-", " ")
        assert row["meaning"]
    known = {recipe for recipe in recipes.names() if recipe.endswith(f"/{name}")}
    assert all(f"| `{recipe}` |" in section(page, "Recipes") for recipe in known)


@pytest.mark.parametrize("name", METHODS)
def test_its_evidence_is_what_the_tables_print(name: str, generated: Mapping[str, str]) -> None:
    shown = section(generated[f"methods/{name}.md"], "Evidence")
    parts = {found[1]: found[0] for found in re.findall(r"(`results/([\w-]+)`: .*?)(?=^### |\Z)", shown, re.S | re.M)}
    expected = rows_of(name)
    assert parts.keys() == expected.keys()
    assert ("Not measured here" in shown) == (not expected)
    for folder, rows in expected.items():
        told = {row["row"]: row for row in table(parts[folder])}
        assert told.keys() == rows.keys() | {"supervised"}
        for label, row in rows.items():
            for column in ("labels", "test error %", "ratio", "ECE %", "PGD error %", "seeds"):
                assert told[label].get(column) == row.get(column)
        failed = "GATE FAILED" in (ROOT / "results" / folder / "table.md").read_text(encoding="utf-8")
        assert ("GATE FAILED" in parts[folder]) == (failed and METHODS[name].needs.autoencoder)


def test_the_step_costs_are_the_measured_ones(generated: Mapping[str, str]) -> None:
    measured = json.loads((ROOT / "results/step-cost/table.json").read_text(encoding="utf-8"))["rows"]
    base = next(row["ms"]["step"] for row in measured if row["method"] == "supervised")
    for row in measured:
        told = section(generated[f"methods/{row['method']}.md"], "Cost of a step")
        assert f"{row['ratio']:.2f} times its bare passes" in told
        if row["method"] != "supervised":
            assert f"{row['ms']['step'] / base:.1f} times a supervised step" in told


@pytest.mark.parametrize("name", METHODS)
def test_what_an_experiment_starts_from_is_one(name: str, generated: Mapping[str, str]) -> None:
    for block in re.findall(r"^```yaml\n(.*?)^```", generated[f"methods/{name}.md"], re.DOTALL | re.MULTILINE):
        values = yaml.safe_load(block)
        plain = Experiment.of(data="digits", method=name, recipe="none")
        assert Experiment.of(data="digits", method=name, recipe="none", **values) == plain


@pytest.mark.parametrize("name", METHODS)
def test_when_to_use_it_is_said_honestly(name: str, site: ModuleType, generated: Mapping[str, str]) -> None:
    """Short, nothing called the best, no number that the page does not show, and said so where nothing was measured."""
    (told,) = (methods[name] for methods in site.when_to_use().values() if name in methods)
    assert 1 <= len(re.findall(r"[.:;] |\.$", told)) <= 6
    assert len(told) < 420
    assert "best" not in told.lower()
    page = generated[f"methods/{name}.md"]
    shown = section(page, "Evidence") + section(page, "Cost of a step") + section(page, "Recipes")
    assert not [number for number in re.findall(r"\d+\.\d+", told) if number not in shown]
    assert rows_of(name) or "not measured here" in told.lower()


def test_a_missing_method_would_be_seen(site: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(METHODS, "nothing", Supervised)
        with pytest.raises(ValueError, match="nothing"):
            site.when_to_use()
    with monkeypatch.context() as patch:
        patch.delitem(METHODS, "ict")
        with pytest.raises(ValueError, match="ict"):
            site.when_to_use()


def test_a_wrong_figure_would_be_seen(generated: Mapping[str, str]) -> None:
    page = generated["methods/vat.md"]
    for told, other in (("3.85 ± 0.79", "3.58 ± 0.79"), ("| 0.52 |", "| 0.25 |")):
        assert told in page
        with pytest.raises(AssertionError):
            test_its_evidence_is_what_the_tables_print("vat", {"methods/vat.md": page.replace(told, other)})
    with pytest.raises(AssertionError):
        test_its_settings_and_recipes_are_those_of_the_code("vat", {"methods/vat.md": page.replace("`0.01`", "`0.1`")})


def test_every_public_name_is_in_the_reference(generated: Mapping[str, str], docs_path: None) -> None:
    import importlib

    api: Any = importlib.import_module("_api")
    for part in api.PARTS:
        page = generated[f"api/{api.file(part)}"]
        module = importlib.import_module(part)
        assert api.public(module)
        for name in api.public(module):
            assert getattr(module, name) in METHODS.values() or f"`{name} <" in page or f"| `{name}` |" in page, name
    described = re.findall(r"^\.\. auto\w+:: (\S+)$", "\n".join(generated.values()), re.MULTILINE)
    assert len(described) == len(set(described)) > 200
    import vicinal

    assert {name.rpartition(".")[2] for name in api.GATHERED} == {*vicinal.__all__} - {"__version__"}
    assert all(name in described for name in api.GATHERED)


def test_files_are_written_once_and_removed(site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "DOCS", tmp_path)
    monkeypatch.setattr(site, "generated", lambda: {"methods/a.md": "a", "api/b.md": "b"})
    site.write()
    (tmp_path / "methods" / "gone.md").write_text("an old page")
    before = (tmp_path / "methods" / "a.md").stat().st_mtime_ns
    site.write()
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["api/.gitignore", "api/b.md", "methods/.gitignore", "methods/a.md"]
    assert (tmp_path / "methods" / "a.md").stat().st_mtime_ns == before
