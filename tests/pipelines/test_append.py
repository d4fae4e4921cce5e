"""`output.mode: append`: published rows stay where they are and come first; new rows are compared with all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import gristmill
from gristmill.errors import ColumnError, PipelineError, SchemaMismatchError
from gristmill.pipelines import published
from gristmill.pipelines import runner as runner_module
from gristmill.pipelines.explain import explain_row, story
from gristmill.pipelines.run import RunResult
from gristmill.pipelines.assign import share_of
from gristmill.storage.dataset import open_dataset

from .conftest import STEPS, corpus, document, ledger_of, rows_of, variant
from .test_splits import split_of

SPLIT = {"train": 0.5, "test": 0.5, "similarity": 0.5}
Append = Callable[..., RunResult]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def append(tmp_path: Path) -> Append:
    """append(rows, steps=..., ...) -> RunResult: the rows, in a file of their own, added to the dataset."""
    number = iter(range(1000))

    def call(rows: list[dict[str, Any]], steps: Any = STEPS, **options: Any) -> RunResult:
        path = tmp_path / "days" / f"{next(number):03d}.jsonl"
        jsonl(path, rows)
        return gristmill.run(model(path, tmp_path / "out", steps, **options), progress="quiet", in_process=True)

    return call


def model(path: Path, out: Path, steps: Any = STEPS, **options: Any) -> dict[str, Any]:
    output = {"path": str(out), "mode": "append", "shard_bytes": "8KB", **options.pop("output", {})}
    source = {"kind": "jsonl", "path": str(path), "name": "web", **options.pop("source", {})}
    return {"name": "t", "sources": [source], "id": "id", "steps": steps, **options, "output": output}


def test_rows_are_added_and_shards_stay(append):
    rows = corpus(20)
    first = append(rows[:40])
    second = append(rows[40:])
    before, after = open_dataset(first.path, version=1), second.dataset
    old = [entry.path for entry in before.files()]
    assert [entry.path for entry in after.files()][: len(old)] == old and len(after.files()) > len(old)
    assert first.rows is None and second.rows == {
        "before": before.num_rows,
        "added": second.counts["kept"],
        "after": after.num_rows,
    }
    assert second.counts["read"] == 40 == sum(second.counts[fate] for fate in ("kept", "dropped", "quarantined"))
    assert after.manifest.counts == {name: first.counts[name] + second.counts[name] for name in first.counts}
    assert after.manifest.counts["kept"] == after.num_rows
    assert before.diff(after).rows | {"before": 0, "after": 0} == {
        "before": 0, "after": 0, "added": second.counts["kept"], "removed": 0, "changed": 0, "moved": 0,
    }  # fmt: skip
    assert after.verify() == [] and after.manifest.ledgers == [before.manifest.ledger, after.manifest.ledger]
    report = Path(second.report_path).with_suffix(".json").read_text()
    assert json.loads(report)["rows"] == second.rows
    assert f"{second.rows['before']:,} rows before" in Path(second.report_path).read_text()


def test_the_same_rows_again_publish_nothing(append):
    rows = corpus(20)
    first = append(rows, split=SPLIT)
    again = append(rows[::-1], split=SPLIT)
    assert not again.published and again.version == 1 and again.counts["kept"] == 0
    assert again.rows == {"before": first.counts["kept"], "added": 0, "after": first.counts["kept"]}
    assert again.steps["id"]["rules"] == {"already_published": first.counts["kept"]}
    assert open_dataset(first.path).manifest.ledger == first.dataset.manifest.ledger


def test_the_ledger_names_where_the_published_row_is(append):
    rows = [{"id": f"r{n}", "text": document(n)} for n in range(4)]
    append(rows)
    result = append([*rows, {**rows[0], "id": "new"}, {**rows[1], "text": "other"}])
    entries = {entry["uid"]: entry for entry in explained(result, "new", rows[0]["id"], rows[1]["id"])}
    shards = [entry.path for entry in open_dataset(result.path, version=1).files()]
    assert {entry["other_version"] for entry in entries.values()} == {1}
    assert all(entry["other_shard"] in shards for entry in entries.values())
    assert entries["new"]["rule"] == "exact_duplicate" and entries[rows[1]["id"]]["rule"] == "already_published"
    kept = {row["_uid"]: row["text"] for row in rows_of(result)}
    assert kept.get(rows[1]["id"], rows[1]["text"]) == rows[1]["text"], "a published row is not changed"


def explained(result: RunResult, *uids: str) -> list[dict[str, Any]]:
    """The run's decisions about rows that leave, whether its version was published or not."""
    from gristmill.storage.parquet import read_table

    base = f"ledger/{Path(result.report_path).stem}"
    dataset = result.dataset
    names = [name for name, *_ in dataset.folder.list(base) if "/decisions-" in name]
    rows = [row for name in names for row in read_table(dataset.folder, name).to_pylist()]
    return [row for row in rows if row["action"] == "drop" and (not uids or row["uid"] in uids)]


