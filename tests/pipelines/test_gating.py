"""`validate:` in a pipeline: a candidate is judged and published only as the block says; bad rows can leave before rows are compared."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import gristmill
from gristmill.errors import CommitConflictError, DatasetNotFoundError, InputNotFoundError, SuiteError, VerdictError
from gristmill.pipelines import gating
from gristmill.pipelines.run import RunResult
from gristmill.storage.candidates import list_candidates, publish_candidate, reject_candidate
from gristmill.storage.dataset import open_dataset
from gristmill.storage.folder import open_folder
from gristmill.storage.stream import stream

from .conftest import ledger_of, write_jsonl

AGE = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "age", "min_value": 0, "max_value": 120}}
LABEL = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "label"}}
TEXT = {"type": "expect_column_value_lengths_to_be_between", "kwargs": {"column": "text", "min_value": 10}}
UNIQUE = {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "text"}}


def people(n: int = 60) -> list[dict[str, Any]]:
    return [
        {"id": f"r{i:03d}", "text": f"person number {i} likes {i * 7}", "age": i, "label": "ab"[i % 2]}
        for i in range(n)
    ]


@pytest.fixture
def gated(tmp_path: Path) -> Callable[..., RunResult]:
    """gated(rows, expectations, on_failure=...) -> RunResult."""

    def call(
        rows: list[dict[str, Any]],
        expectations: list[dict[str, Any]],
        on_failure: str = "reject",
        steps: Any = (),
        **options: Any,
    ) -> RunResult:
        for old in (tmp_path / "raw").glob("*"):
            old.unlink()
        write_jsonl(tmp_path / "raw", rows, files=2)
        (tmp_path / "people.json").write_text(json.dumps({"name": "people", "expectations": expectations}))
        model = {
            "name": "people",
            "sources": [{"kind": "jsonl", "path": str(tmp_path / "raw"), "name": "web"}],
            "id": "id",
            "steps": list(steps),
            "validate": {"suite": str(tmp_path / "people.json"), "on_failure": on_failure},
            "output": {"path": str(tmp_path / "out")},
        }
        return gristmill.run(model, progress="quiet", **options)

    return call


def test_what_passes_is_published_with_its_gate_and_can_be_streamed(gated):
    result = gated(people(), [AGE, LABEL])
    assert (result.published, result.version, result.candidate) == (True, 1, None)
    assert result.verdict["success"] and result.verdict["failed"] == [] and result.verdict["bad_rows"] is None
    dataset = open_dataset(result.path)
    (verdict,) = dataset.verdicts
    assert list(dataset.manifest.gate) == [f"people@{verdict['suite_hash'][:16]}"]
    assert verdict["success"] and verdict["fingerprint"] == dataset.fingerprint
    assert list_candidates(dataset.folder) == []
    assert sum(len(batch["age"]) for batch in stream(dataset, global_batch_size=16, columns=["age"])) == 60
    again = gated(people(), [AGE, LABEL])
    assert (again.published, again.version, again.verdict["success"]) == (False, 1, True)
    assert len(open_dataset(result.path).verdicts) == 1


def test_what_fails_is_a_candidate_with_its_report_and_bad_rows(gated):
    rows = people()
    rows[3]["age"], rows[5]["age"], rows[5]["label"] = 900, -1, None
    result = gated(rows, [AGE, LABEL])
    assert (result.published, result.version) == (False, 0) and result.candidate == result.fingerprint[:16]
    assert result.verdict["failed"] == [
        "critical: age is between 0 and 120: 2 of 60 rows do not",
        "critical: label is never missing: 1 of 60 rows do not",
    ]
    with pytest.raises(DatasetNotFoundError):
        open_dataset(result.path)
    assert "Failed" in Path(result.verdict["report"]).read_text()
    bad = pq.read_table(result.verdict["bad_rows"]).to_pylist()
    candidate = open_dataset(f"{result.path}@{result.candidate}")
    ids = {
        r["expectation_config"]["kwargs"]["column"]: r["expectation_config"]["id"]
        for r in candidate.verdicts[0]["results"]
    }
    failed = {row["id"]: (row["age"], set(row["_expectations"])) for row in bad}
    assert failed == {"r003": (900, {ids["age"]}), "r005": (-1, {ids["age"], ids["label"]})}
    with pytest.raises(VerdictError, match="suite 'people' failed"):
        stream(candidate)
    again = gated(rows, [AGE, LABEL])
    assert (again.candidate, again.published, again.verdict["success"]) == (result.candidate, False, False)
    reject_candidate(candidate.folder, result.candidate)
    assert list_candidates(candidate.folder) == []


def test_a_candidate_published_by_hand_still_has_to_be_let_through(gated, caplog):
    rows = people()
    rows[3]["age"] = 900
    result = gated(rows, [AGE])
    version = publish_candidate(open_folder(result.path), result.candidate).manifest.version
    dataset = open_dataset(result.path)
    assert (version, dataset.version) == (1, 1)
    with pytest.raises(VerdictError, match="require_verdict=False streams it all the same"):
        stream(dataset)
    with caplog.at_level(logging.WARNING, "gristmill.stream"):
        assert len(list(stream(dataset, global_batch_size=60, require_verdict=False))) == 1
    assert "its gate has not been passed: people@" in caplog.text


def test_publish_unverified_publishes_what_fails_and_streams_refuse_it(gated):
    rows = people()
    rows[3]["age"] = 900
    result = gated(rows, [AGE], "publish_unverified")
    assert (result.published, result.version, result.candidate, result.verdict["success"]) == (True, 1, None, False)
    assert "needs require_verdict=False" in Path(result.verdict["report"]).read_text()
    with pytest.raises(VerdictError):
        stream(open_dataset(result.path))
    again = gated(rows, [AGE], "publish_unverified")
    assert (again.published, again.version, again.verdict["success"]) == (False, 1, False)


def test_a_warning_is_reported_and_lets_pass(gated):
    rows = people()
    rows[3]["age"] = 900
    result = gated(rows, [{**AGE, "severity": "warning"}, LABEL])
    assert result.published and result.verdict["success"]
    assert result.verdict["failed"] == ["warning: age is between 0 and 120: 1 of 60 rows do not"]
    assert len(list(stream(open_dataset(result.path), global_batch_size=60))) == 1


def test_an_error_while_evaluating_is_a_failure(gated):
    result = gated(
        people(), [AGE, {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "aeg", "min_value": 0}}]
    )
    assert not result.published and not result.verdict["success"]
    (failed,) = result.verdict["failed"]
    assert "could not be evaluated" in failed and "Did you mean 'age'" in failed


def test_the_evaluator_breaking_publishes_nothing(gated, monkeypatch):
    from gristmill.validators import gate

    monkeypatch.setattr(gate, "validate", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gated(people(), [AGE])
    monkeypatch.undo()
    result = gated(people(), [AGE])
    assert result.published and list_candidates(result.dataset.folder) == [] and open_dataset(result.path).version == 1


def test_a_suite_that_can_t_be_meant_is_refused_before_any_work(gated, tmp_path):
    with pytest.raises(SuiteError, match="Did you mean 'expect_column_values_to_be_between'"):
        gated(people(), [{"type": "expect_column_values_to_be_betwen", "kwargs": {"column": "age"}}])
    with pytest.raises(SuiteError, match="unknown parameter"):
        gated(people(), [{"type": AGE["type"], "kwargs": {"column": "age", "minimum": 3}}])
    with pytest.raises(SuiteError, match="has no expectations"):
        gated(people(), [])
    assert not (tmp_path / "out" / "data").exists()
    missing = {
        "name": "p",
        "sources": [{"kind": "jsonl", "path": str(tmp_path / "raw"), "name": "web"}],
        "validate": {"suite": str(tmp_path / "none.json")},
        "output": {"path": str(tmp_path / "out")},
    }
    with pytest.raises(InputNotFoundError, match="no suite at"):
        gristmill.run(missing, progress="quiet")
    with pytest.raises(InputNotFoundError, match="no suite at"):
        gristmill.plan(missing)


def test_another_suite_of_the_same_name_does_not_open_the_gate(gated, tmp_path):
    from gristmill.validators.gate import judge

    rows = people()
    rows[3]["age"] = 900
    dataset = gated(rows, [AGE], "publish_unverified").dataset
    lax = {"name": "people", "expectations": [LABEL]}
    assert judge(dataset, lax).success and len(dataset.verdicts) == 2
    with pytest.raises(VerdictError):
        stream(dataset)
    assert stream(dataset, require_verdict="people") is not None, "asked for by name, any suite of that name will do"


def test_quarantined_rows_leave_before_rows_are_compared(gated):
    """The bad twin comes first in survivor order: compared with it, the good one would leave, and then both were gone."""
    rows = people(20)
    rows[10] |= {"text": rows[2]["text"], "id": "r999"}
    rows[2]["age"] = 900
    result = gated(rows, [AGE, UNIQUE], "quarantine_rows", [{"step": "drop_exact_duplicates", "column": "text"}])
    assert result.published and result.verdict["success"], (
        "and the finished dataset is judged by what is about all rows"
    )
    assert result.counts == {"read": 20, "created": 0, "kept": 19, "dropped": 0, "quarantined": 1}
    kept = {row["id"] for row in result.dataset.to_table().to_pylist()}
    assert "r999" in kept and "r002" not in kept


def test_a_quarantined_row_has_every_expectation_that_it_failed_in_the_ledger(gated):
    rows = people(20)
    rows[4] |= {"age": 900, "label": None, "text": "short"}
    rows[5]["label"] = None
    rows[6]["text"] = "tiny"
    result = gated(
        rows,
        [AGE, {**LABEL, "kwargs": {"column": "label", "mostly": 0.5}}, {**TEXT, "severity": "warning"}],
        "quarantine_rows",
    )
    found = {}
    for row in ledger_of(result):
        assert (row["step"], row["action"]) == ("validate", "quarantine")
        found.setdefault(row["uid"], set()).add(row["rule"])
    assert found == {
        "r004": {"values_to_be_between(age)", "values_to_not_be_null(label)", "value_lengths_to_be_between(text)"},
        "r005": {"values_to_not_be_null(label)"},
    }, "r006 fails a warning alone and stays; mostly is for the judgement, not for single rows"
    assert result.counts["quarantined"] == 2 and result.counts["kept"] == 18
    assert result.verdict["failed"] == ["warning: the length of text is at least 10: 1 of 18 rows do not"]


def test_the_rest_is_judged_after_the_bad_rows_left(gated):
    rows = people(20)
    for row in rows[:15]:
        row["age"] = 900
    enough = {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 10}}
    result = gated(rows, [AGE, enough], "quarantine_rows")
    assert not result.published and result.counts["quarantined"] == 15
    assert result.verdict["failed"] == ["critical: the number of rows is at least 10: found 5"]


def test_changed_suites_quarantine_anew_and_finished_work_is_found_again(gated):
    rows = people(40)
    first = gated(rows, [AGE], "quarantine_rows")
    assert gated(rows, [AGE], "quarantine_rows").reused_items > 0
    stricter = {**AGE, "kwargs": {**AGE["kwargs"], "max_value": 20}}
    second = gated(rows, [stricter], "quarantine_rows")
    assert (first.counts["quarantined"], second.counts["quarantined"], second.version) == (0, 19, 2)


def test_a_candidate_asked_for_waits_unjudged(gated):
    result = gated(people(), [AGE], candidate=True)
    assert result.candidate and result.verdict is None and result.dataset.verdicts == []


def test_a_version_published_meanwhile_is_told_and_the_candidate_stays(gated, monkeypatch):
    from gristmill.storage.versions import publish
    from tests.storage.conftest import rows as table
    from tests.storage.conftest import shards

    real = gating.publish_candidate

    def late(folder, name):
        publish(folder, shards(folder, table(5)), table(1).schema, expected_parent=None)
        return real(folder, name)

    monkeypatch.setattr(gating, "publish_candidate", late)
    with pytest.raises(CommitConflictError, match="version 1 was published"):
        gated(people(), [AGE])
    monkeypatch.undo()
    assert gated(people(), [AGE]).version == 2


def test_a_suite_may_have_parameters(tmp_path):
    write_jsonl(tmp_path / "raw", people(30), files=1)
    oldest = {**AGE, "kwargs": {"column": "age", "max_value": {"$PARAMETER": "oldest"}}}
    (tmp_path / "people.json").write_text(json.dumps({"name": "people", "expectations": [oldest]}))
    model = {
        "name": "people",
        "sources": [{"kind": "jsonl", "path": str(tmp_path / "raw"), "name": "web"}],
        "validate": {"suite": str(tmp_path / "people.json"), "parameters": {"oldest": 100}},
        "output": {"path": str(tmp_path / "out")},
    }
    assert gristmill.run(model, progress="quiet").published
    model["validate"] |= {"parameters": {"oldest": 9}, "on_failure": "quarantine_rows"}
    assert gristmill.run(model, progress="quiet").counts["quarantined"] == 20
    with pytest.raises(SuiteError, match="oldest"):
        gristmill.run({**model, "validate": {"suite": model["validate"]["suite"]}}, progress="quiet")


@pytest.mark.slow
def test_workers_quarantine_the_same_rows_as_one_process(gated):
    rows = people(60)
    for row in rows[::7]:
        row["age"] = 900
    results = [
        gated(rows, [AGE, LABEL], "quarantine_rows", in_process=True),
        gated(rows, [AGE, LABEL], "quarantine_rows", in_process=False, workers=2, fresh=True),
    ]
    assert results[1].counts["quarantined"] == 9 and not results[1].published
    assert (results[0].fingerprint, results[0].layout) == (results[1].fingerprint, results[1].layout)
