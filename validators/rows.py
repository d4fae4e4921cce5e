"""A set of row numbers, small whether few or most rows are in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
BITS = 65536  # rows of a block; one that is denser than 1 in 16 is held as bits, 8 KB, else as 16-bit numbers


class RowSet:
    """Row numbers from 0, each once. At most rows / 8 bytes, and 2 bytes a member where they are few."""

    def __init__(self) -> None:
        self._blocks: dict[int, npt.NDArray[Any]] = {}  # uint16: sorted members; uint8: bits
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows: npt.ArrayLike) -> None:
        """Adds row numbers, in any order."""
        numbers = np.asarray(rows, np.int64)
        if not len(numbers):
            return
        if (np.diff(numbers) <= 0).any():
            numbers = np.sort(numbers)
            numbers = numbers[np.append(True, np.diff(numbers) > 0)]
        blocks = range(int(numbers[0]) // BITS, int(numbers[-1]) // BITS + 1)
        ends = np.searchsorted(numbers, np.array(blocks) * BITS + BITS)
        for block, start, stop in zip(blocks, [0, *ends[:-1].tolist()], ends.tolist(), strict=True):
            members = numbers[start:stop] - block * BITS
            if not len(members):
                continue
            if block in self._blocks:
                old = _members(self._blocks[block])
                self._count -= len(old)
                members = _union(old, members)
            self._blocks[block] = _pack(members)
            self._count += len(members)

    def copy(self) -> RowSet:
        """A new set of the same."""
        return self.union(RowSet())

    def union(self, other: RowSet) -> RowSet:
        """A new set: the members of both."""
        found = RowSet()
        found._blocks, found._count = dict(self._blocks), self._count
        for block, packed in other._blocks.items():
            if block not in found._blocks:
                found._blocks[block] = packed
                found._count += len(_members(packed))
            else:
                old = _members(found._blocks[block])
                members = _union(old, _members(packed))
                found._blocks[block] = _pack(members)
                found._count += len(members) - len(old)
        return found

    def moved(self, by: int) -> RowSet:
        """A new set: every number plus `by`."""
        if by == 0:
            return self.copy()
        found = RowSet()
        for rows in self.chunks(BITS):
            found.add(rows + by)
        return found

    def contains(self, rows: I64) -> npt.NDArray[np.bool_]:
        """(rows,) bool: which of these numbers are members."""
        found = np.zeros(len(rows), bool)
        blocks = rows // BITS
        for block in sorted(set(blocks.tolist())):
            if block in self._blocks:
                mask = np.zeros(BITS, bool)
                mask[_members(self._blocks[block])] = True
                at = blocks == block
                found[at] = mask[rows[at] - block * BITS]
        return found

    def within(self, start: int, stop: int) -> I64:
        """The members from `start` to before `stop`, sorted."""
        parts = [np.zeros(0, np.int64)]
        for block in range(start // BITS, (stop - 1) // BITS + 1 if stop > start else start // BITS):
            if block in self._blocks:
                rows = _members(self._blocks[block]) + block * BITS
                parts.append(rows[(rows >= start) & (rows < stop)])
        return np.concatenate(parts)

    def first(self, count: int) -> I64:
        """The `count` smallest members, sorted; all if there are fewer."""
        parts, left = [np.zeros(0, np.int64)], count
        for block in sorted(self._blocks):
            if left <= 0:
                break
            rows = _members(self._blocks[block])[:left] + block * BITS
            parts.append(rows)
            left -= len(rows)
        return np.concatenate(parts)

    def chunks(self, at_a_time: int = BITS) -> Iterator[I64]:
        """All members in order, so many at a time."""
        waiting: list[I64] = []
        held = 0
        for block in sorted(self._blocks):
            waiting.append(_members(self._blocks[block]) + block * BITS)
            held += len(waiting[-1])
            while held >= at_a_time:
                rows = np.concatenate(waiting)
                yield rows[:at_a_time]
                waiting, held = [rows[at_a_time:]], held - at_a_time
        if held:
            yield np.concatenate(waiting)

    def to_numpy(self) -> I64:
        """All members, sorted."""
        return np.concatenate([np.zeros(0, np.int64), *self.chunks()])

    def packed(self) -> npt.NDArray[np.uint8]:
        """(bytes,) the set as it is held: how many blocks, their numbers, the bytes of each (less than 0: of bits), and these."""
        blocks = sorted(self._blocks)
        parts = [np.ascontiguousarray(self._blocks[block]) for block in blocks]
        sizes = [len(part) * 2 if part.dtype == np.uint16 else -len(part) for part in parts]
        head = np.array([len(blocks), self._count, *blocks, *sizes], np.int64)
        return np.concatenate([each.view(np.uint8) for each in (head, *parts)])

    @staticmethod
    def unpacked(content: npt.NDArray[np.uint8]) -> RowSet:
        """The inverse; blocks are views of the content."""
        found = RowSet()
        blocks, found._count = content[:16].view(np.int64).tolist()
        head = content[16 : 16 + 16 * blocks].view(np.int64)
        at = 16 + 16 * blocks
        for block, size in zip(head[:blocks].tolist(), head[blocks:].tolist(), strict=True):
            found._blocks[block] = content[at : at + abs(size)].view(np.uint16 if size > 0 else np.uint8)
            at += abs(size)
        return found


class Places(NamedTuple):
    """Where the rows of some shards lie now that were laid end to end before. starts: (shards,) the first row of each before; first: now."""

    starts: I64
    first: I64

    def now(self, rows: I64) -> I64:
        """Row numbers of before as they are now; their order stays."""
        at = np.searchsorted(self.starts, rows, "right") - 1
        return rows - self.starts[at] + self.first[at]

    def moved(self, rows: RowSet) -> RowSet:
        """A set of row numbers of before, as they are now."""
        if (self.starts == self.first).all():
            return rows
        found = RowSet()
        for some in rows.chunks():
            found.add(self.now(some))
        return found

    def before(self, row: int) -> int:
        """How many of the shards lie before a row of now."""
        return int(np.searchsorted(self.first, row, "right"))


def _union(a: I64, b: I64) -> I64:
    mask = np.zeros(BITS, bool)
    mask[a] = True
    mask[b] = True
    return np.flatnonzero(mask)


def _members(packed: npt.NDArray[Any]) -> I64:
    if packed.dtype == np.uint16:
        return packed.astype(np.int64)
    return np.flatnonzero(np.unpackbits(packed))


def _pack(members: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if len(members) <= BITS // 16:
        return members.astype(np.uint16)
    mask = np.zeros(BITS, np.uint8)
    mask[members] = 1
    return np.packbits(mask)
