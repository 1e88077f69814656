"""Explicit randomness: every draw comes from a generator named by the seed, a purpose and counters.

Nothing keeps a random state between steps. The generator of step *k* is a function of ``(seed, purpose, k)``, so a run
that was killed and resumed draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib

import torch


def seed_of(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed for one purpose: equal arguments give equal seeds, any difference an unrelated one.

    >>> seed_of(0, "split") == seed_of(0, "split")
    True
    >>> seed_of(0, "split") == seed_of(0, "mixing")
    False
    """
    text = ":".join(str(part) for part in (seed, purpose, *counters))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *counters: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one purpose (``"split"``, ``"sampling"``, ``"mixing"``, ...) and counters."""
    made = torch.Generator(device=device)
    made.manual_seed(seed_of(seed, purpose, *counters))
    return made
