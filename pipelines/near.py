"""Near duplicates: rows that share a band, in components, each of which is resolved by itself."""

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
from gristmill.kernels.resolve import Resolved, resolve
from gristmill.pipelines import parts
from gristmill.pipelines.compared import Compared, asked_before
from gristmill.pipelines.components import components, labelled
from gristmill.pipelines.duplicates import SURVIVOR_ORDER, Found, band_view, bucket_edges, ids_of, routed, rows_of
from gristmill.pipelines.engines.base import Engine
from gristmill.pipelines.exchange import Chunks, Part, block, exchange, power_of_two
from gristmill.pipelines.extracts import PUBLISHED, ExtractOf, catalog, store_catalog
from gristmill.pipelines.grouped import distinct_pairs, place_of_pairs
from gristmill.pipelines.sketched import Chosen, choose
from gristmill.pipelines.steps.dedupe import DropNearDuplicates
from gristmill.pipelines.work import WorkStore, finish, key_of

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
BATCH_BYTES = 128 << 20  # shingle sets in memory at a time; those of a larger component are in a file
COUNTS = ("comparisons", "comparisons_left_out")


def near_duplicates(
    engine: Engine, store: WorkStore, step: DropNearDuplicates, sources: Sequence[ExtractOf], compared: Compared
) -> Found:
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
    batches = power_of_two(-(-rows // _batch_rows(store, sources)))
    size, name = rows * 24, step.step
    members = exchange(engine, store, stars, by_component, component_members, size=size, partitions=batches, name=name)
    tasks = _batches(store, step, sources, members.parts, batches, compared)
    summaries = finish(engine, resolve_batch, tasks)
    counts = {"candidate_rows": 0, **dict.fromkeys(COUNTS, 0)}
    for summary in summaries:
        for counted in counts:
            counts[counted] += summary[counted]
    for notes in (edges.notes, members.notes):
        counts.update(notes)
    decided = [Part(summary["decided"], task.key, "decided") for task, summary in zip(tasks, summaries, strict=True)]
    found = [key for task, summary in zip(tasks, summaries, strict=True) for key in (task.key, summary["extracts"])]
    work = [*edges.used, *used, *members.used, *found]
    return Found(decided, work, counts)


def _batch_rows(store: WorkStore, sources: Sequence[ExtractOf]) -> int:
    """How many rows have sketches of about BATCH_BYTES: a power of two, so that batches stay as they were where new rows change the average a little."""
    total = rows = 0
    for source, found in zip(sources, store.summaries([each.key for each in sources]), strict=True):
        summary = found or {}
        total += summary.get("extract_bytes", {}).get(source.name, 0)
        rows += summary.get("rows_out", 0)
    most = BATCH_BYTES // max(1, total // max(rows, 1))
    return 1 << max(0, most.bit_length() - 1)


def by_component(store: WorkStore, stars: Part) -> Iterator[pa.Table]:
    """key, label, id: every row of each component, the smallest one too (more than once)."""
    for table in stars.tables(store):
        labels, ids = labelled(table)
        yield pa.table({"key": block(labels), "label": labels, "id": ids})


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
    earlier: tuple[str, ...] = field(compare=False)  # batches of the run before in which these components may be

    def __str__(self) -> str:
        return f"{self.step.step}: {self.members.rows} candidate rows"


def _batches(
    store: WorkStore,
    step: DropNearDuplicates,
    sources: Sequence[ExtractOf],
    members: Sequence[Part],
    batches: int,
    compared: Compared,
) -> list[ResolveBatch]:
    """One for each batch that has rows."""
    if not members:
        return []
    count, width = bands(step.threshold, step.permutations)
    listed, name = store_catalog(store, sources), key_of("resolved", step, count, width)
    pieces = members if members[0].held is None else members[0].cut("label", batches)

    def batch(key: str, piece: Part, earlier: tuple[str, ...]) -> ResolveBatch:
        return ResolveBatch(store, key, step, count, width, piece, listed, earlier)

    return compared.tasks(name, sources, listed, pieces, ["id"], batch)


def resolve_batch(task: ResolveBatch) -> dict[str, Any]:
    """Writes the decisions for the batch, in pieces of whole components whose shingle sets fit in BATCH_BYTES; and asked.arrow: label, id, COUNTS.

    What an earlier batch has decided about components of the same rows is taken over.
    """
    members = pa.concat_tables(task.members.tables(task.store)).combine_chunks()
    labels, ids = members["label"].to_numpy(), members["id"].to_numpy()
    counts, taken = _taken_over(task, labels, ids)
    by_id = np.argsort(ids)
    with task.store.create(task.key) as (folder, summary), parts.PartWriter(folder, "decided") as writer:
        every = [*_decided_before(task, ids[taken])]
        for rows in _pieces(task, labels[~taken], ids[~taken]):
            size = 4 * int(rows.sets.sizes.sum())
            spill = folder / "sets.bin" if size > 2 * BATCH_BYTES else None
            columns, decided, result = _resolved(task, rows, spill)
            counts[by_id[np.searchsorted(ids[by_id], ids_of(columns))]] = np.stack(result[2:], axis=1)
            every.append(decided)
            if spill is not None:
                spill.unlink()
        for decided in every:
            if decided.num_rows:
                writer.write(decided)
        asked = [labels, ids, *counts.T]
        parts.write(folder / "asked.arrow", pa.table(asked, names=["label", "id", *COUNTS]))
        summary.update(
            candidate_rows=len(ids),
            decided=sum(decided.num_rows for decided in every),
            extracts=task.extracts,
            **dict(zip(COUNTS, counts.sum(axis=0).tolist(), strict=True)),
        )
    return summary


def _taken_over(task: ResolveBatch, labels: I64, ids: I64) -> tuple[I64, Bools]:
    """(COUNTS of each row (rows, 2); whether they and the decision are known): of whole components with the same rows as in an earlier batch."""
    counts, before = np.zeros((len(ids), len(COUNTS)), np.int64), asked_before(task.store, task.earlier, task.extracts)
    if before is None:
        return counts, np.zeros(len(ids), bool)
    then = before["label"].to_numpy(), before["id"].to_numpy()
    place = place_of_pairs(labels, ids, then)
    same = (place >= 0) & before["same"].to_numpy()[place]
    starts = parts.runs(labels.astype(np.uint64))
    sizes, sorted_then = np.diff(starts), np.sort(then[0])
    rows_then = np.subtract(*(np.searchsorted(sorted_then, labels[starts[:-1]], side) for side in ("right", "left")))
    taken = np.repeat(np.logical_and.reduceat(same, starts[:-1]) & (sizes == rows_then), sizes)
    counts[taken] = np.stack([before[name].to_numpy() for name in COUNTS], axis=1)[place[taken]]
    return counts, taken


def _decided_before(task: ResolveBatch, ids: I64) -> Iterator[pa.Table]:
    """What the earlier batches have decided about these rows."""
    for key in task.earlier if len(ids) else ():
        table = parts.table(task.store.folder(key), "decided") if task.store.done(key) is not None else None
        if table is not None:
            yield table.filter(pa.array(np.isin(ids_of(table), ids)))


def _pieces(task: ResolveBatch, labels: I64, ids: I64) -> Iterator[Chosen]:
    """The rows of whole components: as many at a time as have shingle sets that fit in BATCH_BYTES, but those of at least one."""
    if not len(ids):
        return
    rows = choose(task.store, catalog(task.store, task.extracts), ids, ["row", "uid", "rank", "quality"])
    starts = parts.runs(labels.astype(np.uint64))
    batch = np.cumsum(np.add.reduceat(4 * rows.sets.sizes, starts[:-1])) // BATCH_BYTES
    edges = np.flatnonzero(np.diff(batch)) + 1
    for start, stop in itertools.pairwise([0, *starts[edges].tolist(), len(ids)]):
        yield rows.take(np.arange(start, stop))


def _resolved(task: ResolveBatch, rows: Chosen, spill: Path | None) -> tuple[pa.Table, pa.Table, Resolved]:
    """(the rows in survivor order, the decisions, what the comparison gave)."""
    rows = rows.take(pc.sort_indices(rows.columns, SURVIVOR_ORDER).to_numpy().astype(np.int64))
    keys = band_keys(rows.matrix(), task.bands, task.width)
    return rows.columns, *decide_near(rows.columns, keys, rows.sets.read(spill), task.step)


def decide_near(
    table: pa.Table, keys: U64, sets: tuple[U32, I64], step: DropNearDuplicates
) -> tuple[pa.Table, Resolved]:
    """(drop decisions, what the comparison gave) for rows (item, row, uid), their band keys and their shingle sets, in survivor order.

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
    return decided, result
