"""CSV and JSONL files as memory-mapped Arrow tables of one schema."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.json as pc_json

from gristmill.errors import InputError, SchemaMismatchError


def open_tables(paths: Sequence[str]) -> list[pa.Table]:
    """A table a file, all of one schema. A file is parsed whole, in memory, one at a time, and then lies in a temporary Arrow file.

    Types are those that hold every value of a column in a file, joined over the files: null to any, integer to float, anything to text. An
    empty CSV field is null, in text columns too; "N/A" and the like are text. A column that a file lacks is null there.

    Raises:
        InputError: a file that can't be parsed, naming it.
    """
    with tempfile.TemporaryDirectory(prefix="gristmill-validate-") as folder:
        stored = []
        for number, path in enumerate(paths):
            table = _parse(path)
            place = os.path.join(folder, f"{number}.arrow")
            with pa.OSFile(place, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=1 << 18)
            stored.append((place, table.schema, path))
        schema = unify([(schema, path) for _, schema, path in stored], missing_is_null=True)
        return [_mapped(place, schema) for place, *_ in stored]  # the mappings stay when the names go


def unify(found: Sequence[tuple[pa.Schema, str]], *, missing_is_null: bool = False) -> pa.Schema:
    """The schema that holds the rows of all files.

    Raises:
        SchemaMismatchError: a column that a file lacks (unless missing_is_null) or whose types can't be joined, naming both files.
    """
    schema, first = found[0]
    for other, path in found[1:]:
        if other.equals(schema):
            continue
        lacking = set(schema.names) ^ set(other.names)
        if lacking and not missing_is_null:
            column = min(lacking)
            has, lacks = (first, path) if column in schema.names else (path, first)
            raise SchemaMismatchError(
                f"'{lacks}' has no column '{column}', '{has}' has; validate them one at a time, or add the column",
                column=column,
                file=path,
            )
        schema = pa.schema(
            [_joined(field, other, first, path, missing_is_null) for field in schema]
            + [f for f in other if f.name not in schema.names]
        )
    return schema


def _joined(field: pa.Field, other: pa.Schema, first: str, path: str, text: bool) -> pa.Field:
    if field.name not in other.names:
        return field
    try:
        both = [pa.schema([field]), pa.schema([other.field(field.name)])]
        return pa.unify_schemas(both, promote_options="permissive").field(0)
    except pa.ArrowTypeError as error:
        if text:
            return pa.field(field.name, pa.string())
        kinds = f"{field.type} in '{first}' and {other.field(field.name).type} in '{path}'"
        raise SchemaMismatchError(
            f"column '{field.name}' is {kinds}: no type holds both; cast one of them", column=field.name, file=path
        ) from error


def _parse(path: str) -> pa.Table:
    name = path.lower().removesuffix(".gz").removesuffix(".zst")
    try:
        if name.endswith((".csv", ".tsv")):
            return pc_csv.read_csv(
                path,
                parse_options=pc_csv.ParseOptions(
                    delimiter="\t" if name.endswith(".tsv") else ",", newlines_in_values=True
                ),
                convert_options=pc_csv.ConvertOptions(null_values=[""], strings_can_be_null=True),
            )
        return pc_json.read_json(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"'{path}' can't be parsed: {str(error).splitlines()[0]}", file=path) from error


def _mapped(place: str, schema: pa.Schema) -> pa.Table:
    table = pa.ipc.open_file(pa.memory_map(place)).read_all()
    if table.schema.equals(schema):
        return table
    columns = [
        table.column(f.name).cast(f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type)
        for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
