"""Decisions on their way back to the rows: of what a wide step decided, the slice that belongs to one work item, addressed by row number."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.pipelines import parts
from gristmill.pipelines.decisions import SCHEMA
from gristmill.pipelines.engines.base import Engine
from gristmill.pipelines.exchange import Chunks, Part, content_digest, exchange
from gristmill.pipelines.work import Files, WorkStore, key_of

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


def route(
    engine: Engine, store: WorkStore, decided: Sequence[Part], step: str, schema: pa.Schema = ROUTED
) -> tuple[dict[int, Slice], list[str]]:
    """(each item's slice, for the items that have rows; the keys of the work files used): what was decided, brought to the items that it is about.

    The rows have `item` and `row`. Slices are sorted by row and hold no item number, so inserting a file leaves others' alone. `step` is the
    name that the ledger gives to decisions (ROUTED).
    """
    rows = sum(part.rows for part in decided)
    if not rows:
        return {}, []
    size = rows * (ROUTED_BYTES if schema is ROUTED else 8 * len(schema))
    reduce = functools.partial(store_slices, step=step)
    found = exchange(engine, store, decided, _by_item, reduce, size=size, name=f"route {step}")
    slices = [Slice(**row) for part in found.parts for table in part.tables(store) for row in table.to_pylist()]
    return {one.item: one for one in slices}, [*found.used, *[one.key for one in slices]]


@dataclass(frozen=True)
class Slice:
    """One item's slice: its work key, how many rows leave by it and how many of these are put aside, and the rules, as JSON."""

    item: int
    key: str
    leaving: int
    quarantined: int
    rules: str


ROUTED_BYTES = 160  # of a decision, about


def _by_item(store: WorkStore, decided: Part) -> Iterator[pa.Table]:
    for table in decided.tables(store):
        yield table.append_column("key", pc.cast(table["item"], pa.uint64()))


def store_slices(chunks: Chunks, *, step: str) -> Iterator[pa.Table]:
    """Stores the slices of some items; gives a line for each (`Slice`)."""
    assert chunks.store is not None
    found = [table.drop_columns(["key"]) for table in chunks]
    if not found:
        return
    decided = pa.concat_tables(found).sort_by([("item", "ascending"), ("row", "ascending")]).combine_chunks()
    numbers = decided["item"].to_numpy()
    lines = []
    for start, stop in itertools.pairwise(parts.runs(numbers.astype(np.uint64)).tolist()):
        content = decided.take(pa.array(np.arange(start, stop))).drop_columns(["item"])
        lines.append(_store(chunks.store, int(numbers[start]), content, step))
    yield pa.Table.from_pylist([asdict(line) for line in lines])


def _store(store: WorkStore, item: int, content: pa.Table, step: str) -> Slice:
    leaving = quarantined = 0
    rules: dict[str, int] = {}
    if "new_uid" in content.column_names:
        content = content.append_column("step", pa.repeat(pa.scalar(step), content.num_rows))
        going = content.filter(pc.is_null(content["new_uid"]))
        first = np.unique(going["row"].to_numpy(), return_index=True)[1]
        going = going.take(pa.array(first))  # a row may have two reasons
        leaving = going.num_rows
        quarantined = pc.sum(pc.equal(going["action"], "quarantine")).as_py() or 0
        rules = {entry["values"]: entry["counts"] for entry in pc.value_counts(going["rule"]).to_pylist()}
    key = key_of("slice", content_digest(content))
    if store.done(key) is None:
        with store.create(key) as (folder, _):
            parts.write(folder / "slice.arrow", content.combine_chunks())
    return Slice(item, key, leaving, quarantined, json.dumps(rules, sort_keys=True))


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


def read_slice(folder: Files) -> pa.Table:
    """One item's slice, sorted by row."""
    return parts.read(folder / "slice.arrow")


def _rename(table: pa.Table, rows: np.ndarray, names: pa.ChunkedArray) -> pa.Table:
    mask = np.zeros(table.num_rows, bool)
    mask[rows] = True
    uids = pc.replace_with_mask(table["_uid"].combine_chunks(), pa.array(mask), names.combine_chunks())
    return table.set_column(table.column_names.index("_uid"), "_uid", uids)
