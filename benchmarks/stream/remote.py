"""Reading from S3 (a server on loopback with 30 ms of latency): rows a second beside a bare client that only asks for the same bytes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.common import table
from benchmarks.stream import data
from benchmarks.stream.measure import HERE

LATENCY = 0.03
LINES = (("no limit", 0), ("1 Gbit/s", 125_000_000))
THREADS = 32  # requests of the bare client at the same time
BATCH = 512
HEAD = ("reader", "rows/s", "MB/s asked", "requests", "bytes asked / needed", "first batch s")
COLUMNS = ("id", "x00", "x31", "x63")  # of 65


def compare(_case: str, _peers: str | None, scale: float, _only: Any = ()) -> None:
    """Prints the tables: all columns of token rows, and four columns of the wide table."""
    for case, columns in (("tokens", None), ("table", COLUMNS)):
        folder = data.dataset(case, scale)
        for name, bandwidth in LINES:
            print(f"remote {case}: {'all columns' if columns is None else f'{len(columns)} of {data.COLUMNS + 1} columns'}, latency {LATENCY * 1000:.0f} ms, bandwidth {name}")
            with server(folder, bandwidth) as options:
                rows = [best(lambda: bare(folder, columns, options)), best(lambda: ours(folder, columns, options))]
            ratio = rows[1][1] / rows[0][1]
            table(rows, HEAD)
            print(f"  gristmill / bare client: {ratio:.2f}\n")


@contextlib.contextmanager
def server(folder: Path, bandwidth: float) -> Iterator[dict[str, str]]:
    """A running server; the options to reach it."""
    process = subprocess.Popen([sys.executable, str(HERE / "s3_server.py"), str(folder), str(LATENCY), str(bandwidth)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield {"endpoint_url": f"http://127.0.0.1:{process.stdout.readline().strip()}", "key": "none", "secret": "none"}
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)


def best(function: Callable[[], list[Any]], times: int = 3) -> list[Any]:
    """The row with the most rows a second."""
    return max((function() for _ in range(times)), key=lambda row: row[1])


def bare(folder: Path, columns: tuple[str, ...] | None, options: dict[str, str]) -> list[Any]:
    """The ranges of every row group's columns in random order by as many threads as help; nothing is decoded. Neighbouring columns are one request."""
    import obstore
    from obstore.store import S3Store

    store = S3Store("b", endpoint=options["endpoint_url"], aws_access_key_id="none", aws_secret_access_key="none", region="us-east-1", client_options={"allow_http": True})
    wanted, rows = [], 0
    for path in sorted(folder.glob("*.parquet")):
        footer = pq.read_metadata(path)
        for i in range(footer.num_row_groups):
            group = footer.row_group(i)
            rows += group.num_rows
            chunks = [group.column(j) for j in range(group.num_columns)]
            ranges = sorted((chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size) for chunk in chunks if columns is None or chunk.path_in_schema.split(".")[0] in columns)
            joined: list[list[int]] = []
            for start, stop in ranges:
                if joined and start == joined[-1][1]:
                    joined[-1][1] = stop
                else:
                    joined.append([start, stop])
            wanted += [(path.name, start, stop) for start, stop in joined]
    order = np.random.default_rng(0).permutation(len(wanted))
    begun = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as threads:
        size = sum(threads.map(lambda i: len(obstore.get_range(store, wanted[i][0], start=wanted[i][1], end=wanted[i][2])), order))
    seconds = time.perf_counter() - begun
    return [f"bare client, {THREADS} threads", int(rows / seconds), size / seconds / 1e6, len(wanted), 1.0, ""]


def ours(folder: Path, columns: tuple[str, ...] | None, options: dict[str, str]) -> list[Any]:
    """The stream over the same columns, batches of tensors."""
    from gristmill.storage.stream import stream

    os.environ.setdefault("AWS_REGION", "us-east-1")
    loader = stream("s3://b", columns=columns, global_batch_size=BATCH, shuffle_bytes=2**28, options=options)
    traffic = loader.traffic
    begun, first, rows = time.perf_counter(), 0.0, 0
    before = (traffic.requests, traffic.bytes, traffic.needed)
    for batch in loader:
        first = first or time.perf_counter() - begun
        rows += len(batch["id"])
    seconds = time.perf_counter() - begun
    requests, size, needed = (now - then for now, then in zip((traffic.requests, traffic.bytes, traffic.needed), before, strict=True))
    return ["gristmill", int(rows / seconds), size / seconds / 1e6, requests, size / needed, first]
