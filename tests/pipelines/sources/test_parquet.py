"""Parquet sources: every row that the file counts is read or quarantined."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.errors import InputError
from gristmill.pipelines.sources import ParquetSource, plan_items, read_item

from .helpers import read


def source(path: object, **options: object) -> ParquetSource:
    return ParquetSource(path=str(path), name="p", **options)


def table_of(rows: int) -> pa.Table:
    return pa.table(
        {
            "text": [f"text {i} " + "x" * (i % 50) for i in range(rows)],
            "n": list(range(rows)),
            "l": [[i] * (i % 3) for i in range(rows)],
        }
    )


@pytest.mark.parametrize(("item_bytes", "chunk_bytes"), [(1, 1), (5000, 2000), (1 << 30, 1 << 30)])
def test_rows_come_in_order_whatever_the_cutting(tmp_path, item_bytes, chunk_bytes):
    for name, rows in [("b", 1000), ("a", 10), ("c", 0)]:
        pq.write_table(table_of(rows), tmp_path / f"{name}.parquet", row_group_size=64)
    one = source(tmp_path)
    rows, places, bad = read(one, plan_items(one, item_bytes=item_bytes), chunk_bytes=chunk_bytes)
    assert rows == [*table_of(10).to_pylist(), *table_of(1000).to_pylist()] and not bad
    assert places[0] == f"{tmp_path}/a.parquet:row 0" and places[-1] == f"{tmp_path}/b.parquet:row 999"


def test_chunks_are_bounded(tmp_path):
    pq.write_table(
        pa.table({"text": ["x" * 1000 + str(i) for i in range(5000)]}), tmp_path / "a.parquet", use_dictionary=False
    )
    one = source(tmp_path)
    sizes = [chunk.table.nbytes for chunk in read_item(one, plan_items(one)[0], chunk_bytes=100_000)]
    assert len(sizes) >= 50 and max(sizes) < 130_000


def test_corrupt_row_group_is_quarantined_and_the_others_survive(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(
        table_of(300), path, row_group_size=100, compression="none", use_dictionary=False, write_page_checksum=True
    )
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    rows, places, bad = read(source(path))
    whole = table_of(300).to_pylist()
    assert rows == whole[:100] + whole[200:] and places[100] == f"{path}:row 200"
    assert [b["position"] for b in bad] == [f"{path}:row {i}" for i in range(100, 200)]
    assert {b["reason"] for b in bad} == {"corrupt_row_group"} and "row group 1" in bad[0]["detail"]


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1 nonsense PAR1", b"PAR1" + b"\xff" * 100 + b"\x10\x00\x00\x00PAR1"]
)
def test_file_that_is_no_parquet_is_one_bad_record(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    rows, _, bad = read(source(tmp_path))
    assert rows == [] and [(b["reason"], b["position"], b["raw_bytes"]) for b in bad] == [
        ("unreadable_file", f"{tmp_path}/a.parquet", len(content))
    ]


def test_text_that_is_not_utf8_costs_only_its_rows(tmp_path):
    raw = pa.array([b"fine", b"na\xefve", None, "na\u00efve".encode()])
    bad_text = pa.Array.from_buffers(pa.string(), 4, raw.buffers())
    pq.write_table(pa.table({"t": bad_text, "n": [0, 1, 2, 3]}), tmp_path / "a.parquet")
    rows, places, bad = read(source(tmp_path))
    assert [row["n"] for row in rows] == [0, 2, 3] and [place.rsplit(" ", 1)[1] for place in places] == ["0", "2", "3"]
    assert [(b["reason"], b["raw"], b["position"].rsplit(" ", 1)[1]) for b in bad] == [("bad_utf8", b"na\xefve", "1")]


def test_declared_types_are_cast_and_misfits_quarantined(tmp_path):
    pq.write_table(
        pa.table({"n": ["1", "two", None, "300"], "big": [1, 2, 3, 2**53 + 1], "when": [0, 1, 2, 3]}),
        tmp_path / "a.parquet",
    )
    rows, places, bad = read(source(tmp_path, schema={"n": "int16", "big": "double", "when": "timestamp[s]"}))
    assert (
        [row["n"] for row in rows] == [1, None, 300]
        and rows[2]["big"] == float(2**53)
        and rows[0]["when"] == datetime.datetime(1970, 1, 1)
    )
    assert [(b["reason"], b["raw"]) for b in bad] == [("wrong_type", b"two")] and "'two' is no int16" in bad[0][
        "detail"
    ]
    assert [place.rsplit(" ", 1)[1] for place in places] == ["0", "2", "3"]


def test_two_columns_of_one_name_are_refused(tmp_path):
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="two columns named 'a'"):
        read(source(tmp_path))


def test_file_that_changes_under_the_run_is_refused(tmp_path):
    pq.write_table(table_of(10), tmp_path / "a.parquet")
    items = plan_items(source(tmp_path))
    pq.write_table(table_of(20), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has changed"):
        read(source(tmp_path), items)


HUGE = "large_string_map.brotli.parquet"  # two texts of a gigabyte


@pytest.mark.slow
def test_texts_of_a_gigabyte(shared_data):
    one = source(shared_data / "parquet_testing" / "data" / HUGE)
    assert sum(chunk.table.num_rows for item in plan_items(one) for chunk in read_item(one, item)) == 2


def test_every_file_of_the_format_s_own_test_set_is_accounted_for(shared_data):
    files = sorted(path for path in (shared_data / "parquet_testing").rglob("*.parquet") if path.name != HUGE)
    assert len(files) > 60
    broken = {}
    for path in files:
        chunks = [chunk for item in plan_items(source(path)) for chunk in read_item(source(path), item)]
        reasons = pa.concat_tables([chunk.bad for chunk in chunks])["reason"].unique().to_pylist() if chunks else []
        if "unreadable_file" not in reasons:
            metadata = pq.ParquetFile(path).metadata
            found = sum(chunk.table.num_rows + chunk.bad.num_rows for chunk in chunks)
            assert found == sum(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)), path
        if reasons:
            broken[path.name] = reasons[0]
    assert (
        broken["datapage_v1-corrupt-checksum.parquet"] == "corrupt_row_group"
        and broken["PARQUET-1481.parquet"] == "unreadable_file"
    )
    assert all(
        "corrupt" in name or name.startswith(("ARROW-", "PARQUET-")) or name == "incorrect_map_schema.parquet"
        for name in broken
    )
