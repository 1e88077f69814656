"""What goes wrong because of what the user gave, as one clear line.

The command line turns these into that line and exit code 2; from Python they are ordinary exceptions.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


class InputError(ValueError):
    """The input is wrong: the message says what, where, and what to do about it."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed: the message names the extra that brings it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the nearest known one, or all of them if none is near.

    >>> nearest("advmixpu", ["ict", "advmixup"])
    "did you mean 'advmixup'?"
    >>> nearest("zzz", ["ict", "vat"])
    'known: ict, vat'
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def attempt(measure: Callable[[], T]) -> T | str:
    """What a call gives; or, where its input does not allow it, why not, in one line."""
    try:
        return measure()
    except InputError as error:
        return str(error)


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: import name, such as ``"datasets"``.
        extra: the extra of this package that installs it.
        purpose: what it is needed for, to complete "... needs".

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"{purpose} needs the package {module!r}, which is not installed: pip install 'vicinal[{extra}]'"
        ) from error
