"""Which hashes can't be among others: told by 32 further bits of each, 4.3 to 4.5 bytes a hash."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.buffers import read_only
from gristmill.kernels.groups import PARTITION_BITS, PARTITIONS, mix

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

LOAD = 16  # hashes in a bucket at most, on average; at least half as many
PART = 1 << 18  # hashes in a part, about


@njit(cache=True, nogil=True)
def _fill(hashes, skip, bits, starts, prints):  # type: ignore[no-untyped-def]
    n = len(hashes)
    for i in range(n):
        starts[np.int64((mix(hashes[i, 0]) << skip) >> (np.uint64(64) - bits)) + 1] += np.uint32(1)
    for number in range(1, len(starts)):
        starts[number] += starts[number - 1]
    places = starts[:-1].copy()
    for i in range(n):
        rest = mix(hashes[i, 0]) << skip
        bucket = np.int64(rest >> (np.uint64(64) - bits))
        prints[places[bucket]] = np.uint32((rest << bits) >> np.uint64(32))
        places[bucket] += np.uint32(1)


@njit(cache=True, nogil=True)
def _maybe(hashes, skip, bits, starts, prints, found):  # type: ignore[no-untyped-def]
    for i in range(len(hashes)):
        rest = mix(hashes[i, 0]) << skip
        bucket = np.int64(rest >> (np.uint64(64) - bits))
        wanted = np.uint32((rest << bits) >> np.uint64(32))
        for place in range(starts[bucket], starts[bucket + 1]):
            if prints[place] == wanted:
                found[i] = True
                break


class Layout:
    """How a filter of some hashes is cut into parts, by their first bits. sizes: hashes in each part; for `of`: in each partition of `groups.partition`."""

    def __init__(self, sizes: I64) -> None:
        self.sizes = sizes
        step = PARTITIONS // len(sizes)
        self.partitions = [range(start, start + step) for start in range(0, PARTITIONS, step)]
        self.ends = np.cumsum([0, *map(_length, sizes.tolist())])  # of the parts in the table
        self._skip = np.uint64(len(sizes).bit_length() - 1)

    @staticmethod
    def of(sizes: I64) -> Layout:
        """Parts of about PART hashes, if they are many."""
        parts = 1 << min(PARTITION_BITS, (int(sizes.sum()) // PART).bit_length())
        return Layout(sizes.reshape(parts, -1).sum(axis=1))

    def fill(self, hashes: U64) -> U32:
        """The part of the table for the hashes (n, width) of a part: where the buckets of their next bits begin, then 32 further bits of each."""
        bits = _bits(len(hashes))
        table = np.zeros(_length(len(hashes)), np.uint32)
        starts, prints = _cut(table, bits)
        _fill(read_only(hashes), self._skip, np.uint64(bits), starts, prints)
        return table

    def maybe(self, part: int, table: U32, hashes: U64) -> npt.NDArray[np.bool_]:
        """(rows,) which of these (n, width), that belong to a part, may be among its hashes: all that are, and of others 1 in some 10^8."""
        bits = _bits(int(self.sizes[part]))
        starts, prints = _cut(read_only(table), bits)
        found = np.zeros(len(hashes), np.bool_)
        _maybe(read_only(hashes), self._skip, np.uint64(bits), starts, prints, found)
        return found


def _cut(table: U32, bits: int) -> tuple[U32, U32]:
    """(where buckets begin, the bits of the hashes) of a part of a table."""
    starts = (1 << bits) + 1
    return table[:starts], table[starts:]


def _bits(size: int) -> int:
    """Of the number of a bucket."""
    return max(1, (max(size - 1, 0) // LOAD).bit_length())


def _length(size: int) -> int:
    """Of a part of the table."""
    return (1 << _bits(size)) + 1 + size
