"""JSON lines: every line comes out as it was or is set aside with its place and reason."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
import zlib

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gristmill.errors import InputError, UsageError
from gristmill.pipelines.sources import JsonlSource, plan_items, read_item

from gristmill.pipelines.sources.lines import compression

from .helpers import lines, read, read_table, write

GOOD = [{"text": f"row number {i}", "n": i} for i in range(40)]
DEEP = b'{"text": "x", "d": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def source(path: object, **options: object) -> JsonlSource:
    return JsonlSource(path=str(path), **options)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"text": "no end', "bad_json"),
        (b'{"text": "a" "b"}', "bad_json"),
        (b'{"text": "a",}', "bad_json"),
        (b'{"text": "raw tab\there"}', "bad_json"),
        (b'{"text": "raw nul \x00"}', "bad_json"),
        (b'{"text": "\\x"}', "bad_json"),
        (b"\x00\x00\x00", "bad_json"),
        (b"plain words", "bad_json"),
        (b'{"text": "x"}{"text": "y"}', "bad_json"),
        (b'{"text": "x"} {"text": "y"}', "bad_json"),
        (b"[1, 2]", "not_an_object"),
        (b"17", "not_an_object"),
        (b'"word"', "not_an_object"),
        (b"null", "not_an_object"),
        (b'{"text": "\xff\xfe"}', "bad_utf8"),
        (b'{"text": "\xed\xa0\x80"}', "bad_utf8"),  # a surrogate in UTF-8's form
        (b"\xff\xfe", "bad_utf8"),
        (b'{"text": "\\ud800 alone"}', "lone_surrogate"),
        (b'{"text": "\\udc00 alone"}', "lone_surrogate"),
        (b'{"text": "x", "text": "y"}', "duplicate_key"),
        (b'{"text": "x", "o": {"a": 1, "a": 2}}', "duplicate_key"),
        (b'{"text": 5}', "wrong_type"),
        (b'{"text": true}', "wrong_type"),
        (b'{"text": {"a": 1}}', "wrong_type"),
        (b'{"text": ["a"]}', "wrong_type"),
        (b'{"text": "x", "n": "five"}', "wrong_type"),
        (b'{"text": "x", "n": 1e999}', "wrong_type"),
        (b'{"text": "x", "n": 123456789012345678901}', "wrong_type"),
        (b'{"text": "x", "l": [1, "a"]}', "wrong_type"),
        (DEEP, "too_deep"),
        (b'{"text": "x", "d": ' + b"[" * 40 + b"]" * 40 + b"}", "too_deep"),
        (b'{"d": ' * 50 + b"1" + b"}" * 50, "too_deep"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("place", [1, 20, 40])
@pytest.mark.parametrize("chunk_bytes", [60, 1 << 20])
def test_one_bad_record_among_good_ones(tmp_path, record, reason, place, chunk_bytes):
    path = write(tmp_path / "in.jsonl", lines(*GOOD[:place], record, *GOOD[place:]))
    rows, places, bad = read(source(path), chunk_bytes=chunk_bytes)
    assert rows == GOOD
    assert [(b["reason"], b["position"], b["raw"], b["raw_bytes"]) for b in bad] == [
        (reason, f"{path}:byte {len(lines(*GOOD[:place]))}", record, len(record))
    ]
    assert bad[0]["detail"]
    starts = [len(lines(*GOOD[:i])) + (len(record) + 1 if i >= place else 0) for i in range(len(GOOD))]
    assert places == [f"{path}:byte {start}" for start in starts]


def test_byte_order_mark_crlf_blank_lines_nul_and_no_last_line_end(tmp_path):
    path = write(
        tmp_path / "in.jsonl",
        b"\xef\xbb\xbf"
        + b'{"t": "one"}\r\n\r\n   \n\n  {"t": "nul \\u0000"} \t\r\n{"t": "2020-01-01T00:00:00"}\n{ "t" : "last" }',
    )
    for chunk_bytes in (1, 20, 1 << 20):
        rows, places, bad = read(source(path), chunk_bytes=chunk_bytes)
        assert [row["t"] for row in rows] == ["one", "nul \x00", "2020-01-01T00:00:00", "last"] and not bad
        assert places[0].endswith(":byte 3")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\r\n\n  \n",
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf\n",
        gzip.compress(b"", mtime=0),
        pa.compress(b"", codec="zstd", asbytes=True),
    ],
)
def test_files_without_records(tmp_path, content):
    assert read(source(write(tmp_path / "in.jsonl", content))) == ([], [], [])


def test_chunk_that_ends_with_the_file_ends(tmp_path):
    path = write(tmp_path / "in.jsonl", lines(*GOOD))
    for chunk_bytes in (len(lines(*GOOD)), len(lines(GOOD[0])), 1):
        assert read(source(path), chunk_bytes=chunk_bytes)[0] == GOOD


def test_text_that_looks_like_times_stays_text_wherever_it_is(tmp_path):
    day = "2020-01-01"
    rows = [
        {"z": day, "n": i, "o": {"d": day, "n": None if i < 300 else i + 0.5}, "l": [{"d": day, "k": i}]}
        for i in range(600)
    ]
    rows += [{"z": "not a day", "n": 1, "o": {"d": "x", "m": {"d": day}}, "l": [{"d": "y", "k": 0.5}]}]
    path = write(tmp_path / "in.jsonl", lines(*rows))
    for chunk_bytes in (100, 5000, 1 << 20):
        found, _, bad = read(source(path), chunk_bytes=chunk_bytes)
        assert not bad
        assert [(row["z"], row["n"], row["o"]["d"], row["l"][0]["d"], row["l"][0]["k"]) for row in found] == [
            (row["z"], row["n"], row["o"]["d"], row["l"][0]["d"], row["l"][0]["k"]) for row in rows
        ]
    assert read_table(source(path)).column_names == ["z", "n", "o", "l"], "columns in their own order"


def test_the_first_kind_seen_counts_whatever_the_chunks(tmp_path):
    rows = [
        {"a": None, "b": []},
        {"a": 1, "b": [None]},
        {"a": "x"},
        {"a": 2.5, "b": ["t"]},
        {"b": [1]},
        {"c": {"d": 1}},
        {"c": {"d": "x"}},
        {"c": {"e": "x"}},
        {"c": 1},
    ]
    path = write(tmp_path / "in.jsonl", lines(*rows))
    for chunk_bytes in (1, 30, 1 << 20):
        _, _, bad = read(source(path), chunk_bytes=chunk_bytes)
        assert [(json.loads(b["raw"]), b["reason"]) for b in bad] == [(rows[i], "wrong_type") for i in (2, 4, 6, 8)]
    assert bad[0]["detail"] == "column 'a' is text, before it was a number"


def test_integers_that_floats_would_round_are_set_aside(tmp_path):
    good = [
        {"i": 2**53 + 1},
        {"i": -(2**63)},
        {"i": 2**63 - 1},
        {"f": 1.5},
        {"f": 2**53},
        {"f": 1e300},
        {"f": 2**60},
        {"l": [0.5, 2]},
    ]
    bad = [{"i": 2**63 + 1}, {"f": 2**53 + 1}, {"l": [0.5, 2**53 + 1]}]
    path = write(tmp_path / "in.jsonl", lines(*good, *bad))
    rows, _, found = read(source(path))
    assert [{k: v for k, v in row.items() if v is not None} for row in rows] == good
    assert [json.loads(b["raw"]) for b in found] == bad and {b["reason"] for b in found} == {"wrong_type"}
    assert "decimal(38, 0), uint64" in found[0]["detail"]
    rows, _, found = read(source(path, schema={"i": "decimal(38, 0)", "f": "double"}))
    assert [row["i"] for row in rows if row["i"] is not None] == [2**53 + 1, -(2**63), 2**63 - 1, 2**63 + 1] and len(
        found
    ) == 1


@pytest.mark.parametrize(
    "lists",
    [
        [[None, 1]],
        [[None, None], [None, 2, 3], [4]],
        [[None, None, None], None, [], [None]],
        [[None, "2020-01-01"], ["x"]],
        [[[None, None], [1]], [None, [2, None]]],
        [[None, {"a": [None, None, 1]}], [{"a": [2]}]],
        [{"a": [None, None]}, {"a": None}, None],
        [[{"a": None}, {"a": [None, None]}]],
        [[], [[]], [[None, None], None]],
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 1 << 20])
def test_nulls_in_lists_stay_where_they_are(tmp_path, lists, chunk_bytes):
    rows = [{"l": value} for value in lists]
    assert read(source(write(tmp_path / "in.jsonl", lines(*rows))), chunk_bytes=chunk_bytes)[::2] == (rows, [])


def test_numbers_as_python_writes_them(tmp_path):
    path = write(tmp_path / "in.jsonl", b'{"x": NaN}\n{"x": Infinity}\n{"x": -0.0}\n{"x": 1e-400}\n{"x": 3}\n')
    rows, _, bad = read(source(path))
    assert str([row["x"] for row in rows]) == "[nan, inf, -0.0, 0.0, 3.0]" and not bad


@pytest.mark.parametrize("wrong", ["", "a record without end"])
def test_a_line_beyond_the_limit_is_skipped_whatever_the_chunks(tmp_path, wrong):
    long = b'{"text": "' + b"x" * 5000 + b'"}'
    content = lines(GOOD[0], long, GOOD[1], long, long, GOOD[2]) + (long if wrong else b"")
    path = write(tmp_path / "in.jsonl", content)
    for chunk_bytes in (1, 100, 6000, 1 << 20):
        rows, _, bad = read(source(path, max_record_bytes=2000), chunk_bytes=chunk_bytes)
        assert rows == GOOD[:3]
        assert [(b["reason"], b["raw"], b["raw_bytes"]) for b in bad] == [("line_too_long", long[:1024], len(long))] * (
            4 if wrong else 3
        )
        assert [content[int(b["position"].rsplit(" ", 1)[1]) :][: len(long)] for b in bad] == [long] * len(bad)
        assert read(source(path, max_record_bytes=6000), chunk_bytes=chunk_bytes)[2] == []


def test_a_200_mb_line_in_bounded_memory(tmp_path):
    path = tmp_path / "in.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as out:
        out.write(b'{"t": "before"}\n{"t": "')
        for _ in range(200):
            out.write(b"x" * 1_000_000)
        out.write(b'"}\n{"t": "after"}\n')
    code = f"""
