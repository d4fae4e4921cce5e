"""Expectations about two or more columns of each row."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from gristmill.validators.columns import Column, Mask, View
from gristmill.validators.distinct import Distinct
from gristmill.validators.expectations.base import Check, Considered, Found, MapExpectation, Need, Setting, need, plain
from gristmill.validators.membership import index_in
from gristmill.validators.rows import RowSet

NUMBERS = ("int", "float", "bool")


class _Records(MapExpectation):
    def dropped_if(self) -> Literal["any", "all", "never"]:
        """Rows of which nulls are left out."""
        raise NotImplementedError

    def considered(self, view: View) -> Mask | None:
        """(rows,) bool: rows that aren't left out for their nulls, None for all."""
        how = self.dropped_if()
        masks = [view.column(name).valid for name in self.columns_used()]
        there = [mask for mask in masks if mask is not None]
        if how == "never":
            return None
        if how == "all":
            return None if len(there) < len(masks) else np.logical_or.reduce(there)
        return np.logical_and.reduce(there) if there else None

    def unexpected(self, view: View) -> Mask | None:
        """(rows,) bool: rows that aren't expected, None for none; of those left out it may say anything."""
        raise NotImplementedError

    def check(self, setting: Setting, found: Found) -> Check:
        def check(view: View) -> Considered:
            considered, wrong = self.considered(view), self.unexpected(view)
            return considered, wrong if wrong is None or considered is None else wrong & considered

        return check


class _Pair(_Records):
    column_A: str  # noqa: N815  Great Expectations' names
    column_B: str  # noqa: N815
    ignore_row_if: Literal["both_values_are_missing", "either_value_is_missing", "neither"] = "both_values_are_missing"

    def columns_used(self) -> list[str]:
        return [self.column_A, self.column_B]

    def dropped_if(self) -> Literal["any", "all", "never"]:
        how: dict[str, Literal["any", "all", "never"]] = {
            "both_values_are_missing": "all",
            "either_value_is_missing": "any",
            "neither": "never",
        }
        return how[self.ignore_row_if]

    def listed(self, values: Mapping[str, list[Any]], count: int) -> list[Any]:
        return list(zip(values[self.column_A], values[self.column_B], strict=True))


class PairEqual(_Pair):
    """A equals B; null equals nothing."""

    type: ClassVar[str] = "expect_column_pair_values_to_be_equal"

    def unexpected(self, view: View) -> Mask | None:
        return ~compare(view.column(self.column_A), view.column(self.column_B), operator.eq)


class PairGreater(_Pair):
    """A is greater than B, or equal if `or_equal`; a null is neither."""

    type: ClassVar[str] = "expect_column_pair_values_a_to_be_greater_than_b"
    or_equal: bool | None = None

    def unexpected(self, view: View) -> Mask | None:
        sign = operator.ge if self.or_equal else operator.gt
        return ~compare(view.column(self.column_A), view.column(self.column_B), sign)


class PairInSet(_Pair):
    """(A, B) is one of the pairs; null is None there."""

    type: ClassVar[str] = "expect_column_pair_values_to_be_in_set"
    value_pairs_set: list[tuple[Any, Any]] | None

    def unexpected(self, view: View) -> Mask | None:
        if self.value_pairs_set is None:
            return None
        pairs = list(dict.fromkeys(self.value_pairs_set))
        codes = []
        for name, values in zip(self.columns_used(), zip(*pairs, strict=True) if pairs else ((), ()), strict=True):
            known = list(dict.fromkeys(values))
            column = view.column(name)
            found = column.full(index_in(column, known), known.index(None) if None in known else -1)
            codes.append((found, [known.index(value) for value in values], len(known)))
        (a, of_a, _), (b, of_b, width) = codes
        allowed = np.array([x * width + y for x, y in zip(of_a, of_b, strict=True)], np.int64)
        return ~(np.isin(a * width + b, allowed) & (a >= 0) & (b >= 0))


class _Several(_Records):
    column_list: list[str] = Field(min_length=1)
    ignore_row_if: Literal["all_values_are_missing", "any_value_is_missing", "never"] = "all_values_are_missing"

    def columns_used(self) -> list[str]:
        return list(self.column_list)

    def dropped_if(self) -> Literal["any", "all", "never"]:
        how: dict[str, Literal["any", "all", "never"]] = {
            "all_values_are_missing": "all",
            "any_value_is_missing": "any",
            "never": "never",
        }
        return how[self.ignore_row_if]

    def listed(self, values: Mapping[str, list[Any]], count: int) -> list[Any]:
        return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


