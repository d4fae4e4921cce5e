"""Splits of rows that are added to published ones: a row joins the split of those it is linked to; one that links two splits leaves."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels.resolve import MIXED, NONE, settle
from gristmill.pipelines import parts
from gristmill.pipelines.assign import CODES, LEAVES, share_of
from gristmill.pipelines.compared import Compared
from gristmill.pipelines.components import EDGES, components
from gristmill.pipelines.duplicates import ids_of, routed
from gristmill.pipelines.engines.base import Engine
from gristmill.pipelines.exchange import Chunks, Part, exchange, spread, store_list, stored_list
from gristmill.pipelines.extracts import OLD, PUBLISHED, ROW_BITS, ExtractOf, catalog, store_catalog
from gristmill.pipelines.model import Split
from gristmill.pipelines.sketched import load_rows
from gristmill.pipelines.splits import linked_pairs
from gristmill.pipelines.work import WorkStore

I64 = npt.NDArray[np.int64]
I8 = npt.NDArray[np.int8]
RULE = "bridges_splits"


LINKS = pa.schema([*EDGES, pa.field("group", pa.uint64())])
"""Two rows that are linked, `left` a new one: by a group that both are in, or where that is null by being alike."""


@dataclass(frozen=True)
class Joined:
    """Where new rows go that are linked to others: the number of each one's split (CODES); decisions for those that leave (ROUTED)."""

    coded: list[Part]
    decided: list[Part]
    used: list[str]
    counts: dict[str, int]


def join_published(
    engine: Engine,
    store: WorkStore,
    split: Split,
    sketches: Sequence[ExtractOf],
    groups: Sequence[ExtractOf],
    shards: I8,
    *,
    compared: Compared,
) -> Joined:
    """Where the new rows go that are linked to others, by similarity or group. `shards`: the number of each published shard's split.

    Rows come in order of uid. One that is linked to rows of one split, published or come before it, goes there, and so do the rows that those
    are linked to; one that is linked to rows of two leaves, and links nothing. A cluster without a published row goes where the hash of its
    smallest uid says. So no link between two rows that stay crosses splits.

    Rows that links connect are brought together by `exchange` and settled there; what it does for some is all held in memory.
    """
    edges, used, counts = linked_pairs(engine, store, split, sketches, groups, group_links, compared=compared)
    stars, more = components(engine, store, edges, "linked to published")
    rows = sum(part.rows for part in edges)
    sources = [*[_Side(part, star=True) for part in stars], *[_Side(part, star=False) for part in edges]]
    labelled = exchange(engine, store, sources, _by_row, with_labels, size=rows * 80, name="labels of links")
    listed = [store_catalog(store, sketches), store_catalog(store, groups), store_list(store, shards.tolist())]
    results = []
    for what in ("splits", "bridges"):
        reduce = functools.partial(
            settled, sketches=listed[0], groups=listed[1], shards=listed[2], shares=dict(split.shares), what=what
        )
        results.append(exchange(engine, store, labelled.parts, _by_label, reduce, size=rows * 40, name="settled"))
    used = [*used, *more, *labelled.used, *listed, *results[0].used, *results[1].used]
    return Joined(results[0].parts, results[1].parts, used, counts)


def group_links(chunks: Chunks) -> Iterator[pa.Table]:
    """LINKS of each group that holds a new row and another one: from its first row to the others; of the published ones to the first of each shard."""
    found = list(chunks)
    if not found:
        return
    table = pa.concat_tables(found)
    keys, ids = table["key"].to_numpy(), table["id"].to_numpy()
    order = np.lexsort((ids, keys))
    keys, ids = keys[order], ids[order]
    starts = parts.runs(keys)
    first = np.repeat(ids[starts[:-1]], np.diff(starts))
    repeats = np.zeros(len(ids), bool)
    repeats[1:] = (keys[1:] == keys[:-1]) & (ids[1:] >> ROW_BITS == ids[:-1] >> ROW_BITS) & (ids[1:] >= OLD)
    linked = (first < OLD) & (first != ids) & ~repeats
    yield pa.table([first[linked], ids[linked], keys[linked]], schema=LINKS)


@dataclass(frozen=True)
class _Side:
    """Stars of components, or links: both are inputs of one exchange."""

    part: Part
    star: bool

    @property
    def digest(self) -> str:
        return f"{self.star}:{self.part.digest}"