@pytest.mark.parametrize("step", ["drop_exact_duplicates", "drop_near_duplicates"])
def test_a_published_row_survives_whatever_comes(append, step):
    """The new row would win by priority of its smaller uid, and by quality; published duplicates of each other stay both."""
    text = document(1)
    published = [{"id": "m", "text": text, "score": 1}, {"id": "n", "text": text, "score": 1}]
    append(published, steps=[])
    new = [{"id": "a", "text": text, "score": 9}, {"id": "b", "text": document(2), "score": 9}]
    result = append(new, steps=[{"step": step, "column": "text", "quality": "score"}])
    assert [row["_uid"] for row in rows_of(result)] == ["b", "m", "n"]
    (entry,) = ledger_of(result)
    assert (entry["uid"], entry["rule"], entry["other_uid"]) == ("a", step.removeprefix("drop_")[:-1], "m")
    found = explain_row(result.dataset, "a")
    assert found["fate"] == "dropped" and [other["uid"] for other in found["kept_rows"]] == ["m"]
    text = story(found)
    assert (
        "duplicate of m (similarity 1.0000), in version 1: data/" in text and "kept in its place: m, read from" in text
    )
    assert explain_row(result.dataset, "m")["fate"] == "kept"


def test_published_rows_are_read_once(append, monkeypatch):
    opened: list[str] = []
    original = published.open_parquet

    def watched(folder: Any, path: str) -> Any:
        opened.append(path)
        return original(folder, path)

    monkeypatch.setattr(published, "open_parquet", watched)
    rows = corpus(30)
    append(rows[:40], split=SPLIT)
    assert opened == []
    second = append(rows[40:80], split=SPLIT)
    first_shards = {entry.path for entry in open_dataset(second.path, version=1).files()}
    assert set(opened) == first_shards
    opened.clear()
    third = append(rows[80:], split=SPLIT)
    assert set(opened) == {entry.path for entry in second.dataset.files()} - first_shards
    opened.clear()
    changed = [*STEPS[:3], {**STEPS[3], "threshold": 0.85, "priority": ["web"], "quality": "score"}]
    append([{**row, "id": f"x{row['id']}"} for row in corpus(5, seed=9)], steps=changed, split=SPLIT)
    assert set(opened) == {entry.path for entry in third.dataset.files()} - {
        entry.path for entry in second.dataset.files()
    }


def test_appending_rows_without_duplicates_equals_one_run_over_all(append, tmp_path):
    rows = [{"id": f"r{n}", "text": document(n), "score": n} for n in range(60)]
    results = [append(rows[start : start + 20], split=SPLIT) for start in range(0, 60, 20)]
    jsonl(tmp_path / "all.jsonl", rows)
    whole = gristmill.run(
        model(tmp_path / "all.jsonl", tmp_path / "whole", split=SPLIT, output={"mode": "replace"}), progress="quiet"
    )
    assert results[-1].fingerprint == whole.fingerprint and results[-1].version == 3
    assert results[-1].dataset.splits == whole.dataset.splits


def test_repeated_rows_without_an_id(append):
    row = {"text": document(1)}
    first = append([row, row], steps=[], id=None)
    (uid,) = {each["_uid"].partition("~")[0] for each in rows_of(first)}
    again = append([row], steps=[], id=None)
    assert not again.published and again.counts["dropped"] == 1
    more = append([row, row, row, {"text": "other"}], steps=[], id=None)
    assert {row["_uid"] for row in rows_of(more) if row["text"] != "other"} == {uid, f"{uid}~2", f"{uid}~3"}
    assert more.counts == {"read": 4, "created": 0, "kept": 2, "dropped": 2, "quarantined": 0}


