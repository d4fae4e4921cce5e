"""Row identity: `_uid` is the user's id, else the hash of the row's content; what happens to repeated ones is decided here."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import PipelineError
from gristmill.kernels.digests import row_digests
from gristmill.kernels.hashing import hash_text, hex_digests
from gristmill.pipelines import decisions, parts
from gristmill.pipelines.published import EXTRACT, PUBLISHED
from gristmill.pipelines.slices import ROUTED
from gristmill.pipelines.sources.base import RESERVED, Source
from gristmill.pipelines.work import WorkStore


@dataclass(frozen=True)
class IdentityOf:
    """The identity file of one ingested item, or the uids of a published shard: what `exchange` reads."""

    item: int
    digest: str  # the item's work key
    source: str

    def __str__(self) -> str:
        return f"item {self.item}"


def identify(table: pa.Table, id_column: str | None, source: Source) -> tuple[pa.Table, pa.Table, pa.Array]:
    """(the table with `_uid` and `_source`, without rows whose id is null; its identity columns; which of the incoming rows have an id).

    The content hash is of the row as read, without columns that say where it lies, so it is the same however files are cut, named or ordered.
    Columns with gristmill's own names are taken out, unless they are the id. Identity columns: uid, high, low (the content hash), key (what
    equal uids share).
    """
    if not table.num_columns and not table.num_rows:
        table = pa.table({name: pa.array([], pa.string()) for name in ([id_column] if id_column else [])})
    if id_column is not None and id_column not in table.column_names:
        table = table.append_column(id_column, pa.nulls(table.num_rows, pa.string()))
    ids = table[id_column] if id_column is not None else None
    table = table.drop_columns([name for name in RESERVED if name in table.column_names])
    digests = row_digests(table, exclude=source.path_columns)
    named = pa.array(np.ones(table.num_rows, bool))
    if ids is None:
        uids = hex_digests(digests)
    else:
        uids = id_texts(str(id_column), ids)
        named = pc.is_valid(uids).combine_chunks()
        table, uids, digests = table.filter(named), uids.filter(named), digests[named.to_numpy(zero_copy_only=False)]
    uids = uids.combine_chunks() if isinstance(uids, pa.ChunkedArray) else uids
    slim = pa.table({"uid": uids, "high": digests[:, 0], "low": digests[:, 1], "key": hash_text(uids)[:, 1]})
    table = table.append_column("_uid", uids.cast(pa.string()))
    return table.append_column("_source", pa.repeat(pa.scalar(source.name), table.num_rows)), slim, named


def id_texts(name: str, ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The values of the id column as text.

    Raises:
        PipelineError: they have no text form: objects, lists, bytes that are no text.
    """
    try:
        return pc.cast(ids, pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise PipelineError(
            f"id: column '{name}' is {ids.type}, expected text or numbers; name another column, or leave `id` out to name rows by their content"
        ) from None


def view(store: WorkStore, source: IdentityOf) -> pa.Table:
    """The identity columns of an item, with the rows' addresses and the source's name."""
    slim = parts.table(store.folder(source.digest), "identity" if source.item < PUBLISHED else EXTRACT)
    if slim is None:
        return _VIEW.empty_table()
    n = slim.num_rows
    facts = {
        "source": pa.repeat(pa.scalar(source.source), n),
        "item": pa.repeat(pa.scalar(source.item), n),
        "row": np.arange(n),
    }
    empty = {field.name: pa.nulls(n, field.type) for field in _VIEW}
    known = {name: slim[name] for name in slim.column_names}
    return pa.table({**empty, **known, **facts}).select(_VIEW.names).cast(_VIEW)


_VIEW = pa.schema(
    [
        ("uid", pa.large_string()),
        ("name", pa.large_string()),  # of a published row, with its copy number
        ("high", pa.uint64()),
        ("low", pa.uint64()),
        ("key", pa.uint64()),
        ("source", pa.string()),
        ("item", pa.int64()),
        ("row", pa.int64()),
    ]
)


def resolver(*, by_id: bool) -> functools.partial[pa.Table]:
    """The reduce function for `exchange`: rows that share a uid to decisions (ROUTED)."""
    return functools.partial(resolve, by_id=by_id)


def resolve(table: pa.Table, *, by_id: bool) -> pa.Table:
    """Decisions for rows that share a uid; the first by (content hash, source, address) keeps it.

    Without an id column equal uids mean equal content: later ones are renamed UID~2, UID~3, ... With one, equal content is dropped as
    `duplicate_id` and different content is quarantined as `conflicting_id`. What then has the name of a published row is dropped as
    `already_published`.
    """
    values, counts = np.unique(table["key"].to_numpy(), return_counts=True)
    table = table.filter(pa.array(np.isin(table["key"].to_numpy(), values[counts > 1])))
    there = pc.greater_equal(table["item"], PUBLISHED)
    published, table = table.filter(there), table.filter(pc.invert(there))
    if not table.num_rows:
        return ROUTED.empty_table()
    table = table.sort_by([(name, "ascending") for name in ("key", "uid", "high", "low", "source", "item", "row")])
    uids = table["uid"].combine_chunks()
    same = np.concatenate([[False], pc.equal(uids[1:], uids[:-1]).to_numpy(zero_copy_only=False)])
    start = np.maximum.accumulate(np.where(same, 0, np.arange(len(same))))
    nth = np.arange(len(same)) - start
    names = uids if by_id else _numbered(uids, nth)
    shard = pc.take(published["item"], pc.index_in(names, value_set=published["name"].combine_chunks()))
    known = pc.is_valid(shard).to_numpy(zero_copy_only=False) & ((nth == 0) | (not by_id))
    other = nth.astype(bool) & ~known
    gone = _routed(
        table.filter(pa.array(known)),
        decisions.decide(
            uids.filter(pa.array(known)), "drop", "already_published", other_uid=names.filter(pa.array(known))
        ),
        shard=pc.subtract(shard.filter(pa.array(known)), PUBLISHED),
    )
    rows = table.filter(pa.array(other))
    if not by_id:
        return pa.concat_tables(
            [gone, _routed(rows, decisions.decide(rows["uid"], "edit", "repeated_row"), names.filter(pa.array(other)))]
        )
    high, low = table["high"].to_numpy(), table["low"].to_numpy()
    equal = ((high == high[start]) & (low == low[start]))[other]
    return pa.concat_tables([gone, _routed(rows, _repeated_ids(rows["uid"], equal))])


def _numbered(uids: pa.Array, nth: npt.NDArray[np.int64]) -> pa.Array:
    """UID, UID~2, UID~3, ..."""
    text = pc.binary_join_element_wise(
        uids, pc.cast(pa.array(nth + 1), pa.large_string()), pa.scalar("~", pa.large_string())
    )
    return pc.if_else(pa.array(nth == 0), uids, text)


def _repeated_ids(uids: pa.ChunkedArray, equal: npt.NDArray[np.bool_]) -> pa.Table:
    """Decisions for rows whose id another row has: `equal` says whether with the same content."""
    found = decisions.decide(uids, "drop", "", other_uid=uids)
    for name, yes, no in (("rule", "duplicate_id", "conflicting_id"), ("action", "drop", "quarantine")):
        place = found.schema.get_field_index(name)
        found = found.set_column(place, decisions.SCHEMA.field(name), pa.array(np.where(equal, yes, no)))
    return found


def _routed(rows: pa.Table, found: pa.Table, names: pa.Array | None = None, shard: pa.Array | None = None) -> pa.Table:
    renamed = pa.nulls(rows.num_rows, pa.large_string()) if names is None else names
    place = pa.nulls(rows.num_rows, pa.int64()) if shard is None else shard
    return pa.table([rows["item"], rows["row"], *found.columns, renamed, place], schema=ROUTED)
