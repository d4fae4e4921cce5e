"""Row and cell digests against a plain reading of their definition, and the equalities that row identity rests on."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import struct
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import ColumnError, SchemaMismatchError
from gristmill.kernels import digests as module
from gristmill.kernels.digests import cell_digests, fingerprint, row_digests
from gristmill.kernels.hashing import hex_digests, sum_digests

D = Decimal


# ------------------------------------------------------------------ the definition, one value at a time

NULL = b"nullnullnullnull"


def hashed(data: bytes) -> bytes:
    number = xxhash.xxh3_128_intdigest(data)
    return struct.pack("<QQ", number >> 64, number & (2**64 - 1))


def tagged(tag: int, *words: int) -> bytes:
    return hashed(b"".join(struct.pack("<Q", word % 2**64) for word in (tag, *words)))


def ticks(value: int, unit: str) -> tuple[int, int]:
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    return value // scale, value % scale * (10**9 // scale)


def number(value: int) -> bytes:
    return tagged(2 if value >= 2**63 else 1, value)


def decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    mantissa = int("".join(map(str, digits)))
    while mantissa and mantissa % 10 == 0:
        mantissa, exponent = mantissa // 10, exponent + 1
    whole = (-1) ** sign * mantissa * 10 ** max(exponent, 0)
    if mantissa == 0 or (exponent >= 0 and -(2**63) <= whole < 2**64):
        return number(whole)
    return tagged(4, exponent, *((mantissa >> shift) % 2**64 for shift in (0, 64, 128, 192)), sign)


def real(value: float) -> bytes:
    if math.isfinite(value) and value == int(value) and -(2**63) <= value < 2**64:
        return number(int(value))
    return tagged(3, struct.unpack("<Q", struct.pack("<d", math.nan if math.isnan(value) else value))[0])


def cell(value: Any, kind: pa.DataType) -> bytes:
    """The digest of a value as `to_raw` gives it."""
    if value is None:
        return NULL
    if pa.types.is_boolean(kind):
        return tagged(16, value)
    if pa.types.is_integer(kind):
        return number(value)
    if pa.types.is_floating(kind):
        return real(value)
    if pa.types.is_decimal(kind):
        return decimal(value)
    if pa.types.is_string(kind):
        return hashed(struct.pack("<Q", 17) + hashed(value.encode()))
    if pa.types.is_binary(kind):
        return hashed(struct.pack("<Q", 18) + hashed(value))
    if pa.types.is_timestamp(kind):
        return tagged(20 if kind.tz is None else 19, *ticks(value, kind.unit))
    if pa.types.is_date(kind):
        return tagged(21, value)
    if pa.types.is_time(kind):
        return tagged(22, *ticks(value, kind.unit))
    if pa.types.is_duration(kind):
        return tagged(23, *ticks(value, kind.unit))
    if pa.types.is_struct(kind):
        return hashed(struct.pack("<Q", 25) + row({field.name: (value[field.name], field.type) for field in kind}))
    if pa.types.is_map(kind):
        entry = pa.struct([("key", kind.key_type), ("value", kind.item_type)])
        return hashed(struct.pack("<Q", 26) + hashed(b"".join(cell({"key": k, "value": v}, entry) for k, v in value)))
    assert pa.types.is_list(kind)
    return hashed(struct.pack("<Q", 24) + hashed(b"".join(cell(each, kind.value_type) for each in value)))


def row(values: dict[str, tuple[Any, pa.DataType]]) -> bytes:
    present = sorted((name, pair) for name, pair in values.items() if pair[0] is not None)
    return hashed(b"".join(hashed(name.encode()) + cell(*pair) for name, pair in present))


# ------------------------------------------------------------------ arrays of any type


def raw(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Values of a type as plain numbers and text: temporal ones as their ticks."""
    if pa.types.is_null(kind):
        return st.none()
    return st.none() | _present(kind)


