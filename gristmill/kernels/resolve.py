"""Which candidate rows survive, and which belong together: rows that share a band are compared, each pair once, bounded in hot buckets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.buffers import read_only
from gristmill.kernels.jaccard import at_least

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I8 = npt.NDArray[np.int8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

_NONE = np.int64(2**63 - 1)
NONE, MIXED = -1, -2  # labels of a node that has none, and of one that has several


class Resolved(NamedTuple):
    """kept_by (rows,) int64: -1 where the row survives, else the kept row that it was verified against; and what it took.

    similarity (rows,) float64: of those two, 0 where the row survives. comparisons (rows,) int64: how many it was verified against. capped (rows,)
    int64: of a survivor the rows of its buckets, beyond `max_bucket`, that it was not compared with, summed over bands; 0 means that nothing was
    left out.
    """

    kept_by: I64
    similarity: npt.NDArray[np.float64]
    comparisons: I64
    capped: I64


class Linked(NamedTuple):
    """labels (rows,) int64: the smallest row of each row's component; and what it took.

    comparisons: pairs verified. capped: earlier rows of their buckets, beyond `max_bucket`, that rows were not compared with, summed over rows
    and bands.
    """

    labels: I64
    comparisons: int
    capped: int


def resolve(keys: U64, values: U32, offsets: I64, threshold: float, max_bucket: int = 256, pinned: int = 0) -> Resolved:
    """What becomes of each row. Rows come in survivor order: keys (rows, bands) their `band_keys`, values and offsets their `shingle_sets`.

    Each row is compared with the kept rows that share a band with it, the first in survivor order first; at the first one whose Jaccard
    similarity reaches the threshold it leaves, else it is kept. This is the lexicographically first maximal independent set of the graph of
    candidate pairs with J >= threshold: no two kept rows are such a pair, and every row that left is one with a kept row: no chains. Of one
    bucket (the rows with one key in one band) only the first `max_bucket` kept rows are compared; what that leaves out is counted. The first
    `pinned` rows are kept whatever they are like.
    """
    buckets, starts = bucket_numbers(keys)
    return Resolved(*_resolve(buckets, starts, read_only(values), read_only(offsets), threshold, max_bucket, pinned))


def links(keys: U64, values: U32, offsets: I64, threshold: float, max_bucket: int = 256) -> Linked:
    """The components of the graph of candidate pairs with J >= threshold; chains count. Arguments as in `resolve`; any order of rows will do.

    Pairs that are connected already are not compared. Of one bucket a row is compared with the first `max_bucket` rows before it.
    """
    buckets, starts = bucket_numbers(keys)
    labels, comparisons, capped = _links(buckets, starts, read_only(values), read_only(offsets), threshold, max_bucket)
    return Linked(labels, int(comparisons), int(capped))


def components(left: I64, right: I64, count: int) -> I64:
    """(count,) int64: for each of the nodes 0 to count - 1 the smallest node of its component under the edges left[k] - right[k]."""
    return _components(read_only(left), read_only(right), count)


def settle(pairs: tuple[I64, I64], members: tuple[I64, I64], rows: I8, groups: I8) -> tuple[I8, I64]:
    """(label, root) of each row: rows come in order, join what they are linked to, and take its label; one that would join two labels is MIXED.

    pairs: two rows that are linked. members: a row and the group that it is linked to. rows, groups: the labels that they have beforehand,
    NONE or MIXED. A MIXED row joins nothing. root: the first row of what each is joined to, itself if MIXED. Rows of one root have one label.
    """
    earlier, later = np.minimum(*pairs), np.maximum(*pairs)
    order = np.argsort(later, kind="stable")
    starts = np.searchsorted(later[order], np.arange(len(rows) + 1))
    by_row = np.argsort(members[0], kind="stable")
    group_starts = np.searchsorted(members[0][by_row], np.arange(len(rows) + 1))
    labels = np.concatenate([rows, groups])
    return _settle(earlier[order], starts, members[1][by_row] + len(rows), group_starts, labels, len(rows))


def bucket_numbers(keys: U64) -> tuple[I32, I64]:
    """(rows, bands) int32: the number of each row's bucket in each band, -1 where it is alone; and (buckets + 1,) int64 where each begins.

    That is, if the buckets, every one as long as it has rows, lie one after the other.
    """
    rows, bands = keys.shape
    numbers = np.full((rows, bands), -1, np.int32)
    sizes: list[I64] = []
    total = 0
    for band in range(bands):
        _, inverse, counts = np.unique(keys[:, band], return_inverse=True, return_counts=True)
        shared = counts > 1
        places = np.where(shared, np.cumsum(shared) - 1 + total, -1)
        numbers[:, band] = places[inverse]
        sizes.append(counts[shared])
        total += len(sizes[-1])
    return numbers, np.concatenate([[0], *sizes]).cumsum()


@njit
def _enter(row, buckets, starts, members, lengths):  # type: ignore[no-untyped-def]
    """Adds the row to the members of its buckets."""
    for band in range(buckets.shape[1]):
        bucket = buckets[row, band]
        if bucket >= 0:
            members[starts[bucket] + lengths[bucket]] = row
            lengths[bucket] += 1


@njit
def _open(row, buckets, starts, lengths, max_bucket, at, stop):  # type: ignore[no-untyped-def]
    """Sets `at` and `stop` to the part of `members` that holds each of the row's buckets; returns how many are beyond `max_bucket`."""
    beyond = 0
    for band in range(len(at)):
        bucket = buckets[row, band]
        at[band], stop[band] = 0, 0
        if bucket >= 0:
            at[band], stop[band] = starts[bucket], starts[bucket] + min(lengths[bucket], max_bucket)
            beyond += max(0, lengths[bucket] - max_bucket)
    return beyond


