"""How often keys come, and the least value that came with each: a hash table that grows with the keys, not with the rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.buffers import read_only
from gristmill.kernels.groups import mix

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

KEY, COUNT, LEAST = 0, 1, 2  # columns of an entry; a count of 0 is an empty one
_SMALL = 1 << 12


class Tally:
    """Counts keys, table by table."""

    def __init__(self) -> None:
        self._entries = np.zeros((_SMALL, 3), np.int64)
        self._used = 0

    def add(self, keys: U64, values: I64) -> None:
        """Counts the keys (rows,), each with its value (rows,)."""
        keys, values, done = read_only(keys), read_only(values), 0
        while True:
            done, self._used = _add(self._entries, self._used, keys, values, done)
            if done == len(keys):
                return
            grown = np.zeros((2 * len(self._entries), 3), np.int64)
            _move(self._entries, grown)
            self._entries = grown

    def find(self, keys: U64) -> tuple[I64, I64]:
        """(how often each of these keys came, the least value that came with it; 0 and 0 for those that didn't)."""
        counts, least = _find(self._entries, read_only(keys))
        return counts, least

    def repeated(self) -> tuple[U64, I64]:
        """(the keys that came more than once, sorted; how often)."""
        found = self._entries[self._entries[:, COUNT] > 1]
        keys = found[:, KEY].copy().view(np.uint64)
        order = np.argsort(keys)
        return keys[order], found[order, COUNT]

    @property
    def most(self) -> int:
        """How often the most frequent key came."""
        return int(self._entries[:, COUNT].max())


@njit(inline="always")
def _place(entries, key):  # type: ignore[no-untyped-def]
    """Where the key's entry is, or the empty one where it would be."""
    mask = np.uint64(len(entries) - 1)
    at = mix(np.uint64(key)) & mask
    while entries[at, COUNT] != 0 and entries[at, KEY] != key:
        at = (at + np.uint64(1)) & mask
    return at


@njit(cache=True, nogil=True)
def _add(entries, used, keys, values, start):  # type: ignore[no-untyped-def]
    """(the first key that was not counted since the table is half full, the number of entries)."""
    for i in range(start, len(keys)):
        key, value = np.int64(keys[i]), values[i]
        at = _place(entries, key)
        if entries[at, COUNT] == 0:
            if 2 * used >= len(entries):
                return i, used
            used += 1
            entries[at, KEY], entries[at, LEAST] = key, value
        entries[at, COUNT] += 1
        entries[at, LEAST] = min(entries[at, LEAST], value)
    return len(keys), used


@njit(cache=True, nogil=True)
def _move(entries, grown):  # type: ignore[no-untyped-def]
    for i in range(len(entries)):
        if entries[i, COUNT]:
            grown[_place(grown, entries[i, KEY])] = entries[i]


@njit(cache=True, nogil=True)
def _find(entries, keys):  # type: ignore[no-untyped-def]
    counts, least = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
    for i in range(len(keys)):
        at = _place(entries, np.int64(keys[i]))
        counts[i], least[i] = entries[at, COUNT], entries[at, LEAST]
    return counts, least
