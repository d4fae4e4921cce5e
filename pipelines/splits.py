"""Which split each kept row belongs to: rows that are alike, or of one group, stay together."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels.hashing import hash_text
from gristmill.kernels.jaccard import pairs
from gristmill.kernels.minhash import bands
from gristmill.pipelines import parts
from gristmill.pipelines.duplicates import (
    EDGES,
    ROW_BITS,
    band_view,
    bucket_edges,
    join_components,
)
from gristmill.pipelines.engines.base import Engine
from gristmill.pipelines.exchange import exchange
from gristmill.pipelines.extracts import PUBLISHED, ExtractOf
from gristmill.pipelines.model import Split
from gristmill.pipelines.sketched import load_rows, load_sets, signature_matrix
from gristmill.pipelines.work import WorkStore, finish, key_of

PAIRS = 20_000  # pairs verified in one work item
LOADED = 1_000  # pairs whose shingle sets are in memory at a time
SIGMAS = 4.0  # a pair whose signatures say that it is this far under the threshold is not compared: misses 3 in 100,000


@dataclass(frozen=True)
class Clusters:
    """Rows that must share a split: ids (item << ROW_BITS | row) sorted, and for each the smallest id of its cluster."""

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    used: list[str]
    counts: dict[str, int]


def clusters(
    engine: Engine, store: WorkStore, split: Split, sketches: Sequence[ExtractOf], groups: Sequence[ExtractOf]
) -> Clusters:
    """The clusters of the rows linked by verified similarity (`sketches`) or an equal group value (`groups`); chains count."""
    edges: list[pa.Table] = []
    used: list[str] = []
    counts: dict[str, int] = {}
    if split.similarity is not None and sketches:
        found, used, counts = similar_pairs(engine, store, split, sketches)
        edges.append(found)
    if groups:
        size = sum(int((store.done(source.key) or {}).get("rows_out", 0)) for source in groups) * 16
        tables, more = exchange(engine, store, groups, group_view, bucket_edges, size=size, name="group_by")
        used += more
        edges += tables
    ids, labels = join_components(pa.concat_tables([EDGES.empty_table(), *edges]))
    return Clusters(ids, labels, used, counts)


def share_of(uids: pa.Array, shares: dict[str, float]) -> npt.NDArray[np.int8]:
    """The number of the split of each uid, by hash of the uid alone: the same in every run and however many rows there are."""
    marked = pc.binary_join_element_wise(
        pa.scalar("split", pa.large_string()), pc.cast(uids, pa.large_string()), pa.scalar(":", pa.large_string())
    )
    place = hash_text(marked)[:, 1].astype(np.float64) / 2.0**64
    return np.searchsorted(np.cumsum(list(shares.values()))[:-1], place, side="right").astype(np.int8)


def group_view(store: WorkStore, source: ExtractOf) -> pa.Table:
    """key, id: the group of each row that has one."""
    found = source.read(store, ["row", "key"])
    return pa.table({"key": found["key"], "id": (np.int64(source.item) << ROW_BITS) | found["row"].to_numpy()})


def _placed_bands(store: WorkStore, source: ExtractOf, *, count: int, width: int) -> pa.Table:
    """key, id, place: the bands of the rows, with a place in a full bucket that depends on the uid alone and not on the order of files."""
    places = hash_text(source.read(store, ["row", "uid"])["uid"])[:, 1]
    found = band_view(store, source, count=count, width=width)
    return found.append_column("place", pa.array(np.repeat(places, count), pa.uint64()))


def similar_pairs(
    engine: Engine, store: WorkStore, split: Split, sketches: Sequence[ExtractOf]
) -> tuple[pa.Table, list[str], dict[str, int]]:
    """(left, right: the pairs of rows that are verified similar, at least one of them new; the work used; counts)."""
    threshold = float(split.similarity or 0)
    permutations = _permutations(store, sketches)
    count, width = bands(threshold, permutations)
    size = sum(int((store.done(source.key) or {}).get("rows_out", 0)) for source in sketches) * count * 24
    view = functools.partial(_placed_bands, count=count, width=width)
    reduce = functools.partial(bucket_pairs, window=split.max_bucket)
    tables, used = exchange(engine, store, sketches, view, reduce, size=size, name=f"similarity {count}x{width}")
    if not tables:
        return EDGES.empty_table(), used, {}
    every = pa.concat_tables(tables)
    left_out = pc.sum(every["left_out"]).as_py() or 0
    candidates = np.unique(np.stack([every["left"].to_numpy(), every["right"].to_numpy()], axis=1), axis=0)
    tasks = [
        _verify_task(store, sketches, candidates[i : i + PAIRS], threshold) for i in range(0, len(candidates), PAIRS)
    ]
    finish(engine, verify, tasks)
    found = [parts.read(store.folder(task.key) / "linked.arrow") for task in tasks]
    linked = pa.concat_tables([EDGES.empty_table(), *found])
    counts = {"candidate_pairs": len(candidates), "linked_pairs": linked.num_rows, "pairs_left_out": left_out}
    return linked, [*used, *[task.key for task in tasks]], counts


def _permutations(store: WorkStore, sketches: Sequence[ExtractOf]) -> int:
    schema = parts.schemas(store.folder(sketches[0].key), sketches[0].name)[0]
    return int(schema.field("signature").type.list_size)


def bucket_pairs(table: pa.Table, *, window: int) -> pa.Table:
    """left, right (the larger id): each row of a bucket with up to `window` rows before it in `place`; left_out counts the pairs further apart.

    Pairs of two published rows, whose ids are the highest, are left aside: they stay where they are.
    """
    keys, ids = table["key"].to_numpy(), table["id"].to_numpy()
    order = np.lexsort((ids, table["place"].to_numpy(), keys))
    keys, ids = keys[order], ids[order]
    starts = parts.runs(keys)
    lengths = np.diff(starts)
    found = []
    for step in range(1, int(min(window, lengths.max(initial=0) - 1)) + 1):
        same = (keys[step:] == keys[:-step]) & (np.minimum(ids[step:], ids[:-step]) < PUBLISHED << ROW_BITS)
        found.append(np.stack([ids[:-step][same], ids[step:][same]], axis=1))
    every = _pairs(lengths) - _pairs(np.diff(np.concatenate([[0], np.cumsum(ids >= PUBLISHED << ROW_BITS)])[starts]))
    pairs_found = np.unique(np.sort(np.concatenate(found), axis=1), axis=0) if found else np.zeros((0, 2), np.int64)
    left_out = np.zeros(len(pairs_found), np.int64)
    if len(left_out):
        left_out[0] = int(every.sum()) - sum(len(some) for some in found)
    return pa.table({"left": pairs_found[:, 0], "right": pairs_found[:, 1], "left_out": left_out})


def _pairs(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return counts * (counts - 1) // 2


@dataclass(frozen=True)
class VerifyPairs:
    """Candidate pairs as numbers into the members' rows."""

    store: WorkStore
    key: str
    threshold: float
    pairs: Any  # (n, 2) ids
    members: tuple[tuple[ExtractOf, Any], ...]

    def __str__(self) -> str:
        return f"split: {len(self.pairs)} candidate pairs"