class CompoundUnique(_Several):
    """No combination of values occurs twice; null is a value. All rows of one that does are unexpected."""

    type: ClassVar[str] = "expect_compound_columns_to_be_unique"
    column_list: list[str] = Field(min_length=2)

    def needs(self, setting: Setting) -> dict[str, Need]:
        make = functools.partial(Distinct, self.column_list, setting.spill, self.considered, every_row=True)
        return {"distinct": need(make, "distinct", self.column_list, self.ignore_row_if)}

    def rows(self, setting: Setting, found: Found) -> tuple[int, int, RowSet]:
        state = found["distinct"]
        return state.count, state.considered, state.facts(setting.threads).repeated


class UniqueWithinRecord(_Several):
    """No two of a row's values are equal; null equals null."""

    type: ClassVar[str] = "expect_select_column_values_to_be_unique_within_record"
    column_list: list[str] = Field(min_length=2)

    def unexpected(self, view: View) -> Mask | None:
        pairs = itertools.combinations([view.column(name) for name in self.column_list], 2)
        return np.logical_or.reduce([_same(a, b) for a, b in pairs])


class SumEqual(_Several):
    """The sum of a row's values is `sum_total`; with a null among them it is nothing."""

    type: ClassVar[str] = "expect_multicolumn_sum_to_equal"
    column_list: list[str] = Field(min_length=2)
    sum_total: float

    def unexpected(self, view: View) -> Mask | None:
        columns = [view.column(name) for name in self.column_list]
        if all(column.kind in NUMBERS for column in columns):
            total: Any = functools.reduce(operator.add, [_wide(column) for column in columns])
            wrong = np.asarray(total != self.sum_total)
        else:
            rows = zip(*(plain(column) for column in columns), strict=True)
            wrong = np.array(
                [None in row or functools.reduce(operator.add, row) != self.sum_total for row in rows], bool
            )
        for column in columns:
            if column.valid is not None:
                wrong = wrong | ~column.valid
        return wrong


class ValuesEqual(_Several):
    """A row's values are all equal; null equals null."""

    type: ClassVar[str] = "expect_multicolumn_values_to_be_equal"
    column_list: list[str] = Field(min_length=2)

    def unexpected(self, view: View) -> Mask | None:
        first, *others = (view.column(name) for name in self.column_list)
        return ~np.logical_and.reduce([_same(first, other) for other in others])


def compare(a: Column, b: Column, sign: Callable[[Any, Any], Any]) -> Mask:
    """(rows,) bool: `sign` of the two values; False where one is null.

    Raises:
        TypeError: an order of values of different kinds, such as a number and a text.
    """
    there = _and(a.valid, b.valid)
    same_units = a.kind == b.kind == "date" or (
        a.kind == b.kind and a.array is not None and b.array is not None and a.array.type == b.array.type
    )
    if (a.kind in NUMBERS and b.kind in NUMBERS) or (same_units and a.kind in ("timestamp", "date", "duration")):
        found = np.asarray(sign(a.raw, b.raw))
        return found if there is None else found & there
    rows = np.ones(a.rows, bool) if there is None else there
    left, right = (np.array(plain(column), object) if column.rows else np.zeros(0, object) for column in (a, b))
    found = np.zeros(a.rows, bool)
    found[rows] = [bool(sign(x, y)) for x, y in zip(left[rows], right[rows], strict=True)]
    return found


def _same(a: Column, b: Column) -> Mask:
    both_null = np.zeros(a.rows, bool) if a.valid is None or b.valid is None else ~a.valid & ~b.valid
    return compare(a, b, operator.eq) | both_null


def _and(a: Mask | None, b: Mask | None) -> Mask | None:
    if a is None or b is None:
        return b if a is None else a
    return a & b


def _wide(column: Column) -> Any:
    return column.raw.astype(np.int64) if column.kind in ("int", "bool") else column.raw.astype(np.float64, copy=False)


RECORDS = (PairEqual, PairGreater, PairInSet, CompoundUnique, UniqueWithinRecord, SumEqual, ValuesEqual)
