"""Exact and near duplicates: which rows leave, and which kept row each of them duplicates."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels.minhash import band_keys, bands
from gristmill.kernels.resolve import resolve
from gristmill.kernels.tally import Tally
from gristmill.pipelines import decisions, parts
from gristmill.pipelines.components import EDGES, components
from gristmill.pipelines.engines.base import Engine
from gristmill.pipelines.exchange import Chunks, Part, exchange, spread
from gristmill.pipelines.extracts import OLD, PUBLISHED, ROW_BITS, ExtractOf, catalog, digests_of, store_catalog
from gristmill.pipelines.grouped import among, distinct_pairs, first_of_each, place_in, repeated
from gristmill.pipelines.sketched import Chosen, choose, signature_matrix
from gristmill.pipelines.slices import ROUTED
from gristmill.pipelines.steps.dedupe import DropExactDuplicates, DropNearDuplicates
from gristmill.pipelines.work import WorkStore, finish, key_of

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
SURVIVOR_ORDER = [("rank", "ascending"), ("quality", "descending"), ("uid", "ascending")]
BATCH_BYTES = 128 << 20  # shingle sets in memory at a time; those of a larger component are in a file


@dataclass
class Found:
    """What a wide step decided: ROUTED decisions, the work it used, and counts for the report."""

    decided: list[Part]
    used: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def exact_duplicates(
    engine: Engine, store: WorkStore, step: DropExactDuplicates, sources: Sequence[ExtractOf]
) -> Found:
    """Decisions for every row but the survivor of each group with the same text."""
    size = rows_of(store, sources) * 96
    found = exchange(engine, store, sources, _exact_view, exact_groups, size=size, name=step.step)
    return Found(found.parts, found.used, {"largest_group": found.notes.get("largest_group", 0)})


def near_duplicates(engine: Engine, store: WorkStore, step: DropNearDuplicates, sources: Sequence[ExtractOf]) -> Found:
    """Decisions for every row that is verified similar to a kept one.

    Rows that share a band are joined into components through `exchange`; whole components, in batches of bounded size, are then resolved each on
    its own: no decision needs a row outside its component.
    """
    count, width = bands(step.threshold, step.permutations)
    view = functools.partial(band_view, count=count, width=width)
    size = rows_of(store, sources) * count * 16
    edges = exchange(engine, store, sources, view, bucket_edges, size=size, name=f"{step.step} {count}x{width}")
    stars, used = components(engine, store, edges.parts, step.step)
    rows = sum(part.rows for part in stars)
    each = _batch_rows(store, sources)
    members = exchange(
        engine,
        store,
        stars,
        by_component,
        component_members,
        size=rows * 24,
        partitions=-(-rows // each),
        name=step.step,
    )
    tasks = _batches(store, step, sources, members.parts, each)
    summaries = finish(engine, resolve_batch, tasks)
    counts = {"candidate_rows": 0, "comparisons": 0, "comparisons_left_out": 0}
    for summary in summaries:
        for name in counts:
            counts[name] += summary[name]
    for notes in (edges.notes, members.notes):
        counts.update(notes)
    decided = [Part(summary["decided"], task.key, "decided") for task, summary in zip(tasks, summaries, strict=True)]
    work = [*edges.used, *used, *members.used, *[key for task in tasks for key in (task.key, task.extracts)]]
    return Found(decided, work, counts)


def rows_of(store: WorkStore, sources: Sequence[ExtractOf]) -> int:
    """Of all items, before rows left by slices."""
    return sum(int((found or {}).get("rows_out", 0)) for found in store.summaries([each.key for each in sources]))


def _batch_rows(store: WorkStore, sources: Sequence[ExtractOf]) -> int:
    """How many rows have sketches of about BATCH_BYTES: a power of two, so that batches stay as they were where new rows change the average a little."""
    total = rows = 0
    for source, found in zip(sources, store.summaries([each.key for each in sources]), strict=True):
        summary = found or {}
        total += summary.get("extract_bytes", {}).get(source.name, 0)
        rows += summary.get("rows_out", 0)
    most = BATCH_BYTES // max(1, total // max(rows, 1))
    return 1 << max(0, most.bit_length() - 1)


def _exact_view(store: WorkStore, source: ExtractOf) -> Iterator[pa.Table]:
    return source.tables(store, ["row", "uid", "rank", "quality", "high", "key"])


def exact_groups(chunks: Chunks) -> Iterator[pa.Table]:
    """Decisions for every row but the first in survivor order of those with equal hashes; published rows stay. Notes `largest_group`: its rows."""
    keys, most = repeated(chunks)
    chunks.note(largest_group=most)
    some = Chunks(chunks.store, lambda: (among(table, keys) for table in chunks))
    kept = first_of_each(some, ["key", "high"], SURVIVOR_ORDER)
    if kept is None:
        return
    for table in some:
        own = kept.take(pa.array(place_in(kept, table, ["key", "high"])))
        same = (own["item"].to_numpy() == table["item"].to_numpy()) & (own["row"].to_numpy() == table["row"].to_numpy())
        leaving = pa.array(~same & (table["item"].to_numpy() < PUBLISHED))
        rows = table.filter(leaving)
        yield routed(rows, "exact_duplicate", own.filter(leaving), np.ones(rows.num_rows), None)


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


def band_view(store: WorkStore, source: ExtractOf, *, count: int, width: int) -> Iterator[pa.Table]:
    """key, id: a line for each row and band."""
    for table in source.tables(store, ["row", "signature"]):
        keys = band_keys(signature_matrix(table), count, width)
        yield pa.table({"key": keys.reshape(-1), "id": np.repeat(ids_of(table), count)})


def ids_of(table: pa.Table) -> I64:
    """The rows' numbers within the run."""
    ids: I64 = (table["item"].to_numpy() << ROW_BITS) | table["row"].to_numpy()
    return ids


