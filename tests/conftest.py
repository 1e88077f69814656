"""What all tests share: one thread, no global state left behind, and where real data lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


def pytest_sessionstart() -> None:
    """One thread for this process and for those that tests start: two on shared cores are many times slower."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def global_state() -> dict[str, object]:
    """The settings of torch that outlive whoever changes them."""
    return {
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
    }


@pytest.fixture(autouse=True)
def _leaves_no_global_state() -> Iterator[None]:
    before = global_state()
    yield
    assert global_state() == before, "a test, or what it called, changed global state of torch"


@pytest.fixture(scope="session")
def vicinal_data() -> Path:
    """The folder of real data sets, $VICINAL_DATA."""
    folder = os.environ.get("VICINAL_DATA")
    if not folder:
        pytest.skip("VICINAL_DATA is not set")
    return Path(folder)
