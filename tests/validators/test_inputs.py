"""One suite over the same rows as frames, files and dataset versions: one result, wherever the rows are cut."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import gristmill
from gristmill.validators.api import validate
from gristmill.validators.inputs import of_tables, open_data
from tests.validators.helpers import bad, one

ROWS = 1000
TABLE = pa.table(
    {
        "id": [i if i != 777 else 3 for i in range(ROWS)],
        "x": [None if i % 50 == 0 else i / 4 for i in range(ROWS)],
        "s": ["ok" if i % 100 else "wrong" for i in range(ROWS)],
    }
)
SUITE = {
    "name": "s",
    "expectations": [
        one("unique", column="id"),
        one("between", column="x", min_value=1, max_value=240),
        one("column_values_to_match_regex", column="s", regex="^ok$", mostly=0.9),
        one("column_values_to_be_increasing", column="id"),
        one("column_mean_to_be_between", column="x", min_value=100, max_value=150),
        one("column_median_to_be_between", column="x", min_value=100, max_value=150),
        one("column_value_z_scores_to_be_less_than", column="x", threshold=1.7, double_sided=True),
        one("column_distinct_values_to_be_in_set", column="s", value_set=["ok"]),
        one("column_most_common_value_to_be_in_set", column="s", value_set=["ok"]),
        one("compound_columns_to_be_unique", column_list=["id", "s"]),
    ],
}


def stripped(verdict):
    found = verdict.to_json_dict()["results"]
    return json.dumps(
        [{key: value for key, value in each.items() if key != "evaluated"} for each in found], sort_keys=True
    )


EXPECTED = stripped(validate(TABLE, SUITE, result_format="COMPLETE"))


def write(folder: Path, ending: str) -> Path:
    for i, part in enumerate((TABLE.slice(0, 300), TABLE.slice(300, 1), TABLE.slice(301))):
        path = str(folder / f"part-{i}.{ending}")
        if ending == "parquet":
            pq.write_table(part, path, row_group_size=97)
        elif ending == "csv":
            pyarrow.csv.write_csv(part, path)
        else:
            Path(path).write_text("".join(json.dumps(row) + "\n" for row in part.to_pylist()))
    return folder


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_files(tmp_path: Path, ending: str):
    folder = write(tmp_path, ending)
    for data in (folder, str(folder / f"*.{ending}"), sorted(map(str, folder.iterdir()))):
        verdict = validate(data, SUITE, result_format="COMPLETE")
        assert stripped(verdict) == EXPECTED
    assert [rows for _, rows in verdict.shards] == [300, 1, 699]


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t.to_pandas(),
        pl.from_arrow,
        lambda t: pl.from_arrow(t).lazy(),
        lambda t: t.combine_chunks().to_batches()[0],
    ],
)
def test_frames(make):
    assert stripped(validate(make(TABLE), SUITE, result_format="COMPLETE")) == EXPECTED


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [1, 7, 100, 999])
def test_the_cut_does_not_matter(size, threads):
    tables = [TABLE.slice(start, size) for start in range(0, ROWS, size)]
    verdict = validate(of_tables(tables, "t"), SUITE, result_format="COMPLETE", threads=threads)
    assert stripped(verdict) == EXPECTED


def test_hashes_and_numbers_over_the_memory_limit_go_to_disk():
    tables = [TABLE.slice(start, 100) for start in range(0, ROWS, 100)]
    assert stripped(validate(of_tables(tables, "t"), SUITE, result_format="COMPLETE", memory=500)) == EXPECTED


def test_a_dask_frame():
    import dask.dataframe as dd

    frame = dd.from_pandas(TABLE.to_pandas(), npartitions=4)
    verdict = validate(frame, SUITE, result_format="COMPLETE")
    assert stripped(verdict) == EXPECTED and len(verdict.shards) == 4
    categories = [one("column_kl_divergence_to_be_less_than", column="s", bucketize_data=False, threshold=0.1)]
    found = validate(frame, categories)
    assert found.success and stripped(found) == stripped(validate(TABLE, categories))


def test_a_dataset_version_and_its_splits(tmp_path: Path):
    write(tmp_path / "raw" if (tmp_path / "raw").mkdir() is None else tmp_path, "parquet")
    pipeline = {
        "name": "d",
        "sources": [{"kind": "parquet", "path": str(tmp_path / "raw"), "name": "raw"}],
        "output": {"path": str(tmp_path / "out")},
        "split": {"train": 0.8, "test": 0.2},
    }
    gristmill.run(pipeline)
    dataset = gristmill.open_dataset(tmp_path / "out")
    suite = [one("not_null", column="s"), one("column_sum_to_be_between", column="x", min_value=1)]
    whole = validate(str(tmp_path / "out"), suite)
    assert whole.success and whole.num_rows == dataset.num_rows and whole.fingerprint == dataset.fingerprint
    assert validate(f"{tmp_path}/out@1", suite).fingerprint == whole.fingerprint
    part = validate(dataset, suite, split="test")
    assert part.num_rows == dataset.splits["test"] and part.fingerprint is None


def test_bad_rows_have_their_place_and_all_their_expectations():
    tables = [TABLE.slice(0, 300), TABLE.slice(300)]
    suite = [
        dict(each, id=name) for each, name in zip(SUITE["expectations"][:3], ("unique", "range", "text"), strict=True)
    ]
    verdict = validate(of_tables(tables, "t"), suite)
    found = bad(verdict)
    assert [row["row"] for row in found] == sorted({row["row"] for row in found})
    assert {row["row"]: row["expectations"] for row in found}[3] == ["unique", "range"]
    last = found[-1]
    assert (last["row"], last["shard"], last["shard_row"], last["expectations"]) == (999, "t[1]", 699, ["range"])
    texts = [row["row"] for row in found if "text" in row["expectations"]]
    assert texts == list(range(0, ROWS, 100))
    assert verdict.results[2]["success"]  # mostly lets them pass
    assert not [
        row
        for table in verdict.bad_rows(failed_only=True)
        for row in table.to_pylist()
        if "text" in row["expectations"]
    ]
    assert len(verdict.bad_row_numbers()) == len(found)


def test_every_bad_row_is_listed_however_many():
    rows = 300_000
    verdict = validate(pa.table({"x": list(range(rows))}), one("between", column="x", min_value=rows))
    assert sum(table.num_rows for table in verdict.bad_rows()) == rows
    assert len(verdict.results[0]["result"]["partial_unexpected_list"]) == 20


def test_rows_of_a_pandas_frame_are_called_by_its_index():
    frame = pd.DataFrame({"x": [1, 9, 3]}, index=["a", "b", "c"])
    (found,) = validate(frame, one("between", column="x", max_value=5), result_format="COMPLETE").results
    assert found["result"]["unexpected_index_list"] == ["b"]
    assert found["result"]["unexpected_index_query"] == "df.filter(items=['b'], axis=0)"


def test_batches_are_for_other_uses_too(tmp_path: Path):
    data = open_data(write(tmp_path, "parquet"))
    batches = list(data.batches(["id"]))
    assert sum(batch.table.num_rows for batch in batches) == ROWS
    assert [(batch.shard, batch.offset, batch.first) for batch in batches][-1][2] >= 301
    assert all(batch.table.column("id")[0].as_py() in (batch.first, 3) for batch in batches)


@pytest.mark.slow
def test_a_spark_frame(monkeypatch):
    pytest.importorskip("pyspark")
    import shutil

    if not shutil.which("java"):
        pytest.skip("Spark needs Java")
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    try:
        frame = spark.createDataFrame(TABLE).repartitionByRange(3, "id").sortWithinPartitions("id", "x")
        verdict = validate(frame, SUITE, result_format="COMPLETE")
        again = validate(frame.toArrow(), SUITE, result_format="COMPLETE")
        assert stripped(verdict) == stripped(again)
        assert len(verdict.shards) == 3
    finally:
        spark.stop()
