"""Publishing: one wins, the other is told, and a killed process leaves the old version or the new."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.errors import CommitConflictError, DatasetNotFoundError, RunError
from gristmill.storage import versions
from gristmill.storage.dataset import open_dataset
from gristmill.storage.folder import Folder, is_temporary, open_folder
from gristmill.storage.gc import sweep
from gristmill.storage.versions import newest_version, publish, read_files, read_manifest, version_numbers

from .conftest import names, rows, shards

SCHEMA = rows(1).schema


def put(folder: Folder, table: pa.Table, parent: int | None, **facts: object) -> int:
    return publish(folder, shards(folder, table), table.schema, expected_parent=parent, **facts).manifest.version  # type: ignore[arg-type]


def test_versions_follow_each_other_and_keep_what_they_had(folder: Folder) -> None:
    assert newest_version(folder) is None
    for i in range(3):
        assert put(folder, rows(10 + i), i or None, counts={"read": i}, engine="dask") == i + 1
    assert version_numbers(folder) == [1, 2, 3]
    for i in range(3):
        manifest = read_manifest(folder, i + 1)
        assert (manifest.num_rows, manifest.parent, manifest.counts, manifest.engine) == (
            10 + i,
            i or None,
            {"read": i},
            "dask",
        )
        assert open_dataset(folder, version=i + 1).to_table().equals(rows(10 + i))
    with pytest.raises(DatasetNotFoundError, match="no version 7; versions: 3, 2, 1"):
        read_manifest(folder, 7)


def test_an_equal_result_publishes_nothing(folder: Folder) -> None:
    put(folder, rows(10), None)
    before = names(folder)
    for parent in (1, None):  # even where another run made it: the newest version holds what was wanted
        found = publish(folder, shards(folder, rows(10)), SCHEMA, expected_parent=parent)
        assert (found.published, found.manifest.version) == (False, 1)
    assert names(folder) == before
    assert publish(folder, shards(folder, rows(10), group=5), SCHEMA, expected_parent=1).published  # another layout
    assert publish(folder, shards(folder, rows(10), group=5), SCHEMA, expected_parent=2, gate=["suite"]).published
    assert publish(
        folder, shards(folder, rows(10), group=5), SCHEMA, expected_parent=3, gate=["suite"], splits=["a"]
    ).published
    prints = [read_manifest(folder, n).fingerprint for n in version_numbers(folder)]
    assert len(prints) == 4 and len(set(prints)) == 1


def test_no_rows_are_a_version(folder: Folder) -> None:
    assert put(folder, rows(0), None, splits=["train", "test"]) == 1
    found = open_dataset(folder)
    assert (found.num_rows, found.splits, found.files(), found.verify()) == (0, {"train": 0, "test": 0}, [], [])
    assert found.to_table("train").equals(rows(0))
    assert not publish(folder, [], SCHEMA, expected_parent=1, splits=["train", "test"]).published


def test_a_stale_publish_is_told_who_won(folder: Folder) -> None:
    put(folder, rows(10), None)
    winner = read_manifest(folder, 1)
    before = names(folder)
    for parent in (None, 2):
        with pytest.raises(CommitConflictError) as caught:
            publish(folder, [], SCHEMA, expected_parent=parent)
        host, process, _ = winner.publisher.rsplit(":", 2)
        assert f"version 1 was published at {winner.created} by process {process} on {host}" in str(caught.value)
        assert "Run the same command again" in str(caught.value)
    assert names(folder) == before


def test_a_publish_that_loses_in_the_last_moment_is_told(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = shards(folder, rows(10)), shards(folder, rows(11))
    usual = versions.write_parts

    def late(*arguments: object) -> object:
        monkeypatch.undo()
        publish(folder, other, SCHEMA, expected_parent=None)
        return usual(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(versions, "write_parts", late)
    with pytest.raises(CommitConflictError, match="version 1 was published"):
        publish(folder, mine, SCHEMA, expected_parent=None)
    assert version_numbers(folder) == [1] and open_dataset(folder).num_rows == 11


def test_an_answer_that_got_lost_is_no_conflict(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Folder.create

    def twice(self: Folder, path: str, content: bytes) -> None:
        usual(self, path, content)
        usual(self, path, content)  # as a client does that missed the first answer

    monkeypatch.setattr(Folder, "create", twice)
    assert put(folder, rows(10), None) == 1


def test_a_missing_or_cut_file_is_never_published(folder: Folder) -> None:
    entries = shards(folder, rows(300), shard_bytes=1000)
    folder.delete(entries[0].path)
    folder.write_atomic(entries[1].path, b"short")
    with pytest.raises(RunError, match=f"'{entries[0].path}' is missing, '{entries[1].path}' has 5 bytes, expected"):
        publish(folder, entries, SCHEMA, expected_parent=None)
    assert newest_version(folder) is None
    assert put(folder, rows(300), None) == 1


def test_appends_share_full_parts(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "PART_FILES", 3)
    entries = shards(folder, rows(600), shard_bytes=1500)
    assert len(entries) > 9
    publish(folder, entries[:7], SCHEMA, expected_parent=None)
    publish(folder, entries[:8], SCHEMA, expected_parent=1)
    old, new = read_manifest(folder, 1), read_manifest(folder, 2)
    assert [part["files"] for part in new.parts] == [3, 3, 2]
    assert [part["path"] for part in old.parts[:2]] == [part["path"] for part in new.parts[:2]]
    assert list(read_files(folder, new)) == entries[:8] and read_files(folder, new).layout == new.layout
    assert open_dataset(folder).verify() == []
    assert len(folder.list("manifests/files")) == 4


def test_many_threads_publish_and_each_version_is_one_of_theirs(folder: Folder) -> None:
    wins: dict[int, int] = {}
    start = threading.Barrier(4)
    entries = [shards(folder, rows(10 + i)) for i in range(4)]

    def run(i: int) -> None:
        start.wait()
        for _ in range(30):
            try:
                found = publish(
                    folder, entries[i], SCHEMA, expected_parent=newest_version(folder), counts={"thread": i}
                )
            except CommitConflictError:
                continue
            assert found.manifest.version not in wins or not found.published
            if found.published:
                wins[found.manifest.version] = i
                return

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert version_numbers(folder) == [1, 2, 3, 4] == sorted(wins) and sorted(wins.values()) == list(range(4))
    for number, i in wins.items():
        assert (read_manifest(folder, number).counts, open_dataset(folder, number).num_rows) == ({"thread": i}, 10 + i)
        assert open_dataset(folder, number).verify() == []


PUBLISHERS = """
import os, sys
import pyarrow as pa
from gristmill.errors import CommitConflictError
from gristmill.storage.folder import open_folder
from gristmill.storage.parquet import ParquetSettings, ShardWriter
from gristmill.storage.versions import newest_version, publish
folder = open_folder(sys.argv[1])
def main(i):
    won = []
    while len(won) < 3:
        parent = newest_version(folder)
        table = pa.table({"_uid": [f"{i}-{len(won)}-{k}" for k in range(20)]})
        with ShardWriter(folder, ParquetSettings(), table.schema) as writer:
            writer.write(table)
        try:
            won.append(publish(folder, writer.files, table.schema, expected_parent=parent, counts={"process": i}).manifest.version)
        except CommitConflictError:
            pass
    print(*[f"{version}:{i}" for version in won], flush=True)