import resource, sys
from gristmill.pipelines.sources import JsonlSource, plan_items, read_item
source = JsonlSource(path={str(path)!r}, max_record_bytes={16 << 20})
items = plan_items(source)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for chunk in read_item(source, items[0]):
    print(chunk.table.to_pylist(), chunk.bad.select(["reason", "raw_bytes"]).to_pylist())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split("\n")[1] == "[] [{'reason': 'line_too_long', 'raw_bytes': 200000009}]"
    assert "before" in done.stdout and "after" in done.stdout
    assert int(done.stderr) < 120, "MiB beyond the start: some chunks and the limit, not the line"


@pytest.mark.parametrize("packing", ["gz", "zst"])
@pytest.mark.parametrize("at_line_end", [False, True])
def test_torn_file(tmp_path, packing, at_line_end):
    rows = [{"text": os.urandom(40).hex(), "n": i} for i in range(400)]
    if at_line_end and packing == "gz":  # all that is written is whole lines, and no end mark
        deflate = zlib.compressobj(wbits=31)
        torn = deflate.compress(lines(*rows)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    else:
        whole = (
            gzip.compress(lines(*rows), mtime=0)
            if packing == "gz"
            else pa.compress(lines(*rows), codec="zstd", asbytes=True)
        )
        torn = whole[: len(whole) * 2 // 3]
    path = write(tmp_path / f"in.jsonl.{packing}", torn)
    for chunk_bytes in (100, 1 << 20):
        found, _, bad = read(source(path), chunk_bytes=chunk_bytes)
        assert found == rows[: len(found)]
        assert len(found) > 200 or packing == "zst"
        assert [b["reason"] for b in bad] == ["torn"]
        assert bad[0]["position"] == f"{path}:byte {len(lines(*rows[: len(found)]))}"
        assert bad[0]["raw"] == (
            b""
            if at_line_end and packing == "gz"
            else lines(*rows)[len(lines(*rows[: len(found)])) :][: bad[0]["raw_bytes"]]
        )


def test_torn_inside_a_line_beyond_the_limit(tmp_path):
    whole = gzip.compress(lines(GOOD[0], b'{"text": "' + os.urandom(4000).hex().encode() + b'"}'), mtime=0)
    path = write(tmp_path / "in.jsonl.gz", whole[:-500])
    rows, _, bad = read(source(path, max_record_bytes=1000), chunk_bytes=100)
    assert rows == GOOD[:1] and [b["reason"] for b in bad] == ["line_too_long", "torn"]


def test_damage_in_the_middle_keeps_what_comes_before(tmp_path):
    rows = [{"text": os.urandom(60).hex(), "n": i} for i in range(20_000)]
    packed = bytearray(gzip.compress(lines(*rows), mtime=0))
    packed[len(packed) // 2 : len(packed) // 2 + 64] = b"\xff" * 64
    found, _, bad = read(source(write(tmp_path / "in.jsonl.gz", bytes(packed))))
    assert [{k: row[k] for k in ("text", "n")} for row in found[:9_500]] == rows[:9_500]
    assert bad[-1]["reason"] == "torn" and "damaged" in bad[-1]["detail"]


def test_wrong_checksum_is_told_and_the_records_are_kept(tmp_path):
    packed = bytearray(gzip.compress(lines(*GOOD), mtime=0))
    packed[-8] ^= 1
    rows, _, bad = read(source(write(tmp_path / "in.jsonl.gz", bytes(packed))))
    assert rows == GOOD and [b["reason"] for b in bad] == ["torn"] and "data check" in bad[0]["detail"]


def test_gzip_of_several_members_padding_and_names_that_lie(tmp_path):
    content = gzip.compress(lines(*GOOD[:10])) + gzip.compress(lines(*GOOD[10:])) + b"\0" * 512
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    frames = pa.compress(lines(*GOOD[:10]), codec="zstd", asbytes=True) + pa.compress(
        lines(*GOOD[10:]), codec="zstd", asbytes=True
    )
    for name, data in [
        ("a.jsonl.gz", content),
        ("b.jsonl", content),
        ("c.jsonl.gz", lines(*GOOD)),
        ("d.jsonl.zst", frames),
        ("e.jsonl.zst", skippable + frames),
    ]:
        assert read(source(write(tmp_path / name, data)))[::2] == (GOOD, []), name


def test_declared_types(tmp_path):
    rows = [
        {"i": 1, "t": "2020-01-01T10:00:00", "d": "2020-02-03", "v": [1.0, 2.0], "s": "a", "h": 1.5, "extra": 1},
        {"i": 300},
        {"t": "yesterday"},
        {"d": "2020-02-03T10:00:00"},
        {"v": [1.0]},
        {"s": 5},
        {"extra": "x"},
        {"i": 2.5},
        {"i": None, "s": "last"},
    ]
    path = write(tmp_path / "in.jsonl", lines(*rows))
    schema = {
        "i": "int8",
        "t": "timestamp[us]",
        "d": "date32",
        "v": "fixed_size_list<float, 2>",
        "s": "large_string",
        "h": "float16",
        "absent": "int64",
    }
    for chunk_bytes in (1, 1 << 20):
        found, _, bad = read(source(path, schema=schema), chunk_bytes=chunk_bytes)
        assert [json.loads(b["raw"]) for b in bad] == rows[1:8] and {b["reason"] for b in bad} == {"wrong_type"}
        assert "300 is no int8" in bad[0]["detail"].replace("'", "")
        assert (
            str(found[0]["t"]) == "2020-01-01 10:00:00"
            and str(found[0]["d"]) == "2020-02-03"
            and found[0]["v"] == [1.0, 2.0]
            and found[1]["s"] == "last"
        )
    table = read_table(source(path, schema=schema))
    assert {name: str(table.schema.field(name).type) for name in ("i", "t", "s", "h", "absent")} == {
        "i": "int8", "t": "timestamp[us]", "s": "large_string", "h": "halffloat", "absent": "int64",
    }  # fmt: skip


def test_types_that_no_json_value_has_are_refused_at_once():
    with pytest.raises((UsageError, ValueError), match="no type 'int65'.*Did you mean 'int64'"):
        JsonlSource(path="x.jsonl", schema={"a": "int65"})
    with pytest.raises((UsageError, ValueError), match="null"):
        JsonlSource(path="x.jsonl", schema={"a": "null"})


def test_empty_objects_are_rows(tmp_path):
    path = write(tmp_path / "in.jsonl", b"{}\n{}\n")
    chunk = next(iter(read_item(source(path), plan_items(source(path))[0])))
    assert chunk.table.num_rows == 2 and chunk.bad.num_rows == 0


def test_file_that_changes_under_the_run_is_refused(tmp_path):
    path = write(tmp_path / "in.jsonl", lines(*GOOD))
    one = source(path)
    items = plan_items(one)
    write(tmp_path / "in.jsonl", lines(*GOOD, *GOOD))
    with pytest.raises(InputError, match=r"in\.jsonl' has changed since the run was planned"):
        read(one, items)
    os.remove(path)
    with pytest.raises(InputError, match="has gone"):
        read(one, items)


def test_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = write(tmp_path / "in.jsonl", lines(*GOOD))
    chunks = read_item(source(path), plan_items(source(path))[0], chunk_bytes=100)
    next(chunks)
    with open(path, "ab") as out:
        out.write(lines(*GOOD))
    with pytest.raises(InputError, match="has changed"):
        list(chunks)


def test_bad_lines_are_found_with_few_parses(tmp_path, monkeypatch):
    from gristmill.pipelines.sources import json_records

    rows: list[object] = [{"text": "word " * 5, "n": i} for i in range(20_000)]
    for i in range(5, 20_000, 7_000):
        rows[i] = b'{"broken'
        rows[i + 1] = {"text": 5}
    path = write(tmp_path / "in.jsonl", lines(*rows))
    parsed = []
    real = json_records._read
    monkeypatch.setattr(json_records, "_read", lambda text, schema: (parsed.append(text.size), real(text, schema))[1])
    found, _, bad = read(source(path))
    assert len(found) == 20_000 - 6 and len(bad) == 6
    assert sum(parsed) < 8 * os.path.getsize(path)


# properties

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBER = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
ROW = st.fixed_dictionaries(
    {"id": st.integers(-(2**63), 2**63 - 1)},
    optional={
        "text": st.one_of(st.none(), TEXT, st.sampled_from(["2020-01-01", "2021-02-03T04:05:06Z"])),
        "x": st.one_of(st.none(), NUMBER),
        "ok": st.booleans(),
        "list": st.lists(st.one_of(st.none(), TEXT), max_size=3),
        "o": st.fixed_dictionaries({}, optional={"a": NUMBER, "b": TEXT, "c": st.lists(st.booleans(), max_size=2)}),
    },
)
BROKEN = st.sampled_from(
    [
        b"{",
        b'{"id": 1',
        b"[]",
        b"3",
        b"nope",
        b'{"id": "text"}',
        b'{"id": 1, "id": 2}',
        b'{"id": 1, "text": "\xff"}',
        b'{"id": 1, "text": "\\udfff"}',
        b'{"id": {}}',
        b'{"id": 1}}',
        b'{"id": 9e999}',
        b'"\x80"',
    ]
)


def same(found: dict, row: dict) -> bool:
    """Whether a row came out as it went in, nulls and missing columns being alike in a table."""
    keys = {k for k, v in found.items() if v is not None} | {k for k, v in row.items() if v is not None}
    return all(
        same(found.get(k) or {}, row[k]) if isinstance(row.get(k), dict) else found.get(k) == row.get(k) for k in keys
    )


@given(
    st.lists(st.one_of(ROW, ROW, ROW, BROKEN), max_size=40),
    st.integers(1, 400),
    st.integers(1, 600),
    st.sampled_from(["", ".gz"]),
    st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
    st.booleans(),
)
def test_every_line_is_a_row_or_quarantined_whatever_the_cutting(
    tmp_path_factory, rows, chunk_bytes, item_bytes, ending, newline, last
):
    rows = [{"id": 0}, *rows]  # the first kind of `id` is a number
    raw = [
        row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=bool(len(rows) % 2)).encode() for row in rows
    ]
    content = newline.join(raw) + (newline if last else b"")
    folder = tmp_path_factory.mktemp("in")
    path = write(folder / f"a.jsonl{ending}", gzip.compress(content, mtime=0) if ending else content)
    one = source(path)
    cut = (
        1 << 30
        if any(isinstance(row, bytes) and b'"id": "text"' in row or row == b'{"id": {}}' for row in rows)
        else item_bytes
    )
    found, places, bad = read(one, plan_items(one, item_bytes=cut), chunk_bytes=chunk_bytes)
    good = [row for row in rows if not isinstance(row, bytes)]
    assert len(found) == len(good) and all(map(same, found, good))
    assert [b["raw"] for b in bad] == [row for row in rows if isinstance(row, bytes)]
    starts = [int(place.rsplit(" ", 1)[1]) for place in places]
    assert [
        content[start : start + len(line)]
        for start, line in zip(
            starts, [r for r, row in zip(raw, rows, strict=True) if not isinstance(row, bytes)], strict=True
        )
    ] == [r for r, row in zip(raw, rows, strict=True) if not isinstance(row, bytes)]


@given(
    st.lists(st.binary(max_size=30), max_size=12),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from([20, 1 << 20]),
)
def test_any_bytes_at_all_are_accounted_for(tmp_path_factory, parts, chunk_bytes, item_bytes, limit):
    content = b"\n".join(parts)
    assume(compression(content[:4]) is None)
    path = write(tmp_path_factory.mktemp("in") / "a.jsonl", content)
    one = source(path, max_record_bytes=limit)
    rows, _, bad = read(one, plan_items(one, item_bytes=item_bytes), chunk_bytes=chunk_bytes)
    wanted = [
        line
        for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        if line.strip() and not (line.endswith(b"\r") and not line[:-1].strip())
    ]
    assert len(rows) + len(bad) == len(wanted)