def _present(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_unsigned_integer(kind):
        return st.integers(0, 2**kind.bit_width - 1)
    if pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        return st.integers(-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1)
    if pa.types.is_floating(kind):
        return st.integers(-5, 5).map(float) | st.floats(width=kind.bit_width)
    if pa.types.is_decimal(kind):
        digits = st.integers(-(10**kind.precision) + 1, 10**kind.precision - 1)
        zeros = st.integers(0, kind.precision)
        return st.builds(
            lambda n, z: D((int(n < 0), tuple(map(int, str(abs(n) // 10**z * 10**z))), -kind.scale)), digits, zeros
        )
    if pa.types.is_string(kind):
        return st.text(max_size=20)
    if pa.types.is_binary(kind):
        return st.binary(max_size=20)
    if pa.types.is_date(kind):
        return st.integers(-(2**31), 2**31 - 1)
    if pa.types.is_time(kind):
        return st.integers(0, 86400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit] - 1)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({field.name: raw(field.type) for field in kind})
    if pa.types.is_map(kind):
        return st.lists(st.tuples(_present(kind.key_type), raw(kind.item_type)), max_size=3)
    return st.lists(raw(kind.value_type), max_size=4)


def build(values: list[Any], kind: pa.DataType) -> pa.Array:
    """The Arrow array of raw values, built field by field so that ticks need no Python dates."""
    mask = pa.array([value is None for value in values], pa.bool_())
    if pa.types.is_list(kind):
        offsets = list(itertools.accumulate([len(value or []) for value in values], initial=0))
        return pa.ListArray.from_arrays(
            pa.array(offsets, pa.int32()),
            build([each for value in values for each in value or []], kind.value_type),
            mask=mask,
        )
    if pa.types.is_struct(kind):
        columns = [build([value[field.name] if value else None for value in values], field.type) for field in kind]
        return pa.StructArray.from_arrays(columns, fields=list(kind), mask=mask)
    if pa.types.is_temporal(kind):
        return pa.array(values, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)
    return pa.array(values, kind)


FLAT = [
    pa.null(), pa.bool_(), pa.int8(), pa.int64(), pa.uint8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.string(), pa.binary(),
    pa.date32(), pa.time32("ms"), pa.time64("ns"), pa.duration("us"), pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("us", "Asia/Tokyo"),
    pa.decimal32(9, 3), pa.decimal64(18, 0), pa.decimal128(38, 20), pa.decimal128(5, -3), pa.decimal256(76, 10),
]  # fmt: skip
NAMES = st.lists(st.sampled_from(["a", "b", "é", "", "a b"]), unique=True, min_size=1, max_size=3)
TYPES = st.recursive(
    st.sampled_from(FLAT),
    lambda inner: st.one_of(
        inner.map(pa.list_),
        st.tuples(NAMES, st.lists(inner, min_size=3, max_size=3)).map(
            lambda pair: pa.struct(list(zip(*pair, strict=False)))
        ),
        inner.map(lambda value: pa.map_(pa.string(), value)),
    ),
    max_leaves=4,
)


@st.composite
def columns(draw: st.DrawFn) -> tuple[list[Any], pa.DataType]:
    kind = draw(TYPES)
    return draw(st.lists(raw(kind), max_size=8)), kind


def as_bytes(digests: np.ndarray) -> list[bytes]:
    return [bytes(each) for each in np.ascontiguousarray(digests).view(np.uint8).reshape(-1, 16)]


def digest(value: Any, kind: pa.DataType | None = None) -> bytes:
    return as_bytes(cell_digests(pa.array([value], kind)))[0]


# ------------------------------------------------------------------ the definition holds


@settings(max_examples=300)
@given(columns(), st.integers(0, 4), st.integers(0, 4))
def test_cells_are_as_defined_however_they_are_sliced_and_chunked(
    column: tuple[list[Any], pa.DataType], start: int, length: int
) -> None:
    values, kind = column
    array = build(values, kind)
    expected = [cell(value, kind) for value in values]
    assert as_bytes(cell_digests(array)) == expected
    assert as_bytes(cell_digests(array.slice(start, length))) == expected[start : start + length]
    parts = [array.slice(start), array.slice(0, 0), array.slice(start, length)]
    assert as_bytes(cell_digests(pa.chunked_array(parts, kind))) == expected[start:] + expected[start : start + length]


@pytest.mark.parametrize("kind", FLAT, ids=str)
@settings(max_examples=25)
@given(data=st.data())
def test_every_flat_type_is_as_defined(kind: pa.DataType, data: st.DataObject) -> None:
    values = data.draw(st.lists(raw(kind), max_size=6))
    assert as_bytes(cell_digests(build(values, kind))) == [cell(value, kind) for value in values]


@settings(max_examples=150)
@given(st.data())
def test_rows_are_as_defined_free_of_column_order_blocks_and_slices(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.text(max_size=5), unique=True, max_size=4))
    rows = data.draw(st.integers(0, 7))
    kinds = {name: data.draw(TYPES) for name in names}
    values = {name: data.draw(st.lists(raw(kind), min_size=rows, max_size=rows)) for name, kind in kinds.items()}
    table = pa.table({name: build(values[name], kinds[name]) for name in names})
    count = table.num_rows  # 0 without columns
    found = as_bytes(row_digests(table))
    assert found == [row({name: (values[name][i], kinds[name]) for name in names}) for i in range(count)]
    assert as_bytes(row_digests(table.select(data.draw(st.permutations(names))))) == found
    cut = data.draw(st.integers(0, count))
    assert as_bytes(row_digests(table.slice(0, cut))) + as_bytes(row_digests(table.slice(cut))) == found
    assert as_bytes(row_digests(pa.concat_tables([table.slice(cut), table.slice(0, cut)]))) == found[cut:] + found[:cut]
    left_out = data.draw(st.sets(st.sampled_from(names))) if names else set()
    if len(left_out) < len(names):
        assert as_bytes(row_digests(table, exclude=left_out)) == as_bytes(
            row_digests(table.drop_columns(sorted(left_out)))
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_ROWS", 2)
        assert as_bytes(row_digests(table)) == found


def test_null_and_missing_columns_add_nothing() -> None:
    plain = row_digests(pa.table({"a": [1, None]}))
    unified = pa.table(
        {
            "z": pa.nulls(2),
            "a": [1, None],
            "t": pa.nulls(2, pa.string()),
            "s": pa.nulls(2, pa.struct([("x", pa.int8())])),
        }
    )
    assert np.array_equal(row_digests(unified), plain)
    inner = row_digests(pa.table({"s": [{"x": 1}]}))
    assert np.array_equal(row_digests(pa.table({"s": [{"y": None, "x": 1}]})), inner)


def test_a_row_of_nulls_and_a_table_without_rows() -> None:
    assert as_bytes(row_digests(pa.table({"a": [None]}))) == [hashed(b"")]
    assert row_digests(pa.table({"a": pa.array([], pa.string())})).shape == (0, 2)
    assert row_digests(pa.table({})).shape == (0, 2)


def test_a_value_moved_to_another_column_changes_the_row() -> None:
    assert as_bytes(row_digests(pa.table({"a": ["x"], "b": pa.nulls(1)}))) != as_bytes(
        row_digests(pa.table({"a": pa.nulls(1), "b": ["x"]}))
    )
    assert as_bytes(row_digests(pa.table({"a": ["x"], "b": ["y"]}))) != as_bytes(
        row_digests(pa.table({"a": ["y"], "b": ["x"]}))
    )


# ------------------------------------------------------------------ what is equal, what differs

TEXT_KINDS = [
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.large_string()),
]
BYTES_KINDS = [pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.binary())]


@given(st.lists(st.none() | st.text(), min_size=1), st.data())
def test_layouts_of_text_and_bytes_are_equal(texts: list[str | None], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(texts)))
    for plain, kinds in (
        (pa.array(texts, pa.string()), TEXT_KINDS),
        (pa.array(texts, pa.string()).cast(pa.binary()), BYTES_KINDS),
    ):
        expected = cell_digests(plain)
        for kind in kinds:
            other = (
                plain.cast(kind.value_type).dictionary_encode() if pa.types.is_dictionary(kind) else plain.cast(kind)
            )
            assert np.array_equal(cell_digests(other), expected), kind
            assert np.array_equal(cell_digests(other.slice(at)), expected[at:]), kind
    encoded = pa.RunEndEncodedArray.from_arrays(
        pa.array(range(1, len(texts) + 1), pa.int32()), pa.array(texts, pa.string())
    )
    assert np.array_equal(cell_digests(encoded), cell_digests(pa.array(texts, pa.string())))


def test_a_null_inside_a_dictionary_is_a_null() -> None:
    encoded = pa.DictionaryArray.from_arrays(pa.array([1, 0, None]), pa.array(["x", None]))
    assert np.array_equal(row_digests(pa.table({"a": encoded})), row_digests(pa.table({"a": [None, "x", None]})))


def test_empty_text_does_not_depend_on_the_rows_beside_it() -> None:
    assert (
        digest("") == as_bytes(cell_digests(pa.array(["", None])))[0] == as_bytes(cell_digests(pa.array(["", "x"])))[0]
    )
    assert digest([""]) == as_bytes(cell_digests(pa.array([[""], [None]])))[0]


@given(st.lists(st.none() | st.integers(-128, 127)))
def test_integers_of_every_width_floats_and_decimals_are_equal(values: list[int | None]) -> None:
    expected = cell_digests(pa.array(values, pa.int64()))
    wide = [
        pa.int8(),
        pa.int16(),
        pa.int32(),
        pa.float16(),
        pa.float32(),
        pa.float64(),
        pa.decimal128(30, 5),
        pa.decimal128(25, 0),
        pa.decimal256(60, 0),
    ]
    for kind in wide:
        assert np.array_equal(cell_digests(pa.array(values, pa.int64()).cast(kind)), expected), kind
    positive = [None if value is None else abs(value) for value in values]
    for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()):
        assert np.array_equal(cell_digests(pa.array(positive, kind)), cell_digests(pa.array(positive, pa.int64()))), (
            kind
        )


@pytest.mark.parametrize("value", [0, -1, 2**53, 2**53 + 2, -(2**62), 2**62, -(2**63), 2**63, 2**64 - 2**11])
def test_large_integers_equal_their_floats_and_decimals(value: int) -> None:
    kind = pa.uint64() if value >= 2**63 else pa.int64()
    assert digest(value, kind) == digest(float(value)) == digest(D(value), pa.decimal128(38, 2)) == number(value)


def test_zeros_nans_and_widths_of_floats() -> None:
    assert digest(-0.0) == digest(0.0) == digest(0) == digest(D("-0.00"))
    nans = np.array([0x7FF8000000000000, 0xFFF8000000000000, 0x7FF0000000000001, 0x7FF8000000000123], np.uint64).view(
        np.float64
    )
    narrow = np.array([0x7FC00000, 0x7FA00000, 0xFFC00001], np.uint32).view(np.float32)
    found = {
        *as_bytes(cell_digests(pa.array(nans, from_pandas=False))),
        *as_bytes(cell_digests(pa.array(narrow, from_pandas=False))),
    }
    assert len(found) == 1
    assert found != {NULL}
    assert digest(0.5, pa.float16()) == digest(0.5, pa.float32()) == digest(0.5)
    assert digest(0.1, pa.float32()) != digest(0.1)  # they are different numbers


def test_decimals_of_every_width_and_scale_are_equal_by_value() -> None:
    kinds = [
        pa.decimal32(9, 7),
        pa.decimal64(18, 9),
        pa.decimal128(20, 7),
        pa.decimal128(20, 10),
        pa.decimal256(70, 30),
    ]
    for value in (D("0.0000001"), D("-1.5"), D("0.10"), D("12.000001")):
        assert len({digest(value, kind) for kind in kinds}) == 1
    assert digest(D("5E3"), pa.decimal128(5, -3)) == digest(5000)
    assert (
        digest(D(10) ** 37, pa.decimal128(38, 0))
        == digest(D(10) ** 37, pa.decimal256(76, 20))
        != digest(D(10) ** 36, pa.decimal128(38, 0))
    )


@given(st.integers(-(2**33), 2**33), st.sampled_from(["UTC", "Asia/Tokyo", "America/New_York", "+05:30"]))
def test_instants_of_every_unit_and_zone_are_equal(second: int, zone: str) -> None:
    for make in (
        lambda unit, zone: pa.timestamp(unit, zone),
        lambda unit, zone: pa.timestamp(unit),
        lambda unit, zone: pa.duration(unit),
    ):
        expected = digest(second, make("s", "UTC"))
        for unit, scale in (("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
            if abs(second * scale) < 2**63:
                assert digest(second * scale, make(unit, zone)) == expected
                assert digest(second * scale + 1, make(unit, zone)) != expected


def test_years_that_nanoseconds_cannot_hold() -> None:
    far = [-(2**63), -(2**62), 2**62, 2**63 - 1]
    for kind in (pa.timestamp("s"), pa.timestamp("s", "UTC"), pa.timestamp("us"), pa.duration("s")):
        assert len(set(as_bytes(cell_digests(pa.array(far, pa.int64()).view(kind))))) == len(far)


def test_widths_of_dates_and_times_are_equal() -> None:
    for day in (dt.date(1, 1, 1), dt.date(1969, 12, 31), dt.date(2024, 2, 29)):
        assert digest(day, pa.date32()) == digest(day, pa.date64())
    noon = dt.time(12, 0, 1)
    assert (
        len({digest(noon, kind) for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"))}) == 1
    )


def test_kinds_of_lists_are_equal() -> None:
    values = [[1, 2], None, [None, 4], [5, 6]]
    expected = cell_digests(pa.array(values, pa.list_(pa.int64())))
    for kind in (
        pa.large_list(pa.int8()),
        pa.list_(pa.float32(), 2),
        pa.list_view(pa.int64()),
        pa.large_list_view(pa.uint16()),
        pa.list_(pa.field("element", pa.int32())),
    ):
        array = pa.array(values, kind)
        assert np.array_equal(cell_digests(array), expected), kind
        assert np.array_equal(cell_digests(array.slice(1, 2)), expected[1:3]), kind


def test_what_lies_under_a_null_does_not_count() -> None:
    hidden = pa.array([7, 8, 9])
    mask = pa.array([True, False])
    assert np.array_equal(
        cell_digests(pa.ListArray.from_arrays([0, 2, 3], hidden, mask=mask)), cell_digests(pa.array([None, [9]]))
    )
    assert np.array_equal(
        cell_digests(pa.FixedSizeListArray.from_arrays(hidden[:2], 1, mask=mask)), cell_digests(pa.array([None, [8]]))
    )
    assert np.array_equal(
        cell_digests(pa.StructArray.from_arrays([hidden[:2]], ["a"], mask=mask)),
        cell_digests(pa.array([None, {"a": 8}])),
    )
    numbers = pa.Array.from_buffers(pa.int64(), 2, [pa.py_buffer(b"\x02"), pa.py_buffer(np.array([7, 8]))])
    assert np.array_equal(cell_digests(numbers), cell_digests(pa.array([None, 8])))


def test_maps_of_lists_of_structs_of_nulls() -> None:
    kind = pa.map_(pa.string(), pa.list_(pa.struct([("a", pa.null())])))
    values = [[("k", [None, {"a": None}])], None, [("k", None), ("l", [])]]
    array = pa.array(values, kind)  # Arrow's cast of it to a list makes an invalid array
    assert as_bytes(cell_digests(array)) == [cell(value, kind) for value in values]
    assert as_bytes(cell_digests(array.slice(1))) == [cell(value, kind) for value in values[1:]]


def test_names_inside_a_map_do_not_count() -> None:
    renamed = pa.map_(pa.field("k", pa.string(), nullable=False), pa.field("v", pa.int64()))
    values = [[("a", 1), ("b", None)], None]
    assert np.array_equal(
        cell_digests(pa.array(values, renamed)), cell_digests(pa.array(values, pa.map_(pa.string(), pa.int64())))
    )


def test_views_of_lists_out_of_order_and_overlapping() -> None:
    views = pa.ListViewArray.from_arrays(
        pa.array([2, 0, 1, 0], pa.int32()),
        pa.array([2, 2, 3, 4], pa.int32()),
        pa.array([1, 2, 3, 4]),
        mask=pa.array([False, False, True, False]),
    )
    expected = cell_digests(pa.array([[3, 4], [1, 2], None, [1, 2, 3, 4]]))
    assert np.array_equal(cell_digests(views), expected)
    assert np.array_equal(cell_digests(views.slice(1, 2)), expected[1:3])


def test_extension_types_are_as_their_storage() -> None:
    plain = pa.array([b"0" * 16, None], pa.binary(16))
    extended = pa.ExtensionArray.from_storage(pa.uuid(), plain)
    expected = cell_digests(plain.cast(pa.binary()))
    assert np.array_equal(cell_digests(extended), expected)
    assert np.array_equal(
        cell_digests(pa.DictionaryArray.from_arrays(pa.array([1, 0, 1]), extended)), expected[[1, 0, 1]]
    )


@pytest.mark.parametrize(
    "values",
    [pa.array(["x", None]), pa.array(["x", None]).dictionary_encode(), pa.array([[1], None]), pa.array([1.5, None])],
    ids=lambda a: str(a.type),
)
def test_runs_of_any_type_are_as_their_values(values: pa.Array) -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([3, 5], pa.int32()), values)
    expected = cell_digests(values)[[0, 0, 0, 1, 1]]
    assert np.array_equal(cell_digests(runs), expected)
    for start in range(6):
        assert np.array_equal(cell_digests(runs.slice(start, 2)), expected[start : start + 2])
    assert np.array_equal(
        row_digests(pa.table({"a": runs})), row_digests(pa.table({"a": values.take(pa.array([0, 0, 0, 1, 1]))}))
    )


DIFFERENT = [
    (None, pa.int64()), (1, None), (True, None), (0, None), (False, None), (2, None), (-1, None), (2**64 - 1, pa.uint64()), (2**63, pa.uint64()),
    (-(2**63), None), (0.5, None), (math.nan, None), (math.inf, None), (-math.inf, None), (2.0**64, None), (-0.5, None), (D("0.5"), None), (D("-0.5"), None),
    (D("0.05"), None), (D(2**64), None), ("", None), ("1", None), ("a", None), ("a\0", None), ("\0a", None), ("null", None), (b"", None), (b"1", None), (b"a", None),
    (dt.date(1970, 1, 2), None), (1, pa.timestamp("s")), (1, pa.timestamp("s", "UTC")), (1, pa.timestamp("ns")), (1, pa.time32("s")), (1, pa.duration("s")),
    ([], pa.list_(pa.int64())), ([None], pa.list_(pa.int64())), ([None, None], pa.list_(pa.int64())), ([1], None), ([1, 2], None), ([2, 1], None), ([[1]], None),
    ([[1], [2]], None), ([[1, 2]], None), ([[1, 2], []], None), (["a", "b"], None), (["ab"], None), (["ab", ""], None), ({}, pa.struct([])), ({"a": 1}, None), ({"b": 1}, None),
    ([{"a": 1}], None), ({"a": {"a": 1}}, None), ({"a": ""}, None), ([("a", 1)], pa.map_(pa.string(), pa.int64())), ([], pa.map_(pa.string(), pa.int64())),
    ([("a", 1), ("b", 2)], pa.map_(pa.string(), pa.int64())), ([("b", 2), ("a", 1)], pa.map_(pa.string(), pa.int64())), ([{"key": "a", "value": 1}], None),
]  # fmt: skip


def test_different_values_differ() -> None:
    seen: dict[bytes, tuple[Any, Any]] = {}
    for value, kind in DIFFERENT:
        found = digest(value, kind)
        assert found not in seen, f"{value!r} {kind} is as {seen[found]}"
        seen[found] = (value, kind)
    assert len(seen) == len(DIFFERENT)


def test_many_integers_differ() -> None:
    numbers = np.arange(-100_000, 100_000)
    assert len(np.unique(cell_digests(pa.array(numbers)), axis=0)) == len(numbers)


# ------------------------------------------------------------------ what is refused


def test_a_type_without_a_form_is_refused_with_its_column() -> None:
    union = pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])])
    for array, said in (
        (union, "dense_union"),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "month_day_nano_interval"),
    ):
        for column in (array, pa.ListArray.from_arrays([0, 1], array), pa.StructArray.from_arrays([array], ["inner"])):
            with pytest.raises(SchemaMismatchError, match=f"column 'odd': type {said}"):
                row_digests(pa.table({"fine": [1], "odd": column}))
            with pytest.raises(TypeError, match=said):
                cell_digests(column)


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(ColumnError, match="several columns are called a;"):
        row_digests(pa.table([[1], [2], [3]], names=["a", "b", "a"]))


