"""Hashes of rows in chunks, in order of partition, with the row of each: in memory, in a temporary file, or in a kept state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gristmill.kernels.filters import Layout
from gristmill.kernels.groups import PARTITIONS, Index, partition
from gristmill.kernels.hashing import hash_slices
from gristmill.validators.accumulators import Fields
from gristmill.validators.checked import Parts
from gristmill.validators.columns import View
from gristmill.validators.parallel import in_order
from gristmill.validators.spill import Array, Spill, held

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
EMPTY = np.zeros(0, np.int64)
LOOKED_UP = 1 << 20  # hashes looked up by a thread at a time


class Chunk(NamedTuple):
    """Some hashes in order of partition, the row of each, how many rows share it (None for one each), and where partitions begin."""

    hashes: Array
    rows: Array
    counts: Array | None
    ends: I64
    first: int

    def part(self, start: int, stop: int) -> tuple[U64, I64, I64 | None]:
        """The hashes, row numbers and counts of the partitions from `start` to before `stop`."""
        at = slice(int(self.ends[start]), int(self.ends[stop]))
        counts = None if self.counts is None else self.counts[at].astype(np.int64)
        return self.hashes[at], self.rows[at] + np.int64(self.first), counts

    def lots(self, runs: Sequence[tuple[int, int]]) -> Iterator[list[slice]]:
        """The places of some runs of partitions, LOOKED_UP rows or few more at a time."""
        lot: list[slice] = []
        size = 0
        for start, stop in runs:
            begin, end = int(self.ends[start]), int(self.ends[stop])
            for at in range(begin, end, LOOKED_UP):
                lot.append(slice(at, min(at + LOOKED_UP, end)))
                size += lot[-1].stop - at
                if size >= LOOKED_UP:
                    yield lot
                    lot, size = [], 0
        if lot:
            yield lot

    def find(self, index: Index, lot: Sequence[slice]) -> tuple[npt.NDArray[np.int32], I64, I64]:
        """(number of the known hash, row, count) of each hash in some places that the index knows."""

        def taken(array: Array) -> npt.NDArray[Any]:
            return array[lot[0]] if len(lot) == 1 else np.concatenate([array[at] for at in lot])

        places, of = index.find(taken(self.hashes))
        if not len(of):
            return of, EMPTY, EMPTY
        counts = np.ones(len(of), np.int64) if self.counts is None else taken(self.counts)[places].astype(np.int64)
        return of, taken(self.rows)[places].astype(np.int64) + self.first, counts

    def held(self) -> int:
        """Bytes in memory."""
        return held(self.hashes) + held(self.rows) + held(self.counts)


def joined(chunks: Sequence[Chunk], spill: Spill | None = None) -> Chunk:
    """One chunk of chunks whose rows follow each other; on disk with `spill`."""
    first = chunks[0].first
    last = max(chunk.first + int(chunk.rows[:].max()) for chunk in chunks)
    kind = np.int32 if last - first < 1 << 31 else np.int64
    counted = chunks[0].counts is not None
    if spill is None:
        hashes, order, ends = partition(np.concatenate([chunk.hashes[:] for chunk in chunks]))
        rows = np.concatenate([chunk.rows[:] + np.int64(chunk.first - first) for chunk in chunks]).astype(kind)
        counts = np.concatenate([chunk.counts[:] for chunk in chunks])[order] if counted else None  # type: ignore[index]
        return Chunk(hashes, rows[order], counts, ends, first)

    def column(of: Callable[[Chunk, slice], npt.NDArray[Any]], dtype: npt.DTypeLike, width: tuple[int, ...]) -> Array:
        places = ((chunk, slice(*chunk.ends[n : n + 2])) for n in range(PARTITIONS) for chunk in chunks)
        return spill.store((of(*place) for place in places), dtype, width)

    return Chunk(
        column(lambda chunk, at: chunk.hashes[at], np.uint64, chunks[0].hashes.shape[1:]),
        column(lambda chunk, at: chunk.rows[at] + np.int64(chunk.first - first), kind, ()),
        column(lambda chunk, at: chunk.counts[at], np.int64, ()) if counted else None,  # type: ignore[index]
        np.sum([chunk.ends for chunk in chunks], axis=0),
        first,
    )


def gathered(chunks: Sequence[Chunk], partitions: range) -> tuple[U64, I64, I64 | None]:
    """The hashes, row numbers and counts of some partitions of chunks in order; each value's first row comes first."""
    hashes, rows, counts = zip(*(chunk.part(partitions.start, partitions.stop) for chunk in chunks), strict=True)
    return np.concatenate(hashes), np.concatenate(rows), None if counts[0] is None else np.concatenate(counts)


def filter_fields(chunks: Sequence[Chunk], threads: int) -> Fields:
    """A filter of the hashes of chunks, to be kept: made part by part as it is written."""
    layout = Layout.of(np.diff(np.sum([chunk.ends for chunk in chunks], axis=0)))

    def part(partitions: range) -> npt.NDArray[np.uint32]:
        each = [chunk.hashes[chunk.ends[partitions.start] : chunk.ends[partitions.stop]] for chunk in chunks]
        return layout.fill(np.concatenate(each))

    tables = in_order((partial(part, each) for each in layout.partitions), min(threads, len(layout.partitions)))
    return {"filter": Parts(tables, np.uint32, block=1 << 18), "sizes": layout.sizes}  # mostly all of it is looked at


def unknown(hashes: U64, filters: Sequence[Fields]) -> npt.NDArray[np.bool_]:
    """(rows,) which hashes are surely in none of some filters, of which there are the fields of `filter_fields` where they have hashes."""
    hashes, order, ends = partition(hashes)
    new = np.ones(len(hashes), bool)
    for fields in (each for each in filters if "filter" in each):
        layout = Layout(fields["sizes"])
        for number, each in enumerate(layout.partitions):
            at = slice(ends[each.start], ends[each.stop])
            if at.start < at.stop:
                table = fields["filter"][layout.ends[number] : layout.ends[number + 1]]
                new[at] &= ~layout.maybe(number, table, hashes[at])
    found = np.empty_like(new)
    found[order] = new
    return found


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
