"""CSV: records by their quotes, text unless declared, every record kept or quarantined with its place."""

from __future__ import annotations

import csv
import gzip
import json
import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gristmill
from gristmill.errors import InputError, PipelineError
from gristmill.kernels.csv import csv_records
from gristmill.pipelines.loading import load_pipeline
from gristmill.pipelines.sources import CsvSource, plan_items

from .helpers import read, write


def source(path, **options) -> CsvSource:
    return CsvSource(path=str(path), name="c", **options)


def test_rows_nulls_quotes_and_positions(tmp_path):
    content = b'\xef\xbb\xbfid,text,n\r\n1,plain,5\r\n2,"quoted, with ""quotes""\nand a line",\r\n\r\n3,"",\xc3\xa9 5" pipe\r\n4,,7'
    rows, places, bad = read(source(write(tmp_path / "in.csv", content)))
    assert rows == [
        {"id": "1", "text": "plain", "n": "5"},
        {"id": "2", "text": 'quoted, with "quotes"\nand a line', "n": None},
        {"id": "3", "text": "", "n": 'é 5" pipe'},
        {"id": "4", "text": None, "n": "7"},
    ]
    starts = [content.index(start) for start in (b"1,plain", b'2,"', b"3,", b"4,,")]
    assert places == [f"{tmp_path}/in.csv:byte {start}" for start in starts] and bad == []


def test_other_delimiters_quotes_and_names(tmp_path):
    path = write(tmp_path / "in.tsv", b"1\tit's 'quoted\n2\t'a\tb'\n")
    rows, _, bad = read(source(path, delimiter="\t", quote="'", columns=["id", "text"]))
    assert rows == [{"id": "1", "text": "it's 'quoted"}, {"id": "2", "text": "a\tb"}] and bad == []
    rows, _, _ = read(source(path, delimiter="\t", quote="", columns=["id", "text", "more"]))
    assert rows == [{"id": "2", "text": "'a", "more": "b'"}]


def test_declared_types_and_misfits(tmp_path):
    path = write(
        tmp_path / "in.csv",
        b"id,n,when,ok\na,1,2024-01-02 03:04:05,true\nb,x,2024-01-02,false\nc,,,\nd,2.5,2024-01-02,true\ne,3,never,true\n",
    )
    declared = {"n": "int64", "when": "timestamp[s]", "ok": "bool", "absent": "double"}
    rows, places, bad = read(source(path, schema=declared))
    assert [(row["id"], row["n"], row["ok"], row["absent"]) for row in rows] == [
        ("a", 1, True, None),
        ("c", None, None, None),
    ]
    assert [(entry["reason"], entry["raw"].split(b",")[0]) for entry in bad] == [
        ("wrong_type", b"b"),
        ("wrong_type", b"d"),
        ("wrong_type", b"e"),
    ]
    assert "column 'n': 'x' is no int64" in bad[0]["detail"] and len(places) == 2


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"only one", "wrong_columns"),
        (b"a,b,c", "wrong_columns"),
        (b'"never closed,x', "open_quote"),
        (b"bad \xff text,x", "bad_utf8"),
        (b"x" * 3000 + b",y", "line_too_long"),
        (b'"' + b"x" * 3000 + b",y", "line_too_long"),
    ],
)
@pytest.mark.parametrize("place", [0, 7, 19])
@pytest.mark.parametrize("chunk_bytes", [1, 100, 1 << 20])
def test_one_bad_record_among_good_ones(tmp_path, record, reason, place, chunk_bytes):
    good = [f"{i},text {i}".encode() for i in range(20)]
    lines = [b"id,text", *good[:place], record, *good[place:]]
    rows, _, bad = read(
        source(write(tmp_path / "in.csv", b"\n".join(lines) + b"\n"), max_record_bytes=2000), chunk_bytes=chunk_bytes
    )
    assert [row["id"] for row in rows] == [str(i) for i in range(20)]
    at = sum(len(line) + 1 for line in lines[: place + 1])
    assert [(entry["reason"], entry["position"]) for entry in bad] == [(reason, f"{tmp_path}/in.csv:byte {at}")]
    assert record.startswith(bad[0]["raw"]) and bad[0]["raw_bytes"] == len(record)


cells = st.none() | st.text(st.sampled_from("ab,\"\n\r é|'"), max_size=6)