# ------------------------------------------------------------------ kept for ever

GOLDEN = pa.table(
    {
        "id": pa.array([1, 2, None], pa.int32()),
        "text": ["Grist to the mill.", "", None],
        "score": [0.1, math.nan, None],
        "ok": [True, False, None],
        "raw": pa.array([b"\x00\xff", b"", None]),
        "price": pa.array([D("19.90"), D("-3.00"), None], pa.decimal128(10, 2)),
        "at": pa.array([0, 1_700_000_000_123_456, None], pa.timestamp("us", "UTC")),
        "local": pa.array([-1, 10**9, None], pa.timestamp("ms")),
        "day": pa.array([dt.date(2024, 2, 29), dt.date(1969, 12, 31), None]),
        "clock": pa.array([dt.time(23, 59, 59), dt.time(0), None]),
        "took": pa.array([dt.timedelta(seconds=-1), dt.timedelta(0), None]),
        "tags": [["a", None], [], None],
        "where": [{"line": 7, "file": "x"}, {"line": None, "file": None}, None],
        "pairs": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    }
)


def golden_reference() -> list[str]:
    """The ids of GOLDEN from the definition alone."""
    ids = []
    for i in range(GOLDEN.num_rows):
        values = {}
        for field in GOLDEN.schema:
            column = GOLDEN[field.name].combine_chunks()
            if pa.types.is_temporal(field.type):
                column = column.view(pa.int32() if field.type.bit_width == 32 else pa.int64())
            values[field.name] = (column[i].as_py(), field.type)
        high, low = struct.unpack("<QQ", row(values))
        ids.append(f"{high:016x}{low:016x}")
    return ids