def test_repeated_ids_among_the_new_rows(append):
    append([{"id": "a", "text": "one"}], steps=[])
    result = append([{"id": i, "text": t} for i, t in ["ax", "ax", "ay", "bx", "bx"]], steps=[])
    rules = sorted((row["uid"], row["rule"]) for row in ledger_of(result))
    assert rules == [("a", "already_published"), ("a", "conflicting_id"), ("a", "duplicate_id"), ("b", "duplicate_id")]
    assert [row["_uid"] for row in rows_of(result)] == ["a", "b"]


def doubled(table: pa.Table) -> pa.Table:
    """Of each row two halves; the row itself goes."""
    uids = [f"{uid}/{half}" for uid in table["_uid"].to_pylist() for half in (1, 2)]
    twice = table.take([n for n in range(table.num_rows) for _ in (1, 2)])
    parents = twice["_uid"]
    place = twice.column_names.index("_uid")
    return twice.set_column(place, "_uid", pa.array(uids, pa.string())).append_column("_parent_uid", parents)


def test_rows_made_from_the_same_row_are_not_added_twice(append):
    steps = [{"step": "python", "function": "tests.pipelines.test_append:doubled"}]
    first = append([{"id": "a", "text": "one"}], steps=steps)
    assert [row["_uid"] for row in rows_of(first)] == ["a/1", "a/2"]
    again = append([{"id": "a", "text": "one"}], steps=steps)
    assert not again.published and again.steps["output"]["rules"] == {"already_published": 2}
    more = append([{"id": "a", "text": "one"}, {"id": "b", "text": "two"}], steps=steps)
    assert [row["_uid"] for row in rows_of(more)] == ["a/1", "a/2", "b/1", "b/2"]


# -- splits ------------------------------------------------------------------------------------------------------------------------------


def in_split(name: str, start: str = "r") -> str:
    """A uid that goes to this split by itself."""
    numbers = (f"{start}{n}" for n in range(1000))
    shares = {"train": 0.5, "test": 0.5}
    return next(uid for uid in numbers if list(shares)[share_of(pa.array([uid]), shares)[0]] == name)


def test_new_rows_join_the_split_of_published_ones(append):
    """A chain of new rows too, each like the one before it: the last is not like the published row."""
    for seed, (name, other) in enumerate([("train", "test"), ("test", "train")]):
        texts = [document(seed)]
        for n in range(4):
            texts.append(variant(texts[-1], n, 3))
        append([{"id": in_split(name), "text": texts[0]}], steps=[], split=SPLIT)
        ids = [in_split(other, f"{name}{n}") for n in range(1, 5)]
        result = append(
            [{"id": uid, "text": text} for uid, text in zip(ids, texts[1:], strict=True)], steps=[], split=SPLIT
        )
        found = split_of(result)
        assert {found[uid] for uid in ids} == {name}
    loose = in_split("test", "loose")
    assert split_of(append([{"id": loose, "text": document(5)}], steps=[], split=SPLIT))[loose] == "test"


def test_a_row_that_bridges_two_splits_leaves(append):
    one, two = document(1), document(2)
    a, b = in_split("train"), in_split("test")
    append([{"id": a, "text": one}, {"id": b, "text": two}], steps=[], split={**SPLIT, "similarity": 0.3})
    bridge = " ".join([*one.split()[:40], *two.split()[20:]])
    rows = [{"id": "y", "text": bridge}, {"id": "z", "text": variant(bridge, 1, 1)}, {"id": "c", "text": document(3)}]
    result = append(rows, steps=[], split={**SPLIT, "similarity": 0.3})
    assert {row["_uid"] for row in rows_of(result)} == {a, b, "c"}
    assert result.steps["split"]["rules"] == {"bridges_splits": 2} and result.counts["dropped"] == 2
    found = [row for row in ledger_of(result) if row["uid"] == "y"]
    assert {(row["rule"], row["other_uid"], row["other_shard"].split("/")[1]) for row in found} == {
        ("bridges_splits", a, "train"),
        ("bridges_splits", b, "test"),
    }
    text = story(explain_row(result.dataset, "y"))
    assert f"linked to {a}, in version 1: data/train/" in text and f"linked to {b}, in version 1: data/test/" in text


