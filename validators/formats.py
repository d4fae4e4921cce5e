"""Results in Great Expectations' four formats, and values as its JSON has them."""

from __future__ import annotations

import datetime
import decimal
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gristmill.errors import SuiteError, capped, did_you_mean

FORMATS = ("BOOLEAN_ONLY", "BASIC", "SUMMARY", "COMPLETE")
MOST = 200  # unexpected values in a result, as in Great Expectations; `bad_rows` has all


@dataclass(frozen=True)
class ResultFormat:
    """What a result holds. Fields are Great Expectations' own."""

    result_format: str = "SUMMARY"
    partial_unexpected_count: int = 20
    include_unexpected_rows: bool = False
    unexpected_index_column_names: tuple[str, ...] | None = None
    return_unexpected_index_query: bool | None = None
    exclude_unexpected_values: bool = False
    map_expectation_unexpected_rows_as_dict: bool = False

    @property
    def boolean_only(self) -> bool:
        """Nothing but success."""
        return self.result_format == "BOOLEAN_ONLY"

    @property
    def complete(self) -> bool:
        """Everything."""
        return self.result_format == "COMPLETE"

    @property
    def values(self) -> int:
        """How many unexpected values a result may need."""
        return MOST if self.complete else min(self.partial_unexpected_count, MOST)


def parse_format(given: Any) -> ResultFormat:
    """The format of a name, a dict as Great Expectations takes it, or None: SUMMARY.

    Raises:
        SuiteError: an unknown name or key.
    """
    if given is None:
        return ResultFormat()
    if isinstance(given, ResultFormat):
        return given
    options = dict(given) if isinstance(given, Mapping) else {"result_format": given}
    fields = ResultFormat.__dataclass_fields__
    for key in options:
        if key not in fields:
            raise SuiteError(f"result_format: unknown key '{key}'.{did_you_mean(str(key), fields)}")
    if "include_unexpected_rows" in options and "result_format" not in options:
        raise SuiteError("result_format: include_unexpected_rows needs 'result_format' beside it")
    name = options.get("result_format", "SUMMARY")
    name = getattr(name, "value", name)
    if name not in FORMATS:
        raise SuiteError(f"result_format: '{name}' is none of {capped(FORMATS)}")
    options["result_format"] = name
    columns = options.get("unexpected_index_column_names")
    if columns is not None:
        options["unexpected_index_column_names"] = (columns,) if isinstance(columns, str) else tuple(columns)
    return replace(ResultFormat(), **options)


@dataclass(frozen=True)
class MapFacts:
    """What a map expectation found. nonnull_count None: it has no missing block. unexpected: the first values; index: labels or dicts."""

    element_count: int
    nonnull_count: int | None
    unexpected_count: int
    unexpected: Sequence[Any] = ()
    index: Sequence[Any] = ()
    query: str | None = None
    rows: Any = None


def map_result(facts: MapFacts, form: ResultFormat) -> dict[str, Any]:
    """The "result" of a map expectation."""
    if form.boolean_only:
        return _with_query({}, facts, form) if form.return_unexpected_index_query else {}
    elements, unexpected, nonnull = facts.element_count, facts.unexpected_count, facts.nonnull_count
    total = unexpected / elements * 100 if elements else None
    share = total if nonnull is None else (unexpected / nonnull * 100 if elements and nonnull else None)
    result: dict[str, Any] = {
        "element_count": elements,
        "unexpected_count": unexpected,
        "unexpected_percent": share,
    }
    if not form.exclude_unexpected_values:
        result["partial_unexpected_list"] = list(facts.unexpected[: form.partial_unexpected_count])
    if form.unexpected_index_column_names:
        result["unexpected_index_column_names"] = list(form.unexpected_index_column_names)
    if nonnull is not None:
        missing = elements - nonnull
        result["missing_count"] = missing
        result["missing_percent"] = missing / elements * 100 if elements else None
        result["unexpected_percent_total"] = total
        result["unexpected_percent_nonmissing"] = share
    if form.include_unexpected_rows:
        result["unexpected_rows"] = facts.rows
    if form.result_format == "BASIC":
        return _with_query(result, facts, form) if form.return_unexpected_index_query else result
    if form.partial_unexpected_count > 0:
        if not form.exclude_unexpected_values:
            counts = _counts(facts.unexpected, form.partial_unexpected_count)
            if counts is not None:
                result["partial_unexpected_counts"] = counts
        result["partial_unexpected_index_list"] = list(facts.index[: form.partial_unexpected_count])
    if not form.complete:
        return _with_query(result, facts, form) if form.return_unexpected_index_query else result
    if not form.exclude_unexpected_values:
        result["unexpected_list"] = list(facts.unexpected)
    result["unexpected_index_list"] = list(facts.index)
    return _with_query(result, facts, form) if form.return_unexpected_index_query is not False else result


def _with_query(result: dict[str, Any], facts: MapFacts, form: ResultFormat) -> dict[str, Any]:
    if facts.query is not None:
        result["unexpected_index_query"] = facts.query
        if form.unexpected_index_column_names:
            result.setdefault("unexpected_index_column_names", list(form.unexpected_index_column_names))
    return result


def _counts(values: Sequence[Any], most: int) -> list[dict[str, Any]] | None:
    """The most common of the values listed, as Great Expectations counts them; None where they can't be hashed; those without an order by their text."""
    keys = [
        tuple(value.values()) if isinstance(value, dict) else tuple(value) if isinstance(value, list) else value
        for value in values
    ]
    try:
        common = Counter(keys).most_common(most)
    except TypeError:
        return None
    try:
        common.sort(key=lambda pair: (-pair[1], pair[0]))
    except TypeError:
        common.sort(key=lambda pair: (-pair[1], str(pair[0])))
    return [{"value": list(key) if isinstance(key, tuple) else key, "count": count} for key, count in common]


def jsonable(value: Any) -> Any:
    """The value as Great Expectations writes it to JSON: NaN is null, times are ISO 8601, bytes their Python text, decimals floats."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, range)):
        return [jsonable(item) for item in value]
    if isinstance(value, np.ndarray):
        return [jsonable(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if hasattr(value, "isoformat"):
        text = value.isoformat()
        return None if text == "NaT" else text
    if isinstance(value, datetime.timedelta):
        return str(value)
    if isinstance(value, decimal.Decimal):
        return None if value.is_nan() else float(value)
    return str(value)
