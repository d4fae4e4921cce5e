"""A batch's columns with what is worked out of each once and shared by all expectations: null mask, numbers, text, Python values, hashes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels.buffers import Slices, slices
from gristmill.kernels.digests import cell_digests
from gristmill.kernels.hashing import hash_text
from gristmill.validators.inputs import Batch

Mask = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]

TESTS: list[tuple[str, Callable[[pa.DataType], bool]]] = [
    ("bool", pa.types.is_boolean),
    ("int", pa.types.is_integer),
    ("float", pa.types.is_floating),
    ("text", lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)),
    ("timestamp", pa.types.is_timestamp),
    ("duration", pa.types.is_duration),
    ("date", pa.types.is_date),
    ("null", pa.types.is_null),
]


def kind_of(kind: pa.DataType | None) -> str:
    """The family of an Arrow type: bool, int, float, text, timestamp, duration, date, null, or object for all others (and None)."""
    if kind is None:
        return "object"
    if pa.types.is_dictionary(kind):
        return kind_of(kind.value_type)
    return next((name for name, test in TESTS if test(kind)), "object")


class Column:
    """A column of some rows. NaN counts as null, as in Great Expectations on pandas; what `raw` holds under a null means nothing.

    array: an Arrow array, or None where `values` are Python objects.
    """

    def __init__(self, name: str, array: Any, values: npt.NDArray[Any] | None = None) -> None:
        self.name = name
        self.array = array
        self._values = values
        self.rows = len(array) if values is None else len(values)
        self.kind = kind_of(None if array is None else array.type)

    @functools.cached_property
    def valid(self) -> Mask | None:
        """(rows,) bool: not null; None if none is."""
        if self._values is not None:
            found = np.array([not _is_missing(value) for value in self._values], bool)
        elif self.kind == "float":
            found = ~np.isnan(self.raw)
            if self.array.null_count:
                found &= _bits(self.array)
        elif self.array.null_count == 0 and not pa.types.is_dictionary(self.array.type):
            return None
        else:
            found = _bits(self.array)
        return None if found.all() else found

    @functools.cached_property
    def nonnull(self) -> int:
        """How many rows are not null."""
        return self.rows if self.valid is None else int(np.count_nonzero(self.valid))

    @functools.cached_property
    def raw(self) -> npt.NDArray[Any]:
        """(rows,) the numbers of a bool, int, float, timestamp, duration or date column: timestamps in their unit, dates in days."""
        array = self.array
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if self.kind == "bool":
            return np.asarray(pc.fill_null(array, False))
        if self.kind == "float" and pa.types.is_float16(array.type):
            array = array.cast(pa.float32())
        if self.kind == "date":
            array = array.cast(pa.date32())
        dtype = {"timestamp": "i8", "duration": "i8", "date": "i4"}.get(self.kind) or array.type.to_pandas_dtype()
        buffer = array.buffers()[1]
        if buffer is None or not len(array):
            return np.zeros(len(array), dtype)
        return np.frombuffer(buffer, dtype)[array.offset : array.offset + len(array)]

    @functools.cached_property
    def numbers(self) -> npt.NDArray[Any]:
        """(nonnull,) `raw` without nulls."""
        return self.raw if self.valid is None else self.raw[self.valid]

    @functools.cached_property
    def text(self) -> Slices:
        """The UTF-8 of a text column, all rows."""
        return slices(self.array)

    @functools.cached_property
    def lengths(self) -> I64:
        """(rows,) the characters of each text; anything where null."""
        rows = self.text
        data = rows.data[rows.offsets[0] : rows.offsets[-1]] if rows.rows else rows.data[:0]
        if not len(data) or data.max() < 128:
            return np.diff(rows.offsets)
        array = self.array.dictionary_decode() if pa.types.is_dictionary(self.array.type) else self.array
        return pc.fill_null(pc.utf8_length(array), 0).to_numpy(zero_copy_only=False)

    @functools.cached_property
    def objects(self) -> npt.NDArray[Any]:
        """(nonnull,) Python values, as Great Expectations sees them."""
        if self._values is not None:
            return self._values if self.valid is None else self._values[self.valid]
        array = self.array if self.valid is None else self.array.filter(pa.array(self.valid))
        found = np.empty(len(array), object)
        found[:] = array.to_pylist()
        return found

    @property
    def raw_objects(self) -> npt.NDArray[Any]:
        """(rows,) the Python objects of a column without an Arrow type, missing ones too."""
        assert self._values is not None
        return self._values

    @functools.cached_property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """(nonnull,) or (nonnull, 2): equal exactly where the values are equal; 64 bits for numbers (without loss), 128 for all else.

        1, 1.0 and True are one value, -0.0 is 0.0.
        """
        if self._values is not None:
            return object_hashes(self.objects)
        if self.kind in ("int", "bool", "timestamp", "duration", "date"):
            return self.numbers.astype(np.int64, copy=False).view(np.uint64)
        if self.kind == "float":
            return (self.numbers.astype(np.float64) + 0.0).view(np.uint64)
        found = hash_text(self.array) if self.kind == "text" else cell_digests(self.array)
        return found if self.valid is None else found[self.valid]

    def full(self, of_valid: npt.NDArray[Any], fill: Any = False) -> npt.NDArray[Any]:
        """(rows,) the values (nonnull,) at their rows, `fill` where null."""
        if self.valid is None:
            return of_valid
        found = np.full(self.rows, fill, of_valid.dtype)
        found[self.valid] = of_valid
        return found

    def filter(self, mask: Mask) -> Column:
        """The rows where mask is true."""
        if self._values is not None:
            return Column(self.name, None, self._values[mask])
        return Column(self.name, self.array.filter(pa.array(mask)))


class View:
    """Rows of a batch, those that a row condition lets through: columns by name, and the row numbers in the data."""

    def __init__(self, columns: Mapping[str, Column], rows: int, first: int, chosen: I64 | None = None) -> None:
        self._columns, self.rows, self.first, self._chosen = columns, rows, first, chosen

    @staticmethod
    def of(batch: Batch) -> View:
        """All rows of a batch."""
        columns = {name: Column(name, None, values) for name, values in batch.objects.items()}
        for name in batch.table.column_names:
            columns[name] = Column(name, _whole(batch.table.column(name)))
        return View(columns, batch.table.num_rows, batch.first)

    def column(self, name: str) -> Column:
        """A column that was read."""
        return self._columns[name]

    @property
    def names(self) -> list[str]:
        """The columns that were read."""
        return list(self._columns)

    def numbers(self, mask: Mask | None = None) -> I64:
        """The row numbers in the data, of those rows where mask is true."""
        chosen = np.arange(self.rows) if self._chosen is None else self._chosen
        return (chosen if mask is None else chosen[mask]) + self.first

    def where(self, mask: Mask) -> View:
        """The rows where mask is true."""
        chosen = np.flatnonzero(mask) if self._chosen is None else self._chosen[mask]
        return View(_Filtered(self._columns, mask), len(chosen), self.first, chosen)


class _Filtered(Mapping[str, Column]):
    """Columns filtered when they are asked for, once."""

    def __init__(self, columns: Mapping[str, Column], mask: Mask) -> None:
        self._columns, self._mask, self._made = columns, mask, dict[str, Column]()

    def __getitem__(self, name: str) -> Column:
        if name not in self._made:
            self._made[name] = self._columns[name].filter(self._mask)
        return self._made[name]

    def __iter__(self) -> Any:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def float_values(column: Column) -> npt.NDArray[Any]:
    """(nonnull,) integers or floats of a number column: a bool is 0 or 1, a Decimal its nearest float.

    Raises:
        TypeError: values that are no numbers.
    """
    if column.kind == "bool":
        return column.numbers.astype(np.int64)
    if column.kind in ("int", "float"):
        return column.numbers if column.numbers.dtype.kind in "iu" else column.numbers.astype(np.float64, copy=False)
    if column.kind == "null":
        return np.zeros(0)
    values = column.objects
    wrong = next(
        (value for value in values if isinstance(value, (str, bytes)) or not hasattr(value, "__float__")), None
    )
    if wrong is not None:
        raise TypeError(
            f"column '{column.name}': could not convert {'string' if isinstance(wrong, str) else type(wrong).__name__} to float: {wrong!r}"
        )
    return values.astype(np.float64)


def object_hashes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """(n, 2) digests of Python values that are equal where the values are, as a dict would have it.

    Raises:
        TypeError: a value that can't be hashed, such as a list.
    """
    seen: dict[Any, int] = {}
    codes = np.array([seen.setdefault(value, len(seen)) for value in values], np.int64)
    if not seen:
        return np.zeros((0, 2), np.uint64)
    return hash_text(pa.array([_canonical(value) for value in seen], pa.large_string()))[codes]


def _canonical(value: Any) -> str:
    """A text that equal Python values share: numbers by their exact value, all else by type and repr."""
    try:
        if value == int(value) and not isinstance(value, str):
            return f"n{int(value)}"
    except (TypeError, ValueError, OverflowError, ArithmeticError):
        pass
    if hasattr(value, "as_integer_ratio"):
        try:
            top, bottom = value.as_integer_ratio()
        except (ValueError, OverflowError):
            return f"n{float(value)}"
        return f"n{top}/{bottom}"
    if hasattr(value, "isoformat"):
        return f"t{value.isoformat()}"
    return f"{type(value).__name__}:{value!r}"


def _whole(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    if column.num_chunks == 0:
        return pa.array([], column.type)
    try:
        whole = column.combine_chunks()
    except pa.ArrowInvalid:  # more than 2 GB of text
        whole = column.cast(pa.large_string()).combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def _bits(array: pa.Array) -> Mask:
    return np.asarray(array.is_valid())


def _is_missing(value: Any) -> bool:
    """None, NaN, NaT and pandas' NA: what pandas calls null."""
    if value is None:
        return True
    try:
        return bool(value != value)  # noqa: PLR0124  only what is missing differs from itself
    except TypeError:
        return type(value).__name__ == "NAType"
    except ValueError:
        return False
