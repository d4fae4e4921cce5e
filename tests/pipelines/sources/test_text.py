"""Text files, frames, and the models of sources."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from gristmill.errors import InputError, PipelineError
from gristmill.pipelines.sources import FrameSource, JsonlSource, TextSource, plan_items, store_frame
from gristmill.pipelines.work import WorkStore

from .helpers import read, write


def test_each_file_is_a_document(tmp_path):
    wanted = {
        "a.txt": b"one\r\ntwo",
        "b.txt": b"",
        "c.md": b"\xef\xbb\xbfmarked",
        "d.txt": "na\u00efve \U0001f600 \x00".encode(),
    }
    for name, content in wanted.items():
        write(tmp_path / name, content)
    for chunk_bytes in (1, 1 << 20):
        rows, places, bad = read(TextSource(path=str(tmp_path), name="t"), chunk_bytes=chunk_bytes)
        assert [row["text"].encode() for row in rows] == [b"one\r\ntwo", b"", b"marked", wanted["d.txt"]] and not bad
        assert [row["file"] for row in rows] == places == [str(tmp_path / name) for name in wanted]


def test_files_that_are_not_utf8_or_too_long(tmp_path):
    write(tmp_path / "a.txt", b"fine")
    write(tmp_path / "b.txt", b"caf\xe9 au lait")
    write(tmp_path / "c.txt", b"x" * 5000)
    rows, _, bad = read(TextSource(path=str(tmp_path), name="t", max_record_bytes=4000))
    assert [row["text"] for row in rows] == ["fine"]
    assert [(b["reason"], b["raw_bytes"], len(b["raw"])) for b in bad] == [
        ("bad_utf8", 12, 12),
        ("file_too_long", 5000, 1024),
    ]
    assert "0xe9 at 3" in bad[0]["detail"] and bad[0]["position"] == str(tmp_path / "b.txt")


def test_text_file_that_changes_under_the_run(tmp_path):
    path = write(tmp_path / "a.txt", b"one")
    text = TextSource(path=path, name="t")
    items = plan_items(text)
    write(tmp_path / "a.txt", b"other")
    with pytest.raises(InputError, match=r"a\.txt' has changed"):
        read(text, items)


@pytest.mark.parametrize("kind", ["arrow", "batch", "pandas", "polars"])
@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_frames_keep_their_rows_in_order(tmp_path, kind, rows):
    table = pa.table({"n": np.arange(rows), "t": pa.array([f"row {i}" for i in range(rows)], pa.string())})
    frame = table
    if kind == "batch":
        frame = table.combine_chunks().to_batches()[0] if rows else pa.RecordBatch.from_pylist([], schema=table.schema)
    elif kind == "pandas":
        frame = table.to_pandas()
    elif kind == "polars":
        frame = pytest.importorskip("polars").from_arrow(table)
    stored = store_frame(FrameSource(name="docs"), frame, WorkStore(str(tmp_path)))
    found, places, bad = read(stored, plan_items(stored, item_bytes=500), chunk_bytes=100)
    assert found == table.to_pylist() and not bad
    assert places == [f"docs:row {i}" for i in range(rows)]
    assert not list(tmp_path.glob(".tmp-*"))


def test_frames_that_are_none(tmp_path):
    with pytest.raises(PipelineError, match=r"inputs\['docs'\] is a list, expected a pandas"):
        store_frame(FrameSource(name="docs"), [1, 2], WorkStore(str(tmp_path)))


def test_names_and_options_of_sources():
    assert JsonlSource(path="raw/web.jsonl.gz").name == "web"
    assert JsonlSource(path="raw/*.jsonl.gz").name == "raw"
    assert JsonlSource(path=["raw/docs-*.jsonl", "x.jsonl"]).name == "docs-"
    for wrong in (
        {"path": ""},
        {"path": []},
        {"path": "a", "colour": 1},
        {"path": "a", "max_record_bytes": 0},
        {"path": "a", "schema": {"x": "int65"}},
        {},
    ):
        with pytest.raises(ValidationError):
            JsonlSource(**wrong)
    one = JsonlSource(path="a.jsonl", schema={"x": "list<int32>"})
    assert one.declared() == pa.schema([("x", pa.list_(pa.int32()))])
    with pytest.raises(ValidationError):
        one.name = "other"
