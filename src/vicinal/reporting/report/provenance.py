"""Where every number came from, and what was left out and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vicinal.reporting.report.blocks import Block, Code, Details, Paragraph, Section, TableBlock
from vicinal.reporting.report.entries import Entry
from vicinal.reporting.report.grouping import Chapter, differing
from vicinal.reporting.report.numbers import NOTHING
from vicinal.reporting.tables import Table


def provenance(chapter: Chapter) -> Section:
    """Data, machine, commits, splits, seeds and commands of all runs; settings of every study; the experiments."""
    about = {entry.name: _about(entry) for entry in chapter.entries}
    names = list(dict.fromkeys(name for each in about.values() for name in each))
    values = {name: [each.get(name, NOTHING) for each in about.values()] for name in names}
    shared = {name: found[0] for name, found in values.items() if len(set(found)) == 1}
    unequal = [name for name in names if name not in shared]
    blocks: list[Block] = []
    if shared:
        title = "What all runs of this chapter share" if len(about) > 1 else "The run"
        blocks.append(TableBlock(Table(title, ("what", "value"), tuple(shared.items()))))
    if unequal:
        labels = {entry.name: row.label for row in chapter.rows for entry in row.entries}
        lines = tuple(
            (labels[name], name, *(each.get(what, NOTHING) for what in unequal)) for name, each in about.items()
        )
        blocks.append(TableBlock(Table("Each run", ("run", "path", *unequal), lines), flat=True))
    else:
        blocks.append(Paragraph(f"Path: {', '.join(about)}"))
    blocks += _unlike(chapter)
    blocks += _studies(chapter)
    for row in chapter.rows:
        first = row.entries[0]
        seeds = ", ".join(str(entry.seed) for entry in row.entries)
        more = f"; its seeds {seeds} differ in the seed alone" if len(row.entries) > 1 else ""
        blocks.append(Details(f"Experiment of {row.label}, seed {first.seed}{more}", (Code(first.experiment),)))
    return Section("provenance", "Provenance", tuple(blocks))


def _about(entry: Entry) -> dict[str, str]:
    """Everything of the provenance as texts, with dotted names; the seed first, long things last."""
    found: dict[str, str] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(inner, name if key == name else f"{name} {key}".strip())
        else:
            found[name] = NOTHING if value is None else str(value)

    walk({key: value for key, value in entry.provenance.items() if key != "command"}, "")
    walk({"trained": entry.evaluation.get("steps") or {}}, "")
    found["weights"] = str(entry.evaluation.get("weights") or NOTHING)
    found["command"] = str(entry.provenance.get("command") or NOTHING)
    renamed = {
        "trained last": "step of the last weights",
        "trained best_validation": "step of the selected weights",
        "training_seconds": "training, s",
    }
    return {renamed.get(name, name.replace("_", " ")): text for name, text in found.items()}


def _unlike(chapter: Chapter) -> list[Block]:
    """The settings in which rows of the same method differ."""
    made: list[Block] = []
    for method in dict.fromkeys(row.method for row in chapter.rows):
        rows = [row for row in chapter.rows if row.method == method]
        if len(rows) > 1:
            found = differing(rows)
            lines = tuple((name, *values) for name, values in found.items())
            columns = ("setting", *(row.label for row in rows))
            made.append(TableBlock(Table(f"In what the rows of {method} differ", columns, lines)))
    return made


def _studies(chapter: Chapter) -> list[Block]:
    """Settings, seed and commit of each study, and how long it took."""
    groups: dict[tuple[str, ...], list[tuple[str, float]]] = {}
    for row in chapter.rows:
        for entry in row.entries:
            for name, study in entry.studies.items():
                if study.get("figures") is None:
                    continue
                settings = ", ".join(f"{key} {_plain(value)}" for key, value in (study.get("settings") or {}).items())
                key = (str(study.get("title", name)), settings, str(study.get("seed")), str(study.get("commit")))
                groups.setdefault(key, []).append((f"{row.label} {entry.seed}", float(study.get("seconds") or 0)))
    if not groups:
        return []
    total = len(chapter.entries)
    lines = tuple(
        (
            *key,
            "all" if len(found) == total else ", ".join(name for name, _ in found),
            f"{sum(seconds for _, seconds in found):.1f}",
        )
        for key, found in groups.items()
    )
    columns = ("study", "settings", "seed", "commit", "runs", "seconds, in all")
    return [TableBlock(Table("How the studies were made", columns, lines))]


def _plain(value: Any) -> str:
    if value is None:
        return "default"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def left_out(chapter: Chapter) -> Section | None:
    """What is missing, and why; None if nothing is."""
    titles = {name: str(study.get("title", name)) for entry in chapter.entries for name, study in entry.studies.items()}
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in chapter.rows:
        for entry in row.entries:
            for name, title in titles.items():
                study = entry.studies.get(name)
                if study is not None and study.get("figures") is not None:
                    continue
                why = (study or {}).get("left_out") or "it was not measured of this run"
                reasons.setdefault((title, why), []).append(f"{row.label} {entry.seed}")
    total = len(chapter.entries)
    lines = tuple(
        (title, why, "all" if len(runs) == total else ", ".join(runs)) for (title, why), runs in reasons.items()
    )
    blocks: list[Block] = []
    if not titles:
        blocks.append(
            Paragraph("No studies were made of these runs: the report has the figures of their evaluation alone.")
        )
    if lines:
        blocks.append(TableBlock(Table("Studies that were left out", ("study", "why", "runs (label and seed)"), lines)))
    blocks += [Paragraph(f"Left out: {text}.") for text in chapter.repeated]
    return Section("left-out", "What was left out", tuple(blocks)) if blocks else None
