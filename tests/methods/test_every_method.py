"""What must hold of every method of the package."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.lab import Lab
from support.properties import PROPERTIES

from vicinal.methods import METHODS, Method

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("holds", PROPERTIES)
def test_property(name: str, holds: Callable[[Lab, Method], None]) -> None:
    method = METHODS[name]()
    holds(Lab.suited(method), method)
