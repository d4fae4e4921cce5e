"""Erased rows leave: a planted string is nowhere after erase and gc, in no byte, and comes back in no later run."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

import gristmill
from gristmill.cli.main import app
from gristmill.errors import RunError, TaintedVersionError, UsageError
from gristmill.pipelines.erase import erase, make_physical
from gristmill.pipelines.explain import explain_row, story
from gristmill.pipelines.work import open_store
from gristmill.storage.gc import gc
from tests.pipelines.conftest import STEPS, corpus, document, ledger_of, rows_of, write_jsonl

PLANTED = "Zanzibarquokka"
SPLIT = {"train": 0.7, "test": 0.3, "similarity": 0.5}


def planted_rows() -> list[dict]:
    """Rows of which three hold the string: one that is kept, an exact and a near copy of it."""
    rows = corpus(12)
    text = f"{document(77)} {PLANTED} {document(78)}"
    return [
        *rows,
        *(
            {"id": f"planted-{i}", "text": t, "family": 900, "score": i}
            for i, t in enumerate([text, text + " ", text + " more"])
        ),
    ]


def holding(folder: Path, text: str = PLANTED) -> list[str]:
    """The files with the string in a byte of theirs, or of what their Parquet or Arrow columns decode to."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += str(pq.read_table(path).to_pylist()).encode()
        elif path.suffix == ".arrow":
            with pa.ipc.open_file(path) as file:
                content += str(file.read_all().to_pylist()).encode()
        elif path.suffix == ".gz":
            import gzip

            content += gzip.decompress(content)
        if text.encode() in content:
            found.append(str(path.relative_to(folder)))
    return found


@pytest.mark.parametrize("by_id", [True, False])
def test_a_planted_string_is_nowhere_after_erase_and_gc_and_after_another_run(tmp_path, run, by_id):
    write_jsonl(tmp_path / "in", planted_rows(), files=3)
    options = {"split": SPLIT, **({"id": "id"} if by_id else {})}
    first = run(tmp_path / "in", **options)
    out = Path(first.path)
    assert any(name.startswith("data/") for name in holding(out)) and any(
        name.startswith("_work/") for name in holding(out)
    )
    before = first.dataset
    kept = [row["_uid"] for row in rows_of(first) if PLANTED in row["text"]]
    assert len(kept) == 1, "its copies are dropped"

    receipt = erase(first.path, ids=kept)
    assert (receipt["rows"], receipt["marked"], receipt["tainted"], receipt["version"]) == (1, 3, [1], 2)
    newest = gristmill.open_dataset(first.path)
    assert newest.num_rows == before.num_rows - 1 and not newest.verify()
    untouched = {entry.sha256 for entry in before.files()} & {entry.sha256 for entry in newest.files()}
    assert len(receipt["shards"]) == 1 and len(untouched) == len(before.files()) - 1, (
        "only the shard that held it is written anew"
    )
    counts = newest.manifest.counts
    assert (
        counts["read"] == counts["kept"] + counts["dropped"] + counts["quarantined"]
        and counts["kept"] == newest.num_rows
    )
    with pytest.raises(TaintedVersionError, match="version 1 holds rows that were erased"):
        gristmill.open_dataset(first.path, version=1)
    with pytest.raises(TaintedVersionError):
        newest.rollback(1)
    assert kept[0] not in str(json.loads((out / receipt["receipt"]).read_text()))

    gone = make_physical(first.path)
    assert gone["data"] >= 1 and gone["_work"] >= 1 and gone["ledger"] >= 1 and gone["reports"] >= 1
    gc(newest.folder)
    assert holding(out) == []
    if by_id:
        assert holding(out, kept[0]) == [], "an id may be personal too"
    assert make_physical(first.path) == {}
    assert not gristmill.open_dataset(first.path).verify()

    again = run(tmp_path / "in", **options)
    assert holding(out) == []
    assert again.steps["erase"]["dropped"] == 3
    assert again.counts["read"] == again.counts["kept"] + again.counts["dropped"] == len(planted_rows())
    assert again.fingerprint == receipt["fingerprint"]
    assert [row["rule"] for row in ledger_of(again) if row["step"] == "erase"] == ["erased"]
    assert not again.published, "the erased version is what the pipeline gives"


