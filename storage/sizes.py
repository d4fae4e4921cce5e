"""How large rows are in Arrow, from their values alone: the same for the same rows however tables are cut."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

I64 = npt.NDArray[np.int64]


def row_bytes(table: pa.Table) -> I64:
    """(rows,) the bytes of each row: exact for text, bytes and plain values; nested text counts 16 bytes an element."""
    total = np.zeros(table.num_rows, np.int64)
    for name in table.column_names:
        total += cell_bytes(table[name])
    return total


def cell_bytes(column: pa.ChunkedArray) -> I64 | int:
    """The bytes of each cell, or of every cell where all are alike."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64) + 4  # type: ignore[no-any-return]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64) * _width(kind.value_type) + 4  # type: ignore[no-any-return]
    return _width(kind)


def _width(kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size * _width(kind.value_type))
    if pa.types.is_struct(kind):
        return sum(_width(field.type) for field in kind)
    try:
        return max(1, kind.bit_width // 8)
    except ValueError:
        return 16  # of no fixed width, inside a nested value
