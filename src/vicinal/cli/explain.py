"""Explaining what can be chosen: the method list, one method's page, an experiment with every setting's meaning."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

from vicinal.experiment import CHOICES, GROUPS, Experiment, settings_target
from vicinal.methods import METHODS, Method
from vicinal.reporting import Table
from vicinal.settings import settings_of


def method_table() -> Table:
    """All methods: name, idea, source, passes of a step, what they need."""
    rows = []
    for name, method in METHODS.items():
        needs = method.needs
        wants = [f"{needs.views} view{'s' if needs.views > 1 else ''}"] if needs.views else []
        wants += ["teacher"] if needs.teacher else []
        rows.append((name, _idea(method), method.source, str(method().passes()), ", ".join(wants) or "-"))
    return Table(
        "Methods",
        ("method", "idea", "source", "passes a step", "unlabelled data"),
        tuple(rows),
        (
            "passes: f/F forward on the labelled/unlabelled batch, T teacher forward, b/B full backward, "
            "X backward to a perturbation",
            "vicinal methods NAME explains one",
        ),
    )


def method_page(name: str, method: type[Method]) -> str:
    """One method: its docstring up to the settings, then the settings with defaults and meaning."""
    text = inspect.getdoc(method) or ""
    lines = [f"{name}: {text.split('Args:')[0].rstrip()}", "", "settings:"]
    for setting in settings_of(method):
        lines.append(f"  --method.{setting.name} (default: {_plain(setting.default)})")
        lines += textwrap.wrap(setting.help, 110, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def annotated_yaml(experiment: Experiment) -> str:
    """An experiment as YAML in which a comment tells what each setting means; it reads back to the same experiment."""
    import yaml

    helps: dict[str, dict[str, str]] = {}
    for group in CHOICES:
        target = settings_target(group, getattr(experiment, group).name)
        helps[group] = {setting.name: setting.help for setting in settings_of(target)}
    for group, target in GROUPS.items():
        helps[group] = {setting.name: setting.help for setting in settings_of(target)}
    lines = []
    for key, value in experiment.as_dict().items():
        if not isinstance(value, dict):
            lines.append(yaml.safe_dump({key: value}, allow_unicode=True).rstrip())
            continue
        lines.append(f"{key}:" if value else f"{key}: {{}}")
        for name, item in value.items():
            lines += textwrap.wrap(helps[key].get(name, ""), 110, initial_indent="  # ", subsequent_indent="  # ")
            dumped = yaml.safe_dump(item, default_flow_style=True, allow_unicode=True, width=1000)
            lines.append(f"  {name}: {dumped.removesuffix('...' + chr(10)).rstrip()}")
    return "\n".join(lines) + "\n"


def _idea(method: type[Method]) -> str:
    return (inspect.getdoc(method) or "").splitlines()[0].rstrip(".")


def _plain(value: Any) -> str:
    return "none" if value is None else str(value)
