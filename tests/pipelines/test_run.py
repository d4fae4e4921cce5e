"""A whole run: what is in the version, and that it is a function of the rows alone."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from pathlib import Path

import pytest

import gristmill
from gristmill.errors import CommitConflictError, NotADatasetError, PipelineError, UsageError
from gristmill.pipelines.explain import explain_row, story

from .conftest import STEPS, corpus, jaccard, ledger_of, rows_of, shingles, write_jsonl

SPLIT = {"train": 0.7, "validation": 0.2, "test": 0.1, "similarity": 0.5}


def test_every_row_is_accounted_for_and_removals_are_right(run, tmp_path):
    rows = corpus()
    write_jsonl(tmp_path / "raw", rows)
    result = run(tmp_path / "raw", id="id")
    kept, ledger = rows_of(result), ledger_of(result)
    assert result.published and result.version == 1
    assert result.counts == {"read": 160, "created": 0, "kept": len(kept), "dropped": 160 - len(kept), "quarantined": 0}
    text = {row["id"]: row["text"] for row in rows}
    drops = [entry for entry in ledger if entry["action"] == "drop"]
    assert {entry["uid"] for entry in drops} | {row["_uid"] for row in kept} == set(text)
    for entry in drops:  # verified, and against a row that is really there
        assert entry["rule"] == "near_duplicate" and entry["step"] == "drop_near_duplicates"
        assert entry["similarity"] == pytest.approx(
            jaccard(shingles(text[entry["uid"]]), shingles(text[entry["other_uid"]]))
        )
        assert entry["similarity"] >= 0.8 and entry["other_uid"] in {row["_uid"] for row in kept}
        assert entry["position"].startswith(str(tmp_path / "raw")) and entry["source"] == "web"
    sets = {row["_uid"]: shingles(row["text"]) for row in kept}
    pairs = sum(jaccard(shingles(a), shingles(b)) >= 0.8 for a, b in itertools.combinations(text.values(), 2))
    missed = sum(jaccard(sets[a], sets[b]) >= 0.8 for a, b in itertools.combinations(sets, 2))
    assert pairs >= 40 and missed / pairs <= 0.02


def test_the_same_again_publishes_nothing_and_redoes_nothing(run, tmp_path):
    write_jsonl(tmp_path / "raw", corpus())
    first = run(tmp_path / "raw", split=SPLIT)
    again = run(tmp_path / "raw", split=SPLIT)
    assert first.published and not again.published
    assert again.version == 1 and again.fingerprint == first.fingerprint and again.counts == first.counts
    assert again.reused_items > 0 and len(first.dataset.history()) == 1


def test_fingerprint_is_free_of_names_order_and_cuts_of_files(run, tmp_path):
    rows = corpus()
    write_jsonl(tmp_path / "a", rows, files=4)
    shuffled = rows[:]
    random.Random(5).shuffle(shuffled)
    write_jsonl(tmp_path / "b", shuffled, files=7, prefix="other", packed=False)
    first = run(tmp_path / "a", out="x", split=SPLIT)
    second = run(tmp_path / "b", out="y", split=SPLIT)
    assert first.fingerprint == second.fingerprint
    assert rows_of(first) == rows_of(second)
    assert first.dataset.diff(second.dataset).rows["moved"] == 0


def test_layout_and_fingerprint_are_the_same_on_worker_processes(run, tmp_path):
    write_jsonl(tmp_path / "raw", corpus(), files=5)
    here = run(tmp_path / "raw", out="x", split=SPLIT)
    there = run(tmp_path / "raw", out="y", split=SPLIT, engine="dask", workers=2, memory="3GB", in_process=False)
    assert (here.fingerprint, here.layout, here.counts) == (there.fingerprint, there.layout, there.counts)


def test_splits_do_not_leak(run, tmp_path):
    rows = corpus(80)
    write_jsonl(tmp_path / "raw", rows)
    result = run(
        tmp_path / "raw", split=SPLIT, steps=[{"step": "drop_near_duplicates", "column": "text", "threshold": 0.95}]
    )
    parts = {
        name: [shingles(text) for text in result.dataset.to_table(split=name)["text"].to_pylist()]
        for name in SPLIT
        if name != "similarity"
    }
    assert sum(len(part) for part in parts.values()) == result.counts["kept"] and all(parts.values())
    within = max(jaccard(a, b) for part in parts.values() for a, b in itertools.combinations(part, 2))
    across = max(jaccard(a, b) for x, y in itertools.combinations(parts.values(), 2) for a in x for b in y)
    assert within > 0.8 and across < 0.5


def test_group_by_keeps_a_group_in_one_split(run, tmp_path):
    write_jsonl(tmp_path / "raw", corpus(50))
    result = run(tmp_path / "raw", steps=[], split={"train": 0.5, "test": 0.5, "group_by": "family"})
    families = [set(result.dataset.to_table(split=name)["family"].to_pylist()) for name in ("train", "test")]
    assert all(families) and not families[0] & families[1]


def test_survivor_is_by_priority_then_quality_then_uid(run, tmp_path):
    text = "the same words in every one of these rows so that only one may stay"
    write_jsonl(tmp_path / "a", [{"id": "a1", "text": text, "q": 9.0}, {"id": "a2", "text": text, "q": None}], files=1)
    write_jsonl(
        tmp_path / "b", [{"id": "b1", "text": text, "q": 1.0}, {"id": "b2", "text": text + " ", "q": 2.0}], files=1
    )
    sources = [{"kind": "jsonl", "path": str(tmp_path / name), "name": name} for name in "ab"]

    def kept(**options):
        for step in ("drop_exact_duplicates", "drop_near_duplicates"):
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            result = run(sources=sources, id="id", steps=[{"step": step, "column": "text", **options}])
            yield [row["_uid"] for row in rows_of(result)]

    assert list(kept()) == [["a1"], ["a1"]]
    assert list(kept(quality="q")) == [["a1"], ["a1"]]
    assert list(kept(priority=["b"], quality="q")) == [["b2"], ["b2"]]
    assert list(kept(priority=["b"])) == [["b1"], ["b1"]]


def test_no_chains(run, tmp_path):
    """A resembles B and B resembles C, but A doesn't resemble C: B goes, C stays."""
    words = [f"word{i}" for i in range(40)]
    b, c = [*words[4:], "b1", "b2", "b3", "b4"], [*words[8:], "b1", "b2", "b3", "b4", "c1", "c2", "c3", "c4"]
    rows = [{"id": name, "text": " ".join(text)} for name, text in (("a", words), ("b", b), ("c", c))]
    similar = {
        (x["id"], y["id"]): jaccard(shingles(x["text"]), shingles(y["text"]))
        for x, y in itertools.combinations(rows, 2)
    }
    assert similar["a", "b"] >= 0.7 <= similar["b", "c"] and similar["a", "c"] < 0.7
    write_jsonl(tmp_path / "raw", rows, files=1)
    result = run(
        tmp_path / "raw", id="id", steps=[{"step": "drop_near_duplicates", "column": "text", "threshold": 0.7}]
    )
    assert [row["_uid"] for row in rows_of(result)] == ["a", "c"]


