"""Distinct values by their hashes: exact, with bounded memory; hashes over the limit lie in a temporary file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from gristmill.kernels.groups import PARTITIONS, group, partition
from gristmill.kernels.hashing import hash_slices
from gristmill.validators.accumulators import Accumulator, Fields
from gristmill.validators.columns import Mask, View
from gristmill.validators.rows import RowSet

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
MANY, FEW_ROWS = 64, 1 << 14  # so many chunks of fewer rows are joined: grouping takes time for each chunk
AT_ONCE = 32  # partitions that a thread groups before it gives its findings


class Chunk(NamedTuple):
    """Some hashes in order of partition, the row of each, how many rows share it (None for one each), and where partitions begin."""

    hashes: U64
    rows: npt.NDArray[Any]
    counts: npt.NDArray[Any] | None
    ends: I64
    first: int

    def part(self, number: int) -> tuple[U64, I64, I64]:
        """The hashes, row numbers and counts of a partition."""
        at = slice(self.ends[number], self.ends[number + 1])
        counts = np.ones(at.stop - at.start, np.int64) if self.counts is None else self.counts[at].astype(np.int64)
        return self.hashes[at], self.rows[at].astype(np.int64) + self.first, counts

    def arrays(self) -> list[npt.NDArray[Any]]:
        """All that it holds."""
        return [self.hashes, self.rows] if self.counts is None else [self.hashes, self.rows, self.counts]

    def held(self) -> int:
        """Bytes in memory."""
        return sum(array.nbytes for array in self.arrays() if not isinstance(array, np.memmap))

    def spilled(self, spill: Spill) -> Chunk:
        """The same, on disk."""
        counts = None if self.counts is None else spill.store(self.counts)
        return self._replace(hashes=spill.store(self.hashes), rows=spill.store(self.rows), counts=counts)


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    """One chunk of all, rows in order."""
    first = chunks[0].first
    table, order, ends = partition(np.concatenate([chunk.hashes for chunk in chunks]))
    rows = np.concatenate([chunk.rows + np.int64(chunk.first - first) for chunk in chunks])[order]
    counts = None
    if chunks[0].counts is not None:
        counts = np.concatenate([chunk.counts for chunk in chunks if chunk.counts is not None])[order]
    return Chunk(table, rows, counts, ends, first)


class Spill:
    """A temporary file that arrays move into; it goes with the last array."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def store(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The same array, on disk."""
        if not array.size:
            return array
        handle, path = tempfile.mkstemp(prefix="gristmill-validate-")
        try:
            with os.fdopen(handle, "wb") as file:
                array.tofile(file)
            return np.memmap(path, array.dtype, "r", shape=array.shape)
        finally:
            os.unlink(path)  # the mapping keeps it until it is closed


