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

import common_path  # noqa: F401
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


class Step:
    """Prints what a step took by the clock and of processor time, and the most memory so far."""

    def __init__(self, name: str, what: str) -> None:
        self.name, self.what, self.more = name, what, ""

    def __enter__(self) -> "Step":
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        took = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        SECONDS.append(took)
        print(
            f"{self.name:10} {self.what:18} {took[0]:7.1f} s {took[1]:7.1f} CPU s   peak {peak:.2f} GiB{self.more}",
            flush=True,
        )


SECONDS: list[tuple[float, float]] = []


def plan(items: int) -> None:
    source = JsonlSource(path="s3://raw/web/*.jsonl.gz", name="web")
    listing = [
        Found(f"s3://raw/web/part-{number:07d}.jsonl.gz", 50_000_000, f"50000000:{number}") for number in range(items)
    ]
    planner.list_files = lambda paths, endings: listing
    planner._packed = lambda path: True
    with Step("plan", f"{items:,} items"):
        found = planner.plan_items(source)
        assert len(found) == items
    del listing[:]
    with tempfile.TemporaryDirectory() as folder, Step("tasks", f"{items:,} keys"):
        store, erased = WorkStore(folder), Tombstones(open_folder(folder), "")
        tasks = [
            Ingest(store, ingest_key(source, item, None, erased), source, item, None, 1 << 24, erased) for item in found
        ]
        assert len({task.key for task in tasks}) == items
        assert store.summaries([task.key for task in tasks]).count(None) == items


def manifest(shards: int) -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = open_folder(base)
        type(folder).sizes = lambda self, paths: [128_000_000] * len(paths)
        with Step("entries", f"{shards:,} shards"):
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
        with Step("publish", f"{shards:,} shards") as step:
            publish(folder, entries, pa.schema([("text", pa.string())]), expected_parent=None)
            del entries
            files = [path.stat().st_size for path in Path(base).rglob("*") if path.is_file()]
            step.more = f"   manifest and parts {sum(files) / 1e6:.1f} MB in {len(files)} files"
        with Step("open", f"{shards:,} shards"):
            opened = open_dataset(base)
            assert opened.num_rows == 60_000 * shards and len(opened.file_list) == shards


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=1_000_000)
    chosen = parser.parse_args()
    header()
    plan(chosen.items)
    manifest(chosen.shards)
    print(f"\nall together {sum(took for took, _ in SECONDS):.1f} s, {sum(cpu for _, cpu in SECONDS):.1f} CPU s")
