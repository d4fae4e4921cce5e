"""Which kept rows must share a split: rows that are alike, by verified similarity, or of one group."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.kernels.hashing import hash_text
from gristmill.kernels.jaccard import pairs
from gristmill.kernels.minhash import bands
from gristmill.kernels.tally import Tally
from gristmill.pipelines import parts
from gristmill.pipelines.compared import Compared, asked_before
from gristmill.pipelines.components import EDGES, components
from gristmill.pipelines.duplicates import band_view, bucket_edges, ids_of, rows_of
from gristmill.pipelines.engines.base import Engine
from gristmill.pipelines.exchange import Chunks, Part, Reduce, block, exchange, power_of_two
from gristmill.pipelines.extracts import OLD, ExtractOf, catalog, store_catalog
from gristmill.pipelines.grouped import among, distinct_pairs, place_of_pairs
from gristmill.pipelines.model import Split
from gristmill.pipelines.sketched import Chosen, choose
from gristmill.pipelines.work import WorkStore, finish, key_of

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
PAIRS = 8_000  # pairs verified in one work item
LOADED = 1_000  # pairs whose shingle sets are in memory at a time
SIGMAS = 4.0  # a pair whose signatures say that it is this far under the threshold is not compared: misses 3 in 100,000
SORTED = 1_000_000  # rows of buckets, and pairs, that are in memory at a time


@dataclass(frozen=True)
class Clusters:
    """Rows that must share a split, as stars: EDGES from the smallest id of each cluster to its others; the work used, and counts."""

    stars: list[Part]
    used: list[str]
    counts: dict[str, int]


def clusters(
    engine: Engine,
    store: WorkStore,
    split: Split,
    sketches: Sequence[ExtractOf],
    groups: Sequence[ExtractOf],
    compared: Compared,
) -> Clusters:
    """The clusters of the rows linked by verified similarity (`sketches`) or an equal group value (`groups`); chains count."""
    edges, used, counts = linked_pairs(engine, store, split, sketches, groups, bucket_edges, compared=compared)
    stars, more = components(engine, store, edges, "split")
    return Clusters(stars, [*used, *more], counts)


def linked_pairs(
    engine: Engine,
    store: WorkStore,
    split: Split,
    sketches: Sequence[ExtractOf],
    groups: Sequence[ExtractOf],
    in_group: Reduce,
    *,
    compared: Compared,
) -> tuple[list[Part], list[str], dict[str, int]]:
    """(pairs of rows linked by verified similarity or, as `in_group` says, by a group; the work that they are in; what was counted)."""
    edges: list[Part] = []
    used: list[str] = []
    counts: dict[str, int] = {}
    if split.similarity is not None and sketches:
        edges, used, counts = similar_pairs(engine, store, split, sketches, compared)
    if groups:
        size = rows_of(store, groups) * 16
        found = exchange(engine, store, groups, group_view, in_group, size=size, name="group_by")
        edges, used = [*edges, *found.parts], [*used, *found.used]
        if "largest_bucket" in found.notes:
            counts["largest_group"] = found.notes["largest_bucket"]
    return edges, used, counts


def group_view(store: WorkStore, source: ExtractOf) -> Iterator[pa.Table]:
    """key, id: the group of each row that has one."""
    for table in source.tables(store, ["row", "key"]):
        yield pa.table({"key": table["key"], "id": ids_of(table)})


def _placed_bands(store: WorkStore, source: ExtractOf, *, count: int, width: int) -> Iterator[pa.Table]:
    """key, id, place: the bands of the rows, with a place in a full bucket that depends on the uid alone and not on the order of files."""
    found = band_view(store, source, count=count, width=width)
    for table, banded in zip(source.tables(store, ["row", "uid"]), found, strict=True):
        places = hash_text(table["uid"])[:, 1]
        yield banded.append_column("place", pa.array(np.repeat(places, count), pa.uint64()))


def similar_pairs(
    engine: Engine, store: WorkStore, split: Split, sketches: Sequence[ExtractOf], compared: Compared
) -> tuple[list[Part], list[str], dict[str, int]]:
    """(EDGES: the pairs of rows that are verified similar, at least one of them new; the work used; counts)."""
    threshold = float(split.similarity or 0)
    count, width = bands(threshold, _permutations(store, sketches))
    view = functools.partial(_placed_bands, count=count, width=width)
    reduce = functools.partial(bucket_pairs, window=split.max_bucket)
    size, name = rows_of(store, sketches) * count * 24, f"similarity {count}x{width}"
    near = exchange(engine, store, sketches, view, reduce, size=size, name=name)
    size, each = near.rows * 24, 8 * PAIRS
    candidates = exchange(
        engine, store, near.parts, _by_right, distinct, size=size, name=name, partitions=-(-near.rows // each)
    )
    tasks = _verify_tasks(store, sketches, candidates.parts, threshold, compared)
    summaries = finish(engine, verify, tasks)
    linked = [Part(summary["linked"], task.key, "linked") for task, summary in zip(tasks, summaries, strict=True)]
    counts = {
        "candidate_pairs": candidates.rows,
        "linked_pairs": sum(part.rows for part in linked),
        "pairs_left_out": near.notes.get("pairs_left_out", 0),
        "largest_bucket": near.notes.get("largest_bucket", 0),
    }
    found = [key for task, summary in zip(tasks, summaries, strict=True) for key in (task.key, summary["extracts"])]
    return linked, [*near.used, *candidates.used, *found], counts


def _permutations(store: WorkStore, sketches: Sequence[ExtractOf]) -> int:
    schema = parts.schemas(store.folder(sketches[0].key), sketches[0].name)[0]
    return int(schema.field("signature").type.list_size)


def bucket_pairs(chunks: Chunks, *, window: int) -> Iterator[pa.Table]:
    """EDGES (the larger id is `right`): each row of a bucket with up to `window` rows before it in `place`.

    So many buckets are gone through at a time that SORTED of their rows are in memory; a larger one by ranges of `place`, without pairs from one
    range to the next. Pairs of two published rows, whose ids are the highest, are left aside: they stay where they are. Notes `pairs_left_out`,
    the other pairs of rows of one bucket, and `largest_bucket`, its rows.
    """
    every, published = Tally(), Tally()
    for table in chunks:
        keys, ids = table["key"].to_numpy(), table["id"].to_numpy()
        every.add(keys, ids)
        published.add(keys[ids >= OLD], ids[ids >= OLD])
    keys, counts = every.repeated()
    old, _ = published.find(keys)
    shared = old < counts
    keys, counts, old = keys[shared], counts[shared], old[shared]
    chunks.note(largest_bucket=int(counts.max(initial=0)), pairs_left_out=int((_pairs(counts) - _pairs(old)).sum()))
    large = counts > SORTED
    turn = np.cumsum(np.where(large, 0, counts)) // SORTED
    turns = [(keys[~large & (turn == number)], 1) for number in np.unique(turn[~large])]
    turns += [(keys[place : place + 1], int(-(-counts[place] // SORTED))) for place in np.flatnonzero(large)]
    for some, ranges in turns:
        for number in range(ranges):
            yield from _pairs_within(chunks, some, window, number, ranges)


def _pairs(counts: I64) -> I64:
    return counts * (counts - 1) // 2


def _pairs_within(chunks: Chunks, keys: U64, window: int, number: int, ranges: int) -> Iterator[pa.Table]:
    """The pairs of the buckets with these keys, among the rows in one of the equal ranges of `place`."""
    found = [among(table, keys) for table in chunks]
    width = np.uint64(2**64 // ranges) if ranges > 1 else np.uint64(2**64 - 1)
    key, place, ids = (np.concatenate([table[name].to_numpy() for table in found]) for name in ("key", "place", "id"))
    if ranges > 1:
        here = np.minimum(place // width, np.uint64(ranges - 1)) == number
        key, place, ids = key[here], place[here], ids[here]
    order = np.lexsort((ids, place, key))
    key, ids = key[order], ids[order]
    rows = max(1, SORTED // window)
    for start in range(0, len(key), rows):
        left, right = [], []
        for step in range(1, window + 1):
            ahead = key[start + step : start + rows + step]
            same = ahead == key[start : start + len(ahead)]
            if not same.any():
                break
            one, other = ids[start : start + len(ahead)], ids[start + step : start + rows + step]
            same &= np.minimum(one, other) < OLD
            left.append(one[same])
            right.append(other[same])
        if left:
            one, other = np.concatenate(left), np.concatenate(right)
            chunks.note(pairs_left_out=-len(one))
            yield pa.table(list(distinct_pairs(np.minimum(one, other), np.maximum(one, other))), schema=EDGES)


def _by_right(store: WorkStore, found: Part) -> Iterator[pa.Table]:
    for table in found.tables(store):
        yield table.append_column("key", pa.array(block(table["right"].to_numpy())))


def distinct(chunks: Chunks) -> Iterator[pa.Table]:
    """EDGES, each once, sorted by the larger id."""
    found = [table.select(EDGES.names) for table in chunks]
    if found:
        every = pa.concat_tables(found)
        right, left = distinct_pairs(every["right"].to_numpy(), every["left"].to_numpy())
        yield pa.table([left, right], schema=EDGES)


@dataclass(frozen=True)
class VerifyPairs:
    """Candidate pairs (EDGES) of rows of any items."""

    store: WorkStore
    key: str
    threshold: float
    pairs: Part
    extracts: str  # the catalog's key
    earlier: tuple[str, ...] = field(compare=False)  # work of the run before in which these pairs may be

    def __str__(self) -> str:
        return f"split: {self.pairs.rows} candidate pairs"


def _verify_tasks(
    store: WorkStore,
    sketches: Sequence[ExtractOf],
    candidates: Sequence[Part],
    threshold: float,
    compared: Compared,
) -> list[VerifyPairs]:
    """One for each partition that has pairs; of what is held it has about PAIRS."""
    if not candidates:
        return []
    listed, name = store_catalog(store, sketches), key_of("verified", threshold)
    held = candidates[0].held is not None
    pieces = candidates[0].cut("right", power_of_two(-(-candidates[0].rows // PAIRS))) if held else candidates

    def some_pairs(key: str, piece: Part, earlier: tuple[str, ...]) -> VerifyPairs:
        return VerifyPairs(store, key, threshold, piece, listed, earlier)

    return compared.tasks(name, sketches, listed, pieces, EDGES.names, some_pairs)


def verify(task: VerifyPairs) -> dict[str, Any]:
    """Writes the pairs that are similar, and asked.arrow: all pairs, and whether they are. What earlier work says of a pair is taken over."""
    every = pa.concat_tables(task.pairs.tables(task.store))
    left, right = every["left"].to_numpy(), every["right"].to_numpy()
    alike, due = np.zeros(len(left), bool), np.arange(len(left))
    before = asked_before(task.store, task.earlier, task.extracts)
    if before is not None:
        place = place_of_pairs(left, right, (before["left"].to_numpy(), before["right"].to_numpy()))
        known = (place >= 0) & before["same"].to_numpy()[place]
        alike[known] = before["alike"].to_numpy()[place[known]]
        due = np.flatnonzero(~known)
    for start in range(0, len(due), PAIRS):
        some = due[start : start + PAIRS]
        alike[some] = _alike(task, np.stack([left[some], right[some]], axis=1))
    with task.store.create(task.key) as (folder, summary), parts.PartWriter(folder, "linked", parts.PLAIN) as writer:
        writer.write(pa.table([left[alike], right[alike]], schema=EDGES))
        parts.write(folder / "asked.arrow", pa.table({"left": left, "right": right, "alike": alike}))
        summary.update(pairs=len(left), linked=int(alike.sum()), extracts=task.extracts)
    return summary


def _alike(task: VerifyPairs, candidates: I64) -> npt.NDArray[np.bool_]:
    """Which pairs are similar: first by their signatures, then by their shingle sets, LOADED pairs of which are in memory at a time."""
    ids, places = np.unique(candidates, return_inverse=True)
    rows, places = choose(task.store, catalog(task.store, task.extracts), ids, []), places.reshape(-1, 2)
    minima = rows.matrix()
    likely = np.flatnonzero(_estimate(minima, *places.T) >= _floor(task.threshold, minima.shape[1]))
    alike = np.zeros(len(candidates), bool)
    for start in range(0, len(likely), LOADED):
        some = likely[start : start + LOADED]
        alike[some] = _similarity(rows, places[some]) >= task.threshold
    return alike


def _similarity(rows: Chosen, some: I64) -> npt.NDArray[np.float64]:
    """The Jaccard similarity of each pair (places of rows)."""
    wanted, places = np.unique(some, return_inverse=True)
    left, right = places.reshape(-1, 2).T
    return pairs(*rows.sets.take(wanted).read(), left, right)


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
