"""The one place that opens and writes Parquet, so that its settings are the same everywhere."""

from __future__ import annotations

import contextlib
import hashlib
import io
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.errors import CorruptDatasetError
from gristmill.kernels.digests import row_digests
from gristmill.kernels.hashing import sum_digests
from gristmill.storage.folder import Folder
from gristmill.storage.manifest import FileEntry
from gristmill.storage.sizes import row_bytes

SPLIT = "_split"  # takes part in a row's digest, so that moving a row to another split changes the fingerprint


@dataclass(frozen=True)
class ParquetSettings:
    """How shards are written; picklable. Sizes are Arrow bytes before compression.

    zstd level 1: on text a tenth larger than level 3 and twice as fast to write. Row groups are small because a shuffled stream reads them in
    random order; the page index lets readers skip.
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
            use_dictionary=[field.name for field in schema if field.name == "_source" or pa.types.is_dictionary(field.type)],
            write_statistics=True,
            write_page_index=True,
            version="2.6",
        )


def open_parquet(folder: Folder, path: str) -> pq.ParquetFile:
    """The file, open: footer read, data not.

    Raises:
        FileNotFoundError: no such file.
        CorruptDatasetError: not a readable Parquet file, naming it.
    """
    source = folder.open_input(path) if folder.remote else folder.url(path)
    try:
        return pq.ParquetFile(source, pre_buffer=folder.remote)
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise CorruptDatasetError(f"'{folder.url(path)}' is not a readable Parquet file: {str(error).splitlines()[0]}", file=path) from error


def open_parquet_source(source: str | IO[bytes]) -> pq.ParquetFile:
    """A Parquet file that is no part of a dataset, by path or open file; errors are pyarrow's own."""
    return pq.ParquetFile(source)


def read_table(folder: Folder, path: str, columns: list[str] | None = None) -> pa.Table:
    """The whole file, or these columns of it."""
    with open_parquet(folder, path) as file:
        return file.read(columns=columns)


def write_table(folder: Folder, path: str, table: pa.Table) -> None:
    """A small table (ledger, file lists) as one Parquet file, atomically."""
    with folder.writer(path) as target:
        pq.write_table(table, target.sink, compression="zstd", write_statistics=True)


def table_bytes(table: pa.Table) -> bytes:
    """The table as the bytes of a Parquet file; the same bytes for the same table."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


class ShardWriter:
    """Writes tables, in order, as one shard named by its content: `data/SPLIT/<first 20 digits of its sha256>.parquet`.

    Row groups are cut by `row_group_rows`, and by `row_group_bytes` at rows, wherever the incoming tables are cut: the same rows in the same
    order make the same bytes. The shard appears whole when the block ends without an error; `files` then has its entry (none for no rows).
    """

    def __init__(self, folder: Folder, settings: ParquetSettings, schema: pa.Schema, *, split: str | None) -> None:
        self.files: list[FileEntry] = []
        self._folder, self._settings, self._schema, self._split = folder, settings, schema, split
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._groups: list[int] = []
        self._sum = 0
        self._stack = contextlib.ExitStack()
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        """Appends rows; the table has the writer's schema."""
        if table.num_rows:
            self._waiting.append(table)
            self._waiting_rows += table.num_rows
            self._cut(last=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._stack.__exit__(kind, error, trace)
            return
        self._cut(last=True)
        if self._writer is None:
            return
        self._writer.close()
        digest = self._sink.digest()
        path = f"data/{self._split or 'all'}/{digest[:20]}.parquet"
        self._target.rename(path)
        size = self._sink.size
        self._stack.close()
        rows = tuple(self._groups)
        self.files.append(FileEntry(path, self._split, sum(rows), size, digest, rows, f"{self._sum % 2**128:032x}"))

    def _cut(self, *, last: bool) -> None:
        """Writes every whole row group that waits, and at the end what is left."""
        limit = self._settings.row_group_rows
        if not self._waiting or (not last and self._waiting_rows < limit and sum(table.nbytes for table in self._waiting) < self._settings.row_group_bytes):
            return
        table = pa.concat_tables(self._waiting)
        start = 0
        for stop in group_ends(table, self._settings):
            self._write_group(table.slice(start, stop - start))
            start = stop
        rest = table.slice(start)
        if last and rest.num_rows:
            self._write_group(rest)
            rest = rest.slice(rest.num_rows)
        self._waiting = [rest] if rest.num_rows else []
        self._waiting_rows = rest.num_rows

    def _write_group(self, table: pa.Table) -> None:
        if self._writer is None:
            self._target = self._stack.enter_context(self._folder.writer(f"data/{self._split or 'all'}/shard"))
            self._sink = _HashingSink(self._target.sink)
            self._writer = self._settings.writer(pa.PythonFile(self._sink, mode="w"), self._schema)
        table = table.combine_chunks()
        self._writer.write_table(table, row_group_size=table.num_rows)
        self._groups.append(table.num_rows)
        marked = table if self._split is None else table.append_column(SPLIT, pa.repeat(pa.scalar(self._split), table.num_rows))
        self._sum += sum_digests(row_digests(marked))


def group_ends(table: pa.Table, settings: ParquetSettings) -> list[int]:
    """Where full row groups end: after `row_group_rows` rows, or before the row with which the group would pass `row_group_bytes`."""
    cumulative = row_bytes(table).cumsum()
    ends, start, total = [], 0, 0
    while start < table.num_rows:
        stop = int(cumulative.searchsorted(total + settings.row_group_bytes, side="right"))
        stop = max(start + 1, min(stop, start + settings.row_group_rows))
        if stop >= table.num_rows and table.num_rows - start < settings.row_group_rows:
            break  # more rows may still fit
        ends.append(stop)
        start, total = stop, int(cumulative[stop - 1])
    return ends


class _HashingSink(io.RawIOBase):
    """Passes bytes on and hashes them."""

    def __init__(self, sink: IO[bytes]) -> None:
        super().__init__()
        self._sink, self._hash, self.size = sink, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._hash.update(content)
        self._sink.write(content)
        self.size += len(content)
        return len(content)

    def digest(self) -> str:
        """64 hex digits."""
        return self._hash.hexdigest()
