"""Splits of rows that are added to published ones: a row joins the split of those it is linked to; one that links two splits leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels.resolve import MIXED, NONE, settle
from gristmill.pipelines import parts
from gristmill.pipelines.assign import CODES, LEAVES, share_of
from gristmill.pipelines.components import EDGES
from gristmill.pipelines.duplicates import routed, rows_of
from gristmill.pipelines.engines.base import Engine
from gristmill.pipelines.exchange import Chunks, Part, exchange, read_parts
from gristmill.pipelines.extracts import OLD, PUBLISHED, ROW_BITS, ExtractOf
from gristmill.pipelines.model import Split
from gristmill.pipelines.sketched import load_rows
from gristmill.pipelines.slices import ROUTED
from gristmill.pipelines.splits import group_view, similar_pairs
from gristmill.pipelines.work import WorkStore

I64 = npt.NDArray[np.int64]
I8 = npt.NDArray[np.int8]
RULE = "bridges_splits"


@dataclass(frozen=True)
class Joined:
    """New rows that are linked to others: the number of each one's split (CODES); decisions for those that leave (ROUTED)."""

    coded: Part
    decided: pa.Table
    used: list[str]
    counts: dict[str, int]


@dataclass(frozen=True)
class Links:
    """What the new rows are linked to.

    pairs: left, right, ids of two rows that are alike, left a new one. members: key, id of the rows of groups that hold a new one. sketches,
    groups: the extracts by item. shards: the number of each published shard's split.
    """

    store: WorkStore
    pairs: pa.Table
    members: pa.Table
    sketches: Mapping[int, ExtractOf]
    groups: Mapping[int, ExtractOf]
    shards: I8

    def published(self, ids: I64) -> I8:
        """The number of each published row's split."""
        return self.shards[(ids >> ROW_BITS) - PUBLISHED] if len(ids) else np.zeros(0, np.int8)

    def uids(self, ids: I64) -> pa.ChunkedArray:
        """The uids of linked rows, whose ids are sorted: from the sketches of those that are alike, else from the groups."""
        alike = np.isin(ids, np.concatenate([self.pairs["left"].to_numpy(), self.pairs["right"].to_numpy()]))
        found = [pa.table({"id": pa.array([], pa.int64()), "uid": pa.array([], pa.large_string())})]
        for chosen, sources in ((ids[alike], self.sketches), (ids[~alike], self.groups)):
            if len(chosen):
                items, starts = np.unique(chosen >> ROW_BITS, return_index=True)
                rows = np.split(chosen & ((1 << ROW_BITS) - 1), starts[1:])
                members = [(sources[int(item)], some) for item, some in zip(items, rows, strict=True)]
                table = load_rows(self.store, members, ["row", "uid"])
                numbers = (table["item"].to_numpy() << ROW_BITS) | table["row"].to_numpy()
                found.append(pa.table({"id": numbers, "uid": table["uid"]}))
        return pa.concat_tables(found).sort_by("id")["uid"]


def join_published(
    engine: Engine,
    store: WorkStore,
    split: Split,
    sketches: Sequence[ExtractOf],
    groups: Sequence[ExtractOf],
    shards: I8,
) -> Joined:
    """Where the new rows go that are linked to others, by similarity or group. `shards`: the number of each published shard's split.

    Rows come in order of uid. One that is linked to rows of one split, published or come before it, goes there, and so do the rows that those
    are linked to; one that is linked to rows of two leaves, and links nothing. A cluster without a published row goes where the hash of its
    smallest uid says. So no link between two rows that stay crosses splits.
    """
    used: list[str] = []
    counts: dict[str, int] = {}
    pairs, members = EDGES.empty_table(), MEMBERS.empty_table()
    if split.similarity is not None and sketches:
        linked, used, counts = similar_pairs(engine, store, split, sketches)
        pairs = read_parts(store, linked, EDGES)
    if groups:
        size = rows_of(store, groups) * 16
        found = exchange(engine, store, groups, group_view, group_members, size=size, name="members")
        used, members = [*used, *found.used], read_parts(store, found.parts, MEMBERS)
    by_item = [{source.item: source for source in sources} for sources in (sketches, groups)]
    links = Links(store, pairs, members, by_item[0], by_item[1], shards)
    ids, codes = _joined(links, split.shares)
    leaving = ids[codes == MIXED]
    decided = _bridges(links, ids, codes, leaving) if len(leaving) else ROUTED.empty_table()
    columns = [ids >> ROW_BITS, ids & ((1 << ROW_BITS) - 1), np.maximum(codes, LEAVES)]
    coded = Part(len(ids), held=pa.table(columns, schema=CODES))
    return Joined(coded, decided, used, counts)


