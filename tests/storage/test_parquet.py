"""Shards: the same rows make the same bytes, and what can't be written whole isn't there."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import CorruptDatasetError, RunError, SchemaMismatchError, UsageError
from gristmill.kernels.digests import row_digests
from gristmill.storage.folder import Folder, open_folder
from gristmill.storage.parquet import (
    ParquetSettings,
    ShardWriter,
    group_ends,
    open_parquet,
    read_table,
    table_from_bytes,
    table_to_bytes,
    write_table,
)
from gristmill.storage.sizes import row_bytes

from .conftest import names, rows, shards

TABLE = rows(700)


def test_a_shard_is_named_by_its_content_and_described(folder: Folder) -> None:
    (entry,) = shards(folder, TABLE, split="train")
    content = folder.read_bytes(entry.path)
    assert entry.path == f"data/train/{hashlib.sha256(content).hexdigest()[:20]}.parquet"
    assert (entry.sha256, entry.bytes, entry.rows) == (hashlib.sha256(content).hexdigest(), len(content), 700)
    assert entry.row_group_rows == (64,) * 10 + (60,)
    assert names(folder) == [entry.path] and read_table(folder, entry.path).equals(TABLE)
    digests = row_digests(TABLE.append_column("_split", pa.repeat(pa.scalar("train"), 700)))
    assert entry.row_sum == f"{sum((int(high) << 64) + int(low) for high, low in digests) % 2**128:032x}"
    with open_parquet(folder, entry.path, checksums=True) as file:
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == list(entry.row_group_rows)
        assert file.metadata.row_group(0).column(0).has_column_index
        metadata = file.metadata
    with open_parquet(folder, entry.path, metadata=metadata) as file:
        assert file.read_row_group(10).equals(TABLE.slice(640))


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 150), max_size=12),
    st.integers(3, 60),
    st.integers(100, 3000),
    st.none() | st.integers(100, 5000),
    st.booleans(),
)
def test_the_same_rows_make_the_same_bytes_however_they_come(
    cuts: list[int], group_rows: int, group_bytes: int, shard_bytes: int | None, batches: bool
) -> None:
    table = TABLE.slice(100, 150)
    folder = open_folder("memory://same")
    chosen = ParquetSettings(row_group_rows=group_rows, row_group_bytes=group_bytes)
    found = []
    for edges in ([0, 150], sorted({0, 150, *cuts})):
        with ShardWriter(folder, chosen, table.schema, shard_bytes=shard_bytes) as writer:
            for low, high in zip(edges[:-1], edges[1:], strict=True):
                piece = table.slice(low, high - low)
                for one in piece.to_batches() if batches else [piece]:
                    writer.write(one)
        found.append(writer.files)
    assert found[0] == found[1]
    assert pa.concat_tables([read_table(folder, entry.path) for entry in found[0]]).equals(table)
    sizes, start = row_bytes(table), 0
    for entry in found[0]:
        assert (
            shard_bytes is None
            or len(entry.row_group_rows) == 1
            or sizes[start : start + entry.rows].sum() <= shard_bytes
        )
        for count in entry.row_group_rows:
            assert count <= group_rows and (count == 1 or sizes[start : start + count].sum() <= group_bytes)
            start += count


def test_row_groups_are_full(tmp_path: Path) -> None:
    sizes = row_bytes(TABLE)
    ends = group_ends(sizes, ParquetSettings(row_group_rows=100, row_group_bytes=1500), last=True)
    for low, high in zip([0, *ends[:-1]], ends, strict=True):
        assert high == 700 or high - low == 100 or sizes[low : high + 1].sum() > 1500
    assert group_ends(sizes[:10], ParquetSettings(), last=False) == []


def test_chat_rows_keep_groups_small(tmp_path: Path) -> None:
    chats = pa.table({"messages": [[{"role": "user", "content": "long " * 20_000}] for _ in range(64)]})
    (entry,) = shards(open_folder(tmp_path), chats, group=8192)
    with ShardWriter(open_folder(tmp_path), ParquetSettings(row_group_bytes=400_000), chats.schema) as writer:
        writer.write(chats)
    assert writer.files[0].row_group_rows == (3,) * 21 + (1,)
    assert entry.row_group_rows == (39, 25)


def test_one_row_at_a_time_is_linear(tmp_path: Path) -> None:
    seen = 0

    class Counting(ShardWriter):
        def _cut(self, *, last: bool) -> None:
            nonlocal seen
            seen += self._waiting_rows
            super()._cut(last=last)

    with Counting(open_folder(tmp_path), ParquetSettings(row_group_rows=100), TABLE.schema) as writer:
        for i in range(700):
            writer.write(TABLE.slice(i, 1))
    assert seen == 700 and writer.files == shards(open_folder(tmp_path), TABLE, group=100)


def test_no_rows_no_files(folder: Folder) -> None:
    assert shards(folder, TABLE.slice(0, 0)) == [] == names(folder)


def test_a_failure_leaves_nothing_of_the_shard(folder: Folder, recwarn: pytest.WarningsRecorder) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        ShardWriter(folder, ParquetSettings(row_group_rows=10), TABLE.schema) as writer,
    ):
        writer.write(TABLE)
        1 / 0  # noqa: B018
    assert names(folder) == []
    with pytest.raises(SchemaMismatchError, match=r"column 3 is x: double, expected x: int64"):
        with ShardWriter(folder, ParquetSettings(row_group_rows=10), TABLE.schema) as writer:
            writer.write(TABLE)
            writer.write(TABLE.set_column(2, "x", TABLE["x"].cast(pa.float64())))
    assert names(folder) == []
    assert not list(recwarn)


class _FullDisk:
    """A file that takes `room` bytes."""

    def __init__(self, sink: object, room: int) -> None:
        self._sink, self._room = sink, room

    def write(self, content: object) -> int:
        import errno

        self._room -= len(content)  # type: ignore[arg-type]
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._sink.write(content)  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("room", [0, 3, 2000, 9000])
def test_a_full_disk_at_any_moment(folder: Folder, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from gristmill.storage import parquet

    usual = parquet._HashingSink
    monkeypatch.setattr(parquet, "_HashingSink", lambda sink: usual(_FullDisk(sink, room)))
    with pytest.raises(RunError, match="no space left"):
        shards(folder, TABLE)
    assert names(folder) == []
    monkeypatch.undo()
    assert len(shards(folder, TABLE)) == 1


def test_shards_are_whole_before_a_later_failure(folder: Folder) -> None:
    with (
        pytest.raises(ValueError, match="mine"),
        ShardWriter(folder, ParquetSettings(row_group_rows=64), TABLE.schema, shard_bytes=4000) as writer,
    ):
        writer.write(TABLE)
        raise ValueError("mine")
    assert 0 < len(writer.files) and names(folder) == sorted(entry.path for entry in writer.files)


@pytest.mark.parametrize("split", ["", "../x", "a/b", ".", " "])
def test_a_split_is_a_folder(tmp_path: Path, split: str) -> None:
    with pytest.raises(UsageError, match="a split's name is its folder"):
        ShardWriter(open_folder(tmp_path), ParquetSettings(), TABLE.schema, split=split)


def test_not_parquet_is_named(folder: Folder) -> None:
    folder.write_atomic("data/x.parquet", b"not parquet at all")
    with pytest.raises(CorruptDatasetError, match=r"data/x\.parquet' is not a readable Parquet file"):
        open_parquet(folder, "data/x.parquet")
    with pytest.raises(FileNotFoundError):
        open_parquet(folder, "data/y.parquet")


def test_a_flipped_bit_is_noticed_by_its_checksum(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    noise = pa.table({"x": pa.array([hashlib.sha256(bytes([i])).digest() for i in range(250)])})
    with ShardWriter(
        folder, replace(ParquetSettings(), compression="none", compression_level=None), noise.schema
    ) as writer:
        writer.write(noise)
    path = tmp_path / writer.files[0].path
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with open_parquet(folder, writer.files[0].path) as file:
        assert not file.read().equals(noise)
    with (
        open_parquet(folder, writer.files[0].path, checksums=True) as file,
        pytest.raises(OSError, match=r"(?i)crc|checksum"),
    ):
        file.read()


def test_settings_pickle() -> None:
    chosen = ParquetSettings(row_group_rows=5)
    assert pickle.loads(pickle.dumps(chosen)) == chosen


def test_tables_as_bytes_do_not_depend_on_chunks(folder: Folder) -> None:
    cut = pa.concat_tables([TABLE.slice(0, 13), TABLE.slice(13)])
    assert table_to_bytes(cut) == table_to_bytes(TABLE)
    assert table_from_bytes(table_to_bytes(cut)).equals(TABLE)
    write_table(folder, "ledger/x.parquet", TABLE)
    assert read_table(folder, "ledger/x.parquet", ["x"]).equals(TABLE.select(["x"]))
    assert (
        pq.ParquetFile(pa.BufferReader(folder.read_bytes("ledger/x.parquet")))
        .metadata.row_group(0)
        .column(0)
        .compression
        == "ZSTD"
    )
