"""Expectations about the set of a column's distinct values."""

from __future__ import annotations

import contextlib
import heapq
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from gristmill.validators.accumulators import Present
from gristmill.validators.columns import Mask, View
from gristmill.validators.distinct import Distinct
from gristmill.validators.expectations.aggregates import ColumnExpectation
from gristmill.validators.expectations.base import Found, Need, Outcome, Setting, need, plain
from gristmill.validators.membership import index_in

MOST = 20


class _Set(ColumnExpectation):
    value_set: list[Any] = Field(min_length=1)

    def stray(self, setting: Setting) -> Need:
        """The distinct values that are not in the set."""

        def outside(view: View) -> Mask:
            column = view.column(self.column)
            return column.full(index_in(column, self.value_set) < 0)

        return need(lambda: Distinct([self.column], setting.spill, outside), "stray", self.column, self.value_set)

    def present(self) -> Need:
        """The values of the set that occur."""

        def index(column: Any) -> Any:
            found = index_in(column, self.value_set)
            return np.flatnonzero(np.bincount(found[found >= 0]))

        return need(lambda: Present(self.column, self.value_set, index), "present", self.column, self.value_set)

    def unexpected(self, setting: Setting, found: Found, result: dict[str, Any]) -> bool:
        """Adds what is in the column and not in the set; whether there is nothing."""
        state = found["stray"]
        count = state.facts(setting.threads).distinct
        result["unexpected_count"] = count
        if setting.form.partial_unexpected_count > 0:
            result["partial_unexpected_list"] = self._least(setting, state) if count else []
        return count == 0

    def _least(self, setting: Setting, state: Distinct) -> list[Any]:
        least: list[Any] = []
        for rows in state.first_rows():
            values = setting.values(np.sort(rows), [self.column])[self.column]
            try:
                least = heapq.nsmallest(MOST, least + values)
            except TypeError:
                least = (least + values)[:MOST]
        return least

    def missing(self, setting: Setting, found: Found, result: dict[str, Any]) -> bool:
        """Adds what is in the set and not in the column; whether there is nothing."""
        known = {
            value: there for value, there in zip(self.value_set, found["present"].found.tolist(), strict=True) if there
        }
        absent = [value for value in dict.fromkeys(self.value_set) if value not in known]
        result["missing_count"] = len(absent)
        if setting.form.partial_unexpected_count > 0:
            result["partial_missing_list"] = absent[:MOST]
        return not absent


class DistinctInSet(_Set):
    """Every distinct value is in the set."""

    type: ClassVar[str] = "expect_column_distinct_values_to_be_in_set"

    def needs(self, setting: Setting) -> dict[str, Need]:
        return {"stray": self.stray(setting)}

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        result: dict[str, Any] = {"observed_value": None}
        return Outcome(self.unexpected(setting, found, result), result)


class DistinctContainSet(_Set):
    """Every value of the set occurs."""

    type: ClassVar[str] = "expect_column_distinct_values_to_contain_set"
    value_set: list[Any]

    def needs(self, setting: Setting) -> dict[str, Need]:
        return {"present": self.present()}

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        result: dict[str, Any] = {"observed_value": None}
        return Outcome(self.missing(setting, found, result), result)


class DistinctEqualSet(_Set):
    """The distinct values are the set."""

    type: ClassVar[str] = "expect_column_distinct_values_to_equal_set"
    value_set: list[Any]

    def needs(self, setting: Setting) -> dict[str, Need]:
        return {"stray": self.stray(setting), "present": self.present()}

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        result: dict[str, Any] = {"observed_value": None}
        nothing_else = self.unexpected(setting, found, result)
        nothing_missing = self.missing(setting, found, result)
        return Outcome(nothing_else and nothing_missing, result)


class MostCommonInSet(ColumnExpectation):
    """The most common value is in the set; several with equal counts fail unless `ties_okay`."""

    type: ClassVar[str] = "expect_column_most_common_value_to_be_in_set"
    value_set: list[Any]
    ties_okay: bool | None = None

    def needs(self, setting: Setting) -> dict[str, Need]:
        return {"distinct": need(lambda: Distinct([self.column], setting.spill), "distinct", [self.column])}

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        rows = found["distinct"].modes(setting.threads)
        column = setting.batch(rows, [self.column]).column(self.column)
        hits = int(np.count_nonzero(index_in(column, self.value_set) >= 0)) if len(rows) else 0
        values = plain(column) if len(rows) else []
        with contextlib.suppress(TypeError):  # values of several types stay as they come
            values = sorted(values)
        success = hits > 0 if self.ties_okay else len(values) == 1 and hits == 1
        return Outcome(success, {"observed_value": values})


SETS = (DistinctInSet, DistinctContainSet, DistinctEqualSet, MostCommonInSet)
