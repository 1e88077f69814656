"""Reading command lines: flags from types, one-line errors that name the nearest known flag."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser

from vicinal import recipes
from vicinal.errors import InputError, nearest
from vicinal.experiment import CHOICES, GROUPS, Experiment, merge, read_yaml, settings_target
from vicinal.settings import Choice, settings_of

_SETTINGS_NOTE = """\
Every setting of an experiment is a flag, --GROUP.SETTING VALUE, with the groups data, split, augment, network, method,
teacher and training: --method.weight 20 --training.steps 600. `vicinal show-config`, with the same words,
prints all of them with their meaning and the values they would have."""


class Parser:
    """A command's flags.

    Args:
        command: its name.
        about: what it does, for the help.
        example: a command line to show.
        notes: further text below the help.
    """

    def __init__(self, command: str, about: str, example: str, notes: str = "") -> None:
        self.command = command
        epilog = f"example:\n  {example}" + (f"\n\n{notes}" if notes else "")
        self._parser = ArgumentParser(
            prog=f"vicinal {command}",
            description=about,
            epilog=epilog,
            exit_on_error=False,
            add_help=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add("-h", "--help", action="store_true", help="show this help and exit")

    def add(self, *names: str, **options: Any) -> None:
        """Add a flag or positional argument, as for argparse; flags that are not given stay away from the result."""
        if names[0].startswith("-"):
            options.setdefault("default", argparse.SUPPRESS)
        self._parser.add_argument(*names, **options)

    def parse(self, words: Sequence[str]) -> dict[str, Any] | None:
        """What was given, nested plain values by name; None if the help was asked for and printed.

        Raises:
            InputError: an unknown flag (the message names the nearest known one) or a value of the wrong type.
        """
        if "-h" in words or "--help" in words:
            print(self._help())
            return None
        try:
            given: dict[str, Any] = self._parser.parse_args(list(words)).as_dict()
        except (argparse.ArgumentError, SystemExit, TypeError, ValueError) as error:
            raise InputError(self._explain(str(error), words)) from error
        return given

    def _flags(self) -> list[str]:
        found = [name for action in self._parser._actions for name in action.option_strings if name.startswith("--")]
        return [re.sub(r"\.name$", "", name) for name in found if not name.endswith("+")]

    def _explain(self, message: str, words: Sequence[str]) -> str:
        known = self._flags()
        for word in words:
            flag = word.partition("=")[0]
            if (
                flag.startswith("--")
                and flag not in known
                and f"{flag}.name" not in known
                and not flag.endswith(".name")
            ):
                return f"unknown flag {flag}; {nearest(flag, known)}"
        match = re.search(r'Parser key "([^"]+)":\s*(.*)', message, re.DOTALL)
        if match:
            key, problem = match.group(1), " ".join(match.group(2).split())
            literal = re.search(r"typing\.Literal\[(.*?)\]", problem)
            value = re.search(r"(?:Got value|Given value): (.*)$", problem)
            expected = re.search(r"Expected an? <class '(\w+)'>", problem)
            given = f", got {value.group(1)}" if value else ""
            if literal:
                return f"--{key}: expected one of {literal.group(1)}{given}"
            if expected:
                return f"--{key}: expected {expected.group(1)}{given}"
            return f"--{key}: {problem}"
        if "required" in message:
            return f"{message.removeprefix('error: ')}; see: vicinal {self.command} --help"
        return f"{' '.join(message.split()) or 'bad arguments'}; see: vicinal {self.command} --help"

    def _help(self) -> str:
        return self._parser.format_help().replace(".name NAME", " NAME").strip()


def experiment_parser(command: str, about: str, example: str, words: Sequence[str]) -> Parser:
    """The parser of a command that describes an experiment: its flags depend on the data, network and method named.

    Args:
        command: its name.
        about: what it does.
        example: a command line to show.
        words: the command line, looked at for the names alone.
    """
    parser = Parser(command, about, example, _SETTINGS_NOTE)
    parser.add(
        "source",
        metavar="data",
        nargs="?",
        help="digits, two_circles, two_moons, cifar10, ...; a folder, .parquet or .npz file; a hub id",
    )
    parser.add("--method.name", type=str, metavar="NAME", help="the method, as `vicinal methods` lists them")
    parser.add(
        "--network.name",
        type=str,
        metavar="NAME",
        help="the network: small_cnn, cnn13, mlp, wrn_28_2, an import path, ...",
    )
    parser.add("--labels", type=int, metavar="N", help="number of labelled training examples; all there are by default")
    parser.add("--seed", type=int, metavar="N", help="names every random draw (default: 0)")
    parser.add("--preprocess", type=str, metavar="NAME", help="preprocessing layer (default: normalise)")
    parser.add("--recipe", type=str, metavar="NAME", help="start from this recipe; 'none' for the bare defaults")
    parser.add("--config", type=str, metavar="FILE", help="start from this experiment file; flags win over it")
    for group, target in _targets(words).items():
        for setting in settings_of(target):
            parser.add(f"--{group}.{setting.name}", type=setting.type, help=argparse.SUPPRESS)
    return parser


def read_experiment(given: Mapping[str, Any]) -> Experiment:
    """The experiment that parsed words mean: defaults, then the recipe, then the file, then the flags."""
    return Experiment.of(_values(given))


def split_names(words: Sequence[str]) -> list[str]:
    """``--method ict`` as ``--method.name ict``, which leaves ``--method.weight`` room beside it."""
    spelled = []
    for word in words:
        name, equals, value = word.partition("=")
        spelled.append(f"{name}.name{equals}{value}" if name in ("--method", "--network") else word)
    return spelled


def _values(given: Mapping[str, Any]) -> dict[str, Any]:
    base = read_yaml(given["config"]) if given.get("config") else {}
    if base and "recipe" not in base:
        base["recipe"] = "none"
    keys = (*CHOICES, *GROUPS, "labels", "seed", "preprocess", "recipe")
    over = {key: given[key] for key in keys if given.get(key) is not None}
    if given.get("source") is not None:
        over["data"] = {"name": given["source"], **over.get("data", {})}
    return merge(base, over)


def _targets(words: Sequence[str]) -> dict[str, Any]:
    """What the settings of each group are read off, given the names on the command line."""
    scout = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--method.name", "--network.name", "--recipe", "--config"):
        scout.add_argument(name)
    try:
        found, rest = scout.parse_known_args(list(words))
    except (argparse.ArgumentError, SystemExit):
        return dict(GROUPS)
    given = {
        "config": found.config,
        "recipe": found.recipe,
        "source": _positional(rest),
        "method": {"name": vars(found)["method.name"]} if vars(found)["method.name"] else None,
        "network": {"name": vars(found)["network.name"]} if vars(found)["network.name"] else None,
    }
    values = _values(given)
    names = {key: Choice.of(key, values[key]).name for key in CHOICES if key in values}
    recipe = values.get("recipe") or f"{names.get('data')}/{names.get('method')}"
    if recipe in recipes.names():
        for key in CHOICES:
            if key in recipes.load(recipe):
                names.setdefault(key, Choice.of(key, recipes.load(recipe)[key]).name)
    names.setdefault("network", "auto")
    return {**{key: settings_target(key, name) for key, name in names.items()}, **GROUPS}


def _positional(words: Sequence[str]) -> str | None:
    """The first word that is neither a flag nor a flag's value."""
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = "=" not in word and word not in ("--quiet", "--tensorboard", "-h", "--help")
        else:
            return word
    return None
