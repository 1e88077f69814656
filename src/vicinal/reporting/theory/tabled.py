"""The same as tables: assumptions, statements, expansions, smoothness, and where each formula is from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vicinal.reporting.report.numbers import NOTHING
from vicinal.reporting.tables import Table
from vicinal.reporting.theory.sentences import give_or_take, plain, says, shown
from vicinal.theory import FORMULAS

Values = Mapping[str, Any]

STATEMENTS: Mapping[str, tuple[str, str]] = {
    "mixup_loss": ("mixup loss", "mixup loss over D~"),
    "expansion": ("expansion around the examples", "L_std + R1 + R2 + R3"),
    "shrunk_expansion": ("expansion around shrunk points", "expansion around shrunk points"),
    "radii": ("radii and cosines", "radii eps_i, eps_mix"),
    "attack": ("loss under attack", "second-order adversarial surrogate"),
    "surrogate_bound": ("bound of the surrogate, two classes", "bound of the surrogate, networks without biases"),
    "class_surrogate_bound": ("bound of the surrogate", "bound of the surrogate, several classes"),
    "logistic_bound": (
        "bound of the adversarial loss, logistic",
        "bound of the true adversarial loss, logistic regression",
    ),
    "jensen_bound": ("Jensen's bound, affine logits", "Jensen's bound for affine logits"),
    "regulariser": ("regulariser of the last layer", "regulariser of several logits"),
    "complexity": ("complexity of the last layer", "complexity of an ellipsoid"),
    "corollary": ("generalisation corollary", "generalisation corollary"),
}
"""By name, what a statement is called, and the formula that it is."""

DRAWN: Mapping[str, str] = {
    "mixup loss over D~": "mixup loss during training",
    "L_std + R1 + R2 + R3": "mixup loss during training",
    "expansion around shrunk points": "mixup loss during training",
    "radii eps_i, eps_mix": "cosines",
    "second-order adversarial surrogate": "loss by radius",
    "bound of the surrogate, logistic regression": "loss by radius",
    "bound of the surrogate, networks without biases": "loss by radius",
    "bound of the surrogate, several classes": "loss by radius",
    "bound of the true adversarial loss, logistic regression": "loss by radius",
    "generalisation corollary": "generalisation gap",
}
"""By formula, the figure of the page that shows it."""


def assumptions_table(values: Values) -> Table:
    """Each assumption, whether it holds, and the number that decides."""
    rows = tuple(
        (plain(name), "yes" if found["holds"] else "NO", found["says"]) for name, found in values["assumptions"].items()
    )
    return Table("Assumptions", ("assumption", "holds", "measured"), rows)


def statements_table(values: Values) -> Table:
    """Each statement, whether it applies, and what it says, or which assumptions fail with which figures."""
    rows = tuple(
        (STATEMENTS[name][0], "yes" if found["applies"] else "NO", says(values, name))
        for name, found in values["statements"].items()
    )
    return Table("Statements", ("statement", "applies", "says"), rows)


def meanings_table(values: Values) -> Table:
    """What each assumption is, and which statements need it."""
    needed = {
        name: [STATEMENTS[each][0] for each, found in values["statements"].items() if name in found["needs"]]
        for name in values["assumptions"]
    }
    rows = tuple(
        (plain(name), found["means"], "; ".join(needed[name]), found["more"] or NOTHING)
        for name, found in values["assumptions"].items()
    )
    return Table("What the assumptions mean", ("assumption", "says that", "needed for", "here"), rows)


def expansions_table(values: Values) -> Table | None:
    """Both expansions, term by term, beside the mixup loss; None where there are none."""
    mixup, around, shrunk = (
        values["statements"][name]["values"] for name in ("mixup_loss", "expansion", "shrunk_expansion")
    )
    if mixup is None or around is None or shrunk is None:
        return None

    def row(label: str, v: Values, first: str, terms: tuple[float | None, ...]) -> tuple[str, ...]:
        share = f"{100 * v['relative_gap']:+.2f} %"
        return (label, shown(v[first]), *map(shown, terms), shown(v["total"]), f"{v['gap']:+.4g}", share)

    rows = (
        row("around the examples", around, "l_std", (around["r1"], around["r2"], around["r3"], None)),
        row("around shrunk points", shrunk, "l_shrunk", (None, shrunk["r2"], shrunk["r3"], shrunk["label"])),
        ("mixup loss", *(NOTHING,) * 5, shown(mixup["value"]), NOTHING, NOTHING),
    )
    error = max(around["gap_standard_error"], shrunk["gap_standard_error"])
    notes = ["gap = total - mixup loss; % of the mixup loss"]
    if error:
        notes.append(f"the gaps' standard error, from random permutations and probes, is at most {error:.2g}")
    columns = ("expansion", "loss there", "R1", "R2", "R3", "label term", "total", "gap", "gap %")
    return Table("Mixup loss and its expansions", columns, rows, tuple(notes))


def curve_table(values: Values) -> Table | None:
    """Losses at multiples of each example's own radius; None where there are none."""
    curve = values["curve"]
    if curve is None:
        return None
    names = {"surrogate": "second-order surrogate", "fgm": "one gradient step", "apgd": "Auto-PGD"}
    rows = tuple(
        (label, *map(give_or_take, curve[name], curve[f"{name}_standard_error"])) for name, label in names.items()
    )
    columns = ("mean loss", *(f"{multiple:g} x" for multiple in curve["multiple"]))
    notes = (
        "in multiples of each example's own L2 radius ε_i √d",
        f"± one standard error over {curve['n']} examples",
    )
    return Table("Loss by radius", columns, rows, notes)


