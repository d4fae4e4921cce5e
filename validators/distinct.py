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


class Chunk(NamedTuple):
    """Some hashes in order of partition, the row number of each, and where partitions begin."""

    hashes: U64
    rows: npt.NDArray[Any]
    ends: I64
    first: int

    def part(self, number: int) -> tuple[U64, I64]:
        """The hashes and row numbers of a partition."""
        at = slice(self.ends[number], self.ends[number + 1])
        return self.hashes[at], self.rows[at].astype(np.int64) + self.first

    def held(self) -> int:
        """Bytes in memory."""
        return 0 if isinstance(self.hashes, np.memmap) else self.hashes.nbytes + self.rows.nbytes


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

    considered(view): which rows take part, None for all. Numbers are kept as they are, all else as 128-bit digests: two different values share one
    with a chance of about rows^2 / 2^129. Memory: `limit` bytes, then the disk; while grouping, that of one part in 256.
    """

    def __init__(
        self, columns: Sequence[str], limit: int, considered: Callable[[View], Mask | None] | None = None
    ) -> None:
        self.columns = tuple(columns)
        self._considered = considered
        self._spill = Spill(limit)
        self.count = self.considered = 0
        self._chunks: list[Chunk] = []
        self._groups: _Groups | None = None

    def update(self, view: View) -> None:
        self.count += view.rows
        mask = self._considered(view) if self._considered else None
        if len(self.columns) == 1:
            column = view.column(self.columns[0])
            hashes, there = column.hashes, column.valid
            if mask is not None:
                hashes = hashes[mask if there is None else mask[there]]
                there = mask if there is None else mask & there
        else:
            hashes, there = row_hashes(view, self.columns), mask
            hashes = hashes if mask is None else hashes[mask]
        self.considered += len(hashes)
        if len(hashes):
            table, order, ends = partition(hashes.reshape(len(hashes), -1))
            rows = view.numbers(there)
            first = int(rows[0])
            self._chunks.append(Chunk(table, (rows - first).astype(np.int32)[order], ends, first))

    def merge(self, later: Self) -> None:
        self.count += later.count
        self.considered += later.considered
        self._chunks += later._chunks
        self._groups = None
        if sum(chunk.held() for chunk in self._chunks) > self._spill.limit:
            self._chunks = [
                chunk._replace(hashes=self._spill.store(chunk.hashes), rows=self._spill.store(chunk.rows))
                if chunk.held()
                else chunk
                for chunk in self._chunks
            ]

    def save(self) -> Fields:
        width = self._chunks[0].hashes.shape[1] if self._chunks else 1
        hashes = np.concatenate([np.zeros((0, width), np.uint64), *(chunk.hashes for chunk in self._chunks)])
        rows = np.concatenate(
            [np.zeros(0, np.int64), *(chunk.rows.astype(np.int64) + chunk.first for chunk in self._chunks)]
        )
        ends = np.array([chunk.ends for chunk in self._chunks])
        return {
            "count": self.count,
            "considered": self.considered,
            "hashes": hashes,
            "rows": rows.astype(np.int32),
            "ends": ends,
        }

    def load(self, fields: Fields, first: int) -> None:
        self.count, self.considered = fields["count"], fields["considered"]
        start = 0
        for ends in fields["ends"]:
            stop = start + int(ends[-1])
            self._chunks.append(Chunk(fields["hashes"][start:stop], fields["rows"][start:stop], ends, first))
            start = stop

    def groups(self, threads: int = 2) -> _Groups:
        """What the hashes say; worked out once."""
        if self._groups is None:
            self._groups = _Groups()
            with ThreadPoolExecutor(threads) as pool:
                for found in pool.map(self._part, range(PARTITIONS)):
                    self._groups.add(found)
        return self._groups

    def _part(self, number: int) -> tuple[int, I64, int, I64]:
        """(groups, rows of groups with several, the largest group, the first rows of groups of that size) of a partition."""
        parts = [chunk.part(number) for chunk in self._chunks]
        hashes = np.concatenate([part[0] for part in parts]) if parts else np.zeros((0, 1), np.uint64)
        if not len(hashes):
            return 0, np.zeros(0, np.int64), 0, np.zeros(0, np.int64)
        rows = np.concatenate([part[1] for part in parts])
        of, groups = group(hashes)
        if groups == len(hashes):
            return groups, rows[:0], 1, rows
        counts = np.bincount(of, minlength=groups)
        firsts = np.full(groups, len(of), np.int64)
        np.minimum.at(firsts, of, np.arange(len(of)))
        most = int(counts.max())
        return groups, rows[counts[of] > 1], most, rows[firsts[counts == most]]

    def first_rows(self) -> Iterator[I64]:
        """The first row of each distinct value, a partition at a time."""
        for number in range(PARTITIONS):
            parts = [chunk.part(number) for chunk in self._chunks]
            if parts and sum(len(part[0]) for part in parts):
                of, groups = group(np.concatenate([part[0] for part in parts]))
                firsts = np.full(groups, len(of), np.int64)
                np.minimum.at(firsts, of, np.arange(len(of)))
                yield np.concatenate([part[1] for part in parts])[firsts]


class _Groups:
    """distinct: how many values. repeated: the rows whose value occurs more than once. most, modes: the largest count, a row of each value with it."""

    def __init__(self) -> None:
        self.distinct = self.most = 0
        self.repeated = RowSet()
        self._modes: list[I64] = []

    def add(self, found: tuple[int, I64, int, I64]) -> None:
        """Takes a partition in."""
        groups, repeated, most, firsts = found
        self.distinct += groups
        self.repeated.add(np.sort(repeated))
        if most > self.most:
            self.most, self._modes = most, []
        if most == self.most and groups:
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
        hashes = column.hashes.reshape(column.nonnull, -1)
        there = slice(None) if column.valid is None else column.valid
        words[there, 3 * i] = 1
        words[there, 3 * i + 1 : 3 * i + 1 + hashes.shape[1]] = hashes
    size = 24 * len(names)
    return hash_slices(words.view(np.uint8).reshape(-1), np.arange(view.rows + 1, dtype=np.int64) * size)
