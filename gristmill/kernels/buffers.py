"""Arrow string and binary arrays as the flat numpy buffers that the numba kernels read, without a copy where Arrow's layout allows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]


class Slices(NamedTuple):
    """Rows of bytes: row i is `data[offsets[i]:offsets[i + 1]]`; `valid[i]` is 0 for a null row, whose slice is empty or meaningless.

    data (bytes,) uint8; offsets (rows + 1,) int64; valid (rows,) uint8. Text is UTF-8 exactly as Arrow holds it.
    """

    data: U8
    offsets: I64
    valid: U8

    @property
    def rows(self) -> int:
        """How many rows there are, nulls counted."""
        return len(self.valid)


def slices(array: pa.Array | pa.ChunkedArray) -> Slices:
    """The rows of a string, binary, large_*, *_view or dictionary-encoded text array as `Slices`.

    Offsets come out as int64 for every layout, so one kernel serves all. Sliced arrays are handled; several chunks are joined (a copy).

    Raises:
        TypeError: the array holds neither text nor bytes.
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    elif pa.types.is_binary_view(array.type):
        array = array.cast(pa.large_binary())
    wide = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    if not (wide or pa.types.is_string(array.type) or pa.types.is_binary(array.type)):
        msg = f"text or bytes expected, got {array.type}"
        raise TypeError(msg)
    n = len(array)
    _, offsets_buffer, data_buffer = array.buffers()
    if n == 0 or offsets_buffer is None:
        return Slices(read_only(np.zeros(0, np.uint8)), read_only(np.zeros(n + 1, np.int64)), validity(array))
    offsets = np.frombuffer(offsets_buffer, np.int64 if wide else np.int32)[array.offset : array.offset + n + 1]
    data = np.zeros(0, np.uint8) if data_buffer is None else np.frombuffer(data_buffer, np.uint8)
    return Slices(read_only(data), read_only(offsets.astype(np.int64, copy=False)), validity(array))


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A read-only, contiguous view of the array (a copy where it has gaps).

    Arrays from Arrow are read-only, and numba compiles a kernel anew for writable ones: kernels' wrappers make all of them alike.
    """
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def validity(array: pa.Array) -> U8:
    """(rows,) uint8: 1 where the row is not null."""
    if array.null_count == 0:
        return np.ones(len(array), np.uint8)
    return numbers(array.is_valid()).view(np.uint8)


def numbers(array: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """(rows,) the values of an array of integers, floats or booleans; a view where Arrow holds them in one piece. Values of null rows mean nothing.

    pyarrow's own `to_numpy` and `array` import pandas wherever it is installed, which takes longer than opening a stream.
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
    buffer, start, rows = array.buffers()[1], array.offset, len(array)
    if pa.types.is_boolean(array.type):
        bits = np.frombuffer(buffer, np.uint8) if buffer else np.zeros(0, np.uint8)
        return np.unpackbits(bits[start // 8 :], count=rows + start % 8, bitorder="little")[start % 8 :].view(np.bool_)
    dtype = np.dtype(array.type.to_pandas_dtype())
    return np.frombuffer(buffer, dtype, rows, start * dtype.itemsize) if rows else np.zeros(0, dtype)


def number_array(values: npt.NDArray[Any]) -> pa.Array:
    """An array over these numbers, without a copy: the inverse of `numbers`."""
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))]
    )


def text_array(data: U8, offsets: I64, valid: U8 | None = None, kind: pa.DataType | None = None) -> pa.Array:
    """The large_string array (or `kind`: large_binary, string, binary) over these buffers; rows where `valid` is 0 are null.

    The inverse of `slices`. `data` must be valid UTF-8 for text types: it is not checked.
    """
    kind = kind or pa.large_string()
    wide = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    bitmap = None
    if valid is not None and not valid.all():
        bitmap = pa.py_buffer(np.packbits(valid.astype(bool), bitorder="little"))
    typed = np.ascontiguousarray(offsets, np.int64 if wide else np.int32)
    return pa.Array.from_buffers(
        kind, len(offsets) - 1, [bitmap, pa.py_buffer(typed), pa.py_buffer(np.ascontiguousarray(data))]
    )
