"""Planning at internet scale: 10^6 work items through the real planner and keys, a version of 10^6 shards through the real manifest code.

    python benchmarks/engines/simulate.py [--items 1000000] [--shards 1000000]

Files are listed by a stand-in for an object store (their sizes and versions are what a listing gives); nothing else is replaced.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import header

import pyarrow as pa

from gristmill.pipelines.plan import ingest_key
from gristmill.pipelines.sources import items as planner
from gristmill.pipelines.sources.base import JsonlSource
from gristmill.pipelines.sources.files import Found
from gristmill.pipelines.stages import Ingest
from gristmill.pipelines.work import WorkStore
from gristmill.storage.dataset import open_dataset
from gristmill.storage.folder import open_folder
from gristmill.storage.manifest import FileEntry
from gristmill.storage.tombstones import Tombstones
from gristmill.storage.versions import publish


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def plan(items: int) -> None:
    start = time.perf_counter()
    source = JsonlSource(path="s3://raw/web/*.jsonl.gz", name="web")
    listing = [
        Found(f"s3://raw/web/part-{number:07d}.jsonl.gz", 50_000_000, f"50000000:{number}") for number in range(items)
    ]
    planner.list_files = lambda paths, endings: listing
    planner._packed = lambda path: True
    found = planner.plan_items(source)
    print(
        f"plan       {len(found):>9,} items   {time.perf_counter() - start:6.1f} s   peak {peak():.2f} GiB", flush=True
    )
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        store, erased = WorkStore(folder), Tombstones(open_folder(folder), "")
        tasks = [
            Ingest(store, ingest_key(source, item, None, erased), source, item, None, 1 << 24, erased) for item in found
        ]
        assert len({task.key for task in tasks}) == items
        missing = sum(store.done(task.key) is None for task in tasks)
        assert missing == items
    print(
        f"tasks      {len(tasks):>9,} keys    {time.perf_counter() - start:6.1f} s   peak {peak():.2f} GiB", flush=True
    )


def manifest(shards: int) -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = open_folder(base)
        type(folder).sizes = lambda self, paths: [128_000_000] * len(paths)
        start = time.perf_counter()
        entries = [
            FileEntry(
                f"data/train/{number:020x}.parquet",
                "train",
                60_000,
                128_000_000,
                f"{number:064x}",
                (2_000,) * 30,
                f"{number:032x}",
            )
            for number in range(shards)
        ]
        print(
            f"entries    {shards:>9,} shards  {time.perf_counter() - start:6.1f} s   peak {peak():.2f} GiB", flush=True
        )
        start = time.perf_counter()
        publish(folder, entries, pa.schema([("text", pa.string())]), expected_parent=None)
        del entries
        size = sum(path.stat().st_size for path in Path(base).rglob("*") if path.is_file())
        print(
            f"publish    {shards:>9,} shards  {time.perf_counter() - start:6.1f} s   peak {peak():.2f} GiB   manifest and parts {size / 1e6:.0f} MB",
            flush=True,
        )
        start = time.perf_counter()
        opened = open_dataset(base)
        assert opened.num_rows == 60_000 * shards and len(opened.file_list) == shards
        print(
            f"open       {shards:>9,} shards  {time.perf_counter() - start:6.1f} s   peak {peak():.2f} GiB", flush=True
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=1_000_000)
    chosen = parser.parse_args()
    header()
    plan(chosen.items)
    manifest(chosen.shards)
