"""Which of some candidate rows survive: the lexicographically first maximal independent set of the verified pairs, in survivor order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.jaccard import at_least
from gristmill.kernels.shingles import mix64


class Resolved(NamedTuple):
    """kept_by (rows,) int64: -1 where the row survives, else the kept row that it was verified against. similarity (rows,) float64: of those
    two. comparisons: pairs verified. capped: pairs that `max_bucket` left out."""

    kept_by: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float64]
    comparisons: int
    capped: int


def resolve(
    keys: npt.NDArray[np.uint64], values: npt.NDArray[np.uint32], offsets: npt.NDArray[np.int64], threshold: float, max_bucket: int = 256
) -> Resolved:
    """What becomes of each row. Rows come in survivor order: keys (rows, bands) their band keys, values and offsets their shingle sets.

    Each row is compared with the kept rows that share a band with it, the first in survivor order first; at the first one whose Jaccard
    similarity reaches the threshold it leaves, else it is kept. So no two kept rows that share a band are similar, and every row that left
    is similar to a kept one: no chains. Of one band's bucket the first `max_bucket` kept rows are compared.
    """
    kept_by, similarity, comparisons, capped = _resolve(keys, values, offsets, threshold, max_bucket)
    return Resolved(kept_by, similarity, int(comparisons), int(capped))


@njit
def _slot(table, heads, key):  # type: ignore[no-untyped-def]
    """Where the key is in the open-addressing table, or the empty place where it belongs."""
    mask = np.uint64(len(table) - 1)
    at = np.int64(mix64(key) & mask)
    while heads[at] >= 0 and table[at] != key:
        at = (at + 1) & np.int64(mask)
    return at


@njit(cache=True, nogil=True)
def _resolve(keys, values, offsets, threshold, max_bucket):  # type: ignore[no-untyped-def]
    rows, bands = keys.shape
    size = 16
    while size < 2 * rows * bands:
        size *= 2
    table, heads = np.zeros(size, np.uint64), np.full(size, -1, np.int64)
    tails, lengths = np.zeros(size, np.int64), np.zeros(size, np.int64)
    links, owners = np.full(rows * bands + 1, -1, np.int64), np.zeros(rows * bands + 1, np.int64)
    used = 0
    stamp = np.full(rows, -1, np.int64)
    kept_by, similarity = np.full(rows, -1, np.int64), np.zeros(rows, np.float64)
    slots = np.empty(bands, np.int64)
    candidates = np.empty(rows + 1, np.int64)
    comparisons, capped = 0, 0
    for row in range(rows):
        count = 0
        for band in range(bands):
            at = _slot(table, heads, keys[row, band])
            slots[band] = at
            node, seen = heads[at], 0
            while node >= 0 and seen < max_bucket:
                other = owners[node]
                if stamp[other] != row:
                    stamp[other] = row
                    candidates[count] = other
                    count += 1
                node = links[node]
                seen += 1
            if heads[at] >= 0:
                capped += lengths[at] - seen
        found = candidates[:count]
        found.sort()
        for k in range(count):
            comparisons += 1
            j = at_least(values, offsets, row, found[k], threshold)
            if j >= 0.0:
                kept_by[row], similarity[row] = found[k], j
                break
        if kept_by[row] >= 0:
            continue
        for band in range(bands):
            at = slots[band]
            if heads[at] >= 0 and table[at] != keys[row, band]:
                at = _slot(table, heads, keys[row, band])  # taken by another band of this row meanwhile
            owners[used] = row
            if heads[at] < 0:
                table[at], heads[at], lengths[at] = keys[row, band], used, 0
            else:
                links[tails[at]] = used
            tails[at] = used
            lengths[at] += 1
            used += 1
    return kept_by, similarity, comparisons, capped


@njit(cache=True, nogil=True)
def components(left, right, count):  # type: ignore[no-untyped-def]
    """(count,) int64: for each of the nodes 0 to count - 1 the smallest node of its component under the edges left[k] - right[k]."""
    parent = np.arange(count)
    for k in range(len(left)):
        a, b = left[k], right[k]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a < b:
            parent[b] = a
        elif b < a:
            parent[a] = b
    for node in range(count):  # parents are smaller, so theirs are final already
        parent[node] = parent[parent[node]]
    return parent