def test_golden_rows() -> None:
    # Row ids are stored for ever. If this fails, ids of every dataset have changed: don't, or make it a new major version.
    assert (
        golden_reference()
        == hex_digests(row_digests(GOLDEN)).to_pylist()
        == ["092fe88f9dc5aa50f07eeb837d512514", "b4a5b38339d8ed809470b6df451dc0d2", "99aa06d3014798d86001c324468d497f"]
    )


def test_golden_fingerprint() -> None:
    assert (
        fingerprint(GOLDEN.schema, sum_digests(row_digests(GOLDEN)), GOLDEN.num_rows)
        == "793f630b7234a4b7c00659b02c29bd3b"
    )


# ------------------------------------------------------------------ the fingerprint

SCHEMA = pa.schema([("b", pa.string()), ("a", pa.list_(pa.struct([("x", pa.int64()), ("y", pa.string())])))])


def test_fingerprint_is_free_of_column_order_layout_metadata_and_nullability() -> None:
    known = fingerprint(SCHEMA, 5, 3)
    assert len(known) == 32
    assert set(known) <= set("0123456789abcdef")
    element = pa.struct([("y", pa.dictionary(pa.int32(), pa.string())), pa.field("x", pa.int64(), nullable=False)])
    other = pa.schema(
        [("a", pa.large_list(pa.field("element", element))), pa.field("b", pa.string_view(), metadata={"k": "v"})],
        metadata={"m": "n"},
    )
    assert fingerprint(other, 5, 3) == known
    assert fingerprint(SCHEMA, 5 + 2**128, 3) == known


