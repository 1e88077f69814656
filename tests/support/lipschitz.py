"""What the tests of adversarial Lipschitz regularisation share: draws, one measurement, and its mutations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from vicinal.vicinity import lipschitz
from vicinal.vicinity.lipschitz import LipschitzSettings, Neighbour, Penalty

BATCH, FEATURES, CLASSES = 6, 8, 4
_search = lipschitz.adversarial_neighbour


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def measured(f: Callable[[Tensor], Tensor], x: Tensor, *, seed: int = 0, **options: Any) -> tuple[Neighbour, Penalty]:
    """Search, the two passes of the loss, and the penalty."""
    settings, clean = LipschitzSettings(**options), f(x)
    found = lipschitz.adversarial_neighbour(f, x, settings, seeded(seed), clean_logits=clean)
    return found, lipschitz.lipschitz_penalty(clean, f(x + found.r), found.r, settings)


def fails(check: Callable[[], None], **mutations: object) -> None:
    """The negative control: with these names of the module replaced, the check must fail."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in mutations.items():
            patch.setattr(lipschitz, name, value)
        with pytest.raises(AssertionError):
            check()


def searching(**changes: Any) -> Callable[..., Neighbour]:
    """The search with other settings than it is told."""
    return lambda f, x, settings, *rest, **kw: _search(f, x, replace(settings, **changes), *rest, **kw)


def raw(x: Tensor, fallback: Tensor | None = None) -> Tensor:
    """Mutation of `unit` that scales nothing."""
    return x