def test_groups_stay_together_and_bridges_by_group_leave(append):
    split = {"train": 0.5, "test": 0.5, "group_by": "site"}
    a, b = in_split("train"), in_split("test")
    loose = {**split, "group_by": None}
    append([{"id": a, "site": "s", "text": "one"}, {"id": b, "site": "t", "text": "two"}], steps=[], split=split)
    append(
        [{"id": in_split(name, "m"), "site": "mixed", "text": name} for name in ("train", "test")],
        steps=[],
        split=loose,
    )
    new = [
        {"id": in_split("test", "s1"), "site": "s", "text": "x"},
        {"id": in_split("train", "t1"), "site": "t", "text": "y"},
        {"id": "m2", "site": "mixed", "text": "z"},
        {"id": in_split("train", "u"), "site": "u", "text": "v"},
        {"id": "zz", "site": "u", "text": "w"},
        {"id": "null", "site": None, "text": "q"},
    ]
    result = append(new, steps=[], split=split)
    found = split_of(result)
    assert found[new[0]["id"]] == "train" and found[new[1]["id"]] == "test"
    assert found["zz"] == found[new[3]["id"]] == "train" and "null" in found
    assert "m2" not in found
    assert {row["other_uid"] for row in ledger_of(result)} == {in_split("train", "m"), in_split("test", "m")}


def test_published_splits_that_the_pipeline_lacks_stay(append):
    append([{"id": "a", "text": document(1)}], steps=[], split={"old": 1.0, "similarity": 0.5})
    rows = [{"id": "b", "text": variant(document(1), 1, 2)}, {"id": "c", "text": document(2)}]
    result = append(rows, steps=[], split={"new": 1.0, "similarity": 0.5})
    assert split_of(result) == {"a": "old", "b": "old", "c": "new"} and result.dataset.verify() == []


# -- what doesn't fit --------------------------------------------------------------------------------------------------------------------