@pytest.mark.parametrize(
    "schema",
    [
        pa.schema([("b", pa.string())]),
        pa.schema([("c", pa.string()), SCHEMA.field("a")]),
        pa.schema([("b", pa.binary()), SCHEMA.field("a")]),
        pa.schema([("b", pa.string()), ("a", pa.list_(pa.struct([("x", pa.int32()), ("y", pa.string())])))]),
        pa.schema([("b", pa.string()), ("a", pa.list_(SCHEMA.field("a").type.value_type, 2))]),
    ],
    ids=["fewer columns", "a name", "a type", "a width inside", "a fixed size"],
)
def test_fingerprint_of_another_schema_differs(schema: pa.Schema) -> None:
    assert fingerprint(schema, 5, 3) != fingerprint(SCHEMA, 5, 3)


def test_fingerprint_of_other_rows_differs() -> None:
    assert len({fingerprint(SCHEMA, total, rows) for total in (0, 1, 2**127) for rows in (0, 1)}) == 6


def test_a_name_cannot_pass_for_a_type() -> None:
    two = pa.schema([("a", pa.int64()), ("b", pa.string())])
    for text in ('a","int64"],["b', "a:int64\nb", 'a"'):
        assert fingerprint(pa.schema([(text, pa.string())]), 0, 0) != fingerprint(two, 0, 0)


