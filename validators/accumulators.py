"""Mergeable states over batches. Each sees all rows once, in any cut; parts are merged in the order of their rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.validators.columns import Mask, View, float_values
from gristmill.validators.rows import Places, RowSet

T = TypeVar("T")
Fields = dict[str, Any]
"""What a state is kept as: plain JSON values, numpy arrays, Arrow arrays, RowSets."""


Parts = Callable[[], Sequence[T]]


class Accumulator(ABC):
    """A state. `columns` are those that its batches must have. large: it grows with its rows, so that it is kept by shard only, and of several
    what it concludes; any other is kept of several shards together too, as if they were one.
    """

    columns: tuple[str, ...] = ()
    large: ClassVar[bool] = False

    @abstractmethod
    def update(self, view: View) -> None:
        """Takes rows in, which follow those it has."""

    @abstractmethod
    def merge(self, later: Self) -> None:
        """Takes in the state of rows that follow its own."""

    def save(self, first: int) -> Fields | None:
        """The state as fields, None if it can't be kept; `first` is taken from row numbers."""
        return None

    def load(self, fields: Fields, first: int) -> None:
        """Becomes the state of `save`; `first` is added to row numbers."""
        raise NotImplementedError

    def conclude(self, threads: int) -> Fields | None:
        """What is kept of all rows of several shards, None for nothing. With "large" in it, it is for `assume`, else for `load`. "extends": whether what
        was assumed is still needed beside it.
        """
        return self.save(0)

    def assume(self, fields: Fields, places: Places, extended: Sequence[Fields] | None, parts: Parts[Self]) -> None:
        """Becomes the state of rows that lie at `places` now, of which `conclude` said this. extended: what it said of those before, where that is
        still needed; None if it isn't there. parts: reads the states of their shards, in order, for what that doesn't answer.
        """
        raise NotImplementedError


class Rows(Accumulator):
    """How many rows, and of a column how many are not null."""

    def __init__(self, column: str | None = None) -> None:
        self.columns = (column,) if column is not None else ()
        self.count = self.nonnull = 0

    def update(self, view: View) -> None:
        self.count += view.rows
        self.nonnull += view.column(self.columns[0]).nonnull if self.columns else view.rows

    def merge(self, later: Self) -> None:
        self.count += later.count
        self.nonnull += later.nonnull

    def save(self, first: int) -> Fields:
        return {"count": self.count, "nonnull": self.nonnull}

    def load(self, fields: Fields, first: int) -> None:
        self.count, self.nonnull = fields["count"], fields["nonnull"]


SHOWN, SHOWN_BYTES = (
    20,
    1 << 16,
)  # rows that results show unless asked for more; larger ones are read again rather than kept


class Failing(Accumulator):
    """The rows that a check doesn't expect. shown: the first 20 of them, so that they need not be read again; None where they aren't kept.

    check(view) -> (considered rows: (rows,) bool or None for all; unexpected: (rows,) bool or None for none; nothing unexpected outside `considered`).
    """

    def __init__(self, columns: Sequence[str], check: Callable[[View], tuple[Mask | None, Mask | None]]) -> None:
        self.columns = tuple(dict.fromkeys(columns))
        self._check = check
        self.count = self.considered = 0
        self.rows = RowSet()
        self.shown: pa.Table | None = pa.table({})

    def update(self, view: View) -> None:
        considered, unexpected = self._check(view)
        self.count += view.rows
        self.considered += view.rows if considered is None else int(np.count_nonzero(considered))
        if unexpected is not None and unexpected.any():
            if self.shown is not None and len(self.rows) < SHOWN:
                self._show(_taken(view, self.columns, np.flatnonzero(unexpected)[:SHOWN]))
            self.rows.add(view.numbers(unexpected))

    def merge(self, later: Self) -> None:
        self.count += later.count
        self.considered += later.considered
        if len(later.rows) and len(self.rows) < SHOWN:
            self._show(later.shown)
        self.rows = self.rows.union(later.rows)

    def _show(self, more: pa.Table | None) -> None:
        if self.shown is None or more is None or (len(self.shown) and self.shown.schema != more.schema):
            self.shown = None
            return
        table = pa.concat_tables([self.shown, more]).slice(0, SHOWN) if len(self.shown) else more
        self.shown = table if table.nbytes <= SHOWN_BYTES else None

    def save(self, first: int) -> Fields:
        fields = {"count": self.count, "considered": self.considered, "rows": self.rows.moved(-first)}
        return fields if self.shown is None else {**fields, "shown": self.shown}

    def load(self, fields: Fields, first: int) -> None:
        self.count, self.considered = fields["count"], fields["considered"]
        self.rows, self.shown = fields["rows"].moved(first), fields.get("shown")


def _taken(view: View, names: Sequence[str], rows: npt.NDArray[np.int64]) -> pa.Table | None:
    """Some rows of a view; None with columns of Python objects."""
    columns = {name: view.column(name).array for name in names}
    if any(array is None for array in columns.values()):
        return None
    return pa.table({name: array.take(pa.array(rows)) for name, array in columns.items()})


