"""What the tests of the documentation share: the modules that make its pages, and all pages as they are read."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def docs_path() -> Iterator[None]:
    """``docs/`` on the path, as Sphinx has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        yield


@pytest.fixture(scope="session")
def site(docs_path: None) -> ModuleType:
    """The module that makes the generated pages."""
    return importlib.import_module("_generate")


@pytest.fixture(scope="session")
def generated(site: ModuleType) -> Mapping[str, str]:
    """The generated pages, by their path below ``docs/``."""
    return site.generated()