def test_fingerprint_survives_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {
            "t": pa.array(["a", "b"]).dictionary_encode(),
            "l": [[1], None],
            "d": pa.array([D("1.5"), None]),
            "m": GOLDEN["pairs"].slice(0, 2),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", store_schema=False)  # as another writer's: no Arrow schema inside
    back = pq.read_table(tmp_path / "t.parquet")
    assert back.schema != table.schema
    assert np.array_equal(row_digests(back), row_digests(table))
    assert fingerprint(back.schema, 1, 2) == fingerprint(table.schema, 1, 2)


# ------------------------------------------------------------------ real files


def test_parquets_own_test_files_are_hashed_the_same_in_pieces(shared_data: Path) -> None:
    unreadable = {
        "incorrect_map_schema.parquet",
        "large_string_map.brotli.parquet",
    }  # by pyarrow; the second holds 2 GB of text
    done = 0
    for path in sorted((shared_data / "parquet_testing" / "data").glob("*.parquet")):
        if path.name in unreadable:
            continue
        table = pq.read_table(path)
        found = row_digests(table)
        half = table.num_rows // 2
        pieces = pa.concat_tables([table.slice(0, half), table.slice(half)]).select(table.column_names[::-1])
        assert np.array_equal(row_digests(pieces), found), path.name
        done += 1
    assert done > 50
