"""Distinct values by their hashes: exact, with bounded memory; what is too much for it lies in a temporary file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from gristmill.kernels.groups import PARTITIONS, Index, group, partition, parts_of
from gristmill.validators.accumulators import Accumulator, Fields
from gristmill.validators.checked import Parts
from gristmill.validators.columns import Mask, View
from gristmill.validators.hashes import EMPTY, I64, U64, Chunk, filter_fields, gathered, joined, row_hashes, unknown
from gristmill.validators.parallel import in_order
from gristmill.validators.rows import Places, RowSet
from gristmill.validators.spill import Array, Spill, held

MANY, FEW_ROWS = 64, 1 << 14  # so many chunks of fewer rows are joined: grouping takes time for each chunk
AT_ONCE = 32  # partitions that a thread groups before it gives its findings
SMALL = 4  # new rows are looked up among those that are known where they are fewer than 1 in so many
WORKING = 128  # bytes at most for each new row while it is looked up
FEW_MODES = 1 << 16  # of more values that share the largest count, rows are found only when asked for
FILTERED = 1 << 16  # of fewer kept hashes all are looked through for new ones, without a filter
FILTERS = 8  # conclusions that extend each other; where there would be more, a single new filter is made of all hashes


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


class Known(NamedTuple):
    """What was concluded before of the rows that lie at `places`. filters: what `conclude` said, one after another, with filters of all of their hashes; None where they aren't there."""

    facts: Facts
    places: Places
    filters: Sequence[Fields] | None


