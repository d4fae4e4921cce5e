"""Random frames, expectations, result formats and cuts into shards: gristmill's results are Great Expectations' own.

What is known to differ, and why, is in docs/validation.md; each such case has a test in test_divergences.py and is left out here.
"""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.validators.against_gx import cut, differences, gx_batch, gx_result, our_result

UTC = dt.UTC
VALUES: dict[str, list[Any]] = {
    "int": [-5, 0, 1, 2, 3, 10],
    "float": [0.0, -0.0, 1.5, 2.25, -3.0, 1e10, float("inf"), None],
    "str": ["a", "b", "", "ab", "é", "a\n", "Zz", "1", "2024-01-31", '{"x":1}', None],
    "bool": [True, False],
    "date": [dt.date(2024, 1, day) for day in (1, 2, 3, 31)] + [None],
    "ts": [dt.datetime(2024, 1, day, hour) for day in (1, 2, 3) for hour in (0, 12)] + [None],
    "tz": [dt.datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3)] + [None],
    "decimal": [decimal.Decimal(text) for text in ("1.0", "1.00", "2.5", "-3")] + [None],
    "objects of int": [1, 2, 3, 10, None],
    "objects of str": ["a", "b", "cc", None],
    "mixed": [1, "a", 2.5, True, "1", None],
}
DTYPES = {
    "int": "int64",
    "float": "float64",
    "str": "str",
    "bool": "bool",
    "ts": "datetime64[us]",
    "tz": "datetime64[us, UTC]",
}
NUMBERS = ("int", "float", "objects of int")
ORDERED = (*NUMBERS, "date", "ts", "tz", "decimal")


@st.composite
def frames(draw: Any) -> tuple[pd.DataFrame, dict[str, str]]:
    rows = draw(st.sampled_from([0, 1, 2, 5, 12, 30]))
    kinds = {f"c{i}": draw(st.sampled_from(list(VALUES))) for i in range(3)}
    columns = {
        name: pd.Series(
            draw(st.lists(st.sampled_from(VALUES[kind]), min_size=rows, max_size=rows)),
            dtype=DTYPES.get(kind, "object"),
        )
        for name, kind in kinds.items()
    }
    return pd.DataFrame(columns), kinds


def bounds(draw: Any, kind: str) -> dict[str, Any]:
    some = [
        value for value in VALUES[kind if kind in ORDERED else "int"] if value is not None and value != float("inf")
    ]
    low, high = sorted((draw(st.sampled_from(some)), draw(st.sampled_from(some))))
    if kind == "decimal":
        low, high = float(low), float(high)
    found: dict[str, Any] = {"min_value": low, "max_value": high}
    if draw(st.booleans()):
        found.pop(draw(st.sampled_from(["min_value", "max_value"])))
    return found | {name: True for name in ("strict_min", "strict_max") if draw(st.integers(0, 3)) == 0}


def some_of(draw: Any, kind: str) -> list[Any]:
    values = [value for value in VALUES[kind] if value is not None]
    if kind == "decimal":
        values = [float(value) for value in values]
    return draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True))


