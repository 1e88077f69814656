"""The fixture `lab`; what it is stands in ``tests/support``."""

from __future__ import annotations

import pytest
from support.lab import Lab


@pytest.fixture
def lab() -> Lab:
    return Lab()
