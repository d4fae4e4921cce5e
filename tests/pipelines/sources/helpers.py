"""Ways to read a whole source in a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gristmill.pipelines.sources import (
    Source,
    WorkItem,
    cast_table,
    format_positions,
    plan_items,
    read_item,
    unify_schemas,
)


def lines(*rows: object) -> bytes:
    """JSON lines of the rows; bytes go in as they are."""
    return b"".join(
        (row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode()) + b"\n" for row in rows
    )


def read(
    source: Source, items: list[WorkItem] | None = None, **options: Any
) -> tuple[list[dict[str, Any]], list[str], list[dict[str, Any]]]:
    """(rows with the columns that they have a value in, their positions, bad records) of all items in order."""
    rows: list[dict[str, Any]] = []
    places: list[str] = []
    bad: list[dict[str, Any]] = []
    for item in plan_items(source) if items is None else items:
        for chunk in read_item(source, item, **options):
            assert len(chunk.positions) == chunk.table.num_rows
            chunk.table.validate(full=True)
            rows += chunk.table.to_pylist()
            places += format_positions(chunk.positions).to_pylist()
            bad += chunk.bad.to_pylist()
    return rows, places, bad


def read_table(source: Source, **options: Any) -> Any:
    """All rows as one table, unified as a run does."""
    import pyarrow as pa

    tables = [
        (chunk.table, item.files[0])
        for item in plan_items(source)
        for chunk in read_item(source, item, **options)
        if chunk.table.num_rows
    ]
    schema = unify_schemas([(table.schema, name) for table, name in tables])
    return pa.concat_tables([cast_table(table, schema) for table, _ in tables])


def write(path: Path, content: bytes) -> str:
    """The file's path, once it has the content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)
