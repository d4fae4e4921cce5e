"""JPEGs: decoded rows a second beside the decode limit of the cores, and random crops of 224 pixels beside other loaders."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.common import table
from benchmarks.stream import data
from benchmarks.stream.local import HEAD, Rows, line, of_peer
from benchmarks.stream.measure import OURS, run

BATCH = 64
LIMIT = 15.0
PEERS = ("files-crop", "litdata-crop", "webdataset-crop")


def compare(case: str, peers: str | None, scale: float, only: Any = ()) -> None:
    """Prints the table of images."""
    folder = data.dataset(case, scale)
    groups = data.row_groups(folder)
    size = sum(file.stat().st_size for file in folder.iterdir()) / groups.sum()
    cores = os.cpu_count() or 1
    print(f"{case}: {groups.sum():,} JPEGs of {size / 1000:.0f} kB, {data.SIZES[case][0]} x {data.SIZES[case][1]}, in {len(groups)} row groups; batches of {BATCH}; {cores} cores")
    before = decode_limit(folder, cores)
    rows = Rows()
    shared = ["--data", str(folder), "--batch", str(BATCH), "--limit", str(LIMIT)]
    for name, kind in (("gristmill, decoded whole", "rgb"), ("gristmill, crops of 224", "crop")):
        if not only or "gristmill" in only:
            rows.append(line(name, lambda kind=kind: run(OURS, "ours.py", ["gristmill", "--decode", kind, *shared]), groups, batch=BATCH))
    for peer in PEERS if peers else ():
        if not only or peer in only:
            rows.append(of_peer(peers, peer, folder, groups, batch=BATCH, limit=LIMIT))
    after = decode_limit(folder, cores)
    limit = (before + after) / 2
    print(f"decode limit of {cores} threads: {before:,.0f} images/s before, {after:,.0f} after; simplejpeg alone, whole images from memory")
    table([[row[0], *row[1:], f"{row[2] / limit:.2f}" if isinstance(row[2], int) else ""] for row in rows], (*HEAD, "of the limit"))


def decode_limit(folder: Path, cores: int) -> float:
    """Images a second that the decoder alone does on all cores, with nothing else to do."""
    import simplejpeg

    contents = pq.read_table(next(iter(sorted(folder.glob("*.parquet")))), columns=["image"])["image"].to_pylist()
    return rate(lambda content: simplejpeg.decode_jpeg(content, "RGB"), contents, cores)


def rate(function: Callable[[bytes], Any], contents: list[bytes], threads: int, seconds: float = 4.0) -> float:
    """Calls a second of a function by some threads."""
    done, start = 0, time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        while time.perf_counter() - start < seconds:
            done += sum(1 for _ in pool.map(function, contents[:200]))
    return done / (time.perf_counter() - start)
