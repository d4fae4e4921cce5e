"""Expectations about the table: rows, columns, a column's type. Most need no data at all."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, ClassVar

from pydantic import Field

from gristmill.errors import did_you_mean
from gristmill.validators.accumulators import Rows
from gristmill.validators.expectations.base import Between, Expectation, Found, Need, Outcome, Setting, need


class RowCountBetween(Between, Expectation):
    """How many rows there are."""

    type: ClassVar[str] = "expect_table_row_count_to_be_between"

    def needs(self, setting: Setting) -> dict[str, Need]:
        return _rows(self)

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        count = found["rows"].count if found else setting.data.num_rows
        return Outcome(self.holds(count), {"observed_value": count})


class RowCountEqual(Expectation):
    """There are `value` rows."""

    type: ClassVar[str] = "expect_table_row_count_to_equal"
    value: int

    def needs(self, setting: Setting) -> dict[str, Need]:
        return _rows(self)

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        count = found["rows"].count if found else setting.data.num_rows
        return Outcome(count == self.value, {"observed_value": count})


def _rows(expectation: Expectation) -> dict[str, Need]:
    return {} if expectation.condition() is None else {"rows": need(Rows, "rows")}


class ColumnCountBetween(Between, Expectation):
    """How many columns there are."""

    type: ClassVar[str] = "expect_table_column_count_to_be_between"

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        count = len(setting.data.columns)
        return Outcome(self.holds(count), {"observed_value": count})


class ColumnCountEqual(Expectation):
    """There are `value` columns."""

    type: ClassVar[str] = "expect_table_column_count_to_equal"
    value: int

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        count = len(setting.data.columns)
        return Outcome(count == self.value, {"observed_value": count})


class ColumnsMatchOrderedList(Expectation):
    """The columns are these, in this order."""

    type: ClassVar[str] = "expect_table_columns_to_match_ordered_list"
    column_list: list[str] | None

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        actual = list(setting.data.columns)
        if self.column_list is None or actual == self.column_list:
            return Outcome(True, {"observed_value": actual})
        pairs = zip_longest(self.column_list, actual)
        wrong = [
            {"Expected Column Position": i, "Expected": want, "Found": have}
            for i, (want, have) in enumerate(pairs)
            if want != have
        ]
        return Outcome(False, {"observed_value": actual, "details": {"mismatched": wrong}})


class ColumnsMatchSet(Expectation):
    """The columns are these, in any order; with others beside them unless `exact_match`."""

    type: ClassVar[str] = "expect_table_columns_to_match_set"
    column_set: list[str] | set[str] | None
    exact_match: bool | None = True

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        actual, expected = set(setting.data.columns), set(self.column_set or ())
        result: dict[str, Any] = {"observed_value": sorted(actual)}
        if (self.column_set is None and self.exact_match is not False) or actual == expected:
            return Outcome(True, result)
        unexpected, missing = sorted(actual - expected), sorted(expected - actual)
        mismatched = {key: names for key, names in (("unexpected", unexpected), ("missing", missing)) if names}
        result["details"] = {"mismatched": mismatched}
        return Outcome(self.exact_match is False and not missing, result)


class ColumnExists(Expectation):
    """The column is there, at `column_index` if that is given."""

    type: ClassVar[str] = "expect_column_to_exist"
    column: str
    column_index: int | None = Field(default=None, ge=0)

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        columns = list(setting.data.columns)
        if self.column not in columns:
            return Outcome(False, {})
        return Outcome(self.column_index is None or columns.index(self.column) == self.column_index, {})


class ColumnTypeToBe(Expectation):
    """The column has a type, named as pandas names it."""

    type: ClassVar[str] = "expect_column_type_to_be"
    column: str
    type_: str

    def columns_used(self) -> list[str]:
        return [self.column]

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        from gristmill.validators.frames import is_dtype

        success, observed = is_dtype(setting.data, self.column, self.type_)
        return Outcome(success, {"observed_value": observed})


def missing_column(name: str, columns: Any) -> str:
    """The text of the error for a column that isn't there: it begins as Great Expectations' own."""
    return f'Error: The column "{name}" in BatchData does not exist.{did_you_mean(name, columns)}'


TABLES = (
    RowCountBetween,
    RowCountEqual,
    ColumnCountBetween,
    ColumnCountEqual,
    ColumnsMatchOrderedList,
    ColumnsMatchSet,
    ColumnExists,
    ColumnTypeToBe,
)