def test_explain_tells_of_kept_dropped_and_quarantined_rows(run, tmp_path):
    rows = corpus(5)
    rows.append({"id": "tiny", "text": "too short"})
    write_jsonl(tmp_path / "raw", rows, files=1, packed=False)
    with open(tmp_path / "raw" / "part-00.jsonl", "a") as out:
        out.write("{broken\n")
    result = run(tmp_path / "raw", id="id")
    kept = explain_row(result.dataset, rows_of(result)[0]["_uid"])
    assert kept["fate"] == "kept" and kept["row"]["text"] and "byte" in kept["origins"][0]["position"]
    tiny = explain_row(result.dataset, "tiny")
    assert tiny["fate"] == "dropped"
    assert [(e["rule"], e["value"], e["threshold"]) for e in tiny["decisions"]] == [("length(text) > 20", 9.0, 20.0)]
    assert "value 9, threshold 20" in story(tiny)
    near = next(entry for entry in ledger_of(result) if entry["rule"] == "near_duplicate")
    found = explain_row(result.dataset, near["uid"])
    assert found["kept_rows"][0]["uid"] == near["other_uid"] and found["kept_rows"][0]["origins"]
    bad = next(entry for entry in ledger_of(result) if entry["action"] == "quarantine")
    assert explain_row(result.dataset, bad["uid"])["fate"] == "quarantined" and bad["rule"] == "bad_json"
    with pytest.raises(UsageError, match="never saw a row 'nope'"):
        explain_row(result.dataset, "nope")


def test_repeated_rows_without_an_id_are_numbered(run, tmp_path):
    rows = [{"text": "twice the same"}, {"text": "once"}, {"text": "twice the same"}, {"text": "twice the same"}]
    write_jsonl(tmp_path / "raw", rows, files=2)
    result = run(tmp_path / "raw", steps=[])
    uids = [row["_uid"] for row in rows_of(result) if row["text"] == "twice the same"]
    assert uids == [uids[0], f"{uids[0]}~2", f"{uids[0]}~3"] and result.counts["kept"] == 4
    assert explain_row(result.dataset, uids[2])["origins"]


