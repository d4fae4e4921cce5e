"""From clusters to the split of every row: the first uid of each cluster, found by `exchange`, then each item's rows on their own."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels.hashing import hash_text
from gristmill.pipelines import parts
from gristmill.pipelines.components import labelled
from gristmill.pipelines.engines.base import Engine
from gristmill.pipelines.exchange import Chunks, Part, exchange, spread, store_list, stored_list
from gristmill.pipelines.extracts import ROW_BITS, leaving_rows
from gristmill.pipelines.grouped import first_of_each, place_in
from gristmill.pipelines.slices import route
from gristmill.pipelines.work import WorkStore

LEAVES = -1  # in an assignment: the row is in no split
CODES = pa.schema([("item", pa.int64()), ("row", pa.int64()), ("split", pa.int8())])
"""The number of the split of a row that is in a cluster."""


def share_of(uids: pa.Array | pa.ChunkedArray, shares: Mapping[str, float]) -> npt.NDArray[np.int8]:
    """The number of the split of each uid, by hash of the uid alone: the same in every run and however many rows there are."""
    marked = pc.binary_join_element_wise(
        pa.scalar("split", pa.large_string()), pc.cast(uids, pa.large_string()), pa.scalar(":", pa.large_string())
    )
    place = hash_text(marked)[:, 1].astype(np.float64) / 2.0**64
    return np.searchsorted(np.cumsum(list(shares.values()))[:-1], place, side="right").astype(np.int8)


def cluster_splits(
    engine: Engine, store: WorkStore, stars: Sequence[Part], rows: Sequence[str], shares: Mapping[str, float]
) -> tuple[dict[int, str], list[str]]:
    """(the key of each item's slice of CODES, for the items that have clustered rows; the keys of the work files used).

    rows: the work key of the stage that wrote each item's rows. A cluster's split is that of its smallest uid.
    """
    count = sum(part.rows for part in stars)
    if not count:
        return {}, []
    listed = store_list(store, rows)
    named = functools.partial(with_uids, listed=listed)
    by_row = exchange(engine, store, stars, _by_item, named, size=count * 48, name="uids of clusters")
    coded = functools.partial(codes, shares=dict(shares))
    by_cluster = exchange(
        engine, store, by_row.parts, _by_label, coded, size=by_row.rows * 80, name="splits of clusters"
    )
    slices, used = to_items(engine, store, by_cluster.parts)
    return slices, [listed, *by_row.used, *by_cluster.used, *used]


def to_items(engine: Engine, store: WorkStore, coded: Sequence[Part]) -> tuple[dict[int, str], list[str]]:
    """(the key of each item's slice of CODES, for the items that have some; the keys of the work files used)."""
    slices, used = route(engine, store, coded, "split", CODES)
    return {item: one.key for item, one in slices.items()}, used


def _by_item(store: WorkStore, stars: Part) -> Iterator[pa.Table]:
    """key (the item), id, label: every row of each cluster, the smallest one too (more than once)."""
    for table in stars.tables(store):
        labels, ids = labelled(table)
        yield pa.table({"key": (ids >> ROW_BITS).astype(np.uint64), "id": ids, "label": labels})


def with_uids(chunks: Chunks, *, listed: str) -> Iterator[pa.Table]:
    """label, uid, item, row: the uids of some items' rows."""
    assert chunks.store is not None
    found = list(chunks)
    if not found:
        return
    every = pa.concat_tables(found)
    ids, first = np.unique(every["id"].to_numpy(), return_index=True)
    labels = every["label"].to_numpy()[first]
    items = ids >> ROW_BITS
    stages = stored_list(chunks.store, listed)
    for item in np.unique(items).tolist():
        here = items == item
        numbers = ids[here] & ((1 << ROW_BITS) - 1)
        index = parts.table(chunks.store.folder(stages[item]), "index", ["uid"])
        assert index is not None
        uids = index["uid"].take(pa.array(numbers))
        yield pa.table({"label": labels[here], "uid": uids, "item": np.full(len(numbers), item), "row": numbers})


def _by_label(store: WorkStore, rows: Part) -> Iterator[pa.Table]:
    for table in rows.tables(store):
        yield table.append_column("key", pa.array(spread(table["label"].to_numpy())))


def codes(chunks: Chunks, *, shares: Mapping[str, float]) -> Iterator[pa.Table]:
    """CODES of the rows of some clusters."""
    first = first_of_each(chunks, ["label"], [("uid", "ascending")])
    if first is None:
        return
    split = share_of(first["uid"], shares)
    for table in chunks:
        yield pa.table([table["item"], table["row"], split[place_in(first, table, ["label"])]], schema=CODES)


@dataclass(frozen=True)
class Assign:
    """Say for each row of an item which split it is in."""

    store: WorkStore
    key: str
    rows: str  # work key of the stage that wrote the rows
    gone: tuple[str, ...]  # slices of rows that have left since
    clustered: str | None  # slice of CODES
    shares: Mapping[str, float] | None
    splits: int  # how many there are, those that only published rows are in too

    def __str__(self) -> str:
        return f"splits of {self.rows}"


def assign(task: Assign) -> dict[str, Any]:
    """Writes assignment.arrow: for each row the number of its split, or LEAVES, and its bytes; sums up each split (`totals`)."""
    index = parts.table(task.store.folder(task.rows), "index")
    assert index is not None
    split = np.zeros(index.num_rows, np.int8)
    if task.shares is not None:
        split = share_of(index["uid"], task.shares)
        if task.clustered is not None:
            linked = parts.read(task.store.folder(task.clustered) / "slice.arrow")
            split[linked["row"].to_numpy()] = linked["split"].to_numpy()
    split[leaving_rows(task.store, task.gone)] = LEAVES
    sizes = index["bytes"].to_numpy()
    with task.store.create(task.key) as (folder, summary):
        parts.write(folder / "assignment.arrow", pa.table({"split": split, "bytes": sizes}))
        summary["totals"] = [_totals(np.flatnonzero(split == code), sizes) for code in range(task.splits)]
    return summary


def _totals(mine: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> dict[str, int]:
    """rows, bytes; the first row, the last one, the bytes of that."""
    if not len(mine):
        return {"rows": 0, "bytes": 0}
    return {
        "rows": len(mine),
        "bytes": int(sizes[mine].sum()),
        "first": int(mine[0]),
        "last": int(mine[-1]),
        "last_bytes": int(sizes[mine[-1]]),
    }
