"""Duplicates: exact ones, and what they share with near ones: the order of survivors, decisions, rows that share a band."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.kernels.minhash import band_keys
from gristmill.kernels.tally import Tally
from gristmill.pipelines import decisions
from gristmill.pipelines.components import EDGES
from gristmill.pipelines.engines.base import Engine
from gristmill.pipelines.exchange import Chunks, Part, exchange
from gristmill.pipelines.extracts import OLD, PUBLISHED, ROW_BITS, ExtractOf
from gristmill.pipelines.grouped import among, distinct_pairs, first_of_each, place_in, repeated
from gristmill.pipelines.sketched import signature_matrix
from gristmill.pipelines.slices import ROUTED
from gristmill.pipelines.steps.dedupe import DropExactDuplicates
from gristmill.pipelines.work import WorkStore

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
SURVIVOR_ORDER = [("rank", "ascending"), ("quality", "descending"), ("uid", "ascending")]


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


def rows_of(store: WorkStore, sources: Sequence[ExtractOf]) -> int:
    """Of all items, before rows left by slices."""
    return sum(int((found or {}).get("rows_out", 0)) for found in store.summaries([each.key for each in sources]))


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