def test_erased_by_expression_with_what_was_made_from_them(tmp_path, run):
    write_jsonl(tmp_path / "in", corpus(6), files=2)
    steps = [{"step": "python", "function": "tests.pipelines.test_erase:doubled"}]
    result = run(tmp_path / "in", steps=steps, id="id")
    assert result.counts["created"] == 24
    receipt = erase(result.path, where="family == 3 and score >= 0 and _parent_uid is None")
    assert receipt["rows"] == 8 and receipt["asked"] == 4
    left = gristmill.open_dataset(result.path).to_table()
    assert 3 not in left["family"].to_pylist() and left.num_rows == 40
    again = run(tmp_path / "in", steps=steps, id="id")
    assert again.fingerprint == receipt["fingerprint"]


def doubled(table):
    import pyarrow as pa

    names = table.column_names
    first = table.append_column("_parent_uid", pa.nulls(table.num_rows, pa.string()))
    uids = pa.array([uid + "-made" for uid in table["_uid"].to_pylist()])
    made = table.set_column(names.index("_uid"), "_uid", uids).append_column(
        "_parent_uid", table["_uid"].cast(pa.string())
    )
    return pa.concat_tables([first, made])


def test_the_rest_of_the_story_is_still_told(tmp_path, run):
    write_jsonl(tmp_path / "in", planted_rows(), files=3)
    result = run(tmp_path / "in", id="id")
    others = [row["_uid"] for row in rows_of(result) if row["family"] == 2]
    erase(result.path, ids=["planted-0"])
    assert explain_row(result.path, others[0])["fate"] == "kept"
    found = explain_row(result.path, "planted-0")
    assert found["fate"] == "erased" and found["erased"].startswith("20") and "row" not in found
    assert found["origins"][0]["position"].endswith(".jsonl.gz:byte 0") or "byte" in found["origins"][0]["position"]
    assert f"planted-0 in {result.path}@2: erased: a tombstone of {found['erased']} matches it" in story(found)
    with pytest.raises(UsageError, match="never saw a row 'ghost'"):
        explain_row(result.path, "ghost")


def test_of_rows_without_an_id_the_copies_are_told_as_erased_too(tmp_path, run):
    write_jsonl(tmp_path / "in", [*corpus(3), corpus(3)[0]], files=1)
    result = run(tmp_path / "in", steps=[])
    (copy,) = [row["_uid"] for row in rows_of(result) if row["_uid"].endswith("~2")]
    erase(result.path, ids=[copy.removesuffix("~2")])
    assert (
        explain_row(result.path, copy)["fate"] == "erased" == explain_row(result.path, copy.removesuffix("~2"))["fate"]
    )


def test_an_id_that_no_row_has_yet_is_left_out_when_it_comes(tmp_path, run):
    write_jsonl(tmp_path / "in", corpus(4), files=1)
    first = run(tmp_path / "in", id="id", steps=STEPS[:1])
    receipt = erase(first.path, ids=["later"])
    assert (receipt["rows"], receipt["version"], receipt["tainted"], receipt["unseen"]) == (0, 1, [], 1)
    assert json.loads((Path(first.path) / receipt["receipt"]).read_text())["unseen"] == 1
    victim = rows_of(first)[0]["_uid"]
    again = erase(first.path, ids=["later", "typo", victim])
    assert (again["unseen"], again["followed"]) == (2, 0)
    make_physical(first.path)
    assert erase(first.path, ids=[victim])["unseen"] == 0, "its mark is in the ledger"
    write_jsonl(tmp_path / "in", [{"id": "later", "text": "x" * 40, "family": 1, "score": 1}], files=1, prefix="more")
    second = run(tmp_path / "in", id="id", steps=STEPS[:1])
    assert second.counts["read"] == 17 and "later" not in [row["id"] for row in rows_of(second)]


