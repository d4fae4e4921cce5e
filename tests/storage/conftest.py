"""A folder on disk and one in S3 (moto's real HTTP server on loopback), and small datasets in them."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.storage.folder import Folder, open_folder
from gristmill.storage.manifest import FileEntry
from gristmill.storage.parquet import ParquetSettings, ShardWriter


SCHEMA = pa.schema([("_uid", pa.large_string()), ("text", pa.string()), ("x", pa.int64())])


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server that lives as long as the tests."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_folder(s3_endpoint: str) -> Iterator[Folder]:
    """A new bucket, reached by the usual environment variables; they stay when a test undoes its own patches."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_DEFAULT_REGION", "us-east-1")):
            patch.setenv(name, value)
        bucket = f"bucket-{uuid.uuid4().hex[:12]}"
        folder = open_folder(f"s3://{bucket}/some/dataset", {"endpoint_url": s3_endpoint})
        folder._client.call_s3("create_bucket", Bucket=bucket)
        yield folder


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


def shards(folder: Folder, table: pa.Table, *, split: str | None = None, shard_bytes: int | None = None, group: int = 64) -> list[FileEntry]:
    """The table written as shards."""
    with ShardWriter(folder, ParquetSettings(row_group_rows=group), table.schema, split=split, shard_bytes=shard_bytes) as writer:
        writer.write(table)
    return writer.files


def names(folder: Folder) -> list[str]:
    """Every file that is there."""
    return [path for path, *_ in folder.list()]