def column_map(draw: Any, kind: str) -> tuple[str, dict[str, Any]]:
    texts = kind in ("str", "objects of str")
    names = [
        "not_be_null",
        "be_null",
        "be_in_set",
        "not_be_in_set",
        "be_unique",
        "be_json_parseable",
        "be_of_type",
        "be_in_type_list",
        "lengths",
    ]
    names += (
        ["between"] * (kind in ORDERED)
        + ["increasing", "decreasing"] * (kind in ("int", "float", "ts", "tz"))
        + ["z", "outliers"] * (kind in NUMBERS)
    )
    names += ["regex", "not_regex", "regex_list", "not_regex_list", "strftime", "dateutil"] * texts
    name = draw(st.sampled_from(names))
    pattern = st.sampled_from(["^a", "b$", "[0-9]+", "^$", "é", r"\d-\d", "(?i)z"])
    extra: dict[str, tuple[str, dict[str, Any]]] = {
        "between": ("expect_column_values_to_be_between", bounds(draw, kind)),
        "be_in_set": ("expect_column_values_to_be_in_set", {"value_set": some_of(draw, kind)}),
        "not_be_in_set": ("expect_column_values_to_not_be_in_set", {"value_set": some_of(draw, kind)}),
        "increasing": ("expect_column_values_to_be_increasing", {"strictly": draw(st.booleans())}),
        "decreasing": ("expect_column_values_to_be_decreasing", {"strictly": draw(st.booleans())}),
        "lengths": ("expect_column_value_lengths_to_be_between", {"min_value": 1, "max_value": 2}),
        "z": ("expect_column_value_z_scores_to_be_less_than", {"threshold": draw(st.sampled_from([0.5, 1, 2])), "double_sided": draw(st.booleans())}),
        "outliers": ("expect_column_values_to_not_be_outliers", {"method": draw(st.sampled_from(["iqr", "std"])), "multiplier": 0.5}),
        "regex": ("expect_column_values_to_match_regex", {"regex": draw(pattern)}),
        "not_regex": ("expect_column_values_to_not_match_regex", {"regex": draw(pattern)}),
        "regex_list": ("expect_column_values_to_match_regex_list", {"regex_list": ["^a", draw(pattern)], "match_on": draw(st.sampled_from(["any", "all"]))}),
        "not_regex_list": ("expect_column_values_to_not_match_regex_list", {"regex_list": ["^a", draw(pattern)]}),
        "strftime": ("expect_column_values_to_match_strftime_format", {"strftime_format": "%Y-%m-%d"}),
        "dateutil": ("expect_column_values_to_be_dateutil_parseable", {}),
        "be_of_type": ("expect_column_values_to_be_of_type", {"type_": draw(st.sampled_from(["int", "str", "float64", "object", "int64"]))}),
        "be_in_type_list": ("expect_column_values_to_be_in_type_list", {"type_list": draw(st.sampled_from([["int", "str"] if kind != "str" else ["int"], ["float64"], ["int64", "bool"]]))}),
    }  # fmt: skip
    kinds, kwargs = extra.get(name, (f"expect_column_values_to_{name}", {}))
    if draw(st.booleans()):
        kwargs["mostly"] = draw(st.sampled_from([0.5, 0.7, 0.9]))
    return kinds, kwargs


def aggregate(draw: Any, kind: str) -> tuple[str, dict[str, Any]]:
    names = ["proportion_of_non_null_values", "unique_value_count", "proportion_of_unique_values"]
    names += (
        ["mean", "sum", "stdev"] * (kind in NUMBERS)
        + ["max", "min"] * (kind in ORDERED)
        + ["median"] * (kind in NUMBERS)
    )
    name = draw(st.sampled_from(names))
    return f"expect_column_{name}_to_be_between", bounds(draw, kind if name in ("max", "min") else "int")


def distribution(draw: Any, kind: str) -> tuple[str, dict[str, Any]]:
    names = [
        "distinct_values_to_be_in_set",
        "distinct_values_to_contain_set",
        "distinct_values_to_equal_set",
        "most_common_value_to_be_in_set",
    ]
    name = draw(
        st.sampled_from(
            (names if kind not in ("mixed", "decimal") else [])
            + ["quantile", "bins"] * (kind in ("int", "float"))
            + ["values"] * (kind == "str")
            or names[1:2]
        )
    )
    if name == "quantile":
        kwargs: dict[str, Any] = {
            "quantile_ranges": {"quantiles": [0.1, 0.5, 0.75], "value_ranges": [[-5, None], [0, 2], [None, 5]]}
        }
        how = draw(st.sampled_from([None, "linear", "lower", "higher", "midpoint", "nearest"]))
        return "expect_column_quantile_values_to_be_between", kwargs | ({"allow_relative_error": how} if how else {})
    if name in ("bins", "values"):
        of_bins = {"bins": [-3, 0, 2, 10], "weights": [0.3, 0.3, 0.4]}
        of_values = {"values": ["a", "b"], "weights": [0.5, 0.5]}
        kwargs = {"threshold": 0.5, "partition_object": of_bins if name == "bins" else of_values}
        return "expect_column_kl_divergence_to_be_less_than", kwargs | (
            {"tail_weight_holdout": 0.1} if draw(st.booleans()) else {}
        )
    return f"expect_column_{name}", {"value_set": some_of(draw, kind)}


