"""The machine a run is on: what it is, for provenance, and two settings of the process."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def describe() -> dict[str, Any]:
    """Processor, cores, devices and versions, as plain values."""
    import torch

    values: dict[str, Any] = {
        "system": platform.platform(terse=True),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        values["gpu"] = torch.cuda.get_device_name()
        values["cuda"] = torch.version.cuda
    return values


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """This many CPU threads inside (None: as many as there are), and as many as before after it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def tune_allocator() -> bool:
    """Let the C allocator keep large freed blocks (GNU C library only).

    Freeing and mapping large activations anew costs page faults: up to 2.4 times on a step of CNN-13. The process holds
    on to its peak memory in exchange, and there is no way back.

    Returns:
        Whether the allocator took the setting.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all(mallopt(option, 2**31 - 1) == 1 for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))


@cache
def commit() -> str | None:
    """The git commit of the source tree that this package runs from; ``+changes`` if edited since; None elsewhere."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        # An installed copy inside some other repository must not report that repository's commit.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        edited = git("status", "--porcelain", "--", str(folder)) != ""
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if edited else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
