"""Streaming from S3 (moto's server) through a proxy that breaks things: the same rows as from disk, and no more asked for than needed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gristmill.storage.stream as gs
from gristmill.errors import CorruptDatasetError, DataChangedError, InputError, StoreUnreachableError
from gristmill.storage import object_store, ranged
from gristmill.storage.folder import open_folder
from gristmill.storage.range_cache import RangeCache
from tests.storage.faults import FaultyProxy
from tests.storage.stream.helpers import ids_of, write_rows

pytest.importorskip("obstore")
OPTIONS = {"global_batch_size": 32, "seed": 3}


@pytest.fixture
def bucket(s3_folder, s3_endpoint, tmp_path, monkeypatch):
    """(a local folder, a proxy, the same files in S3 behind the proxy, the options to reach them)."""
    monkeypatch.setattr(ranged, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(ranged, "GIVE_UP", 10.0)
    local = tmp_path / "local"
    for i, name in enumerate("abc"):
        write_rows(local / f"{name}.parquet", range(i * 200, i * 200 + 200), group=25)
        s3_folder.write_atomic(f"{name}.parquet", (local / f"{name}.parquet").read_bytes())
    with FaultyProxy(s3_endpoint) as proxy:
        yield local, proxy, s3_folder, {"endpoint_url": proxy.url}


def batches(loader):
    return [ids_of(batch) for batch in loader]


def test_the_same_rows_as_from_disk_whatever_breaks(bucket):
    local, proxy, folder, options = bucket
    expected = batches(gs.stream(local, **OPTIONS))
    assert batches(gs.stream(folder.base, options=options, **OPTIONS)) == expected
    faults = ["error", None, "drop", "tear", 0.2, "error"]
    proxy.fault = lambda seen: faults[seen.number % 7] if seen.span and seen.number % 7 < 6 else None
    loader = gs.stream(folder.base, options=options, **OPTIONS)
    assert batches(loader) == expected
    assert loader.traffic.retries > 5


def test_only_the_bytes_of_the_columns_are_asked_for(bucket):
    local, proxy, folder, options = bucket
    rng = np.random.default_rng(0)
    wide = pa.table(
        {
            "id": range(4000),
            **{f"c{i}": pa.array(rng.random((4000, 64)).tolist(), pa.list_(pa.float64(), 64)) for i in range(4)},
        }
    )
    pq.write_table(wide, local / "wide.pq", row_group_size=1000, compression="none", use_dictionary=False)
    folder.write_atomic("wide/wide.parquet", (local / "wide.pq").read_bytes())
    loader = gs.stream(folder.url("wide"), columns=["id", "c2"], options=options, global_batch_size=500)
    proxy.seen.clear()
    assert sorted(sum(batches(loader), [])) == list(range(4000))
    metadata = pq.read_metadata(local / "wide.pq")
    columns = [metadata.row_group(g).column(c) for g in range(4) for c in (0, 3)]
    needed = sum(column.total_compressed_size for column in columns)
    asked = sum(seen.span[1] - seen.span[0] for seen in proxy.seen)
    footers = 64 << 10
    assert asked == loader.traffic.bytes
    assert needed + footers == loader.traffic.needed
    assert asked <= needed + footers + 4 * ranged.GAP
    assert (
        len(proxy.seen) == loader.traffic.requests == 1 + 4 * 2
    )  # a footer; then id and c2 of each row group, which lie far apart


def test_ranges_are_joined_across_small_gaps():
    assert ranged.coalesce([(50, 60), (0, 10), (12, 20), (15, 18)], gap=2) == [(0, 20), (50, 60)]
    assert ranged.coalesce([]) == []


def test_a_long_range_comes_in_parts(bucket, monkeypatch):
    monkeypatch.setattr(ranged, "PART", 100)
    local, proxy, folder, options = bucket
    loader = gs.stream(folder.base, options=options, **OPTIONS)
    proxy.seen.clear()
    assert batches(loader) == batches(gs.stream(local, **OPTIONS))
    sizes = [seen.span[1] - seen.span[0] for seen in proxy.seen]
    assert sizes.count(100) > 24 and len([size for size in sizes if size > 100]) == 3  # the footers


def test_a_replaced_file_is_an_error_not_mixed_rows(bucket):
    local, proxy, folder, options = bucket
    loader = gs.stream(folder.base, options=options, threads=0, **OPTIONS)
    next(iter(loader))
    write_rows(local / "a.parquet", range(5000, 5200), group=25)
    assert len((local / "a.parquet").read_bytes()) > 0
    folder.write_atomic("a.parquet", (local / "a.parquet").read_bytes())
    loader._feed.reader._open(0)  # known since the first batch, or opened now with another size
    with pytest.raises((DataChangedError, CorruptDatasetError), match=r"a.parquet' (was replaced|has \d+ bytes)"):
        for group in range(8):
            loader._feed.reader.read(group)


def test_an_etag_of_before_is_refused(bucket):
    _, proxy, folder, options = bucket
    there = open_folder(folder.base, options)
    size = there.size("a.parquet")
    opened = ranged.open_remote(there, "a.parquet", size, ranged.Traffic())
    folder.write_atomic("a.parquet", folder.read_bytes("a.parquet")[:-1] + b"?")
    with pytest.raises(DataChangedError, match="was replaced while it was streamed"):
        ranged.get_part(there, "a.parquet", (0, 10), opened.stamp, ranged.Traffic())
    with pytest.raises(CorruptDatasetError, match=r"expected"):
        ranged.open_remote(there, "a.parquet", size - 1, ranged.Traffic())
    with pytest.raises(CorruptDatasetError, match="is missing"):
        ranged.open_remote(there, "none.parquet", size, ranged.Traffic())


def test_a_store_that_stays_away_is_given_up_on(bucket, monkeypatch):
    _, proxy, folder, options = bucket
    monkeypatch.setattr(ranged, "GIVE_UP", 0.3)
    there = open_folder(folder.base, options)
    proxy.fault = lambda seen: "error"
    traffic = ranged.Traffic()
    with pytest.raises(
        StoreUnreachableError, match=r"a.parquet', bytes 0 to 10: gave up after \d+ tries in \d+ s.*503"
    ):
        ranged.get_part(there, "a.parquet", (0, 10), ranged.Stamp(100, ""), traffic)
    assert traffic.requests == traffic.retries > 2


def test_wrong_keys_are_told_at_once(bucket, monkeypatch):
    local, proxy, folder, options = bucket

    class Forbidding:
        def get(self, *wanted):
            raise object_store.Refused("forbidden", "403")

    monkeypatch.setattr(ranged, "store_of", lambda folder: Forbidding())
    with pytest.raises(InputError, match="no permission to read 's3://.*check the credentials"):
        ranged.get_part(
            open_folder(folder.base, options), "a.parquet", (0, 10), ranged.Stamp(100, ""), ranged.Traffic()
        )


FORKS = """
import faulthandler, json, sys
import torch
import gristmill
loader = gristmill.stream(sys.argv[1], options={"endpoint_url": sys.argv[2]}, global_batch_size=32, seed=3)
forked = torch.utils.data.DataLoader(
    loader,
    batch_size=None,
    num_workers=1,
    collate_fn=lambda batch: batch["id"].tolist(),
    multiprocessing_context="fork",
    worker_init_fn=lambda worker: faulthandler.dump_traceback_later(100, exit=True),
)
print(json.dumps(list(forked)))
"""


def test_workers_forked_by_a_dataloader_read_too(bucket):
    """In a process of its own, as a training is: one that tests share has threads of all kinds, and a fork keeps what they hold locked."""
    local, proxy, folder, options = bucket
    done = subprocess.run(
        [sys.executable, "-c", FORKS, folder.base, options["endpoint_url"]], capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == batches(gs.stream(local, **OPTIONS))


def test_other_stores_come_through_fsspec(tmp_path):
    write_rows(tmp_path / "a.parquet", range(100))
    memory = open_folder("memory://stream/x")
    memory.write_atomic("a.parquet", (tmp_path / "a.parquet").read_bytes())
    assert batches(gs.stream("memory://stream/x", **OPTIONS)) == batches(gs.stream(tmp_path, **OPTIONS))


def test_a_cache_saves_requests_and_stays_in_its_bounds(bucket, tmp_path):
    local, proxy, folder, options = bucket
    expected = batches(gs.stream(local, **OPTIONS))
    cache = tmp_path / "cache"
    for _ in range(2):
        proxy.seen.clear()
        loader = gs.stream(folder.base, options=options, cache=cache, **OPTIONS)
        assert batches(loader) == expected
    assert loader.traffic.requests == 3  # footers only: they tell whether the files are still the same
    for path in cache.glob("*.range"):
        path.write_bytes(b"damaged" + path.read_bytes()[7:])
    assert batches(gs.stream(folder.base, options=options, cache=cache, **OPTIONS)) == expected
    small = RangeCache(tmp_path / "small", 20_000)
    assert (
        batches(gs.stream(folder.base, options=options, cache=small.folder, cache_bytes=small.limit, **OPTIONS))
        == expected
    )
    assert 0 < sum(path.stat().st_size for path in small.folder.glob("*.range")) <= small.limit


PROGRAM = """
import sys
from gristmill.storage.range_cache import RangeCache
cache = RangeCache(sys.argv[1], 100_000)
for i in range(10_000_000):
    key = str(i * 7919 % 300)
    assert bytes(cache(key, lambda: key.encode() * 700)) == key.encode() * 700
    if i == 50:
        print("busy", flush=True)
    if len(sys.argv) > 2 and i == int(sys.argv[2]):
        break
"""


def test_processes_share_a_cache_and_may_be_killed(tmp_path):
    def start(*last):
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path), *last], stdout=subprocess.PIPE, text=True
        )

    killed = [start() for _ in range(2)]
    for process in killed:
        assert process.stdout.readline() == "busy\n"
    time.sleep(0.2)
    for process in killed:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    left = [start("600") for _ in range(2)]
    assert [process.wait(timeout=60) for process in left] == [0, 0]
    sizes = [path.stat().st_size for path in tmp_path.iterdir() if path.name != "total"]
    assert 0 < sum(sizes) <= 100_000
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp-")]
