"""The one place that opens and writes Parquet, so that its settings are the same everywhere."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.errors import CorruptDatasetError, InputError, SchemaMismatchError, UsageError
from gristmill.kernels.digests import row_digests
from gristmill.kernels.hashing import sum_digests
from gristmill.storage.folder import Folder
from gristmill.storage.manifest import FileEntry
from gristmill.storage.sizes import I64, row_bytes

SPLIT = "_split"  # takes part in a row's digest, so that moving a row to another split changes the fingerprint
SPLIT_NAME = re.compile(r"[\w][\w.\-]*")  # a split is a folder


@dataclass(frozen=True)
class ParquetSettings:
    """How shards are written; picklable. Sizes are Arrow bytes before compression.

    zstd level 1: on text 3 makes files a seventh smaller at two thirds of the speed. Row groups are small because a shuffled stream reads them in
    random order; the page index lets readers skip; page checksums let them notice a flipped bit. No dictionaries but for `_source` and
    columns that are dictionaries already: under zstd they made text and tables no smaller and slower to write.
    """

    compression: str = "zstd"
    compression_level: int = 1
    row_group_bytes: int = 4_000_000
    row_group_rows: int = 8192

    def writer(self, sink: Any, schema: pa.Schema) -> pq.ParquetWriter:
        """A writer with these settings."""
        return pq.ParquetWriter(
            sink,
            schema,
            compression=self.compression,
            compression_level=self.compression_level,
            use_dictionary=[f.name for f in schema if f.name == "_source" or pa.types.is_dictionary(f.type)],
            write_statistics=True,
            write_page_index=True,
            write_page_checksum=True,
            version="2.6",
        )


SMALL = ParquetSettings(compression_level=3)  # for ledgers and file lists: written once, read often


def open_parquet(
    folder: Folder, path: str, *, metadata: pq.FileMetaData | None = None, checksums: bool = False, source: Any = None
) -> pq.ParquetFile:
    """The file, open: footer read (unless its `metadata` is given), data not. checksums: each page is checked as it is read.

    source: the file itself, if the caller has opened it in a way of its own.

    Raises:
        FileNotFoundError: no such file.
        InputError: no permission to read it.
        CorruptDatasetError: not a readable Parquet file, naming it.
    """
    where = folder.url(path)
    try:
        return pq.ParquetFile(
            source or (folder.open_input(path) if folder.remote else where),
            metadata=metadata,
            pre_buffer=folder.remote and source is None,
            page_checksum_verification=checksums,
        )
    except (FileNotFoundError, InputError):
        raise
    except PermissionError as error:
        raise InputError(f"no permission to read '{where}': allow it, or read another copy", path=path) from error
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptDatasetError(
            f"'{where}' is not a readable Parquet file: {str(error).splitlines()[0]}", file=path
        ) from error


def open_parquet_source(source: str | IO[bytes]) -> pq.ParquetFile:
    """A Parquet file that is no part of a dataset, by path or open file; errors are pyarrow's own. Pages with a checksum are checked."""
    return pq.ParquetFile(source, page_checksum_verification=True)


def read_table(folder: Folder, path: str, columns: list[str] | None = None) -> pa.Table:
    """The whole file, or these columns of it."""
    with open_parquet(folder, path) as file:
        return file.read(columns=columns)


