"""How large rows are in Arrow, from their values alone: the same for the same rows however tables are cut."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

I64 = npt.NDArray[np.int64]
OFFSET = 4  # bytes that text, bytes and lists take beside their content


def row_bytes(table: pa.Table) -> I64:
    """(rows,) the bytes of each row: its values, and 4 for each text, bytes or list value; null bitmaps aside."""
    total = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        total += np.concatenate([np.zeros(0, np.int64), *[cell_bytes(chunk) for chunk in column.chunks]])
    return total


def cell_bytes(array: pa.Array) -> I64:
    """(rows,) the bytes of each cell. A null text, bytes or list takes as much as an empty one."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return cell_bytes(array.storage)
    if pa.types.is_dictionary(kind):
        return np.full(len(array), kind.index_type.bit_width // 8, np.int64)
    if kind in (pa.string_view(), pa.binary_view()):
        return cell_bytes(array.cast(pa.large_string() if kind == pa.string_view() else pa.large_binary()))
    if (
        pa.types.is_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
    ):
        return _lengths(pc.binary_length(array)) + OFFSET
    if pa.types.is_struct(kind):
        return sum((cell_bytes(child) for child in array.flatten()), start=np.zeros(len(array), np.int64))
    if pa.types.is_map(kind):
        return cell_bytes(array.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if _is_fixed(kind.value_type):  # the usual case, tokens and embeddings: no need to look at the elements
            return _lengths(pc.list_value_length(array)) * _width(kind.value_type) + OFFSET
        ends = np.cumsum(_lengths(pc.list_value_length(array)))
        elements = np.concatenate(
            [[0], np.cumsum(cell_bytes(array.flatten()))]
        )  # flatten leaves out what lies under a null list
        return np.diff(elements[ends], prepend=0) + OFFSET
    return np.full(len(array), _width(kind), np.int64)


def _lengths(found: pa.Array) -> I64:
    return np.asarray(pc.fill_null(found, 0).to_numpy(zero_copy_only=False), np.int64)


def _is_fixed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_primitive(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_decimal(kind))


def _width(kind: pa.DataType) -> int:
    """Whole bytes; a bool counts one, the null type none."""
    return 0 if pa.types.is_null(kind) else max(1, kind.bit_width // 8)