def _by_row(store: WorkStore, side: _Side) -> Iterator[pa.Table]:
    """key (of the row), left, right, group, star: a star's rows from the row whose component it tells, links from their new row."""
    for table in side.part.tables(store):
        group = table["group"] if "group" in table.column_names else pa.nulls(table.num_rows, pa.uint64())
        key = spread(table["right" if side.star else "left"].to_numpy())
        star = pa.repeat(pa.scalar(side.star), table.num_rows)
        yield pa.table({"left": table["left"], "right": table["right"], "group": group, "key": key, "star": star})


def with_labels(chunks: Chunks) -> Iterator[pa.Table]:
    """LINKS with the label of the component: its smallest row."""
    stars = [table.filter(table["star"]).select(["left", "right"]) for table in chunks]
    if not stars:
        return
    every = pa.concat_tables(stars).sort_by("right")
    rows, labels = every["right"].to_numpy(), every["left"].to_numpy()
    for table in chunks:
        links = table.filter(pc.invert(table["star"])).select(LINKS.names)
        left = links["left"].to_numpy()
        place = np.minimum(np.searchsorted(rows, left), max(len(rows) - 1, 0))
        known = rows[place] == left if len(rows) else np.zeros(len(left), bool)
        label = left.copy()
        label[known] = labels[place[known]]
        yield links.append_column("label", pa.array(label))


def _by_label(store: WorkStore, links: Part) -> Iterator[pa.Table]:
    for table in links.tables(store):
        yield table.append_column("key", pa.array(spread(table["label"].to_numpy())))


def settled(
    chunks: Chunks, *, sketches: str, groups: str, shards: str, shares: Mapping[str, float], what: str
) -> Iterator[pa.Table]:
    """CODES of the new rows of some whole components, or ROUTED decisions for those that leave. sketches, groups: catalogs; shards: a list's key."""
    found, store = list(chunks), chunks.store
    if not found:
        return
    assert store is not None
    codes_of = np.array(stored_list(store, shards), np.int8)
    links = Links.of(store, pa.concat_tables(found), (catalog(store, sketches), catalog(store, groups)), codes_of)
    ids, codes = _joined(links, shares)
    if what == "splits":
        columns = [ids >> ROW_BITS, ids & ((1 << ROW_BITS) - 1), np.maximum(codes, LEAVES)]
        yield pa.table(columns, schema=CODES)
    elif (codes == MIXED).any():
        yield _bridges(links, ids, codes, ids[codes == MIXED])


MEMBERS = pa.schema([("key", pa.uint64()), ("id", pa.int64())])


@dataclass(frozen=True)
class Links:
    """What some new rows are linked to.

    pairs: left, right, ids of two rows that are alike, left a new one. members: key, id of the rows of groups that hold a new one. sketches,
    groups: the extracts by item. shards: the number of each published shard's split.
    """

    store: WorkStore
    pairs: pa.Table
    members: pa.Table
    sketches: Mapping[int, ExtractOf]
    groups: Mapping[int, ExtractOf]
    shards: I8

    @staticmethod
    def of(
        store: WorkStore, links: pa.Table, extracts: tuple[Mapping[int, ExtractOf], Mapping[int, ExtractOf]], shards: I8
    ) -> Links:
        """From LINKS; extracts: sketches and groups."""
        grouped = links.filter(pc.is_valid(links["group"]))
        keys, left, right = (grouped[name].to_numpy() for name in ("group", "left", "right"))
        every = pa.table([np.concatenate([keys, keys]), np.concatenate([left, right])], schema=MEMBERS)
        members = every.group_by(["key", "id"]).aggregate([]).select(MEMBERS.names)
        return Links(store, links.filter(pc.is_null(links["group"])).select(EDGES.names), members, *extracts, shards)

    def published(self, ids: I64) -> I8:
        """The number of each published row's split."""
        return self.shards[(ids >> ROW_BITS) - PUBLISHED] if len(ids) else np.zeros(0, np.int8)

    def uids(self, ids: I64) -> pa.ChunkedArray:
        """The uids of linked rows, whose ids are sorted: from the sketches of those that are alike, else from the groups."""
        alike = np.isin(ids, np.concatenate([self.pairs["left"].to_numpy(), self.pairs["right"].to_numpy()]))
        found = [pa.table({"id": pa.array([], pa.int64()), "uid": pa.array([], pa.large_string())})]
        for chosen, sources in ((ids[alike], self.sketches), (ids[~alike], self.groups)):
            if len(chosen):
                table = load_rows(self.store, sources, chosen, ["row", "uid"])
                found.append(pa.table({"id": ids_of(table), "uid": table["uid"]}))
        return pa.concat_tables(found).sort_by("id")["uid"]


def _joined(links: Links, shares: Mapping[str, float]) -> tuple[I64, I8]:
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
