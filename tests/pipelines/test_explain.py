"""`explain`: one row's whole story, for every fate."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

import gristmill
from gristmill.cli.main import app
from gristmill.errors import UsageError
from gristmill.pipelines.erase import erase
from gristmill.pipelines.explain import explain_row, story
from gristmill.pipelines.places import file_records
from gristmill.storage.gc import gc

from .conftest import document, ledger_of, rows_of, variant

FLAT = " ".join(["spam"] * 60)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    base = document(1, 90)
    rows = [
        {"id": "long", "text": base, "lang": "en", "tags": ["a"]},
        {"id": "near", "text": variant(base, 1, 1), "lang": "en", "tags": None},
        {"id": "same", "text": base.replace(" ", "  "), "lang": "en", "tags": []},
        {"id": "bad", "text": "# " * 30 + FLAT, "lang": "en", "tags": None},
        {"id": "foreign", "text": document(2, 80), "lang": "de", "tags": None},
        {"id": "twice", "text": document(3, 80), "lang": "en", "tags": None},
        {"id": "twice", "text": document(4, 80), "lang": "en", "tags": None},
        {"id": "edited", "text": "\x00" + document(5, 80) + "\r\n", "lang": "en", "tags": None},
        {"id": None, "text": document(6, 80), "lang": "en", "tags": None},
        {"id": "none", "text": None, "lang": "en", "tags": None},
    ]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"id": "torn", \n')
    steps = [
        {"step": "normalize_text", "column": "text"},
        {"step": "filter", "where": "lang == 'en' and length(text) < 5000"},
        {"step": "quality_rules", "column": "text", "preset": "gopher", "thresholds": {"gopher_few_stop_words": 0}},
        {"step": "drop_exact_duplicates", "column": "text"},
        {"step": "drop_near_duplicates", "column": "text", "threshold": 0.8},
    ]
    model = {
        "name": "t", "sources": [{"kind": "jsonl", "path": str(folder / "in.jsonl"), "name": "web"}], "id": "id", "steps": steps,
        "split": {"train": 0.5, "test": 0.5}, "output": {"path": str(folder / "out")},
    }  # fmt: skip
    return gristmill.run(model, progress="quiet")


def test_kept(result):
    found = explain_row(result.dataset, "long")
    assert found["fate"] == "kept" and found["decisions"] == [] and found["split"] in ("train", "test")
    assert found["row"]["lang"] == "en" and found["file"] in {
        entry.path for entry in result.dataset.files(found["split"])
    }
    assert [origin["position"].endswith("in.jsonl:byte 0") for origin in found["origins"]] == [True]
    text = story(found)
    assert f"long in {result.path}@1: kept" in text and "source web" in text and f"split {found['split']}" in text


def test_kept_and_edited(result):
    found = explain_row(result.path, "edited")
    assert found["fate"] == "kept"
    assert {(e["rule"], e["action"], e["value"]) for e in found["decisions"]} == {
        ("line_breaks", "edit", 1.0),
        ("control_characters", "edit", 1.0),
    }


def test_dropped_with_every_rule_its_value_and_threshold(result):
    found = explain_row(result.dataset, "bad")
    rules = {entry["rule"]: (entry["value"], entry["threshold"]) for entry in found["decisions"]}
    assert (
        found["fate"] == "dropped"
        and {"gopher_too_many_hashes", "top_2_gram", "duplicated_5_n_grams"} <= set(rules)
        and len(rules) >= 8
    )
    assert rules["gopher_too_many_hashes"] == (pytest.approx(30 / 90), 0.1)
    assert all(value is not None and threshold is not None for value, threshold in rules.values())
    assert "rule gopher_too_many_hashes, value 0.333333, threshold 0.1" in story(found)


def test_dropped_by_one_term_of_a_filter(result):
    found = explain_row(result.dataset, "foreign")
    assert [(e["step"], e["rule"], e["value"]) for e in found["decisions"]] == [("filter", "lang == 'en'", None)]
    found = explain_row(result.dataset, "none")
    assert [(e["step"], e["rule"]) for e in found["decisions"]] == [("filter", "length(text) < 5000")], (
        "unknown is not true"
    )


@pytest.mark.parametrize(("uid", "rule"), [("near", "near_duplicate"), ("same", "exact_duplicate")])
def test_duplicates_name_the_kept_row_and_the_similarity(result, uid, rule):
    found = explain_row(result.dataset, uid)
    (entry,) = found["decisions"]
    assert (found["fate"], entry["rule"], entry["other_uid"]) == ("dropped", rule, "long")
    assert entry["similarity"] == 1.0 if uid == "same" else 0.8 <= entry["similarity"] < 1
    assert found["kept_rows"][0]["uid"] == "long" and found["kept_rows"][0]["origins"][0]["position"].endswith("byte 0")
    assert f"duplicate of long (similarity {entry['similarity']:.4f})" in story(found)
    text = story(found)
    assert (
        f"{uid} in {result.path}@1: dropped as a duplicate of long\n" in text
        and "kept in its place: long, read from " in text
    )
    kept = explain_row(result.dataset, "long")
    assert kept["duplicates"]["rows"] == 2 and {each["uid"] for each in kept["duplicates"]["first"]} == {"near", "same"}
    assert f"{uid} (drop_{rule}s, similarity {entry['similarity']:.4f})" in story(
        kept
    ) and "dropped as duplicates of it: " in story(kept)


def test_of_an_id_with_two_contents_one_is_kept_and_one_quarantined(result):
    found = explain_row(result.dataset, "twice")
    assert found["fate"] == "kept" and len(found["origins"]) == 2
    assert [(entry["action"], entry["rule"]) for entry in found["decisions"]] == [("quarantine", "conflicting_id")]
    place = found["decisions"][0]["position"]
    (other,) = {origin["position"] for origin in found["origins"]} - {place}
    text = story(found)
    assert f"read from {place} (source web): quarantined by id (rule conflicting_id)\n" in text
    assert f"read from {other} (source web): this one is kept\n" in text
    assert explain_row(result.dataset, "twice", position=place)["fate"] == "quarantined"
    alone = explain_row(result.dataset, "twice", position=other)
    assert alone["fate"] == "kept" and alone["decisions"] == []


def test_a_record_that_could_not_be_read_is_shown_with_its_place_and_bytes(result):
    uid = next(entry["uid"] for entry in ledger_of(result) if entry["rule"] == "bad_json")
    found = explain_row(result.dataset, uid)
    assert found["fate"] == "quarantined" and found["unreadable"][0]["raw"] == '{"id": "torn", '
    text = story(found)
    assert "  read from " in text and "in.jsonl:byte" in text and '\'{"id": "torn", \'' in text


def test_quarantined(result):
    for rule in ("bad_json", "null_id"):
        entry = next(entry for entry in ledger_of(result) if entry["rule"] == rule)
        found = explain_row(result.dataset, entry["uid"])
        assert found["fate"] == "quarantined" and "in.jsonl:byte" in found["decisions"][0]["position"]


def test_every_row_of_the_ledger_can_be_explained(result):
    uids = {row["_uid"] for row in rows_of(result)} | {entry["uid"] for entry in ledger_of(result)}
    assert len(uids) == 10
    assert {explain_row(result.dataset, uid)["fate"] for uid in uids} == {"kept", "dropped", "quarantined"}
    with pytest.raises(UsageError, match="never saw a row 'ghost'"):
        explain_row(result.dataset, "ghost")


def _split_rows(table: pa.Table) -> pa.Table:
    table = table.append_column("_parent_uid", pa.nulls(table.num_rows, pa.string()))
    made = table.slice(0, 1)
    new = pa.array([f"{made['_uid'][0]}-made"])
    return pa.concat_tables(
        [
            table,
            made.set_column(made.column_names.index("_parent_uid"), "_parent_uid", made["_uid"]).set_column(
                made.column_names.index("_uid"), "_uid", new
            ),
        ]
    )


def test_rows_that_were_made_name_the_row_they_came_from(run, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"id": "a", "text": "x"}\n')
    result = run(
        tmp_path / "in.jsonl",
        id="id",
        steps=[{"step": "python", "function": "tests.pipelines.test_explain:_split_rows"}],
    )
    assert result.counts == {"read": 1, "created": 1, "kept": 2, "dropped": 0, "quarantined": 0}
    found = explain_row(result.dataset, "a-made")
    assert (
        found["fate"] == "kept"
        and "made from a" in story(found)
        and found["decisions"][0]["position"].endswith("byte 0")
    )


def test_what_became_later_of_the_row_that_stayed(run, tmp_path):
    text = document(1)
    rows = [{"id": "a", "text": text, "score": 1}, {"id": "b", "text": text, "score": 2}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps = [{"step": "drop_exact_duplicates", "column": "text"}, {"step": "filter", "where": "score > 1"}]
    result = run(tmp_path / "in.jsonl", id="id", steps=steps)
    found = explain_row(result.dataset, "b")
    assert found["kept_rows"][0]["left"] == {"action": "drop", "step": "filter", "rule": "score > 1"}
    assert "it stayed in its place: a, read from " in story(
        found
    ) and "; later dropped by filter (rule score > 1)" in story(found)


def test_a_row_of_another_version_or_candidate_is_said(run, tmp_path):
    for name, number in (("old", 1), ("new", 2), ("waiting", 3)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": name, "text": document(number)}) + "\n")
    run(tmp_path / "old.jsonl", id="id", steps=[])
    newest = run(tmp_path / "new.jsonl", id="id", steps=[])
    waiting = run(tmp_path / "waiting.jsonl", id="id", steps=[], candidate=True)
    with pytest.raises(
        UsageError, match=rf"version 2 of {newest.path} never saw a row 'old'. In {newest.path}@1 it is"
    ):
        explain_row(newest.path, "old")
    with pytest.raises(UsageError, match=rf"never saw a row 'waiting'. In {newest.path}@{waiting.candidate} it is"):
        explain_row(newest.path, "waiting")


def test_rows_of_an_append_that_published_nothing(run, tmp_path):
    text = document(1)
    (tmp_path / "1.jsonl").write_text(json.dumps({"id": "a", "text": text}) + "\n")
    (tmp_path / "2.jsonl").write_text(json.dumps({"id": "b", "text": text}) + "\n")
    steps = [{"step": "drop_exact_duplicates", "column": "text"}]
    options = {"id": "id", "steps": steps, "output": {"mode": "append"}}
    run(tmp_path / "1.jsonl", **options)
    second = run(tmp_path / "2.jsonl", **options)
    assert not second.published
    found = explain_row(second.path, "b")
    assert found["fate"] == "dropped" and found["kept_rows"][0]["uid"] == "a"
    assert f"dropped as a duplicate of a by a run that published nothing ({found['run']})" in story(found)
    gc(second.dataset.folder, older_than=-5.0)
    with pytest.raises(
        UsageError, match="never saw a row 'b'.*published nothing can be explained until `gristmill gc`"
    ):
        explain_row(second.path, "b")


@pytest.fixture
def mixed(run, tmp_path):
    """A version of files of every kind, each with something odd, and the folder that they are in."""
    raw = tmp_path / "raw"
    raw.mkdir()
    lines = ['{"id": "j1", "text": "one"}', "", '{"id": "j2", "text": ', '{"id": "j3", "text": "three"}']
    (raw / "part.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (raw / "table.csv").write_text('id,text\nc1,"two\nlines"\nc2,x,y\nc3,three\n')
    pq.write_table(pa.table({"id": ["p1", "p2"], "text": ["p", "q"]}), raw / "some.parquet")
    (raw / "doc.txt").write_text("a\ntext\n")
    sources = [
        {"kind": "jsonl", "path": str(raw / "part.jsonl.gz"), "name": "web"},
        {"kind": "csv", "path": str(raw / "table.csv"), "name": "table"},
        {"kind": "parquet", "path": str(raw / "some.parquet"), "name": "parquet"},
        {"kind": "text", "path": str(raw / "doc.txt"), "name": "docs"},
    ]
    return run(sources=sources, steps=[]), raw


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        ("part.jsonl.gz", 1, "part.jsonl.gz:byte 0"),
        ("raw/part.jsonl.gz", 3, "part.jsonl.gz:byte 29"),
        ("part.jsonl.gz", 4, "part.jsonl.gz:byte 51"),
        ("table.csv", 2, "table.csv:byte 8"),
        ("table.csv", 3, "table.csv:byte 8"),
        ("table.csv", 4, "table.csv:byte 23"),
        ("some.parquet", 2, "some.parquet:row 1"),
        ("doc.txt", 2, "doc.txt"),
    ],
)
def test_a_record_is_found_by_file_and_line(mixed, file, line, expected):
    result, raw = mixed
    uid, position = file_records(result.dataset, file).record_of_line(line, file)
    assert position == f"{raw}/{expected}"
    assert [origin["position"] for origin in explain_row(result.dataset, uid, position=position)["origins"]] == [
        position
    ]


def test_what_of_a_file_is_quarantined_is_listed(mixed):
    result, raw = mixed
    (bad,) = file_records(result.dataset, str(raw / "part.jsonl.gz")).quarantined()
    assert (bad["position"], bad["step"], bad["rule"]) == (f"{raw}/part.jsonl.gz:byte 29", "ingest", "bad_json")
    found = explain_row(result.dataset, bad["uid"], position=bad["position"])
    assert found["fate"] == "quarantined" and found["unreadable"][0]["raw"] == '{"id": "j2", "text": '
    assert file_records(result.dataset, "some.parquet").quarantined() == []


def test_a_place_that_is_none_is_said(mixed, run, tmp_path):
    result, raw = mixed
    with pytest.raises(UsageError, match="line 2 of '.*part.jsonl.gz' is no record: it is blank"):
        file_records(result.dataset, "part.jsonl.gz").record_of_line(2, "")
    with pytest.raises(UsageError, match="'.*part.jsonl.gz' has 4 lines, not 9"):
        file_records(result.dataset, "part.jsonl.gz").record_of_line(9, "")
    with pytest.raises(UsageError, match="has read nothing from 'art.jsonl.gz', but from .*part.jsonl.gz"):
        file_records(result.dataset, "art.jsonl.gz")
    (raw / "table.csv").unlink()
    with pytest.raises(UsageError, match="not there from here.*--file '.*table.csv:byte N'"):
        file_records(result.dataset, "table.csv").record_of_line(2, "table.csv")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.txt").write_text(folder)
    two = run(
        sources=[{"kind": "text", "path": [str(tmp_path / "a"), str(tmp_path / "b")], "name": "t"}], steps=[], out="two"
    )
    with pytest.raises(UsageError, match="'x.txt' may be .*a/x.txt, .*b/x.txt; give more of the path"):
        file_records(two.dataset, "x.txt")


ROWS = [{"id": name, "text": f"{name} {'text ' * 9}"} for name in "abcd"]


def _written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("by_id", [True, False])
def test_a_line_of_a_file_that_was_changed_never_names_another_record(run, tmp_path, by_id):
    file = _written(tmp_path / "n.jsonl", ROWS)
    options = {"steps": [{"step": "filter", "where": "length(text) > 9"}], **({"id": "id"} if by_id else {})}
    first = run(file, **options)
    uids = [file_records(first.dataset, "n.jsonl").record_of_line(line, "")[0] for line in (1, 4)]
    assert not by_id or uids == ["a", "d"]
    _written(file, [{"id": "z", "text": "short"}, *ROWS, {"id": "y", "text": "short"}])
    result = run(file, **options)
    assert not result.published
    records = file_records(result.dataset, "n.jsonl")
    with pytest.raises(
        UsageError, match=r"not as .*@1 read it: line 1 is now the record '.*', and at that place '.*' was read"
    ) as said:
        records.record_of_line(1, "")
    now = str(said.value).split("gristmill explain ")[1].split(";")[0].split()[1]
    assert explain_row(result.path, now)["fate"] == "dropped" and (not by_id or now == "z")
    with pytest.raises(UsageError, match="line 5 is now the record .*, and at that place no record was read.*explain"):
        records.record_of_line(5, "")
    with pytest.raises(UsageError, match="n.jsonl' has 6 lines, not 9"):
        records.record_of_line(9, "")
    _written(file, [*ROWS[:2], {"id": "c", "text": "another"}])
    assert records.record_of_line(1, "")[0] == uids[0], "what stands where it stood is told, whatever comes behind"


def test_a_line_is_that_of_the_run_that_read_the_file_last(run, tmp_path):
    options = {"id": "id", "steps": [], "output": {"mode": "append"}}
    file = _written(tmp_path / "n.jsonl", ROWS)
    run(file, **options)
    _written(file, [{"id": "z", "text": "new"}, *ROWS])
    result = run(file, **options)
    records = file_records(result.dataset, "n.jsonl")
    assert [records.record_of_line(line, "")[0] for line in (1, 2, 5)] == ["z", "a", "d"]


def test_a_line_that_can_be_read_by_itself_is_that_which_was_put_aside_after_others(run, tmp_path):
    rows = [{"id": "a", "v": "text"}, {"id": "b", "v": 1}, {"id": None, "v": "x"}, {"id": "d", "v": "y"}]
    result = run(_written(tmp_path / "n.jsonl", rows), id="id", steps=[])
    records = file_records(result.dataset, "n.jsonl")
    found = [explain_row(result.dataset, *records.record_of_line(line, "")[:1])["fate"] for line in (1, 2, 3, 4)]
    assert found == ["kept", "quarantined", "quarantined", "kept"]
    erase(result.path, ids=["d"])
    records = file_records(gristmill.open_dataset(result.path), "n.jsonl")
    assert records.record_of_line(4, "")[0].startswith("erased:")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_of_other_files_that_were_changed_are_refused_too(run, tmp_path, kind):
    def write(names):
        table = pa.table({"id": names, "text": [name * 5 for name in names]})
        (pq.write_table if kind == "parquet" else pa_csv.write_csv)(table, tmp_path / f"n.{kind}")

    write(["a", "b", "c"])
    result = run(sources=[{"kind": kind, "path": str(tmp_path / f"n.{kind}")}], id="id", steps=[])
    line = 3 if kind == "csv" else 2  # a CSV file's first line names the columns
    records = file_records(result.dataset, f"n.{kind}")
    assert records.record_of_line(line, "")[0] == "b"
    write(["z", "a", "b"])
    with pytest.raises(UsageError, match=f"line {line} is now the record 'a', and at that place 'b' was read"):
        records.record_of_line(line, "")


def test_lines_of_a_file_that_only_a_run_read_which_published_nothing(run, tmp_path, capsys):
    options = {"id": "id", "steps": [{"step": "filter", "where": "length(text) > 9"}], "output": {"mode": "append"}}
    run(_written(tmp_path / "1.jsonl", ROWS), **options)
    second = run(_written(tmp_path / "2.jsonl", [{"id": "z", "text": "short"}]), **options)
    assert not second.published
    app(["explain", second.path, "--file", "2.jsonl", "--line", "1"], standalone_mode=False)
    text = capsys.readouterr().out
    assert "z in" in text and "dropped by a run that published nothing (ledger/" in text
    app(["explain", second.path, "--file", "2.jsonl"], standalone_mode=False)
    assert "2.jsonl: 0 records quarantined by a run that published nothing (ledger/" in capsys.readouterr().out