def test_only_what_is_new_is_done(run, tmp_path):
    write_jsonl(tmp_path / "raw", corpus(30), files=6)
    first = run(tmp_path / "raw")
    write_jsonl(tmp_path / "raw", corpus(5, seed=9), files=1, prefix="new")
    plan = gristmill.plan(
        {
            "name": "test",
            "sources": [{"kind": "jsonl", "path": str(tmp_path / "raw"), "name": "web"}],
            "steps": STEPS,
            "output": {"path": str(tmp_path / "out")},
        }
    )
    assert [item["action"] for item in plan["items"]].count("read") <= 2 and plan["newest_version"] == 1
    second = run(tmp_path / "raw")
    assert second.version == 2 and second.counts["read"] == first.counts["read"] + 20
    fresh = run(tmp_path / "raw", out="fresh")
    assert (fresh.fingerprint, fresh.layout) == (second.fingerprint, second.layout)


def test_changed_step_redoes_only_from_there(run, tmp_path):
    write_jsonl(tmp_path / "raw", corpus(), files=4)
    run(tmp_path / "raw")
    changed = [*STEPS[:3], {**STEPS[3], "threshold": 0.95}]
    second = run(tmp_path / "raw", steps=changed)
    assert second.version == 2 and second.reused_items >= 1
    assert second.fingerprint == run(tmp_path / "raw", steps=changed, out="fresh").fingerprint


def test_outputs_that_are_refused(run, tmp_path):
    write_jsonl(tmp_path / "raw", corpus(3))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(NotADatasetError, match=r"not a gristmill dataset \(it holds thesis.txt\)"):
        run(tmp_path / "raw", out="mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious" and len(
        list((tmp_path / "mine").iterdir())
    ) == 1
    with pytest.raises(PipelineError, match="lies inside the input folder"):
        run(tmp_path / "raw", out="raw/shards")
    run(tmp_path / "raw")
    with pytest.raises(PipelineError, match="holds the input file"):
        run(sources=[{"kind": "parquet", "path": str(tmp_path / "out" / "data"), "name": "own"}])


def test_nothing_temporary_is_left(run, tmp_path):
    write_jsonl(tmp_path / "raw", corpus(10))
    run(tmp_path / "raw", split=SPLIT)
    assert not [path for path in (tmp_path / "out").rglob("*") if ".tmp-" in path.name]


def test_a_run_that_lost_the_race_is_told(run, tmp_path, monkeypatch):
    """Another run publishes between this one's start and its commit."""
    write_jsonl(tmp_path / "raw", corpus(5))
    write_jsonl(tmp_path / "raw2", corpus(6))
    from gristmill.pipelines import run as module

    real, done = module.publish, []

    def slow(*args, **kwargs):
        if not done:
            done.append(1)
            run(tmp_path / "raw2")  # the other run, whole
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "publish", slow)
    with pytest.raises(CommitConflictError, match="has changed while this run was at work: version 1 was published"):
        run(tmp_path / "raw")
    monkeypatch.undo()
    result = run(tmp_path / "raw")
    assert result.version == 2 and result.dataset.verify() == [] and len(result.dataset.history()) == 2


def test_shards_are_cut_by_bytes_at_the_same_rows_whatever_the_files(run, tmp_path):
    rows = corpus(60)
    write_jsonl(tmp_path / "a", rows, files=1)
    result = run(tmp_path / "a", steps=[], output={"shard_bytes": 20_000, "row_group_bytes": 5_000})
    files = result.dataset.files()
    assert len(files) > 3 and sum(entry.rows for entry in files) == 240
    assert all(len(entry.row_group_rows) >= 3 for entry in files[:-1])
    assert [row["id"] for row in result.dataset.to_table().to_pylist()] == [row["id"] for row in rows]


def test_settings_and_json_result(run, tmp_path):
    write_jsonl(tmp_path / "raw", corpus(5))
    result = run(tmp_path / "raw", settings=["steps.1.where=length(text) > 100000"])
    assert result.counts["kept"] == 0 and result.dataset.num_rows == 0
    assert json.loads(json.dumps(result.to_json_dict()))["counts"] == result.counts
    assert Path(result.report_path).read_text().startswith("<!doctype html>")
