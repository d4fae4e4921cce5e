"""Schemas of many inputs: null to any, integers to floats, anything else an error that names both."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import SchemaMismatchError
from gristmill.pipelines.sources import cast_table, unify_schemas


def unified(*kinds: pa.DataType) -> pa.DataType:
    return unify_schemas([(pa.schema([("a", kind)]), f"file{i}") for i, kind in enumerate(kinds)]).field("a").type


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        ([pa.null(), pa.string()], pa.string()),
        ([pa.null(), pa.null()], pa.null()),
        ([pa.int64(), pa.float64()], pa.float64()),
        ([pa.int8(), pa.int32()], pa.int32()),
        ([pa.uint8(), pa.int64()], pa.int64()),
        ([pa.float32(), pa.int8()], pa.float64()),
        ([pa.string(), pa.large_string()], pa.large_string()),
        ([pa.dictionary(pa.int32(), pa.string()), pa.string()], pa.string()),
        ([pa.timestamp("s"), pa.timestamp("us")], pa.timestamp("us")),
        ([pa.list_(pa.null()), pa.list_(pa.int64()), pa.list_(pa.float64())], pa.list_(pa.float64())),
        ([pa.list_(pa.float32(), 2), pa.list_(pa.float32())], pa.list_(pa.float32())),
        (
            [pa.struct([("x", pa.int64())]), pa.struct([("y", pa.null()), ("x", pa.float64())])],
            pa.struct([("x", pa.float64()), ("y", pa.null())]),
        ),
        ([pa.struct([]), pa.struct([("x", pa.int64())])], pa.struct([("x", pa.int64())])),
    ],
)
def test_types_that_go_together(kinds, wanted):
    assert unified(*kinds) == wanted
    for kind in kinds:
        empty = pa.table({"a": pa.nulls(3, kind)})
        assert cast_table(empty, pa.schema([("a", wanted)])).schema.field("a").type == wanted


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (pa.int64(), pa.string()),
        (pa.bool_(), pa.int64()),
        (pa.list_(pa.int64()), pa.int64()),
        (pa.struct([("x", pa.int64())]), pa.struct([("x", pa.string())])),
        (pa.timestamp("s"), pa.timestamp("s", tz="UTC")),
        (pa.string(), pa.binary()),
    ],
)
def test_types_that_do_not(a, b):
    with pytest.raises(
        SchemaMismatchError, match=r"column 'a' is .* in file1 and .* in file2\. Declare it: `schema: \{a: "
    ):
        unified(pa.null(), a, b)


def test_columns_in_order_of_appearance_and_missing_ones_null():
    schema = unify_schemas(
        [
            (pa.schema([("b", pa.int64()), ("a", pa.string())]), "x"),
            (pa.schema([("c", pa.bool_()), ("a", pa.string())]), "y"),
        ]
    )
    assert schema.names == ["b", "a", "c"]
    assert cast_table(pa.table({"a": ["t"]}), schema).to_pylist() == [{"b": None, "a": "t", "c": None}]


def test_casts_keep_values_or_say_that_they_cannot():
    floats = pa.schema([("a", pa.float64())])
    assert cast_table(pa.table({"a": [2**53, -(2**60), None]}), floats)["a"].to_pylist() == [2.0**53, -(2.0**60), None]
    with pytest.raises(
        SchemaMismatchError,
        match="column 'a' can't be read as double: an integer among its values is not exactly a double",
    ):
        cast_table(pa.table({"a": [1, 2**53 + 1]}), floats)
    with pytest.raises(SchemaMismatchError, match="column 'b' is not in the schema"):
        cast_table(pa.table({"b": [1]}), floats)
    with pytest.raises(SchemaMismatchError, match="column 'a' can't be read as int64"):
        cast_table(pa.table({"a": pa.array([2**63], pa.uint64())}), pa.schema([("a", pa.int64())]))


def test_slices_of_lists_with_nulls():
    part = pa.table({"a": pa.array([[9], None, [1, None], []])}).slice(1)
    wide = pa.schema([("a", pa.large_list(pa.float64()))])
    assert cast_table(part, wide)["a"].to_pylist() == [None, [1.0, None], []]


VALUE = st.recursive(
    st.one_of(st.none(), st.integers(-100, 100)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("xyz"), inner, min_size=1, max_size=2)
    ),
    max_leaves=5,
)


@given(st.lists(st.lists(VALUE, min_size=1, max_size=4), min_size=1, max_size=4))
def test_unified_tables_hold_what_the_parts_held(parts):
    tables = []
    for part in parts:
        try:
            tables.append(pa.table({"a": pa.array(part)}))
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # values that no Arrow array holds together
            continue
    try:
        schema = unify_schemas([(table.schema, "f") for table in tables])
    except SchemaMismatchError:
        return
    for table in tables:
        found = cast_table(table.slice(1), schema)
        found.validate(full=True)
        assert plain(found["a"].to_pylist()) == plain(table["a"].to_pylist()[1:])


def plain(value: object) -> object:
    """Without null fields: a struct that lacks a field and one where it is null are alike."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if v is not None}
    return [plain(item) for item in value] if isinstance(value, list) else value
