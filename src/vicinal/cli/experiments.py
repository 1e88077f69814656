"""From the words of a command line to the experiment that they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vicinal.errors import InputError
from vicinal.experiment import Experiment, merge
from vicinal.settings import Choice, read_value, read_yaml

if TYPE_CHECKING:
    from vicinal.cli.own import Own

_SHORT = ("labels", "seed", "preprocess", "recipe")


def read_experiment(given: Mapping[str, Any]) -> Experiment:
    """The experiment that parsed words mean: defaults, then the recipe, then the file, then the flags.

    Args:
        given: what `vicinal.cli.parsing.ExperimentParser` found.

    Raises:
        InputError: it is none; if the file is to blame, the message starts with its path.
    """
    own = read_own(given)
    if own is not None:
        return own.experiment
    path, file = _file(given)
    try:
        return Experiment.of(merge(file, _flags(given)))
    except InputError as error:
        if path is not None and _complaint(file) == str(error):
            raise InputError(f"{path}: {error}") from error
        raise


def read_own(given: Mapping[str, Any]) -> Own | None:
    """What is done with data of one's own when no method is named; None where one is, or the data are known ones.

    Args:
        given: as for `read_experiment`.

    Raises:
        InputError: the data cannot be read, or a setting is wrong.
    """
    from vicinal.cli.own import choose, is_own

    _, file = _file(given)
    try:
        asked = merge(file, _flags(given))
        name = Choice.of("data", asked.get("data")).name
    except InputError:
        return None  # it is told where the whole is read
    if "method" in asked or asked.get("recipe", "none") != "none" or not is_own(name):
        return None
    return choose(asked)


def _file(given: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The experiment file and what it says; it starts from no recipe unless it names one."""
    path = given.get("config")
    file = {} if path is None else read_yaml(path)
    if path is not None and file.get("recipe") is None:
        file["recipe"] = "none"
    return path, file


def _flags(given: Mapping[str, Any]) -> dict[str, Any]:
    flags: dict[str, Any] = {group: dict(settings) for group, settings in given.get("settings", {}).items()}
    # What one's own network takes is not known here: its settings are what YAML reads them as.
    if "network" in flags:
        flags["network"] = {name: read_value(text) for name, text in flags["network"].items()}
    for group in ("data", "network", "method"):
        if group in given:
            flags[group] = {"name": given[group], **flags.get(group, {})}
    return flags | {key: given[key] for key in _SHORT if key in given}


def _complaint(values: Mapping[str, Any]) -> str | None:
    """What is wrong with a file's settings whatever the flags are."""
    try:
        Experiment.of(merge({"data": "digits", "method": "supervised"}, values))
    except InputError as error:
        return str(error)
    return None
