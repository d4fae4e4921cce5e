"""What can be wrong with a suite or its data: each is a clear error, or a named failure; never a pass."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.errors import InputError, InputNotFoundError, SchemaMismatchError, SuiteError, UsageError
from gristmill.validators import accumulators
from gristmill.validators.api import validate
from gristmill.validators.inputs import of_tables
from tests.validators.helpers import message, one, result

TABLE = pa.table({"name": ["a", "b"], "age": [1, 2]})


def test_a_missing_column_is_a_failure_that_names_the_nearest():
    found = result(TABLE, "not_null", column="nmae")
    assert not found["success"]
    assert message(found) == "Error: The column \"nmae\" in BatchData does not exist. Did you mean 'name'?"


def test_a_missing_column_of_a_row_condition_fails_the_expectation():
    condition = {"type": "nullity", "column": {"name": "agee"}, "is_null": False}
    found = result(TABLE, "not_null", column="name", row_condition=condition)
    assert not found["success"] and "Did you mean 'age'?" in message(found)


def test_asking_great_expectations_ends_no_process_whose_main_module_has_no_file():
    code = """
import gristmill, pyarrow
try:
    gristmill.validate(pyarrow.table({"a": [1]}), {"expectations": [{"type": "expect_nothing"}]})
except gristmill.errors.SuiteError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("unknown expectation 'expect_nothing'") and "FutureWarning" not in done.stderr


def test_an_unknown_expectation():
    with pytest.raises(
        SuiteError,
        match=r"unknown expectation 'expect_column_values_to_be_nul'. Did you mean 'expect_column_values_to_be_null'\?",
    ):
        validate(TABLE, one("column_values_to_be_nul", column="name"))


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"column": "age", "min_valeu": 1}, "unknown parameter 'min_valeu'. Did you mean 'min_value'?"),
        ({"min_value": 1}, "parameter 'column' is missing"),
        ({"column": "age", "min_value": "many"}, "min_value: expected a number, a date or a time, got 'many'"),
        ({"column": "age", "min_value": 1, "mostly": 2}, "mostly: Input should be less than or equal to 1, got 2"),
        (
            {"column": "age", "min_value": 1, "row_condition": "age ~ 3"},
            "row_condition 'age ~ 3': expected col(\"name\")",
        ),
    ],
)
def test_a_wrong_parameter(kwargs, text):
    with pytest.raises(SuiteError, match="expect_column_values_to_be_between|row_condition") as caught:
        validate(TABLE, one("between", **kwargs))
    assert text in str(caught.value)


def test_a_suite_that_is_none(tmp_path: Path):
    with pytest.raises(SuiteError, match="a suite is"):
        validate(TABLE, 3)
    (tmp_path / "latin.json").write_bytes(b'{"name": "\xe4"}')
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "latin.json", "not UTF-8")):
        with pytest.raises(InputError, match=f"can't read the suite .*{reason}"):
            validate(TABLE, path)
    with pytest.raises(InputNotFoundError, match="no suite at"):
        validate(TABLE, tmp_path / "none.json")
    (tmp_path / "torn.json").write_text('{"name": "x", "expectations": [')
    with pytest.raises(SuiteError, match="is not JSON: line 1"):
        validate(TABLE, tmp_path / "torn.json")
    with pytest.raises(SuiteError, match="expectation 1 has no 'type'"):
        validate(TABLE, [{"kwargs": {}}])
    (tmp_path / "typeless.json").write_text('{"name": "x", "expectations": [{"kwargs": {}}]}')
    with pytest.raises(SuiteError, match=r"typeless\.json': expectation 1 has no 'type'"):
        validate(TABLE, tmp_path / "typeless.json")
    with pytest.raises(SuiteError, match="severity 'fatal' is none of"):
        validate(TABLE, {"type": "expect_table_row_count_to_equal", "kwargs": {"value": 2}, "severity": "fatal"})


def test_a_suite_parameter_without_a_value():
    suite = one("between", column="age", min_value={"$PARAMETER": "low"})
    with pytest.raises(SuiteError, match="no value for the parameter 'low'"):
        validate(TABLE, suite)
    assert validate(TABLE, suite, expectation_parameters={"low": 1}).success
    assert not validate(
        TABLE, one("between", column="age", min_value={"$PARAMETER": "2 * low"}), expectation_parameters={"low": 1}
    ).success


@pytest.mark.parametrize(
    "form", ["SUMARY", {"result_format": "BASIC", "partial_count": 3}, {"include_unexpected_rows": True}]
)
def test_a_wrong_result_format(form):
    with pytest.raises(SuiteError, match="result_format"):
        validate(TABLE, one("not_null", column="name"), result_format=form)


