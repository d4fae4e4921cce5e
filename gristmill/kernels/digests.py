"""Canonical digests of cells and rows: the same for the same content, however columns are ordered, schemas were unified or files were cut.

A cell's digest is XXH3-128 of the tag of its family of types (8 bytes) and its value in one canonical form; a row's is XXH3-128 of, for each
non-null column in order of name, the digest of the name and the digest of the cell. A null cell and a missing column both add nothing.
Digests are kept for ever as row ids: a change of any tag or form changes every id.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash
from numba import njit

from gristmill.errors import ColumnError, SchemaMismatchError, capped
from gristmill.kernels.buffers import U8, validity
from gristmill.kernels.hashing import I64, NULL, U64, hash_slices, hash_text
from gristmill.kernels.numerals import FRACTION, decimal_form, fixed, float_form, integer_form

BLOCK_ROWS = 16384
BLOCK_BYTES = 4 << 20
"""A table is hashed in blocks of at most so many rows and about so many bytes, as `_weight` counts them: so scratch memory is some tens of MB,
or some ten times the weight of the largest row, whatever the table's size."""

BOOL, TEXT, BYTES, INSTANT, LOCAL, DATE, TIME, DURATION, LIST, STRUCT, MAP = range(16, 27)
"""Tags beside those of `numerals`. INSTANT: a timestamp with a zone; LOCAL: one without."""

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class Cells(NamedTuple):
    """The digests (rows, 2) of a column's cells, NULL where `valid` (rows,) is 0."""

    digests: U64
    valid: U8


