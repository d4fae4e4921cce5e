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
def _mix(word):  # type: ignore[no-untyped-def]
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
        places[np.int64(_mix(hashes[i, 0]) >> shift) + 1] += 1
    ends = np.cumsum(places)
    places = ends[:-1].copy()
    for i in range(n):
        part = np.int64(_mix(hashes[i, 0]) >> shift)
        at = places[part]
        places[part] = at + 1
        order[at] = i
        for k in range(width):
            out[at, k] = hashes[i, k]
    return ends


@njit(cache=True, nogil=True)
def _group(hashes, table, group, firsts, counts):  # type: ignore[no-untyped-def]
    n, width = hashes.shape
    mask = np.uint64(len(table) - 1)
    groups = 0
    for i in range(n):
        at = _mix(hashes[i, 0]) & mask
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


def partition(hashes: U64) -> tuple[U64, npt.NDArray[np.int32], I64]:
    """(the hashes (n, width) in order of partition, what row each was, (PARTITIONS + 1,) where partitions begin). Stable; equal hashes share a partition."""
    out, order = np.empty_like(hashes), np.empty(len(hashes), np.int32)
    return out, order, _partition(read_only(hashes), out, order)


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
