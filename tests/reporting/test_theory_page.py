"""The page and the sentences of the theory: what is claimed, what is not, and how the page looks in a browser."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.browser import check_page, find_browser
from support.theory_runs import tiny_run

from vicinal.reporting.theory import assumptions_table, formulas_table, in_short, render, statements_table, tables
from vicinal.reporting.theory.sentences import _verdict, says
from vicinal.theorising import theorise

# PyTorch scripts some decompositions when forward-mode differentiation is first used, which it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def logistic(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A logistic network with biases, looked at along its training."""
    return theorise(tiny_run(tmp_path_factory.mktemp("runs") / "logistic"), n=20)


@pytest.fixture(scope="module")
def kinked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A network of ReLUs with batch norm, not looked at along its training."""
    network = {"name": "mlp", "hidden": [8], "norm": "batch"}
    return theorise(tiny_run(tmp_path_factory.mktemp("runs") / "kinked", network=network), n=20, replay=False)


def as_if_it_applied(values: dict[str, Any], margin: float) -> dict[str, Any]:
    """The same with the bound of several classes, which holds by a margin."""
    changed = copy.deepcopy(values)
    changed["statements"]["class_surrogate_bound"] |= {
        "applies": True,
        "values": {"approximation": 0.5, "standard_error": 0.0, "surrogate": 0.5 - margin, "surrogate_mix": 0.1},
    }
    return changed


def point(values: dict[str, Any], head: str) -> Any:
    return next(each for each in in_short(values) if each.head == head)


@pytest.mark.parametrize("which", ["logistic", "kinked"])
def test_where_an_assumption_fails_it_is_named_with_its_figure_and_no_bound_is_given(
    which: str, request: pytest.FixtureRequest
) -> None:
    values = request.getfixturevalue(which)
    for name in ("surrogate_bound", "class_surrogate_bound", "logistic_bound"):
        text = says(values, name)
        assert text.startswith("no figure; failing: ")
        assert f"centred ({values['assumptions']['centred']['figure']:.3g})" in text
        assert "≥" not in text
    bound = point(values, "Bound")
    assert bound.tone == "warning"
    assert "does not apply" in bound.text
    assert ("batch-norm" in bound.text) == (which == "kinked")
    text = render([values], command="vicinal theory a", made="today")
    assert "bound of the surrogate at 1" not in text
    assert "≥" in says(as_if_it_applied(values, 0.1), "class_surrogate_bound")  # the control


def test_a_bound_that_applies_is_given_with_its_margin(logistic: dict[str, Any]) -> None:
    values = as_if_it_applied(logistic, 0.1)
    assert "holds, by 0.1" in point(values, "Bound").text
    assert point(values, "Bound").tone == ""
    assert "VIOLATED by 0.1" in point(as_if_it_applied(logistic, -0.1), "Bound").text


@pytest.mark.parametrize(("share", "far"), [(-0.2, True), (0.2, True), (-0.099, False), (0.05, False)])
def test_an_expansion_that_is_far_off_is_a_warning(logistic: dict[str, Any], share: float, far: bool) -> None:
    values = copy.deepcopy(logistic)
    values["statements"]["expansion"]["values"] |= {"relative_gap": share, "says": "so much too small"}
    found = point(values, "Expansions")
    assert (found.tone == "warning") == far
    assert ("far from it" in found.text) == far


def test_losses_that_are_not_defined_are_not_told(logistic: dict[str, Any]) -> None:
    values = copy.deepcopy(logistic)
    values["assumptions"]["separate"] |= {"holds": False, "figure": 0.3}
    for statement in values["statements"].values():
        statement |= {"applies": False, "values": None}
    for name in ("training", "curve", "train", "test", "gap"):
        values[name] = None
    values |= {"cosines": [], "smoothness": [], "no_training": "no loss of an example"}
    assert "Not defined; failing: separate (0.3)" in point(values, "Mixup loss").text
    text = render([values], command="vicinal theory a", made="today")
    assert "no loss of an example" in text
    assert "data:image/svg" not in text
    assert [table.title for table in tables([values])][:2] == ["Statements", "Assumptions"]


@pytest.mark.parametrize(
    ("same", "apart", "word"), [(True, 0.0, "bit by bit"), (False, 1e-3, "which differ by up to 0.001")]
)
def test_a_repeated_training_says_whether_it_was_the_same(
    logistic: dict[str, Any], same: bool, apart: float, word: str
) -> None:
    again = logistic["training"] | {"same_weights": same, "largest_difference": apart}
    found = point(logistic | {"training": again}, "Along training")
    assert word in found.text
    assert (found.tone == "warning") != same


def test_without_a_repeated_training_the_page_says_how_to_ask(kinked: dict[str, Any]) -> None:
    text = render([kinked], command="vicinal theory a", made="today")
    assert "--replay trains the run once more" in text
    assert "Mixup loss during training" not in text
    assert text.count("data:image/svg") == 2  # cosines, losses by radius


def test_the_page_has_the_figures_and_is_the_same_every_time(logistic: dict[str, Any]) -> None:
    text = render([logistic], command="vicinal theory a", made="today")
    assert text == render([logistic], command="vicinal theory a", made="today")
    for title in ("Mixup loss during training", "Sorted cosines", "Loss by radius", "Error during training"):
        assert title in text
    assert text.count("data:image/svg") == 7


def test_every_table_of_the_page_is_a_table_of_the_file(logistic: dict[str, Any], kinked: dict[str, Any]) -> None:
    both = tables([logistic, kinked])
    assert both[0].title == "Runs"
    assert [row[0] for row in both[0].rows] == [logistic["run"], kinked["run"]]
    alone = [table.title for table in tables([logistic])]
    assert len(alone) == len(set(alone))
    assert "Runs" not in alone
    assert {statements_table(logistic).title, assumptions_table(logistic).title} <= set(alone)
    for table in both:
        assert all(len(row) == len(table.columns) for row in table.rows), table.title


def test_means_stand_with_their_errors_and_numbers(logistic: dict[str, Any], kinked: dict[str, Any]) -> None:
    found = {table.title: table for table in tables([logistic])}
    assert all("±" in cell for row in found["Loss by radius"].rows for cell in row[1:])
    assert "over 20 examples" in " ".join(found["Loss by radius"].notes)
    along = found["Along training"]
    assert [row[0] for row in along.rows] == [str(look["step"]) for look in logistic["training"]["looks"]]
    for name in ("loss, sample", "mean cosine", "loss, test part"):
        assert "±" in along.rows[-1][along.columns.index(name)]
    assert "20 examples of the sample, 40 of the test part" in along.notes[0]
    assert "Along training" not in {table.title for table in tables([kinked])}
    assert says(logistic, "attack").count("standard error") == 3
    assert says(logistic, "attack").endswith("20 examples")


def test_what_the_training_had_besides_the_mixup_loss_is_told(logistic: dict[str, Any], kinked: dict[str, Any]) -> None:
    assert "minimised" not in point(logistic, "Sample").text
    assert "minimised the mixup loss up to its batch norm, so" in point(kinked, "Sample").text
    other = logistic | {"minimised": False, "up_to": None, "method": "vat"}
    assert "minimised the loss of vat, so" in point(other, "Sample").text


def test_names_are_escaped(logistic: dict[str, Any]) -> None:
    text = render([logistic | {"run": "<b>a</b>"}], command="<i>", made="today")
    assert "<b>a</b>" not in text
    assert "&lt;b&gt;a" in text


def test_the_docs_have_the_table_of_formulas() -> None:
    table = formulas_table().markdown().split("\n\n")[1]
    assert table in (DOCS / "theory.md").read_text(encoding="utf-8"), (
        "docs/theory.md is behind: put in what vicinal.reporting.theory.formulas_table().markdown() says"
    )
    assert {row[1] for row in formulas_table().rows} == {"derived", "recalled"}


def test_importing_it_needs_neither_matplotlib_nor_jinja2() -> None:
    code = "import sys, vicinal.reporting.theory; print({'matplotlib', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_real_browser_shows_it_at_any_width_and_on_paper(
    logistic: dict[str, Any], kinked: dict[str, Any], tmp_path: Path
) -> None:
    browser = find_browser()
    if browser is None:
        pytest.skip("no Chromium is installed")
    path = tmp_path / "theory.html"
    path.write_text(render([logistic, kinked], command="vicinal theory a b", made="today"), encoding="utf-8")
    check_page(path, browser)


def test_what_is_told_is_what_is_in_the_file(logistic: dict[str, Any]) -> None:
    read = json.loads(json.dumps(logistic))
    assert render([read], command="c", made="m") == render([logistic], command="c", made="m")


@pytest.mark.parametrize(
    ("margin", "error", "word"),
    [
        (0.1, 0.0, "holds"),
        (-0.1, 0.0, "VIOLATED"),
        (-0.1, 0.02, "VIOLATED"),
        (-0.05, 0.02, "undecided"),
        (0, 0, "holds"),
    ],
)
def test_what_draws_explain_is_no_violation(margin: float, error: float, word: str) -> None:
    assert _verdict(margin, error).startswith(word)