MEMBERS = pa.schema([("key", pa.uint64()), ("id", pa.int64())])


def group_members(chunks: Chunks) -> Iterator[pa.Table]:
    """MEMBERS: the rows of each group that holds a new row and another one; of the published ones the first of each shard."""
    found = list(chunks)
    if not found:
        return
    table = pa.concat_tables(found)
    keys, ids = table["key"].to_numpy(), table["id"].to_numpy()
    order = np.lexsort((ids, keys))
    keys, ids = keys[order], ids[order]
    starts = parts.runs(keys)
    lengths = np.diff(starts)
    shared = np.repeat((lengths > 1) & (ids[starts[:-1]] < OLD), lengths) if len(ids) else np.zeros(0, bool)
    repeats = np.zeros(len(ids), bool)
    repeats[1:] = (keys[1:] == keys[:-1]) & (ids[1:] >> ROW_BITS == ids[:-1] >> ROW_BITS) & (ids[1:] >= OLD)
    yield pa.table([keys[shared & ~repeats], ids[shared & ~repeats]], schema=MEMBERS)


def _joined(links: Links, shares: dict[str, float]) -> tuple[I64, I8]:
    """(the ids of the linked new rows, sorted; the number of each one's split, MIXED for one that leaves)."""
    left, right = links.pairs["left"].to_numpy(), links.pairs["right"].to_numpy()
    keys, group = np.unique(links.members["key"].to_numpy(), return_inverse=True)
    member = links.members["id"].to_numpy()
    new, old = right < OLD, member >= OLD
    ids = np.unique(np.concatenate([left, right[new], member[~old]]))
    names = links.uids(ids)
    order = pc.sort_indices(names).to_numpy().astype(np.int64)
    place = np.empty(len(ids), np.int64)  # of each row in order of uid
    place[order] = np.arange(len(ids))

    def at(some: I64) -> I64:
        return place[np.searchsorted(ids, some)]

    row_label = _labels(at(left[~new]), links.published(right[~new]), len(ids))
    group_label = _labels(group[old], links.published(member[old]), len(keys))
    label, root = settle((at(left[new]), at(right[new])), (at(member[~old]), group[~old]), row_label, group_label)
    fresh = share_of(names.take(pa.array(order[root])), shares)
    return ids, np.where(label == NONE, fresh, label).astype(np.int8)[place]


def _labels(nodes: I64, codes: I8, count: int) -> I8:
    """For each node the one code it is given, NONE or MIXED."""
    low, high = np.full(count, 127, np.int8), np.full(count, -1, np.int8)
    np.minimum.at(low, nodes, codes)
    np.maximum.at(high, nodes, codes)
    return np.where(high < 0, NONE, np.where(low == high, high, MIXED)).astype(np.int8)


def _bridges(links: Links, ids: I64, codes: I8, leaving: I64) -> pa.Table:
    """Decisions for the rows that leave: for each split that it is linked to one, naming the row with the smallest uid there."""
    left, right = links.pairs["left"].to_numpy(), links.pairs["right"].to_numpy()
    mine = links.members.filter(pa.array(np.isin(links.members["id"].to_numpy(), leaving)))
    both = mine.rename_columns(["key", "row"]).join(links.members, "key", join_type="inner")
    row = np.concatenate([left, right, both["row"].to_numpy()])
    other = np.concatenate([right, left, both["id"].to_numpy()])
    here = np.isin(row, leaving)
    row, other = row[here], other[here]
    code = np.full(len(other), MIXED, np.int8)
    code[other >= OLD] = links.published(other[other >= OLD])
    code[other < OLD] = codes[np.searchsorted(ids, other[other < OLD])]
    row, other, code = row[code >= 0], other[code >= 0], code[code >= 0]
    every = np.union1d(row, other)
    names = links.uids(every)
    table = pa.table({"row": row, "other": other, "code": code})
    table = table.append_column("name", names.take(pa.array(np.searchsorted(every, other))))
    table = table.sort_by([("row", "ascending"), ("code", "ascending"), ("name", "ascending")])
    row, code = table["row"].to_numpy(), table["code"].to_numpy()
    first = np.ones(len(row), bool)
    first[1:] = (row[1:] != row[:-1]) | (code[1:] != code[:-1])

    def named(some: I64) -> pa.Table:
        uids = names.take(pa.array(np.searchsorted(every, some)))
        return pa.table({"item": some >> ROW_BITS, "row": some & ((1 << ROW_BITS) - 1), "uid": uids})

    return routed(named(row[first]), RULE, named(table["other"].to_numpy()[first]), None, None)