class Distinct(Accumulator):
    """The hashes of the rows of one column without nulls, or of several together, where null is a value.

    considered(view): which rows take part, None for all. every_row: each row is kept, so that `repeated` can be told; else only the first row of each
    value in a batch and how many there are. Numbers are kept as they are, all else as 128-bit digests: two different values share one
    with a chance of about rows^2 / 2^129. Memory: `limit` bytes, then the disk; while grouping, that of one part in 256.
    """

    def __init__(
        self,
        columns: Sequence[str],
        limit: int,
        considered: Callable[[View], Mask | None] | None = None,
        *,
        every_row: bool = False,
    ) -> None:
        self.columns = tuple(columns)
        self._considered, self._every_row = considered, every_row
        self._spill = Spill(limit)
        self.count = self.considered = 0
        self._chunks: list[Chunk] = []
        self._held = 0
        self._facts: Facts | None = None

    def update(self, view: View) -> None:
        self.count += view.rows
        mask = self._considered(view) if self._considered else None
        if len(self.columns) == 1:
            column = view.column(self.columns[0])
            there = column.valid if mask is None else mask if column.valid is None else mask & column.valid
            if there is not None and not there.any():
                return
            hashes = column.hashes
            if mask is not None:
                hashes = hashes[mask if column.valid is None else mask[column.valid]]
        else:
            hashes, there = row_hashes(view, self.columns), mask
            hashes = hashes if mask is None else hashes[mask]
        self.considered += len(hashes)
        if len(hashes):
            self._add(hashes.reshape(len(hashes), -1), view.numbers(there))

    def _add(self, hashes: U64, rows: I64) -> None:
        counts = None
        if not self._every_row:
            groups = group(hashes)
            hashes, rows, counts = hashes[groups.first], rows[groups.first], groups.counts.astype(np.int32)
        table, order, ends = partition(hashes)
        first = int(rows[0])
        counts = None if counts is None else counts[order]
        self._chunks.append(Chunk(table, (rows - first).astype(np.int32)[order], counts, ends, first))
        self._held += self._chunks[-1].held()

    def merge(self, later: Self) -> None:
        self.count += later.count
        self.considered += later.considered
        self._chunks += later._chunks
        self._facts = None
        self._held += later._held
        if self._held > self._spill.limit:
            self._chunks = [chunk.spilled(self._spill) if chunk.held() else chunk for chunk in self._chunks]
            self._held = 0
        small = self._chunks[-MANY:]
        if len(small) == MANY and all(len(chunk.rows) < FEW_ROWS and chunk.held() for chunk in small):
            self._chunks[-MANY:] = [_joined(small)]

    def save(self, first: int) -> Fields:
        fields: Fields = {
            "count": self.count,
            "considered": self.considered,
            "ends": np.array([each.ends for each in self._chunks]),
        }
        if self._chunks:
            fields["hashes"] = np.concatenate([each.hashes for each in self._chunks])
            fields["rows"] = np.concatenate([each.rows for each in self._chunks])
            fields["firsts"] = [each.first - first for each in self._chunks]
            if not self._every_row:
                fields["counts"] = np.concatenate([each.counts for each in self._chunks if each.counts is not None])
        return fields

    def load(self, fields: Fields, first: int) -> None:
        self.count, self.considered = fields["count"], fields["considered"]
        start = 0
        for i, ends in enumerate(fields["ends"]):
            at = slice(start, start := start + int(ends[-1]))
            counts = None if self._every_row else fields["counts"][at]
            self._chunks.append(
                Chunk(fields["hashes"][at], fields["rows"][at], counts, ends, fields["firsts"][i] + first)
            )

    def facts(self, threads: int = 2) -> Facts:
        """What the hashes say; worked out once."""
        if self._facts is None:
            self._facts = Facts()
            if self._chunks:
                starts = range(0, PARTITIONS, AT_ONCE)
                with ThreadPoolExecutor(threads) as pool:
                    for several in pool.map(lambda start: [self._part(start + i) for i in range(AT_ONCE)], starts):
                        for found in several:
                            self._facts.add(*found)
        return self._facts

    def _gather(self, number: int) -> tuple[U64, I64, I64]:
        parts = [chunk.part(number) for chunk in self._chunks]
        hashes, rows, counts = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return hashes, rows, counts

    def _part(self, number: int) -> tuple[int, I64, int, I64]:
        """(values, rows of values that occur more than once, the largest count, the first rows of values with it) of a partition."""
        hashes, rows, counts = self._gather(number)
        if not len(rows):
            return 0, rows, 0, rows
        groups = group(hashes)
        totals = groups.counts if self._every_row else np.bincount(groups.of, counts).astype(np.int64)
        most = int(totals.max())
        repeated = rows[totals[groups.of] > 1] if self._every_row and most > 1 else rows[:0]
        return len(totals), repeated, most, rows[groups.first[totals == most]]

    def first_rows(self) -> Iterator[I64]:
        """The first row of each distinct value, a partition at a time."""
        for number in range(PARTITIONS if self._chunks else 0):
            hashes, rows, _ = self._gather(number)
            if len(rows):
                yield rows[group(hashes).first]


class Facts:
    """distinct: how many values. repeated: the rows whose value occurs more than once. modes: the first row of each value with the largest count."""

    def __init__(self) -> None:
        self.distinct = self.most = 0
        self.repeated = RowSet()
        self._modes: list[I64] = []

    def add(self, distinct: int, repeated: I64, most: int, firsts: I64) -> None:
        """Takes a partition in."""
        self.distinct += distinct
        self.repeated.add(repeated)
        if most > self.most:
            self.most, self._modes = most, []
        if most == self.most and distinct:
            self._modes.append(firsts)

    @property
    def modes(self) -> I64:
        """Sorted."""
        return np.sort(np.concatenate([np.zeros(0, np.int64), *self._modes]))


def row_hashes(view: View, names: Sequence[str]) -> U64:
    """(rows, 2): equal where all of these columns are equal or null together."""
    words = np.zeros((view.rows, 3 * len(names)), np.uint64)
    for i, name in enumerate(names):
        column = view.column(name)
        hashes = column.hashes if column.hashes.ndim == 2 else column.hashes[:, None]
        there = slice(None) if column.valid is None else column.valid
        words[there, 3 * i] = 1
        words[there, 3 * i + 1 : 3 * i + 1 + hashes.shape[1]] = hashes
    size = 24 * len(names)
    return hash_slices(words.view(np.uint8).reshape(-1), np.arange(view.rows + 1, dtype=np.int64) * size)
