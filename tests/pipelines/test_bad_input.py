"""Bad input: each is a clear error or a quarantined record with its place and reason, and everything else is kept."""

from __future__ import annotations

import ctypes
import errno
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.errors import (
    ColumnError,
    InputError,
    InputNotFoundError,
    NotADatasetError,
    PipelineError,
    RunError,
    SchemaMismatchError,
)
from gristmill.storage.parquet import read_table

from .conftest import ledger_of, rows_of, write_jsonl


def lines(*rows: object) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


RUN = """
import json, resource, sys
import gristmill
model, options = json.loads(sys.argv[1])
try:
    print(json.dumps([gristmill.run(model, progress="quiet", **options).counts, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
except gristmill.errors.GristmillError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def run_apart(
    tmp_path: Path, path: Path, *, before: tuple[str, ...] = (), out: str = "out", preexec: Any = None, **options: Any
) -> list[Any]:
    """[counts, peak KB] of a run in a process of its own, or [error, its text]. `before`: a command that starts the process."""
    model = {"name": "test", "sources": [{"kind": "jsonl", "path": str(path)}], "output": {"path": str(tmp_path / out)}}
    command = [*before, sys.executable, "-c", RUN, json.dumps([model, options])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, preexec_fn=preexec, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def quarantine(result) -> list[tuple[str, int, bytes]]:
    """(reason, byte position, raw) of each quarantined record."""
    dataset = result.dataset
    found = []
    for name, *_ in dataset.folder.list(dataset.manifest.ledger):
        if "/quarantine-" in name:
            found += [
                (row["reason"], int(row["position"].rsplit(" ", 1)[1]), row["raw"])
                for row in read_table(dataset.folder, name).to_pylist()
            ]
    return found


GOOD = [{"text": f"row number {i}", "n": i} for i in range(30)]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"text": "no end', "bad_json"),
        (b'{"text": "a" "b"}', "bad_json"),
        (b"plain words", "bad_json"),
        (b"[1, 2]", "not_an_object"),
        (b"17", "not_an_object"),
        (b'{"text": "\xff\xfe"}', "bad_utf8"),
        (b'{"text": "\\ud800 alone"}', "lone_surrogate"),
        (b'{"text": "a raw \x00 inside"}', "bad_json"),
        (b'{"text": "x", "text": "y"}', "duplicate_key"),
        (b'{"text": 5}', "wrong_type"),
        (b'{"text": "x", "n": "five"}', "wrong_type"),
        (b'{"text": "x"}{"text": "y"}', "bad_json"),
        (b'{"text": {"a": 1}}', "wrong_type"),
    ],
)
@pytest.mark.parametrize("place", [1, 15, 29])
def test_one_bad_record_among_good_ones(run, tmp_path, record, reason, place):
    rows = [*GOOD[:place], record, *GOOD[place:]]
    (tmp_path / "in.jsonl").write_bytes(lines(*rows))
    result = run(tmp_path / "in.jsonl", steps=[])
    assert result.counts == {"read": 31, "created": 0, "kept": 30, "dropped": 0, "quarantined": 1}
    assert quarantine(result) == [(reason, len(lines(*rows[:place])), record)]
    assert sorted(row["n"] for row in rows_of(result)) == list(range(30))


def test_nul_byte_order_mark_crlf_blank_lines_and_no_last_line_end(run, tmp_path):
    content = (
        b"\xef\xbb\xbf"
        + b'{"text": "first"}\r\n\r\n   \n{"text": "nul \\u0000 inside"}\n{"text": "2020-01-01T00:00:00"}'
    )
    (tmp_path / "in.jsonl").write_bytes(content)
    result = run(tmp_path / "in.jsonl", steps=[])
    assert sorted(row["text"] for row in rows_of(result)) == ["2020-01-01T00:00:00", "first", "nul \x00 inside"]
    assert result.counts["quarantined"] == 0
    cleaned = run(tmp_path / "in.jsonl", steps=[{"step": "normalize_text", "column": "text"}])
    assert "nul  inside" in [row["text"] for row in rows_of(cleaned)]
    assert [(e["rule"], e["value"]) for e in ledger_of(cleaned)] == [("control_characters", 1.0)]


@pytest.mark.parametrize("packing", ["gz", "zst"])
@pytest.mark.parametrize("share", [0.1, 0.6, 0.999])
def test_torn_compressed_file(run, tmp_path, packing, share):
    rows = [{"text": os.urandom(60).hex(), "n": i} for i in range(20_000)]
    whole = lines(*rows)
    packed = gzip.compress(whole, mtime=0) if packing == "gz" else pa.compress(whole, codec="zstd", asbytes=True)
    (tmp_path / f"in.jsonl.{packing}").write_bytes(packed[: int(len(packed) * share)])
    result = run(tmp_path / f"in.jsonl.{packing}", steps=[])
    kept = sorted(row["n"] for row in rows_of(result))
    assert kept == list(range(len(kept))), "every row before the tear"
    assert share * 0.75 < len(kept) / len(rows) < 1
    (reason, place, raw), *others = quarantine(result)
    assert (reason, others, result.counts["quarantined"]) == ("torn", [], 1)
    assert place == len(lines(*rows[: len(kept)])) and lines(*rows[len(kept) :]).startswith(raw)


def test_damaged_gzip_in_the_middle(run, tmp_path):
    packed = bytearray(gzip.compress(lines(*[{"text": os.urandom(60).hex(), "n": i} for i in range(3000)]), mtime=0))
    packed[len(packed) // 2 : len(packed) // 2 + 64] = bytes(64)
    (tmp_path / "in.jsonl.gz").write_bytes(bytes(packed))
    result = run(tmp_path / "in.jsonl.gz", steps=[])
    assert result.counts["kept"] > 500 and "torn" in [reason for reason, *_ in quarantine(result)]


@pytest.mark.slow
def test_line_of_200_mb_is_skipped_in_bounded_memory(tmp_path):
    short, long = tmp_path / "short.jsonl", tmp_path / "long.jsonl"
    short.write_bytes(lines({"text": "before"}, {"text": "after"}))
    with open(long, "wb") as out:
        out.write(b'{"text": "before"}\n{"text": "')
        for _ in range(200):
            out.write(b"x" * 1_000_000)
        out.write(b'"}\n{"text": "after"}\n')
    _, least = run_apart(tmp_path, short, out="short")
    counts, peak = run_apart(tmp_path, long, out="long")
    assert counts == {"read": 3, "created": 0, "kept": 2, "dropped": 0, "quarantined": 1}
    assert peak - least < 150_000, "KB more than without the long line: less than the line itself"


def test_empty_file_and_zero_rows(run, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "empty.jsonl").write_bytes(b"")
    result = run(tmp_path / "raw", split={"train": 0.5, "test": 0.5, "similarity": 0.5})
    assert result.counts["read"] == 0 and result.dataset.num_rows == 0 and result.dataset.to_table().num_rows == 0
    (tmp_path / "raw" / "full.jsonl").write_bytes(lines(*GOOD))
    (tmp_path / "raw" / "none.jsonl.gz").write_bytes(gzip.compress(b""))
    kept = run(tmp_path / "raw", steps=[{"step": "filter", "where": "n < 7"}])
    assert kept.counts["kept"] == 7
    assert run(tmp_path / "raw", steps=[]).counts["kept"] == 30
    none = run(
        tmp_path / "raw",
        steps=[{"step": "filter", "where": "n < 0"}],
        split={"train": 0.5, "test": 0.5, "similarity": 0.5},
    )
    assert none.counts == {"read": 30, "created": 0, "kept": 0, "dropped": 30, "quarantined": 0}
    assert none.splits == {"train": 0, "test": 0} and none.dataset.to_table("test").column_names == [
        "text",
        "n",
        "_uid",
        "_source",
    ]


def test_parquet_with_zero_rows(run, tmp_path):
    table = pa.table({"text": ["one row of more than twenty characters"], "n": [1]})
    (tmp_path / "raw").mkdir()
    pq.write_table(table.slice(0, 0), tmp_path / "raw" / "a.parquet")
    sources = [{"kind": "parquet", "path": str(tmp_path / "raw"), "name": "p"}]
    result = run(sources=sources)
    assert result.counts["read"] == 0 and result.dataset.schema.names == ["text", "n", "_uid", "_source"]
    pq.write_table(table, tmp_path / "raw" / "b.parquet")
    assert run(sources=sources).counts["kept"] == 1


def test_missing_column_in_one_file_is_null(run, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.jsonl").write_bytes(lines({"text": "one", "lang": "en"}))
    (tmp_path / "raw" / "b.jsonl").write_bytes(lines({"text": "two"}))
    result = run(tmp_path / "raw", steps=[])
    assert {row["text"]: row["lang"] for row in rows_of(result)} == {"one": "en", "two": None}
    filtered = run(tmp_path / "raw", steps=[{"step": "filter", "where": "lang == 'en'"}])
    assert filtered.counts["kept"] == 1 and [entry["rule"] for entry in ledger_of(filtered)] == ["lang == 'en'"]
    with pytest.raises(ColumnError, match=r"step 1 \(filter\): no column 'lng'\. Did you mean 'lang'"):
        run(tmp_path / "raw", steps=[{"step": "filter", "where": "lng == 'en'"}])


def test_types_that_differ_between_files(run, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.jsonl").write_bytes(lines({"text": "one", "n": 1}))
    (tmp_path / "raw" / "b.jsonl").write_bytes(lines({"text": "two", "n": 2.5}))
    assert {row["n"] for row in rows_of(run(tmp_path / "raw", steps=[]))} == {1.0, 2.5}
    pq.write_table(pa.table({"text": ["three"], "n": ["many"]}), tmp_path / "c.parquet")
    sources = [
        {"kind": "jsonl", "path": str(tmp_path / "raw"), "name": "a"},
        {"kind": "parquet", "path": str(tmp_path / "c.parquet"), "name": "c"},
    ]
    with pytest.raises(
        SchemaMismatchError, match=r"column 'n' is int64 in .*raw.a\.jsonl.* and string in .*c\.parquet.*Declare it"
    ):
        run(sources=sources, steps=[], out="other")
    declared = [{**source, "schema": {"n": "double"}} for source in sources]
    result = run(sources=declared, steps=[], out="other")
    assert {row["text"]: row["n"] for row in rows_of(result)} == {"one": 1.0, "two": 2.5}
    bad = [entry for entry in ledger_of(result) if entry["action"] == "quarantine"]
    assert [(entry["rule"], entry["position"]) for entry in bad] == [("wrong_type", f"{tmp_path}/c.parquet:row 0")]


def test_repeated_ids(run, tmp_path):
    rows = [
        {"id": "a", "text": "one"},
        {"id": "a", "text": "one"},
        {"id": "b", "text": "x"},
        {"id": "b", "text": "y"},
        {"id": None, "text": "z"},
        {"text": "w"},
    ]
    write_jsonl(tmp_path / "raw", rows, files=2)
    result = run(tmp_path / "raw", id="id", steps=[])
    assert sorted(row["_uid"] for row in rows_of(result)) == ["a", "b"]
    assert result.counts == {"read": 6, "created": 0, "kept": 2, "dropped": 1, "quarantined": 3}
    entries = {(entry["rule"], entry["action"], entry["other_uid"]) for entry in ledger_of(result)}
    assert entries == {
        ("duplicate_id", "drop", "a"),
        ("conflicting_id", "quarantine", "b"),
        ("null_id", "quarantine", None),
    }
    assert all(entry["position"].startswith(f"{tmp_path}/raw/part-") for entry in ledger_of(result))


def test_ids_that_are_no_column(run, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(*GOOD))
    with pytest.raises(ColumnError, match=r"id: no column 'txt'\. Did you mean 'text'"):
        run(tmp_path / "in.jsonl", id="txt")
    (tmp_path / "nested.jsonl").write_bytes(lines({"id": {"n": 1}, "text": "a"}, {"id": {"n": 2}, "text": "b"}))
    with pytest.raises(PipelineError, match=r"id: column 'id' is struct<n: int64>, expected text or numbers"):
        run(tmp_path / "nested.jsonl", id="id")
    pq.write_table(pa.table({"id": [b"\xff", b"\xfe"], "text": ["a", "b"]}), tmp_path / "bytes.parquet")
    with pytest.raises(PipelineError, match=r"id: column 'id' is binary, expected text or numbers"):
        run(sources=[{"kind": "parquet", "path": str(tmp_path / "bytes.parquet")}], id="id")


def test_integers_that_a_filter_cannot_hold_are_no_rows_that_leave(run, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines({"n": 2**63 - 1}, {"n": 1}))
    with pytest.raises(PipelineError, match=r"where: 'n \+ 1 > 0' can't be evaluated .*: overflow"):
        run(tmp_path / "in.jsonl", steps=[{"step": "filter", "where": "n + 1 > 0"}])


def test_rows_without_any_column(run, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b"{}\n" * 3)
    result = run(tmp_path / "in.jsonl", steps=[])
    uids = [row["_uid"] for row in rows_of(result)]
    assert result.counts["kept"] == 3 and uids == [uids[0], f"{uids[0]}~2", f"{uids[0]}~3"]


def test_null_text_passes_edits_fails_quality_and_matches_nothing(run, tmp_path):
    rows = [{"text": None, "k": 1}, {"text": None, "k": 2}, {"text": "", "k": 3}]
    (tmp_path / "in.jsonl").write_bytes(lines(*rows))
    dedupe = [
        {"step": "normalize_text", "column": "text"},
        {"step": "drop_exact_duplicates", "column": "text"},
        {"step": "drop_near_duplicates", "column": "text"},
    ]
    assert run(tmp_path / "in.jsonl", steps=dedupe).counts["kept"] == 3
    result = run(tmp_path / "in.jsonl", steps=[{"step": "quality_rules", "column": "text", "preset": "gopher"}])
    rules = {}
    for entry in ledger_of(result):
        rules.setdefault(entry["uid"], set()).add(entry["rule"])
    assert result.counts["dropped"] == 3 and [found == {"null_text"} for found in rules.values()].count(True) == 2


def test_folder_where_a_file_was_expected_and_the_other_way(run, tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(InputNotFoundError, match="has no file ending with .jsonl"):
        run(tmp_path / "raw")
    (tmp_path / "raw" / "data.jsonl").write_bytes(lines(*GOOD))
    with pytest.raises(InputNotFoundError, match=r"no input matches '.*date\.jsonl'\. Did you mean 'data\.jsonl'\?"):
        run(tmp_path / "raw" / "date.jsonl")
    with pytest.raises(InputNotFoundError, match="There is no folder"):
        run(tmp_path / "rav" / "*.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(InputError, match="not a regular file"):
        run(tmp_path / "pipe.jsonl")


def _without_override() -> None:
    """Takes from root what lets it read everything: the capabilities CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of what is started next."""
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.mark.parametrize("what", ["file", "folder", "output"])
def test_no_permission(tmp_path, what):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "in.jsonl").write_bytes(lines(*GOOD))
    (tmp_path / "there").mkdir()
    barred, mode, text = {
        "file": (tmp_path / "raw" / "in.jsonl", 0, "no permission to read"),
        "folder": (tmp_path / "raw", 0, "Permission denied"),
        "output": (tmp_path / "there", 0o555, "can't make the folder for work files"),
    }[what]
    barred.chmod(mode)
    try:
        probe = f"import os, sys; sys.exit(os.access({str(barred)!r}, os.W_OK))"
        if subprocess.run([sys.executable, "-c", probe], preexec_fn=_without_override, check=False).returncode:
            pytest.skip("this user may do everything, and can't be kept from it here")
        kind, message = run_apart(tmp_path, tmp_path / "raw", preexec=_without_override, out="there/out")
    finally:
        barred.chmod(0o755)
    assert text in message and str(barred) in message, (kind, message)
    assert kind == ("UsageError" if what == "output" else "InputError") and not (tmp_path / "there" / "out").exists()


@pytest.mark.parametrize("where", ["work", "shard"])
def test_disk_full_says_so_and_the_same_command_finishes(run, tmp_path, monkeypatch, where):
    (tmp_path / "in.jsonl").write_bytes(lines(*GOOD))
    from gristmill.pipelines import output, parts

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "work":
        monkeypatch.setattr(parts.PartWriter, "write", full)
    else:
        monkeypatch.setattr(output.ShardWriter, "write", full)
    with pytest.raises(RunError, match=r"[Nn]o space left"):
        run(tmp_path / "in.jsonl", steps=[])
    assert not list((tmp_path / "out").glob("manifests/v*")) and not list((tmp_path / "out").rglob("*.tmp-*"))
    monkeypatch.undo()
    assert run(tmp_path / "in.jsonl", steps=[]).counts["kept"] == 30


@pytest.mark.parametrize("megabytes", [1, 4, 6, 12])
def test_a_disk_that_is_really_full(tmp_path, megabytes):
    """Work files and shards on a small file system, in a mount namespace of the run's own: wherever it fills up, the run says so or finishes."""
    unshare, disk = shutil.which("unshare"), tmp_path / "disk"
    probe = [unshare or "", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)]
    if unshare is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can't be mounted here: needs unshare and user namespaces")
    disk.mkdir()
    (tmp_path / "in.jsonl").write_bytes(lines(*[{"text": os.urandom(1000).hex(), "n": i} for i in range(1000)]))  # 2 MB
    script = f'mount -t tmpfs -o size={megabytes}m none {disk} && "$@"; s=$?; find {disk} -name "*.tmp-*" >&2; exit $s'
    found = run_apart(
        tmp_path, tmp_path / "in.jsonl", before=(unshare, "-rm", "sh", "-c", script, "sh"), out="disk/out"
    )
    if megabytes >= 12:
        assert found[0]["kept"] == 1000
    elif megabytes == 1:
        assert found[0] == "RunError" and "no space left" in found[1] and "disk" in found[1]
    else:
        assert (found[0] == "RunError" and "no space left" in found[1]) or found[0]["kept"] == 1000


