"""The few figures that stand for each study in the main table and in the summary, and which attack they are of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vicinal.evaluation.attacks import radius_text
from vicinal.reporting.report.entries import Entry
from vicinal.reporting.report.grouping import Chapter, Row
from vicinal.reporting.report.numbers import Measure

GAMMA = "\N{GREEK SMALL LETTER GAMMA}"
NORMS = {"linf": "Linf", "l2": "L2"}
SPACES = {"pixels": "data space", "input": "the network's preprocessed input"}
COUNTS = {
    "visited": "an example is wrong if any point that the attack visited is misclassified",
    "last": "an example is wrong if the attack's last point is misclassified",
}


@dataclass(frozen=True)
class Attack:
    """What tells one curve of errors from another, beside the box.

    Args:
        name: of the attack, such as PGD-20.
        norm: "linf" or "l2".
        steps: gradient steps.
        restarts: of the search.
        space: where radii are measured.
        count: which of its points count.
    """

    name: str
    norm: str
    steps: int
    restarts: int
    space: str
    count: str

    @property
    def many_steps(self) -> bool:
        """Whether it takes more than one step."""
        return self.steps > 1


@dataclass(frozen=True)
class Curve:
    """Errors of one network by the radius of an attack."""

    attack: Attack
    box: str
    errors: Mapping[float, float]


def curves(figures: Mapping[str, Any] | None) -> Iterator[Curve]:
    """The curves of one run's study of robustness; none if it was not measured."""
    for each in (figures or {}).get("curves", ()):
        attack = Attack(
            *(each[key] for key in ("attack", "norm")), *(each[key] for key in ("steps", "restarts", "space", "count"))
        )
        yield Curve(attack, each["box"], dict(zip(each["epsilons"], each["errors"], strict=True)))


def errors_of(row: Row, attack: Attack, box: str, *, clean: bool = False) -> list[Mapping[float, float]]:
    """Errors by radius of each run of a row that met an attack; with the clean error at radius 0 if asked for."""
    return [
        {0.0: found["clean_error"], **curve.errors} if clean else curve.errors
        for found in row.figures("robustness")
        for curve in curves(found)
        if (curve.attack, curve.box) == (attack, box)
    ]


def attacks(chapter: Chapter, box: str | None = None) -> list[Attack]:
    """The attacks that runs of a chapter met, those that most runs met first; then as they were measured."""
    seen = Counter(
        curve.attack
        for entry in chapter.entries
        for curve in curves(entry.study("robustness"))
        if box in (None, curve.box)
    )
    return sorted(seen, key=lambda attack: -seen[attack])


def headline(chapter: Chapter) -> tuple[Attack, float] | None:
    """The many-step attack and the radius that the summary speaks of; None where there is none.

    The attack that most runs met, Linf before L2, the one with the most gradients; and of the radii above 0 that most
    runs have, the middle one (the lower of two). It does not depend on any error.
    """
    counts: Counter[tuple[Attack, float]] = Counter()
    for entry in chapter.entries:
        for curve in curves(entry.study("robustness")):
            if curve.box == "white" and curve.attack.many_steps:
                counts.update((curve.attack, epsilon) for epsilon in curve.errors if epsilon > 0)
    if not counts:
        return None
    most = max(counts.values())
    able = {attack for (attack, _), count in counts.items() if count == most}
    chosen = min(able, key=lambda attack: (attack.norm != "linf", -attack.steps * attack.restarts, attack.name))
    radii = sorted(epsilon for (attack, epsilon), count in counts.items() if attack == chosen and count == most)
    return chosen, radii[(len(radii) - 1) // 2]


def _studied(study: str, *keys: str) -> Any:
    def get(entry: Entry) -> float | None:
        found: Any = entry.study(study)
        for key in keys:
            found = None if found is None else found.get(key)
        value: float | None = found
        return value

    return get


def wrong_predictions(chapter: Chapter, which: str = "last") -> Measure:
    """Share of wrong predictions of the part that is measured."""
    return Measure(f"{chapter.part} error", lambda entry: entry.figure("error", which), n=lambda entry: entry.n)


def under_attack(attack: Attack, epsilon: float, box: str) -> Measure:
    """Error under an attack at a radius."""

    def get(entry: Entry) -> float | None:
        for curve in curves(entry.study("robustness")):
            if (curve.attack, curve.box) == (attack, box):
                return curve.errors.get(epsilon)
        return None

    name = f"error under {attack.name}, {NORMS.get(attack.norm, attack.norm)} radius {radius_text(epsilon)}"
    return Measure(name, get, n=_studied("robustness", "n"))


def ece(when: str) -> Measure:
    """Expected calibration error "before" or "after" temperature scaling."""
    return Measure(f"expected calibration error {when} temperature scaling", _studied("calibration", when, "ece"))


def gamma() -> Measure:
    """Local linearity error of the loss."""

    def get(entry: Entry) -> float | None:
        for row in (entry.study("smoothness") or {}).get("rows", ()):
            if row["symbol"] == GAMMA:
                value: float | None = row["value"]
                return value
        return None

    return Measure(f"local linearity error {GAMMA}", get, fraction=False)


def examples(figures: Sequence[Mapping[str, Any]], chapter: Chapter) -> str:
    """How many examples a study ran over, in words; runs may differ in it."""
    counts = sorted({found["n"] for found in figures if found.get("n") is not None})
    if counts and set(counts) == {entry.n for entry in chapter.entries if entry.n is not None}:
        return f"all {' or '.join(map(str, counts))} {chapter.part} examples"
    many = " or ".join(map(str, counts)) or "an unknown number of"
    of = " or ".join(dict.fromkeys(str(entry.n) for entry in chapter.entries if entry.n is not None))
    return f"{many} of the {of} {chapter.part} examples" + (" (runs differ in it)" if len(counts) > 1 else "")


def whose(reasons: Mapping[str, Sequence[str]], rows: int) -> list[str]:
    """Each reason with the labels of the rows that it is of.

    >>> whose({"no validation part": ["ict", "vat"], "no gradient": ["ict"]}, 2)
    ['no validation part (all)', 'no gradient (ict)']
    """
    return [f"{why} ({'all' if len(labels) == rows else ', '.join(labels)})" for why, labels in reasons.items()]