children = []
for i in range(8):
    child = os.fork()
    if not child:
        try:
            main(i)
            os._exit(0)
        except BaseException:
            import traceback; traceback.print_exc(); os._exit(1)
    children.append(child)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


def test_eight_processes_publish_at_once(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", PUBLISHERS, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == 0, found.stderr
    won = dict(map(int, pair.split(":")) for pair in found.stdout.split())
    folder = open_folder(tmp_path)
    assert sorted(won) == list(range(1, 25)) == version_numbers(folder)
    for version, process in won.items():
        opened = open_dataset(folder, version)
        assert opened.manifest.counts == {"process": process} and opened.manifest.parent == (version - 1 or None)
        assert {uid.split("-")[0] for uid in opened.to_table()["_uid"].to_pylist()} == {str(process)}
    assert not [path for path in names(folder) if is_temporary(path)]


ENDLESS = """
import itertools, sys
import pyarrow as pa
from gristmill.storage.folder import open_folder
from gristmill.storage.parquet import ParquetSettings, ShardWriter
from gristmill.storage.versions import newest_version, publish
folder = open_folder(sys.argv[1])
base = newest_version(folder) or 0
for i in itertools.count(base):
    table = pa.table({"_uid": [f"{i}-{k}" for k in range(2000)], "text": [f"row {k} of {i}" for k in range(2000)]})
    with ShardWriter(folder, ParquetSettings(row_group_rows=500), table.schema, shard_bytes=30_000) as writer:
        writer.write(table)
    publish(folder, writer.files, table.schema, expected_parent=i or None, counts={"number": i})
    if i == base:
        print("ready", flush=True)  # from here on all is compiled and loaded
"""


def kill_and_check(place: Path, wait: float) -> int:
    """Kills a publisher `wait` seconds after its first version; what is left must be whole. Its newest version."""
    import hashlib

    child = subprocess.Popen([sys.executable, "-c", ENDLESS, str(place)], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    time.sleep(wait)
    child.kill()
    child.wait()
    child.stdout.close()
    folder = open_folder(place)
    for path in names(folder):
        if is_temporary(path):
            continue
        content = folder.read_bytes(path)
        if path.startswith("manifests/v"):
            json.loads(content)
        else:  # named by its content: a half of it could not be
            assert hashlib.sha256(content).hexdigest()[:20] == Path(path).stem
    numbers = version_numbers(folder)
    assert numbers == list(range(1, len(numbers) + 1))
    if numbers:
        newest = open_dataset(place)
        assert (
            newest.verify() == [] and newest.num_rows == 2000 and newest.manifest.counts == {"number": len(numbers) - 1}
        )
    sweep(folder)
    assert not [path for path in names(folder) if is_temporary(path)]
    assert all(open_dataset(place, number).verify(fast=True) == [] for number in numbers)
    return len(numbers)


def test_a_killed_publisher_leaves_whole_versions(tmp_path: Path) -> None:
    chance = random.Random(5)
    found = [kill_and_check(tmp_path / "d", chance.uniform(0, 0.05)) for _ in range(3)]
    assert found == sorted(found) and found[-1] >= 3


@pytest.mark.slow
def test_a_killed_publisher_leaves_whole_versions_many_times(tmp_path: Path) -> None:
    chance = random.Random(6)
    found = [kill_and_check(tmp_path / "d", chance.uniform(0, 0.1)) for _ in range(40)]
    assert found == sorted(found) and found[-1] > 40


def test_parents_that_vanished_are_told(folder: Folder) -> None:
    put(folder, rows(10), None)
    folder.delete("manifests/v00000001.json")
    with pytest.raises(CommitConflictError, match="its versions are gone"):
        put(folder, rows(11), 1)
