"""Sources behind URLs, on a real S3 server on loopback."""

from __future__ import annotations

import gzip
import uuid

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from gristmill.errors import InputError, InputNotFoundError
from gristmill.pipelines.sources import JsonlSource, ParquetSource, TextSource, plan_items

from .helpers import lines, read


@pytest.fixture
def bucket(s3_endpoint, monkeypatch):
    import s3fs

    for name, value in [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", s3_endpoint),
    ]:
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    client = s3fs.S3FileSystem(endpoint_url=s3_endpoint)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    client.mkdir(name)
    return client, name


NAMES = [
    "a.jsonl",
    "b [1].jsonl",
    "_c.jsonl",
    ".d.jsonl",
    "sub/e.jsonl",
    "sub/deep/f.jsonl",
    "_temporary/g.jsonl",
    ".h/i.jsonl",
]


@pytest.mark.parametrize(
    "pattern",
    ["", "*.jsonl", "**/*.jsonl", "s*", "*/*.jsonl", "**", "b [1].jsonl", "_temporary", ".h/*.jsonl", "sub/**/f.*"],
)
def test_a_pattern_means_the_same_files_as_on_a_disk(bucket, tmp_path, pattern):
    client, name = bucket
    for path in NAMES:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(lines({"at": path}))
        client.pipe(f"{name}/raw/{path}", lines({"at": path}))
    found = []
    for base in (str(tmp_path), f"s3://{name}/raw"):
        one = JsonlSource(path=f"{base}/{pattern}".rstrip("/"), name="s")
        found.append([row["at"] for row in read(one, plan_items(one))[0]])
    assert found[0] and sorted(found[1]) == sorted(found[0])


ROWS = [{"n": i, "text": f"row {i}"} for i in range(2000)]


def test_files_folders_and_globs(bucket):
    client, name = bucket
    client.pipe(f"{name}/raw/a.jsonl", lines(*ROWS[:1000]))
    client.pipe(f"{name}/raw/sub/b.jsonl.gz", gzip.compress(lines(*ROWS[1000:])))
    client.pipe(f"{name}/raw/notes.txt", b"note")
    for path in (
        f"s3://{name}/raw",
        f"s3://{name}/raw/**/*.jsonl*",
        [f"s3://{name}/raw/sub/b.jsonl.gz", f"s3://{name}/raw/a.jsonl"],
    ):
        one = JsonlSource(path=path, name="s")
        rows, places, bad = read(one, plan_items(one, item_bytes=5000), chunk_bytes=1000)
        assert rows == ROWS and not bad and places[0] == f"s3://{name}/raw/a.jsonl:byte 0"
    assert read(TextSource(path=f"s3://{name}/raw/notes.txt"))[0][0]["text"] == "note"
    pq.write_table(
        pa.Table.from_pylist(ROWS),
        f"{name}/p/a.parquet",
        filesystem=pa.fs.PyFileSystem(pa.fs.FSSpecHandler(client)),
        row_group_size=300,
    )
    parquet = ParquetSource(path=f"s3://{name}/p")
    assert read(parquet, plan_items(parquet, item_bytes=1))[0] == ROWS


def test_what_is_not_there_and_what_changes(bucket):
    client, name = bucket
    client.pipe(f"{name}/raw/a.jsonl", lines(*ROWS[:10]))
    with pytest.raises(InputNotFoundError, match="no input matches"):
        plan_items(JsonlSource(path=f"s3://{name}/raw/b.jsonl"))
    one = JsonlSource(path=f"s3://{name}/raw/a.jsonl")
    items = plan_items(one)
    client.pipe(f"{name}/raw/a.jsonl", lines(*ROWS[:11]))
    with pytest.raises(InputError, match="has changed since the run was planned"):
        read(one, items)
