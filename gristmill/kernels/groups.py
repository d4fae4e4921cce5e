"""Equal hashes grouped: cut into partitions first, so that each partition's table stays small."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.buffers import read_only
from gristmill.kernels.hashing import P64_1, P64_2

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

PARTITION_BITS = 8
PARTITIONS = 1 << PARTITION_BITS


@njit(inline="always")
def mix(word):  # type: ignore[no-untyped-def]
    """The bits of a word mixed, so that the first of them tell words apart."""
    word ^= word >> np.uint64(32)
    word *= P64_1
    word ^= word >> np.uint64(29)
    return word * P64_2


@njit(cache=True, nogil=True)
def _partition(hashes, out, order):  # type: ignore[no-untyped-def]
    n, width = hashes.shape
    shift = np.uint64(64 - PARTITION_BITS)
    places = np.zeros(PARTITIONS + 1, np.int64)
    for i in range(n):
        places[np.int64(mix(hashes[i, 0]) >> shift) + 1] += 1
    ends = np.cumsum(places)
    places = ends[:-1].copy()
    for i in range(n):
        part = np.int64(mix(hashes[i, 0]) >> shift)
        at = places[part]
        places[part] = at + 1
        order[at] = i
        for k in range(width):
            out[at, k] = hashes[i, k]
    return ends


@njit(cache=True, nogil=True)
def _parts(hashes, found):  # type: ignore[no-untyped-def]
    for i in range(len(hashes)):
        found[np.int64(mix(hashes[i, 0]) >> np.uint64(64 - PARTITION_BITS))] = True


@njit(cache=True, nogil=True)
def _group(hashes, table, group, firsts, counts):  # type: ignore[no-untyped-def]
    n, width = hashes.shape
    mask = np.uint64(len(table) - 1)
    groups = 0
    for i in range(n):
        at = mix(hashes[i, 0]) & mask
        while True:
            known = table[at]
            if known < 0:
                table[at] = groups
                firsts[groups] = i
                counts[groups] = 1
                group[i] = groups
                groups += 1
                break
            first = firsts[known]
            same = True
            for k in range(width):
                same = same and hashes[first, k] == hashes[i, k]
            if same:
                group[i] = known
                counts[known] += 1
                break
            at = (at + np.uint64(1)) & mask
    return groups


@njit(cache=True, nogil=True)
def _enter(hashes, table, shift, seen):  # type: ignore[no-untyped-def]
    last = len(table) - 1
    for i in range(len(hashes)):
        mixed = mix(hashes[i, 0])
        bit = mixed >> (shift - np.uint64(3))
        seen[np.int64(bit >> np.uint64(3))] |= np.uint8(1) << np.uint8(bit & np.uint64(7))
        at = np.int64(mixed >> shift)
        while table[at] >= 0:
            at = at + 1 if at < last else np.int64(0)
        table[at] = i


@njit(cache=True, nogil=True)
def _maybe(shift, seen, hashes, at_row):  # type: ignore[no-untyped-def]
    hits = np.int64(0)
    for i in range(len(hashes)):
        bit = mix(hashes[i, 0]) >> (shift - np.uint64(3))
        at_row[hits] = i
        hits += np.int64((seen[np.int64(bit >> np.uint64(3))] >> np.uint8(bit & np.uint64(7))) & np.uint8(1))
    return hits


@njit(cache=True, nogil=True)
def _find(known, table, shift, hashes, at_row, few, of):  # type: ignore[no-untyped-def]
    width = hashes.shape[1]
    last = len(table) - 1
    hits = 0
    for n in range(few):
        i = at_row[n]
        at = np.int64(mix(hashes[i, 0]) >> shift)
        while table[at] >= 0:
            one = table[at]
            same = True
            for k in range(width):
                same = same and known[one, k] == hashes[i, k]
            if same:
                at_row[hits] = i
                of[hits] = one
                hits += 1
                break
            at = at + 1 if at < last else np.int64(0)
    return hits


class Index:
    """Looks up hashes among a few distinct ones (n, width). Fast for hashes in the order of `partition`: they ask a small part of the table at a time."""

    def __init__(self, hashes: U64) -> None:
        bits = max(4, int(4 * len(hashes)).bit_length())
        self._known, self._shift = read_only(hashes), np.uint64(64 - bits)
        self._table = np.full(1 << bits, -1, np.int32)
        self._seen = np.zeros(1 << bits, np.uint8)  # a bit for 8 times as many places: most hashes are told apart by it
        _enter(self._known, self._table, self._shift, self._seen)

    def find(self, hashes: U64) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """(rows of these hashes that are known, in order, the number of the known hash of each)."""
        hashes, rows = read_only(hashes), np.empty(len(hashes) + 1, np.int32)
        few = int(_maybe(self._shift, self._seen, hashes, rows))
        of = np.empty(few, np.int32)
        hits = int(_find(self._known, self._table, self._shift, hashes, rows, few, of))
        return rows[:hits], of[:hits]


def partition(hashes: U64) -> tuple[U64, npt.NDArray[np.int32], I64]:
    """(the hashes (n, width) in order of partition, what row each was, (PARTITIONS + 1,) where partitions begin). Stable; equal hashes share a partition."""
    out, order = np.empty_like(hashes), np.empty(len(hashes), np.int32)
    return out, order, _partition(read_only(hashes), out, order)


def parts_of(hashes: U64) -> npt.NDArray[np.bool_]:
    """(PARTITIONS,) in which partitions these hashes (n, width) lie."""
    found = np.zeros(PARTITIONS, np.bool_)
    _parts(read_only(hashes), found)
    return found


class Groups(NamedTuple):
    """Groups are numbered in order of first occurrence. of: (n,) the group of each row. first: (groups,) the first row of each. counts: (groups,)."""

    of: npt.NDArray[np.int32]
    first: I64
    counts: I64


def group(hashes: U64) -> Groups:
    """Rows whose hashes (n, width) are equal share a group."""
    n = len(hashes)
    table = np.full(1 << max(4, int(2 * n - 1).bit_length()), -1, np.int32)
    of, firsts, counts = np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n, np.int64)
    groups = int(_group(read_only(hashes), table, of, firsts, counts))
    return Groups(of, firsts[:groups], counts[:groups])
