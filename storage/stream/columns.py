"""Columns as the loader holds them: each column is some leaves that are fast to gather rows from.

A leaf is a numpy array (rows, ...) for values of fixed size, or an Arrow array for text, bytes, lists and what has no tensor form. Lists of
numbers are held as bytes: as a numpy array (rows, bytes) where all rows of a row group are equally long, as token rows mostly are, else as an Arrow
array, for Arrow gathers bytes by copying each row at once, lists element by element. Long bytes, such as images, are a numpy array (rows,) of
memoryviews (None for null): they are never copied until they are decoded or handed out. A missing leaf (None) means "no nulls".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from gristmill.errors import UsageError
from gristmill.kernels.buffers import number_array, numbers
from gristmill.storage.stream.permute import I64

Leaf: TypeAlias = npt.NDArray[Any] | pa.Array | None

LONG = 8192  # mean bytes of a row from which on bytes are held as views
Take = Callable[[tuple[int, ...], Any], npt.NDArray[Any]]  # (shape, dtype) -> an array with any content

WIDER = {"uint16": np.int32, "uint32": np.int64}  # torch has few operations on these


class NullElementError(ValueError):
    """A list of numbers that has a null among them."""


@dataclass(frozen=True)
class Column:
    """One column: its kind, and how an Arrow array of it becomes leaves.

    kind: number (values, valid), text or bytes (rows), numbers (a list of numbers: rows as bytes), struct (those of its fields), object (rows). dtype: of
    numbers. shape: of a fixed-size list. dictionary: the values that codes stand for.
    """

    name: str
    kind: str
    dtype: np.dtype[Any] | None = None
    shape: tuple[int, ...] = ()
    fields: tuple[Column, ...] = ()
    dictionary: pa.Array | None = None

    def leaves(self, array: pa.Array) -> list[Leaf]:
        """The leaves of an array of this column, of the number that `width` says."""
        if self.kind == "struct":
            return [
                leaf for field, child in zip(self.fields, array.flatten(), strict=True) for leaf in field.leaves(child)
            ]
        if self.kind == "number":
            return self._number(array)
        if self.kind == "numbers":
            return [_as_bytes(array, self.name, self.dtype)]
        if self.kind == "object":
            return [array]
        if self.kind == "text":
            return [array.cast(pa.large_string())]
        return [_views(array.cast(pa.large_binary()))]

    @property
    def width(self) -> int:
        """How many leaves the column has."""
        return sum(field.width for field in self.fields) if self.kind == "struct" else 2 if self.kind == "number" else 1

    def _number(self, array: pa.Array) -> list[Leaf]:
        valid = numbers(array.is_valid()) if array.null_count else None
        if self.dictionary is not None:
            codes = pc.index_in(array.dictionary, self.dictionary).take(array.indices)
            return [numbers(codes.fill_null(0)).astype(self.dtype, copy=False), valid]
        rows, inner = len(array), array
        for size in self.shape:
            inner = inner.values.slice(inner.offset * size, len(inner) * size)
        if self.shape and inner.null_count:
            holes = numbers(inner.is_null()).reshape(rows, -1).any(axis=1)
            if (holes if valid is None else holes & valid).any():
                raise NullElementError(self.name)
        assert self.dtype is not None
        return [_values(inner).astype(self.dtype, copy=False).reshape(rows, *self.shape), valid]


def plan_columns(schema: pa.Schema, dictionary_of: Callable[[str], pa.Array], where: str) -> list[Column]:
    """How each column of a schema is held. `dictionary_of` gives all values of a dictionary column.

    Raises:
        UsageError: a type that can't be streamed, naming the column.
    """
    return [_plan(field.name, field.type, dictionary_of, where) for field in schema]


def _plan(name: str, kind: pa.DataType, dictionary_of: Callable[[str], pa.Array], where: str) -> Column:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if (dtype := _dtype(kind)) is not None:
        return Column(name, "number", dtype)
    if pt.is_dictionary(kind):
        return Column(name, "number", np.dtype(np.int64), dictionary=dictionary_of(name))
    if pt.is_string(kind) or pt.is_large_string(kind) or kind == pa.string_view():
        return Column(name, "text")
    if pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind) or kind == pa.binary_view():
        return Column(name, "bytes")
    shape, inner = _fixed_shape(kind)
    if shape and (dtype := _dtype(inner)) is not None:
        return Column(name, "number", dtype, shape)
    if (pt.is_list(kind) or pt.is_large_list(kind)) and (dtype := _dtype(kind.value_type)) is not None:
        return Column(name, "numbers", dtype)
    if pt.is_struct(kind):
        fields = tuple(
            _plan(f"{name}.{kind[i].name}", kind[i].type, dictionary_of, where) for i in range(kind.num_fields)
        )
        return Column(name, "struct", fields=fields)
    if pt.is_null(kind) or pt.is_map(kind) or pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind):
        return Column(name, "object")
    raise UsageError(
        f"{where}: column '{name}' is {kind}, which can't be streamed; leave it out with columns=[...], or cast it before",
        column=name,
    )


def _dtype(kind: pa.DataType) -> np.dtype[Any] | None:
    """What numbers of an Arrow type become: times are counts of their unit, decimals are float64, None for what is no number."""
    if pt.is_boolean(kind):
        return np.dtype(bool)
    if pt.is_integer(kind) or pt.is_floating(kind):
        plain = np.dtype(kind.to_pandas_dtype())
        return np.dtype(WIDER.get(plain.name, plain))
    if pt.is_temporal(kind) and not pt.is_interval(kind):
        return np.dtype(np.int64)
    return np.dtype(np.float64) if pt.is_decimal(kind) else None


def _fixed_shape(kind: pa.DataType) -> tuple[tuple[int, ...], pa.DataType]:
    shape: tuple[int, ...] = ()
    while pt.is_fixed_size_list(kind):
        shape, kind = (*shape, kind.list_size), kind.value_type
    return shape, kind


def _values(array: pa.Array) -> npt.NDArray[Any]:
    """The numbers of an array, without a copy where Arrow holds them plainly; 0 for null."""
    kind = array.type
    if pt.is_temporal(kind):
        array = array.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    elif pt.is_decimal(kind):
        array = array.cast(pa.float64())
    if array.null_count:
        array = array.fill_null(False if pt.is_boolean(array.type) else 0)
    return numbers(array)


def _as_bytes(array: pa.Array, name: str, dtype: np.dtype[Any] | None) -> Leaf:
    """A list array of numbers as bytes, one value a row; values are not copied where Arrow holds them plainly."""
    assert dtype is not None
    offsets = numbers(array.offsets).astype(np.int64, copy=False)
    inner = array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    if inner.null_count:
        raise NullElementError(name)
    values = np.ascontiguousarray(_values(inner).astype(dtype, copy=False))
    valid, sizes = None, np.diff(offsets)
    if len(sizes) and not array.null_count and sizes[0] and (sizes == sizes[0]).all():
        return values.view(np.uint8).reshape(len(sizes), -1)
    if array.null_count:
        valid = pa.py_buffer(np.packbits(numbers(array.is_valid()), bitorder="little"))
    places = pa.py_buffer((offsets - offsets[0]) * dtype.itemsize)
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(array), [valid, places, pa.py_buffer(values)])


def _views(array: pa.Array) -> Leaf:
    """Bytes as views of each row if they are long on average, else as they are."""
    _, places, content = array.buffers()
    if not len(array) or content is None or content.size < LONG * len(array):
        return array
    ends = np.frombuffer(places, np.int64, len(array) + 1, array.offset * 8).tolist()
    whole, out = memoryview(content).cast("B"), np.empty(len(array), object)
    out[:] = [whole[a:b] for a, b in itertools.pairwise(ends)]
    if array.null_count:
        out[numbers(array.is_null())] = None
    return out


def gather(parts: Sequence[Leaf], rows: Sequence[I64], places: Sequence[I64], take: Take = np.empty) -> Leaf:
    """One leaf of chosen rows of several row groups' leaves, each row at its place; None if all are None. `places` are a permutation of the places."""
    first = next((part for part in parts if part is not None), None)
    if first is None:
        return None
    if all(isinstance(part, np.ndarray) and part.shape[1:] == first.shape[1:] for part in parts if part is not None):
        return _scatter(parts, rows, places, take((sum(map(len, rows)), *first.shape[1:]), first.dtype))
    arrays: list[Any] = [_as_arrow(part) if isinstance(part, np.ndarray) else part for part in parts]
    together = pa.concat_arrays([array.take(number_array(chosen)) for array, chosen in zip(arrays, rows, strict=True)])
    return together.take(number_array(np.argsort(np.concatenate(places))))


def _as_arrow(rows: npt.NDArray[Any]) -> pa.Array:
    return pa.array(rows.tolist(), pa.large_binary()) if rows.dtype == object else binary_rows(rows)


def binary_rows(rows: npt.NDArray[Any]) -> pa.Array:
    """Equally long rows (rows, bytes) as an Arrow array of bytes, without a copy."""
    ends = np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1]
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(rows))]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(rows), buffers)


def _scatter(
    parts: Sequence[Leaf], rows: Sequence[I64], places: Sequence[I64], out: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    for part, chosen, place in zip(parts, rows, places, strict=True):
        out[place] = True if part is None else part[chosen]
    return out


def leaf_bytes(leaf: Leaf) -> int:
    """The memory that a leaf holds."""
    if isinstance(leaf, np.ndarray) and leaf.dtype == object:
        return sum(len(row) for row in leaf if row is not None)
    return 0 if leaf is None else int(leaf.nbytes)