@njit
def _next(members, at, stop):  # type: ignore[no-untyped-def]
    """The smallest row that is next in any of the buckets, passed in all of them: each comes once, in order. _NONE at the end."""
    smallest = _NONE
    for band in range(len(at)):
        if at[band] < stop[band]:
            smallest = min(smallest, members[at[band]])
    for band in range(len(at)):
        if at[band] < stop[band] and members[at[band]] == smallest:
            at[band] += 1
    return smallest


@njit(cache=True, nogil=True)
def _resolve(buckets, starts, values, offsets, threshold, max_bucket, pinned):  # type: ignore[no-untyped-def]
    rows, bands = buckets.shape
    kept_by, similarity = np.full(rows, -1, np.int64), np.zeros(rows, np.float64)
    members, lengths = np.empty(starts[-1], np.int64), np.zeros(len(starts) - 1, np.int64)
    at, stop = np.empty(bands, np.int64), np.empty(bands, np.int64)
    comparisons, capped = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    for row in range(pinned):
        _enter(row, buckets, starts, members, lengths)
    for row in range(pinned, rows):
        beyond = _open(row, buckets, starts, lengths, max_bucket, at, stop)
        other = _next(members, at, stop)
        while other != _NONE:
            comparisons[row] += 1
            j = at_least(values, offsets, row, other, threshold)
            if j >= 0.0:
                kept_by[row], similarity[row] = other, j
                break
            other = _next(members, at, stop)
        if kept_by[row] < 0:
            capped[row] = beyond
            _enter(row, buckets, starts, members, lengths)
    return kept_by, similarity, comparisons, capped


@njit(cache=True, nogil=True)
def _links(buckets, starts, values, offsets, threshold, max_bucket):  # type: ignore[no-untyped-def]
    rows, bands = buckets.shape
    parent = np.arange(rows)
    members, lengths = np.empty(starts[-1], np.int64), np.zeros(len(starts) - 1, np.int64)
    at, stop = np.empty(bands, np.int64), np.empty(bands, np.int64)
    comparisons, capped = 0, 0
    for row in range(rows):
        capped += _open(row, buckets, starts, lengths, max_bucket, at, stop)
        other = _next(members, at, stop)
        while other != _NONE:
            if _root(parent, other) != _root(parent, row):
                comparisons += 1
                if at_least(values, offsets, row, other, threshold) >= 0.0:
                    _join(parent, row, other)
            other = _next(members, at, stop)
        _enter(row, buckets, starts, members, lengths)
    return _flattened(parent), comparisons, capped


@njit(cache=True, nogil=True)
def _components(left, right, count):  # type: ignore[no-untyped-def]
    parent = np.arange(count)
    for k in range(len(left)):
        _join(parent, left[k], right[k])
    return _flattened(parent)


@njit(cache=True, nogil=True)
def _settle(earlier, starts, groups, group_starts, labels, rows):  # type: ignore[no-untyped-def]
    parent = np.arange(len(labels))
    for row in range(rows):
        label = labels[row]
        for k in range(starts[row], starts[row + 1]):
            if labels[earlier[k]] != MIXED:
                label = _both(label, labels[_root(parent, earlier[k])])
        for k in range(group_starts[row], group_starts[row + 1]):
            label = _both(label, labels[_root(parent, groups[k])])
        labels[row] = label
        if label == MIXED:
            continue
        for k in range(starts[row], starts[row + 1]):
            if labels[earlier[k]] != MIXED:
                _join(parent, row, earlier[k])
        for k in range(group_starts[row], group_starts[row + 1]):
            _join(parent, row, groups[k])
        labels[_root(parent, row)] = label
    roots = np.empty(rows, np.int64)
    for row in range(rows):
        roots[row] = _root(parent, row)
    for row in range(rows):
        labels[row] = labels[roots[row]]
    return labels[:rows], roots


@njit
def _both(one, other):  # type: ignore[no-untyped-def]
    """The label of what has both labels."""
    if one == NONE or one == other:
        return other
    return one if other == NONE else np.int8(MIXED)


@njit
def _root(parent, node):  # type: ignore[no-untyped-def]
    """The root of the node's tree; halves the path on the way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@njit
def _join(parent, one, other):  # type: ignore[no-untyped-def]
    """Makes one tree of two; its root is the smaller one, so parents are never larger than their children."""
    one, other = _root(parent, one), _root(parent, other)
    parent[max(one, other)] = min(one, other)


@njit
def _flattened(parent):  # type: ignore[no-untyped-def]
    for node in range(len(parent)):  # parents are smaller, so theirs are final already
        parent[node] = parent[parent[node]]
    return parent
