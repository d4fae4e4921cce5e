"""gc: what nothing needs goes, what anything needs stays."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gristmill.errors import CorruptDatasetError, DatasetNotFoundError, UsageError
from gristmill.storage import gc as gc_module
from gristmill.storage.candidates import list_candidates, propose, publish_candidate, reject_candidate
from gristmill.storage.dataset import open_dataset
from gristmill.storage.folder import Folder, open_folder
from gristmill.storage.gc import gc, sweep
from gristmill.storage.versions import manifest_path, publish, version_numbers

from .conftest import names, rows, shards

SCHEMA = rows(1).schema
NOW = -60.0  # as older_than: also what is new, whatever the server's clock says


def put(folder: Folder, n: int, **facts: object) -> None:
    numbers = version_numbers(folder)
    publish(
        folder,
        shards(folder, rows(n), shard_bytes=3000),
        SCHEMA,
        expected_parent=numbers[-1] if numbers else None,
        **facts,
    )  # type: ignore[arg-type]


@pytest.fixture
def three(folder: Folder) -> Folder:
    """Three versions that share some shards, each with ledger and report."""
    for i, n in enumerate((300, 400, 500), 1):
        for path in (
            f"ledger/key{i}/origin-000000.parquet",
            f"reports/key{i}.html",
            f"reports/key{i}.json",
            f"ledger/v0000000{i}/x.parquet",
        ):
            folder.write_atomic(path, b"x")
        put(folder, n, ledger=f"ledger/key{i}")
    assert {e.path for e in open_dataset(folder, 1).files()} & {e.path for e in open_dataset(folder, 3).files()}
    return folder


def test_every_version_is_live(three: Folder) -> None:
    before = three.list()
    found = gc(three, older_than=NOW)
    assert (found.versions, found.files, found.bytes) == ((), (), 0) and three.list() == before


def test_keep_removes_what_only_old_versions_need(three: Folder) -> None:
    shared = {entry.path for entry in open_dataset(three, 3).files()}
    old = {entry.path for number in (1, 2) for entry in open_dataset(three, number).files()} - shared
    assert old
    before = set(names(three))
    planned = gc(three, keep=1, dry_run=True)
    assert set(names(three)) == before
    done = gc(three, keep=1)
    assert (done.versions, done.files, done.bytes) == ((1, 2), planned.files, planned.bytes)
    gone = before - set(names(three))
    assert gone == set(done.files)
    assert {path for path in gone if path.startswith("data/")} == old
    assert {path.split("/")[1].split(".")[0] for path in gone if path.startswith(("ledger", "reports"))} == {
        "key1",
        "key2",
        "v00000001",
        "v00000002",
    }
    assert (
        version_numbers(three) == [3] and open_dataset(three).verify() == [] and len(open_dataset(three).history()) == 1
    )
    with pytest.raises(DatasetNotFoundError, match="version 1 was removed at 20.*; versions: 3"):
        open_dataset(three, 1)


def test_numbers_of_removed_versions_are_not_used_again(three: Folder) -> None:
    gc(three, keep=1)
    with pytest.raises(FileExistsError):
        three.create(manifest_path(2), b"")
    put(three, 10)
    assert version_numbers(three) == [3, 4]
    gc(three, keep=1)
    assert version_numbers(three) == [4] and open_dataset(three).verify() == []


def test_orphans_go_after_a_day(folder: Folder) -> None:
    put(folder, 100)
    kept = set(names(folder))
    orphans = [
        "data/all/orphan.parquet",
        "manifests/files/x.parquet",
        "ledger/old/a.parquet",
        "reports/old.html",
        "reports/.tmp-a",
        "manifests/.tmp-b",
        "data/train/.tmp-host-1-2",
    ]
    others = [
        "readme.md",
        "verdicts/x/y.json",
        "erased/key.json",
        "_work/a/b",
        "_work/.tmp-c",
        "candidates.txt",
        "export/data/x.parquet",
    ]
    for path in orphans + others:
        folder.write_atomic(path, b"12")
    assert gc(folder).files == ()
    done = gc(folder, older_than=NOW)
    assert sorted(done.files) == sorted(orphans) and done.bytes == 2 * len(orphans)
    assert set(names(folder)) == kept | set(others)


def test_a_temporary_file_in_a_live_ledger_is_stale(folder: Folder) -> None:
    folder.write_atomic("ledger/key/origin.parquet", b"x")
    folder.write_atomic("ledger/key/.tmp-1", b"x")
    put(folder, 10, ledger="ledger/key")
    assert gc(folder, older_than=NOW).files == ("ledger/key/.tmp-1",)


def test_temporary_files_of_the_dead_go_at_once(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    gone = f"data/all/.tmp-{host}-{dead.pid}-0123456789ab"
    stays = [
        f"data/all/.tmp-{host}-{os.getpid()}-0123456789ab",
        f"data/.tmp-another-{dead.pid}-0123456789ab",
        "data/.tmp-x",
        f"_work/.tmp-{host}-{dead.pid}-ab",
    ]
    for collect in (lambda: sweep(folder), lambda: [*gc(folder).files]):
        for path in [gone, *stays, "data/all/x"]:
            folder.write_atomic(path, b"")
        assert collect() == [gone] and sorted(names(folder)) == sorted([*stays, "data/all/x"])


def test_candidates_keep_their_files(folder: Folder) -> None:
    put(folder, 100)
    entries = shards(folder, rows(200, start=1000))
    propose(folder, entries, SCHEMA, expected_parent=1, ledger="ledger/c")
    folder.write_atomic("ledger/c/a.parquet", b"")
    assert gc(folder, keep=1, older_than=NOW).files == ()
    (candidate,) = list_candidates(folder)
    assert publish_candidate(folder, candidate.fingerprint[:8]).manifest.version == 2
    assert gc(folder, older_than=NOW).files == () and open_dataset(folder).verify() == []
    propose(folder, shards(folder, rows(50, start=5000)), SCHEMA, expected_parent=2)
    reject_candidate(folder, list_candidates(folder)[0].fingerprint)
    assert {path.split("/")[0] for path in gc(folder, older_than=NOW).files} == {"data", "manifests"}
    assert open_dataset(folder).verify() == []


def test_the_day_is_counted_from_the_last_change(tmp_path: object) -> None:
    folder = open_folder(str(tmp_path))
    put(folder, 10)
    entry = shards(folder, rows(50, start=7))[0]
    old = time.time() - 100_000
    os.utime(folder.url(entry.path), (old, old))
    assert gc(folder, dry_run=True).files == (entry.path,)
    assert shards(folder, rows(50, start=7)) == [entry]  # written again: a run is about to publish it
    assert gc(folder).files == ()


def test_what_a_run_wrote_again_stays_though_a_removed_version_had_it(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    put(folder, 10)
    put(folder, 20)
    old = open_dataset(folder, 1).files()[0].path
    later = time.time() + 100  # as if a run had written it some time after version 1
    os.utime(folder.url(old), (later, later))
    assert gc(folder, keep=1, dry_run=True).versions == (1,) and old not in gc(folder, keep=1).files
    assert version_numbers(folder) == [2] and folder.exists(old)


def test_what_is_published_while_it_looks_stays(three: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = open_dataset(three, 1).files()
    usual = gc_module._goes

    def slow(*arguments: object) -> bool:
        monkeypatch.setattr(gc_module, "_goes", usual)
        publish(three, entries, SCHEMA, expected_parent=3)  # needs the files of a version that is being removed
        return usual(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(gc_module, "_goes", slow)
    gc(three, keep=1)
    assert version_numbers(three) == [3, 4] and open_dataset(three).verify() == []


def test_a_publish_beside_gc_is_never_broken(folder: Folder) -> None:
    stop = threading.Event()
    errors: list[BaseException] = []

    def collect() -> None:
        try:
            while not stop.is_set():
                gc(folder, keep=2)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        for i in range(8):
            put(folder, 100 + 10 * i)
            assert open_dataset(folder).verify() == []
    finally:
        stop.set()
        thread.join()
    assert not errors
    gc(folder, keep=2, older_than=NOW)
    assert version_numbers(folder) == [7, 8] and all(open_dataset(folder, n).verify() == [] for n in (7, 8))


def test_nothing_goes_when_a_manifest_cannot_be_read(three: Folder) -> None:
    three.write_atomic(manifest_path(2), b"{")
    before = names(three)
    with pytest.raises(CorruptDatasetError):
        gc(three, keep=1, older_than=NOW)
    assert names(three) == before


def test_at_least_one_version_stays(folder: Folder) -> None:
    for keep in (0, -1):
        with pytest.raises(UsageError, match="at least the newest version stays"):
            gc(folder, keep=keep)
