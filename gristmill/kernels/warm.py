"""Compiles every kernel once, so that the first run doesn't wait for it: `python -m gristmill.kernels.warm`, some seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from gristmill.kernels import automaton, exact_sum
from gristmill.kernels.buffers import Slices, slices
from gristmill.kernels.csv import csv_records
from gristmill.kernels.digests import row_digests
from gristmill.kernels.filters import Layout
from gristmill.kernels.groups import Index, group, partition, parts_of
from gristmill.kernels.jaccard import pairs
from gristmill.kernels.minhash import band_keys, sketches
from gristmill.kernels.normalize import clean, scan
from gristmill.kernels.packing import best_fit, copy_pieces, number_pieces
from gristmill.kernels.resolve import components, resolve
from gristmill.kernels.signals import text_signals
from gristmill.kernels.spans import read_spans
from gristmill.kernels.tally import Tally
from gristmill.kernels.whitespace import collapse


def warm() -> None:
    """Calls each kernel with a few rows, which puts its machine code in numba's cache beside the module."""
    texts = pa.array(["one two three four five six", "one two three four five seven\r\n", "", None])
    rows = slices(texts)
    row_digests(pa.table({"text": texts, "n": [1, 2, None, 4]}))
    text_signals(texts)
    collapse(rows)
    csv_records(b"a,b")
    clean(rows, scan(rows))
    found = sketches(texts)
    resolve(band_keys(found.signatures, 14, 8), found.values, found.offsets, 0.8)
    none = np.zeros(0, np.int64)
    read_spans([], none, none, none, np.empty(0, np.uint32), none)
    pairs(found.values, found.offsets, np.array([0]), np.array([1]))
    components(np.array([0]), np.array([1]), 2)
    tally = Tally()
    tally.add(np.arange(10_000, dtype=np.uint64), np.arange(10_000))  # so many that it grows
    tally.find(np.zeros(1, np.uint64))
    _warm_validation(rows)


def _warm_validation(rows: Slices) -> None:
    for squares in (False, True):
        exact_sum.add(np.array([0.5, 2.0]), exact_sum.new_sum(squares=squares), squares=squares)
    for width in (1, 2):
        hashes = partition(np.ones((4, width), np.uint64))[0]
        Index(hashes[group(hashes).first]).find(hashes)
        parts_of(hashes)
        layout = Layout(np.array([len(hashes)]))
        layout.maybe(0, layout.fill(hashes), hashes)
    states = automaton.run(rows, np.full((4, 256), automaton.REJECT, np.uint32))
    classes = np.zeros(0x110000, np.uint8)
    automaton.run_wide(rows, np.array([0]), classes, 0, np.zeros((4, 1), np.uint16), states)
    one = np.array([1])
    best_fit(one, 2)
    copy_pieces(np.array([7], np.int32), one - 1, one, one - 1, np.empty(1, np.int32))
    number_pieces(one, one - 1, one, np.empty(1, np.int32), np.empty(1, np.int32))


def forget() -> None:
    """Removes what numba has kept: it notices a change in a kernel's own file, but not in the files of what the kernel calls."""
    for file in Path(__file__).parent.glob("__pycache__/*.nb[ic]"):
        file.unlink(missing_ok=True)


if __name__ == "__main__":
    forget()
    warm()
