"""States are kept beside a dataset, so that a new shard is read alone; footers answer what they can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gristmill
from gristmill.storage.folder import open_folder
from gristmill.storage.parquet import ParquetSettings, ShardWriter
from gristmill.storage.versions import publish
from gristmill.validators.api import validate
from gristmill.validators.bundles import FOLDER
from tests.validators.helpers import one, result
from tests.validators.test_inputs import SUITE, TABLE, stripped

EVERY = [
    *SUITE["expectations"],
    one("column_values_to_be_decreasing", column="x"),
    one("column_distinct_values_to_contain_set", column="s", value_set=["ok", "none"]),
    one("column_stdev_to_be_between", column="x", max_value=80),
    one("column_unique_value_count_to_be_between", column="s", max_value=2),
    one("column_max_to_be_between", column="s", min_value="2024-01-01"),
    one(
        "column_kl_divergence_to_be_less_than",
        column="x",
        threshold=1,
        partition_object={"bins": [0, 100, 250], "weights": [0.5, 0.5]},
    ),
    one(
        "column_kl_divergence_to_be_less_than",
        column="s",
        threshold=1,
        partition_object={"values": ["ok", "wrong"], "weights": [0.5, 0.5]},
    ),
    one("column_values_to_not_be_outliers", column="x", method="iqr", multiplier=0.2),
    one(
        "between",
        column="x",
        min_value=5,
        row_condition={"type": "comparison", "column": {"name": "s"}, "operator": "==", "parameter": "ok"},
    ),
]


def shards(folder, *tables):
    files = []
    for table in tables:
        with ShardWriter(folder, ParquetSettings(row_group_rows=100), table.schema) as writer:
            writer.write(table)
        files += writer.files
    return files


@pytest.fixture
def dataset(tmp_path: Path):
    folder = open_folder(str(tmp_path / "d"))
    publish(folder, shards(folder, TABLE.slice(0, 400), TABLE.slice(400, 300)), TABLE.schema, expected_parent=None)
    return folder


def read_rows(monkeypatch):
    """Counts the rows of the pieces that are read."""
    from gristmill.validators.inputs import Data

    read, whole = [], Data.read
    monkeypatch.setattr(
        Data, "read", lambda self, piece, columns: read.append(piece.rows) or whole(self, piece, columns)
    )
    return read


def test_a_new_shard_is_read_alone_and_the_result_is_the_same(dataset, monkeypatch):
    form = {"result_format": "BOOLEAN_ONLY"}  # results that show values read their rows
    suite = [
        each
        for each in EVERY
        if not any(name in each["type"] for name in ("z_scores", "outliers", "most_common", "distinct_values_to_be_in"))
    ]
    read = read_rows(monkeypatch)
    first = validate(gristmill.open_dataset(dataset), suite, result_format=form)
    assert sum(read) == 700 and {each["evaluated"] for each in first.results} == {"one pass"}
    read.clear()
    again = validate(gristmill.open_dataset(dataset), suite, result_format=form)
    assert not read and {each["evaluated"] for each in again.results} == {"state"}
    assert stripped(again) == stripped(first)
    new = shards(dataset, TABLE.slice(700))
    publish(dataset, [*gristmill.open_dataset(dataset).files(), *new], TABLE.schema, expected_parent=1)
    whole = gristmill.open_dataset(dataset)
    read.clear()
    more = validate(whole, suite, result_format=form)
    assert sum(read) == 300
    assert stripped(more) == stripped(validate(TABLE, suite, result_format=form))
    assert len(more.bad_row_numbers()) == len(validate(TABLE, suite).bad_row_numbers())


def test_rows_that_results_show_come_from_the_states_too(dataset, monkeypatch):
    suite = [
        one("between", column="x", min_value=5),
        one("between", column="x", min_value=100),
        one("not_null", column="x"),
        one("column_values_to_be_in_set", column="s", value_set=["none of these"]),
    ]
    version = gristmill.open_dataset(dataset)
    expected = stripped(validate(version, suite, states=False))
    validate(version, suite)
    read = read_rows(monkeypatch)
    kept = validate(version, suite)
    assert not read and stripped(kept) == expected
    assert any(found["result"]["partial_unexpected_list"] for found in kept.results)
    more = {"result_format": "SUMMARY", "partial_unexpected_count": 30}
    assert len(validate(version, suite[1:2], result_format=more).results[0]["result"]["partial_unexpected_list"]) == 30
    assert read  # more than are kept


def test_long_values_are_read_again_rather_than_kept(tmp_path: Path, monkeypatch):
    folder = open_folder(str(tmp_path / "d"))
    table = pa.table({"s": [f"{i}" * 40_000 for i in range(9)]})
    publish(folder, shards(folder, table), table.schema, expected_parent=None)
    suite = [one("column_value_lengths_to_be_between", column="s", max_value=10)]
    version = gristmill.open_dataset(folder)
    first = validate(version, suite)
    assert max(size for _, size, *_ in folder.list(FOLDER)) < 100_000
    read = read_rows(monkeypatch)
    assert stripped(validate(version, suite)) == stripped(first) and sum(read) == 9


@pytest.mark.parametrize("kind", [pa.uint64(), pa.int64(), pa.int32(), pa.float64(), pa.timestamp("ns")])
def test_order_from_states_is_that_of_the_rows(tmp_path: Path, kind):
    folder = open_folder(str(tmp_path / "d"))
    rng = np.random.default_rng(3)
    low, high = (0, 2**64 - 1) if kind == pa.uint64() else (-(2**31), 2**31 - 1)
    values = rng.integers(low, high, 999, np.uint64 if low == 0 else np.int64)
    if pa.types.is_floating(kind):
        values = np.concatenate([values / 7, [0.0, -0.0, np.inf, -np.inf]])
    table = pa.table({"x": pa.array(values).cast(kind)})
    parts = [table.slice(0, 300), table.slice(300, 1), table.slice(301)]
    publish(folder, shards(folder, *parts), table.schema, expected_parent=None)
    quantiles = {"quantiles": [0.0, 0.01, 0.3, 0.5, 1.0], "value_ranges": [[None, None]] * 5}
    suite = [one("column_quantile_values_to_be_between", column="x", quantile_ranges=quantiles)]
    version = gristmill.open_dataset(folder)
    validate(version, suite)
    kept = validate(version, suite)
    assert kept.results[0]["evaluated"] == "state"
    assert stripped(kept) == stripped(validate(table, suite))


def test_results_from_states_are_those_of_a_scan(dataset):
    version = gristmill.open_dataset(dataset)
    without = validate(version, EVERY, result_format="COMPLETE", states=False)
    assert not dataset.list(FOLDER)
    validate(version, EVERY)
    kept = validate(version, EVERY, result_format="COMPLETE")
    assert stripped(kept) == stripped(without)


def test_a_torn_state_is_worked_out_anew(dataset):
    version = gristmill.open_dataset(dataset)
    expected = stripped(validate(version, EVERY))
    paths = [path for path, *_ in dataset.list(FOLDER)]
    assert len(paths) == 3  # of each shard, and of both together
    contents = [dataset.read_bytes(path) for path in paths]
    for torn in (lambda content: b"", lambda content: content[: len(content) // 2], lambda content: content[:100]):
        for path, content in zip(paths, contents, strict=True):
            dataset.write_atomic(path, torn(content))
        again = validate(version, EVERY)
        assert stripped(again) == expected and {each["evaluated"] for each in again.results} & {"one pass"}


def test_states_of_one_version_serve_another_with_the_shards_in_another_order(dataset):
    version = gristmill.open_dataset(dataset)
    validate(version, EVERY)
    publish(dataset, list(reversed(version.files())), TABLE.schema, expected_parent=1)
    turned = gristmill.open_dataset(dataset)
    assert stripped(validate(turned, EVERY)) == stripped(validate(turned, EVERY, states=False))


def test_footers_answer_without_reading(tmp_path: Path, monkeypatch):
    table = pa.table(
        {
            "i": [3, None, 5],
            "t": pa.array([1, 2, 3], pa.timestamp("us")),
            "f": [1.0, float("nan"), 2.0],
            "s": ["b", "a", "c"],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    read = read_rows(monkeypatch)
    suite = [
        one("table_row_count_to_equal", value=3),
        one("table_columns_to_match_set", column_set=["i", "t", "f", "s"]),
        one("column_max_to_be_between", column="i", min_value=5, max_value=5),
        one("column_min_to_be_between", column="t", min_value="1970-01-01T00:00:00.000001"),
        one("column_proportion_of_non_null_values_to_be_between", column="i", min_value=0.6, max_value=0.7),
        one("column_type_to_be", column="s", type_="str"),
    ]
    verdict = validate(tmp_path, suite)
    assert verdict.success and not read
    assert {each["evaluated"] for each in verdict.results} == {"footer"}
    of_floats = result(tmp_path, "column_proportion_of_non_null_values_to_be_between", column="f", max_value=0.7)
    assert of_floats["success"] and of_floats["evaluated"] == "one pass"  # a footer doesn't count NaN
    twice = result(tmp_path, "column_value_z_scores_to_be_less_than", column="i", threshold=3, double_sided=True)
    assert twice["evaluated"] == "two passes"
