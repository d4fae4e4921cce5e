"""A key of very many rows: reductions hold its groups and a table at a time, never its rows, and say how hot it was."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pytest

from gristmill.pipelines import exchange, identity
from gristmill.pipelines.assign import codes
from gristmill.pipelines.components import large_star, small_star
from gristmill.pipelines.duplicates import bucket_edges, exact_groups
from gristmill.pipelines.exchange import Chunks

ROWS, TABLES = 2_000, 32


def table(number: int) -> pa.Table:
    """Rows of one key, and some of others."""
    ids = np.arange(number * ROWS, (number + 1) * ROWS)
    alone = ids % 1000 == 7
    uids = pa.array([f"{uid:032x}" for uid in ids.tolist()], pa.large_string())
    return pa.table(
        {
            "key": pa.array(np.where(alone, ids + 100, 5), pa.uint64()),
            "high": pa.array(np.where(alone, ids, 0), pa.uint64()),
            "low": pa.array(np.where(alone, ids + 100, 5), pa.uint64()),
            "uid": uids,
            "name": pa.nulls(ROWS, pa.large_string()),
            "rank": pa.array(np.zeros(ROWS), pa.int32()),
            "quality": pa.array(-ids.astype(float)),
            "source": ["s"] * ROWS,
            "item": np.full(ROWS, number),
            "row": np.arange(ROWS),
            "id": ids,
            "node": np.where(alone, ids + 1, 0),
            "other": np.where(alone, ids, ids + 1),
            "label": np.where(alone, ids, 0),
        }
    )


def peak(reduce: Callable[[Chunks], Iterator[pa.Table]], tables: int) -> tuple[int, int, dict[str, int]]:
    """(the most that was allocated for it at a time, Arrow's and numpy's; the rows of its result; what it noted)."""
    every = [table(number) for number in range(tables)]
    chunks = Chunks(None, lambda: every)
    pool, rows, most = pa.default_memory_pool(), 0, 0
    before = pool.bytes_allocated()
    tracemalloc.start()
    for found in reduce(chunks):
        rows += found.num_rows
        most = max(most, pool.bytes_allocated() - before)
    most += tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most, rows, chunks.notes


@pytest.mark.parametrize(
    ("reduce", "notes"),
    [
        (exact_groups, {"largest_group": ROWS * TABLES * 999 // 1000}),
        (bucket_edges, {"largest_bucket": ROWS * TABLES * 999 // 1000}),
        (large_star, None),
        (small_star, None),
        (lambda chunks: codes(chunks, shares={"a": 0.5, "b": 0.5}), None),
        (
            lambda chunks: identity.resolve(
                Chunks(None, lambda: (t.set_column(3, "uid", t["key"].cast(pa.large_string())) for t in chunks)),
                by_id=True,
            ),
            None,
        ),
        (
            lambda chunks: identity.resolve(
                Chunks(None, lambda: (t.set_column(3, "uid", t["key"].cast(pa.large_string())) for t in chunks)),
                by_id=False,
            ),
            None,
        ),
    ],
    ids=["exact", "bucket", "large star", "small star", "splits", "ids", "rows"],
)
def test_memory_does_not_grow_with_the_rows_of_a_key(monkeypatch, reduce, notes):
    monkeypatch.setattr(exchange, "CHUNK_BYTES", 200_000)
    monkeypatch.setattr(exchange, "PARTITION_BYTES", 400_000)  # so much is held
    few, _, _ = peak(reduce, TABLES // 4)
    many, rows, noted = peak(reduce, TABLES)
    assert rows > 60_000 and (notes is None or noted == notes)
    assert many < 1.3 * few + 100_000, "four times the rows, and no more memory"