@contextlib.contextmanager
def table_writer(folder: Folder, path: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A writer of small tables (ledgers), each a row group; the file appears whole when the block ends without an error."""
    with folder.writer(path) as target, SMALL.writer(target.sink, schema) as writer:
        yield writer


def write_table(folder: Folder, path: str, table: pa.Table) -> None:
    """A small table as one Parquet file, atomically."""
    with table_writer(folder, path, table.schema) as writer:
        writer.write_table(table)


def table_to_bytes(table: pa.Table) -> bytes:
    """The table as the bytes of a Parquet file: the same bytes for the same rows, however they are cut into chunks."""
    sink = io.BytesIO()
    with SMALL.writer(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue()


def table_from_bytes(content: bytes) -> pa.Table:
    """The inverse of `table_to_bytes`."""
    # a process that ends while Arrow's pool is still starting its threads is aborted (134); small as this is, it needs none
    return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)


class ShardWriter:
    """Writes rows, in order, as shards named by their content: `data/SPLIT/<first 20 digits of the sha256>.parquet`, SPLIT `all` for None.

    Row groups are cut by `row_group_rows` and `row_group_bytes`, and a new shard begins before the row group with which one would pass
    `shard_bytes` (Arrow bytes; None: one shard), wherever the incoming tables are cut: the same rows in the same order make the same bytes.
    A shard appears when it is whole; after the block `files` has an entry for each (none for no rows). If the block fails the shard that was
    being written is gone; whole ones stay as files that no version names, for `gc`.

    Holds a row group and what was last given to it; one pass.
    """

    def __init__(
        self,
        folder: Folder,
        settings: ParquetSettings,
        schema: pa.Schema,
        *,
        split: str | None = None,
        shard_bytes: int | None = None,
    ) -> None:
        if split is not None and not SPLIT_NAME.fullmatch(split):
            raise UsageError(
                f"split '{split}': a split's name is its folder; write letters, digits, '_', '-' and '.' only"
            )
        self.files: list[FileEntry] = []
        self._folder, self._settings, self._split, self._shard_bytes = folder, settings, split, shard_bytes
        self._schema = schema.remove_metadata()
        self._waiting: list[tuple[pa.Table, I64]] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._shard: _Shard | None = None

    def write(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Appends rows.

        Raises:
            SchemaMismatchError: not the columns and types of the writer's schema, in its order.
        """
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        if not table.schema.equals(self._schema):
            raise SchemaMismatchError(_schema_difference(self._schema, table.schema))
        if not table.num_rows:
            return
        sizes = row_bytes(table)
        self._waiting.append((table.replace_schema_metadata(None), sizes))
        self._waiting_rows += len(sizes)
        self._waiting_bytes += int(sizes.sum())
        if self._waiting_rows >= self._settings.row_group_rows or self._waiting_bytes > self._settings.row_group_bytes:
            self._cut(last=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                if self._waiting:
                    self._cut(last=True)
                self._finish()
            except BaseException:
                self._abandon(*sys.exc_info())
                raise
        else:
            self._abandon(kind, error, trace)

    def _cut(self, *, last: bool) -> None:
        """Writes every whole row group that waits, and at the end what is left."""
        table = pa.concat_tables([table for table, _ in self._waiting])
        sizes = np.concatenate([sizes for _, sizes in self._waiting])
        start = 0
        for stop in group_ends(sizes, self._settings, last=last):
            self._write_group(table.slice(start, stop - start), int(sizes[start:stop].sum()))
            start = stop
        self._waiting = [(table.slice(start), sizes[start:])] if start < len(sizes) else []
        self._waiting_rows, self._waiting_bytes = len(sizes) - start, int(sizes[start:].sum())

    def _write_group(self, table: pa.Table, size: int) -> None:
        if self._shard and self._shard_bytes is not None and self._shard.arrow_bytes + size > self._shard_bytes:
            self._finish()
        if self._shard is None:
            self._shard = _Shard(self._folder, self._settings, self._schema, self._split)
        self._shard.write(table, size)

    def _finish(self) -> None:
        if self._shard is not None:
            shard, self._shard = self._shard, None
            self.files.append(shard.close())

    def _abandon(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shard is not None:
            shard, self._shard = self._shard, None
            shard.abandon(kind, error, trace)


class _Shard:
    """One shard on its way."""

    def __init__(self, folder: Folder, settings: ParquetSettings, schema: pa.Schema, split: str | None) -> None:
        self.arrow_bytes = 0
        self._split = split
        self._groups: list[int] = []
        self._sum = 0
        self._stack = contextlib.ExitStack()
        self._target = self._stack.enter_context(folder.writer(f"data/{split or 'all'}/shard"))
        self._sink = _HashingSink(self._target.sink)
        try:
            self._writer = settings.writer(pa.PythonFile(self._sink, mode="w"), schema)
        except BaseException:
            self._stack.__exit__(*sys.exc_info())
            raise

    def write(self, table: pa.Table, size: int) -> None:
        """Appends the table as one row group of `size` Arrow bytes."""
        table = table.combine_chunks()  # pages are cut where chunks are
        self._writer.write_table(table, row_group_size=table.num_rows)
        self._groups.append(table.num_rows)
        self.arrow_bytes += size
        if self._split is not None:
            table = table.append_column(SPLIT, pa.repeat(pa.scalar(self._split), table.num_rows))
        self._sum += sum_digests(row_digests(table))

    def close(self) -> FileEntry:
        """Makes the shard appear under its content's name."""
        try:
            self._writer.close()
            digest = self._sink.digest()
            path = f"data/{self._split or 'all'}/{digest[:20]}.parquet"
            self._target.rename(path)
        except BaseException:
            self.abandon(*sys.exc_info())
            raise
        size = self._sink.size
        self._stack.close()
        rows = tuple(self._groups)
        return FileEntry(path, self._split, sum(rows), size, digest, rows, f"{self._sum % 2**128:032x}")

    def abandon(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves nothing behind. An error of the disk is raised anew in its clear form."""
        self._sink.mute()  # pyarrow writes a footer whenever a writer goes
        try:
            self._writer.close()
        finally:
            self._stack.__exit__(kind, error, trace)


def group_ends(sizes: I64, settings: ParquetSettings, *, last: bool) -> list[int]:
    """Where row groups end: after `row_group_rows` rows, or before the row with which the group would pass `row_group_bytes`.

    sizes: (rows,) of the rows since the last end. last: the rest is a group too; else more rows may still fit into it.
    """
    cumulative = sizes.cumsum()
    ends, start, total = [], 0, 0
    while start < len(sizes):
        stop = int(cumulative.searchsorted(total + settings.row_group_bytes, side="right"))
        stop = max(start + 1, min(stop, start + settings.row_group_rows))
        if stop == len(sizes) and stop - start < settings.row_group_rows and not last:
            break
        ends.append(stop)
        start, total = stop, int(cumulative[stop - 1])
    return ends


def _schema_difference(expected: pa.Schema, got: pa.Schema) -> str:
    columns = [f"{f.name}: {f.type}" for f in expected], [f"{f.name}: {f.type}" for f in got]
    at = next((i for i, pair in enumerate(zip(*columns, strict=False)) if pair[0] != pair[1]), min(map(len, columns)))
    want, have = (names[at] if at < len(names) else "no more columns" for names in columns)
    detail = f"column {at + 1} is {have}, expected {want}" if want != have else "nullability differs"
    return f"rows don't fit the shard's schema: {detail}; cast them first"


class _HashingSink(io.RawIOBase):
    """Passes bytes on and hashes them."""

    def __init__(self, sink: IO[bytes]) -> None:
        super().__init__()
        self._sink: IO[bytes] | None = sink
        self._hash, self.size = hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        if self._sink is not None:
            self._hash.update(content)
            self._sink.write(content)
            self.size += len(content)
        return len(content)

    def mute(self) -> None:
        """Takes bytes from now on without passing them on."""
        self._sink = None

    def digest(self) -> str:
        """64 hex digits."""
        return self._hash.hexdigest()
