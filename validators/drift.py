"""How two tables differ, column by column: distances, tests with their p-values corrected for the number of columns, new and vanished values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.validators.profile import ColumnProfile, Profile
from gristmill.validators.sketches import F64, quantiles_at, share_below

FLOOR = 1e-4  # the least share that a bin counts as, so that PSI stays finite where a bin is empty
BINS = 10
MANY_ROWS = 10_000  # from which on the limit is as good, to 5 digits: the formula itself takes .2 s for a million
EXPECTED = 5  # of a cell; rarer values are taken together, as Cochran advises for chi-squared
CATEGORIES = 200
FEW = 20  # different values that are categories even if none comes twice
DRIFTED = 0.1  # effect size from which a column is called drifted

Counts = dict[Any, int]


@dataclass(frozen=True)
class ColumnDrift:
    """One column, before and after.

    of: what is compared: value, length or category. psi: population stability index. jensen_shannon: distance, base 2, 0 to 1. test:
    kolmogorov_smirnov or chi_squared, with statistic and p_value; p_adjusted: after Benjamini and Hochberg over all columns. effect: the
    largest difference of the distribution functions, or Cramer's V: 0 to 1, whatever the number of rows. error: bound on the effect's error,
    from sketches. new and vanished: (value, share of the rows that have it), the most frequent first.
    """

    column: str
    of: str
    rows: tuple[int, int]
    psi: float
    jensen_shannon: float
    test: str
    statistic: float
    p_value: float
    p_adjusted: float
    effect: float
    error: float
    missing: tuple[float, float]
    missing_p_value: float
    missing_p_adjusted: float
    new: list[tuple[Any, float]]
    vanished: list[tuple[Any, float]]

    @property
    def missing_change(self) -> float:
        """The share of missing values after, less that before."""
        return self.missing[1] - self.missing[0]

    @property
    def new_share(self) -> float:
        """The share of rows after with values that were not there before."""
        return sum(share for _, share in self.new)

    @property
    def vanished_share(self) -> float:
        """The share of rows before with values that are there no more."""
        return sum(share for _, share in self.vanished)

    def drifted(self, effect: float = DRIFTED, alpha: float = 0.05) -> bool:
        """Whether the change is both large (effect) and no chance (adjusted p-value), in the values or in the share that is missing."""
        values = self.effect >= effect and self.p_adjusted < alpha
        return values or (abs(self.missing_change) >= effect and self.missing_p_adjusted < alpha)

    def to_json_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **asdict(self),
            "missing_change": self.missing_change,
            "new_share": self.new_share,
            "vanished_share": self.vanished_share,
        }


def compare(before: Profile, after: Profile, columns: Sequence[str] | None = None) -> list[ColumnDrift]:
    """The drift of every column that both have (or of those named), in order of the second; p-values corrected together."""
    names = (
        [name for name in after.columns if name in before.columns and not name.startswith("_")]
        if columns is None
        else columns
    )
    found = [
        drift for name in names if (drift := compare_columns(before.columns[name], after.columns[name])) is not None
    ]
    values = adjusted([each.p_value for each in found])
    missing = adjusted([each.missing_p_value for each in found])
    return [
        replace(each, p_adjusted=p, missing_p_adjusted=q) for each, p, q in zip(found, values, missing, strict=True)
    ]


def compare_columns(before: ColumnProfile, after: ColumnProfile) -> ColumnDrift | None:
    """The drift of one column; None where there is nothing to compare: other kinds of values, or nested ones."""
    kinds = {column.kind for column in (before, after) if column.type != "null"}  # nothing but nulls is of any kind
    if len(kinds) > 1 or "other" in kinds:
        return None
    new: list[tuple[Any, float]] = []
    vanished: list[tuple[Any, float]] = []
    earlier, later = _categories(before), _categories(after)
    if earlier is not None and later is not None:
        new, vanished = _only_in(later, earlier), _only_in(earlier, later)
    error = 0.0
    if kinds <= {"text", "boolean"} and earlier is not None and later is not None:
        of, test = "category", "chi_squared"
        shares = category_shares(earlier, later)
        statistic, p_value, effect = chi_squared(earlier, later)
    else:
        points = _points(before), _points(after)
        of, test = "value" if kinds <= {"number", "time"} else "length", "kolmogorov_smirnov"
        shares = binned_shares(*points)
        counts = (before.numbers.count if before.numbers else 0, after.numbers.count if after.numbers else 0)
        effect, p_value = kolmogorov_smirnov(*points, counts)
        statistic = effect
        error = sum(column.numbers.rank_error for column in (before, after) if column.numbers)
    missing, missing_p = missing_rates(before, after)
    return ColumnDrift(
        after.name,
        of,
        (before.rows, after.rows),
        psi(*shares),
        jensen_shannon(*shares),
        test,
        statistic,
        p_value,
        p_value,
        effect,
        error,
        missing,
        missing_p,
        missing_p,
        new,
        vanished,
    )


def psi(before: F64, after: F64) -> float:
    """Population stability index: the sum of (a - b) ln(a / b) over bins, shares floored at 0.0001. Under 0.1 little, over 0.25 a lot."""
    if not len(before) or not before.sum() or not after.sum():
        return 0.0
    b, a = np.maximum(before, FLOOR), np.maximum(after, FLOOR)
    return float(((a - b) * np.log(a / b)).sum())


def jensen_shannon(before: F64, after: F64) -> float:
    """The Jensen-Shannon distance, base 2: 0 for the same shares, 1 for none in common."""
    if not len(before) or not before.sum() or not after.sum():
        return 0.0
    b, a = before / before.sum(), after / after.sum()
    middle = (a + b) / 2
    divergence = sum(float((x[x > 0] * np.log2(x[x > 0] / middle[x > 0])).sum()) for x in (a, b)) / 2
    return math.sqrt(max(divergence, 0.0))


def kolmogorov_smirnov(before: tuple[F64, F64], after: tuple[F64, F64], counts: tuple[int, int]) -> tuple[float, float]:
    """(largest difference of the distribution functions, its two-sided p-value by Smirnov's asymptotic formula; of many rows by its limit, Kolmogorov's).

    Points are values in order with weights. counts: the numbers of rows that they stand for.
    """
    if not counts[0] or not counts[1]:
        return 0.0, 1.0
    every = np.unique(np.concatenate([before[0], after[0]]))
    first, second = (
        np.append(0.0, np.cumsum(w))[np.searchsorted(v, every, side="right")] / w.sum() for v, w in (before, after)
    )
    distance = float(np.abs(first - second).max())
    en = counts[0] * counts[1] / (counts[0] + counts[1])
    if en > MANY_ROWS:
        from scipy.special import kolmogorov

        return distance, float(kolmogorov(math.sqrt(en) * distance + 1 / (6 * math.sqrt(en))))  # Bol'shev's correction
    from scipy.stats import kstwo

    return distance, float(np.clip(kstwo.sf(distance, max(1, round(en))), 0, 1))


def chi_squared(before: Counts, after: Counts) -> tuple[float, float, float]:
    """(chi-squared of the 2 x K table, its p-value, Cramer's V). Values expected fewer than 5 times on a side are taken together."""
    table = np.array(
        [[counts.get(value, 0) for value in _union(before, after)] for counts in (before, after)], np.float64
    )
    total = table.sum()
    if not table.sum(axis=1).all():
        return 0.0, 1.0, 0.0
    rare = table.sum(axis=0) * table.sum(axis=1).min() / total < EXPECTED
    if rare.sum() > 1:
        table = np.concatenate([table[:, ~rare], table[:, rare].sum(axis=1, keepdims=True)], axis=1)
    if table.shape[1] < 2:
        return 0.0, 1.0, 0.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / total
    statistic = float(((table - expected) ** 2 / expected).sum())
    from scipy.special import chdtrc

    return statistic, float(chdtrc(table.shape[1] - 1, statistic)), math.sqrt(statistic / total)


def missing_rates(before: ColumnProfile, after: ColumnProfile) -> tuple[tuple[float, float], float]:
    """((share of missing values before, after), the two-sided p-value that both are the same: pooled z-test of two proportions)."""
    missing = [column.nulls + column.nans for column in (before, after)]
    rows = [column.rows for column in (before, after)]
    rates = tuple(m / n if n else 0.0 for m, n in zip(missing, rows, strict=True))
    if not all(rows):
        return (rates[0], rates[1]), 1.0
    pooled = sum(missing) / sum(rows)
    error = math.sqrt(pooled * (1 - pooled) * (1 / rows[0] + 1 / rows[1]))
    z = abs(rates[1] - rates[0]) / error if error else 0.0
    return (rates[0], rates[1]), math.erfc(z / math.sqrt(2))


def adjusted(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted after Benjamini and Hochberg (1995): rejecting those under alpha keeps the false discovery rate at alpha."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)[::-1]
    ranks = len(p) - np.arange(len(p))
    found = np.empty(len(p))
    found[order] = np.minimum(1.0, np.minimum.accumulate(p[order] * len(p) / ranks)) if len(p) else []
    return [float(value) for value in found]


def binned_shares(before: tuple[F64, F64], after: tuple[F64, F64], bins: int = BINS) -> tuple[F64, F64]:
    """The shares of both in bins that hold equal shares of the first (fewer where values tie), and under and over all of its values."""
    if not len(before[0]) or not len(after[0]):
        return np.zeros(0), np.zeros(0)
    edges = sorted(set(quantiles_at(before, np.arange(1, bins) / bins).tolist()))
    first, last = float(before[0][0]), float(before[0][-1])
    below = [
        np.array(
            [0.0, share_below(points, first)]
            + [share_below(points, edge, inclusive=True) for edge in [*[e for e in edges if e < last], last]]
            + [1.0]
        )
        for points in (before, after)
    ]
    return np.diff(below[0]), np.diff(below[1])


def category_shares(before: Counts, after: Counts) -> tuple[F64, F64]:
    """The shares of both by value."""
    values = _union(before, after)
    shares = [_share(np.array([counts.get(value, 0) for value in values], np.float64)) for counts in (before, after)]
    return shares[0], shares[1]


def _share(counts: npt.NDArray[np.float64]) -> F64:
    return counts / counts.sum() if counts.sum() else counts


def _union(before: Counts, after: Counts) -> list[Any]:
    return [*before, *[value for value in after if value not in before]]


def _categories(column: ColumnProfile) -> Counts | None:
    """Every value with its count, where there are few and they come again; None else."""
    if (
        column.distinct is None
        or column.distinct_error
        or column.distinct > min(CATEGORIES, max(FEW, column.present // 2))
    ):
        return None
    if column.kind not in ("text", "boolean", "number") or (column.kind == "number" and "int" not in column.type):
        return None
    return dict(column.top)


def _only_in(these: Counts, others: Counts) -> list[tuple[Any, float]]:
    total = sum(these.values())
    return [(value, count / total) for value, count in these.items() if value not in others]


def _points(column: ColumnProfile) -> tuple[F64, F64]:
    return column.numbers.points if column.numbers is not None else (np.zeros(0), np.zeros(0))
