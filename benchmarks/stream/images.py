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
SHUFFLE_BYTES = 128 << 20
PEERS = ("files-crop", "litdata-crop", "webdataset-crop")


def compare(case: str, peers: str | None, scale: float, only: Any = ()) -> None:
    """Prints the table of images."""
    folder = data.dataset(case, scale)
    groups = data.row_groups(folder)
    size = sum(file.stat().st_size for file in folder.iterdir()) / groups.sum()
    cores = os.cpu_count() or 1
    print(
        f"{case}: {groups.sum():,} JPEGs of {size / 1000:.0f} kB, {data.SIZES[case][0]} x {data.SIZES[case][1]}, in {len(groups)} row groups; batches of {BATCH}; {cores} cores"
    )
    contents = pq.read_table(next(iter(sorted(folder.glob("*.parquet")))), columns=["image"])["image"].to_pylist()[:200]
    before = rate(decode, contents, cores)
    rows = Rows()
    shared = ["--data", str(folder), "--batch", str(BATCH), "--limit", str(LIMIT)]
    for name, kind in (("gristmill, decoded whole", "rgb"), ("gristmill, crops of 224", "crop")):
        if not only or "gristmill" in only:
            rows.append(
                line(
                    name,
                    lambda kind=kind: run(
                        OURS, "ours.py", ["gristmill", "--shuffle-bytes", str(SHUFFLE_BYTES), "--decode", kind, *shared]
                    ),
                    groups,
                    batch=BATCH,
                )
            )
    for peer in PEERS if peers else ():
        if not only or peer in only:
            rows.append(of_peer(peers, peer, folder, groups, batch=BATCH, limit=LIMIT))
    after, cpu = rate(decode, contents, cores), cpu_seconds(contents)
    limit = (before + after) / 2
    print(
        f"decode limit, simplejpeg alone on whole images in memory: {cores} threads {before:,.0f} images/s before, {after:,.0f} after; {cpu * 1e5:,.0f} CPU s/100k"
    )
    measured = [row for row in rows if isinstance(row[2], int)]
    shares = [[row[0], f"{row[2] / limit:.2f}", f"{cpu * 1e5 / row[4]:.2f}"] for row in measured]
    table(rows, HEAD)
    table(shares, ("loader", "2nd epoch / limit", "CPU of the decoder / of the loader"))


def decode(content: bytes) -> Any:
    """The pixels of a JPEG."""
    import simplejpeg

    return simplejpeg.decode_jpeg(content, "RGB")


def cpu_seconds(contents: list[bytes]) -> float:
    """CPU seconds that the decoder needs for an image: as good a limit, and the same whatever else the machine does."""
    start = time.thread_time()
    for content in contents:
        decode(content)
    return (time.thread_time() - start) / len(contents)


def rate(function: Callable[[bytes], Any], contents: list[bytes], threads: int, seconds: float = 4.0) -> float:
    """Calls a second of a function by some threads."""
    done, start = 0, time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        while time.perf_counter() - start < seconds:
            done += sum(1 for _ in pool.map(function, contents))
    return done / (time.perf_counter() - start)
