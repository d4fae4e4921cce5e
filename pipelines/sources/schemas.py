"""Schemas of many inputs made one: null gives way to any type, integers to floats; anything else is an error that names both inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import SchemaMismatchError


def unify_schemas(found: Sequence[tuple[pa.Schema, str]]) -> pa.Schema:
    """The schema that every input can be cast to; columns in order of first appearance. Each input comes with its name.

    Raises:
        SchemaMismatchError: a column whose types can't be brought together: names it, both types and both inputs.
    """
    kinds: dict[str, pa.DataType] = {}
    first: dict[str, str] = {}
    seen: set[pa.Schema] = set()
    for schema, name in found:
        if schema in seen:
            continue
        seen.add(schema)
        for field in schema:
            old = kinds.get(field.name)
            kind = field.type if old is None else common_type(old, field.type)
            if kind is None:
                raise SchemaMismatchError(
                    f"column '{field.name}' is {old} in {first[field.name]} and {field.type} in {name}. Declare it: "
                    f"`schema: {{{field.name}: {old}}}` on both sources quarantines what doesn't fit, or change one of the files.",
                    column=field.name,
                )
            if old is None or (pa.types.is_null(old) and not pa.types.is_null(field.type)):
                first[field.name] = name
            kinds[field.name] = kind
    return pa.schema(list(kinds.items()))


def common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The type that holds both, or None."""
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    for test, wide in ((_is_text, pa.large_string()), (_is_bytes, pa.large_binary())):
        if test(a) and test(b):
            return wide
    if _is_number(a) and _is_number(b):
        return _common_number(a, b)
    if pa.types.is_timestamp(a) and pa.types.is_timestamp(b) and (a.tz is None) == (b.tz is None):
        units = ["s", "ms", "us", "ns"]
        return pa.timestamp(max(a.unit, b.unit, key=units.index), tz=a.tz if a.tz == b.tz else "UTC")
    if pa.types.is_dictionary(a) or pa.types.is_dictionary(b):
        return common_type(*[kind.value_type if pa.types.is_dictionary(kind) else kind for kind in (a, b)])
    if _is_list(a) and _is_list(b):
        value = common_type(a.value_type, b.value_type)
        large = pa.types.is_large_list(a) or pa.types.is_large_list(b)
        return None if value is None else (pa.large_list(value) if large else pa.list_(value))
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        return _common_struct(a, b)
    return None


def _common_struct(a: pa.StructType, b: pa.StructType) -> pa.DataType | None:
    fields: dict[str, pa.DataType] = {field.name: field.type for field in a}
    for field in b:
        kind = common_type(fields[field.name], field.type) if field.name in fields else field.type
        if kind is None:
            return None
        fields[field.name] = kind
    return pa.struct(list(fields.items()))


def _common_number(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if pa.types.is_floating(a) or pa.types.is_floating(b):
        widths = [kind.bit_width if pa.types.is_floating(kind) else 64 for kind in (a, b)]
        return {16: pa.float16(), 32: pa.float32(), 64: pa.float64()}[max(widths)]
    signed = [pa.types.is_signed_integer(kind) for kind in (a, b)]
    width = max(a.bit_width, b.bit_width)
    if signed[0] == signed[1]:
        return (
            {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[width]
            if signed[0]
            else a
            if a.bit_width == width
            else b
        )
    return pa.int64()  # a uint64 over 2^63 - 1 then fails to cast, and says so


def cast_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the schema's columns: missing ones null, others cast, never with a loss.

    Raises:
        SchemaMismatchError: a value that doesn't fit (also an integer that a float can't hold exactly), or a column that the schema lacks.
    """
    if table.schema.equals(schema):
        return table
    extra = [name for name in table.column_names if name not in schema.names]
    if extra:
        raise SchemaMismatchError(
            f"column '{extra[0]}' is not in the schema of the run: {', '.join(schema.names)}", column=extra[0]
        )
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table[field.name]
        try:
            columns.append(
                column
                if column.type == field.type
                else pa.chunked_array([conform(chunk, field.type) for chunk in column.chunks], field.type)
            )
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SchemaMismatchError(
                f"column '{field.name}' can't be read as {field.type}: {str(error).splitlines()[0]}", column=field.name
            ) from error
    return pa.table(columns, schema=schema)


def conform(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The array in a type from `common_type`; struct fields that it lacks are null."""
    if array.type == kind:
        return array
    if pa.types.is_struct(kind) and pa.types.is_struct(array.type):
        have = {array.type.field(i).name: i for i in range(array.type.num_fields)}
        children = [
            conform(pc.struct_field(array, [have[f.name]]), f.type) if f.name in have else pa.nulls(len(array), f.type)
            for f in kind
        ]
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=array.is_null())
    if _is_list(kind) and _is_list(array.type) and not pa.types.is_fixed_size_list(array.type):
        build, width = (pa.LargeListArray, np.int64) if pa.types.is_large_list(kind) else (pa.ListArray, np.int32)
        offsets = pa.array(
            array.offsets.to_numpy().astype(width)
        )  # a copy: Arrow takes no slice of offsets beside a mask
        mask = array.is_null() if array.null_count else None
        return build.from_arrays(offsets, conform(array.values, kind.value_type), type=kind, mask=mask)
    if not (pa.types.is_floating(kind) and pa.types.is_integer(array.type)):
        return array.cast(kind)
    floats = array.cast(kind, safe=False)  # a safe cast would refuse every integer beyond 2^53, those that fit too
    if not floats.cast(array.type, safe=False).equals(array):
        raise pa.ArrowInvalid(
            f"an integer among its values is not exactly a {kind}; declare the column in the source's `schema:`, as {kind} to round it"
        )
    return floats


def declared_cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The column in the type that a source declares. Floats round by intent; everything else must fit exactly.

    Raises:
        pa.ArrowInvalid, pa.ArrowNotImplementedError: it doesn't.
    """
    return column.cast(kind, safe=not (pa.types.is_floating(kind) and _is_number(column.type)))


def holds(column: pa.ChunkedArray, check: Callable[[pa.ChunkedArray], object]) -> npt.NDArray[np.bool_]:
    """(rows,) whether the check passes on each value alone, without an Arrow error; found by halving, cheap when few don't."""
    found = np.ones(len(column), bool)
    todo = [(0, len(column))]
    while todo:
        lo, hi = todo.pop()
        try:
            check(column.slice(lo, hi - lo))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            if hi - lo == 1:
                found[lo] = False
            else:
                middle = (lo + hi) // 2
                todo += [(lo, middle), (middle, hi)]
    return found


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view())


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or kind == pa.binary_view()
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
