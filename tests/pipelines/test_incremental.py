"""A run does only what is new, and `plan` says beforehand what that is: a file added, changed or removed, a threshold, a step, a VERSION."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gristmill
from gristmill.errors import ColumnError
from gristmill.pipelines import exchange, near, splits
from gristmill.pipelines import ledger as ledger_module
from gristmill.pipelines import runner as runner_module
from gristmill.pipelines.engines.base import InProcess
from gristmill.pipelines.steps.normalize_text import NormalizeText
from tests.pipelines.conftest import corpus, ledger_of, rows_of, write_jsonl

FILES = 6


@pytest.fixture
def model(tmp_path: Path) -> dict[str, Any]:
    """A pipeline over six files, each a work item of its own."""
    rows = corpus(36)
    write_jsonl(tmp_path / "in", rows, files=FILES, packed=False)
    return {
        "name": "t",
        "id": "id",
        "sources": [{"kind": "jsonl", "path": str(tmp_path / "in"), "name": "web"}],
        "steps": [
            {"step": "normalize_text", "column": "text"},
            {"step": "drop_near_duplicates", "column": "text", "threshold": 0.8},
            {"step": "filter", "where": "score >= 0"},
        ],
        "split": {"train": 0.8, "test": 0.2, "similarity": 0.5},
        "output": {"path": str(tmp_path / "out")},
    }


@pytest.fixture(autouse=True)
def one_item_a_file(monkeypatch):
    """Small files share items otherwise."""
    monkeypatch.setattr("gristmill.pipelines.sources.items.BUNDLE_BYTES", 1)


@pytest.fixture
def done(monkeypatch) -> dict[str, int]:
    """How many tasks of each stage really ran, filled anew by each run."""
    ran: dict[str, int] = {}
    original = runner_module.Runner.map

    def counting(self, name, function, tasks):
        ran[name] = sum(self.store.done(task.key) is None for task in tasks)
        return original(self, name, function, tasks)

    monkeypatch.setattr(runner_module.Runner, "map", counting)
    return ran


def run(model: dict[str, Any], **options: Any) -> Any:
    return gristmill.run(model, progress="quiet", **options)


def reads(model: dict[str, Any]) -> list[str]:
    return [item["reason"] for item in gristmill.plan(model)["items"] if item["action"] == "read"]


def fresh(model: dict[str, Any], tmp_path: Path) -> Any:
    return gristmill.run({**model, "output": {"path": str(tmp_path / "fresh")}}, progress="quiet")


def test_nothing_new_does_nothing(model, done):
    assert reads(model) == ["new"] * FILES
    first = run(model)
    assert done["ingest"] == FILES
    assert reads(model) == []
    second = run(model)
    assert not second.published and second.version == first.version == 1
    assert set(done.values()) == {0}
    assert second.reused_items > FILES


def test_a_file_added_costs_that_file(model, done, tmp_path):
    run(model)
    rows = [{**row, "id": f"new-{row['id']}"} for row in corpus(4, seed=5)]
    write_jsonl(tmp_path / "in", rows, files=1, prefix="zz-new", packed=False)
    assert reads(model) == ["new"]
    second = run(model)
    assert (done["ingest"], done["steps 1/2"]) == (1, 1)
    assert second.version == 2 and second.fingerprint == fresh(model, tmp_path).fingerprint


@pytest.mark.parametrize("by_id", [True, False])
def test_a_file_before_others_takes_nothing_of_theirs(model, tmp_path, monkeypatch, by_id):
    """All items behind it have other numbers than in the run before; what was found of repeated rows then is about the same rows still."""
    monkeypatch.setattr(exchange, "DRIVER_BYTES", 0)
    if not by_id:
        del model["id"]
    repeated = [json.loads(line) for line in (tmp_path / "in" / "part-02.jsonl").read_text().splitlines()]
    write_jsonl(tmp_path / "in", [*repeated, *repeated[:3]], files=1, prefix="zz-again", packed=False)
    run(model)
    new = [{**row, "id": f"new-{row['id']}"} for row in corpus(2, seed=5)]
    write_jsonl(tmp_path / "in", new, files=1, prefix="aa-new", packed=False)
    result, whole = run(model), fresh(model, tmp_path)
    assert (result.fingerprint, result.counts, result.steps) == (whole.fingerprint, whole.counts, whole.steps)
    assert ledger_of(result) == ledger_of(whole)


def test_new_documents_leave_the_comparisons_of_others_alone(model, tmp_path, monkeypatch):
    """A file whose documents are like none of the others; their sketches are larger, so that the average changes."""
    compared: list[int] = []
    original = near.decide_near
    monkeypatch.setattr(near, "decide_near", lambda table, *rest: compared.append(len(table)) or original(table, *rest))
    monkeypatch.setattr(near, "BATCH_BYTES", 3565)  # of 5 rows before, of 4 after
    run(model)
    first = len(compared)
    assert first > 2
    text = " ".join(f"word{number}" for number in range(120))
    new = [{"id": f"new-{number}", "text": f"{text} {number}", "score": 1} for number in range(2)]
    write_jsonl(tmp_path / "in", new, files=1, prefix="zz-new", packed=False)
    second = run(model)
    assert compared[first:] == [2]
    assert second.fingerprint == fresh(model, tmp_path).fingerprint
    old = json.loads((tmp_path / "in" / "part-00.jsonl").read_text().splitlines()[0])
    write_jsonl(tmp_path / "in", [{**old, "id": "version"}], files=1, prefix="zzz", packed=False)
    compared.clear()
    run(model)
    assert compared == [5], "of a batch that two runs have found as it was all but one component are still known"


@pytest.mark.parametrize(("seed", "driver_bytes"), [(0, 8 << 20), (1, 8 << 20), (2, 8 << 20), (3, 0)])
def test_what_was_compared_before_is_taken_over_where_it_still_holds(tmp_path, monkeypatch, seed, driver_bytes, model):
    """Files come, go and change, each time with versions of documents in others: everything is as if the run were the first one."""
    asked: list[int] = []
    monkeypatch.setattr(near, "decide_near", _counting(near.decide_near, asked, 0))
    monkeypatch.setattr(splits, "_alike", _counting(splits._alike, asked, 1))
    for module, name, value in (
        (exchange, "DRIVER_BYTES", driver_bytes),
        (exchange, "PARTITION_BYTES", 8000),
        (exchange, "BLOCK_BITS", 2),
        (near, "BATCH_BYTES", 20_000),
        (splits, "PAIRS", 20),
    ):
        monkeypatch.setattr(module, name, value)
    chosen = random.Random(seed)
    rows = corpus(16, seed)
    shutil.rmtree(tmp_path / "in")
    files = {number: chosen.sample(rows, 12) for number in range(5)}
    saved = 0
    for turn in range(6):
        if turn in (1, 4):  # the last file goes, whose rows come first among survivors
            del files[max(files)]
        elif turn in (2, 5):  # other versions in the place of some rows
            for number in range(3):
                place = chosen.randrange(12)
                family = files[number][place]["id"][:4]
                others = [row["text"] for row in rows if row["id"].startswith(family)]
                files[number][place] = {**files[number][place], "text": chosen.choice(others)}
        elif turn == 3:
            files[max(files) + 1] = chosen.sample(rows, 12)
        shutil.rmtree(tmp_path / "in", ignore_errors=True)
        for number, held in files.items():
            named = [{**row, "id": f"{'zyxwvu'[number]}-{row['id']}"} for row in held]
            write_jsonl(tmp_path / "in", named, files=1, prefix=f"{number}")
        asked.clear()
        result = run(model)
        some = sum(asked)
        asked.clear()
        whole = fresh(model, tmp_path)
        saved += sum(asked) - some
        assert (result.fingerprint, result.counts, result.splits) == (whole.fingerprint, whole.counts, whole.splits)
        assert result.steps == whole.steps
        assert ledger_of(result) == ledger_of(whole) or not result.published  # then the version has its own already
        shutil.rmtree(tmp_path / "fresh")
    assert saved > 40


def _counting(function: Callable[..., Any], asked: list[int], place: int) -> Callable[..., Any]:
    """The function, which notes how long the argument at this place is."""

    def call(*given: Any) -> Any:
        asked.append(len(given[place]))
        return function(*given)

    return call


def test_the_ledger_of_items_that_did_not_change_is_not_written_again(model, tmp_path, monkeypatch):
    """It is linked, and written again where the earlier one has gone."""
    written: list[int] = []
    original = ledger_module._write
    monkeypatch.setattr(ledger_module, "_write", lambda task: written.append(task.number) or original(task))
    monkeypatch.setattr(runner_module, "ITEMS", 2)
    run(model)
    assert written == [0, 2, 4]
    for number in range(2):
        rows = [{**row, "id": f"new-{number}-{row['id']}"} for row in corpus(4, seed=5 + number)]
        for row in rows:
            row["text"] += f" {number}" * 40
        write_jsonl(tmp_path / "in", rows, files=1, prefix=f"zz-{number}", packed=False)
        written.clear()
        result = run(model)
        assert written == ([6] if number == 0 else [0, 2, 4, 6])
        whole = fresh(model, tmp_path)
        assert ledger_of(result) == ledger_of(whole) != []
        shutil.rmtree(tmp_path / "out" / "ledger")
        shutil.rmtree(tmp_path / "fresh")


def test_little_that_is_new_is_done_in_this_process(model, tmp_path, monkeypatch):
    """However large the input is that it is compared with: the engine is chosen by what there is to do."""
    asked: list[int] = []

    def choose(*_, threads, **__):
        asked.append(threads)
        return InProcess("dask", 2)

    monkeypatch.setattr("gristmill.pipelines.run.choose_engine", choose)
    size = sum(path.stat().st_size for path in (tmp_path / "in").iterdir())
    for module in ("engines.choose", "outlook"):
        monkeypatch.setattr(f"gristmill.pipelines.{module}.SMALL_BYTES", 10)
        monkeypatch.setattr(f"gristmill.pipelines.{module}.THREADED_BYTES", size // 2)
    run(model, workers=2)
    new = [{**row, "id": f"new-{row['id']}"} for row in corpus(2, seed=5)]
    write_jsonl(tmp_path / "in", new, files=1, prefix="zz-new", packed=False)
    run(model, workers=2)
    run(model, workers=2, fresh=True)
    run({**model, "steps": model["steps"][1:]}, workers=2)
    assert asked == [0, 2, 0, 0]

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    write_jsonl(tmp_path / "in", corpus(40, seed=6), files=1, prefix="zzz-new", packed=False)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runner_module.Runner, "_segment", killed)
        run({**model, "steps": model["steps"][1:]}, workers=2)
    run({**model, "steps": model["steps"][1:]}, workers=2)
    assert asked[4:] == [0, 0], "read already, but not gone through"


def test_only_new_files_are_opened(model, tmp_path, monkeypatch):
    """Their columns are looked at before any work; those of the others are known, of a file without rows too."""
    from gristmill.pipelines import plan as plan_module

    (tmp_path / "in" / "empty.jsonl").write_text("")
    run(model)
    opened: list[str] = []
    original = plan_module.read_item

    def noting(source, item, chunk_bytes):
        opened.append(Path(item.files[0]).name)
        return original(source, item, chunk_bytes=chunk_bytes)

    monkeypatch.setattr(plan_module, "read_item", noting)
    (tmp_path / "in" / "new.jsonl").write_text('{"id": "new", "text": "A new text, of some words.", "score": 1}\n')
    first = run(model)
    assert first.version == 2 and opened == ["new.jsonl"]
    lacking = {**model, "steps": [{"step": "normalize_text", "column": "txet"}]}
    with pytest.raises(ColumnError, match="txet"):
        run(lacking)
    assert opened == ["new.jsonl"], "the columns of all are known by now"


def test_a_file_changed_costs_that_file_and_what_its_rows_decide(model, done, tmp_path):
    run(model)
    path = tmp_path / "in" / "part-02.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[1:]) + "\n")
    assert reads(model) == ["content or reading options changed"]
    second = run(model)
    assert (done["ingest"], done["steps 1/2"]) == (1, 1)
    assert done["steps 2/2"] <= FILES
    assert second.fingerprint == fresh(model, tmp_path).fingerprint


def test_a_file_removed_takes_its_rows_and_reads_nothing(model, done, tmp_path):
    first = run(model)
    (tmp_path / "in" / "part-03.jsonl").unlink()
    plan = gristmill.plan(model)
    assert reads(model) == [] and [Path(name).name for name in plan["removed_files"]] == ["part-03.jsonl"]
    second = run(model)
    assert (done["ingest"], done["steps 1/2"]) == (0, 0)
    assert second.counts["read"] < first.counts["read"]
    assert second.fingerprint == fresh(model, tmp_path).fingerprint


def test_a_threshold_changed_reads_nothing(model, done, tmp_path):
    run(model)
    steps = [model["steps"][0], {**model["steps"][1], "threshold": 0.9}, model["steps"][2]]
    changed = {**model, "steps": steps}
    plan = gristmill.plan(changed)
    assert [part["action"] for part in plan["segments"]] == [
        "compare again",
        "new items, and rows whose decisions change",
    ]
    assert not [i for i in plan["items"] if i["action"] == "read"]
    second = run(changed)
    assert (done["ingest"], done["steps 1/2"]) == (0, 0)
    assert second.fingerprint == fresh(changed, tmp_path).fingerprint


def test_the_last_step_changed_redoes_that_step(model, done, tmp_path):
    run(model)
    changed = {**model, "steps": [*model["steps"][:2], {"step": "filter", "where": "score > 2"}]}
    assert [part["action"] for part in gristmill.plan(changed)["segments"]] == ["reuse", "redo"]
    second = run(changed)
    assert (done["ingest"], done["steps 1/2"], done["steps 2/2"]) == (0, 0, FILES)
    assert second.fingerprint == fresh(changed, tmp_path).fingerprint


def test_a_new_version_of_a_step_redoes_it_and_what_follows(model, done, monkeypatch):
    first = run(model)
    monkeypatch.setattr(NormalizeText, "VERSION", NormalizeText.VERSION + 1)
    assert [part["action"] for part in gristmill.plan(model)["segments"]] == ["redo", "redo"]
    second = run(model)
    assert (done["ingest"], done["steps 1/2"]) == (0, FILES)
    assert second.fingerprint == first.fingerprint and not second.published


def test_a_removed_original_brings_its_duplicate_back(model, tmp_path):
    first = run(model)
    gone = next(row for row in ledger_of(first) if row["rule"] == "near_duplicate")
    kept, duplicate = gone["other_uid"], gone["uid"]
    for path in (tmp_path / "in").iterdir():
        path.write_text("".join(line + "\n" for line in path.read_text().splitlines() if f'"id": "{kept}"' not in line))
    second = run(model)
    names = [row["_uid"] for row in rows_of(second)]
    assert kept not in names
    assert duplicate in names or any(row["uid"] == duplicate and row["other_uid"] != kept for row in ledger_of(second))


def test_a_removed_row_takes_the_rows_made_from_it(model, tmp_path):
    made = {**model, "steps": [{"step": "python", "function": "tests.pipelines.test_append:doubled"}], "split": None}
    first = run(made)
    path = tmp_path / "in" / "part-00.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[1:]) + "\n")
    gone = json.loads(lines[0])["id"]
    second = run(made)
    assert {row["_uid"] for row in rows_of(first)} - {row["_uid"] for row in rows_of(second)} == {
        f"{gone}/1",
        f"{gone}/2",
    }
