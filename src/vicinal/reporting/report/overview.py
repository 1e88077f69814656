"""The main table of a chapter, and what is said of autoencoders and of what they rebuild."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from vicinal.evaluation.attacks import radius_text
from vicinal.reporting.report.blocks import Block, Section, TableBlock
from vicinal.reporting.report.comparable import corrupted, shared
from vicinal.reporting.report.entries import Entry, known
from vicinal.reporting.report.grouping import Chapter, Row
from vicinal.reporting.report.measures import GAMMA, NORMS, examples, gamma, headline, under_attack, wrong_predictions
from vicinal.reporting.report.numbers import NOTHING, cell, difference, signed, single_error
from vicinal.reporting.tables import Table, mean_and_std

Column = tuple[str, Callable[[Row], str]]

_DIFFERENCE = "difference"
MAIN = "Main figures"
"""How the title of the main table of each chapter begins, behind the chapter's own."""


def overview(chapter: Chapter) -> Section | None:
    """The main figures of all rows, or None if nothing was measured."""
    blocks: list[Block] = [
        TableBlock(
            table,
            marked=frozenset(i for i, row in enumerate(rows) if row is chapter.baseline and len(rows) > 1),
            colours={i: row.number for i, row in enumerate(rows)},
        )
        for table, rows in _tables(chapter)
    ]
    return Section("results", "Results", tuple(blocks)) if blocks else None


def _tables(chapter: Chapter) -> list[tuple[Table, list[Row]]]:
    classifiers, rebuilding = (
        [row for row in chapter.rows if any(entry.has(name) for entry in row.entries)]
        for name in ("error", "squared_error")
    )
    made = []
    if classifiers:
        table = _table(f"{MAIN}, {chapter.part} part", classifiers, _columns(chapter))
        made.append((replace(table, notes=(*_notes(chapter, table.columns), *_missing(table))), classifiers))
    if rebuilding:
        columns: list[Column] = [
            ("squared error", lambda row: _plain(row, "squared_error")),
            ("PSNR, dB", lambda row: _plain(row, "psnr")),
            ("seeds", _seeds),
        ]
        notes = ("mean squared error of reconstructions and their peak signal-to-noise ratio, at the end of training",)
        table = _table(f"Autoencoders, {chapter.part} part", rebuilding, columns)
        made.append((replace(table, notes=(*notes, *_missing(table))), rebuilding))
    return made


def _table(title: str, rows: list[Row], columns: list[Column]) -> Table:
    """A table without the columns that say nothing of any row."""
    cells = {name: [get(row) for row in rows] for name, get in columns}
    kept = {name: texts for name, texts in cells.items() if any(text != NOTHING for text in texts)}
    lines = tuple((row.label, *(texts[i] for texts in kept.values())) for i, row in enumerate(rows))
    return Table(title, ("run", *kept), lines)


def _columns(chapter: Chapter) -> list[Column]:
    error, base, chosen = wrong_predictions(chapter), chapter.baseline, headline(chapter)

    def shares(get: Callable[[Entry], float | None]) -> Callable[[Row], str]:
        return lambda row: cell(row.values(get), len(row.entries))

    def to_baseline(row: Row) -> str:
        if base is None or row is base:
            return NOTHING
        return signed(difference(row, base, error))

    columns: list[Column] = [
        (f"{error.name}, last %", lambda row: _with_error(row, chapter)),
        (_DIFFERENCE, to_baseline),
        ("selected %", shares(wrong_predictions(chapter, "best_validation").get)),
        ("NLL", lambda row: _plain(row, "nll")),
        ("ECE %", shares(lambda entry: entry.figure("ece"))),
        ("Brier", lambda row: _plain(row, "brier")),
        ("confidence gap", shares(lambda entry: entry.figure("confidence_gap"))),
    ]
    if chosen is not None:
        attack, epsilon = chosen
        name = f"error %, {attack.name}, {NORMS.get(attack.norm, attack.norm)} radius {radius_text(epsilon)}"
        columns += [
            (name, shares(under_attack(attack, epsilon, "white").get)),
            ("the same, black box %", shares(under_attack(attack, epsilon, "black").get)),
        ]
    linearity = gamma()
    columns += [
        ("corrupted %", shares(corrupted(chapter).get)),
        (GAMMA, lambda row: cell(row.values(linearity.get), len(row.entries), fraction=False)),
        ("seeds", _seeds),
    ]
    return columns


