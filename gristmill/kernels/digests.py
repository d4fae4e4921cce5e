"""Canonical digests of cells and rows: the same for the same content, however columns are ordered, schemas were unified or files were cut.

A cell's digest is XXH3-128 of a tag byte for its family of types and its value in one canonical form; a row's is XXH3-128 of, for each
non-null column in order of name, the digest of the name and the digest of the cell. A null cell and a missing column both add nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numba import njit

from gristmill.kernels.buffers import Slices, slices, validity
from gristmill.kernels.hashing import hash_slices

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

NULL = np.array([0x6E756C6C6E756C6C, 0x6E756C6C6E756C6C], np.uint64)  # stands for a null element inside a list
TAGS = {name: i for i, name in enumerate(["bool", "number", "text", "bytes", "instant", "date", "time", "duration", "list", "struct", "decimal"], 1)}


def row_digests(table: pa.Table, exclude: Collection[str] = ()) -> U64:
    """(rows, 2) uint64: the high and low half of each row's digest, over all columns but `exclude`.

    Raises:
        TypeError: a column of a type that has no canonical form, naming it.
    """
    columns = []
    for name in sorted(set(table.column_names) - set(exclude)):
        column = table[name]
        if column.null_count == len(column):
            continue
        try:
            cells = cell_digests(column)
        except TypeError as error:
            raise TypeError(f"column '{name}': {error}") from None
        columns.append((_name_digest(name), cells, validity(_whole(column))))
    return _combine([name for name, _, _ in columns], [cells for _, cells, _ in columns], [valid for _, _, valid in columns], table.num_rows)


def cell_digests(array: pa.Array | pa.ChunkedArray) -> U64:
    """(rows, 2) uint64: the digest of each cell; a null cell's is NULL.

    Numbers of all widths are one family: an integer, and a float that is integral and below 2^63, are equal where their values are; -0.0 is 0;
    every NaN is the same and differs from null. Decimals are a family of their own. Text kinds are one family, bytes another. Timestamps of
    any unit are instants: with a zone in UTC, without one as written. List kinds are one family; a struct is as a row of its fields.

    Raises:
        TypeError: no canonical form for the type.
    """
    array = _whole(array)
    kind = array.type
    if pa.types.is_null(kind):
        return np.tile(NULL, (len(array), 1))
    if pa.types.is_dictionary(kind):
        return cell_digests(array.dictionary_decode())
    if isinstance(array, pa.ExtensionArray):
        return cell_digests(array.storage)
    digests = _nested(array) if pa.types.is_nested(kind) else _flat(array)
    if array.null_count:
        digests[validity(array) == 0] = NULL
    return digests


def fingerprint(schema: pa.Schema, row_sum: int, num_rows: int) -> str:
    """32 hex digits over the schema (names and families of types, in order of name), the number of rows and the sum of their digests mod 2^128.

    Free of row order, of how rows lie in files, and of column order.
    """
    fields = sorted(f"{field.name}:{_family(field.type)}" for field in schema)
    text = "\n".join([*fields, str(num_rows), f"{row_sum % 2**128:032x}"])
    return xxhash.xxh3_128_hexdigest(text.encode())


def _family(kind: pa.DataType) -> str:
    text = str(kind)
    for long, short in (("large_string", "string"), ("string_view", "string"), ("large_binary", "binary"), ("binary_view", "binary"), ("large_list", "list")):
        text = text.replace(long, short)
    return text


def _whole(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(array, pa.ChunkedArray):
        if array.num_chunks == 1:
            return array.chunk(0)
        return pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    return array


def _flat(array: pa.Array) -> U64:
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return _tagged(slices(array), TAGS["text"])
    if pa.types.is_fixed_size_binary(kind):
        array, kind = array.cast(pa.binary()), pa.binary()
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or kind == pa.binary_view():
        return _tagged(slices(array), TAGS["bytes"])
    if pa.types.is_boolean(kind):
        return _numbers(array.cast(pa.uint8()), np.int64, TAGS["bool"])
    if pa.types.is_unsigned_integer(kind) and kind.bit_width == 64:
        return _unsigned(array)
    if pa.types.is_integer(kind):
        return _numbers(array, np.int64, TAGS["number"])
    if pa.types.is_floating(kind):
        return _floats(_numpy(array.cast(pa.float64()), np.float64))
    if pa.types.is_decimal(kind):
        text = array.cast(pa.decimal256(76, kind.scale)).cast(pa.string())
        return _tagged(slices(pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), ".") if kind.scale > 0 else text), TAGS["decimal"])
    return _temporal(array)


def _temporal(array: pa.Array) -> U64:
    kind = array.type
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    if pa.types.is_date(kind):
        return _numbers(array.cast(pa.date32()).cast(pa.int32()), np.int64, TAGS["date"])
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time(kind):
        name = "instant" if pa.types.is_timestamp(kind) else "duration" if pa.types.is_duration(kind) else "time"
        ticks = _numpy(array.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64()).cast(pa.int64()), np.int64)
        scale = per_second[kind.unit]
        seconds, rest = np.divmod(ticks, scale)
        pair = np.stack([seconds, rest * (10**9 // scale)], axis=1)  # nanoseconds in all would overflow for far years
        zoned = pa.types.is_timestamp(kind) and kind.tz is not None
        return _hash_fixed(pair, TAGS[name] + (128 if zoned else 0))
    raise TypeError(f"type {kind} has no canonical form; cast it to one that has")


def _numpy(array: pa.Array, kind: npt.DTypeLike) -> npt.NDArray[np.generic]:
    """The values, anything where null."""
    return (array.fill_null(0) if array.null_count else array).to_numpy(zero_copy_only=False).astype(kind, copy=False)


def _numbers(array: pa.Array, kind: npt.DTypeLike, tag: int) -> U64:
    return _hash_fixed(_numpy(array, kind).reshape(-1, 1), tag)


def _unsigned(array: pa.Array) -> U64:
    values = _numpy(array, np.uint64)
    digests = _hash_fixed(values.view(np.int64).reshape(-1, 1), TAGS["number"])
    large = values >= np.uint64(2**63)
    if large.any():
        digests[large] = _hash_fixed(np.stack([values[large].view(np.int64), np.ones(large.sum(), np.int64)], axis=1), TAGS["number"])
    return digests


def _floats(values: npt.NDArray[np.generic]) -> U64:
    numbers = values.astype(np.float64)
    numbers[np.isnan(numbers)] = np.nan  # one bit pattern
    with np.errstate(invalid="ignore"):
        whole = (numbers == np.trunc(numbers)) & (np.abs(numbers) < 2.0**63)
    digests = _hash_fixed(numbers.view(np.int64).reshape(-1, 1), TAGS["number"] + 128)
    if whole.any():
        digests[whole] = _hash_fixed(numbers[whole].astype(np.int64).reshape(-1, 1), TAGS["number"])
    return digests


def _nested(array: pa.Array) -> U64:
    kind = array.type
    if pa.types.is_struct(kind):
        fields = sorted(range(kind.num_fields), key=lambda i: kind.field(i).name)
        columns = [array.field(i) if array.offset == 0 and not array.null_count else pc.struct_field(array, [i]) for i in fields]
        kept = [(kind.field(i).name, column) for i, column in zip(fields, columns, strict=True)]
        rows = _combine([_name_digest(name) for name, _ in kept], [cell_digests(c) for _, c in kept], [validity(c) for _, c in kept], len(array))
        return _tag_digests(rows, TAGS["struct"])
    if pa.types.is_fixed_size_list(kind):
        elements = cell_digests(array.values.slice(array.offset * kind.list_size, len(array) * kind.list_size))
        offsets = np.arange(len(array) + 1, dtype=np.int64) * kind.list_size
        return _list_digests(elements, offsets)
    if pa.types.is_map(kind):
        array = array.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        offsets = array.offsets.to_numpy().astype(np.int64)
        first = int(offsets[0]) if len(offsets) else 0
        elements = cell_digests(array.values.slice(first, int(offsets[-1]) - first))
        return _list_digests(elements, offsets - first)
    raise TypeError(f"type {kind} has no canonical form; cast it to one that has")


def _list_digests(elements: U64, offsets: I64) -> U64:
    data = np.ascontiguousarray(elements).view(np.uint8).reshape(-1)
    return _tag_digests(hash_slices(data, offsets * 16), TAGS["list"])


def _tag_digests(digests: U64, tag: int) -> U64:
    return _hash_fixed(digests.view(np.int64), tag)


def _hash_fixed(values: npt.NDArray[np.int64], tag: int) -> U64:
    """The digest of a tag and some 64-bit numbers a row: values (rows, n)."""
    rows, n = values.shape
    record = np.empty((rows, n + 1), np.int64)
    record[:, 0] = tag
    record[:, 1:] = values
    return hash_slices(record.view(np.uint8).reshape(-1), np.arange(rows + 1, dtype=np.int64) * (8 * (n + 1)))  # type: ignore[no-any-return]


def _tagged(rows: Slices, tag: int) -> U64:
    """The digest of a text or bytes value with its tag: the hash of the bytes, hashed with the tag."""
    if not rows.valid.all() and len(rows.data) == 0:
        return np.zeros((rows.rows, 2), np.uint64)
    return _tag_digests(hash_slices(rows.data, rows.offsets), tag)


@functools.lru_cache(maxsize=4096)
def _name_digest(name: str) -> tuple[int, int]:
    number = xxhash.xxh3_128_intdigest(name.encode())
    return number >> 64, number & (2**64 - 1)


def _combine(names: list[tuple[int, int]], cells: list[U64], valid: list[U8], rows: int) -> U64:
    """The digest of each row from the names and cells of its non-null columns."""
    if not names:
        return hash_slices(np.zeros(0, np.uint8), np.zeros(rows + 1, np.int64))  # type: ignore[no-any-return]
    marks = np.stack(valid, axis=1)  # (rows, columns)
    offsets = np.concatenate([[0], np.cumsum(marks.sum(axis=1, dtype=np.int64) * 32)])
    record = np.empty(int(offsets[-1]) // 8, np.uint64)
    start = offsets[:-1] // 8
    for (high, low), cell, mark in zip(names, cells, valid, strict=True):
        start = _place(record, start, np.uint64(high), np.uint64(low), cell, mark)
    return hash_slices(record.view(np.uint8), offsets)  # type: ignore[no-any-return]


@njit(cache=True, nogil=True)
def _place(record, start, high, low, cell, mark):  # type: ignore[no-untyped-def]
    """Writes a column's name and cell digests where each row's next pair goes; returns where the pair after it goes."""
    after = np.empty_like(start)
    for i in range(len(start)):
        at = start[i]
        if mark[i]:
            record[at], record[at + 1], record[at + 2], record[at + 3] = high, low, cell[i, 0], cell[i, 1]
            at += 4
        after[i] = at
    return after