def bucket_edges(chunks: Chunks) -> Iterator[pa.Table]:
    """EDGES: each row of a bucket joined to the bucket's smallest. Enough for components; what is similar is found later.

    A bucket of nothing but published rows, whose numbers are the highest, joins none. Notes `largest_bucket`: its rows.
    """
    tally = Tally()
    for table in chunks:
        tally.add(table["key"].to_numpy(), table["id"].to_numpy())
    chunks.note(largest_bucket=tally.most)
    for table in chunks:
        ids = table["id"].to_numpy()
        _, centre = tally.find(table["key"].to_numpy())
        beside = (ids != centre) & (centre < OLD)
        yield pa.table(list(distinct_pairs(centre[beside], ids[beside])), schema=EDGES)


def by_component(store: WorkStore, stars: Part) -> Iterator[pa.Table]:
    """key, label, id: every row of each component, the smallest one too (more than once)."""
    for table in stars.tables(store):
        labels, ids = table["left"].to_numpy(), table["right"].to_numpy()
        smallest = np.unique(labels)
        labels, ids = np.concatenate([labels, smallest]), np.concatenate([ids, smallest])
        yield pa.table({"key": spread(labels), "label": labels, "id": ids})


def component_members(chunks: Chunks) -> Iterator[pa.Table]:
    """label, id: component by component. Notes `largest_component`: its rows."""
    found = [table.select(["label", "id"]) for table in chunks]
    if found:
        every = pa.concat_tables(found)
        labels, ids = distinct_pairs(every["label"].to_numpy(), every["id"].to_numpy())
        chunks.note(largest_component=int(np.diff(parts.runs(labels.astype(np.uint64))).max(initial=0)))
        yield pa.table({"label": labels, "id": ids})


@dataclass(frozen=True)
class ResolveBatch:
    """Some whole components: label, id."""

    store: WorkStore
    key: str
    step: DropNearDuplicates
    bands: int
    width: int
    members: Part
    extracts: str  # the catalog's key

    def __str__(self) -> str:
        return f"{self.step.step}: {self.members.rows} candidate rows"


