"""A folder on disk and one in S3 (moto's real HTTP server on loopback), and small datasets in them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.storage.folder import Folder, open_folder
from gristmill.storage.manifest import FileEntry
from gristmill.storage.parquet import ParquetSettings, ShardWriter


SCHEMA = pa.schema([("_uid", pa.large_string()), ("text", pa.string()), ("x", pa.int64())])


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """An empty folder of either kind."""
    if request.param == "s3":
        return request.getfixturevalue("s3_folder")
    return open_folder(tmp_path / "dataset")


def rows(n: int, *, start: int = 0, mark: str = "") -> pa.Table:
    """n rows with a uid and a text."""
    numbers = range(start, start + n)
    texts = [f"text {mark}{i} " * (i % 7) for i in numbers]
    return pa.table({"_uid": [f"u{i:07d}" for i in numbers], "text": texts, "x": list(numbers)}, schema=SCHEMA)


def shards(
    folder: Folder, table: pa.Table, *, split: str | None = None, shard_bytes: int | None = None, group: int = 64
) -> list[FileEntry]:
    """The table written as shards."""
    with ShardWriter(
        folder, ParquetSettings(row_group_rows=group), table.schema, split=split, shard_bytes=shard_bytes
    ) as writer:
        writer.write(table)
    return writer.files


def names(folder: Folder) -> list[str]:
    """Every file that is there."""
    return [path for path, *_ in folder.list()]
