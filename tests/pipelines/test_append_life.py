"""What else is done with datasets works over appended versions: erase, gc, rollback, gates, streams; and appends that are killed, or two at once."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

import gristmill
from gristmill.errors import CommitConflictError, TaintedVersionError
from gristmill.pipelines.erase import erase, make_physical
from gristmill.pipelines.explain import explain_row
from gristmill.storage.candidates import publish_candidate, reject_candidate
from gristmill.storage.dataset import open_dataset
from gristmill.storage.gc import gc

from .conftest import STEPS, corpus, document, ledger_of, rows_of, variant
from .moments import PROCESSES, finished, leftovers, run_in_child
from .test_append import Append, append, jsonl, model  # noqa: F401  append is a fixture
from .test_erase import PLANTED, holding

SPLIT = {"train": 0.7, "test": 0.3, "similarity": 0.5}


def days(n: int = 3, families: int = 30) -> list[list[dict[str, Any]]]:
    """The rows of a corpus over so many days: families span them."""
    rows = corpus(families)
    return [rows[day::n] for day in range(n)]


def test_rollback_and_a_further_append(append: Append) -> None:  # noqa: F811
    one, two, three = days()
    append(one, split=SPLIT)
    append(two, split=SPLIT)
    dataset = open_dataset(append(three, split=SPLIT).path)
    back = dataset.rollback(1)
    assert back.manifest.ledgers == open_dataset(dataset.path, version=1).manifest.ledgers
    again = append(two, split=SPLIT)
    assert again.version == 5 and again.fingerprint == open_dataset(dataset.path, version=2).fingerprint
    assert again.layout == open_dataset(dataset.path, version=2).layout


def test_gc_keeps_what_the_newest_version_was_made_of(append: Append) -> None:  # noqa: F811
    for rows in days():
        result = append(rows, split=SPLIT)
    dataset = result.dataset
    before = rows_of(result)
    dropped = next(row for row in ledger_of(result) if row["rule"] == "near_duplicate" and row["other_version"])
    gone = gc(dataset.folder, keep=1, older_than=0)
    assert gone.versions == (1, 2) and not [path for path in gone.files if path.startswith(("data/", "ledger/"))]
    assert rows_of(result) == before and dataset.verify() == []
    assert explain_row(dataset, dropped["uid"])["kept_rows"][0]["origins"], "of a run before the last"


@pytest.mark.parametrize("by_id", [True, False])
def test_erased_rows_stay_out_and_leave_no_byte(append: Append, by_id: bool) -> None:  # noqa: F811
    text = f"{document(77)} {PLANTED} {document(78)}"
    one, two, three = ([{"id": row["id"], "text": row["text"]} for row in rows] for rows in days())
    one.append({"id": "p0", "text": text})
    two += [{"id": "p1", "text": text + " more"}, {"id": "p2", "text": variant(text, 1, 40).replace(PLANTED, "")}]
    three.append({"id": "p3", "text": text + " again"})
    options: dict[str, Any] = {"split": SPLIT, **({} if by_id else {"id": None})}
    append(one, **options)
    append(two, **options)
    dataset = open_dataset(append(three, **options).path)
    rows = dataset.to_table().to_pylist()
    (kept,) = [row["_uid"] for row in rows if PLANTED in row["text"]]
    receipt = erase(dataset.path, ids=[kept])
    assert (receipt["asked"], receipt["marked"], receipt["rows"], receipt["tainted"]) == (1, 3, 1, [1, 2, 3])
    after = open_dataset(dataset.path)
    assert len(after.manifest.ledgers) == 3 and after.verify() == []
    assert after.manifest.counts["kept"] == after.num_rows == dataset.num_rows - 1
    with pytest.raises(TaintedVersionError):
        open_dataset(dataset.path, version=2)
    make_physical(dataset.path)
    assert holding(Path(dataset.path)) == []
    again = append([*one, *two, *three], **options)
    assert not again.published and again.steps["erase"]["rules"] == {"erased": 3}
    assert holding(Path(dataset.path)) == []
    assert after.num_rows == open_dataset(dataset.path).num_rows


def test_the_whole_new_version_is_the_candidate(append: Append, tmp_path: Path) -> None:  # noqa: F811
    ages = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "age", "min_value": 0, "max_value": 120}}
    (tmp_path / "s.json").write_text(json.dumps({"name": "ages", "expectations": [ages]}))

    def people(start: int, *ages: int) -> list[dict[str, Any]]:
        return [{"id": f"p{start + n}", "text": document(start + n), "age": age} for n, age in enumerate(ages)]

    gate = {"suite": str(tmp_path / "s.json")}
    assert append(people(0, 1, 2), validate=gate).version == 1
    bad = append(people(10, 3, 999), validate=gate)
    assert (bad.published, bad.verdict["success"], bad.rows) == (False, False, {"before": 2, "added": 2, "after": 4})
    assert bad.dataset.num_rows == 4 and bad.dataset.version == 0 and bad.dataset.manifest.parent == 1
    good = append(people(20, 4), validate=gate)
    assert (good.version, good.rows) == (2, {"before": 2, "added": 1, "after": 3})
    with pytest.raises(CommitConflictError):
        publish_candidate(bad.dataset.folder, bad.candidate)
    reject_candidate(bad.dataset.folder, bad.candidate)
    third = append(people(30, 5, 999), validate={**gate, "on_failure": "quarantine_rows"})
    assert (third.version, third.counts["quarantined"], third.dataset.num_rows) == (3, 1, 4)


def test_a_candidate_that_appends_can_be_published(tmp_path: Path) -> None:
    one, two, _ = days()
    for name, rows in (("one", one), ("two", two)):
        jsonl(tmp_path / f"{name}.jsonl", rows)
    gristmill.run(model(tmp_path / "one.jsonl", tmp_path / "out"), progress="quiet")
    waits = gristmill.run(model(tmp_path / "two.jsonl", tmp_path / "out"), progress="quiet", candidate=True)
    assert waits.version == 0 and waits.dataset.num_rows == waits.rows["after"]
    assert publish_candidate(waits.dataset.folder, waits.candidate).manifest.version == 2
    again = gristmill.run(model(tmp_path / "two.jsonl", tmp_path / "out"), progress="quiet")
    assert not again.published and again.fingerprint == waits.fingerprint


def test_a_stream_goes_on_over_appended_rows(append: Append) -> None:  # noqa: F811
    rows = [{"id": f"r{n}", "text": document(n)} for n in range(60)]
    first = append(rows[:40], split={"train": 1.0})
    options: dict[str, Any] = {"split": "train", "global_batch_size": 8, "seed": 3, "threads": 0}
    loader = gristmill.stream(first.path, **options)
    assert sorted(uid for batch in loader for uid in batch["_uid"]) == sorted(row["id"] for row in rows[:40])
    state = loader.state_dict()
    second = append(rows[40:], split={"train": 1.0})
    grown = gristmill.stream(second.path, **options, epochs=2, on_change="extend")
    grown.load_state_dict(state)
    assert sorted(uid for batch in grown for uid in batch["_uid"]) == sorted(row["id"] for row in rows)


# -- killed, and two at once -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(folder with a published version and new rows, what an uninterrupted append came to, its ledger)."""
    folder = tmp_path_factory.mktemp("appended")
    one, two, _ = days(families=15)
    jsonl(folder / "one.jsonl", one)
    for number in range(2):
        jsonl(folder / "two" / f"{number}.jsonl", two[number::2])
    assert run_in_child(pipeline(folder, "one.jsonl"))["version"] == 1
    shutil.copytree(folder / "out", folder / "base")
    found = run_in_child(pipeline(folder, "two"))
    assert found["published"] and found["rows"]["added"] > 5 and found["steps"]["drop_near_duplicates"]["dropped"] > 3
    return folder, found, ledger(folder / "out")