class Distinct(Accumulator):
    """The hashes of the rows of one column without nulls, or of several together, where null is a value.

    considered(view): which rows take part, None for all. every_row: each row is kept, so that `repeated` can be told; else only the first row of each
    value in a batch and how many there are. Numbers are kept as they are, all else as 128-bit digests: two different values share one
    with a chance of about rows^2 / 2^129. Memory: as `spill` has it; while grouping, that of one part in 256.
    """

    large = True

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
        self._known: Known | None = None

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
            self._chunks[-MANY:] = [joined(small)]
        self._spill.hold(later, 0)
        self._held += later._held
        self._spill.hold(self, self._held)

    def spill(self) -> None:
        chunks: list[Chunk] = []
        for (is_held, _), each in itertools.groupby(self._chunks, lambda one: (one.held() > 0, self._is_known(one))):
            some = list(each)
            chunks += [joined(some, self._spill)] if is_held else some
        self._chunks, self._held = chunks, 0
        if self._known and self._known.filters and any(held(fields.get("filter")) for fields in self._known.filters):
            self._known = self._known._replace(filters=None)

    def save(self, first: int) -> Fields:
        fields: Fields = {"count": self.count, "considered": self.considered}
        if self._chunks:
            whole = joined(self._chunks) if len(self._chunks) > 1 else self._chunks[0]
            fields |= {
                "hashes": Parts([whole.hashes[:]], np.uint64, whole.hashes.shape[1:]),
                "rows": Parts([whole.rows[:]], whole.rows.dtype),
                "ends": whole.ends,
                "first": whole.first - first,
            }
            if whole.counts is not None:
                fields["counts"] = Parts([whole.counts[:]], np.int32)
        return fields

    def load(self, fields: Fields, first: int) -> None:
        self.count, self.considered = fields["count"], fields["considered"]
        if "hashes" in fields:
            counts = None if self._every_row else fields["counts"]
            chunk = Chunk(fields["hashes"], fields["rows"], counts, fields["ends"], fields["first"] + first)
            self._chunks, self._held = [chunk], chunk.held()
            self._spill.hold(self, self._held)

    def conclude(self, threads: int) -> Fields | None:
        facts = self._facts
        if facts is None:
            return None
        fields: Fields = {"distinct": facts.distinct, "most": facts.most, "repeated": facts.repeated}
        if facts.modes is not None:
            fields["modes"] = facts.modes
        if facts.distinct >= max(FILTERED, sum(len(chunk.rows) for chunk in self._chunks) // 2):
            filters = self._known.filters if self._known else None
            fields["extends"] = filters is not None and len(filters) < FILTERS
            chunks = self._fresh() if fields["extends"] else self._chunks
            fields |= filter_fields(chunks, threads) if chunks else {}
        return fields

    def assume(self, fields: Fields, places: Places, extended: Sequence[Fields] | None) -> None:
        modes = places.now(fields["modes"]) if "modes" in fields else None
        facts = Facts(fields["distinct"], fields["most"], places.moved(fields["repeated"]), modes)
        filters = None
        if "extends" in fields and extended is not None:
            filters = [*extended, fields]
        self._known = Known(facts, places, filters)
        self._held += sum(held(each.get("filter")) for each in filters or ())
        self._spill.hold(self, self._held)

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
        return self._known is not None and self._known.places.hold(chunk.first)

    def _fresh(self) -> list[Chunk]:
        return [chunk for chunk in self._chunks if not self._is_known(chunk)]

    def _extended(self, threads: int) -> Facts | None:
        """What is known with the rows that aren't taken in: only they are grouped, all others just looked up. None where they are many."""
        fresh = self._fresh()
        old = [chunk for chunk in self._chunks if self._is_known(chunk)]
        if self._known is None or sum(len(each.rows) for each in fresh) * SMALL > sum(len(each.rows) for each in old):
            return None
        known = self._known.facts
        if not fresh:
            return known
        facts = Facts(known.distinct, known.most, known.repeated.copy(), known.modes)
        size = WORKING * sum(len(each.rows) for each in fresh)
        step = max(1, PARTITIONS * self._spill.limit // max(size, self._spill.limit))
        for start in range(0, PARTITIONS, step):
            partitions = range(start, min(start + step, PARTITIONS))
            self._extend(facts, gathered(fresh, partitions), old, threads)
        return facts

    def _extend(self, facts: Facts, fresh: tuple[U64, I64, I64], old: list[Chunk], threads: int) -> None:
        """Takes fresh (hashes, rows, counts) into the facts about the old ones."""
        hashes, rows, counts = fresh
        if not len(rows):
            return
        assert self._known is not None
        groups = group(hashes)
        totals, firsts, values = _totals(groups.of, counts, len(groups.first)), rows[groups.first], hashes[groups.first]
        there = np.zeros(len(values), bool)
        filters = self._known.filters
        asked = np.arange(len(values)) if filters is None else np.flatnonzero(~unknown(values, filters))
        index = Index(values[asked])
        runs = _runs(parts_of(values[asked]))
        work = (partial(chunk.find, index, lot) for chunk in old for lot in chunk.lots(runs))
        for found, old_rows, old_counts in in_order(work, threads):
            of = asked[found]
            np.add.at(totals, of, old_counts)
            np.minimum.at(firsts, of, old_rows)
            there[of] = True
            if self._every_row:
                facts.repeated.add(old_rows)
        if self._every_row:
            facts.add(int(np.count_nonzero(~there)), rows[totals[groups.of] > 1], 0, rows[:0])
        else:
            most = int(totals.max())
            facts.add(int(np.count_nonzero(~there)), rows[:0], most, firsts[totals == most])

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
        hashes, rows, counts = gathered(self._chunks, range(number, number + 1))
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
            hashes, rows, _ = gathered(self._chunks, range(number, number + 1))
            if len(rows):
                yield rows[group(hashes).first]


def _totals(of: npt.NDArray[Any], counts: Array | None, groups: int) -> I64:
    """(groups,) the sum of the counts of each group, which are 1 for None; exact to 2^53."""
    return np.bincount(of, None if counts is None else counts[:], groups).astype(np.int64)


def _runs(wanted: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(start, stop) of the partitions that are wanted and follow each other."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