def record(draw: Any, kinds: dict[str, str]) -> tuple[str, dict[str, Any]] | None:
    numbers = [name for name, kind in kinds.items() if kind in ("int", "float")]
    name = draw(st.sampled_from(["compound", "equal", "greater", "pairs", "sum", "all_equal"]))
    if name in ("compound", "equal"):
        some = draw(st.lists(st.sampled_from(list(kinds)), min_size=2, max_size=3, unique=True))
    elif len(numbers) >= 2:
        some = numbers
    else:
        return None
    several = {
        "column_list": some,
        "ignore_row_if": draw(st.sampled_from(["all_values_are_missing", "any_value_is_missing", "never"])),
    }
    pair = {
        "column_A": some[0],
        "column_B": some[1],
        "ignore_row_if": draw(st.sampled_from(["both_values_are_missing", "either_value_is_missing", "neither"])),
    }
    return {
        "compound": ("expect_compound_columns_to_be_unique", several),
        "equal": ("expect_column_pair_values_to_be_equal", pair),
        "greater": ("expect_column_pair_values_a_to_be_greater_than_b", pair | {"or_equal": draw(st.booleans())}),
        "pairs": (
            "expect_column_pair_values_to_be_in_set",
            pair | {"value_pairs_set": [[0, 1.5], [1, 1], [2, None], [3, 2.25]]},
        ),
        "sum": ("expect_multicolumn_sum_to_equal", several | {"sum_total": 3}),
        "all_equal": ("expect_multicolumn_values_to_be_equal", several),
    }[name]


@st.composite
def expectations(draw: Any, kinds: dict[str, str]) -> tuple[str, dict[str, Any]]:
    family = draw(st.sampled_from(["map", "map", "map", "aggregate", "distribution", "record", "rows"]))
    column = draw(st.sampled_from(list(kinds)))
    found = record(draw, kinds) if family == "record" else None
    if family == "rows":
        found = "expect_table_row_count_to_be_between", {"min_value": 2, "max_value": 8}
    if found is None:
        made = {"aggregate": aggregate, "distribution": distribution}.get(family, column_map)(draw, kinds[column])
        found = made[0], {"column": column, **made[1]}
    if draw(st.integers(0, 3)) == 0 and "pair_values_to_be_in_set" not in found[0]:
        other = draw(st.sampled_from(list(kinds)))
        condition: dict[str, Any] = {"type": "nullity", "column": {"name": other}, "is_null": draw(st.booleans())}
        if kinds[other] in ("int", "float", "str"):
            text = kinds[other] == "str"
            signs = ["==", "!=", "IN", "NOT_IN"] + [">", "<="] * (not text)
            sign = draw(st.sampled_from(signs))
            value: Any = "a" if text else 1
            value = [value, "b" if text else 2.25] if sign in ("IN", "NOT_IN") else value
            condition = {"type": "comparison", "column": {"name": other}, "operator": sign, "parameter": value}
        found[1]["row_condition"] = condition
    return found


FORMATS = st.sampled_from(
    [
        "BOOLEAN_ONLY",
        "BASIC",
        "SUMMARY",
        "COMPLETE",
        {"result_format": "SUMMARY", "partial_unexpected_count": 3},
        {"result_format": "COMPLETE", "unexpected_index_column_names": ["c0"]},
    ]
)


def check(data: Any) -> None:
    frame, kinds = data.draw(frames())
    places = data.draw(st.lists(st.integers(0, len(frame)), max_size=3))
    batch, shards = gx_batch(frame), cut(frame, places)
    for _ in range(6):
        kind, kwargs = data.draw(expectations(kinds))
        form = data.draw(FORMATS)
        if kind == "expect_column_values_to_be_null" and isinstance(form, dict):
            form = "COMPLETE"
        theirs = gx_result(batch, kind, kwargs, form)
        wrong = differences(our_result(shards, kind, kwargs, form), theirs)
        assert not wrong, f"{kind} {kwargs} {form}: {wrong}"


@settings(max_examples=30, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.data())
def test_results_are_gx_own(data: Any) -> None:
    check(data)


@pytest.mark.parametrize("zone", [None, UTC])
def test_z_scores_of_times(zone: Any) -> None:
    times = [dt.datetime(2024, 1, day, tzinfo=zone) for day in (1, 2, 3)] + [dt.datetime(2030, 1, 1, tzinfo=zone)]
    frame = pd.DataFrame({"t": pd.Series(times)})
    kwargs = {"column": "t", "threshold": 1.4, "double_sided": True}
    theirs = gx_result(gx_batch(frame), "expect_column_value_z_scores_to_be_less_than", kwargs, "SUMMARY")
    assert theirs["result"]["partial_unexpected_index_list"] == [3]
    ours = our_result(frame, "expect_column_value_z_scores_to_be_less_than", kwargs, "SUMMARY")
    assert not differences(ours, theirs)


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_results_are_gx_own_at_length(data: Any) -> None:
    check(data)
