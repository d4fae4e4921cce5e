"""Exact and near duplicates: which rows leave, and which kept row each of them duplicates."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels.minhash import band_keys, bands
from gristmill.kernels.resolve import components, resolve
from gristmill.pipelines import decisions, parts
from gristmill.pipelines.engines.base import Engine
from gristmill.pipelines.exchange import exchange
from gristmill.pipelines.extracts import PUBLISHED, ExtractOf
from gristmill.pipelines.sketched import load_rows, load_sets, set_sizes, signature_matrix
from gristmill.pipelines.slices import ROUTED
from gristmill.pipelines.steps.dedupe import DropExactDuplicates, DropNearDuplicates
from gristmill.pipelines.work import WorkStore, finish, key_of

U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
SURVIVOR_ORDER = [("rank", "ascending"), ("quality", "descending"), ("uid", "ascending")]
BATCH_BYTES = 64 << 20  # shingle sets resolved at a time
ROW_BITS = 40  # a row's number within the run: item << ROW_BITS | row


@dataclass
class Found:
    """What a wide step decided: ROUTED decisions, the work it used, and counts for the report."""

    decided: pa.Table
    used: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def exact_duplicates(
    engine: Engine, store: WorkStore, step: DropExactDuplicates, sources: Sequence[ExtractOf]
) -> Found:
    """Decisions for every row but the survivor of each group with the same text."""
    size = sum(_rows(store, source) for source in sources) * 96
    tables, used = exchange(engine, store, sources, _exact_view, exact_groups, size=size, name=step.step)
    return Found(pa.concat_tables(tables) if tables else ROUTED.empty_table(), used)


def near_duplicates(engine: Engine, store: WorkStore, step: DropNearDuplicates, sources: Sequence[ExtractOf]) -> Found:
    """Decisions for every row that is verified similar to a kept one.

    Rows that share a band are joined into components through `exchange`; the components, packed into batches of bounded size, are then
    resolved each on its own: no decision needs a row outside its component.
    """
    count, width = bands(step.threshold, step.permutations)
    size = sum(_rows(store, source) for source in sources) * count * 16
    view = functools.partial(band_view, count=count, width=width)
    tables, used = exchange(engine, store, sources, view, bucket_edges, size=size, name=f"{step.step} {count}x{width}")
    edges = pa.concat_tables(tables) if tables else EDGES.empty_table()
    tasks = list(_batches(store, step, sources, edges, count, width))
    summaries = finish(engine, resolve_batch, tasks)
    found = [parts.read(store.folder(task.key) / "decided.arrow") for task in tasks]
    counts = {"candidate_rows": 0, "comparisons": 0, "comparisons_left_out": 0}
    for summary in summaries:
        for name, value in summary.items():
            counts[name] += value
    return Found(
        pa.concat_tables(found) if found else ROUTED.empty_table(), [*used, *[task.key for task in tasks]], counts
    )


def _rows(store: WorkStore, source: ExtractOf) -> int:
    return int((store.done(source.key) or {}).get("rows_out", 0))


def _exact_view(store: WorkStore, source: ExtractOf) -> pa.Table:
    return source.read(store, ["row", "uid", "rank", "quality", "high", "low", "key"])


def exact_groups(table: pa.Table) -> pa.Table:
    """Decisions for every row but the first in survivor order of those with equal hashes; published rows stay."""
    keys = table["key"].to_numpy()
    values, counts = np.unique(keys, return_counts=True)
    table = table.filter(pa.array(np.isin(keys, values[counts > 1])))
    table = table.sort_by([("key", "ascending"), ("high", "ascending"), *SURVIVOR_ORDER])
    key, high = table["key"].to_numpy(), table["high"].to_numpy()
    same = np.zeros(len(key), bool)
    same[1:] = (key[1:] == key[:-1]) & (high[1:] == high[:-1])
    kept = np.maximum.accumulate(np.where(same, 0, np.arange(len(same)))) if len(same) else np.zeros(0, np.int64)
    leaving = np.flatnonzero(same & (table["item"].to_numpy() < PUBLISHED))
    others = table.take(pa.array(kept[leaving]))
    return routed(table.take(pa.array(leaving)), "exact_duplicate", others, np.ones(len(leaving)), None)


def routed(
    rows: pa.Table, rule: str, others: pa.Table, similarity: npt.NDArray[np.float64] | None, threshold: float | None
) -> pa.Table:
    """Drop decisions (ROUTED) for rows that have item, row and uid, each beside the other row that is the reason."""
    found = decisions.decide(
        rows["uid"], "drop", rule, threshold=threshold, other_uid=others["uid"], similarity=similarity
    )
    items = others["item"].to_numpy()
    shard = pa.array(items - PUBLISHED, mask=items < PUBLISHED)
    renamed = pa.nulls(rows.num_rows, pa.large_string())
    return pa.table([rows["item"], rows["row"], *found.columns, renamed, shard], schema=ROUTED)


EDGES = pa.schema([("left", pa.int64()), ("right", pa.int64())])
"""Two rows that belong together, by their ids."""


def band_view(store: WorkStore, source: ExtractOf, *, count: int, width: int) -> pa.Table:
    """key, id: a line for each row and band."""
    found = source.read(store, ["row", "signature"])
    if not found.num_rows:
        return pa.schema([("key", pa.uint64()), ("id", pa.int64())]).empty_table()
    keys = band_keys(signature_matrix(found), count, width)
    ids = (np.int64(source.item) << ROW_BITS) | found["row"].to_numpy()
    return pa.table({"key": keys.reshape(-1), "id": np.repeat(ids, count)})


def bucket_edges(table: pa.Table) -> pa.Table:
    """left, right: each row of a bucket joined to the bucket's first row. Enough for components; what is similar is found later.

    A bucket of nothing but published rows, whose numbers are the highest, joins none.
    """
    keys, ids = table["key"].to_numpy(), table["id"].to_numpy()
    order = np.lexsort((ids, keys))
    keys, ids = keys[order], ids[order]
    same = np.zeros(len(keys), bool)
    same[1:] = keys[1:] == keys[:-1]
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(same)))) if len(same) else np.zeros(0, np.int64)
    same &= ids[first] < PUBLISHED << ROW_BITS
    pairs = np.unique(np.stack([ids[first[same]], ids[same]], axis=1), axis=0)
    return pa.table({"left": pairs[:, 0], "right": pairs[:, 1]})


def join_components(edges: pa.Table) -> tuple[I64, I64]:
    """(the ids that have an edge, sorted; for each the smallest id of its component)."""
    left, right = edges["left"].to_numpy(), edges["right"].to_numpy()
    ids = np.unique(np.concatenate([left, right]))
    labels = components(np.searchsorted(ids, left), np.searchsorted(ids, right), len(ids))
    return ids, ids[labels]


@dataclass(frozen=True)
class ResolveBatch:
    """Some whole components: the rows in them by item, as (extract, row numbers)."""

    store: WorkStore
    key: str
    step: DropNearDuplicates
    bands: int
    width: int
    members: tuple[tuple[ExtractOf, Any], ...]

    def __str__(self) -> str:
        return f"{self.step.step}: {sum(len(rows) for _, rows in self.members)} candidate rows"


def _batches(
    store: WorkStore, step: DropNearDuplicates, sources: Sequence[ExtractOf], edges: pa.Table, count: int, width: int
) -> Iterator[ResolveBatch]:
    ids, labels = join_components(edges)
    sizes = np.zeros(len(ids), np.int64)
    by_item = {source.item: source for source in sources}
    items = ids >> ROW_BITS
    for item in np.unique(items):
        here = items == item
        sizes[here] = 4 * set_sizes(store, by_item[int(item)], ids[here] & ((1 << ROW_BITS) - 1))
    order = np.argsort(labels, kind="stable")
    starts = parts.runs(labels[order].astype(np.uint64))
    cut = np.cumsum(np.add.reduceat(sizes[order], starts[:-1])) // BATCH_BYTES if len(ids) else np.zeros(0, np.int64)
    for batch in np.unique(cut):
        groups = np.flatnonzero(cut == batch)
        chosen = np.sort(ids[order[starts[groups[0]] : starts[groups[-1] + 1]]])
        members = []
        for item in np.unique(chosen >> ROW_BITS):
            rows = chosen[chosen >> ROW_BITS == item] & ((1 << ROW_BITS) - 1)
            members.append((by_item[int(item)], rows))
        facts = [[source.digest, rows.tobytes()] for source, rows in members]
        yield ResolveBatch(store, key_of("resolve", step, count, width, facts), step, count, width, tuple(members))


def resolve_batch(task: ResolveBatch) -> dict[str, Any]:
    """Writes the decisions for the batch."""
    slim = load_rows(task.store, task.members, ["row", "uid", "rank", "quality", "signature"])
    order = pc.sort_indices(slim, SURVIVOR_ORDER)
    sets = load_sets(task.store, task.members, order.to_numpy().astype(np.int64))
    decided, counts = decide_near(slim.take(order), sets, task.step, task.bands, task.width)
    with task.store.create(task.key) as (folder, summary):
        parts.write(folder / "decided.arrow", decided)
        summary.update(counts)
    return summary


def decide_near(
    table: pa.Table, sets: tuple[U32, I64], step: DropNearDuplicates, count: int, width: int
) -> tuple[pa.Table, dict[str, int]]:
    """(drop decisions, counts) for sketches and their shingle sets in survivor order; published rows, which are the first in it, stay."""
    values, offsets = sets
    keys = band_keys(signature_matrix(table), count, width)
    pinned = int((table["item"].to_numpy() >= PUBLISHED).sum())
    result = resolve(keys, values, offsets, step.threshold, step.max_bucket, pinned)
    leaving = np.flatnonzero(result.kept_by >= 0)
    rows = table.select(["item", "row", "uid"])
    decided = routed(
        rows.take(pa.array(leaving)),
        "near_duplicate",
        rows.take(pa.array(result.kept_by[leaving])),
        result.similarity[leaving],
        step.threshold,
    )
    counts = {
        "candidate_rows": table.num_rows,
        "comparisons": result.comparisons,
        "comparisons_left_out": result.capped,
    }
    return decided, counts
