"""Distinct values by their hashes: exact, with bounded memory; what is too much for it lies in a temporary file."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from gristmill.kernels.groups import PARTITIONS, Groups, Index, group, partition, parts_of
from gristmill.validators.accumulators import Accumulator, Fields
from gristmill.validators.checked import Parts
from gristmill.validators.columns import Mask, View
from gristmill.validators.hashes import (
    EMPTY,
    I64,
    U64,
    Chunk,
    filter_fields,
    gathered,
    joined,
    row_hashes,
    unknown,
)
from gristmill.validators.parallel import in_order
from gristmill.validators.rows import Places, RowSet
from gristmill.validators.spill import Spill, held

MANY, FEW_ROWS = 64, 1 << 14  # so many chunks of fewer rows are joined: grouping takes time for each chunk
GROUPED, UNITS = 1 << 16, 8  # hashes that are grouped together, about; units of work of so many lots of them
UNIT_ROWS = 1 << 20  # hashes in a unit, if that is fewer: all of their rows may be among its findings
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
    """What was concluded of `considered` rows, with `kept` hashes, that lie at `places`. filters: what `conclude` said, one after another, with filters of
    all of their hashes; None where they aren't there. parts: reads their states.
    """

    facts: Facts
    considered: int
    kept: int
    places: Places
    filters: Sequence[Fields] | None
    parts: Callable[[], Sequence[Distinct]]


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
        self._known: Known | None = None  # of rows whose chunks are those of `_parts`
        self._parts: Sequence[Distinct] | None = None
        self._reading = threading.Lock()

    @property
    def chunks(self) -> Sequence[Chunk]:
        """Of its own rows, without those that it assumed."""
        return self._chunks

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
        if few and self._gap(small[0]) == self._gap(small[-1]):
            self._chunks[-MANY:] = [joined(small)]
        self._spill.hold(later, 0)
        self._held += later._held
        self._spill.hold(self, self._held)

    def spill(self) -> None:
        chunks: list[Chunk] = []
        for (is_held, _), each in itertools.groupby(self._chunks, lambda one: (one.held() > 0, self._gap(one))):
            some = list(each)
            chunks += [joined(some, self._spill)] if is_held else some
        self._chunks, self._held = chunks, 0
        if self._known and self._known.filters and any(held(fields.get("filter")) for fields in self._known.filters):
            self._known = self._known._replace(filters=None)

    def save(self, first: int) -> Fields:
        return self._saved(joined(self._chunks) if len(self._chunks) > 1 else next(iter(self._chunks), None), first)

    def _saved(self, whole: Chunk | None, first: int) -> Fields:
        fields: Fields = {"count": self.count, "considered": self.considered}
        if whole is not None:
            fields |= {
                "hashes": Parts([whole.hashes[:]], np.uint64, whole.hashes.shape[1:]),
                "rows": Parts([whole.rows[:]], whole.rows.dtype),
                "ends": whole.ends,
                "first": whole.first - first,
            }
            if whole.counts is not None:
                fields["counts"] = Parts([whole.counts[:]], whole.counts.dtype)
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
        if not self._every_row and facts.distinct < FILTERED:
            return self._saved(self._grouped(), 0)
        kept = (self._known.kept if self._known else 0) + sum(len(chunk.rows) for chunk in self._chunks)
        fields: Fields = {"large": True, "count": self.count, "considered": self.considered, "kept": kept}
        fields |= {"distinct": facts.distinct, "most": facts.most, "repeated": facts.repeated}
        if facts.modes is not None:
            fields["modes"] = facts.modes
        if facts.distinct >= max(FILTERED, kept // 2):
            filters = self._known.filters if self._known else None
            fields["extends"] = filters is not None and len(filters) < FILTERS
            chunks = self._chunks if fields["extends"] else self._every()
            fields |= filter_fields(chunks, threads) if chunks else {}
        return fields

    def assume(
        self, fields: Fields, places: Places, extended: Sequence[Fields] | None, parts: Callable[[], Sequence[Distinct]]
    ) -> None:
        modes = places.now(fields["modes"]) if "modes" in fields else None
        facts = Facts(fields["distinct"], fields["most"], places.moved(fields["repeated"]), modes)
        filters = None
        if "extends" in fields and extended is not None:
            filters = [*extended, fields]
        self._known = Known(facts, fields["considered"], fields["kept"], places, filters, parts)
        self.count, self.considered = fields["count"], fields["considered"]
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

    def _gap(self, chunk: Chunk) -> int:
        """How many known shards lie before a chunk; between two of which it is the same, none lies."""
        return self._known.places.before(chunk.first) if self._known else 0

    def _old(self) -> list[Chunk]:
        """The chunks of the rows of which it is known what was concluded."""
        if self._known and self._parts is None:
            with self._reading:
                self._parts = self._parts or self._known.parts()
        return [chunk for part in self._parts or () for chunk in part.chunks]

    def _every(self) -> list[Chunk]:
        """All chunks, in order of rows."""
        return sorted([*self._old(), *self._chunks], key=lambda chunk: chunk.first)

    def _extended(self, threads: int) -> Facts | None:
        """What is known with the rows that it isn't about: only they are grouped, all others just looked up. None where they are many."""
        rows = sum(len(each.rows) for each in self._chunks)
        if self._known is None or rows * SMALL > self._known.kept:
            return None
        known = self._known.facts
        if not rows:
            return known
        facts = Facts(known.distinct, known.most, known.repeated.copy(), known.modes)
        step = min(_step(self._chunks), max(1, PARTITIONS * self._spill.limit // (WORKING * rows * threads)))
        lots = (range(start, min(start + step, PARTITIONS)) for start in range(0, PARTITIONS, step))
        for distinct, repeated, most, firsts in in_order((partial(self._beside, lot) for lot in lots), threads):
            facts.add(distinct, repeated, most, firsts)
        return facts

    def _beside(self, partitions: range) -> tuple[int, I64, int, I64]:
        """What `_part` says, of the fresh rows beside those that are known: only what is new or changed."""
        hashes, rows, counts = gathered(self._chunks, partitions)
        if not len(rows):
            return 0, rows, 0, rows
        assert self._known is not None
        groups = group(hashes)
        totals, firsts, values = _totals(groups, counts), rows[groups.first], hashes[groups.first]
        there = np.zeros(len(values), bool)
        filters = self._known.filters
        asked = np.arange(len(values)) if filters is None else np.flatnonzero(~unknown(values, filters))
        index, repeated = Index(values[asked]), [EMPTY]
        runs = _runs(parts_of(values[asked]))
        old = self._old() if runs else ()
        for found, old_rows, old_counts in (each.find(index, lot) for each in old for lot in each.lots(runs)):
            of = asked[found]
            np.add.at(totals, of, old_counts)
            np.minimum.at(firsts, of, old_rows)
            there[of] = True
            repeated.append(old_rows)
        distinct = int(np.count_nonzero(~there))
        if self._every_row:
            repeated.append(rows[totals[groups.of] > 1])
            return distinct, np.concatenate(repeated), 0, EMPTY
        most = int(totals.max())
        return distinct, EMPTY, most, firsts[totals == most]

    def _whole(self, threads: int, few: int = FEW_MODES) -> Facts:
        facts, chunks = Facts(), self._every()
        if chunks:
            step = _step(chunks)
            threads = threads if step < PARTITIONS else 1
            lots = [range(start, start + step) for start in range(0, PARTITIONS, step)]
            rows = sum(len(chunk.rows) for chunk in chunks)
            several = max(1, min(-(-len(lots) // UNITS), UNIT_ROWS * len(lots) // rows))
            work = (partial(self._several, chunks, lots[at : at + several]) for at in range(0, len(lots), several))
            for found in in_order(work, threads):
                for distinct, repeated, most, firsts in found:
                    facts.add(distinct, repeated, most, firsts, few)
        return facts

    def _several(self, chunks: Sequence[Chunk], lots: Sequence[range]) -> list[tuple[int, I64, int, I64]]:
        return [self._part(chunks, partitions) for partitions in lots]

    def _part(self, chunks: Sequence[Chunk], partitions: range) -> tuple[int, I64, int, I64]:
        """(values, rows of values that occur more than once, the largest count, the first rows of values with it) of some partitions."""
        hashes, rows, counts = gathered(chunks, partitions)
        if not len(rows):
            return 0, rows, 0, rows
        groups = group(hashes)
        if self._every_row:
            repeated = rows[groups.counts[groups.of] > 1] if len(groups.first) < len(rows) else rows[:0]
            return len(groups.first), repeated, 0, rows[:0]
        totals = _totals(groups, counts)
        most = int(totals.max())
        return len(totals), rows[:0], most, rows[groups.first[totals == most]]

    def _gathered(self) -> Iterator[tuple[U64, I64, I64 | None]]:
        """All hashes, row numbers and counts, of some partitions at a time."""
        chunks = self._every()
        step = _step(chunks)
        for start in range(0, PARTITIONS if chunks else 0, step):
            found = gathered(chunks, range(start, start + step))
            if len(found[1]):
                yield found

    def _grouped(self) -> Chunk | None:
        """Each value once, with its first row and how often it occurs; None without values."""
        found = []
        for hashes, rows, counts in self._gathered():
            groups = group(hashes)
            found.append((hashes[groups.first], rows[groups.first], _totals(groups, counts)))
        if not found:
            return None
        hashes, rows, totals = (np.concatenate(each) for each in zip(*found, strict=True))
        hashes, order, ends = partition(hashes)
        return Chunk(hashes, rows[order], totals[order], ends, 0)

    def first_rows(self) -> Iterator[I64]:
        """The first row of each distinct value, some partitions at a time."""
        for hashes, rows, _ in self._gathered():
            yield rows[group(hashes).first]


def _step(chunks: Sequence[Chunk]) -> int:
    """How many partitions are grouped together, so that they have about GROUPED hashes."""
    rows = sum(len(chunk.rows) for chunk in chunks)
    return 1 << max(1, PARTITIONS * GROUPED // max(rows, GROUPED)).bit_length() - 1


def _totals(groups: Groups, counts: I64 | None) -> I64:
    """(groups,) the sum of the counts of each group, which are 1 for None; exact to 2^53."""
    return groups.counts if counts is None else np.bincount(groups.of, counts, len(groups.first)).astype(np.int64)


def _runs(wanted: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(start, stop) of the partitions that are wanted and follow each other."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
