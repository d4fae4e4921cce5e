"""Expectations about one figure of a column: extremes, mean, sum, spread, median, quantiles, shares."""

from __future__ import annotations

import datetime
import math
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gristmill.validators.accumulators import Rows
from gristmill.validators.approximate import DistinctEstimate, OrderEstimate
from gristmill.validators.distinct import Distinct
from gristmill.validators.expectations.base import Between, Comparable, Expectation, Found, Need, Outcome, Setting, need
from gristmill.validators.numbers import TIMES, Extremes, Sums
from gristmill.validators.ordered import Ordered
from gristmill.validators.quantiles import quantile
from gristmill.validators.temporal import parse_time


class ColumnExpectation(Expectation):
    """About one column as a whole."""

    column: str

    def columns_used(self) -> list[str]:
        return [self.column]


class FigureBetween(Between, ColumnExpectation):
    """A figure lies between the bounds; there being none is a failure."""

    def figure(self, setting: Setting, found: Found) -> Any:
        """The figure, None for none."""
        raise NotImplementedError

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        value = self.figure(setting, found)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return Outcome(False, {"observed_value": None})
        return Outcome(between(value, self), {"observed_value": value}, approximate=error_of(found))


def error_of(found: Found) -> dict[str, Any] | None:
    """The method and error of the estimates among what was found, None where all is exact."""
    bounds = [state.bound for state in found.values() if isinstance(state, DistinctEstimate | OrderEstimate)]
    return bounds[0] if bounds else None


def order(setting: Setting, column: str) -> dict[str, Need]:
    """The need of a column's order statistics."""
    if setting.approximate:
        return {"ordered": need(lambda: OrderEstimate(column), "order estimate", column)}
    return {"ordered": need(lambda: Ordered(column, setting.spill), "ordered", column)}


def between(value: Any, bounds: Between) -> bool:
    """Whether a figure lies between bounds, with text and times brought together as Great Expectations does."""
    low, high = bounds.min_value, bounds.max_value
    if not isinstance(value, (datetime.date, str)) and any(isinstance(bound, datetime.date) for bound in (low, high)):
        raise ValueError(
            f'Could not parse "metric_value" of {value} (of type "{type(value)}") into datetime representation.'
        )
    if isinstance(value, datetime.datetime):
        low, high = (_time_like(value, bound) for bound in (low, high))
    elif isinstance(value, str) and (isinstance(low, datetime.date) or isinstance(high, datetime.date)):
        moment = parse_time(value)
        whole = any(isinstance(bound, datetime.datetime) for bound in (low, high))
        value = moment if whole else moment.date()
    return Between.model_construct(**{**bounds.__dict__, "min_value": low, "max_value": high}).holds(value)


def _time_like(value: datetime.datetime, bound: Any) -> Any:
    if isinstance(bound, datetime.date) and not isinstance(bound, datetime.datetime):
        return datetime.datetime(bound.year, bound.month, bound.day, tzinfo=value.tzinfo)
    return bound


class _Extreme(FigureBetween):
    def needs(self, setting: Setting) -> dict[str, Need]:
        return {"extremes": need(lambda: Extremes(self.column), "extremes", self.column)}


class Max(_Extreme):
    """The greatest value."""

    type: ClassVar[str] = "expect_column_max_to_be_between"

    def figure(self, setting: Setting, found: Found) -> Any:
        return found["extremes"].greatest


class Min(_Extreme):
    """The least value."""

    type: ClassVar[str] = "expect_column_min_to_be_between"

    def figure(self, setting: Setting, found: Found) -> Any:
        return found["extremes"].least


class _Summed(FigureBetween):
    squares: ClassVar[bool] = False

    def needs(self, setting: Setting) -> dict[str, Need]:
        return {"sums": need(lambda: Sums(self.column, squares=self.squares), "sums", self.column, self.squares)}

    def refuse_times(self, setting: Setting) -> None:
        """Raises TypeError for a column of times, which has no such figure in numbers."""
        kind = kind_of_column(setting, self.column)
        if kind in TIMES:
            raise TypeError(f"column '{self.column}' holds {kind}s: it has no figure for {self.type}")


class Mean(_Summed):
    """The mean."""

    type: ClassVar[str] = "expect_column_mean_to_be_between"

    def figure(self, setting: Setting, found: Found) -> Any:
        mean = found["sums"].mean
        if mean is not None and kind_of_column(setting, self.column) in TIMES:
            return as_moment(setting, self.column, round(mean))
        return mean


class Sum(_Summed):
    """The sum; 0 for no values."""

    type: ClassVar[str] = "expect_column_sum_to_be_between"

    def figure(self, setting: Setting, found: Found) -> Any:
        self.refuse_times(setting)
        return found["sums"].sum


class Stdev(_Summed):
    """The standard deviation with n - 1 below; none for fewer than two values."""

    type: ClassVar[str] = "expect_column_stdev_to_be_between"
    squares: ClassVar[bool] = True

    def figure(self, setting: Setting, found: Found) -> Any:
        self.refuse_times(setting)
        return found["sums"].stdev