def _with_error(row: Row, chapter: Chapter) -> str:
    """The error; of a single run with its binomial standard error."""
    measure = wrong_predictions(chapter)
    alone = single_error(row, measure)
    error = "" if alone is None else f" (se {100 * alone[1]:.2f})"
    return cell(row.values(measure.get), len(row.entries), error=error)


def _plain(row: Row, name: str) -> str:
    return cell(row.values(lambda entry: entry.figure(name)), len(row.entries), fraction=False)


def _seeds(row: Row) -> str:
    return str(len(row.entries))


_MEANING = {
    "NLL": "NLL: negative log-likelihood, nats",
    "ECE %": "ECE: expected calibration error, 15 equal bins",
    "Brier": "Brier: in [0,2]",
    "confidence gap": "confidence gap: mean confidence minus accuracy, in points, above 0 is over-confident",
    GAMMA: f"{GAMMA}: local linearity error of the loss, smaller is smoother",
}


def _notes(chapter: Chapter, columns: Sequence[str]) -> tuple[str, ...]:
    counts = sorted({entry.n for entry in chapter.entries if entry.n is not None})
    many = any(len(row.entries) > 1 for row in chapter.rows)
    single = any(single_error(row, wrong_predictions(chapter)) for row in chapter.rows)
    notes = [
        f"{chapter.part} part: {' or '.join(map(str, counts))} examples; "
        + ("mean ± sample standard deviation over seeds; " if many else "")
        + ("se: binomial standard error of a single run, in points, above 0 also without any error; " if single else "")
        + "last: at the end of training; selected (best_validation): at the lowest validation error"
    ]
    if chapter.part == "validation":
        notes.append("there is no test part: these are figures of the validation part, on which 'selected' was chosen")
    if chapter.baseline is not None and len(chapter.rows) > 1:
        notes.append(
            f"difference: error minus that of the baseline, {chapter.baseline.label}, in points, over pairs of runs "
            "with the same seed and the same split; - where there is no such pair"
        )
    corruptions = {"corrupted %": f"corrupted: mean over severities and {shared(chapter).named(' of corruption')}"}
    if meanings := [text for column, text in {**_MEANING, **corruptions}.items() if column in columns]:
        notes.append("; ".join(meanings))
    if (chosen := headline(chapter)) is not None:
        figures = [found for row in chapter.rows for found in row.figures("robustness")]
        notes.append(f"{chosen[0].name}: {examples(figures, chapter)}; see Robustness for what it tells")
    weights = sorted({str(entry.evaluation["weights"]) for entry in chapter.entries if entry.evaluation.get("weights")})
    if weights:
        notes.append(f"weights that are measured: {', '.join(weights)}")
    notes += [text for text, _ in gates(chapter)]
    return tuple(notes)


def _missing(table: Table) -> tuple[str, ...]:
    """What - and (k of n) stand for, where there are any; a difference has a note of its own."""
    notes = []
    lacking = {
        column: [row[0] for row in table.rows if row[i] == NOTHING]
        for i, column in enumerate(table.columns)
        if column != _DIFFERENCE
    }
    if told := [f"{column} ({', '.join(labels)})" for column, labels in lacking.items() if labels]:
        notes.append(f"-: not measured, or no finite number: {'; '.join(told)}")
    if any(re.search(r"\(\d+ of \d+\)$", cell) for row in table.rows for cell in row[1:]):
        notes.append("(k of n): of k of the n runs; of the others it was not measured, or is no finite number")
    return tuple(notes)


def gates(chapter: Chapter) -> list[tuple[str, bool]]:
    """For each row that mixes codes of an autoencoder: how good its reconstructions were, and whether good enough."""
    found = []
    for row in chapter.rows:
        made = [entry.evaluation["gate"] for entry in row.entries if entry.evaluation.get("gate")]
        if not made:
            continue
        kept, clean = (
            f"{mean_and_std(values)[0]:.1%}" if (values := known(gate[key] for gate in made)) else "unknown"
            for key in ("accuracy_rebuilt", "accuracy")
        )
        failed = sum(not gate["passed"] for gate in made)
        quality = f"{row.label}: a plain classifier has accuracy {kept} on reconstructions, {clean} on the images"
        verdict = (
            f"gate failed ({failed} of {len(made)}), so the row says nothing of the method" if failed else "gate passed"
        )
        found.append((f"{quality}: {verdict}", not failed))
    return found
