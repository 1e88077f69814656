"""Numbers as text, and differences to the baseline with how sure they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vicinal.reporting.report.entries import Entry
from vicinal.reporting.report.grouping import Row
from vicinal.reporting.tables import mean_and_std, percent

NOTHING = "-"
_FIXED = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Measure:
    """A figure of a run, of which less is better.

    Args:
        name: in prose.
        get: it, of one run; None where it was not measured.
        fraction: whether it is a share, shown in per cent.
        n: how many examples it counts errors of, of one run; None where it is no share of errors.
    """

    name: str
    get: Callable[[Entry], float | None]
    fraction: bool = True
    n: Callable[[Entry], int | None] | None = None


def cell(values: Sequence[float], total: int, *, fraction: bool = True) -> str:
    """Mean ± sample standard deviation; how many there are where it is not all.

    >>> cell([0.10, 0.12], 2), cell([0.25], 2), cell([], 1), cell([1.23, 1.25], 2, fraction=False)
    ('11.00 ± 1.41', '25.00 (1 of 2)', '-', '1.24 ± 0.01')
    """
    if not values:
        return NOTHING
    some = "" if len(values) == total else f" ({len(values)} of {total})"
    if fraction:
        return percent(values) + some
    mean, std = mean_and_std(values)
    return number(mean, std) + some


def number(mean: float, std: float = math.nan) -> str:
    """Three significant digits, and the standard deviation, if it is a number, to as many decimals.

    >>> number(0.29441, 0.0123), number(12.3456), number(0.0), number(51234.0, 120.0), number(1e-9)
    ('0.294 ± 0.012', '12.3', '0.00', '51234 ± 120', '1e-09')
    """
    size = math.floor(math.log10(abs(mean))) if mean else 0
    if not -5 <= size <= 5:
        return f"{mean:.3g}" + ("" if math.isnan(std) else f" ± {std:.2g}")
    decimals = max(0, 2 - size)
    return f"{mean:.{decimals}f}" + ("" if math.isnan(std) else f" ± {std:.{decimals}f}")


def binomial(error: float, n: int) -> float:
    """Standard error of a share of ``n`` examples.

    >>> binomial(0.5, 100)
    0.05
    """
    return math.sqrt(error * (1 - error) / n)


def of(row: Row, measure: Measure) -> str:
    """A measure of a row, as text with its unit that stays on one line."""
    text = cell(row.values(measure.get), len(row.entries), fraction=measure.fraction)
    return (f"{text} %" if measure.fraction else text).replace(" ", _FIXED)


@dataclass(frozen=True)
class Difference:
    """A row's figure minus the baseline's, over the runs of both with the same seed and split.

    Args:
        values: one for each pair.
        error: standard error of their mean; None where nothing tells it: one pair, and no share of errors.
    """

    values: tuple[float, ...]
    error: float | None

    @property
    def mean(self) -> float:
        """Their mean; below 0 the row's figure is lower."""
        return mean_and_std(self.values)[0]

    @property
    def verdict(self) -> str:
        """One of "lower", "higher" and "none", no clear difference, which is at most one standard error."""
        if abs(self.mean) <= (self.error or 0.0):
            return "none"
        return "lower" if self.mean < 0 else "higher"


def difference(row: Row, baseline: Row, measure: Measure) -> Difference | None:
    """How a row's figure differs from the baseline's; None where no two runs share seed and split.

    The standard error is the larger of two: std / sqrt(k) of the k paired differences, and for shares of errors the
    binomial one, which takes the two runs of a pair, and the pairs, as independent. Our choice: few seeds may agree
    by chance, and then the first is too small.
    """
    beside = {(entry.seed, entry.provenance["split"]): entry for entry in baseline.entries}
    pairs = []
    for entry in row.entries:
        other = beside.get((entry.seed, entry.provenance["split"]))
        value, base = measure.get(entry), None if other is None else measure.get(other)
        if value is not None and base is not None and other is not None:
            pairs.append((value, base, entry, other))
    if not pairs:
        return None
    values = tuple(value - base for value, base, _, _ in pairs)
    errors = []
    if len(pairs) > 1:
        errors.append(mean_and_std(values)[1] / math.sqrt(len(pairs)))
    counts = [(measure.n(entry), measure.n(other)) for _, _, entry, other in pairs] if measure.n else []
    if counts and all(n and m for n, m in counts):
        variance = math.fsum(
            binomial(value, n or 1) ** 2 + binomial(base, m or 1) ** 2
            for (value, base, _, _), (n, m) in zip(pairs, counts, strict=True)
        )
        errors.append(math.sqrt(variance) / len(pairs))
    return Difference(values, max(errors, default=None))


def signed(found: Difference | None) -> str:
    """A difference of shares in points, with its sign.

    >>> signed(Difference((-0.02, -0.04), 0.01)), signed(Difference((0.01,), None)), signed(None)
    ('-3.00 ± 1.41', '+1.00', '-')
    """
    if found is None:
        return NOTHING
    mean, std = mean_and_std(found.values)
    return f"{100 * mean:+.2f}" + ("" if math.isnan(std) else f" ± {100 * std:.2f}")
