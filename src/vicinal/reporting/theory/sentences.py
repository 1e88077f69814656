"""The statements in words: what each says of a run, or which of its assumptions fail, with numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vicinal.reporting.report.blocks import Point
from vicinal.reporting.report.numbers import NOTHING

Values = Mapping[str, Any]

FAR = 0.1
"""Relative gap to the mixup loss from which an expansion is called far from it, our choice."""

SPACES = {"input": "behind the preprocessing", "pixels": "in the units of the data"}
BOUNDS = ("logistic_bound", "surrogate_bound", "class_surrogate_bound")
"""Statements on adversarial losses, the strongest first."""


def shown(value: float | None) -> str:
    """Four significant digits.

    >>> shown(0.123456), shown(None)
    ('0.1235', '-')
    """
    return NOTHING if value is None else f"{value:.4g}"


def with_error(value: float, error: float) -> str:
    """A number and its standard error, if it has one.

    >>> with_error(0.5, 0.0123), with_error(0.5, 0.0)
    ('0.5 (standard error 0.012)', '0.5')
    """
    return shown(value) + (f" (standard error {error:.2g})" if error else "")


def give_or_take(value: float | None, error: float | None) -> str:
    """A number and its standard error, as in a table.

    >>> give_or_take(0.5, 0.0123), give_or_take(0.5, 0.0), give_or_take(None, None)
    ('0.5 ± 0.012', '0.5', '-')
    """
    return shown(value) + (f" ± {error:.2g}" if error else "")


def plain(name: str) -> str:
    """A name as words."""
    return name.replace("_", " ")


def failing(values: Values, statement: str) -> str:
    """The assumptions of a statement that fail, each with the figure that says so."""
    found = values["assumptions"]
    named = [name for name in values["statements"][statement]["needs"] if not found[name]["holds"]]
    return ", ".join(f"{plain(name)} ({found[name]['figure']:.3g})" for name in named)


def says(values: Values, name: str) -> str:
    """What a statement comes to for a run: its figures, or which assumptions fail."""
    found = values["statements"][name]
    missing = failing(values, name)
    if found["values"] is None:
        return f"no figure; failing: {missing}"
    text = _SAYS[name](found["values"])
    return text if found["applies"] else f"{text}; proves nothing here; failing: {missing}"


def _mixup_loss(v: Values) -> str:
    over = "all pairs, by quadrature" if v["pairs"] == "all" else "random permutations"
    return f"{with_error(v['value'], v['standard_error'])}, over {over}"


def _expansion(v: Values) -> str:
    return str(v["says"]) + (" (far from it)" if abs(v["relative_gap"]) > FAR else "")


def _radii(v: Values) -> str:
    return (
        f"cosines R_i: mean {shown(v['cosine']['mean'])}, least {shown(v['cosine']['min'])}; "
        f"L2 radii: mean {shown(v['l2']['mean'])}, least {shown(v['l2_mix'])}"
    )


def _attack(v: Values) -> str:
    clean, surrogate, attack = _attack_losses(v)
    return f"loss {clean}; at the radii the surrogate gives {surrogate}, an attack {attack}; {v['n']} examples"


def _attack_losses(v: Values) -> tuple[str, str, str]:
    """The loss of the examples, and at their radii the surrogate's and the attack's, with their standard errors."""
    each = v["each"]
    parts = ((v, "clean"), (each, "surrogate"), (each, "attack"))
    clean, surrogate, attack = (with_error(part[name], part[f"{name}_standard_error"]) for part, name in parts)
    return clean, surrogate, attack


def _surrogate(v: Values) -> str:
    verdict = _verdict(v["approximation"] - v["surrogate"], v["standard_error"])
    return (
        f"expansion {with_error(v['approximation'], v['standard_error'])} ≥ {shown(v['surrogate'])} (radii of the "
        f"examples) ≥ {shown(v['surrogate_mix'])} (smallest radius): {verdict}"
    )


def _logistic(v: Values) -> str:
    verdict = _verdict(v["mixup"] - v["adversarial"], v["standard_error"])
    mixup = with_error(v["mixup"], v["standard_error"])
    return f"mixup loss {mixup} ≥ true adversarial loss {shown(v['adversarial'])}: {verdict}"


def _jensen(v: Values) -> str:
    verdict = _verdict(v["mixup"] - v["shrunk_logits"], v["standard_error"])
    mixup = with_error(v["mixup"], v["standard_error"])
    return f"mixup loss {mixup} ≥ {shown(v['shrunk_logits'])}, the loss of shrunk logits: {verdict}"


def _verdict(margin: float, error: float = 0.0) -> str:
    """Whether a difference has the sign that was claimed; what rounding or the draws could explain is no violation."""
    beside = f", with a standard error of {error:.2g}" if error else ""
    if margin >= -1e-9:
        return f"holds, by {margin:.3g}{beside}"
    if margin >= -3 * error:
        return f"undecided: too small by {-margin:.3g}{beside}, which draws explain"
    return f"VIOLATED by {-margin:.3g}{beside}"


def _regulariser(v: Values) -> str:
    other = "infinite" if v["lambda"]["value"] is None else shown(v["lambda"]["value"])
    return f"{shown(v['mean']['value'])} for inputs divided by the mean of λ, {other} by λ itself"


def _complexity(v: Values) -> str:
    return (
        f"{with_error(v['estimate'], v['standard_error'])} ≤ {shown(v['bound'])}, with rank {v['rank']} of "
        f"{v['features']} features: {_verdict(v['bound'] - v['estimate'], v['standard_error'])}; the ridge class: "
        f"{shown(v['ridge_bound'])}"
    )


def _corollary(v: Values) -> str:
    return (
        f"expected loss ≤ {shown(v['ellipsoid'])} with probability {1 - v['delta']:g}, were the class chosen before "
        "the sample: it was read off it, so this is no certificate"
    )


_SAYS: Mapping[str, Callable[[Values], str]] = {
    "mixup_loss": _mixup_loss,
    "expansion": _expansion,
    "shrunk_expansion": _expansion,
    "radii": _radii,
    "attack": _attack,
    "surrogate_bound": _surrogate,
    "class_surrogate_bound": _surrogate,
    "logistic_bound": _logistic,
    "jensen_bound": _jensen,
    "regulariser": _regulariser,
    "complexity": _complexity,
    "corollary": _corollary,
}


def in_short(values: Values) -> list[Point]:
    """What matters most of a run, a statement each; warnings where the theory is silent or its numbers are far off."""
    return [_sample(values), *_losses(values), _bound(values), *_attacked(values), *_rest(values)]


def _sample(values: Values) -> Point:
    sample = values["sample"]
    drawn = (
        f"All {sample['n']} labelled training points"
        if sample["n"] == sample["of"]
        else f"{sample['n']} of the {sample['of']} labelled training points, drawn with seed {values['seed']}"
    )
    measured = (
        "" if values["minimised"] else f" {_other_loss(values)}, so the mixup loss is a measure of its network here."
    )
    offset = values["assumptions"]["centred"]["figure"]
    law = f"Mixing law Beta(alpha, alpha) with alpha = {values['alpha']:g} ({values['alpha_from']})."
    text = (
        f"{drawn}; {values['dimension']} dimensions, {values['classes']} classes. {law} Inputs are taken "
        f"{SPACES[values['space']]}, where their mean is {offset:.3g} of their typical norm.{measured}"
    )
    return Point("Sample", text)


def _other_loss(values: Values) -> str:
    """What the run minimised, where it is not the mixup loss alone."""
    if values["up_to"] is None:
        return f"The run minimised the loss of {values['method']}"
    return f"The run minimised the mixup loss up to its {' and '.join(values['up_to'])}"


def _losses(values: Values) -> list[Point]:
    found = values["statements"]
    mixup, around, shrunk = (found[name]["values"] for name in ("mixup_loss", "expansion", "shrunk_expansion"))
    if mixup is None:
        return [Point("Mixup loss", f"Not defined; failing: {failing(values, 'mixup_loss')}.", "warning")]
    points = [
        Point("Mixup loss", f"{_mixup_loss(mixup)}; the loss of the examples themselves is {shown(around['l_std'])}.")
    ]
    far = abs(around["relative_gap"]) > FAR
    kinks = "" if found["expansion"]["applies"] else f" Failing: {failing(values, 'expansion')}."
    text = f"Around the examples: {_expansion(around)}. Around shrunk points: {_expansion(shrunk)}.{kinks}"
    return [*points, Point("Expansions", text, "warning" if far else "")]


def applying_bound(values: Values) -> str | None:
    """The strongest statement on adversarial losses that applies; None if none does."""
    return next((name for name in BOUNDS if values["statements"][name]["applies"]), None)


def _bound(values: Values) -> Point:
    applying = applying_bound(values)
    if applying is not None:
        return Point("Bound", f"The theorem applies: {says(values, applying)}.")
    name = "class_surrogate_bound"
    why = f"The theorem does not apply, and no bound is given. Failing: {failing(values, name)}."
    norm = values["assumptions"]["no_batch_norm"]
    more = "" if norm["holds"] else f" {norm['says'].capitalize()}: {norm['more']}."
    return Point("Bound", why + more, "warning")


def _attacked(values: Values) -> list[Point]:
    found, mixup = values["statements"]["attack"]["values"], values["statements"]["mixup_loss"]["values"]
    radii = values["statements"]["radii"]["values"]
    if found is None or radii is None:
        return []
    reached = found["each"]["attack"]
    clean, surrogate, attack = _attack_losses(found)
    side = "below" if reached < mixup["value"] else "ABOVE"
    text = (
        f"{found['attacked_by']}, within L2 radii of {shown(radii['l2']['mean'])} on average: the loss rises from "
        f"{clean} to {attack}, which is {side} the mixup loss; the second-order surrogate says {surrogate}."
    )
    return [Point("Attack", text)]


def _rest(values: Values) -> list[Point]:
    points = []
    if (gap := values["gap"]) is not None:
        text = (
            f"Loss {shown(values['train']['loss'])} on the sample, {shown(values['test']['loss'])} on "
            f"{values['held_out']['n']} examples of the {values['held_out']['part']} part: "
            f"{gap['loss']:+.4g} (standard error {gap['loss_standard_error']:.2g}); errors "
            f"{100 * values['train']['error']:.1f} and {100 * values['test']['error']:.1f} %."
        )
        points.append(Point("Generalisation", text))
    rows = {(row["name"], row["of"]): row for row in values["smoothness"]}
    if (row := rows.get(("mixup gap", "gradient"))) and row["largest"] is not None:
        above = next(row for (_, of), row in rows.items() if of == "gradient" and row["kind"] == "upper bound")
        low, top = shown(row["largest"]), above["largest"]
        text = f"The gradient's Lipschitz constant is at least {low}, by the mixup gap"
        text += (
            f", and at most {shown(top)}."
            if top is not None
            else f"; nothing bounds it from above ({above['why_not']})."
        )
        if top == 0:
            text = f"f is affine, so that its gradient is constant; the mixup gap of {low} is rounding."
        points.append(Point("Smoothness", text))
    return [*points, _trained_again(values)]


def _trained_again(values: Values) -> Point:
    again = values["training"]
    if again is None:
        return Point("Along training", f"Not looked at: {values['no_training']}.")
    if again["same_weights"]:
        return Point(
            "Along training", f"Trained once more, in {again['seconds']:.0f} s, to the same weights, bit by bit."
        )
    text = (
        f"Trained once more, to other weights, which differ by up to {again['largest_difference']:.2g}: another "
        "machine, device or number of threads? The curves are of the repeated training."
    )
    return Point("Along training", text, "warning")