def test_output_that_is_no_dataset_or_a_file(run, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(*GOOD))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(NotADatasetError, match=r"exists and is not a gristmill dataset \(it holds thesis.txt\)"):
        run(tmp_path / "in.jsonl", out="mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious" and len(
        list((tmp_path / "mine").iterdir())
    ) == 1
    (tmp_path / "file").write_text("a file")
    with pytest.raises(NotADatasetError, match="is a file"):
        run(tmp_path / "in.jsonl", out="file")
    assert (tmp_path / "file").read_text() == "a file"


def test_more_items_than_a_run_can_number(run, tmp_path, monkeypatch):
    monkeypatch.setattr("gristmill.pipelines.sources.items.BUNDLE_BYTES", 1)
    for number in range(3):
        (tmp_path / f"in-{number}.jsonl").write_bytes(lines(*GOOD))
    monkeypatch.setattr("gristmill.pipelines.plan.PUBLISHED", 3)
    with pytest.raises(PipelineError, match="3 work items, more than the 2"):
        run(tmp_path / "in-*.jsonl", steps=[])
    monkeypatch.setattr("gristmill.pipelines.plan.PUBLISHED", 4)
    run(tmp_path / "in-*.jsonl", steps=[])


def test_file_that_changes_under_the_run(run, tmp_path, monkeypatch):
    (tmp_path / "in.jsonl").write_bytes(lines(*GOOD))
    from gristmill.pipelines import job as module

    real = module.check_columns

    def then_change(*args):
        real(*args)
        (tmp_path / "in.jsonl").write_bytes(lines(*GOOD, *GOOD))

    monkeypatch.setattr(module, "check_columns", then_change)
    with pytest.raises(InputError, match="has changed since the run was planned"):
        run(tmp_path / "in.jsonl", steps=[])


@pytest.mark.parametrize(
    ("steps", "error", "text"),
    [
        (
            [{"step": "filter", "where": "lenght(text) > 1"}],
            PipelineError,
            "no function 'lenght'.*Did you mean 'length'",
        ),
        (
            [{"step": "filter", "where": "txt == 'a'"}],
            ColumnError,
            r"step 1 \(filter\): no column 'txt'. Did you mean 'text'",
        ),
        ([{"step": "filter", "where": "text > 5"}], PipelineError, "can't be evaluated"),
        ([{"step": "drop_near_duplicates", "column": "body"}], ColumnError, "no column 'body'"),
        ([{"step": "normalize_text", "column": "n"}], PipelineError, "column 'n' is int64, expected text"),
        (
            [{"step": "select_columns", "columns": ["n"]}, {"step": "normalize_text", "column": "text"}],
            ColumnError,
            r"step 2 \(normalize_text\)",
        ),
        ([{"step": "python", "function": "nowhere:f"}], PipelineError, "can't import module 'nowhere'"),
        (
            [{"step": "quality_rules", "column": "text", "preset": "gophr"}],
            PipelineError,
            "unknown preset 'gophr'. Did you mean 'gopher'",
        ),
        ([{"step": "cast", "columns": {"n": "int65"}}], PipelineError, "no type 'int65'. Did you mean 'int64'"),
        (
            [{"step": "filter", "where": "n"}],
            PipelineError,
            r"step 1 \(filter\): where: 'n' is int64, expected true or false",
        ),
        ([{"step": "filter", "where": "n > 1 and 'a'"}], PipelineError, "''a'' is string, expected true or false"),
        ([{"step": "select_columns", "columns": ["n", "text", "n"]}], PipelineError, "column 'n' is selected twice"),
        (
            [{"step": "drop_exact_duplicates", "column": "text", "priority": ["web", "boks"]}],
            PipelineError,
            r"step 1 \(drop_exact_duplicates\): priority names no source 'boks'. Valid: web",
        ),
    ],
)
def test_steps_that_cannot_work_are_refused_before_any_work(run, tmp_path, steps, error, text):
    (tmp_path / "in.jsonl").write_bytes(lines(*GOOD))
    with pytest.raises(error, match=text):
        run(tmp_path / "in.jsonl", steps=steps)
    assert not list((tmp_path / "out").rglob("*.arrow")), "no work was done"


def test_parquet_that_is_none_is_quarantined_and_the_rest_survives(run, tmp_path):
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "good.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nonsense PAR1")
    result = run(sources=[{"kind": "parquet", "path": [str(tmp_path / "*.parquet")], "name": "p"}], steps=[])
    assert result.counts["kept"] == 2 and ledger_of(result)[0]["rule"] == "unreadable_file"


def test_text_files_that_are_not_utf8_are_quarantined(run, tmp_path):
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / "b.txt").write_bytes("na\u00efve".encode("latin-1"))
    (tmp_path / "c.txt").write_bytes(b"")
    result = run(sources=[{"kind": "text", "path": str(tmp_path / "*.txt"), "name": "t"}], steps=[])
    assert sorted(row["text"] for row in rows_of(result)) == ["", "fine"]
    bad = ledger_of(result)[0]
    assert (bad["rule"], Path(bad["position"]).name) == ("bad_utf8", "b.txt")