def test_new_rows_take_the_published_schema(append):
    append([{"id": "a", "text": "x", "n": 1.5, "more": "m"}], steps=[])
    result = append([{"more": None, "n": 2, "id": "b", "text": "y"}, {"id": "c", "text": None}], steps=[])
    assert [(row["_uid"], row["n"], row["more"]) for row in rows_of(result)] == [
        ("a", 1.5, "m"),
        ("b", 2.0, None),
        ("c", None, None),
    ]
    assert result.dataset.schema.equals(open_dataset(result.path, version=1).schema) and result.dataset.verify() == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"extra": 1}, "column 'extra' is int64 in the new rows and isn't in version 1"),
        ({"n": "two"}, "column 'n' is int64 in version 1 and string in the new rows"),
        ({"n": 2.5}, "column 'n' is int64 in version 1 and double in the new rows"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_a_schema_that_does_not_fit_names_the_column(append, row, message, late):
    """Late: behind a function, whose columns are known only when it has run."""
    steps = [{"step": "python", "function": "tests.pipelines.test_append:same"}] if late else []
    append([{"id": "a", "n": 1}], steps=steps)
    with pytest.raises(SchemaMismatchError, match=message) as caught:
        append([{"id": "b", **row}], steps=steps)
    assert "output.mode" in str(caught.value) and "cast" in str(caught.value)


def same(table: pa.Table) -> pa.Table:
    return table


def test_what_can_not_be_compared_is_refused_before_any_work(append, tmp_path):
    result = append(
        [{"id": "a", "text": document(1), "body": "b"}], steps=[{"step": "select_columns", "columns": ["id", "text"]}]
    )
    work = set((Path(result.path) / "_work" / "items").glob("??/*"))
    new = [{"id": "b", "text": document(2), "body": "b"}]
    with pytest.raises(
        ColumnError, match=r"step 1 \(drop_near_duplicates\) compares new rows with published ones: .*'body'"
    ):
        append(new, steps=[{"step": "drop_near_duplicates", "column": "body"}])
    with pytest.raises(PipelineError, match="named by the id 'id', those of this pipeline by their content"):
        append(new, steps=[], id=None)
    with pytest.raises(PipelineError, match="this pipeline has splits and version 1 of .* has none"):
        append(new, steps=[], split=SPLIT)
    assert set((Path(result.path) / "_work" / "items").glob("??/*")) == work


def test_errors_name_the_line(append, tmp_path):
    append([{"id": "a", "text": "x"}], steps=[])
    (tmp_path / "p.yaml").write_text(
        f"name: t\nid: id\nsources: [{{kind: jsonl, path: {tmp_path}/days/000.jsonl}}]\nsplit:\n  a: 1.0\n"
        f"output: {{path: {tmp_path}/out, mode: append}}\n"
    )
    with pytest.raises(PipelineError, match=r"p\.yaml:4: output\.mode append: this pipeline has splits"):
        gristmill.run(tmp_path / "p.yaml", progress="quiet")


def test_bad_input_is_quarantined_and_nothing_is_added(append, tmp_path):
    first = append([{"id": "a", "text": "x"}], steps=[])
    path = tmp_path / "bad.jsonl"
    for content, counts in (("", 0), ("{broken\n", 1), ('{"id": null, "text": "x"}\n', 1)):
        path.write_text(content)
        result = gristmill.run(model(path, tmp_path / "out", []), progress="quiet")
        assert not result.published and result.counts["quarantined"] == counts
        assert result.fingerprint == first.fingerprint


def test_a_version_without_rows_takes_any(append):
    assert append([]).version == 1
    assert append([{"id": "a", "text": None}], steps=[{"step": "filter", "where": "text == 'x'"}]).counts["kept"] == 0
    result = append([{"id": "a", "text": document(1)}], split=SPLIT)
    assert result.rows == {"before": 0, "added": 1, "after": 1} and result.dataset.verify() == []
    assert result.dataset.schema.names == ["id", "text", "_uid", "_source"]


# -- plan ----------------------------------------------------------------------------------------------------------------------------------


def test_plan_says_what_is_read_and_kept(append, tmp_path, monkeypatch):
    ran: dict[str, int] = {}
    original = runner_module.Runner.map

    def counting(self: Any, name: str, function: Any, tasks: Any) -> Any:
        ran[name] = sum(self.store.done(task.key) is None for task in tasks)
        return original(self, name, function, tasks)

    monkeypatch.setattr(runner_module.Runner, "map", counting)
    rows = corpus(20)
    jsonl(tmp_path / "next.jsonl", rows[40:])
    planned = model(tmp_path / "next.jsonl", tmp_path / "out", split=SPLIT)
    assert gristmill.plan(planned)["appends_to"] is None
    first = append(rows[:40], split=SPLIT)
    found = gristmill.plan(planned)
    shards = first.dataset.files()
    assert found["appends_to"] == {
        "version": 1,
        "rows": first.counts["kept"],
        "shards": len(shards),
        "read": len(shards),
        "read_bytes": sum(entry.bytes for entry in shards),
    }
    assert found["removed_files"] == [] and [item["action"] for item in found["items"]] == ["read"]
    second = gristmill.run(planned, progress="quiet", in_process=True)
    assert ran["published"] == 3 * len(shards) and ran["ingest"] == 1, "uids, hashes, sketches"
    found = gristmill.plan(planned)
    assert found["appends_to"]["read"] == len(second.dataset.files()) - len(shards)
    assert [item["action"] for item in found["items"]] == ["reuse"]
    gristmill.run(planned, progress="quiet", in_process=True)
    assert gristmill.plan(planned)["appends_to"]["read"] == 0


def test_through_files_the_answer_is_the_same(tmp_path, monkeypatch):
    """As for many rows: every exchange, components and settled splits too, in several partitions."""
    rows = [{**row, "site": f"s{number % 40}" if number % 3 else None} for number, row in enumerate(corpus(30))]
    for day in range(2):
        jsonl(tmp_path / f"{day}.jsonl", rows[day::2])
    steps = [*STEPS[:3], {**STEPS[3], "threshold": 0.9}]
    found = []
    for out in ("here", "files"):
        if out == "files":
            monkeypatch.setattr("gristmill.pipelines.exchange.DRIVER_BYTES", 0)
            monkeypatch.setattr("gristmill.pipelines.exchange.PARTITION_BYTES", 4000)
        for day in range(2):
            options = {"split": {**SPLIT, "similarity": 0.6, "group_by": "site"}}
            result = gristmill.run(model(tmp_path / f"{day}.jsonl", tmp_path / out, steps, **options), progress="quiet")
        lines = sorted(json.dumps(row) for row in ledger_of(result))
        found.append((result.fingerprint, result.layout, result.counts, lines))
    assert result.steps["split"]["rules"]["bridges_splits"] > 2 and found[0] == found[1]
