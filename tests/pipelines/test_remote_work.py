"""Work files in an object store (moto's real HTTP server): whole or not there, shared by runs, and a run whose workers share no folder."""

from __future__ import annotations

import os
import pickle
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from gristmill.errors import RunError, UsageError
from gristmill.pipelines import exchange, fetched, parts, remote_work
from gristmill.pipelines import plan as plans
from gristmill.pipelines.engines.base import InProcess
from gristmill.pipelines.erase import erase, make_physical
from gristmill.pipelines.extracts import ExtractOf, Sketch
from gristmill.pipelines.fetched import Cache
from gristmill.pipelines.remote_work import Lease, RemoteWorkStore
from gristmill.pipelines.outlook import plan
from gristmill.pipelines.sketched import choose
from gristmill.pipelines.work import WorkStore, open_store, scratch_of
from gristmill.storage.folder import Folder, open_folder

from .conftest import STEPS, corpus, rows_of, write_jsonl
from .test_erase import holding, planted_rows

SPLIT = {"train": 0.7, "test": 0.3, "similarity": 0.5}


@pytest.fixture
def bucket(s3_folder, s3_endpoint, tmp_path, monkeypatch) -> str:
    """The URL of an empty folder, reached by the usual environment variables; copies of its files go to a folder of the test."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "copies"))
    fetched.cache_of.cache_clear()
    yield s3_folder.base
    fetched.cache_of.cache_clear()


@pytest.fixture
def store(bucket) -> RemoteWorkStore:
    return RemoteWorkStore(f"{bucket}/work")


def elsewhere(store: RemoteWorkStore, tmp_path) -> RemoteWorkStore:
    """The store as another machine sees it: nothing known, no copies."""
    os.environ["GRISTMILL_CACHE"] = str(tmp_path / "other copies")
    fetched.cache_of.cache_clear()
    remote_work._known.clear()
    return RemoteWorkStore(store.root)


def test_where_work_files_go():
    assert scratch_of("s3://b/out", None, shared=True) == "s3://b/out/_work"
    assert scratch_of("s3://b/out", "s3://b/scratch/").startswith("s3://b/scratch/")
    assert "://" not in scratch_of("s3://b/out", None)
    assert type(open_store("/somewhere")) is WorkStore and type(open_store("s3://b/x")) is RemoteWorkStore


def test_work_is_there_whole_or_not_at_all(store, tmp_path):
    table = pa.table({"x": [1, 2]})
    with store.create("aa11") as (folder, summary):
        parts.write(folder / "result.arrow", table)
        with parts.PartWriter(folder, "rows") as out:
            out.write(table)
        summary["rows"] = 2
        assert store.done("aa11") is None and store.remote.list() == []
    assert store.done("aa11") == {"rows": 2}
    with pytest.raises(ZeroDivisionError), store.create("bb22"):
        raise ZeroDivisionError
    there = elsewhere(store, tmp_path)
    assert there.summaries(["aa11", "bb22"]) == [{"rows": 2}, None]
    assert parts.read(there.folder("aa11") / "result.arrow") == table
    assert parts.table(there.folder("aa11"), "rows") == table and list(there.folder("aa11").glob("index-*")) == []
    with pytest.raises(FileNotFoundError, match="has no file 'other'"):
        there.folder("aa11") / "other"
    with pytest.raises(FileNotFoundError):
        there.folder("bb22") / "result.arrow"
    assert not list((tmp_path / "copies").rglob("making/*")), "what is half-written is swept up"


def test_of_two_that_do_the_same_one_stays(store, tmp_path):
    with store.create("aa11") as (first, one):
        with store.create("aa11") as (second, two):
            (second / "name").write_text("second")
            two["by"] = 2
        (first / "name").write_text("first")
        one["by"] = 1
    assert store.done("aa11") == {"by": 2} and (store.folder("aa11") / "name").read_text() == "second"
    assert len(store.remote.list()) == 2, "a marker and a file: the other's are gone"
    assert (elsewhere(store, tmp_path).folder("aa11") / "name").read_text() == "second"


def test_the_marker_counts_as_ours_when_its_answer_was_lost(store, monkeypatch):
    create = type(store.remote).create

    def unanswered(self, path, content):
        create(self, path, content)
        create(self, path, content)  # what a client does that missed the answer

    monkeypatch.setattr(type(store.remote), "create", unanswered)
    with store.create("aa11") as (folder, summary):
        (folder / "name").write_text("x")
        summary["by"] = 1
    assert store.done("aa11") == {"by": 1} and (store.folder("aa11") / "name").read_text() == "x"


def test_what_another_run_removed_and_did_again_is_found(store, tmp_path):
    for content in ("one", "two"):
        with store.create("aa11") as (folder, _):
            (folder / "name").write_text(content)
        known = dict(remote_work._known[store.run])
        if content == "one":
            store.forget("aa11")
            assert store.done("aa11") is None
            first = known
    there = elsewhere(store, tmp_path)
    remote_work._known[there.run] = first
    there.prune({"aa11"})
    assert (there.folder("aa11") / "name").read_text() in ("one", "two")


def test_a_worker_that_outlives_runs_does_again_what_was_removed_between_them(store, tmp_path):
    with store.create("aa11") as (folder, _):
        (folder / "name").write_text("one")
    assert pickle.loads(pickle.dumps(store)).done("aa11") == {}
    with store.held() as lock:
        assert lock.alone()
    for path, *_ in store.remote.list("items"):
        store.remote.delete(path)  # by a run in another process
    later = RemoteWorkStore(store.root)
    assert later.done("aa11") is None
    with later.create("aa11") as (folder, _):
        (folder / "name").write_text("two")
    assert (later.folder("aa11") / "name").read_text() == "two"
    for _ in range(2 * remote_work.RUNS):
        RemoteWorkStore(store.root).done("aa11")
    assert len(remote_work._known) <= remote_work.RUNS


def test_erased_rows_leave_no_copy_of_work_files(run, tmp_path, bucket):
    write_jsonl(tmp_path / "raw", planted_rows(), files=2)
    options = {"id": "id", "output": {"path": f"{bucket}/out"}, "scratch": f"{bucket}/scratch"}
    result = run(tmp_path / "raw", **options)
    assert holding(tmp_path / "copies")
    receipt = erase(result.path, ids=["planted-0"])
    assert make_physical(result.path, options["scratch"], dry_run=True)["_work"] > 0 and holding(tmp_path / "copies")
    with (
        open_store(scratch_of(result.path, options["scratch"])).held(),
        pytest.raises(RunError, match="another run is"),
    ):
        make_physical(result.path, options["scratch"])
    assert holding(tmp_path / "copies")
    make_physical(result.path, options["scratch"])
    assert not holding(tmp_path / "copies") and not open_folder(options["scratch"]).list()
    assert run(tmp_path / "raw", **options).fingerprint == receipt["fingerprint"]


def test_prune_takes_finished_work_and_old_attempts_that_never_ended(store, monkeypatch):
    for key in ("aa11", "aa22", "bb33"):
        with store.create(key) as (folder, _):
            (folder / "name").write_text(key)
    store.remote.write_atomic("items/cc/cc44/attempt/name", b"half")
    store.note("last_run.json", {"files": ["a"]})
    assert store.prune({"aa22"}) == 2 and store.done("aa22") is not None and store.done("aa11") is None
    left = [path for path, *_ in store.remote.list()]
    assert "items/cc/cc44/attempt/name" in left and len(left) == 4, left
    monkeypatch.setattr(remote_work, "DAY", -5.0)
    store.prune({"aa22"})
    assert "items/cc/cc44/attempt/name" not in [path for path, *_ in store.remote.list()]
    assert (store.folder("aa22") / "name").read_text() == "aa22"
    assert store.noted("last_run.json") == {"files": ["a"]} and store.noted("never.json") is None


def test_only_a_run_that_is_alone_has_the_store_for_itself(store):
    with store.held() as one, store.held() as two:
        assert not one.alone() and not two.alone()
        assert [path for path, *_ in store.remote.list("runs") if path.endswith("alone")] == []
    with store.held() as lease:
        assert lease.alone() and lease.alone()
        entered = threading.Event()

        def enter():
            with store.held():
                entered.set()

        other = threading.Thread(target=enter)
        other.start()
        assert not entered.wait(1.0), "it waits while finished work is removed"
        lease.share()
        assert entered.wait(60)
        other.join()
    assert store.remote.list("runs") == []


def test_a_dead_run_holds_nothing_for_long(store, monkeypatch):
    store.remote.write_atomic("runs/otherhost-77-abc", b"")
    store.remote.write_atomic("runs/alone", b"runs/otherhost-77-abc")
    monkeypatch.setattr(remote_work, "WAIT", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr(remote_work, "LEASE", 2.0)
        patch.setattr(remote_work, "RENEW", 0.5)  # a sign of life of our own tells the store's time
        with store.held() as lease:
            assert lease.alone()
            lease.share()
    with store.held() as lease:
        assert not lease.alone(), "a run elsewhere that gave a sign of life within the lease"
    dead = 2**22 + 1  # more than any process number
    store.remote.delete("runs/otherhost-77-abc")
    store.remote.write_atomic(f"runs/{os.uname().nodename}-{dead}-abc", b"")
    with store.held() as lease:
        assert lease.alone(), "of this machine the dead are known at once"


def test_a_lease_is_renewed(store, monkeypatch):
    monkeypatch.setattr(remote_work, "RENEW", 0.05)
    lease = Lease(store.remote)
    time.sleep(0.3)
    assert len(store.remote.list("runs")) == 1
    lease.end()
    time.sleep(0.3)
    assert store.remote.list("runs") == []


def test_copies_make_room_for_each_other(store, tmp_path, monkeypatch):
    monkeypatch.setattr(fetched, "YOUNG", -1.0)
    cache = Cache(tmp_path / "small", 1000)
    for number in range(6):
        store.remote.write_atomic(f"f{number}", bytes(300))
        path = cache.fetch(store.remote, f"f{number}", f"k/f{number}", 300)
        os.utime(path, (number, number))
    left = sorted(path.name for path in (tmp_path / "small" / "kept").rglob("*") if path.is_file())
    assert left == ["f3", "f4", "f5"]
    with pytest.raises(OSError, match="came with 300 bytes, expected 301"):
        cache.fetch(store.remote, "f0", "k/f0", 301)
    with pytest.raises(FileNotFoundError):
        cache.fetch(store.remote, "missing", "k/missing", 1)
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "small" / "kept" / "k" / "f3"))
    with pytest.raises(RunError, match="set GRISTMILL_CACHE"):
        fetched.cache_of("s3://other")


def test_sketches_are_read_though_their_copy_has_gone_meanwhile(store):
    sketch = Sketch("text", 2, 8)
    table = pa.table({"text": ["one two three", "one two four five"], "_uid": ["a", "b"]})
    with store.create("sketches") as (folder, _), parts.PartWriter(folder, "extract-0", parts.PLAIN) as writer:
        writer.write(sketch.of(table, 0).combine_chunks())
    rows = choose(store, {0: ExtractOf(0, "sketches", "extract-0", ())}, np.array([1, 0]), ["uid"])
    assert rows.columns["uid"].to_pylist() == ["b", "a"]
    assert fetched.remove_copies(store.root) > 0
    assert rows.sets.read()[1].tolist() == [0, 3, 5] and rows.matrix().shape == (2, 8)


def test_a_run_with_its_work_in_the_store(run, tmp_path, bucket, s3_folder):
    write_jsonl(tmp_path / "raw", corpus(), files=3)
    here = run(tmp_path / "raw", id="id", split=SPLIT)
    scratch, output = f"{bucket}/scratch", {"path": f"{bucket}/out"}
    there = run(tmp_path / "raw", id="id", split=SPLIT, output=output, scratch=scratch)
    assert (there.fingerprint, there.layout, there.counts) == (here.fingerprint, here.layout, here.counts)
    assert rows_of(there) == rows_of(here) and there.reused_items == 0
    again = run(tmp_path / "raw", id="id", split=SPLIT, output=output, scratch=scratch)
    assert not again.published and again.reused_items > 0
    changed = run(tmp_path / "raw", id="id", split=SPLIT, output=output, scratch=scratch, steps=STEPS[:2])
    assert changed.published and changed.reused_items > 0
    files = [path for path, *_ in s3_folder.list("scratch")]
    assert files and not (tmp_path / "user").exists() and not [path for path in files if "/runs/" in path]
    with pytest.raises(UsageError, match="needs a folder that all of it has mounted"):
        RemoteWorkStore(scratch).frames()


class Machines(InProcess):
    """Does the tasks on two machines by turns, each with copies of its own; the driver is a third one. fetched: (machine, file, bytes)."""

    def __init__(self, patch, folder) -> None:
        super().__init__()
        self.here = "driver"
        self.fetched: list[tuple[str, str, int]] = []
        self.tasks = 0
        caches = {name: Cache(folder / name, 10**9) for name in ("driver", "one", "two")}
        patch.setattr(remote_work, "cache_of", lambda root: caches[self.here])
        download, read_range = Folder.download, Folder.read_range

        def whole(store, path, local):
            download(store, path, local)
            self.fetched.append((self.here, path.rpartition("/")[2], os.path.getsize(local)))

        def some(store, path, start, stop):
            self.fetched.append((self.here, path.rpartition("/")[2], stop - start))
            return read_range(store, path, start, stop)

        patch.setattr(Folder, "download", whole)
        patch.setattr(Folder, "read_range", some)

    def map(self, function, tasks, done):
        def there(task):
            self.tasks += 1
            self.here = ("one", "two")[self.tasks % 2]
            try:
                return function(task)
            finally:
                self.here = "driver"

        return super().map(there, tasks, done)


def numbers(store, source):
    rng = np.random.default_rng(source.number)
    yield pa.table({"key": rng.integers(0, 2**63, 20_000).astype(np.uint64), "noise": rng.integers(0, 2**63, 20_000)})


@dataclass(frozen=True)
class Numbers:
    number: int

    @property
    def digest(self) -> str:
        return str(self.number)


def largest(chunks):
    tables = [*chunks, *chunks]  # reductions go through their rows more than once
    yield pa.table({"largest": [max(pc.max(table["noise"]).as_py() for table in tables)]})


@pytest.mark.parametrize("block_bytes", [0, 1 << 40])
def test_a_gather_fetches_its_own_rows_only(store, tmp_path, monkeypatch, block_bytes):
    """Each of two machines gathers 2 of 4 partitions and has made half of the files: of the other half it needs two quarters."""
    monkeypatch.setattr(exchange, "DRIVER_BYTES", 0)
    monkeypatch.setattr(exchange, "BLOCK_BYTES", block_bytes)
    machines = Machines(monkeypatch, tmp_path)
    sources = [Numbers(number) for number in range(6)]
    found = exchange.exchange(machines, store, sources, numbers, largest, size=1, name="t", partitions=4)
    assert found.rows == 4
    there = sum(size for path, size, _ in store.remote.list("items") if path.endswith("/rows.arrow"))
    fetched = sum(size for _, name, size in machines.fetched if name == "rows.arrow")
    assert there > 6 * 20_000 * 14, "noise can't be compressed"
    if block_bytes:
        assert fetched == there, "each machine the other's files"
    else:
        assert 0.45 * there < fetched < 0.5 * there, "each machine of the other's files its partitions, once"
    assert {machine for machine, name, _ in machines.fetched if name == "rows.arrow"} == {"one", "two"}


def test_the_driver_reads_no_rows(run, tmp_path, bucket, monkeypatch):
    write_jsonl(tmp_path / "raw", corpus(), files=3)
    monkeypatch.setattr("gristmill.pipelines.sources.items.SMALL_BYTES", 0)
    machines = Machines(monkeypatch, tmp_path / "machines")
    monkeypatch.setattr("gristmill.pipelines.engines.choose.InProcess", lambda *_: machines)
    found = run(tmp_path / "raw", id="id", split=SPLIT, output={"path": f"{bucket}/out"}, scratch=f"{bucket}/scratch")
    assert found.published and machines.tasks > 12
    names = [name for machine, name, _ in machines.fetched if machine == "driver"]
    assert "schema.arrow" in names and not [name for name in names if name.startswith("rows")]


@pytest.mark.slow
def test_the_driver_asks_for_many_markers_at_a_time(run, tmp_path, bucket, monkeypatch):
    """How many it asks for one by one doesn't grow with the items, in a run and in one after it that adds a step."""
    monkeypatch.setattr("gristmill.pipelines.sources.items.SMALL_BYTES", 0)
    monkeypatch.setattr(exchange, "DRIVER_BYTES", 0)
    monkeypatch.setattr(plans, "SAMPLED", 1)
    machines, asked = Machines(monkeypatch, tmp_path / "machines"), []
    monkeypatch.setattr("gristmill.pipelines.engines.choose.InProcess", lambda *_: machines)
    seen: dict[str, dict] = {}
    monkeypatch.setattr(RemoteWorkStore, "_seen", lambda store: seen.setdefault(machines.here + store.run, {}))
    read = Folder.read_bytes

    def noted(folder, path):
        if machines.here == "driver" and threading.current_thread() is threading.main_thread():
            asked.append(path)
        return read(folder, path)

    monkeypatch.setattr(Folder, "read_bytes", noted)
    counts = []
    for files in (3, 9):
        write_jsonl(tmp_path / f"raw{files}", corpus(), files=files)
        options = {"id": "id", "output": {"path": f"{bucket}/out{files}"}, "scratch": f"{bucket}/scratch"}
        for steps in (STEPS, [*STEPS, {"step": "filter", "where": "score < 9"}]):
            asked.clear()
            run(tmp_path / f"raw{files}", steps=steps, **options)
            counts.append(len([path for path in asked if path.startswith("items/")]))
    assert counts[:2] == counts[2:] and 0 < max(counts) < 60, counts


