"""The values of a column in order, for exact order statistics: sorted chunks, of which only what lies about a rank is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from gristmill.validators.accumulators import Accumulator, Fields
from gristmill.validators.checked import Parts
from gristmill.validators.columns import View, float_values
from gristmill.validators.numbers import TIMES
from gristmill.validators.spill import Array, Spill, held

STEP = 512  # values for each that is sampled
MANY, FEW = 64, 1 << 14  # so many chunks of fewer values are joined


class Chunk(NamedTuple):
    """Sorted values, and of each STEP of them the last."""

    values: Array
    samples: npt.NDArray[Any]


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
            whole = _chunk(np.sort(np.concatenate(every[1:] or every)))
        return {"values": Parts([whole.values[:]], whole.values.dtype), "samples": whole.samples}

    def load(self, fields: Fields, first: int) -> None:
        self.nonnull = len(fields["values"])
        if self.nonnull:
            self._chunks = [Chunk(fields["values"], np.array(fields["samples"]))]
            self._held = held(fields["values"])
            self._spill.hold(self, self._held)

    def at(self, ranks: Sequence[int]) -> dict[int, Any]:
        """{rank: the value of that rank, from 0}, as Python numbers."""
        dtype = np.result_type(*(each.values.dtype for each in self._chunks))
        samples = np.sort(np.concatenate([each.samples.astype(dtype, copy=False) for each in self._chunks]))
        return {rank: self._select(rank, samples, dtype).item() for rank in sorted(set(ranks))}

    def _select(self, rank: int, samples: npt.NDArray[Any], dtype: np.dtype[Any]) -> Any:
        """The value of a rank. A sample stands for STEP values that are not above it, and of each chunk fewer than STEP lie between two of its samples: so
        all up to the sample `low` are before the rank and all after `high` behind it, and the few between them are read.
        """
        sure = max(
            0, (rank - len(self._chunks) * (STEP - 1)) // STEP
        )  # samples that stand for values before the rank alone
        before = int(np.searchsorted(samples, samples[sure], "left")) if sure else 0
        low = samples[before - 1] if before else None
        behind = -(-(rank + 1) // STEP) - 1
        high = samples[behind] if behind < len(samples) else None
        between, count = [], 0
        for chunk in self._chunks:
            own = chunk.samples.astype(dtype, copy=False)
            start = 0 if low is None else int(np.searchsorted(own, low, "right")) * STEP
            stop = len(chunk.values) if high is None else (int(np.searchsorted(own, high, "left")) + 1) * STEP
            values = chunk.values[start:stop].astype(dtype, copy=False)
            first = 0 if low is None else int(np.searchsorted(values, low, "right"))
            last = len(values) if high is None else int(np.searchsorted(values, high, "left"))
            count += start + first
            between.append(values[first:last])
        found = np.concatenate(between)
        return np.partition(found, rank - count)[rank - count] if rank - count < len(found) else high