def training_table(values: Values) -> Table | None:
    """What was looked at along training, a row for each look; None if nothing was."""
    again, held = values["training"], values["held_out"]
    if again is None:
        return None
    shown_as = {
        "mixup": "mixup loss",
        "around": "around the examples",
        "shrunk": "around shrunk points",
        "cosine_mean": "mean cosine",
        "train_loss": "loss, sample",
        "train_error": "error, sample",
    }
    if held is not None:
        shown_as |= {"held_out_loss": f"loss, {held['part']} part", "held_out_error": f"error, {held['part']} part"}
    rows = tuple(
        (str(look["step"]), *(give_or_take(look[name], look[f"{name}_standard_error"]) for name in shown_as))
        for look in again["looks"]
    )
    over = f"{again['n']} examples of the sample" + (
        "" if held is None else f", {held['n']} of the {held['part']} part"
    )
    notes = (
        f"± one standard error: of losses, errors and cosines over the examples ({over}); of the mixup loss and its "
        "expansions over random draws, where there are any",
    )
    return Table("Along training", ("step", *shown_as.values()), rows, notes)


def radii_table(radii: Values) -> Table:
    """Quantiles of the cosines and radii, from the figures of that statement."""
    levels = list(radii["l2"]["quantiles"])
    rows = tuple(
        (label, *(shown(radii[key]["quantiles"][level]) for level in levels), shown(radii[key]["mean"]))
        for label, key in (("cosine R_i", "cosine"), ("L2 radius ε_i √d", "l2"))
    )
    columns = ("figure", *(f"{100 * float(level):g} %" for level in levels), "mean")
    notes = (f"smallest radius of all, ε_mix √d: {shown(radii['l2_mix'])}",)
    return Table("Quantiles of cosines and radii", columns, rows, notes)


def smoothness_table(values: Values) -> Table | None:
    """Lipschitz constants from below and above; None where nothing was measured."""
    rows = tuple(
        (
            row["name"],
            "logits" if row["of"] == "f" else "gradient",
            row["kind"],
            shown(row["mean"]),
            shown(row["largest"]) if row["why_not"] is None else NOTHING,
            row["over"] if row["why_not"] is None else row["why_not"],
        )
        for row in values["smoothness"]
    )
    if not rows:
        return None
    columns = ("figure", "Lipschitz constant of the", "kind", "mean", "largest", "over")
    notes = (
        "per unit of the data, before any preprocessing; of a lower estimate, the largest is that of the constant",
        "the converse of the mixup gap's bound is not true: a network may bend anywhere off the chords",
    )
    return Table("Smoothness", columns, rows, notes)


def gap_table(values: Values) -> Table:
    """Loss and error on the sample and on held-out examples, with standard errors."""
    rows = []
    for label, found in (("sample", values["train"]), ("held out", values["test"])):
        if found is not None:
            error = f"{100 * found['error']:.2f} ± {100 * found['error_standard_error']:.2f}"
            loss = f"{found['loss']:.4f} ± {found['loss_standard_error']:.4f}"
            rows.append((label, str(found["n"]), loss, error))
    return Table("Generalisation", ("part", "examples", "loss", "error %"), tuple(rows), ("± one standard error",))


def formulas_table() -> Table:
    """Where each formula is from: derived here or recalled from a paper, its function, its test and its figure."""
    rows = tuple(
        (
            name,
            formula.status,
            formula.source,
            formula.function.removeprefix("vicinal.theory."),
            formula.test.removeprefix("tests/theory/").replace("::", " :: "),
            DRAWN.get(name, "table"),
        )
        for name, formula in FORMULAS.items()
    )
    notes = (
        "derived: proved from the definitions, and needs no paper; recalled: form, constants or wording are from "
        "memory of the paper, whose text was not at hand, so that no theorem numbers are given",
        "functions are in vicinal.theory, tests in tests/theory, and figures on the page of vicinal theory",
    )
    return Table("Formulas", ("formula", "status", "source", "function", "test", "figure"), rows, notes)


def glance_table(runs: list[Values]) -> Table:
    """Runs side by side."""
    rows = []
    for values in runs:
        found = {name: statement["values"] for name, statement in values["statements"].items()}
        mixup, around, shrunk = (found[name] for name in ("mixup_loss", "expansion", "shrunk_expansion"))
        fails = [plain(name) for name, check in values["assumptions"].items() if not check["holds"]]
        gap = next((row["largest"] for row in values["smoothness"] if row["name"] == "mixup gap"), None)
        rows.append(
            (
                values["run"],
                values["method"],
                f"{values['alpha']:g}",
                NOTHING if mixup is None else shown(mixup["value"]),
                *(NOTHING if each is None else f"{100 * each['relative_gap']:+.1f}" for each in (around, shrunk)),
                NOTHING if found["radii"] is None else shown(found["radii"]["cosine"]["mean"]),
                NOTHING if values["gap"] is None else f"{values['gap']['loss']:+.3g}",
                shown(gap),
                ", ".join(fails) or "none",
            )
        )
    columns = (
        "run",
        "method",
        "alpha",
        "mixup loss",
        "expansion %",
        "shrunk %",
        "mean cosine",
        "test - train loss",
        "mixup gap",
        "assumptions that fail",
    )
    notes = ("expansion %, shrunk %: how far the two expansions are from the mixup loss, in per cent of it",)
    return Table("Runs", columns, tuple(rows), notes)