@settings(max_examples=80)
@given(
    rows=st.lists(st.tuples(cells, cells), max_size=12),
    chunk_bytes=st.sampled_from([1, 7, 1 << 20]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_is_quoted_is_read_as_it_was(tmp_path_factory, rows, chunk_bytes, end):
    lines = [",".join("" if cell is None else '"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    path = write(tmp_path_factory.mktemp("csv") / "in.csv", "".join(line + end for line in ["a,b", *lines]).encode())
    found, places, bad = read(source(path), chunk_bytes=chunk_bytes)
    assert [(row["a"], row["b"]) for row in found] == rows and bad == [] and len(places) == len(rows)


@settings(max_examples=150)
@given(
    content=st.binary(max_size=60) | st.text(st.sampled_from('a,"\n\r'), max_size=60).map(str.encode),
    chunk_bytes=st.sampled_from([1, 5, 1 << 20]),
)
def test_any_bytes_at_all_are_accounted_for(tmp_path_factory, content, chunk_bytes):
    path = write(tmp_path_factory.mktemp("csv") / "in.csv", content)
    rows, places, bad = read(source(path, columns=["a", "b"]), chunk_bytes=chunk_bytes)
    whole = read(source(path, columns=["a", "b"]))
    assert (rows, places, bad) == whole, "cut anywhere, the same"
    at = [int(place.rsplit(" ", 1)[1]) for place in [*places, *(entry["position"] for entry in bad)]]
    assert len(set(at)) == len(at) and all(0 <= start <= len(content) for start in at)


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_torn_gzip(tmp_path, share):
    rng = random.Random(1)
    lines = [b"id,text", *[f'{i},"{rng.random()}"'.encode() for i in range(5000)]]
    packed = gzip.compress(b"\n".join(lines), mtime=0)
    rows, _, bad = read(source(write(tmp_path / "in.csv.gz", packed[: int(len(packed) * share)])))
    assert [row["id"] for row in rows] == [str(i) for i in range(len(rows))] and 0.7 * share < len(rows) / 5000 < 1
    assert [entry["reason"] for entry in bad] == ["torn"] and lines[len(rows) + 1].startswith(bad[0]["raw"])


def test_files_with_no_rows(tmp_path):
    for name, content in (("empty", b""), ("blank", b"\n\n"), ("header", b"a,b\n")):
        assert read(source(write(tmp_path / f"{name}.csv", content))) == ([], [], [])


def test_headers_that_cannot_be_meant(tmp_path):
    for header, text in (
        (b"a,b,a\n1,2,3\n", "two columns named 'a'"),
        (b"n\xe4me,b\n1,2\n", "the first line, which names the columns, is not UTF-8 text: byte 0xe4 at 1"),
        (b"a,,c\n1,2,3\n", "column 2 of the first line has no name"),
    ):
        with pytest.raises(InputError, match=text):
            read(source(write(tmp_path / "in.csv", header)))
    for options in ({"delimiter": ";;"}, {"delimiter": '"'}, {"quote": "''"}, {"delimiter": "é"}):
        with pytest.raises(PipelineError, match="(delimiter|quote): (expected one character|String should)"):
            load_pipeline(
                {"name": "t", "sources": [{"kind": "csv", "path": "x.csv", **options}], "output": {"path": "out"}}
            )


def test_records_of_the_kernel():
    data = b'a,b\r\n"x\n""y",z\rq"q,\n,,\n"open'
    found = csv_records(data)
    assert [data[start:stop] for start, stop in zip(found.starts, found.stops)] == [
        b"a,b",
        b'"x\n""y",z',
        b'q"q,',
        b",,",
    ]
    assert found.fields.tolist() == [2, 2, 2, 3] and data[found.rest :] == b'"open' and found.open
    assert csv_records(b"a\r", last=False).rest == 0 and csv_records(b"a\r", last=True).rest == 2
    assert csv_records(b"").starts.tolist() == []


def test_a_csv_run_gives_what_jsonl_gives(tmp_path):
    rows = [{"id": f"r{i}", "text": f'line one of {i}\nline, "two"'} for i in range(50)]
    with open(tmp_path / "in.csv", "w", newline="") as out:
        writer = csv.DictWriter(out, ["id", "text"])
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = []
    for kind in ("csv", "jsonl"):
        model = {
            "name": "t",
            "sources": [{"kind": kind, "path": str(tmp_path / f"in.{kind}"), "name": "s"}],
            "steps": [],
            "output": {"path": str(tmp_path / kind)},
        }
        results.append(gristmill.run(model, progress="quiet"))
    assert results[0].fingerprint == results[1].fingerprint and results[0].counts["kept"] == 50


def test_folders_and_items(tmp_path):
    for name in ("a.csv", "b.tsv", "c.csv.gz", "d.txt"):
        write(tmp_path / "raw" / name, gzip.compress(b"x\n1\n") if name.endswith("gz") else b"x\n1\n")
    items = plan_items(source(tmp_path / "raw"))
    assert sorted(file.rsplit("/", 1)[1] for item in items for file in item.files) == ["a.csv", "b.tsv", "c.csv.gz"]
    rows, _, _ = read(source(tmp_path / "raw"))
    assert len(rows) == 3
