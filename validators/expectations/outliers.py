"""Expectations about how far a value lies from the others. They read the column a second time, with what the first pass found."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np

from gristmill.validators.columns import Column, Mask, View, float_values
from gristmill.validators.expectations.base import Check, ColumnMapExpectation, Considered, Found, Need, Setting, need
from gristmill.validators.numbers import TIMES, Sums
from gristmill.validators.ordered import Ordered
from gristmill.validators.quantiles import quantile


class _Twice(ColumnMapExpectation):
    def needs_again(self, setting: Setting, found: Found) -> dict[str, Need]:
        return {"failing": self.failing(setting, found)}


class ZScores(_Twice):
    """Every |value - mean| / standard deviation is below `threshold`; without the absolute value if not double_sided. No spread: all are."""

    type: ClassVar[str] = "expect_column_value_z_scores_to_be_less_than"
    threshold: float
    double_sided: bool

    def needs(self, setting: Setting) -> dict[str, Need]:
        return {"sums": need(lambda: Sums(self.column, squares=True), "sums", self.column, True)}

    def check(self, setting: Setting, found: Found) -> Check:
        sums = found["sums"]
        mean, spread = sums.mean, sums.stdev

        def check(view: View) -> Considered:
            column = view.column(self.column)
            if not spread or math.isnan(spread):
                return column.valid, None
            values = column.numbers if column.kind in TIMES else float_values(column)
            scores = (values - mean) / spread
            if self.double_sided:
                return column.valid, column.full(np.abs(scores) >= abs(self.threshold))
            return column.valid, column.full(scores >= self.threshold)

        return check


class NotOutliers(_Twice):
    """No value is an outlier: beyond the quartiles by `multiplier` times their distance (iqr), or as far from the mean in standard deviations (std)."""

    type: ClassVar[str] = "expect_column_values_to_not_be_outliers"
    method: Literal["iqr", "std"] = "iqr"
    multiplier: float = 1.5

    def needs(self, setting: Setting) -> dict[str, Need]:
        if self.method == "std":
            return {"sums": need(lambda: Sums(self.column, squares=True), "sums", self.column, True)}
        return {"ordered": need(lambda: Ordered(self.column, setting.spill), "ordered", self.column)}

    def check(self, setting: Setting, found: Found) -> Check:
        low, high, reach = self._window(found)

        def unexpected(column: Column) -> Mask | None:
            if low is None or high is None or reach is None:
                return None
            values = float_values(column)
            if self.method == "iqr":
                return column.full((values < low - reach) | (values > high + reach))
            return column.full(values != low if reach <= 0 else np.abs(values - low) >= reach)

        def check(view: View) -> Considered:
            column = view.column(self.column)
            return column.valid, unexpected(column) if column.nonnull else None

        return check

    def _window(self, found: Found) -> tuple[Any, Any, Any]:
        """(lower reference, upper reference, how far beyond them is still expected), None where the column gives none."""
        if self.method == "std":
            low = high = _finite(found["sums"].mean)
            spread = _finite(found["sums"].stdev)
        else:
            ordered = found["ordered"]
            low, high = (_finite(quantile(ordered, share, "linear")) for share in (0.25, 0.75))
            spread = None if low is None or high is None else high - low
        return low, high, None if spread is None else self.multiplier * spread


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


OUTLIERS = (ZScores, NotOutliers)
