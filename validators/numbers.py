"""Sums and extremes of a column: exact, and the same however its rows are cut."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels import exact_sum
from gristmill.validators.accumulators import Accumulator, Fields
from gristmill.validators.columns import View, float_values

TIMES = ("timestamp", "duration")  # counted in ticks of their unit


class Sums(Accumulator):
    """The number, sum and, if asked for, sum of squares of a column's values, without rounding until the end; of times, those of their ticks."""

    def __init__(self, column: str, *, squares: bool = False) -> None:
        self.columns = (column,)
        self.nonnull = self.infinite = self.minus_infinite = 0
        self.integers = True
        self._sum, self._squares = exact_sum.new_sum(), exact_sum.new_sum(squares=True) if squares else None
        self._big = [0, 0]  # sum and sum of squares of integers that no float64 holds

    def update(self, view: View) -> None:
        column = view.column(self.columns[0])
        values = column.numbers if column.kind in TIMES else float_values(column)
        self.nonnull += len(values)
        if values.dtype.kind in "iu":
            if len(values) and max(abs(int(values.max())), abs(int(values.min()))) > 1 << 53:
                self._add_big(values)
                return
            values = values.astype(np.float64)
        else:
            self.integers = False
        finite = np.isfinite(values)
        if not finite.all():
            self.infinite += int(np.count_nonzero(values == np.inf))
            self.minus_infinite += int(np.count_nonzero(values == -np.inf))
            values = values[finite]
        exact_sum.add(values, self._sum)
        if self._squares is not None:
            exact_sum.add(values, self._squares, squares=True)

    def _add_big(self, values: npt.NDArray[Any]) -> None:
        integers = values.tolist()
        self._big[0] += sum(integers)
        if self._squares is not None:
            self._big[1] += sum(value * value for value in integers)

    def merge(self, later: Self) -> None:
        self.nonnull += later.nonnull
        self.infinite += later.infinite
        self.minus_infinite += later.minus_infinite
        self.integers = self.integers and later.integers
        self._sum += later._sum
        if self._squares is not None and later._squares is not None:
            self._squares += later._squares
        self._big = [mine + other for mine, other in zip(self._big, later._big, strict=True)]

    def save(self, first: int) -> Fields:
        facts = (self.nonnull, self.infinite, self.minus_infinite, int(self.integers))
        squares = np.zeros(0, np.int64) if self._squares is None else self._squares
        return {"facts": list(facts), "sum": self._sum, "squares": squares, "big": [str(value) for value in self._big]}

    def load(self, fields: Fields, first: int) -> None:
        self.nonnull, self.infinite, self.minus_infinite, integers = fields["facts"]
        self.integers, self._sum = bool(integers), fields["sum"].copy()
        self._squares = fields["squares"].copy() if self._squares is not None else None
        self._big = [int(value) for value in fields["big"]]

    @property
    def sum(self) -> float | int:
        """An int for integers; NaN where infinities cancel."""
        if self.infinite or self.minus_infinite:
            return (
                math.inf * bool(self.infinite) - math.inf * bool(self.minus_infinite)
                if not (self.infinite and self.minus_infinite)
                else math.nan
            )
        exact = self._exact()
        return int(exact) if self.integers else _float(exact)

    @property
    def mean(self) -> float | None:
        """None for no values."""
        if not self.nonnull:
            return None
        if self.infinite or self.minus_infinite:
            return float(self.sum)
        return _float(self._exact() / self.nonnull)

    @property
    def stdev(self) -> float | None:
        """With n - 1 below; None for fewer than two values, NaN with infinities among them."""
        if self.nonnull < 2:
            return None
        if self.infinite or self.minus_infinite:
            return math.nan
        assert self._squares is not None
        squares = Fraction(exact_sum.total(self._squares), 1 << 2148) + self._big[1]
        return math.sqrt(_float((squares - self._exact() ** 2 / self.nonnull) / (self.nonnull - 1)))

    def _exact(self) -> Fraction:
        return Fraction(exact_sum.total(self._sum), 1 << 1074) + self._big[0]


class Extremes(Accumulator):
    """The least and greatest value of a column, None for no values."""

    def __init__(self, column: str) -> None:
        self.columns = (column,)
        self.least: Any = None
        self.greatest: Any = None

    def update(self, view: View) -> None:
        column = view.column(self.columns[0])
        if not column.nonnull:
            return
        if column.kind in ("int", "float", "bool"):
            self.take(column.numbers.min().item(), column.numbers.max().item())
        elif column.kind in ("text", "timestamp", "date", "duration") and not pa.types.is_dictionary(column.array.type):
            found = pc.min_max(column.array)
            self.take(found["min"].as_py(), found["max"].as_py())
        else:
            self.take(min(column.objects), max(column.objects))

    def take(self, least: Any, greatest: Any) -> None:
        """Takes two values in."""
        self.least = least if self.least is None else min(self.least, least)
        self.greatest = greatest if self.greatest is None else max(self.greatest, greatest)

    def merge(self, later: Self) -> None:
        if later.least is not None:
            self.take(later.least, later.greatest)

    def save(self, first: int) -> Fields:
        if self.least is None or isinstance(self.least, int):  # of which Arrow would take an unsigned one for too large
            return {"ends": [] if self.least is None else [self.least, self.greatest]}
        kind = pa.infer_type([self.least, self.greatest])
        if hasattr(self.least, "nanosecond"):  # a pandas Timestamp, which Arrow would cut to microseconds
            kind = pa.timestamp("ns", kind.tz)
        return {"ends": pa.array([self.least, self.greatest], kind)}

    def load(self, fields: Fields, first: int) -> None:
        ends = fields["ends"]
        if len(ends):
            self.least, self.greatest = ends if isinstance(ends, list) else ends.to_pylist()


def _float(exact: Fraction) -> float:
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf
