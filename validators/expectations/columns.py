"""Expectations about each value of a column: null, range, set, type, uniqueness, order."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from gristmill.validators.accumulators import Steps
from gristmill.validators.columns import Column, Mask, View
from gristmill.validators.distinct import Distinct
from gristmill.validators.expectations.base import (
    Between,
    Check,
    ColumnMapExpectation,
    Considered,
    Found,
    Need,
    Outcome,
    Setting,
    each,
    need,
)
from gristmill.validators.membership import index_in
from gristmill.validators.rows import RowSet
from gristmill.validators.temporal import SAME_TYPE, comparable


class _Nullness(ColumnMapExpectation):
    has_missing: ClassVar[bool] = False
    of_null: ClassVar[bool]

    def check(self, setting: Setting, found: Found) -> Check:
        def check(view: View) -> Considered:
            valid = view.column(self.column).valid
            if valid is None:
                return None, None if not self.of_null else np.ones(view.rows, bool)
            return None, valid if self.of_null else ~valid

        return check

    def listed(self, values: Any, count: int) -> list[Any]:
        return list(values[self.column])


class NotNull(_Nullness):
    """No value is null."""

    type: ClassVar[str] = "expect_column_values_to_not_be_null"
    of_null: ClassVar[bool] = False


class Null(_Nullness):
    """Every value is null."""

    type: ClassVar[str] = "expect_column_values_to_be_null"
    of_null: ClassVar[bool] = True


class ValuesBetween(Between, ColumnMapExpectation):
    """Every value lies between the bounds. Numbers, times and dates by their arrays; all else one by one, as Python compares."""

    type: ClassVar[str] = "expect_column_values_to_be_between"

    def needs(self, setting: Setting) -> dict[str, Need]:
        self.check_bounds()
        return super().needs(setting)

    def unexpected(self, column: Column) -> Mask | None:
        if column.kind in ("object", "duration"):
            return each(column, self._expected)
        wrong: Any = np.zeros(column.nonnull, bool)
        if self.min_value is not None:
            values, low = comparable(column, self.min_value)
            wrong = wrong | (values <= low if self.strict_min else values < low)
        if self.max_value is not None:
            values, high = comparable(column, self.max_value)
            wrong = wrong | (values >= high if self.strict_max else values > high)
        return column.full(wrong)

    def _expected(self, value: Any) -> bool:
        for bound in (self.min_value, self.max_value):
            if bound is not None and isinstance(value, str) != isinstance(bound, str):
                raise TypeError(SAME_TYPE)
        return self.holds(value)


class InSet(ColumnMapExpectation):
    """Every value is one of `value_set`."""

    type: ClassVar[str] = "expect_column_values_to_be_in_set"
    value_set: list[Any] | None

    def unexpected(self, column: Column) -> Mask | None:
        return None if self.value_set is None else column.full(index_in(column, self.value_set) < 0)


class NotInSet(ColumnMapExpectation):
    """No value is one of `value_set`."""

    type: ClassVar[str] = "expect_column_values_to_not_be_in_set"
    value_set: list[Any] | None

    def unexpected(self, column: Column) -> Mask | None:
        return None if self.value_set is None else column.full(index_in(column, self.value_set) >= 0)


class Unique(ColumnMapExpectation):
    """No value occurs twice; all rows of one that does are unexpected."""

    type: ClassVar[str] = "expect_column_values_to_be_unique"

    def needs(self, setting: Setting) -> dict[str, Need]:
        return {"distinct": need(lambda: Distinct([self.column], setting.spill, every_row=True), "rows", [self.column])}

    def rows(self, setting: Setting, found: Found) -> tuple[int, int, RowSet]:
        state = found["distinct"]
        return state.count, state.considered, state.facts(setting.threads).repeated


class _Ordered(ColumnMapExpectation):
    strictly: bool | None = False
    up: ClassVar[bool]

    def failing(self, setting: Setting, found: Found) -> Need:
        return need(lambda: Steps(self.column, up=self.up, strictly=bool(self.strictly)), *self.key())


class Increasing(_Ordered):
    """Each value is at least the non-null one before it; above it if `strictly`."""

    type: ClassVar[str] = "expect_column_values_to_be_increasing"
    up: ClassVar[bool] = True


class Decreasing(_Ordered):
    """Each value is at most the non-null one before it; below it if `strictly`."""

    type: ClassVar[str] = "expect_column_values_to_be_decreasing"
    up: ClassVar[bool] = False


class _Typed(ColumnMapExpectation):
    """By the column's type; value by value where it is a pandas column of objects."""

    def names(self) -> list[str] | None:
        """The types' names."""
        raise NotImplementedError

    def _by_value(self, setting: Setting) -> bool:
        from gristmill.validators.frames import dtype_name

        names = self.names()
        return (
            names is not None
            and dtype_name(setting.data, self.column) == "object"
            and not {"object", "object_", "O"} & set(names[:1])
        )

    def needs(self, setting: Setting) -> dict[str, Need]:
        return super().needs(setting) if self._by_value(setting) else {}

    def check(self, setting: Setting, found: Found) -> Check:
        from gristmill.validators.frames import python_types

        kinds = python_types(self.names() or [])

        def check(view: View) -> Considered:
            column = view.column(self.column)
            return column.valid, each(column, lambda value: isinstance(value, kinds))

        return check

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        if self._by_value(setting):
            return super().outcome(setting, found)
        from gristmill.validators.frames import compare_type

        success, observed = compare_type(setting.data, self.column, self.names())
        return Outcome(success, {"observed_value": observed})


class OfType(_Typed):
    """The column, or every value of a column of objects, is of a type named as Python, numpy or pandas name it."""

    type: ClassVar[str] = "expect_column_values_to_be_of_type"
    type_: str | None

    def names(self) -> list[str] | None:
        return None if self.type_ is None else [self.type_]


class InTypeList(_Typed):
    """The same of several types."""

    type: ClassVar[str] = "expect_column_values_to_be_in_type_list"
    type_list: list[str] | None

    def names(self) -> list[str] | None:
        return self.type_list

    def _by_value(self, setting: Setting) -> bool:
        from gristmill.validators.frames import dtype_name

        return self.type_list is not None and dtype_name(setting.data, self.column) == "object"


COLUMNS = (NotNull, Null, ValuesBetween, InSet, NotInSet, Unique, Increasing, Decreasing, OfType, InTypeList)