def row_digests(table: pa.Table, exclude: Collection[str] = ()) -> U64:
    """(rows, 2) uint64: the high and low half of each row's digest, over all columns but `exclude`.

    Raises:
        SchemaMismatchError: (a TypeError) a column of a type that has no canonical form, naming both.
        ColumnError: two columns have one name.
    """
    names = sorted(name for name in table.column_names if name not in exclude)
    if twice := sorted({one for one, other in itertools.pairwise(names) if one == other}):
        raise ColumnError(f"several columns are called {capped(twice)}; rename all but one of each", columns=twice)
    table = table.select(names)
    rows = table.num_rows
    size = sum(column.nbytes * _weight(column.type) for column in table.columns)
    step = max(1, min(BLOCK_ROWS, BLOCK_BYTES * rows // max(size, 1)))
    out = np.empty((rows, 2), np.uint64)
    for start in range(0, rows, step):
        block = table.slice(start, step)
        columns = [_column(name, block.column(i)) for i, name in enumerate(names)]
        out[start : start + step] = _combine(
            names, columns, min(step, rows - start)
        )  # a slice of no columns miscounts its rows
    return out


def cell_digests(array: pa.Array | pa.ChunkedArray) -> U64:
    """(rows, 2) uint64: the digest of each cell; a null cell's is NULL.

    Numbers are one family: integers of all widths, floats and decimals are equal where they are the same integer from -2^63 to 2^64 - 1; else
    floats of all widths are equal by value (every NaN is the same, -0.0 is 0) and so are decimals of all widths and scales, but a float and
    a decimal differ. A bool is no number. Text kinds are one family, bytes another. Timestamps and durations of any unit are equal where
    they mean the same; a timestamp with a zone is an instant whatever the zone, one without a zone is no instant. List kinds, fixed-size ones
    too, are one family; a struct is as a row of its fields; a map keeps the order of its entries. Dictionaries, run-end encoding and extension
    types are as what they hold.

    Raises:
        SchemaMismatchError: (a TypeError) no canonical form for the type.
    """
    return _cells(array).digests


def fingerprint(schema: pa.Schema, row_sum: int, num_rows: int) -> str:
    """32 hex digits over the schema (names and types, in order of name), the number of rows and the sum of their digests mod 2^128.

    Free of the order of rows and columns, of how rows lie in files, of metadata and of how Arrow lays a type out (string, large_string,
    dictionary, ...). A type that a suite could tell from another (int32 from int64) counts as another, since verdicts bind to the fingerprint.
    """
    fields = sorted(([field.name, _logical(field.type)] for field in schema), key=json.dumps)
    text = json.dumps([fields, num_rows, f"{row_sum % 2**128:032x}"], separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(text.encode())


def _logical(kind: pa.DataType) -> object:
    """The type without its layout, as JSON: text, or a list of its name and its parts."""
    if isinstance(kind, pa.BaseExtensionType):
        return _logical(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _logical(kind.value_type)
    if _is_text(kind):
        return "string"
    if _is_bytes(kind) and not pa.types.is_fixed_size_binary(kind):
        return "binary"
    if pa.types.is_decimal(kind):
        return ["decimal", kind.precision, kind.scale]
    if pa.types.is_fixed_size_list(kind):
        return ["fixed_size_list", kind.list_size, _logical(kind.value_type)]
    if _is_list(kind):
        return ["list", _logical(kind.value_type)]
    if pa.types.is_map(kind):
        return ["map", _logical(kind.key_type), _logical(kind.item_type)]
    if pa.types.is_struct(kind):
        return ["struct", *sorted(([field.name, _logical(field.type)] for field in kind), key=json.dumps)]
    return str(kind)


def _is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_list_view, pa.types.is_large_list_view)
    return any(test(kind) for test in tests)


def _weight(kind: pa.DataType) -> int:
    """How often a byte of such a column counts for a block: numbers as if 64 bits wide, what is nested four times."""
    return 64 // _narrowest(kind) * (4 if pa.types.is_nested(kind) else 1)


def _narrowest(kind: pa.DataType) -> int:
    """The bits of the narrowest number inside a type, at most 64."""
    if pa.types.is_nested(kind):
        return min((_narrowest(kind.field(i).type) for i in range(kind.num_fields)), default=64)
    return min(kind.bit_width, 64) if pa.types.is_primitive(kind) else 64


def _column(name: str, column: pa.ChunkedArray) -> Cells:
    try:
        return _cells(column)
    except SchemaMismatchError as error:
        raise SchemaMismatchError(f"column '{name}': {error}", column=name) from None


def _cells(array: pa.Array | pa.ChunkedArray) -> Cells:
    if isinstance(array, pa.ChunkedArray):
        if array.num_chunks == 1:
            return _cells(array.chunk(0))
        chunks = [_cells(chunk) for chunk in array.chunks] or [_cells(pa.array([], array.type))]
        return Cells(np.concatenate([each.digests for each in chunks]), np.concatenate([each.valid for each in chunks]))
    array = _plain(array)
    valid = validity(array)
    digests = _values(array)
    digests[valid == 0] = NULL
    return Cells(digests, valid)


def _plain(array: pa.Array) -> pa.Array:
    """The array without encodings, whose nulls can lie in the encoded values."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _plain(array.storage)
    if pa.types.is_dictionary(kind):
        return _plain(array.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        runs = np.searchsorted(
            array.run_ends.to_numpy(), np.arange(array.offset, array.offset + len(array)), side="right"
        )
        return _plain(array.values.take(pa.array(runs)))
    return array


def _values(array: pa.Array) -> U64:
    """The digests of the cells, anything where null."""
    kind = array.type
    if pa.types.is_null(kind):
        return np.zeros((len(array), 2), np.uint64)
    if _is_text(kind):
        return _hash_words(TEXT, hash_text(array))
    if _is_bytes(kind):
        return _hash_words(
            BYTES, hash_text(array.cast(pa.large_binary()) if pa.types.is_fixed_size_binary(kind) else array)
        )
    if pa.types.is_boolean(kind):
        return _hash_words(BOOL, fixed(array.cast(pa.uint8()), "u1"))
    if pa.types.is_nested(kind):
        return _nested(array)
    if pa.types.is_integer(kind):
        return _hash_words(*integer_form(array))
    if pa.types.is_floating(kind):
        return _hash_words(*float_form(array))
    if pa.types.is_decimal(kind):
        tags, words = decimal_form(array)
        digests = _hash_words(tags, words[:, :1])
        rest = np.flatnonzero(tags == FRACTION)
        digests[rest] = _hash_words(FRACTION, words[rest])
        return digests
    return _temporal(array)


def _temporal(array: pa.Array) -> U64:
    kind = array.type
    if pa.types.is_date32(kind):
        return _hash_words(DATE, fixed(array, "i4"))
    if pa.types.is_date64(kind):
        return _hash_words(DATE, fixed(array, "i8") // 86_400_000)
    if pa.types.is_timestamp(kind):
        tag = LOCAL if kind.tz is None else INSTANT
    elif pa.types.is_duration(kind):
        tag = DURATION
    elif pa.types.is_time(kind):
        tag = TIME
    else:
        raise _no_form(kind)
    ticks = fixed(array, f"i{kind.bit_width // 8}").astype(np.int64)
    seconds = ticks // PER_SECOND[kind.unit]
    nanos = (ticks - seconds * PER_SECOND[kind.unit]) * (10**9 // PER_SECOND[kind.unit])
    return _hash_words(tag, np.hstack([seconds, nanos]))  # nanoseconds alone would overflow for far years


def _nested(array: pa.Array) -> U64:
    """The digests of lists, structs and maps, read from their children: Arrow's casts of nested types can make invalid arrays."""
    kind = array.type
    rows = len(array)
    if pa.types.is_struct(kind):
        return _struct([field.name for field in kind], array.flatten(), rows)
    if pa.types.is_fixed_size_list(kind):
        elements = array.values.slice(array.offset * kind.list_size, rows * kind.list_size)
        return _lists(LIST, cell_digests(elements), np.arange(rows + 1, dtype=np.int64) * kind.list_size)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(
        kind
    ):  # flatten: in order of the rows, without what lies under a null
        sizes = array.sizes.to_numpy() * validity(array)
        return _lists(LIST, cell_digests(array.flatten()), np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]))
    if not (_is_list(kind) or pa.types.is_map(kind)):
        raise _no_form(kind)
    if rows == 0:  # such an array may lack offsets
        return np.empty((0, 2), np.uint64)
    offsets = array.offsets.to_numpy().astype(np.int64)
    elements = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    offsets -= offsets[0]
    if pa.types.is_map(kind):
        return _lists(MAP, _struct(["key", "value"], elements.flatten(), len(elements)), offsets)
    return _lists(LIST, cell_digests(elements), offsets)


def _struct(names: list[str], columns: list[pa.Array], rows: int) -> U64:
    order = sorted(range(len(names)), key=names.__getitem__)
    return _hash_words(STRUCT, _combine([names[i] for i in order], [_cells(columns[i]) for i in order], rows))


def _lists(tag: int, elements: U64, offsets: I64) -> U64:
    """The digests of lists: of the digests of their elements, one after another, NULL for a null one."""
    return _hash_words(tag, hash_slices(elements.view(np.uint8).reshape(-1), offsets * 16))


def _no_form(kind: pa.DataType) -> SchemaMismatchError:
    return SchemaMismatchError(
        f"type {kind} has no canonical form to tell rows by; cast it to one that has, or leave it out"
    )


def _hash_words(tags: int | npt.NDArray[np.integer], words: npt.NDArray[np.generic]) -> U64:
    """The digest of a tag, the same for all rows or one a row, and the row's words (rows, n) of 64 bits; narrower ones are widened."""
    rows, n = words.shape
    record = np.empty((rows, n + 1), np.int64)
    record[:, 0] = tags
    record[:, 1:] = words.view(np.int64) if words.dtype == np.uint64 else words
    return hash_slices(record.view(np.uint8).reshape(-1), np.arange(rows + 1, dtype=np.int64) * (8 * (n + 1)))


@functools.lru_cache(maxsize=4096)
def _name_digest(name: str) -> tuple[int, int]:
    number = xxhash.xxh3_128_intdigest(name.encode())
    return number >> 64, number & (2**64 - 1)


def _combine(names: list[str], columns: list[Cells], rows: int) -> U64:
    """The digest of each row from the names, in order, and the cells of its non-null columns."""
    ends = np.zeros(rows + 1, np.int64)
    for column in columns:
        ends[1:] += column.valid
    ends = np.cumsum(ends * 4)  # in words of 64 bits
    record = np.empty(int(ends[-1]), np.uint64)
    places = ends[:-1].copy()
    for name, column in zip(names, columns, strict=True):
        high, low = _name_digest(name)
        _place(record, places, np.uint64(high), np.uint64(low), column.digests, column.valid)
    return hash_slices(record.view(np.uint8), ends * 8)


@njit(cache=True, nogil=True)
def _place(record, places, high, low, digests, valid):  # type: ignore[no-untyped-def]
    """Writes a column's name and cell digests at each row's place, and moves that on."""
    for i in range(len(places)):
        if valid[i]:
            at = places[i]
            record[at], record[at + 1], record[at + 2], record[at + 3] = high, low, digests[i, 0], digests[i, 1]
            places[i] = at + 4