class Steps(Accumulator):
    """The rows whose value isn't above (below) the non-null value before it: carries the last value from batch to batch."""

    def __init__(self, column: str, *, up: bool, strictly: bool) -> None:
        self.columns = (column,)
        self._up, self._strictly = up, strictly
        self.count = self.considered = 0
        self.rows = RowSet()
        self.first: Any = None
        self.first_row = -1
        self.last: Any = None

    def update(self, view: View) -> None:
        column = view.column(self.columns[0])
        if column.kind in ("int", "float", "timestamp", "date", "duration"):
            values: npt.NDArray[Any] = column.numbers
        elif column.kind == "bool":
            values = column.numbers.astype(np.int8)
        else:
            values = column.objects
            if len(values):
                values[0] - values[0]  # what has no difference is an error, text among it, as in Great Expectations
        self.count += view.rows
        self.considered += len(values)
        if not len(values):
            return
        rows = view.numbers(column.valid)
        if self.first_row >= 0 and self._wrong(self.last, values[0]):
            self.rows.add(rows[:1])
        if self.first_row < 0:
            self.first, self.first_row = values[0], int(rows[0])
        self.rows.add(rows[1:][self._wrong(values[:-1], values[1:])])
        self.last = values[-1]

    def _wrong(self, before: Any, after: Any) -> Any:
        if self._up:
            return ~(after > before) if self._strictly else (after < before)
        return ~(after < before) if self._strictly else (after > before)

    def merge(self, later: Self) -> None:
        self.count += later.count
        self.considered += later.considered
        if later.first_row < 0:
            return
        self.rows = self.rows.union(later.rows)
        if self.first_row < 0:
            self.first, self.first_row = later.first, later.first_row
        elif self._wrong(self.last, later.first):
            self.rows.add([later.first_row])
        self.last = later.last

    def save(self, first: int) -> Fields | None:
        if isinstance(self.last, np.generic) or self.last is None:
            ends = np.array([] if self.last is None else [self.first, self.last])
            return {
                "count": self.count,
                "considered": self.considered,
                "rows": self.rows.moved(-first),
                "at": self.first_row - first,
                "ends": ends,
            }
        return None

    def load(self, fields: Fields, first: int) -> None:
        self.count, self.considered = fields["count"], fields["considered"]
        self.rows = fields["rows"].moved(first)
        if len(fields["ends"]):
            self.first, self.last = fields["ends"]
            self.first_row = fields["at"] + first


class Present(Accumulator):
    """Which of some values occur in a column: (values,) bool."""

    def __init__(self, column: str, values: Sequence[Any], index: Callable[[Any], npt.NDArray[np.int64]]) -> None:
        self.columns = (column,)
        self._index = index
        self.found = np.zeros(len(values), bool)

    def update(self, view: View) -> None:
        if not self.found.all():
            self.found[self._index(view.column(self.columns[0]))] = True

    def merge(self, later: Self) -> None:
        self.found |= later.found

    def save(self, first: int) -> Fields:
        return {"found": self.found}

    def load(self, fields: Fields, first: int) -> None:
        self.found = fields["found"].copy()


MOST_COUNTED = 1 << 20  # different values: some hundred MB, outside of what `spill` bounds


class Counts(Accumulator):
    """How often each non-null value of a column occurs, in order of first occurrence; an error for more than MOST_COUNTED."""

    def __init__(self, column: str) -> None:
        self.columns = (column,)
        self.counts: dict[Any, int] = {}
        self._types: set[pa.DataType | None] = set()

    def update(self, view: View) -> None:
        column = view.column(self.columns[0])
        if column.array is not None and column.kind != "object":
            array = column.array if column.valid is None else column.array.filter(pa.array(column.valid))
            pairs = pc.value_counts(array.dictionary_decode() if pa.types.is_dictionary(array.type) else array)
            self._types.add(pairs.field("values").type)
            self._add(pairs.field("values").to_pylist(), pairs.field("counts").to_pylist())
        else:
            self._types.add(None)
            self._add(list(column.objects), [1] * column.nonnull)

    def merge(self, later: Self) -> None:
        self._types |= later._types
        self._add(later.counts.keys(), later.counts.values())

    def _add(self, values: Iterable[Any], numbers: Iterable[int]) -> None:
        for value, number in zip(values, numbers, strict=True):
            self.counts[value] = self.counts.get(value, 0) + number
        if len(self.counts) > MOST_COUNTED:
            text = f"column '{self.columns[0]}' has more than {MOST_COUNTED:,} different values, too many to count each as a category"
            raise ValueError(f"{text}; give a partition_object with bins")

    def save(self, first: int) -> Fields | None:
        if len(self._types) > 1 or None in self._types:
            return None  # what has no one Arrow type
        kind = next(iter(self._types), pa.null())
        return {"values": pa.array(list(self.counts), kind), "counts": np.array(list(self.counts.values()), np.int64)}

    def load(self, fields: Fields, first: int) -> None:
        self._types = {fields["values"].type} if len(fields["values"]) else set()
        self.counts = dict(zip(fields["values"].to_pylist(), fields["counts"].tolist(), strict=True))


class Histogram(Accumulator):
    """How many non-null numbers lie in each bin, closed on the left, the last on both sides, as numpy counts them; and below and above all."""

    def __init__(self, column: str, bins: Sequence[float]) -> None:
        self.columns = (column,)
        self._bins = np.asarray(bins)
        self.counts = np.zeros(len(bins) - 1, np.int64)
        self.below = self.above = self.nonnull = 0

    def update(self, view: View) -> None:
        column = view.column(self.columns[0])
        numbers = float_values(column)
        self.counts += np.histogram(numbers, self._bins)[0]
        self.below += int(np.count_nonzero(numbers < self._bins[0]))
        self.above += int(np.count_nonzero(numbers > self._bins[-1]))
        self.nonnull += len(numbers)

    def merge(self, later: Self) -> None:
        self.counts += later.counts
        self.below += later.below
        self.above += later.above
        self.nonnull += later.nonnull

    def save(self, first: int) -> Fields:
        return {"counts": self.counts, "below": self.below, "above": self.above, "nonnull": self.nonnull}

    def load(self, fields: Fields, first: int) -> None:
        self.counts, self.below, self.above = fields["counts"].copy(), fields["below"], fields["above"]
        self.nonnull = fields["nonnull"]
