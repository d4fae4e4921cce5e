"""Row identity: `_uid` is the user's id, else the hash of the row's content; what happens to repeated ones is decided here."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels.digests import row_digests
from gristmill.kernels.hashing import hash_text, hex_digests
from gristmill.pipelines import decisions, parts
from gristmill.pipelines.slices import ROUTED
from gristmill.pipelines.work import WorkStore


@dataclass(frozen=True)
class IdentityOf:
    """The identity file of one ingested item: what `exchange` reads."""

    item: int
    digest: str  # the item's work key

    def __str__(self) -> str:
        return f"item {self.item}"


def identify(table: pa.Table, id_column: str | None, source: str) -> tuple[pa.Table, pa.Table, pa.Table]:
    """(the table with `_uid` and `_source`; its identity columns; quarantine decisions of rows whose id is null).

    The content hash is of the row as read, `_` columns aside, so it is the same however files are cut, named or ordered. Identity columns:
    uid, high, low (the content hash), key (what equal uids share).
    """
    digests = row_digests(table)
    lost = decisions.none()
    if id_column is None:
        uids = hex_digests(digests)
    else:
        uids = pc.cast(table[id_column], pa.string())
        null = pc.is_null(uids)
        if pc.any(null).as_py():
            lost = decisions.decide(hex_digests(digests).filter(null.combine_chunks()), "quarantine", "null_id")
            keep = pc.invert(null)
            table, uids, digests = table.filter(keep), uids.filter(keep), digests[keep.to_numpy()]
    uids = uids.combine_chunks() if isinstance(uids, pa.ChunkedArray) else uids
    key = digests[:, 1] if id_column is None else hash_text(uids)[:, 1]
    slim = pa.table({"uid": uids, "high": digests[:, 0], "low": digests[:, 1], "key": key})
    table = table.append_column("_uid", uids.cast(pa.string()))
    return table.append_column("_source", pa.repeat(pa.scalar(source), table.num_rows)), slim, lost


def view(store: WorkStore, source: IdentityOf) -> pa.Table:
    """The identity columns of an item, with the rows' addresses and the source's name."""
    slim = parts.table(store.folder(source.digest), "identity")
    if slim is None:
        return _VIEW.empty_table()
    n = slim.num_rows
    return slim.append_column("item", pa.repeat(pa.scalar(source.item), n)).append_column("row", pa.array(np.arange(n))).select(_VIEW.names).cast(_VIEW)


_VIEW = pa.schema(
    [("uid", pa.large_string()), ("high", pa.uint64()), ("low", pa.uint64()), ("key", pa.uint64()), ("source", pa.string())]
    + [("item", pa.int64()), ("row", pa.int64())]
)


def resolver(*, by_id: bool) -> functools.partial[pa.Table]:
    """The reduce function for `exchange`: rows that share a uid to decisions (ROUTED)."""
    return functools.partial(resolve, by_id=by_id)


def resolve(table: pa.Table, *, by_id: bool) -> pa.Table:
    """Decisions for rows that share a uid; the first by (content hash, source, address) keeps it.

    Without an id column equal uids mean equal content: later ones are renamed UID~2, UID~3, ... With one, equal content is dropped as
    `duplicate_id` and different content is quarantined as `conflicting_id`.
    """
    keys = table["key"].to_numpy()
    counts = np.unique(keys, return_counts=True)
    repeated = np.isin(keys, counts[0][counts[1] > 1])
    table = table.filter(pa.array(repeated))
    table = table.sort_by([(name, "ascending") for name in ("key", "uid", "high", "low", "source", "item", "row")])
    if not table.num_rows:
        return ROUTED.empty_table()
    uids = table["uid"].combine_chunks()
    same = np.concatenate([[False], pc.equal(uids[1:], uids[:-1]).to_numpy(zero_copy_only=False)])
    start = np.maximum.accumulate(np.where(same, 0, np.arange(len(same))))
    nth = np.arange(len(same)) - start
    later = pa.array(nth > 0)
    rows = table.filter(later)
    uid = rows["uid"]
    if not by_id:
        names = pc.binary_join_element_wise(uid, pa.array([str(n + 1) for n in nth[nth > 0]], pa.large_string()), "~")
        return _routed(rows, decisions.decide(uid, "edit", "repeated_row"), names)
    high, low = table["high"].to_numpy(), table["low"].to_numpy()
    equal = ((high == high[start]) & (low == low[start]))[nth > 0]
    rule = pa.array(np.where(equal, "duplicate_id", "conflicting_id"))
    found = decisions.decide(uid, "drop", "", other_uid=uid)
    found = found.set_column(found.schema.get_field_index("rule"), SCHEMA_RULE, rule)
    action = pa.array(np.where(equal, "drop", "quarantine"))
    return _routed(rows, found.set_column(found.schema.get_field_index("action"), SCHEMA_ACTION, action), None)


SCHEMA_RULE = decisions.SCHEMA.field("rule")
SCHEMA_ACTION = decisions.SCHEMA.field("action")


def _routed(rows: pa.Table, found: pa.Table, names: pa.ChunkedArray | None) -> pa.Table:
    renamed = pa.nulls(rows.num_rows, pa.large_string()) if names is None else names
    return pa.table([rows["item"], rows["row"], *found.columns, renamed], schema=ROUTED)
