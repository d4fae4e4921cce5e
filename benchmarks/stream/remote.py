"""Reading from S3 (a server on loopback with 30 ms of latency): rows a second beside bare clients, one that only asks for the same bytes and one that decodes them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
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
THREADS = 32  # requests of a bare client at the same time
BATCH = 512
LIMIT = 60  # seconds of one run
HEAD = ("reader", "rows/s", "CPU s/100k", "MB/s asked", "requests", "bytes asked / needed", "first batch s")
COLUMNS = ("id", "x00", "x31", "x63")  # of 65


def compare(_case: str, _peers: str | None, scale: float, _only: Any = ()) -> None:
    """Prints the tables: all columns of token rows, and four columns of the wide table."""
    for case, columns in (("tokens", None), ("tokens-uncompressed", None), ("table", COLUMNS)):
        folder = data.dataset(case, scale)
        for name, bandwidth in LINES if case != "tokens-uncompressed" else LINES[1:]:
            print(
                f"remote {case}: {'all columns' if columns is None else f'{len(columns)} of {data.COLUMNS + 1} columns'}, latency {LATENCY * 1000:.0f} ms, bandwidth {name}"
            )
            with server(folder, bandwidth) as options:
                rows = [best(reader.__name__, folder, columns, options) for reader in (bare, decoding, ours)]
            table(rows, HEAD)
            for other in rows[:2]:
                if isinstance(other[1], int) and isinstance(rows[2][1], int):
                    print(f"  gristmill / {other[0]}: {rows[2][1] / other[1]:.2f}")
            print()


@contextlib.contextmanager
def server(folder: Path, bandwidth: float) -> Iterator[dict[str, str]]:
    """A running server; the options to reach it."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "s3_server.py"), str(folder), str(LATENCY), str(bandwidth)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield {"endpoint_url": f"http://127.0.0.1:{process.stdout.readline().strip()}", "key": "none", "secret": "none"}
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)


def best(reader: str, folder: Path, columns: tuple[str, ...] | None, options: dict[str, str]) -> list[Any]:
    """The row with the most rows a second, of three runs in processes of their own."""
    found = [apart(reader, folder, columns, options) for _ in range(3)]
    return max(found, key=lambda row: row[1] if isinstance(row[1], int) else -1)


def apart(reader: str, folder: Path, columns: tuple[str, ...] | None, options: dict[str, str]) -> list[Any]:
    """What a reader measures in a process of its own; a client that hangs is told, not waited for."""
    call = [
        sys.executable,
        "-m",
        "benchmarks.stream.remote",
        reader,
        str(folder),
        json.dumps(columns),
        json.dumps(options),
    ]
    try:
        done = subprocess.run(call, stdout=subprocess.PIPE, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return [reader, f"not done in {LIMIT} s", "", "", "", "", ""]
    if done.returncode:
        return [reader, f"ended with {done.returncode}", "", "", "", "", ""]
    row: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def bare(folder: Path, columns: tuple[str, ...] | None, options: dict[str, str]) -> list[Any]:
    """The ranges of every row group's columns in random order by as many threads as help; nothing is decoded. Neighbouring columns are one request."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        "b",
        endpoint=options["endpoint_url"],
        aws_access_key_id="none",
        aws_secret_access_key="none",
        region="us-east-1",
        client_options={"allow_http": True},
    )
    wanted, rows = [], 0
    for path in sorted(folder.glob("*.parquet")):
        footer = pq.read_metadata(path)
        for i in range(footer.num_row_groups):
            group = footer.row_group(i)
            rows += group.num_rows
            chunks = [group.column(j) for j in range(group.num_columns)]
            ranges = sorted(
                (chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size)
                for chunk in chunks
                if columns is None or chunk.path_in_schema.split(".")[0] in columns
            )
            joined: list[list[int]] = []
            for start, stop in ranges:
                if joined and start == joined[-1][1]:
                    joined[-1][1] = stop
                else:
                    joined.append([start, stop])
            wanted += [(path.name, start, stop) for start, stop in joined]
    order = np.random.default_rng(0).permutation(len(wanted))
    begun, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(THREADS) as threads:
        size = sum(
            threads.map(
                lambda i: len(obstore.get_range(store, wanted[i][0], start=wanted[i][1], end=wanted[i][2])), order
            )
        )
    seconds = time.perf_counter() - begun
    return [
        f"bare client, {THREADS} threads",
        int(rows / seconds),
        (time.process_time() - cpu) * 1e5 / rows,
        size / seconds / 1e6,
        len(wanted),
        1.0,
        "",
    ]


def decoding(folder: Path, columns: tuple[str, ...] | None, options: dict[str, str]) -> list[Any]:
    """The same row groups by pyarrow's own S3 client and decoder, in as many threads; they are neither kept nor mixed."""
    from pyarrow.fs import S3FileSystem

    address = options["endpoint_url"].removeprefix("http://")
    store = S3FileSystem(
        access_key="none", secret_key="none", endpoint_override=address, scheme="http", region="us-east-1"
    )
    paths = sorted(folder.glob("*.parquet"))
    files = [
        pq.ParquetFile(store.open_input_file(f"b/{path.name}"), metadata=pq.read_metadata(path), pre_buffer=True)
        for path in paths
    ]
    wanted = [(file, i) for file in files for i in range(file.metadata.num_row_groups)]
    order = np.random.default_rng(0).permutation(len(wanted))
    begun, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(THREADS) as threads:
        rows = sum(
            threads.map(
                lambda i: (
                    wanted[i][0]
                    .read_row_group(wanted[i][1], columns=columns and list(columns), use_threads=False)
                    .num_rows
                ),
                order,
            )
        )
    seconds = time.perf_counter() - begun
    return [
        f"pyarrow, {THREADS} threads",
        int(rows / seconds),
        (time.process_time() - cpu) * 1e5 / rows,
        "",
        "",
        "",
        "",
    ]


def ours(folder: Path, columns: tuple[str, ...] | None, options: dict[str, str]) -> list[Any]:
    """The stream over the same columns, batches of tensors."""
    from gristmill.storage.stream import stream

    os.environ.setdefault("AWS_REGION", "us-east-1")
    loader = stream("s3://b", columns=columns, global_batch_size=BATCH, shuffle_bytes=2**28, options=options)
    traffic = loader.traffic
    begun, cpu, first, rows = time.perf_counter(), time.process_time(), 0.0, 0
    before = (traffic.requests, traffic.bytes, traffic.needed)
    for batch in loader:
        first = first or time.perf_counter() - begun
        rows += len(batch["id"])
    seconds = time.perf_counter() - begun
    requests, size, needed = (
        now - then for now, then in zip((traffic.requests, traffic.bytes, traffic.needed), before, strict=True)
    )
    return [
        "gristmill",
        int(rows / seconds),
        (time.process_time() - cpu) * 1e5 / rows,
        size / seconds / 1e6,
        requests,
        size / needed,
        first,
    ]


if __name__ == "__main__":
    readers = {reader.__name__: reader for reader in (bare, decoding, ours)}
    name, place, chosen, how = sys.argv[1:]
    print(json.dumps(readers[name](Path(place), json.loads(chosen), json.loads(how))), flush=True)
    os._exit(0)  # pyarrow's client may crash while it is cleared away