def _verify_task(
    store: WorkStore, sketches: Sequence[ExtractOf], candidates: npt.NDArray[np.int64], threshold: float
) -> VerifyPairs:
    by_item = {source.item: source for source in sketches}
    ids = np.unique(candidates)
    members = []
    for item in np.unique(ids >> ROW_BITS):
        rows = ids[ids >> ROW_BITS == item] & ((1 << ROW_BITS) - 1)
        members.append((by_item[int(item)], rows))
    key = key_of("verify", threshold, [source.digest for source, _ in members], candidates.tobytes())
    return VerifyPairs(store, key, threshold, candidates, tuple(members))


def verify(task: VerifyPairs) -> dict[str, Any]:
    """Writes the pairs that are similar: first by their signatures, then by their shingle sets, some hundred pairs of which are loaded at a time."""
    found = load_rows(task.store, task.members, ["row", "signature"])
    ids = (found["item"].to_numpy() << ROW_BITS) | found["row"].to_numpy()
    left, right = (np.searchsorted(ids, task.pairs[:, side]) for side in (0, 1))
    minima = signature_matrix(found)
    likely = task.pairs[_estimate(minima, left, right) >= _floor(task.threshold, minima.shape[1])]
    linked = [_linked(task, likely[start : start + LOADED]) for start in range(0, len(likely), LOADED)]
    both = np.concatenate(linked) if linked else np.zeros((0, 2), np.int64)
    with task.store.create(task.key) as (folder, summary):
        parts.write(folder / "linked.arrow", pa.table({"left": both[:, 0], "right": both[:, 1]}))
        summary["pairs"] = len(task.pairs)
    return summary


def _linked(task: VerifyPairs, some: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The pairs whose Jaccard similarity reaches the threshold."""
    wanted = np.unique(some)  # in the order of the members, which are sorted
    members = []
    for source, rows in task.members:
        here = rows[np.isin((np.int64(source.item) << ROW_BITS) | rows, wanted)]
        if len(here):
            members.append((source, here))
    values, offsets = load_sets(task.store, members)
    left, right = (np.searchsorted(wanted, some[:, side]) for side in (0, 1))
    return some[pairs(values, offsets, left, right) >= task.threshold]


def _estimate(
    minima: npt.NDArray[np.uint32], left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    found = np.empty(len(left))
    for start in range(0, len(left), 4096):  # bounds the gathered signatures to some MB
        part = slice(start, start + 4096)
        found[part] = (minima[left[part]] == minima[right[part]]).mean(axis=1)
    return found


def _floor(threshold: float, permutations: int) -> float:
    return float(threshold - SIGMAS * np.sqrt(threshold * (1 - threshold) / permutations))