EVERY = [
    ("column_values_to_not_be_null", {}, True),
    ("column_values_to_be_between", {"min_value": 1}, True),
    ("column_values_to_be_unique", {}, True),
    ("column_values_to_be_increasing", {}, True),
    ("column_value_z_scores_to_be_less_than", {"threshold": 1, "double_sided": True}, True),
    ("column_values_to_not_be_outliers", {}, True),
    ("column_max_to_be_between", {"min_value": 0}, False),
    ("column_mean_to_be_between", {"min_value": 0}, False),
    ("column_sum_to_be_between", {"min_value": 0}, True),
    ("column_median_to_be_between", {"min_value": 0}, False),
    ("column_unique_value_count_to_be_between", {"max_value": 0}, True),
    ("column_most_common_value_to_be_in_set", {"value_set": [1]}, False),
    ("column_distinct_values_to_contain_set", {"value_set": [1]}, False),
    (
        "column_quantile_values_to_be_between",
        {"quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0, 1]]}},
        False,
    ),
]


@pytest.mark.parametrize(("kind", "kwargs", "success"), EVERY)
def test_an_empty_dataset_and_an_all_null_column(kind, kwargs, success):
    empty = pa.table({"x": pa.array([], pa.float64())})
    assert result(empty, kind, column="x", **kwargs)["success"] is success
    null = result(pa.table({"x": pa.array([None, None], pa.float64())}), kind, column="x", **kwargs)
    assert null["success"] is (False if kind.endswith("not_be_null") else success)
    untyped = result(pa.table({"x": pa.nulls(2)}), kind, column="x", **kwargs)
    assert untyped["success"] is null["success"]


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing of the kind PAR1")
    with pytest.raises(InputError, match=r"bad.parquet' is not a readable Parquet file"):
        validate(tmp_path / "bad.parquet", one("not_null", column="x"))
    with pytest.raises(InputNotFoundError, match="no such file"):
        validate(tmp_path / "none.parquet", one("not_null", column="x"))
    with pytest.raises(UsageError, match="can't validate a int"):
        validate(3, one("not_null", column="x"))


def test_a_shard_with_a_flipped_bit_fails_all_that_read_it_and_is_named(tmp_path: Path):
    for name in ("a", "b"):
        pq.write_table(
            pa.table({"x": list(range(5000)), "y": ["z"] * 5000}),
            tmp_path / f"{name}.parquet",
            write_page_checksum=True,
            use_dictionary=False,
        )
    content = bytearray((tmp_path / "b.parquet").read_bytes())
    content[200] ^= 1
    (tmp_path / "b.parquet").write_bytes(content)
    verdict = validate(
        tmp_path,
        [one("between", column="x", min_value=0), one("column_values_to_be_in_set", column="y", value_set=["z"])],
    )
    broken, fine = verdict.results
    assert not verdict.success and not broken["success"]
    assert "b.parquet' can't be read, rows 0 to 5,000" in message(broken)
    assert not fine["success"]  # columns of one piece are read together


@pytest.mark.parametrize("regex", [r"^(a+)+$", r"^(a|a)*b$", r"(x+x+)+y"])
def test_a_regex_that_backtracks_for_ever_elsewhere_is_linear_here(regex):
    started = time.monotonic()
    found = result(
        pa.table({"t": ["a" * 5000 + "!", "x" * 5000]}), "column_values_to_match_regex", column="t", regex=regex
    )
    assert found["result"]["unexpected_count"] == 2
    assert time.monotonic() - started < 30  # `re` would take for ever


def test_a_regex_that_only_re_can_match_is_stopped_and_named():
    table = pa.table({"t": ["fine", "a" * 60 + "!"]})
    found = result(table, "column_values_to_match_regex", column="t", regex=r"^((a+)+)\2$")
    assert not found["success"]
    assert "backtracks for more than" in message(found) and "aaaa" in message(found)


def test_a_regex_that_is_none():
    found = result(TABLE, "column_values_to_match_regex", column="name", regex="(a")
    assert not found["success"] and "unterminated subpattern" in message(found)


def test_files_with_different_schemas(tmp_path: Path):
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [0.5]}), tmp_path / "b.parquet")
    assert result(tmp_path, "column_sum_to_be_between", column="x", min_value=3.5, max_value=3.5)["success"]
    pq.write_table(pa.table({"x": ["text"]}), tmp_path / "c.parquet")
    with pytest.raises(SchemaMismatchError, match=r"column 'x' is double in .* and string in .*c.parquet'"):
        validate(tmp_path, one("not_null", column="x"))
    pq.write_table(pa.table({"y": [1]}), tmp_path / "c.parquet")
    with pytest.raises(SchemaMismatchError, match=r"'.*c.parquet' has no column 'x'"):
        validate(tmp_path, one("not_null", column="x"))


def test_columns_with_one_name():
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(SchemaMismatchError, match="several columns are called 'a'"):
        validate(frame, one("not_null", column="a"))


def test_ten_thousand_columns_and_a_suite_of_a_thousand(tmp_path: Path):
    wide = pa.table({f"c{i}": [i, i + 1] for i in range(10_000)})
    pq.write_table(wide, tmp_path / "wide.parquet")
    suite = [one("between", column=f"c{i * 10}", min_value=0, max_value=9990) for i in range(1000)]
    for data in (wide, tmp_path / "wide.parquet"):
        verdict = validate(data, suite)
        assert len(verdict.results) == 1000 and sum(each["success"] for each in verdict.results) == 999
        assert not verdict.results[999]["success"] and verdict.results[999]["result"]["partial_unexpected_list"] == [
            9991
        ]


def test_a_thousand_expectations_on_one_column():
    suite = [one("between", column="age", min_value=0, max_value=i) for i in range(1000)]
    verdict = validate(TABLE, suite)
    assert verdict.statistics["successful_expectations"] == 998
    assert len({each["expectation_config"]["id"] for each in verdict.results}) == 1000


def test_more_categories_than_can_be_counted_are_refused(monkeypatch):
    monkeypatch.setattr(accumulators, "MOST_COUNTED", 50)
    suite = [one("column_kl_divergence_to_be_less_than", column="x", bucketize_data=False, threshold=1)]
    assert validate(pa.table({"x": list(range(50)) * 2}), suite).success
    for tables in ([pa.table({"x": list(range(51))})], [pa.table({"x": range(40)}), pa.table({"x": range(20, 60)})]):
        (found,) = validate(of_tables([each.cast(pa.schema({"x": pa.int64()})) for each in tables], "t"), suite).results
        assert not found["success"] and "'x' has more than 50 different values" in message(found)
        assert "give a partition_object with bins" in message(found)