@pytest.fixture
def full_disk(tmp_path):
    """A folder on a disk of 1 MB."""
    folder = tmp_path / "full"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"A FULL DISK IS NOT TESTED: no small one can be mounted here ({done.stderr.strip()})")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_of_a_worker_names_its_setting(store, tmp_path, full_disk, monkeypatch):
    large = os.urandom(3 << 20)
    with store.create("aa11") as (folder, _):
        (folder / "rows.arrow").write_bytes(large)
    there = elsewhere(store, full_disk)
    host = os.uname().nodename
    text = rf"no space left for copies of work files in '{full_disk}/.*' on {host} .*GRISTMILL_CACHE where its workers are started"
    for read in (
        lambda: there.folder("aa11") / "rows.arrow",
        lambda: there.block("aa11", "rows.arrow", 0, 2 << 20),
    ):
        with pytest.raises(RunError, match=text):
            read()
    with pytest.raises(RunError, match=text), there.create("bb22") as (folder, _):
        (folder / "rows.arrow").write_bytes(large)
    assert there.done("bb22") is None and not list(full_disk.rglob("making/*"))
    monkeypatch.setattr(tempfile, "tempdir", str(full_disk))
    with (
        pytest.raises(RunError, match=rf"temporary folder '{full_disk}' of {host} \(TMPDIR names another\)"),
        there.remote.writer("data/x") as target,
    ):
        target.sink.write(large)