def pipeline(folder: Path, name: str) -> dict[str, Any]:
    steps = [*STEPS, {"step": "filter", "where": "score < 10"}]
    return model(folder / name, folder / "out", steps, split=SPLIT, output={"row_group_bytes": "4KB"})


def ledger(out: Path) -> list[dict[str, Any]]:
    from types import SimpleNamespace

    return ledger_of(SimpleNamespace(dataset=open_dataset(out)))  # type: ignore[arg-type]


def killed_at(uninterrupted: Any, moment: int) -> None:
    folder, reference, entries = uninterrupted
    out = folder / "out"
    shutil.rmtree(out)
    shutil.copytree(folder / "base", out)
    assert run_in_child(pipeline(folder, "two"), kill_at=moment) is None
    assert open_dataset(out, version=1).verify() == [] and open_dataset(out).verify() == []
    before = finished(out)
    found = run_in_child(pipeline(folder, "two"))
    assert (found["fingerprint"], found["layout"], found["version"]) == (
        reference["fingerprint"],
        reference["layout"],
        2,
    )
    assert open_dataset(out).verify() == [] and leftovers(out) == [] and ledger(out) == entries
    if found["published"]:  # else that was done before it was killed
        assert found["counts"] == reference["counts"] and found["rows"] == reference["rows"]
        after = finished(out)
        assert {key: after[key] for key in before if key in after} == {
            key: before[key] for key in before if key in after
        }


def test_an_append_killed_at_moments_of_every_stage(uninterrupted):
    every = uninterrupted[1]["moments"]
    assert every > 60
    for moment in sorted({*range(1, every + 1, every // 6), every - 3, every}):
        killed_at(uninterrupted, moment)


@pytest.mark.slow
def test_an_append_killed_at_every_moment(uninterrupted):
    for moment in range(1, uninterrupted[1]["moments"] + 1):
        killed_at(uninterrupted, moment)


def test_two_appends_at_once_lose_no_row(tmp_path):
    """One is told, adds nothing, and finishes when it is run again."""
    for name, rows in zip(("one", "two", "three"), days(families=12), strict=True):
        jsonl(tmp_path / f"{name}.jsonl", rows)
    run_in_child(pipeline(tmp_path, "one.jsonl"))
    found: list[dict] = []
    meet = PROCESSES.Barrier(2)
    models = [pipeline(tmp_path, f"{name}.jsonl") for name in ("two", "three")]
    threads = [
        threading.Thread(target=lambda model=model: found.append(run_in_child(model, meet=meet))) for model in models
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [one for one in found if "error" in one]
    assert [(one["error"], one["exit"]) for one in told] == [("CommitConflictError", 3)], found
    again = [run_in_child(one) for one in models]
    assert sorted(one["published"] for one in again) == [False, True]
    dataset = open_dataset(tmp_path / "out")
    assert dataset.version == 3 and dataset.verify() == [] and leftovers(tmp_path / "out") == []
    counts = dataset.manifest.counts
    assert counts["read"] == 48 == counts["kept"] + counts["dropped"] and counts["kept"] == dataset.num_rows
