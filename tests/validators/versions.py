"""Datasets of several versions for tests, published as a run does."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from gristmill.storage.dataset import Dataset, open_dataset
from gristmill.storage.folder import Folder
from gristmill.storage.parquet import ParquetSettings, ShardWriter
from gristmill.storage.versions import newest_version, publish


def publish_version(
    folder: Folder,
    splits: pa.Table | Mapping[str, pa.Table],
    *,
    shard_bytes: int | None = None,
    gate: list[str] | None = None,
) -> Dataset:
    """The tables as the newest version; a table alone makes one without splits."""
    parts = splits if isinstance(splits, Mapping) else {None: splits}
    files = []
    for split, table in parts.items():
        with ShardWriter(
            folder, ParquetSettings(row_group_rows=64), table.schema, split=split, shard_bytes=shard_bytes
        ) as writer:
            writer.write(table)
        files += writer.files
    schema = next(iter(parts.values())).schema
    names = [name for name in parts if name is not None]
    publish(folder, files, schema, expected_parent=newest_version(folder), splits=names, gate=gate or [])
    return open_dataset(folder)
