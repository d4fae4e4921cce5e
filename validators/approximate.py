"""Estimates in bounded memory, with the bound on their error: only where `approximate` was asked for."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from gristmill.kernels.hashing import hash_slices
from gristmill.validators.accumulators import Accumulator, Fields
from gristmill.validators.columns import View, float_values
from gristmill.validators.numbers import TIMES
from gristmill.validators.sketches import HyperLogLog, Quantiles

CAPACITY = 1 << 15  # numbers of a buffer: up to so many, quantiles are exact


class DistinctEstimate(Accumulator):
    """How many distinct non-null values a column has, in 16 KB."""

    def __init__(self, column: str) -> None:
        self.columns = (column,)
        self.considered = 0
        self._sketch = HyperLogLog()

    def update(self, view: View) -> None:
        hashes = view.column(self.columns[0]).hashes
        self.considered += len(hashes)
        if hashes.ndim == 1 and len(hashes):  # numbers as they are
            words = np.ascontiguousarray(hashes).view(np.uint8)
            hashes = hash_slices(words, np.arange(len(hashes) + 1, dtype=np.int64) * 8)
        if len(hashes):
            self._sketch.add(hashes[:, 1])

    def merge(self, later: Self) -> None:
        self.considered += later.considered
        self._sketch.merge(later._sketch)

    def save(self, first: int) -> Fields:
        return {"considered": self.considered, "registers": self._sketch.registers}

    def load(self, fields: Fields, first: int) -> None:
        self.considered, self._sketch.registers = fields["considered"], fields["registers"].copy()

    @property
    def distinct(self) -> int:
        """The estimate: at most as many as there are values."""
        return min(self._sketch.estimate(), self.considered)

    @property
    def bound(self) -> dict[str, Any]:
        """How it was made and how far it may be off."""
        return {"method": "HyperLogLog", "relative_standard_error": self._sketch.error}


class OrderEstimate(Accumulator):
    """The order of a numeric or temporal column's values: `at` as `Ordered` has it, within `bound`."""

    def __init__(self, column: str) -> None:
        self.columns = (column,)
        self._sketch = Quantiles(CAPACITY)

    def update(self, view: View) -> None:
        column = view.column(self.columns[0])
        self._sketch.update(column.numbers if column.kind in TIMES else float_values(column))

    def merge(self, later: Self) -> None:
        self._sketch.merge(later._sketch)

    def save(self, first: int) -> Fields:
        sketch = self._sketch
        levels = {f"level {number}": values for number, values in enumerate(sketch.levels)}
        return {"count": sketch.count, "moved": sketch.moved, **levels}

    def load(self, fields: Fields, first: int) -> None:
        sketch = self._sketch
        sketch.count, sketch.moved = fields["count"], fields["moved"]
        sketch.levels = [values for name, values in fields.items() if name.startswith("level ")]

    @property
    def nonnull(self) -> int:
        """How many values."""
        return self._sketch.count

    def at(self, ranks: list[int]) -> dict[int, Any]:
        """{rank: a value whose rank is within the bound, from 0}, as Python numbers."""
        values, weights = self._sketch.points()
        ends = np.cumsum(weights)
        return {rank: values[np.searchsorted(ends, rank, side="right")].item() for rank in ranks}

    @property
    def bound(self) -> dict[str, Any] | None:
        """How it was made, and by what share of the rows a rank may be off at most; None while all is exact."""
        return {"method": "halved sorted buffers", "rank_error": self._sketch.error} if self._sketch.moved else None
