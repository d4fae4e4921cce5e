"""Decisions on their way back to the rows: of what a wide step decided, the slice that belongs to one work item, addressed by row number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from gristmill.pipelines import parts
from gristmill.pipelines.decisions import SCHEMA
from gristmill.pipelines.work import WorkStore, key_of

_SHARD = pa.field("other_shard", pa.int64())
ROUTED = pa.schema(
    [pa.field("item", pa.int64()), pa.field("row", pa.int64()), *SCHEMA, pa.field("new_uid", pa.large_string()), _SHARD]
)
"""A decision with its address; `new_uid` is set where the row stays under another name (a repeated row without an id), `other_shard` where the
other row is published already: the number of its shard in the version that the run appends to."""

STEPPED = pa.schema([*SCHEMA, pa.field("step", pa.string())])
"""A decision with the name of its step."""

NOTED = pa.schema([*STEPPED, _SHARD])
"""The same with `other_shard`: what stages write and the ledger is made of."""


def noted(found: pa.Table) -> pa.Table:
    """Decisions (STEPPED) of a step that looks at no published row, as NOTED."""
    return found.append_column(_SHARD, pa.nulls(found.num_rows, _SHARD.type))


def route(store: WorkStore, decided: pa.Table, step: str, items: Sequence[int]) -> dict[int, str]:
    """The key of each item's slice, for the items that have decisions. Slices hold no item number, so inserting a file leaves others' alone."""
    if not decided.num_rows:
        return {}
    order = np.lexsort((decided["row"].to_numpy(), decided["item"].to_numpy()))
    decided = decided.take(pa.array(order))
    numbers = decided["item"].to_numpy()
    keys = {}
    for item in items:
        start, stop = np.searchsorted(numbers, [item, item + 1])
        if start < stop:
            keys[item] = _store(store, decided.slice(start, stop - start).drop_columns(["item"]), step)
    return keys


def _store(store: WorkStore, content: pa.Table, step: str) -> str:
    content = content.append_column("step", pa.repeat(pa.scalar(step), content.num_rows)).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, content.schema) as writer:
        writer.write_table(content)
    key = key_of("slice", xxhash.xxh3_128_hexdigest(sink.getvalue()))
    if store.done(key) is None:
        with store.create(key) as (folder, _):
            parts.write(folder / "slice.arrow", content)
    return key


class Pending:
    """The slices that wait to be applied to one item's rows, read once and applied batch by batch in row order."""

    def __init__(self, store: WorkStore, keys: Sequence[str]) -> None:
        found = [read_slice(store.folder(key)) for key in keys]
        self._table = pa.concat_tables(found) if found else None
        if self._table is not None:
            self._table = self._table.take(pa.array(np.argsort(self._table["row"].to_numpy(), kind="stable")))
            self._rows = self._table["row"].to_numpy()
        self._start = 0

    def apply(self, table: pa.Table) -> tuple[pa.Table, pa.Table]:
        """(the next rows of the item without those that leave and with new names; the decisions applied, as NOTED)."""
        first, self._start = self._start, self._start + table.num_rows
        if self._table is None:
            return table, NOTED.empty_table()
        low, high = np.searchsorted(self._rows, [first, self._start])
        due = self._table.slice(low, high - low)
        if not due.num_rows:
            return table, NOTED.empty_table()
        renamed = due.filter(pc.is_valid(due["new_uid"]))
        if renamed.num_rows:
            table = _rename(table, renamed["row"].to_numpy() - first, renamed["new_uid"].cast(pa.string()))
        leaving = due.filter(pc.is_null(due["new_uid"]))
        keep = np.ones(table.num_rows, bool)
        keep[leaving["row"].to_numpy() - first] = False
        return table.filter(pa.array(keep)), leaving.select(NOTED.names)


def read_slice(folder: Path) -> pa.Table:
    """One item's slice, sorted by row."""
    return parts.read(folder / "slice.arrow")


def _rename(table: pa.Table, rows: np.ndarray, names: pa.ChunkedArray) -> pa.Table:
    mask = np.zeros(table.num_rows, bool)
    mask[rows] = True
    uids = pc.replace_with_mask(table["_uid"].combine_chunks(), pa.array(mask), names.combine_chunks())
    return table.set_column(table.column_names.index("_uid"), "_uid", uids)