def test_a_run_that_was_at_work_meanwhile_publishes_nothing(tmp_path, run, monkeypatch):
    from gristmill.errors import CommitConflictError
    from gristmill.pipelines import runner

    write_jsonl(tmp_path / "in", corpus(4), files=1)
    first = run(tmp_path / "in", id="id", steps=STEPS[:1])
    victim = rows_of(first)[0]["_uid"]
    balance = runner.Runner._balance

    def erased_meanwhile(self, *counts):
        erase(first.path, ids=[victim])
        return balance(self, *counts)

    write_jsonl(tmp_path / "in", corpus(5), files=1, prefix="more")
    monkeypatch.setattr(runner.Runner, "_balance", erased_meanwhile)
    with pytest.raises(CommitConflictError, match="rows were erased while this run was at work"):
        run(tmp_path / "in", id="id", steps=STEPS[:1])
    monkeypatch.undo()
    assert victim not in [row["_uid"] for row in rows_of(run(tmp_path / "in", id="id", steps=STEPS[:1]))]


def test_an_erasure_that_a_run_overtakes_says_what_holds_the_rows_and_what_to_do(tmp_path, run, monkeypatch):
    from gristmill.errors import CommitConflictError
    from gristmill.storage.erasing import Erasure

    write_jsonl(tmp_path / "in", corpus(4), files=1)
    first = run(tmp_path / "in", id="id", steps=STEPS[:1])
    victim = rows_of(first)[0]["_uid"]
    follow = Erasure._follow

    def overtaken(self, ledgers):
        write_jsonl(tmp_path / "in", corpus(5), files=1, prefix="more")
        assert run(tmp_path / "in", id="id", steps=STEPS[:1]).published
        follow(self, ledgers)

    with monkeypatch.context() as patch:
        patch.setattr(Erasure, "_follow", overtaken)
        with pytest.raises(
            CommitConflictError, match="the rows are marked.* published version 2 .* still holds.*same erase again"
        ) as said:
            erase(first.path, ids=[victim])
    assert "this run" not in str(said.value)
    assert (erase(first.path, ids=[victim])["tainted"], gristmill.open_dataset(first.path).version) == ([1, 2], 3)


@pytest.mark.parametrize("scratch", [None, "scratch"])
def test_work_files_stay_while_a_run_is_at_work(tmp_path, run, monkeypatch, scratch):
    from gristmill.pipelines import runner

    write_jsonl(tmp_path / "in", planted_rows(), files=2)
    options = {"id": "id", "scratch": scratch and tmp_path / scratch}
    first = run(tmp_path / "in", **options)
    erase(first.path, ids=["planted-0"])
    balance = runner.Runner._balance

    def removed_meanwhile(self, *counts):
        before = holding(tmp_path)
        assert any(path.endswith(".arrow") for path in before)
        with pytest.raises(RunError, match="another run is at work in .*run `gristmill gc` again when it is done"):
            make_physical(first.path, options["scratch"])
        assert make_physical(first.path, options["scratch"], dry_run=True)["_work"] and holding(tmp_path) == before
        return balance(self, *counts)

    with monkeypatch.context() as patch:
        patch.setattr(runner.Runner, "_balance", removed_meanwhile)
        run(tmp_path / "in", **options)
    assert make_physical(first.path, options["scratch"]) and holding(tmp_path / "out") == []
    assert scratch is None or holding(tmp_path / scratch) == []


