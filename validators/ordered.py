"""The values of a column in order, for exact order statistics: sorted chunks, of which only what lies about a rank is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from gristmill.validators.accumulators import Accumulator, Fields
from gristmill.validators.checked import Parts
from gristmill.validators.columns import View, float_values
from gristmill.validators.numbers import TIMES
from gristmill.validators.rows import Places
from gristmill.validators.spill import Array, Spill, held

STEP = 512  # values for each that is sampled
MANY, FEW = 64, 1 << 14  # so many chunks of fewer values are joined
REACH = 1 << 12  # values that are kept on each side of a rank that was asked for; 1 in STEP where that is more


class Chunk(NamedTuple):
    """Sorted values, and of each STEP of them the last."""

    values: Array
    samples: npt.NDArray[Any]


class Window(NamedTuple):
    """Those values, sorted, whose ranks follow each other from `start` on, among `total` of all."""

    start: int
    values: npt.NDArray[Any]
    total: int

    def has(self, rank: int) -> bool:
        return self.start <= rank < self.start + len(self.values)

    def near(self, rank: int) -> Window:
        """What is kept of it for a rank."""
        reach = _reach(self.total)
        first = max(0, rank - self.start - reach)
        return Window(self.start + first, self.values[first : rank - self.start + reach + 1], self.total)

    def among(self, chunks: Sequence[Chunk]) -> Window:
        """The window beside further values: those between its own, and beyond them where it has the first or last of all."""
        start, inside, total = self.start, [self.values], self.total
        for values in (chunk.values[:] for chunk in chunks):
            first = int(np.searchsorted(values, self.values[0], "left")) if self.start else 0
            last = self.start + len(self.values) < self.total
            stop = int(np.searchsorted(values, self.values[-1], "right")) if last else len(values)
            inside.append(values[first:stop])
            start, total = start + first, total + len(values)
        return Window(start, np.sort(np.concatenate(inside), kind="stable"), total)


def _chunk(values: npt.NDArray[Any]) -> Chunk:
    """values: sorted already."""
    return Chunk(values, values[STEP - 1 :: STEP].copy())


class Ordered(Accumulator):
    """All values of a numeric or temporal column. Memory: as `spill` has it, and one value in 512."""

    large = True

    def __init__(self, column: str, spill: Spill) -> None:
        self.columns = (column,)
        self._spill = spill
        self._chunks: list[Chunk] = []
        self.nonnull = self._held = 0
        self._known: list[Window] = []  # of the values that aren't in `_chunks` but in those of `_parts`
        self._parts: Callable[[], Sequence[Ordered]] | None = None
        self._windows: list[Window] | None = None
        self._asked: dict[int, Window] = {}

    @property
    def chunks(self) -> Sequence[Chunk]:
        """Of its own values, without those that it assumed."""
        return self._chunks

    def update(self, view: View) -> None:
        column = view.column(self.columns[0])
        values = column.numbers if column.kind in TIMES else float_values(column)
        self.nonnull += len(values)
        if len(values):
            values = values + values.dtype.type(0)  # a copy in which -0.0 is 0.0
            values.sort()
            self._chunks.append(_chunk(values))
            self._held += values.nbytes

    def merge(self, later: Self) -> None:
        self.nonnull += later.nonnull
        self._chunks += later._chunks
        small = self._chunks[-MANY:]
        if len(small) == MANY and all(len(each.values) < FEW and held(each.values) for each in small):
            self._chunks[-MANY:] = [_chunk(np.sort(np.concatenate([each.values[:] for each in small])))]
        self._spill.hold(later, 0)
        self._held += later._held
        self._spill.hold(self, self._held)

    def spill(self) -> None:
        self._chunks = [
            Chunk(self._spill.store([each.values[:]], each.values.dtype), each.samples) if held(each.values) else each
            for each in self._chunks
        ]
        self._held = 0

    def save(self, first: int) -> Fields:
        if len(self._chunks) == 1:
            whole = self._chunks[0]
        else:
            every = [np.zeros(0), *(each.values[:] for each in self._chunks)]
            whole = _chunk(np.sort(np.concatenate(every[1:] or every), kind="stable"))
        return {"values": Parts([whole.values[:]], whole.values.dtype), "samples": whole.samples}

    def load(self, fields: Fields, first: int) -> None:
        self.nonnull = len(fields["values"])
        if self.nonnull:
            self._chunks = [Chunk(fields["values"], np.array(fields["samples"]))]
            self._held = held(fields["values"])
            self._spill.hold(self, self._held)

    def conclude(self, threads: int) -> Fields | None:
        kept: list[Window] = []
        for rank, window in sorted(self._asked.items()):
            if not kept or not kept[-1].has(min(rank + _reach(self.nonnull) // 2, self.nonnull - 1)):
                kept.append(window.near(rank))
        starts = [window.start for window in kept]
        fields: Fields = {"large": True, "nonnull": self.nonnull, "starts": starts}
        return fields | {str(window.start): window.values for window in kept} if kept else None

    def assume(
        self, fields: Fields, places: Places, extended: Sequence[Fields] | None, parts: Callable[[], Sequence[Ordered]]
    ) -> None:
        count = fields["nonnull"]
        self._known = [Window(start, fields[str(start)], count) for start in fields["starts"]]
        self.nonnull, self._parts = count, parts

    def at(self, ranks: Sequence[int]) -> dict[int, Any]:
        """{rank: the value of that rank, from 0}, as Python numbers."""
        if self._windows is None:
            self._windows = [window.among(self._chunks) for window in self._known]
        for rank in ranks:
            window = next((each for each in self._windows if each.has(rank)), None)
            if window is None:
                window = self._around(rank)
                self._windows.append(window)
            self._asked[rank] = window
        return {rank: self._asked[rank].values[rank - self._asked[rank].start].item() for rank in ranks}

    def _around(self, rank: int) -> Window:
        """The values about a rank. A sample stands for STEP values that are not above it, and of each chunk fewer than STEP lie between two of its
        samples: so all below the sample `low` are before the window and all above `high` behind it, and the few between them are read.
        """
        chunks = [*(chunk for part in (self._parts() if self._parts else ()) for chunk in part.chunks), *self._chunks]
        first, last = max(0, rank - _reach(self.nonnull)), min(self.nonnull - 1, rank + _reach(self.nonnull))
        dtype = np.result_type(*(each.values.dtype for each in chunks))
        samples = np.sort(np.concatenate([each.samples.astype(dtype, copy=False) for each in chunks]))
        sure = max(
            0, (first - len(chunks) * (STEP - 1)) // STEP
        )  # samples that stand for values before the first alone
        low = samples[sure - 1] if sure else None
        behind = -(-(last + 1) // STEP) - 1
        high = samples[behind] if behind < len(samples) else None
        between, before = [], 0  # those between low and high, how many are up to low
        for chunk in chunks:
            own = chunk.samples.astype(dtype, copy=False)
            start = 0 if low is None else int(np.searchsorted(own, low, "right")) * STEP
            stop = len(chunk.values) if high is None else (int(np.searchsorted(own, high, "left")) + 1) * STEP
            values = chunk.values[start:stop].astype(dtype, copy=False)
            begin = 0 if low is None else int(np.searchsorted(values, low, "right"))
            end = len(values) if high is None else int(np.searchsorted(values, high, "left"))
            before += start + begin
            between.append(values[begin:end])
        inside = np.sort(np.concatenate(between))
        lows = np.full(max(before - first, 0), 0 if low is None else low, dtype)  # of many equal ones not all are read
        highs = np.full(max(last + 1 - before - len(inside), 0), 0 if high is None else high, dtype)
        return Window(min(first, before), np.concatenate([lows, inside, highs]), self.nonnull)


def _reach(count: int) -> int:
    return max(REACH, count // STEP)