class Median(FigureBetween):
    """The median: the mean of the two in the middle where they are two."""

    type: ClassVar[str] = "expect_column_median_to_be_between"

    def needs(self, setting: Setting) -> dict[str, Need]:
        return order(setting, self.column)

    def figure(self, setting: Setting, found: Found) -> Any:
        ordered = found["ordered"]
        if not ordered.nonnull:
            return None
        low, high = (ordered.nonnull - 1) // 2, ordered.nonnull // 2
        values = ordered.at([low, high])
        kind = kind_of_column(setting, self.column)
        if kind in TIMES:
            return as_moment(setting, self.column, (values[low] + values[high]) // 2)
        return (values[low] + values[high]) / 2


class ProportionNonNull(FigureBetween):
    """The share of values that are not null; 0 for no rows."""

    type: ClassVar[str] = "expect_column_proportion_of_non_null_values_to_be_between"

    def needs(self, setting: Setting) -> dict[str, Need]:
        return {"rows": need(lambda: Rows(self.column), "rows", self.column)}

    def figure(self, setting: Setting, found: Found) -> Any:
        rows = found["rows"]
        return rows.nonnull / rows.count if rows.count else 0


class _Counted(FigureBetween):
    def needs(self, setting: Setting) -> dict[str, Need]:
        if setting.approximate:
            return {"distinct": need(lambda: DistinctEstimate(self.column), "distinct estimate", self.column)}
        return {"distinct": need(lambda: Distinct([self.column], setting.spill), "distinct", [self.column])}

    def distinct(self, setting: Setting, found: Found) -> int:
        """How many distinct values."""
        state = found["distinct"]
        return state.distinct if setting.approximate else state.facts(setting.threads).distinct


class UniqueValueCount(_Counted):
    """How many distinct values there are."""

    type: ClassVar[str] = "expect_column_unique_value_count_to_be_between"

    def figure(self, setting: Setting, found: Found) -> Any:
        return self.distinct(setting, found)


class ProportionUnique(_Counted):
    """Distinct values by values that are not null; 0 for none."""

    type: ClassVar[str] = "expect_column_proportion_of_unique_values_to_be_between"

    def figure(self, setting: Setting, found: Found) -> Any:
        considered = found["distinct"].considered
        return self.distinct(setting, found) / considered if considered else 0


class QuantileRanges(BaseModel):
    """Quantiles, and for each the range that it must lie in; None is no bound."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    quantiles: list[float]
    value_ranges: list[list[Comparable]]

    @model_validator(mode="after")
    def _fits(self) -> Any:
        if len(self.quantiles) != len(self.value_ranges):
            raise ValueError("quantile_values and quantiles must have the same number of elements")
        if any(len(bounds) != 2 for bounds in self.value_ranges):
            raise ValueError("each of value_ranges is [lower, upper]")
        if any(not 0 <= share <= 1 for share in self.quantiles):
            raise ValueError("quantiles lie between 0 and 1")
        return self


class Quantiles(ColumnExpectation):
    """Each quantile lies in its range, or next to its end by 1 part in 10,000."""

    type: ClassVar[str] = "expect_column_quantile_values_to_be_between"
    quantile_ranges: QuantileRanges
    allow_relative_error: bool | Literal["linear", "lower", "higher", "midpoint", "nearest"] = Field(default=False)

    def needs(self, setting: Setting) -> dict[str, Need]:
        return order(setting, self.column)

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        if self.allow_relative_error is True:
            raise ValueError("allow_relative_error: for pandas, one of linear, lower, higher, midpoint, nearest")
        how: Any = self.allow_relative_error or "nearest"
        shares = self.quantile_ranges.quantiles
        values = [quantile(found["ordered"], share, how) for share in shares]
        if kind_of_column(setting, self.column) in TIMES:
            values = [None if value is None else as_moment(setting, self.column, round(value)) for value in values]
        elif kind_of_column(setting, self.column) == "float" or how in ("linear", "midpoint"):
            values = [None if value is None else float(value) for value in values]
        inside = [
            _in_range(value, *bounds) for value, bounds in zip(values, self.quantile_ranges.value_ranges, strict=True)
        ]
        result = {"observed_value": {"quantiles": shares, "values": values}, "details": {"success_details": inside}}
        return Outcome(all(inside), result, approximate=error_of(found))


def _in_range(value: Any, low: Any, high: Any) -> bool:
    if value is None:
        return False
    if isinstance(value, datetime.datetime):
        low, high = (_time_like(value, bound) for bound in (low, high))
        return (low is None or low <= value) and (high is None or value <= high)
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    return bool(low <= value <= high or any(np.isclose(value, bound, rtol=1e-4, atol=0) for bound in (low, high)))


def kind_of_column(setting: Setting, name: str) -> str:
    """The family of a column's type."""
    from gristmill.validators.columns import kind_of

    return kind_of(setting.data.schema.field(name).type if name in setting.data.schema.names else None)


def as_moment(setting: Setting, name: str, ticks: int) -> Any:
    """The time or duration of so many ticks of a column's unit."""
    import pyarrow as pa

    return pa.scalar(ticks, pa.int64()).cast(setting.data.schema.field(name).type).as_py()


AGGREGATES = (Max, Min, Mean, Sum, Stdev, Median, ProportionNonNull, UniqueValueCount, ProportionUnique, Quantiles)
