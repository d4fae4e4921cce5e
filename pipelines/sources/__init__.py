"""Sources: what a pipeline reads, cut into work items, every record accounted for."""

from __future__ import annotations

from collections.abc import Iterator

from gristmill.pipelines.sources.base import (
    Chunk,
    CsvSource,
    FrameSource,
    JsonlSource,
    ParquetSource,
    Source,
    TextSource,
    WorkItem,
    format_positions,
)
from gristmill.pipelines.sources.csv import read_csv
from gristmill.pipelines.sources.items import plan_items
from gristmill.pipelines.sources.jsonl import read_jsonl
from gristmill.pipelines.sources.parquet import read_parquet
from gristmill.pipelines.sources.schemas import cast_table, unify_schemas
from gristmill.pipelines.sources.text import read_frame, read_text, store_frame

READERS = {
    JsonlSource: read_jsonl,
    CsvSource: read_csv,
    ParquetSource: read_parquet,
    TextSource: read_text,
    FrameSource: read_frame,
}


def read_item(source: Source, item: WorkItem, *, chunk_bytes: int = 16 << 20) -> Iterator[Chunk]:
    """The item's records in order, in chunks of about `chunk_bytes` of input, whatever the item's size.

    Raises:
        InputError: a file that has changed since planning, or can't be opened.
    """
    yield from READERS[type(source)](source, item, chunk_bytes)  # type: ignore[operator]


__all__ = [
    "Chunk", "CsvSource", "FrameSource", "JsonlSource", "ParquetSource", "Source", "TextSource", "WorkItem", "cast_table", "format_positions", "plan_items",
    "read_item", "store_frame", "unify_schemas",
]  # fmt: skip
