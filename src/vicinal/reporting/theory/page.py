"""The page of the theory: a chapter for each run, with figures of the paper's kind, and all tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vicinal.errors import InputError
from vicinal.reporting.report.blocks import (
    Block,
    Charts,
    Details,
    Paragraph,
    Point,
    Points,
    Section,
    TableBlock,
    tables_in,
)
from vicinal.reporting.report.layout import Part, lay_out
from vicinal.reporting.tables import Table
from vicinal.reporting.theory.drawn import cosine_charts, gap_charts, loss_charts, radius_chart
from vicinal.reporting.theory.sentences import applying_bound, failing, in_short, shown
from vicinal.reporting.theory.tabled import (
    assumptions_table,
    curve_table,
    expansions_table,
    formulas_table,
    gap_table,
    glance_table,
    meanings_table,
    radii_table,
    smoothness_table,
    statements_table,
    training_table,
)

Values = Mapping[str, Any]
_RADII = (
    "Mean losses within L2 balls around the examples. 1 is each example's own radius ε_i √d, the only one that the "
    "theorem speaks of, and 0 the loss of the examples themselves."
)


def render(runs: Sequence[Values], *, command: str, made: str) -> str:
    """The page as the text of an HTML file. The same arguments give the same text.

    Args:
        runs: what `vicinal.theorising.theorise` gave of each, at least one.
        command: the command that made the page.
        made: date and version, as a line.

    Raises:
        InputError: there are no runs.
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    if not runs:
        raise InputError("theory: there are no runs to write of; give at least one")
    return lay_out(
        [Part(_title(values), _sections(values)) for values in runs],
        title="What the theory of mixup says" + (f" of {len(runs)} runs" if len(runs) > 1 else ""),
        glance=TableBlock(glance_table(list(runs))) if len(runs) > 1 else None,
        command=command,
        made=made,
    )


def tables(runs: Sequence[Values]) -> list[Table]:
    """The tables of the page, in its order, each title behind its run's where there are several."""
    found = [glance_table(list(runs))] if len(runs) > 1 else []
    for values in runs:
        prefix = f"{_title(values)}: " if len(runs) > 1 else ""
        blocks = [block for section in _sections(values) for block in section.blocks]
        told = [statements_table(values), assumptions_table(values), *tables_in(blocks)]
        found += [replace(table, title=prefix + table.title) for table in told]
    return found


def _title(values: Values) -> str:
    return f"{values['data']}, {values['method']}, {values['backbone']} ({values['run']})"


def _sections(values: Values) -> tuple[Section, ...]:
    made = (_summary, _statements, _loss, _cosines, _adversarial, _generalisation, _smoothness, _formulas)
    return tuple(section for make in made if (section := make(values)) is not None)


def _summary(values: Values) -> Section:
    return Section("summary", "Summary", (Points(tuple(in_short(values))),))


def _statements(values: Values) -> Section:
    told = (
        "Each statement with what it says of this network and sample. Where an assumption of a bound fails, no bound "
        "is given. Expansions, radii and attacks are measurements: they are given all the same and prove nothing."
    )
    rows, heads = statements_table(values).rows, ("Applies", "Does not apply")
    blocks: tuple[Block, ...] = (
        Paragraph(told),
        Points(_sorted(rows, heads, first="yes")),
        Details(
            "What it needs: each assumption with the number that decides",
            (Points(_sorted(assumptions_table(values).rows, ("Holds", "Fails"), first="NO")),),
        ),
        Details("What the assumptions mean, and which statements need them", (TableBlock(meanings_table(values)),)),
    )
    return Section("statements", "Statements", blocks)


def _sorted(rows: Sequence[tuple[str, ...]], heads: tuple[str, str], *, first: str) -> tuple[Point, ...]:
    """Rows of a name, "yes" or "NO" and a sentence as points, those with ``first`` before the others."""
    ordered = sorted(rows, key=lambda row: row[1] != first)
    return tuple(
        Point(name, f"{heads[holds != 'yes']}: {text}.", "" if holds == "yes" else "warning")
        for name, holds, text in ordered
    )


def _loss(values: Values) -> Section | None:
    table = expansions_table(values)
    if table is None:
        return None
    told = (
        "The mixup loss over all pairs, and its two second-order expansions: around each example (after "
        "Zhang et al. 2021), and around the example shrunk towards the mean of all (after Carratino et al. 2022). "
        "1 - λ is not small on average, so that neither need be close."
    )
    looks = training_table(values)
    more = () if looks is None else (Details("Along training, in numbers", (TableBlock(looks),)),)
    blocks = (Paragraph(told), *loss_charts(values), TableBlock(table), *more)
    return Section("loss", "Mixup loss and its expansions", blocks)


def _cosines(values: Values) -> Section | None:
    radii = values["statements"]["radii"]["values"]
    if not values["cosines"] or radii is None:
        return None
    told = (
        "The radius at which mixup bounds the adversarial surrogate is ε_i = R_i c_x m1 for each example, with the "
        "cosine R_i of the angle between the input and the gradient of the log-odds of its own class. Where it is near "
        f"0, the theory has nothing to say of the example. Here c_x = {shown(radii['c_x'])}, m1 = {shown(radii['m1'])}."
    )
    blocks = (Paragraph(told), *cosine_charts(values), TableBlock(radii_table(radii)))
    return Section("cosines", "Cosines and radii", blocks)


def _adversarial(values: Values) -> Section | None:
    table = curve_table(values)
    if table is None:
        return None
    if applying_bound(values) is not None:
        told = "The theorem applies: at 1 the expansion is an upper bound of the surrogate, as drawn."
    else:
        why = failing(values, "class_surrogate_bound")
        told = (
            f"The theorem does not apply (failing: {why}): the mixup loss is drawn to compare with, and bounds none of "
            "these."
        )
    blocks = (Paragraph(f"{_RADII} {told}"), Charts((radius_chart(values),)), TableBlock(table))
    return Section("adversarial", "Adversarial loss and bound", blocks)


def _generalisation(values: Values) -> Section | None:
    table = gap_table(values)
    if not table.rows:
        return None
    told = (
        "The theory bounds the gap by the complexity of the last layer: the logits of this network, as a linear layer "
        "on its features, lie in an ellipsoid in the shape of their covariance. See the statements for the numbers."
    )
    return Section("generalisation", "Generalisation gap", (Paragraph(told), *gap_charts(values), TableBlock(table)))


def _smoothness(values: Values) -> Section | None:
    table = smoothness_table(values)
    if table is None:
        return None
    told = (
        "Where the gradient of f is Lipschitz with constant b, f is at most b/2 λ (1 - λ) times the squared "
        "distance off the straight line between two examples. The mixup gap turns this round: a lower estimate of b."
    )
    return Section("smoothness", "Smoothness", (Paragraph(told), TableBlock(table)))


def _formulas(values: Values) -> Section:
    told = f"Version {values['version']}, commit {values['commit'] or 'unknown'}, {values['seconds']:.0f} s."
    return Section(
        "formulas",
        "Where the formulas are from",
        (
            Details("Each formula: derived or recalled, function, test, figure", (TableBlock(formulas_table()),)),
            Paragraph(told, "note"),
        ),
    )
