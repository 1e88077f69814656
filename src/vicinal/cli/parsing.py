"""Reading command lines: a command's own flags, and the settings of an experiment, ``--GROUP.SETTING VALUE``.

Nothing is imported here that takes long, so that help is there at once. What settings there are, and of which types,
is read off signatures and docstrings by `vicinal.settings` once an experiment is made of them.
"""

from __future__ import annotations

import argparse
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from vicinal.errors import InputError, nearest

_WIDTH = 80
_SETTING = re.compile(r"--([a-z]\w*)\.([a-z]\w*)(?:=(.*))?", re.DOTALL)


class Parser:
    """A command's flags and arguments.

    Args:
        command: its name.
        about: what it does, for the help.
        example: a command line to show.
        usage: its words in the help, the command left out; made from the flags by default.
        notes: further text below the help.
    """

    def __init__(self, command: str, about: str, example: str, *, usage: str | None = None, notes: str = "") -> None:
        self._command = command
        self._parser = _Argparse(
            prog=f"vicinal {command}",
            usage=usage and usage.replace("COMMAND", f"vicinal {command}"),
            description=about,
            epilog="\n\n".join(text for text in (f"example:\n  {example}", notes) if text),
            add_help=False,
            allow_abbrev=False,
            exit_on_error=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=24, width=_WIDTH),
        )
        self._parser.add_argument("-h", "--help", action="store_true", help="show this help and exit")

    def add(self, *names: str, **options: Any) -> None:
        """Add a flag or argument, as for argparse; what is not given stays away from the result."""
        self._parser.add_argument(*names, **options)

    def add_checkpoint(self) -> None:
        """Add the flag that says which weights of a run to take."""
        which = one_of("last", "best_validation")
        self.add("--checkpoint", type=which, metavar="WHICH", help="last (default) or best_validation")

    def parse(self, words: Sequence[str]) -> dict[str, Any] | None:
        """What was given, by name; None if the help was asked for and printed.

        Of a flag that is given twice the last one counts, so that a stored command line can be changed at its end.

        Raises:
            InputError: an unknown flag (the message names the nearest known one), or a value that a flag does not take.
        """
        if _asks_for_help(words):
            print(self._parser.format_help().rstrip())
            return None
        try:
            given, rest = self._parser.parse_known_args(list(words))
        except argparse.ArgumentError as error:
            name = (error.argument_name or "").split("/")[-1]
            raise InputError(f"{name}: {error.message}; see: vicinal {self._command} --help") from error
        unknown = [word for word in rest if word.startswith("-") and word != "--"]
        if unknown:
            raise InputError(self._unknown(unknown[0].partition("=")[0]))
        if rest:
            raise InputError(f"{rest[0]!r} is one argument too many; see: vicinal {self._command} --help")
        return vars(given)

    def _unknown(self, flag: str) -> str:
        return f"unknown flag {flag}; {nearest(flag, self._flags())}"

    def _flags(self) -> list[str]:
        return [name for name in self._parser.flags if name.startswith("--")]


class SettingsParser(Parser, ABC):
    """A parser of flags ``--GROUP.SETTING VALUE`` too: ``settings`` of its result are texts, group by group."""

    @abstractmethod
    def settings(self) -> Mapping[str, Iterable[str]]:
        """Names of the settings by group, for complaints about unknown ones."""

    def parse(self, words: Sequence[str]) -> dict[str, Any] | None:
        settings, rest = ({}, list(words)) if _asks_for_help(words) else _take_settings(words)
        given = super().parse(rest)
        return given if given is None or not settings else {**given, "settings": settings}

    def _unknown(self, flag: str) -> str:
        tails = [name for name in self._flags() if name.partition(".")[2] == flag.removeprefix("--")]
        return f"unknown flag {flag}; did you mean {' or '.join(tails)}?" if tails else super()._unknown(flag)

    def _flags(self) -> list[str]:
        return [*super()._flags(), *(f"--{group}.{name}" for group, names in self.settings().items() for name in names)]


class ExperimentParser(SettingsParser):
    """The flags of a command that takes a whole experiment.

    Args:
        command: its name.
        about: what it does, for the help.
        example: a command line to show.
        usage: its words in the help.
    """

    def __init__(self, command: str, about: str, example: str, usage: str) -> None:
        notes = (
            "Every setting of an experiment is a flag, --GROUP.SETTING VALUE, with the groups\n"
            "data, network, method, split, augment, teacher and training, such as\n"
            "--method.weight 20 --training.steps 600 --network.widths [16,32]. All of them,\n"
            "with meaning and value: vicinal show-config, with the same words."
        )
        super().__init__(command, about, example, usage=usage, notes=notes)
        self.add("data", nargs="?", help="digits, cifar10, ...; a folder, .parquet or .npz file; a hub id")
        self.add("--method", metavar="NAME", help="see: vicinal methods")
        self.add("--network", metavar="NAME", help="small_cnn, cnn13, mlp, ..., or an import path module:Name")
        self.add("--labels", type=whole(1), metavar="N", help="labelled training examples (default: all there are)")
        self.add("--seed", type=whole(0), metavar="N", help="names every random draw (default: 0)")
        self.add("--preprocess", metavar="NAME", help="preprocessing layer (default: normalise)")
        self.add("--recipe", metavar="NAME", help="start from it; 'none': from bare defaults (default: DATA/METHOD)")
        self.add("--config", metavar="FILE", help="start from this experiment file; flags win over it")

    def settings(self) -> Mapping[str, Iterable[str]]:
        from vicinal.experiment import all_settings

        return all_settings()

    def _unknown(self, flag: str) -> str:
        if flag == "--data":
            return f"unknown flag --data; the data set goes without a flag: vicinal {self._command} digits"
        return super()._unknown(flag)


class StudiesParser(SettingsParser):
    """The flags of a command that takes the settings of studies."""

    def settings(self) -> Mapping[str, Iterable[str]]:
        from vicinal.settings import settings_of
        from vicinal.studies import STUDIES

        return {name: [setting.name for setting in settings_of(study)] for name, study in STUDIES.items()}


def whole(low: int) -> Callable[[str], int]:
    """The type of a flag that takes whole numbers from ``low``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {low}, got {text!r}")
        return value

    return read


def one_of(*names: str) -> Callable[[str], str]:
    """The type of a flag that takes one of some names."""

    def read(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"expected {', '.join(names[:-1])} or {names[-1]}, got {text!r}")
        return text

    return read


class _Argparse(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see: {self.prog} --help")

    @property
    def flags(self) -> list[str]:
        return list(self._option_string_actions)


def _asks_for_help(words: Sequence[str]) -> bool:
    before = words[: words.index("--")] if "--" in words else words
    return "-h" in before or "--help" in before


def _take_settings(words: Sequence[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Settings by group, and the other words. A negative number is a value, another word with a dash is a flag."""
    settings: dict[str, dict[str, str]] = {}
    rest: list[str] = []
    left = iter(range(len(words)))
    for i in left:
        found = _SETTING.fullmatch(words[i])
        if words[i] == "--":
            rest += words[i:]
            break
        if found is None:
            rest.append(words[i])
            continue
        group, name, value = found.groups()
        if value is None:
            following = words[i + 1] if i + 1 < len(words) else "--"
            if following.startswith("-") and not _is_number(following):
                raise InputError(f"--{group}.{name}: expected a value, such as --{group}.{name}=VALUE")
            value = following
            next(left, None)
        settings.setdefault(group, {})[name] = value
    return settings, rest


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
