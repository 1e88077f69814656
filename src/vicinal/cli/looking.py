"""The commands that show what there is, one function each: words in, exit code out."""

from __future__ import annotations

from pathlib import Path

from vicinal.cli.parsing import ExperimentParser, Parser, one_of
from vicinal.errors import InputError, nearest


def methods(words: list[str]) -> int:
    """``vicinal methods``."""
    parser = Parser(
        "methods",
        "List the methods, or explain one with its equations and settings.",
        "vicinal methods advmixup",
    )
    parser.add("method", metavar="METHOD", nargs="?", help="the method to explain")
    given = parser.parse(words)
    if given is None:
        return 0
    from vicinal.cli.explain import method_list, method_page
    from vicinal.experiment import method_class

    print(method_page(given["method"], method_class(given["method"])) if "method" in given else method_list())
    return 0


def studies(words: list[str]) -> int:
    """``vicinal studies``."""
    parser = Parser(
        "studies",
        "List the studies that vicinal evaluate makes, or explain one with its settings.",
        "vicinal studies robustness",
    )
    parser.add("study", metavar="STUDY", nargs="?", help="the study to explain")
    given = parser.parse(words)
    if given is None:
        return 0
    from vicinal.cli.explain import study_list, study_page
    from vicinal.studies import STUDIES

    if (name := given.get("study")) is None:
        print(study_list())
        return 0
    if name not in STUDIES:
        raise InputError(f"unknown study {name!r}; {nearest(name, STUDIES)}")
    print(study_page(name, STUDIES[name]))
    return 0


def recipes(words: list[str]) -> int:
    """``vicinal recipes``."""
    parser = Parser(
        "recipes",
        "List the recipes (experiments that are known to work), show one, or copy one to\na file to change it.",
        "vicinal recipes copy digits/advmixup my-experiment.yaml",
        usage="COMMAND [list]\n       COMMAND show NAME\n       COMMAND copy NAME FILE",
    )
    actions = one_of("list", "show", "copy")
    parser.add("action", type=actions, default="list", metavar="ACTION", nargs="?", help="list (default), show or copy")
    parser.add("name", metavar="NAME", nargs="?", help="the recipe")
    parser.add("file", metavar="FILE", nargs="?", help="where to copy it to: a new file")
    given = parser.parse(words)
    if given is None:
        return 0
    from vicinal.cli.experiments import read_experiment
    from vicinal.cli.explain import annotated_yaml, recipe_list
    from vicinal.cli.output import check_writable, write

    action, name, file = given["action"], given.get("name"), given.get("file")
    wanted = {"list": 0, "show": 1, "copy": 2}[action]
    if sum(item is not None for item in (name, file)) != wanted:
        needs = ("nothing more", "the name of a recipe", "the name of a recipe and a file")[wanted]
        raise InputError(f"recipes {action}: takes {needs}; see: vicinal recipes --help")
    if name is None:
        print(recipe_list())
        return 0
    text = annotated_yaml(read_experiment({"recipe": name}))
    if file is not None:
        if Path(file).exists():
            raise InputError(f"{file}: exists already; choose another name")
        check_writable(file)
    write(file, text)
    return 0


def show_config(words: list[str]) -> int:
    """``vicinal show-config``."""
    parser = ExperimentParser(
        "show-config",
        "Print the complete experiment that these words mean, every setting with its\nmeaning.",
        "vicinal show-config digits --method ict --method.weight 20 > experiment.yaml",
        "COMMAND DATA --method NAME [flags]\n       COMMAND --config FILE [flags]",
    )
    given = parser.parse(words)
    if given is None:
        return 0
    from vicinal.cli.experiments import read_experiment
    from vicinal.cli.explain import annotated_yaml

    print(annotated_yaml(read_experiment(given)), end="")
    return 0
