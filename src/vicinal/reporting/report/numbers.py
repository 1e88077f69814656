"""Numbers as text, and differences to the baseline with how sure they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vicinal.reporting.report.entries import Entry, finite, known
from vicinal.reporting.report.grouping import Row
from vicinal.reporting.tables import mean_and_std, percent

NOTHING = "-"
CLEAR = 2.0
"""Standard errors that a difference must exceed to be called one. Within one, a third of what is no difference would
be called better or worse; within two, about a twentieth (more where few seeds alone tell the error)."""
_PSEUDO = 2
"""Wrong and right predictions each that Agresti and Coull (1998) add, for an interval of two standard errors."""
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


def cell(values: Sequence[float | None], total: int, *, fraction: bool = True, error: str = "") -> str:
    """Mean ± sample standard deviation of the finite numbers; how many there are where it is not all.

    Args:
        values: of the runs that have one.
        total: how many runs there are.
        fraction: whether they are shares, shown in per cent.
        error: what to add behind them.

    >>> cell([0.10, 0.12], 2), cell([0.25, None], 2), cell([], 1), cell([1.23, 1.25], 2, fraction=False)
    ('11.00 ± 1.41', '25.00 (1 of 2)', '-', '1.24 ± 0.01')
    """
    found = known(values)
    if not found:
        return NOTHING
    some = "" if len(found) == total else f" ({len(found)} of {total})"
    return (percent(found) if fraction else number(*mean_and_std(found))) + error + some


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
    """Standard error of a share of ``n`` examples, at least that of Agresti and Coull where none is wrong.

    The usual sqrt(p (1 - p) / n) is 0 where none or all of them are wrong, though other examples might have been. The
    floor is our reading of Agresti and Coull (1998): the same of p = 2 / (n + 4) and n + 4 examples.

    Args:
        error: the share, in [0,1].
        n: >= 1.

    >>> binomial(0.5, 100), round(binomial(0.0, 100), 4), round(binomial(1.0, 100), 4)
    (0.05, 0.0135, 0.0135)
    """
    more = n + 2 * _PSEUDO
    least = _PSEUDO / more
    return math.sqrt(max(error * (1 - error) / n, least * (1 - least) / more))


def single_error(row: Row, measure: Measure) -> tuple[int, float] | None:
    """The number of examples and the binomial error of a figure that a single run of a row has.

    None where several runs have it, or none, or where it is no share of examples.
    """
    found = [(value, entry) for entry in row.entries if (value := finite(measure.get(entry))) is not None]
    if len(found) != 1 or measure.n is None:
        return None
    ((value, entry),) = found
    n = measure.n(entry)
    return (n, binomial(value, n)) if n else None


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
        """One of "lower", "higher", "none" and "unknown".

        No clear difference, "none", is at most two standard errors, see `CLEAR`; it is "unknown" where no error is.
        """
        if self.error is None:
            return "unknown"
        if abs(self.mean) <= CLEAR * self.error:
            return "none"
        return "lower" if self.mean < 0 else "higher"


def difference(row: Row, baseline: Row, measure: Measure) -> Difference | None:
    """How a row's figure differs from the baseline's; None where no two runs share seed and split.

    The standard error is the larger of two: std / sqrt(k) of the k paired differences, and for shares of errors the
    binomial one of the test set, the root mean square over the pairs. More seeds do not make the second smaller: they
    share the test examples. It takes the two runs of a pair as independent, which they hardly are, so it is rather too
    large. Our choice: few seeds may agree by chance, and then the first is too small.
    """
    beside = {(entry.seed, entry.provenance["split"]): entry for entry in baseline.entries}
    pairs = []
    for entry in row.entries:
        other = beside.get((entry.seed, entry.provenance["split"]))
        value, base = finite(measure.get(entry)), None if other is None else finite(measure.get(other))
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
        errors.append(math.sqrt(variance / len(pairs)))
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
