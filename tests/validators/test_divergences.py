"""Where Great Expectations 1.24 is wrong or can't, and gristmill differs on purpose: docs/validation.md lists these."""

from __future__ import annotations

import datetime as dt

import pandas as pd
import pyarrow as pa
import pytest

from gristmill.validators.api import validate
from tests.validators.against_gx import gx_batch, gx_result
from tests.validators.helpers import one, result


def test_pairs_in_a_set_mind_the_row_condition():
    frame = pd.DataFrame({"a": [1, 2, 9], "b": [1, 2, 9], "k": [0, 0, 1]})
    kwargs = {
        "column_A": "a",
        "column_B": "b",
        "value_pairs_set": [[1, 1]],
        "row_condition": {"type": "comparison", "column": {"name": "k"}, "operator": "==", "parameter": 0},
    }
    found = result(frame, "column_pair_values_to_be_in_set", **kwargs)["result"]
    assert (found["element_count"], found["unexpected_count"], found["unexpected_percent"]) == (2, 1, 50.0)


def test_column_index_nought_counts():
    assert not result(pa.table({"a": [1], "b": [1]}), "column_to_exist", column="b", column_index=0)["success"]
    assert result(pa.table({"a": [1], "b": [1]}), "column_to_exist", column="b", column_index=1)["success"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_dates_as_text_are_compared_with_times(unit):
    table = pa.table({"t": pa.array([dt.datetime(2024, 1, day) for day in (1, 2, 3)], pa.timestamp(unit))})
    assert result(table, "between", column="t", min_value="2024-01-02")["result"]["unexpected_count"] == 1
    assert result(table, "column_max_to_be_between", column="t", max_value="2024-01-03")["success"]
    assert (
        result(table, "column_values_to_be_in_set", column="t", value_set=["2024-01-01", "2024-01-02T00:00:00"])[
            "result"
        ]["unexpected_count"]
        == 1
    )
    assert (
        result(table, "column_values_to_not_be_in_set", column="t", value_set=["2024-01-01"])["result"][
            "unexpected_count"
        ]
        == 1
    )


def test_integers_with_nulls_stay_integers():
    table = pa.table({"i": [50, None, 2**60 + 1]})
    found = result(table, "between", column="i", max_value=60)["result"]
    assert found["partial_unexpected_list"] == [2**60 + 1]
    assert (
        result(table, "column_value_lengths_to_be_between", column="i", min_value=2, max_value=2)["result"][
            "unexpected_count"
        ]
        == 1
    )
    assert (
        result(pa.table({"i": [2**62, 2**62, None]}), "column_sum_to_be_between", column="i", min_value=0)["result"][
            "observed_value"
        ]
        == 2**63
    )


def test_like_patterns_work():
    table = pa.table({"s": ["abc", "a%c", "xyz\n", None]})
    assert result(table, "column_values_to_match_like_pattern", column="s", like_pattern="a%")["result"][
        "partial_unexpected_list"
    ] == ["xyz\n"]
    assert (
        result(table, "column_values_to_match_like_pattern", column="s", like_pattern="a!%c", escape="!")["result"][
            "unexpected_count"
        ]
        == 2
    )
    assert result(table, "column_values_to_not_match_like_pattern", column="s", like_pattern="_b_")["result"][
        "partial_unexpected_list"
    ] == ["abc"]
    assert result(table, "column_values_to_match_like_pattern_list", column="s", like_pattern_list=["a%", "xyz_"])[
        "success"
    ]
    assert result(table, "column_values_to_not_match_like_pattern_list", column="s", like_pattern_list=["q%", "%z"])[
        "success"
    ]


def test_bools_have_an_order():
    assert result(pa.table({"b": [False, False, True]}), "column_values_to_be_increasing", column="b")["success"]
    found = result(pa.table({"b": [False, True, False]}), "column_values_to_be_increasing", column="b")["result"]
    assert found["partial_unexpected_index_list"] == [2]


def test_a_null_is_neither_greater_nor_an_error():
    frame = pd.DataFrame({"a": [True, False], "b": pd.Series([None, 0], dtype=object)})
    found = result(frame, "column_pair_values_a_to_be_greater_than_b", column_A="a", column_B="b", or_equal=True)
    assert found["result"]["unexpected_count"] == 1


def test_nulls_of_different_kinds_are_equal_within_a_record():
    table = pa.table({"a": pa.array([None], pa.float64()), "b": pa.array([None], pa.string())})
    assert (
        result(table, "select_column_values_to_be_unique_within_record", column_list=["a", "b"], ignore_row_if="never")[
            "result"
        ]["unexpected_count"]
        == 1
    )


def test_a_regex_means_what_re_says():
    table = pa.table({"s": ["é", "\u0663", "a\n", "\u212a"]})
    assert result(table, "column_values_to_match_regex", column="s", regex=r"^\w$")["success"]
    assert (
        result(table, "column_values_to_match_regex", column="s", regex=r"\d")["result"]["unexpected_count"] == 3
    )  # U+0663 is a digit
    assert (
        result(table, "column_values_to_match_regex", column="s", regex=r"^a$")["result"]["unexpected_count"] == 3
    )  # $ stands before a last newline
    assert (
        result(table, "column_values_to_match_regex", column="s", regex=r"(?i)k")["result"]["unexpected_count"] == 3
    )  # U+212A is a K


def test_a_text_column_is_in_a_list_with_its_type():
    frame = pd.DataFrame({"s": ["a"]})
    assert result(frame, "column_values_to_be_of_type", column="s", type_="str")["success"]
    assert result(frame, "column_values_to_be_in_type_list", column="s", type_list=["int", "str"])["success"]


def test_severity_decides_and_is_reported():
    table = pa.table({"x": [1]})
    failing = one("between", column="x", min_value=2)
    verdict = validate(table, [{**failing, "severity": "warning"}, one("not_null", column="x")])
    assert verdict.success and verdict.statistics["unsuccessful_expectations"] == 1 and len(verdict.failed) == 1
    assert verdict.to_json_dict()["results"][0]["expectation_config"]["severity"] == "warning"
    assert not validate(table, [failing]).success


def test_counts_are_there_for_values_without_an_order():
    frame = pd.DataFrame({"m": pd.Series([1, "a"], dtype=object)})
    kwargs = {"column": "m", "value_set": [2]}
    assert result(frame, "column_values_to_be_in_set", **kwargs)["result"]["partial_unexpected_counts"] == [
        {"value": 1, "count": 1},
        {"value": "a", "count": 1},
    ]
    assert (
        "partial_unexpected_counts"
        not in gx_result(gx_batch(frame), "expect_column_values_to_be_in_set", kwargs, "SUMMARY")["result"]
    )


def test_what_is_not_evaluated_here_is_handed_over_and_says_so():
    import great_expectations.expectations as gxe

    class ExpectColumnMaxToBeSmall(gxe.ExpectColumnMaxToBeBetween):
        max_value: float = 3

    (found,) = validate(pd.DataFrame({"x": [1, 2]}), ExpectColumnMaxToBeSmall(column="x")).results
    assert found["success"] and found["evaluated"] == "Great Expectations" and found["result"]["observed_value"] == 2
    (refused,) = validate(
        pd.DataFrame({"x": [1]}), gxe.UnexpectedRowsExpectation(unexpected_rows_query="SELECT * FROM {batch}")
    ).results
    assert not refused["success"] and refused["evaluated"] == "Great Expectations"


def test_null_times_are_null_in_json():
    frame = pd.DataFrame({"t": pd.Series([dt.datetime(2024, 1, 1), None, None]), "k": [1, 2, 3]})
    form = {"result_format": "COMPLETE", "unexpected_index_column_names": ["t"]}
    kwargs = {"column": "k", "max_value": 1}
    verdict = validate(frame, one("between", **kwargs), result_format=form).to_json_dict()
    ours = [row["t"] for row in verdict["results"][0]["result"]["unexpected_index_list"]]
    theirs = gx_result(gx_batch(frame), "expect_column_values_to_be_between", kwargs, form)["result"]
    assert ours == [None, None]
    assert [row["t"] for row in theirs["unexpected_index_list"]] == ["NaT", "NaT"]


def test_to_be_null_names_its_index_columns():
    frame = pd.DataFrame({"a": [None, 1.0], "k": [7, 8]})
    form = {"result_format": "COMPLETE", "unexpected_index_column_names": ["k"]}
    kwargs = {"column": "a"}
    ours = result(frame, "column_values_to_be_null", form, **kwargs)["result"]
    theirs = gx_result(gx_batch(frame), "expect_column_values_to_be_null", kwargs, form)["result"]
    assert ours["unexpected_index_column_names"] == ["k"] and ours["unexpected_index_list"] == [{"a": 1.0, "k": 8}]
    assert "unexpected_index_column_names" not in theirs
