"""Row identity: `_uid` is the user's id, else the hash of the row's content; what happens to repeated ones is decided here."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import PipelineError
from gristmill.kernels.digests import row_digests
from gristmill.kernels.hashing import hash_text, hex_digests
from gristmill.pipelines import decisions, parts
from gristmill.pipelines.exchange import Chunks
from gristmill.pipelines.extracts import PUBLISHED
from gristmill.pipelines.grouped import among, first_of_each, heads, place_in, repeated
from gristmill.pipelines.published import EXTRACT
from gristmill.pipelines.slices import ROUTED
from gristmill.pipelines.sources.base import RESERVED, Source
from gristmill.pipelines.work import WorkStore


@dataclass(frozen=True)
class IdentityOf:
    """The identity file of one ingested item, or the uids of a published shard: what `exchange` reads."""

    item: int
    key: str  # the item's work key
    source: str

    @property
    def digest(self) -> str:
        """What the content of `view` depends on: the item's number too, which is another one when files come or go before it."""
        return f"{self.item}:{self.key}"

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


def view(store: WorkStore, source: IdentityOf) -> Iterator[pa.Table]:
    """The identity columns of an item, with the rows' addresses and the source's name."""
    start = 0
    for slim in parts.batches(store.folder(source.key), "identity" if source.item < PUBLISHED else EXTRACT):
        n = slim.num_rows
        facts = {
            "source": pa.repeat(pa.scalar(source.source), n),
            "item": pa.repeat(pa.scalar(source.item), n),
            "row": np.arange(start, start + n),
        }
        empty = {field.name: pa.nulls(n, field.type) for field in _VIEW}
        known = {name: slim[name] for name in slim.column_names}
        yield pa.table({**empty, **known, **facts}).select(_VIEW.names).cast(_VIEW)
        start += n


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


ORDER = [(name, "ascending") for name in ("high", "low", "source", "item", "row")]
"""Of rows that share a uid the first by these keeps it."""


def in_order(sources: Sequence[IdentityOf]) -> list[IdentityOf]:
    """The inputs in the order in which repeated rows are numbered."""
    return sorted(sources, key=lambda source: (source.source, source.item))


def resolver(*, by_id: bool) -> functools.partial[Iterator[pa.Table]]:
    """The reduce function for `exchange`: rows that share a uid to decisions (ROUTED). Inputs must come `in_order`.

    The first row by (content hash, source, address) keeps the uid. Without an id column equal uids mean equal content: later ones are renamed
    UID~2, UID~3, ... With one, equal content is dropped as `duplicate_id` and different content is quarantined as `conflicting_id`. What then
    has the name of a published row is dropped as `already_published`.
    """
    return functools.partial(resolve, by_id=by_id)


def resolve(chunks: Chunks, *, by_id: bool) -> Iterator[pa.Table]:
    """See `resolver`. Holds the names of the published rows whose uids come again."""
    keys, _ = repeated(chunks)
    if not len(keys):
        return
    every = Chunks(chunks.store, lambda: (among(table, keys) for table in chunks))
    there = [table.filter(pc.greater_equal(table["item"], PUBLISHED)).select(["name", "item"]) for table in every]
    published = pa.concat_tables(there).combine_chunks()
    new = Chunks(chunks.store, lambda: (table.filter(pc.less(table["item"], PUBLISHED)) for table in every))
    yield from _repeated_ids(new, published) if by_id else _repeated_rows(new, published)


def _repeated_rows(chunks: Chunks, published: pa.Table) -> Iterator[pa.Table]:
    """Names for the second and later rows of each uid; their content is the same, so the first is the first that comes."""
    seen, counts = pa.array([], pa.large_string()), np.zeros(0, np.int64)
    for table in chunks:
        rows = table.sort_by("uid")  # stable
        starts = np.flatnonzero(heads(rows, ["uid"]))
        lengths = np.diff(np.append(starts, rows.num_rows))
        uids = rows["uid"].combine_chunks()
        groups = uids.take(pa.array(starts))
        place = pc.fill_null(pc.index_in(groups, value_set=seen), -1).to_numpy()
        known = place >= 0
        before = np.zeros(len(groups), np.int64)
        before[known] = counts[place[known]]
        nth = np.arange(rows.num_rows) - np.repeat(starts - before, lengths)
        counts[place[known]] += lengths[known]
        seen, counts = pa.concat_arrays([seen, groups.filter(pa.array(~known))]), np.append(counts, lengths[~known])
        names = _numbered(uids, nth)
        gone, items = _already(published, names)
        yield _dropped(rows, names, gone, items)
        later = pa.array((nth > 0) & ~gone)
        renamed = rows.filter(later)
        yield _routed(renamed, decisions.decide(renamed["uid"], "edit", "repeated_row"), names.filter(later))


def _numbered(uids: pa.Array, nth: npt.NDArray[np.int64]) -> pa.Array:
    """UID, UID~2, UID~3, ..."""
    text = pc.binary_join_element_wise(
        uids, pc.cast(pa.array(nth + 1), pa.large_string()), pa.scalar("~", pa.large_string())
    )
    return pc.if_else(pa.array(nth == 0), uids, text)


def _repeated_ids(chunks: Chunks, published: pa.Table) -> Iterator[pa.Table]:
    """Decisions for every row but the first of each id, and for that one if it is published already."""
    kept = first_of_each(chunks, ["key", "uid"], ORDER)
    if kept is None:
        return
    for table in chunks:
        own = kept.take(pa.array(place_in(kept, table, ["key", "uid"])))
        same = {name: table[name].to_numpy() == own[name].to_numpy() for name in ("item", "row", "high", "low")}
        first = same["item"] & same["row"]
        uids = table["uid"].combine_chunks()
        there, items = _already(published, uids)
        yield _dropped(table, uids, there & first, items)
        rows = table.filter(pa.array(~first))
        found = decisions.decide(rows["uid"], "drop", "", other_uid=rows["uid"])
        equal = (same["high"] & same["low"])[~first]
        for name, yes, no in (("rule", "duplicate_id", "conflicting_id"), ("action", "drop", "quarantine")):
            values = pa.array(np.where(equal, yes, no), pa.string())
            found = found.set_column(found.schema.get_field_index(name), decisions.SCHEMA.field(name), values)
        yield _routed(rows, found)


def _already(published: pa.Table, names: pa.Array) -> tuple[npt.NDArray[np.bool_], pa.Array]:
    """(which of the names are of published rows; the items of these, null for the others)."""
    place = pc.index_in(names, value_set=published["name"].combine_chunks())
    items = pc.take(published["item"].combine_chunks(), place)
    return pc.is_valid(items).to_numpy(zero_copy_only=False), items


def _dropped(rows: pa.Table, names: pa.Array, gone: npt.NDArray[np.bool_], items: pa.Array) -> pa.Table:
    """Decisions for the rows that are gone: of this name there is a published one."""
    some = pa.array(gone)
    found = decisions.decide(rows["uid"].filter(some), "drop", "already_published", other_uid=names.filter(some))
    return _routed(rows.filter(some), found, shard=pc.subtract(items.filter(some), PUBLISHED))


def _routed(rows: pa.Table, found: pa.Table, names: pa.Array | None = None, shard: pa.Array | None = None) -> pa.Table:
    renamed = pa.nulls(rows.num_rows, pa.large_string()) if names is None else names
    place = pa.nulls(rows.num_rows, pa.int64()) if shard is None else shard
    return pa.table([rows["item"], rows["row"], *found.columns, renamed, place], schema=ROUTED)
