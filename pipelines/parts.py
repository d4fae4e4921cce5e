"""Arrow IPC files between the stages of a run: streams of tables in bounded memory, whole or by row."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.pipelines.work import Files

LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")
PLAIN = pa.ipc.IpcWriteOptions()  # for files that are read by row through a memory map


class PartWriter:
    """Writes tables in order to PREFIX-000.arrow, PREFIX-001.arrow, ...

    A new file begins where the schema changes, and with each table that has dictionaries: a file can hold one for each column. schemas: those
    that were written, each once. batch_bytes: about how many a batch has at most, for what is read in part (`picked`); None: a table is a batch.
    """

    def __init__(
        self, folder: Path, prefix: str, options: pa.ipc.IpcWriteOptions = LZ4, *, batch_bytes: int | None = None
    ) -> None:
        self.schemas: list[pa.Schema] = []
        self._folder, self._prefix, self._options, self._batch_bytes = folder, prefix, options, batch_bytes
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._schema: pa.Schema | None = None
        self._parts = 0
        self._starts = [0]

    def write(self, table: pa.Table) -> None:
        """Appends the table, schema metadata aside."""
        table = table.replace_schema_metadata(None)
        if self._writer is None or table.schema != self._schema or _has_dictionary(table.schema):
            self._close()
            self._schema = table.schema
            if table.schema not in self.schemas:
                self.schemas.append(table.schema)
            path = self._folder / f"{self._prefix}-{self._parts:03d}.arrow"
            self._writer = pa.ipc.new_file(str(path), table.schema, options=self._options)
            self._parts += 1
        rows = None if self._batch_bytes is None else max(1, table.num_rows * self._batch_bytes // max(1, table.nbytes))
        for batch in table.to_batches(max_chunksize=rows):
            self._writer.write_batch(batch)
            self._starts.append(self._starts[-1] + batch.num_rows)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if self._batch_bytes is not None and kind is None:
            write(self._folder / f"{self._prefix}.starts.arrow", pa.table({"start": self._starts}))


def _has_dictionary(schema: pa.Schema) -> bool:
    return any(pa.types.is_dictionary(field.type) for field in schema)


def paths(folder: Files, prefix: str) -> list[Path]:
    """The files that a PartWriter made, in order: by number, for there may be more than a thousand."""
    return sorted(folder.glob(f"{prefix}-*.arrow"), key=lambda path: int(path.stem.rpartition("-")[2]))


def schemas(folder: Files, prefix: str) -> list[pa.Schema]:
    """The schemas of the files that a PartWriter made."""
    found = []
    for path in paths(folder, prefix):
        with pa.memory_map(str(path)) as source:
            found.append(pa.ipc.open_file(source).schema)
    return found


def batches(folder: Files, prefix: str) -> Iterator[pa.Table]:
    """The tables that were written, batch by batch, in order."""
    for path in paths(folder, prefix):
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            for i in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(i)])


def picked(folder: Files, prefix: str, wanted: Callable[[int, int], bool]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(number of its first row, batch) of the batches whose rows from start to stop are `wanted`; the others are not decompressed."""
    spans = itertools.pairwise(read(folder / f"{prefix}.starts.arrow")["start"].to_pylist())
    for path in paths(folder, prefix):
        with pa.memory_map(str(path)) as source:
            found = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(use_threads=False))
            for i, (start, stop) in zip(range(found.num_record_batches), spans, strict=False):
                if wanted(start, stop):
                    yield start, found.get_batch(i)


def table(folder: Files, prefix: str, columns: Sequence[str] | None = None) -> pa.Table | None:
    """All that was written, as one table (memory-mapped where it isn't compressed), or None if nothing was. One schema only."""
    found = []
    for path in paths(folder, prefix):
        options = None if columns is None else pa.ipc.IpcReadOptions(included_fields=_fields(path, columns))
        found.append(pa.ipc.open_file(pa.memory_map(str(path)), options=options).read_all())
    if not found:
        return None
    whole = pa.concat_tables(found)
    return whole if columns is None else whole.select(list(columns))


def _fields(path: Path, columns: Sequence[str]) -> list[int]:
    with pa.memory_map(str(path)) as source:
        schema = pa.ipc.open_file(source).schema
    return [schema.get_field_index(name) for name in columns]


def read(path: Path | str) -> pa.Table:
    """The one table of an IPC file, memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def write(path: Path | str, content: pa.Table, options: pa.ipc.IpcWriteOptions = PLAIN) -> None:
    """The table as one IPC file."""
    with pa.ipc.new_file(str(path), content.schema, options=options) as writer:
        writer.write_table(content)


def runs(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Where each run of equal keys starts in a sorted array, and its length at the end: (runs + 1,)."""
    if not len(keys):
        return np.zeros(1, np.int64)
    edges = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    return np.concatenate([[0], edges, [len(keys)]]).astype(np.int64)
