"""Every formula names a function that there is and a test that holds it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from vicinal.theory import FORMULAS


def source_of(path: str) -> str:
    return (Path(__file__).parents[2] / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FORMULAS)
def test_every_formula_has_a_function_and_a_test(name: str) -> None:
    formula = FORMULAS[name]
    _, _, *parts = formula.function.split(".")
    found: Any = importlib.import_module(f"vicinal.theory.{parts[0]}")
    for part in parts[1:]:
        found = getattr(found, part)
    assert callable(found)
    path, test = formula.test.split("::")
    assert f"def {test}(" in source_of(path)
    assert formula.status in ("derived", "recalled")
