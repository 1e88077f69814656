"""Explaining what can be chosen: lists, one method's page, an experiment with every setting's meaning."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from vicinal import recipes
from vicinal.experiment import CHOICES, GROUPS, Experiment, settings_target
from vicinal.methods import METHODS, Method
from vicinal.settings import documented, settings_of
from vicinal.studies import STUDIES, Study

_WIDTH = 80
_PASSES = """\
Passes of a step: f, F forward on the labelled, unlabelled batch; T teacher
forward; h head alone; e, d encoder, decoder or generator; b, B full backward
through f, F; x, X, y backward through f, F, d to their input alone.
Settings: by where their defaults come from. vicinal methods NAME explains one."""
_ORIGINS = {"paper": "paper", "official-code": "official code", "ours": "ours"}


def method_list() -> str:
    """All methods: name and idea; source, passes of a step, and what they need."""
    entries = []
    for name, method in METHODS.items():
        needs = method.needs
        wants = [f"{needs.views} view{'s' if needs.views > 1 else ''} of unlabelled data"] if needs.views else []
        wants += ["strong views"] if needs.strong else []
        wants += ["a teacher"] if needs.teacher else []
        wants += ["an autoencoder"] if needs.autoencoder else []
        texts = [_idea(method), "; ".join([method.source, str(method().passes()), *wants])]
        entries.append((name, texts + _origins(method)))
    return f"{_entries(entries)}\n\n{_PASSES}"


def _origins(method: type[Method]) -> list[str]:
    groups = {
        told: [name for name, origin in method.origins.items() if origin == key] for key, told in _ORIGINS.items()
    }
    told = [f"{origin}: {', '.join(names)}" for origin, names in groups.items() if names]
    return ["; ".join(told)] if told else []


def recipe_list() -> str:
    """All recipes: the families, and what is in each by where its settings come from."""
    families: dict[str, list[recipes.Recipe]] = {}
    for name in recipes.names():
        families.setdefault(name.partition("/")[0], []).append(recipes.get(name))
    entries = []
    for family, found in families.items():
        groups = {
            told: [item.name.partition("/")[2] for item in found if item.provenance == key]
            for key, told in _ORIGINS.items()
        }
        texts = [f"{told}: {', '.join(names)}" for told, names in groups.items() if names]
        entries.append((family, [found[0].about, *texts]))
    return f"{_entries(entries)}\n\nA recipe is named FAMILY/NAME; vicinal recipes show digits/ict prints one."


def method_page(name: str, method: type[Method]) -> str:
    """One method: its docstring up to the settings, then the settings with defaults and meaning."""
    return _page(name, "method", method, {key: _ORIGINS[origin] for key, origin in method.origins.items()})


def study_list() -> str:
    """All studies: name and what it measures."""
    return _entries((name, [_idea(study)]) for name, study in STUDIES.items())


def study_page(name: str, study: type[Study]) -> str:
    """One study: its docstring up to the settings, then the settings with defaults and meaning."""
    return _page(name, name, study, {})


def _page(name: str, group: str, target: type[Any], origins: Mapping[str, str]) -> str:
    text = inspect.getdoc(target) or ""
    lines = [f"{name}: {text.split('Args:')[0].rstrip()}", "", "settings:"]
    for setting in settings_of(target):
        origin = origins.get(setting.name, "")
        lines.append(f"  --{group}.{setting.name} (default: {_plain(setting.default)}{origin and f', {origin}'})")
        lines += ["      " + line for line in textwrap.wrap(setting.help.replace("``", ""), _WIDTH - 6)]
    return "\n".join(lines if len(lines) > 3 else [*lines, "  none"])


def annotated_yaml(experiment: Experiment) -> str:
    """An experiment as YAML in which a comment tells what each setting means; it reads back to the same experiment."""
    helps = {group: documented(settings_target(group, getattr(experiment, group).name)) for group in CHOICES}
    helps |= {group: documented(target) for group, target in GROUPS.items()}
    about = documented(Experiment)
    lines = []
    for key, value in experiment.as_dict().items():
        lines += _comment(about[key])
        if not isinstance(value, dict):
            lines += _yaml(key, value)
            continue
        lines.append(f"{key}:")
        for name, item in value.items():
            lines += ["  " + line for line in (*_comment(helps[key].get(name, "")), *_yaml(name, item))]
    return "\n".join(lines) + "\n"


def _entries(entries: Iterable[tuple[str, list[str]]]) -> str:
    """Names on the left, lines of text beside them."""
    entries = list(entries)
    indent = max(len(name) for name, _ in entries) + 2
    lines = []
    for name, texts in entries:
        beside = "\n".join(textwrap.fill(text, _WIDTH - indent) for text in texts)
        lines.append(name.ljust(indent) + textwrap.indent(beside, " " * indent).lstrip())
    return "\n".join(lines)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text.replace("``", ""), 100, initial_indent="# ", subsequent_indent="# ")


def _yaml(name: str, value: Any) -> list[str]:
    flow = None if isinstance(value, (list, tuple, dict)) else False
    text: str = yaml.safe_dump({name: value}, default_flow_style=flow, allow_unicode=True, width=10**6)
    return text.rstrip("\n").split("\n")


def _idea(target: type[Any]) -> str:
    return (inspect.getdoc(target) or "").splitlines()[0].rstrip(".")


def _plain(value: Any) -> str:
    return "none" if value is None else str(value)