def test_a_run_that_comes_while_work_files_are_removed_waits_and_a_removal_that_was_killed_goes_on(
    tmp_path, run, monkeypatch
):
    from gristmill.pipelines import erase as module

    write_jsonl(tmp_path / "in", planted_rows(), files=2)
    result = run(tmp_path / "in", id="id")
    erase(result.path, ids=["planted-0"])

    def killed(*_, **__):
        with (tmp_path / "out" / "_work" / "lock").open("wb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "purge", killed)
        with pytest.raises(KeyboardInterrupt):
            make_physical(result.path)
    assert [path.name for path in (tmp_path / "out" / "_work").iterdir()] == ["lock"]
    assert make_physical(result.path)["data"] and holding(tmp_path / "out") == []


def test_the_command(tmp_path, run, capsys):
    write_jsonl(tmp_path / "in", planted_rows(), files=2)
    result = run(tmp_path / "in", id="id")
    (tmp_path / "ids.txt").write_text("planted-0\n\n")
    app(["erase", result.path, "--ids", str(tmp_path / "ids.txt"), "--json"], standalone_mode=False)
    receipt = json.loads(capsys.readouterr().out)
    assert (receipt["rows"], receipt["marked"], receipt["followed"], receipt["unseen"]) == (1, 3, 2, 0)
    app(["gc", result.path, "--dry-run", "--json"], standalone_mode=False)
    expected = json.loads(capsys.readouterr().out)["erased_files"]
    app(["gc", result.path, "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["erased_files"] == expected and expected["data"] == 1
    assert holding(Path(result.path)) == []
    (tmp_path / "ids.txt").write_text("family-3-0\nplnted-0\n")
    app(["erase", result.path, "--ids", str(tmp_path / "ids.txt")], standalone_mode=False)
    assert "never seen in this dataset: " in capsys.readouterr().out
    for words, message in (
        (["erase", result.path], "say which rows"),
        (["erase", f"{result.path}", "--where", "family"], "write a comparison"),
        (["erase", f"{result.path}", "--where", "family == 12345"], "no row to erase"),
        (["erase", f"{result.path}", "--where", "famly == 1"], "Did you mean 'family'"),
        (["erase", result.path, "--ids", str(tmp_path / "absent.txt")], "absent.txt: No such file"),
    ):
        with pytest.raises(UsageError, match=message):
            app(words, standalone_mode=False)


def test_erased_on_s3(s3_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_folder.options["endpoint_url"])
    write_jsonl(tmp_path / "in", planted_rows(), files=2)
    model = {
        "name": "t",
        "id": "id",
        "sources": [{"kind": "jsonl", "path": str(tmp_path / "in")}],
        "steps": STEPS,
        "output": {"path": f"{s3_folder.base}/docs"},
    }
    result = gristmill.run(model, progress="quiet", scratch=tmp_path / "scratch")
    receipt = erase(result.path, ids=["planted-0"])
    assert receipt["rows"] == 1
    assert make_physical(result.path, str(tmp_path / "scratch"))["_work"] > 0
    assert not any((tmp_path / "scratch").rglob("*.arrow"))
    left = gristmill.open_dataset(result.path)
    assert not left.verify() and "planted-0" not in left.to_table()["_uid"].to_pylist()
    assert gristmill.run(model, progress="quiet", scratch=tmp_path / "scratch").fingerprint == receipt["fingerprint"]


def test_gc_says_that_a_run_is_at_work(tmp_path, run, capsys):
    write_jsonl(tmp_path / "in", corpus(3), files=1)
    result = run(tmp_path / "in", id="id", steps=[])
    store = open_store(f"{result.path}/_work")
    for words in (["gc", result.path], ["gc", result.path, "--dry-run"]):
        with store.held():
            app(words, standalone_mode=False)
            assert "a run is at work: " in capsys.readouterr().out
            app([*words, "--json"], standalone_mode=False)
            assert json.loads(capsys.readouterr().out)["run_at_work"] is True
        app(words, standalone_mode=False)
        assert "at work" not in capsys.readouterr().out
