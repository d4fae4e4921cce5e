"""Distinct values by their hashes: exact, with bounded memory; what is too much for it lies in a temporary file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from gristmill.kernels.groups import PARTITIONS, Index, group, partition
from gristmill.kernels.hashing import hash_slices
from gristmill.validators.accumulators import Accumulator, Fields
from gristmill.validators.columns import Mask, View
from gristmill.validators.parallel import in_order
from gristmill.validators.rows import Places, RowSet
from gristmill.validators.spill import Array, Spill, held

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
MANY, FEW_ROWS = 64, 1 << 14  # so many chunks of fewer rows are joined: grouping takes time for each chunk
AT_ONCE = 32  # partitions that a thread groups before it gives its findings
LOOKED_UP = 1 << 20  # hashes looked up by a thread at a time
SMALL = 4  # new rows are looked up among those that are known where they are fewer than 1 in so many
WORKING = 128  # bytes at most for each new row while it is looked up
EMPTY = np.zeros(0, np.int64)
FEW_MODES = 1 << 16  # of more values that share the largest count, rows are found only when asked for


class Chunk(NamedTuple):
    """Some hashes in order of partition, the row of each, how many rows share it (None for one each), and where partitions begin."""

    hashes: Array
    rows: Array
    counts: Array | None
    ends: I64
    first: int

    def part(self, start: int, stop: int) -> tuple[U64, I64, I64]:
        """The hashes, row numbers and counts of the partitions from `start` to before `stop`."""
        at = slice(int(self.ends[start]), int(self.ends[stop]))
        counts = np.ones(at.stop - at.start, np.int64) if self.counts is None else self.counts[at].astype(np.int64)
        return self.hashes[at], self.rows[at].astype(np.int64) + self.first, counts

    def find(self, index: Index, at: slice) -> tuple[npt.NDArray[np.int32], I64, I64]:
        """(number of the known hash, row, count) of each hash of a part that the index knows."""
        places, of = index.find(self.hashes[at])
        counts = np.ones(len(of), np.int64) if self.counts is None else self.counts[at][places].astype(np.int64)
        return of, self.rows[at][places].astype(np.int64) + self.first, counts

    def held(self) -> int:
        """Bytes in memory."""
        return held(self.hashes) + held(self.rows) + held(self.counts)


def _joined(chunks: Sequence[Chunk], spill: Spill | None = None) -> Chunk:
    """One chunk of chunks whose rows follow each other; on disk with `spill`."""
    first = chunks[0].first
    last = max(chunk.first + int(chunk.rows[:].max()) for chunk in chunks)

    def column(of: Callable[[Chunk, slice], npt.NDArray[Any]], dtype: npt.DTypeLike, width: tuple[int, ...]) -> Array:
        each = (
            [of(chunk, slice(*chunk.ends[number : number + 2])) for chunk in chunks] for number in range(PARTITIONS)
        )
        parts = itertools.chain.from_iterable(each)
        return (
            np.concatenate(list(parts)).astype(dtype, copy=False) if spill is None else spill.store(parts, dtype, width)
        )

    hashes = column(lambda chunk, at: chunk.hashes[at], np.uint64, chunks[0].hashes.shape[1:])
    kind = np.int32 if last - first < 1 << 31 else np.int64
    rows = column(lambda chunk, at: chunk.rows[at] + np.int64(chunk.first - first), kind, ())
    counts = None
    if chunks[0].counts is not None:
        counts = column(lambda chunk, at: chunk.counts[at], np.int32, ())  # type: ignore[index]
    return Chunk(hashes, rows, counts, np.sum([chunk.ends for chunk in chunks], axis=0), first)


class Facts:
    """distinct: how many values. repeated: the rows whose value occurs more than once, where every row is kept; else
    modes: the first row of each value with the largest count `most`, None for more than FEW_MODES.
    """

    def __init__(
        self, distinct: int = 0, most: int = 0, repeated: RowSet | None = None, modes: I64 | None = EMPTY
    ) -> None:
        self.distinct, self.most = distinct, most
        self.repeated = RowSet() if repeated is None else repeated
        self._modes = None if modes is None else [modes]

    def add(self, distinct: int, repeated: I64, most: int, firsts: I64, few: int = FEW_MODES) -> None:
        """Takes in values that it doesn't have, or that occur more often than it knew."""
        self.distinct += distinct
        self.repeated.add(repeated)
        if most > self.most:
            self.most, self._modes = most, []
        if most == self.most and self._modes is not None:
            self._modes.append(firsts)
            self._modes = self._modes if sum(map(len, self._modes)) <= few else None

    @property
    def modes(self) -> I64 | None:
        """Sorted."""
        return None if self._modes is None else np.sort(np.concatenate([EMPTY, *self._modes]))


