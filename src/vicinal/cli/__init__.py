"""The command line: ``vicinal COMMAND ...``.

Bad input ends with one line on standard error and exit code 2; an interrupted run with 130, after saying how to go on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

from vicinal.errors import InputError, MissingExtraError, nearest

_ABOUT = "Robust, calibrated classifiers from few labels, by vicinal risk minimisation."
_COMMANDS = {
    "fit": "train and evaluate one experiment into a run directory",
    "evaluate": "measure trained runs, and write a report that compares them",
    "theory": "say what the theory of mixup says of trained runs",
    "predict": "label new examples with a trained run",
    "suggest": "find the unlabelled examples whose labels would help most",
    "export": "write a model for use elsewhere: ONNX, safetensors, the hub",
    "benchmark": "run a grid of experiments: data x labels x methods x seeds",
    "table": "print a grid's table: mean ± std over seeds",
    "methods": "list the methods, or explain one with its settings",
    "studies": "list the studies of an evaluation, or explain one",
    "recipes": "list the recipes, show one, or copy one to a file",
    "show-config": "print the complete experiment that a command line means",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``vicinal``; those of the process by default.

    Returns:
        The exit code: 0, 1 if a grid has failed cells, 2 for bad input, 130 if interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if "" not in sys.path:
        # One's own methods and networks lie where one works. At the end, so that no file there hides a library.
        sys.path.append("")
    try:
        code = _dispatch(words)
        sys.stdout.flush()  # here, where a reader that has left can be told from an error
        return code
    except (InputError, MissingExtraError) as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("vicinal: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) has left: nothing is wrong. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # Of the system, not of the code: no permission, a full disk, a folder where a file was expected.
        return _refuse(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))


def _refuse(message: str) -> int:
    print(f"vicinal: error: {' '.join(message.splitlines())}", file=sys.stderr)
    return 2


def _dispatch(words: list[str]) -> int:
    import vicinal

    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        print(vicinal.__version__)
        return 0
    name, rest = words[0], words[1:]
    if name not in _COMMANDS:
        raise InputError(f"unknown command {name!r}; {nearest(name, _COMMANDS)}")
    from vicinal.cli import commands, leaving, looking, stating

    room: ModuleType = commands
    if name in ("methods", "studies", "recipes", "show-config"):
        room = looking
    elif name in ("suggest", "export"):
        room = leaving
    elif name == "theory":
        room = stating
    command: Callable[[list[str]], int] = getattr(room, name.replace("-", "_"))
    return command(rest)


def _overview() -> str:
    width = max(len(name) for name in _COMMANDS)
    lines = [f"  {name.ljust(width)}  {text}" for name, text in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: vicinal COMMAND ...",
            "",
            _ABOUT,
            "",
            "commands:",
            *lines,
            "",
            "example:",
            "  vicinal fit digits --method advmixup --labels 50 --seed 7 --output runs/a",
            "",
            "vicinal COMMAND --help explains a command.",
        ]
    )