def _batches(
    store: WorkStore, step: DropNearDuplicates, sources: Sequence[ExtractOf], members: Sequence[Part], each: int
) -> list[ResolveBatch]:
    """Work items of about `each` rows. What is held is cut here; other parts have been made of that size."""
    if not members:
        return []
    count, width = bands(step.threshold, step.permutations)
    listed = store_catalog(store, sources)
    tasks = []
    for part in members:
        for piece in [part] if part.held is None else _cut(part, part.held["label"].to_numpy(), each):
            facts = [listed] if piece.held is None else digests_of(sources, piece.held["id"])
            key = key_of("resolve", step, count, width, piece.digest, facts)
            tasks.append(ResolveBatch(store, key, step, count, width, piece, listed))
    return tasks


def _cut(members: Part, labels: I64, each: int) -> Iterator[Part]:
    starts = parts.runs(labels.astype(np.uint64))
    for start, stop in _ranges(starts, starts[:-1] // each):
        yield members.piece(start, stop)


def _ranges(starts: I64, batch: I64) -> Iterator[tuple[int, int]]:
    """(start, stop) of the rows of each batch, given where each component starts (and the last one ends) and its batch, which ascends."""
    edges = np.flatnonzero(np.diff(batch)) + 1
    cuts = [0, *starts[edges].tolist(), int(starts[-1])]
    return itertools.pairwise(cuts)


def resolve_batch(task: ResolveBatch) -> dict[str, Any]:
    """Writes the decisions for the batch, in pieces of whole components whose shingle sets fit in BATCH_BYTES."""
    counts = {"candidate_rows": 0, "comparisons": 0, "comparisons_left_out": 0, "decided": 0}
    with task.store.create(task.key) as (folder, summary), parts.PartWriter(folder, "decided") as writer:
        for rows in _pieces(task):
            size = 4 * int(rows.sets.sizes.sum())
            spill = folder / "sets.bin" if size > 2 * BATCH_BYTES else None
            decided, more = _resolved(task, rows, spill)
            for name, value in more.items():
                counts[name] += value
            counts["decided"] += decided.num_rows
            if decided.num_rows:
                writer.write(decided)
            if spill is not None:
                spill.unlink()
        summary.update(counts)
    return summary


def _pieces(task: ResolveBatch) -> Iterator[Chosen]:
    """The rows of whole components: as many at a time as have shingle sets that fit in BATCH_BYTES, but those of at least one."""
    found = list(task.members.tables(task.store))
    if not found:
        return
    labels, ids = (pa.concat_tables(found)[name].to_numpy() for name in ("label", "id"))
    rows = choose(task.store, catalog(task.store, task.extracts), ids, ["row", "uid", "rank", "quality"])
    starts = parts.runs(labels.astype(np.uint64))
    sizes = np.cumsum(np.add.reduceat(4 * rows.sets.sizes, starts[:-1]))
    for start, stop in _ranges(starts, sizes // BATCH_BYTES):
        yield rows.take(np.arange(start, stop))


def _resolved(task: ResolveBatch, rows: Chosen, spill: Path | None) -> tuple[pa.Table, dict[str, int]]:
    rows = rows.take(pc.sort_indices(rows.columns, SURVIVOR_ORDER).to_numpy().astype(np.int64))
    keys = band_keys(rows.matrix(), task.bands, task.width)
    return decide_near(rows.columns, keys, rows.sets.read(spill), task.step)


def decide_near(
    table: pa.Table, keys: U64, sets: tuple[U32, I64], step: DropNearDuplicates
) -> tuple[pa.Table, dict[str, int]]:
    """(drop decisions, counts) for rows (item, row, uid), their band keys and their shingle sets, in survivor order.

    Published rows, which are the first in it, stay.
    """
    values, offsets = sets
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