class Distinct(Accumulator):
    """The hashes of the rows of one column without nulls, or of several together, where null is a value.

    considered(view): which rows take part, None for all. every_row: each row is kept, so that `repeated` can be told; else only the first row of each
    value in a batch and how many there are. Numbers are kept as they are, all else as 128-bit digests: two different values share one
    with a chance of about rows^2 / 2^129. Memory: as `spill` has it; while grouping, that of one part in 256.
    """

    def __init__(
        self,
        columns: Sequence[str],
        spill: Spill,
        considered: Callable[[View], Mask | None] | None = None,
        *,
        every_row: bool = False,
    ) -> None:
        self.columns = tuple(columns)
        self._considered, self._every_row = considered, every_row
        self._spill = spill
        self.count = self.considered = 0
        self._chunks: list[Chunk] = []
        self._held = 0
        self._facts: Facts | None = None
        self._known: tuple[Facts, Places] | None = None

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
        small = self._chunks[-MANY:]
        few = len(small) == MANY and all(len(chunk.rows) < FEW_ROWS and chunk.held() for chunk in small)
        if few and len({self._is_known(chunk) for chunk in small}) == 1:
            self._chunks[-MANY:] = [_joined(small)]
        self._spill.hold(later, 0)
        self._held += later._held
        self._spill.hold(self, self._held)

    def spill(self) -> None:
        chunks: list[Chunk] = []
        for (is_held, _), each in itertools.groupby(self._chunks, lambda one: (one.held() > 0, self._is_known(one))):
            some = list(each)
            chunks += [_joined(some, self._spill)] if is_held else some
        self._chunks, self._held = chunks, 0

    def save(self, first: int) -> Fields:
        fields: Fields = {"count": self.count, "considered": self.considered}
        if self._chunks:
            whole = _joined(self._chunks) if len(self._chunks) > 1 else self._chunks[0]
            fields |= {
                "hashes": whole.hashes[:],
                "rows": whole.rows[:],
                "ends": whole.ends,
                "first": whole.first - first,
            }
            if whole.counts is not None:
                fields["counts"] = whole.counts[:]
        return fields

    def load(self, fields: Fields, first: int) -> None:
        self.count, self.considered = fields["count"], fields["considered"]
        if "hashes" in fields:
            counts = None if self._every_row else fields["counts"]
            chunk = Chunk(fields["hashes"], fields["rows"], counts, fields["ends"], fields["first"] + first)
            self._chunks, self._held = [chunk], chunk.held()
            self._spill.hold(self, self._held)

    def conclude(self) -> Fields | None:
        facts = self._facts
        if facts is None:
            return None
        fields: Fields = {"distinct": facts.distinct, "most": facts.most, "repeated": facts.repeated}
        modes = facts.modes
        return fields if modes is None else {**fields, "modes": modes}

    def assume(self, fields: Fields, places: Places) -> None:
        modes = places.now(fields["modes"]) if "modes" in fields else None
        self._known = Facts(fields["distinct"], fields["most"], places.moved(fields["repeated"]), modes), places

    def facts(self, threads: int = 2) -> Facts:
        """What the hashes say; worked out once."""
        if self._facts is None:
            self._facts = self._extended(threads) or self._whole(threads)
        return self._facts

    def modes(self, threads: int = 2) -> I64:
        """The first row of each value with the largest count, sorted."""
        modes = self.facts(threads).modes
        found = self._whole(threads, few=self.considered).modes if modes is None else modes
        assert found is not None
        return found

    def _is_known(self, chunk: Chunk) -> bool:
        return self._known is not None and self._known[1].hold(chunk.first)

    def _extended(self, threads: int) -> Facts | None:
        """What is known with the rows that aren't taken in: only they are grouped, all others just looked up. None where they are many."""
        fresh = [chunk for chunk in self._chunks if not self._is_known(chunk)]
        old = [chunk for chunk in self._chunks if self._is_known(chunk)]
        if self._known is None or sum(len(each.rows) for each in fresh) * SMALL > sum(len(each.rows) for each in old):
            return None
        known = self._known[0]
        if not fresh:
            return known
        facts = Facts(known.distinct, known.most, known.repeated.copy(), known.modes)
        size = WORKING * sum(len(each.rows) for each in fresh)
        step = max(1, PARTITIONS * self._spill.limit // max(size, self._spill.limit))
        for start in range(0, PARTITIONS, step):
            self._extend(facts, fresh, old, range(start, min(start + step, PARTITIONS)), threads)
        return facts

    def _extend(self, facts: Facts, fresh: list[Chunk], old: list[Chunk], partitions: range, threads: int) -> None:
        """Takes the fresh rows of some partitions into the facts about the old ones."""
        hashes, rows, counts = _gathered(fresh, partitions)
        if not len(rows):
            return
        groups = group(hashes)
        totals, firsts = _totals(groups.of, counts, len(groups.first)), rows[groups.first]
        index, there = Index(hashes[groups.first]), np.zeros(len(totals), bool)
        work: list[tuple[Chunk, slice]] = []
        for chunk in old:
            begin, end = int(chunk.ends[partitions.start]), int(chunk.ends[partitions.stop])
            work += [(chunk, slice(at, min(at + LOOKED_UP, end))) for at in range(begin, end, LOOKED_UP)]
        for of, old_rows, old_counts in in_order((partial(chunk.find, index, at) for chunk, at in work), threads):
            np.add.at(totals, of, old_counts)
            np.minimum.at(firsts, of, old_rows)
            there[of] = True
            if self._every_row:
                facts.repeated.add(old_rows)
        new = int(np.count_nonzero(~there))
        if self._every_row:
            facts.add(new, rows[totals[groups.of] > 1], 0, rows[:0])
        else:
            most = int(totals.max())
            facts.add(new, rows[:0], most, firsts[totals == most])

    def _whole(self, threads: int, few: int = FEW_MODES) -> Facts:
        facts = Facts()
        if self._chunks:
            work = (partial(self._several, start) for start in range(0, PARTITIONS, AT_ONCE))
            for several in in_order(work, threads):
                for distinct, repeated, most, firsts in several:
                    facts.add(distinct, repeated, most, firsts, few)
        return facts

    def _several(self, start: int) -> list[tuple[int, I64, int, I64]]:
        return [self._part(number) for number in range(start, start + AT_ONCE)]

    def _part(self, number: int) -> tuple[int, I64, int, I64]:
        """(values, rows of values that occur more than once, the largest count, the first rows of values with it) of a partition."""
        hashes, rows, counts = _gathered(self._chunks, range(number, number + 1))
        if not len(rows):
            return 0, rows, 0, rows
        groups = group(hashes)
        if self._every_row:
            repeated = rows[groups.counts[groups.of] > 1] if len(groups.first) < len(rows) else rows[:0]
            return len(groups.first), repeated, 0, rows[:0]
        totals = _totals(groups.of, counts, len(groups.first))
        most = int(totals.max())
        return len(totals), rows[:0], most, rows[groups.first[totals == most]]

    def first_rows(self) -> Iterator[I64]:
        """The first row of each distinct value, a partition at a time."""
        for number in range(PARTITIONS if self._chunks else 0):
            hashes, rows, _ = _gathered(self._chunks, range(number, number + 1))
            if len(rows):
                yield rows[group(hashes).first]


def _gathered(chunks: Sequence[Chunk], partitions: range) -> tuple[U64, I64, I64]:
    """The hashes, row numbers and counts of some partitions of chunks in order; each value's first row comes first."""
    parts = [chunk.part(partitions.start, partitions.stop) for chunk in chunks]
    hashes, rows, counts = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return hashes, rows, counts


def _totals(of: npt.NDArray[Any], counts: Array | None, groups: int) -> I64:
    """(groups,) the sum of the counts of each group, which are 1 for None; exact to 2^53."""
    return np.bincount(of, None if counts is None else counts[:], groups).astype(np.int64)


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
