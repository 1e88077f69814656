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


def seed_global(seed: int, device: torch.device) -> None:
    """Set the global generators that a network's own random layers draw from: the CPU's and that of ``device``.

    Not through ``torch.manual_seed``: at every call that formats a stack trace for each kind of device there is not,
    which costs more than a small network's layer.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)


def generator(seed: int, purpose: str, *counters: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one purpose (``"split"``, ``"sampling"``, ``"mixing"``, ...) and counters."""
    made = torch.Generator(device=device)
    made.manual_seed(seed_of(seed, purpose, *counters))
    return made