def test_frames_are_put_beside_the_work(run, tmp_path, bucket):
    rows = corpus(10)
    source = {"sources": [{"kind": "frame", "name": "docs"}], "inputs": {"docs": pa.Table.from_pylist(rows)}}
    here = run(out="here", **source)
    there = run(out="there", scratch=f"{bucket}/scratch", **source)
    assert (there.fingerprint, there.layout) == (here.fingerprint, here.layout)
    again = run(out="there", scratch=f"{bucket}/scratch", **source)
    assert again.reused_items > 0 and not again.published


def test_plan_finds_work_that_a_cluster_left_beside_the_data(run, tmp_path, bucket, s3_folder):
    from distributed import Client, LocalCluster

    write_jsonl(tmp_path / "raw", corpus(10), files=2)
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        found = run(tmp_path / "raw", output={"path": f"{bucket}/out"}, engine=client, in_process=False)
    assert found.published and s3_folder.list("out/_work/items")
    model = {
        "name": "test", "sources": [{"kind": "jsonl", "path": str(tmp_path / "raw"), "name": "web"}], "steps": STEPS, "output": {"path": f"{bucket}/out"},
    }  # fmt: skip
    assert {item["action"] for item in plan(model)["items"]} == {"reuse"}
    assert open_folder(f"{bucket}/out").exists("_work") and make_physical(f"{bucket}/out") == {}
