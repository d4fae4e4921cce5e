"""Estimates: only on request, with a bound that holds, the same however rows are cut up to that bound."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gristmill
from gristmill.cli.main import app
from gristmill.storage.folder import open_folder
from gristmill.storage.parquet import ParquetSettings, ShardWriter
from gristmill.storage.versions import publish
from gristmill.validators.api import validate
from gristmill.validators.inputs import of_tables
from tests.validators.helpers import one

ROWS = 200_000
RNG = np.random.default_rng(5)
TABLE = pa.table(
    {
        "id": [f"u{number}" for number in RNG.permutation(ROWS)],
        "n": RNG.integers(0, 50_000, ROWS),
        "x": RNG.lognormal(0, 2, ROWS),
        "t": pa.array(RNG.integers(0, 10**18, ROWS), pa.timestamp("ns")),
    }
)
SHARES = [0.01, 0.25, 0.5, 0.9, 0.999]
QUANTILES = {"quantiles": SHARES, "value_ranges": [[None, None]] * len(SHARES)}
SUITE = [
    one("column_unique_value_count_to_be_between", column="id", min_value=1),
    one("column_unique_value_count_to_be_between", column="n", min_value=1),
    one("column_proportion_of_unique_values_to_be_between", column="id", min_value=0.9),
    one("column_median_to_be_between", column="x", min_value=0),
    one("column_quantile_values_to_be_between", column="x", quantile_ranges=QUANTILES),
    one("column_quantile_values_to_be_between", column="t", quantile_ranges=QUANTILES),
]


@pytest.mark.parametrize("cuts", [1, 7])
def test_estimates_lie_within_the_error_that_they_state(cuts):
    step = -(-ROWS // cuts)
    data = of_tables([TABLE.slice(start, step) for start in range(0, ROWS, step)], "table")
    results = validate(data, SUITE, approximate=True).results
    for found, exact in ((results[0], ROWS), (results[1], len(TABLE["n"].unique()))):
        error = found["approximate"]["relative_standard_error"]
        assert 0 < error < 0.01
        assert abs(found["result"]["observed_value"] / exact - 1) < 4 * error
    assert results[1]["result"]["observed_value"] != 49_130  # no exact count under another name
    assert 0.96 < results[2]["result"]["observed_value"] <= 1
    for found, column in ((results[4], "x"), (results[5], "t")):
        error = found["approximate"]["rank_error"]
        assert 0 < error < 0.01
        ordered = np.sort(TABLE[column].to_numpy())
        for share, value in zip(SHARES, found["result"]["observed_value"]["values"], strict=True):
            moment = np.datetime64(value, "ns") if isinstance(value, dt.datetime) else value
            low, high = np.searchsorted(ordered, moment, "left"), np.searchsorted(ordered, moment, "right")
            assert low / ROWS - error - 2 / ROWS <= share <= high / ROWS + error + 2 / ROWS


def test_without_being_asked_for_nothing_is_estimated():
    verdict = validate(TABLE, SUITE)
    assert not any("approximate" in found for found in verdict.results)
    assert [found["result"]["observed_value"] for found in verdict.results[:3]] == [ROWS, 49_130, 1.0]
    assert verdict.results[3]["result"]["observed_value"] == np.median(TABLE["x"].to_numpy())


def test_few_values_have_exact_quantiles_and_say_nothing_of_an_estimate():
    small = TABLE.slice(0, 999)
    (found,) = validate(small, SUITE[3:4], approximate=True).results
    assert found["result"]["observed_value"] == np.median(small["x"].to_numpy()) and "approximate" not in found


def test_failing_rows_are_exact_all_the_same():
    twice = pa.concat_tables([TABLE, TABLE.slice(3, 2)])
    verdict = validate(twice, [one("unique", column="id")], approximate=True)
    assert verdict.bad_row_numbers().to_numpy().tolist() == [3, 4, ROWS, ROWS + 1]
    assert "approximate" not in verdict.results[0]


def test_states_of_estimates_are_kept_apart_from_exact_ones(tmp_path: Path):
    folder = open_folder(str(tmp_path / "d"))
    files = []
    for start in (0, 100_000):
        with ShardWriter(folder, ParquetSettings(row_group_rows=20_000), TABLE.schema) as writer:
            writer.write(TABLE.slice(start, 100_000))
        files += writer.files
    publish(folder, files, TABLE.schema, expected_parent=None)
    dataset = gristmill.open_dataset(folder)
    first = validate(dataset, SUITE, approximate=True).results
    again = validate(dataset, SUITE, approximate=True).results
    assert {found["evaluated"] for found in again} == {"state"}
    assert [found["result"] for found in again] == [found["result"] for found in first]
    assert [found.get("approximate") for found in again] == [found.get("approximate") for found in first]
    assert validate(dataset, SUITE).results[0]["result"]["observed_value"] == ROWS


def test_an_estimated_verdict_is_printed_and_not_kept(tmp_path: Path, capsys):
    folder = open_folder(str(tmp_path / "d"))
    with ShardWriter(folder, ParquetSettings(), TABLE.schema) as writer:
        writer.write(TABLE)
    publish(folder, writer.files, TABLE.schema, expected_parent=None)
    (tmp_path / "suite.json").write_text(json.dumps({"name": "s", "expectations": SUITE[:1]}))
    command = ["validate", str(tmp_path / "d"), "--suite", str(tmp_path / "suite.json"), "--json", "--approximate"]
    app(command, standalone_mode=False)
    printed = json.loads(capsys.readouterr().out)
    assert printed["results"][0]["approximate"]["method"] == "HyperLogLog" and "path" not in printed
    assert not gristmill.open_dataset(folder).verdicts


def test_a_frame_in_dask_is_estimated_where_it_is():
    dd = pytest.importorskip("dask.dataframe")
    frame = dd.from_pandas(TABLE.select(["id", "x"]).to_pandas(), npartitions=3)
    for found in validate(frame, [SUITE[0], SUITE[3]], approximate=True).results:
        assert found["success"] and found["approximate"]


def test_a_parquet_file_in_many_pieces(tmp_path: Path):
    pq.write_table(TABLE, tmp_path / "a.parquet", row_group_size=10_000)
    (found,) = validate(tmp_path, SUITE[3:4], approximate=True).results
    assert found["approximate"]["rank_error"] < 0.001
