"""Speed of the kernels on one core: MinHash signatures, shingle sets, resolving, quality signals, hashes; and how long they take to start.

`python benchmarks/kernels.py`. MB are of UTF-8 text, seconds of processor time, the best of 5.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.kernels.buffers import slices
from gristmill.kernels.digests import row_digests
from gristmill.kernels.hashing import hash_slices
from gristmill.kernels.minhash import band_keys, bands, signatures, sketches
from gristmill.kernels.normalize import clean, scan
from gristmill.kernels.resolve import links, resolve
from gristmill.kernels.shingles import shingle_sets
from gristmill.kernels.signals import text_signals
from gristmill.kernels.whitespace import collapse

COLD = "import time; start = time.perf_counter(); from gristmill.kernels.warm import warm; warm(); print(f'{time.perf_counter() - start:.1f}')"


def cold_start() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for state in ("compiled anew", "from the cache"):
            done = subprocess.run(
                [sys.executable, "-c", COLD],
                env={**os.environ, "NUMBA_CACHE_DIR": folder},
                capture_output=True,
                text=True,
                check=True,
            )
            print(f"start of all kernels, {state}: {done.stdout.strip()} s")
    print()


def main() -> None:
    common.header("pyarrow", "numpy", "numba")
    cold_start()
    text = pq.read_table(common.TEXT / "peps_history/peps.parquet", columns=["text"])["text"]
    text = text.take(pa.array(np.random.default_rng(7).permutation(len(text)))).cast(pa.large_string()).combine_chunks()
    rows = slices(text)
    size = int(rows.offsets[-1] - rows.offsets[0]) / 1e6
    print(f"PEP history, shuffled: {len(text)} documents, {size:.0f} MB of text; one core, best of 5")
    flags = scan(rows)
    calls = {
        "MinHash signatures, 112 permutations": lambda: signatures(rows),
        "shingle sets": lambda: shingle_sets(rows),
        "signatures and shingle sets in one pass": lambda: sketches(rows),
        "Gopher signals, all 21": lambda: text_signals(text),
        "scan for normalisation": lambda: scan(rows),
        "line breaks and control characters": lambda: clean(rows, flags),
        "white space to one": lambda: collapse(rows),
        "XXH3-128 of each text": lambda: hash_slices(rows.data, rows.offsets),
        "identity of each row": lambda: row_digests(pa.table({"text": text})),
    }
    measured = []
    for name, call in calls.items():
        took, _ = common.best(call)
        measured.append([name, took.cpu, size / took.cpu])
    common.table(measured, ["", "CPU s", "MB/s"])
    resolving(rows, size)


def resolving(rows: object, size: float) -> None:
    """From text to decisions, on one core."""
    sketched, found = common.best(lambda: sketches(rows), 1)
    lines = []
    for threshold, act in ((0.8, resolve), (0.5, resolve), (0.5, links)):
        count, width = bands(threshold)
        hashed, keys = common.best(lambda: band_keys(found.signatures, count, width), 3)
        resolved, result = common.best(lambda: act(keys, found.values, found.offsets, threshold), 3)
        left = int((result.kept_by < 0).sum()) if act is resolve else len(np.unique(result.labels))
        total = sketched.cpu + hashed.cpu + resolved.cpu
        lines.append(
            [
                f"{act.__name__} at {threshold}, {count} bands of {width}",
                hashed.cpu,
                resolved.cpu,
                total,
                size / total,
                left,
                result.comparisons.sum(),
                result.capped.sum(),
            ]
        )
    common.table(
        lines, ["", "keys, CPU s", "resolve, CPU s", "with sketches", "MB/s", "kept", "comparisons", "left out"]
    )


if __name__ == "__main__":
    main()
