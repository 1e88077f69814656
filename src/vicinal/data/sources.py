"""Finding the data set that a name means: the same in Python, in YAML and on the command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from vicinal.data.arrays import arrays
from vicinal.data.builtin import digits, two_circles, two_moons
from vicinal.data.images import images
from vicinal.data.presets import PRESETS
from vicinal.data.types import Dataset
from vicinal.errors import InputError, nearest
from vicinal.settings import Choice, build

SOURCES: dict[str, Callable[..., Dataset]] = {
    "digits": digits,
    "two_circles": two_circles,
    "two_moons": two_moons,
    **{preset.__name__: preset for preset in PRESETS},
}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load(choice: Choice) -> Dataset:
    """Load the data set that ``choice`` names, with its settings.

    The name is a key of `SOURCES`; or a path ending in ``.npz``; or an existing folder or ``.parquet`` file; or, if it
    has exactly one slash, a data set on the Hugging Face hub. A folder called like a key is reached as ``./digits``.

    Raises:
        InputError: there is nothing by that name, a setting is wrong, or what was found is damaged or unfit.
        MissingExtraError: reading it needs a package that is not installed.

    >>> load(Choice("two_moons", {"n": 10})).train.x.shape
    torch.Size([10, 2])
    """
    source, fixed = _resolve(choice.name)
    return build("data", source, choice.settings, **fixed)  # type: ignore[no-any-return]


def source_settings(name: str, *, recorded: bool = False) -> Callable[..., Dataset]:
    """The function that loads ``name``; its keyword parameters that have a default are the settings.

    Args:
        name: as for `load`.
        recorded: the name was right when it was written down: if there is nothing by that name now, it is a path to
            what was moved or removed, which is told where it is loaded.

    Raises:
        InputError: there is nothing by that name.

    >>> source_settings("digits").__name__
    'digits'
    """
    try:
        return _resolve(name)[0]
    except InputError:
        if not recorded:
            raise
        return arrays if Path(name).suffix == ".npz" else images


def _resolve(name: str) -> tuple[Callable[..., Dataset], dict[str, str]]:
    """The function that loads ``name``, and the arguments that the name itself gives."""
    if name in SOURCES:
        return SOURCES[name], {}
    path = Path(name).expanduser()
    if path.suffix == ".npz" and path.is_file():
        return arrays, {"path": name}
    if path.is_dir() or (path.suffix == ".parquet" and path.is_file()):
        return images, {"path": name}
    if path.is_file():
        raise InputError(f"data: {name}: not a file that can be loaded; give a .npz or .parquet file, or a folder")
    if path.suffix not in (".npz", ".parquet") and _HUB_ID.fullmatch(name):
        return images, {"path": name}
    raise InputError(
        f"data: unknown data set {name!r}: no such file or folder exists, and it is no known name; "
        f"{nearest(name, SOURCES)}"
    )
