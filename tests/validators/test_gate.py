"""Verdicts bound to content and suite: kept once, never overwritten, followed by streams; on disk and in S3."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.errors import CorruptDatasetError, SuiteError, VerdictError
from gristmill.storage.folder import open_folder
from gristmill.storage.gc import gc
from gristmill.storage.stream import stream
from gristmill.storage.stream.gates import outcomes
from gristmill.validators import gate
from gristmill.validators.gate import gate_entry, judge, kept_verdict, verdict_path
from gristmill.validators.suites import load_suite

from .versions import publish_version

STRICT = {
    "name": "people",
    "expectations": [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "age", "max_value": 50}}],
}
LAX = {
    "name": "people",
    "expectations": [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "age", "max_value": 500}}],
}


def table(rows: int = 200) -> pa.Table:
    return pa.table(
        {"_uid": [f"u{i}" for i in range(rows)], "age": list(range(rows)), "text": [f"t{i}" for i in range(rows)]}
    )


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path):
    return request.getfixturevalue("s3_folder") if request.param == "s3" else open_folder(tmp_path / "data")


def test_a_verdict_is_kept_beside_its_content_with_report_and_bad_rows(folder, tmp_path):
    dataset = publish_version(folder, table(), shard_bytes=2000)
    kept = judge(dataset, STRICT)
    suite = load_suite(STRICT)
    assert not kept.success and kept.path == folder.url(verdict_path(dataset.fingerprint, suite.hash))
    (verdict,) = dataset.verdicts
    assert (
        verdict["suite_hash"] == suite.hash
        and verdict["fingerprint"] == dataset.fingerprint
        and verdict["suite"] == "people"
    )
    assert verdict["statistics"]["unsuccessful_expectations"] == 1 and verdict["created"]
    assert b"Failed" in folder.read_bytes(verdict["report"])
    (tmp_path / "bad.parquet").write_bytes(folder.read_bytes(verdict["bad_rows"]))
    bad = pq.read_table(tmp_path / "bad.parquet")
    assert bad["age"].to_pylist() == list(range(51, 200)) == bad["_row"].to_pylist()
    shards = {entry.path: entry.rows for entry in dataset.files()}
    assert len(shards) > 2
    starts = dict(zip(shards, [sum(list(shards.values())[:i]) for i in range(len(shards))], strict=True))
    assert all(starts[row["_shard"]] + row["_shard_row"] == row["_row"] for row in bad.to_pylist())
    assert set(sum(bad["_expectations"].to_pylist(), [])) == {verdict["results"][0]["expectation_config"]["id"]}
    good = judge(dataset, LAX)
    assert good.success and good.bad_rows is None and len(dataset.verdicts) == 2


def test_a_verdict_is_found_again_and_the_same_again_changes_nothing(folder, monkeypatch):
    dataset = publish_version(folder, table())
    first = judge(dataset, STRICT)
    again = judge(dataset, STRICT)
    assert again.path == first.path and len(dataset.verdicts) == 1
    monkeypatch.setattr(gate, "validate", lambda *_, **__: 1 / 0)
    known = judge(dataset, STRICT, again=False)
    assert (known.path, known.report, known.bad_rows) == (first.path, first.report, first.bad_rows)
    named = {**STRICT, "expectations": [{**STRICT["expectations"][0], "id": "another", "notes": "n"}]}
    assert kept_verdict(dataset, load_suite(named)).path == first.path, "ids and notes are no part of a suite's hash"
    assert kept_verdict(dataset, load_suite(LAX)) is None


def test_another_outcome_is_a_new_verdict_and_the_newest_counts(folder):
    dataset = publish_version(folder, table(), gate=[gate_entry(load_suite(LAX))])
    path = verdict_path(dataset.fingerprint, load_suite(LAX).hash)
    failed = {
        "success": False,
        "suite": "people",
        "suite_hash": load_suite(LAX).hash,
        "fingerprint": dataset.fingerprint,
        "report": "reports/x",
        "results": [],
    }
    folder.create(path, json.dumps(failed).encode())
    with pytest.raises(VerdictError, match="failed"):
        stream(dataset)
    kept = judge(dataset, LAX)
    assert kept.success and kept.path == folder.url(path.replace(".json", "~2.json"))
    assert json.loads(folder.read_bytes(path)) == failed, "a verdict is never changed"
    assert outcomes(dataset)[0] >= {"people", gate_entry(load_suite(LAX))} and stream(dataset) is not None
    assert kept_verdict(dataset, load_suite(LAX)).path == kept.path == judge(dataset, LAX).path


@pytest.mark.parametrize("damage", ["torn", "empty", "other content", "other suite", "no object"])
def test_a_verdict_that_is_not_what_its_name_says_opens_nothing(tmp_path, damage):
    folder = open_folder(tmp_path / "data")
    dataset = publish_version(folder, table(), gate=[gate_entry(load_suite(LAX))])
    judge(dataset, LAX)
    assert stream(dataset) is not None
    path = verdict_path(dataset.fingerprint, load_suite(LAX).hash)
    content = folder.read_bytes(path)
    known = json.loads(content)
    bad = {
        "torn": content[: len(content) // 2],
        "empty": b"",
        "no object": b"true",
        "other content": json.dumps({**known, "fingerprint": "f" * 32}).encode(),
        "other suite": json.dumps({**known, "suite_hash": "0" * 64}).encode(),
    }
    folder.write_atomic(path, bad[damage])
    with pytest.raises(CorruptDatasetError, match="delete it and run gristmill validate again"):
        stream(dataset)
    folder.delete(path)
    with pytest.raises(VerdictError, match="has not been run"):
        stream(dataset)
    judge(dataset, LAX)
    assert stream(dataset) is not None


@pytest.mark.parametrize("severity", ["critical", "warning", "info"])
def test_an_error_fails_the_verdict_whatever_its_severity(tmp_path, severity):
    folder = open_folder(tmp_path / "data")
    kwargs = {"column": "aged", "max_value": 3}
    suite = {
        "name": "s",
        "expectations": [
            {"type": "expect_column_mean_to_be_between", "kwargs": kwargs, "severity": severity},
            {**LAX["expectations"][0], "severity": severity},
        ],
    }
    dataset = publish_version(folder, table(), gate=[gate_entry(load_suite(suite))])
    assert not judge(dataset, suite).success
    with pytest.raises(VerdictError, match="failed"):
        stream(dataset)
    unread = {**suite, "expectations": suite["expectations"][1:]}
    assert judge(dataset, unread).success
    victim = dataset.files()[0].path
    folder.write_atomic(victim, folder.read_bytes(victim)[:100] + bytes(300) + folder.read_bytes(victim)[400:])
    assert not gate.judge_data(dataset, {**unread, "name": "t"}, states=False).verdict.success


def test_a_verdict_with_an_error_in_it_is_asked_for_again(folder):
    dataset = publish_version(folder, table())
    suite = {
        "name": "s",
        "expectations": [{"type": "expect_column_mean_to_be_between", "kwargs": {"column": "aged", "max_value": 3}}],
    }
    kept = judge(dataset, suite)
    assert not kept.success and kept.bad_rows is None
    assert kept_verdict(dataset, load_suite(suite)) is None


def test_a_gate_added_to_a_version_later_is_opened_by_validating(folder):
    dataset = publish_version(folder, table(), gate=[gate_entry(load_suite(LAX))])
    with pytest.raises(VerdictError, match="'people' has not been run.*gristmill validate .*@1 --suite people.json"):
        stream(dataset)
    judge(dataset, LAX)
    assert stream(dataset) is not None


def test_the_same_content_has_the_same_verdicts(folder):
    dataset = publish_version(folder, table(), shard_bytes=2000)
    judge(dataset, LAX)
    publish_version(folder, table(50))
    again = publish_version(folder, table())  # in one shard now: another layout, the same content
    assert again.layout != dataset.layout and again.fingerprint == dataset.fingerprint
    assert [verdict["success"] for verdict in again.verdicts] == [True]


def test_gc_keeps_verdicts_and_the_reports_of_versions_that_stay(folder):
    dataset = publish_version(folder, table())
    kept = judge(dataset, STRICT)
    gc(folder, older_than=-10)
    assert (
        len(dataset.verdicts) == 1
        and folder.exists(dataset.verdicts[0]["report"])
        and folder.exists(dataset.verdicts[0]["bad_rows"])
    )
    publish_version(folder, table(50))
    gc(folder, keep=1, older_than=-10)
    assert len(dataset.verdicts) == 1 and not folder.exists(kept.verdict["report"])


def test_an_old_version_that_can_t_be_read_is_told_and_doesn_t_stop_the_new_one(tmp_path):
    folder = open_folder(tmp_path / "data")
    old = publish_version(folder, table())
    new = publish_version(folder, table(150))
    for entry in old.files():
        if entry.path not in {other.path for other in new.files()}:
            folder.delete(entry.path)
    kept = judge(new, LAX)
    assert kept.success and b"Could not be compared" in folder.read_bytes(kept.verdict["report"])


def test_old_versions_are_not_read_for_the_trend(tmp_path, monkeypatch):
    from gristmill.validators import history

    folder = open_folder(tmp_path / "data")
    datasets = [publish_version(folder, table(100 + i)) for i in range(4)]
    read = []
    real = history.profile
    monkeypatch.setattr(history, "profile", lambda dataset: read.append(dataset.version) or real(dataset))
    judge(datasets[3], LAX)
    assert read == [4, 3], "its own, and that of the version before"


def test_a_split_alone_is_judged_but_says_nothing_about_the_version(folder):
    dataset = publish_version(folder, {"train": table(80), "test": table(10)})
    judged = gate.judge_data(dataset, STRICT, split="test")
    assert judged.verdict.success and judged.dataset is None and dataset.verdicts == []


def test_wrong_suites_are_refused(folder):
    dataset = publish_version(folder, table())
    with pytest.raises(SuiteError):
        judge(dataset, {"name": "x", "expectations": [{"type": "expect_nothing"}]})
    with pytest.raises(SuiteError, match="has no expectations"):
        judge(dataset, {"name": "x", "expectations": []})
    assert dataset.verdicts == []
