"""Sketches of chosen rows, wherever they lie: their columns through a memory map; their signatures and shingle sets are read when needed."""

from __future__ import annotations

import functools
import itertools
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.kernels.spans import read_spans
from gristmill.pipelines import parts
from gristmill.pipelines.extracts import ROW_BITS, ExtractOf
from gristmill.pipelines.work import Files, WorkStore

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
MAPPED = 256  # extracts that a process has mapped, each an open file
OPENED = 128  # more files that each of its threads has open: many systems allow 1,024


@dataclass(frozen=True)
class Spans:
    """An array of uint32 for each row, as a part of a file: the file's place in `files`, the first byte, how many values."""

    files: Sequence[tuple[Files, str]]  # by name: where it is can change until it is read, if it is a copy
    file: I64
    at: I64
    sizes: I64

    def take(self, rows: I64) -> Spans:
        """Those of these rows, in this order."""
        return Spans(self.files, self.file[rows], self.at[rows], self.sizes[rows])

    def read(self, spill: Path | None = None) -> tuple[U32, I64]:
        """(values, offsets): the arrays, one after the other.

        spill: a file to map the values from, whose pages the system may take back, instead of memory.
        """
        offsets = np.concatenate([[0], np.cumsum(self.sizes)])
        shape = int(offsets[-1])
        values = np.empty(shape, np.uint32) if spill is None else np.memmap(spill, np.uint32, "w+", shape=shape)
        used, file = np.unique(self.file, return_inverse=True)
        order = np.lexsort((self.at, file))
        for start, stop in itertools.pairwise([*range(0, len(used), OPENED), len(used)]):
            some = order[slice(*np.searchsorted(file[order], [start, stop]))]
            paths = (folder / name for folder, name in (self.files[each] for each in used[start:stop]))
            read_spans(paths, file[some] - start, self.at[some], 4 * self.sizes[some], values, 4 * offsets[some])
        return np.asarray(values), offsets


class Chosen(NamedTuple):
    """Rows of any items, in the order that was asked for: columns, with `item`; where their signatures and their shingle sets are."""

    columns: pa.Table
    signatures: Spans
    sets: Spans

    def take(self, rows: I64) -> Chosen:
        """These rows, in this order."""
        return Chosen(self.columns.take(pa.array(rows)), self.signatures.take(rows), self.sets.take(rows))

    def matrix(self) -> U32:
        """(rows, permutations): the signatures."""
        return self.signatures.read()[0].reshape(len(self.signatures.at), -1)


def choose(store: WorkStore, extracts: Mapping[int, ExtractOf], ids: I64, columns: Sequence[str]) -> Chosen:
    """The rows with these numbers within the run, at least one and each once, from extracts that are sketches."""
    tables: list[pa.Table] = []
    files: list[tuple[Files, str]] = []
    signatures: list[tuple[I64, I64, I64]] = []
    sets: list[tuple[I64, I64, I64]] = []
    for item, batch, places in _batches(store, extracts, ids):
        tables.append(batch.columns(item, places, columns))
        if not files or files[-1] != batch.file:
            files.append(batch.file)
        file = np.full(len(places), len(files) - 1)
        signatures.append((file, *batch.signatures(places)))
        sets.append((file, *batch.sets(places)))
    spans = (Spans(files, *map(np.concatenate, zip(*found, strict=True))) for found in (signatures, sets))
    return Chosen(pa.concat_tables(tables), *spans).take(_back(ids))


def load_rows(store: WorkStore, extracts: Mapping[int, ExtractOf], ids: I64, columns: Sequence[str]) -> pa.Table:
    """These columns, with `item`, of the rows with these numbers within the run, at least one and each once."""
    found = [batch.columns(item, places, columns) for item, batch, places in _batches(store, extracts, ids)]
    return pa.concat_tables(found).take(pa.array(_back(ids)))


def _back(ids: I64) -> I64:
    """The place of each id among the sorted ones."""
    places = np.empty(len(ids), np.int64)
    places[np.argsort(ids)] = np.arange(len(ids))
    return places


def _batches(store: WorkStore, extracts: Mapping[int, ExtractOf], ids: I64) -> Iterator[tuple[int, _Batch, I64]]:
    """(item, batch, the places of rows in it) in the order of the ids; the batch is mapped until the next one."""
    ids = np.sort(ids)
    items = ids >> ROW_BITS
    for start, stop in itertools.pairwise(parts.runs(items.astype(np.uint64)).tolist()):
        item, rows = int(items[start]), ids[start:stop] & ((1 << ROW_BITS) - 1)
        with _mapped(store, extracts[item].key, extracts[item].name) as batches:
            for batch in batches:
                low, high = np.searchsorted(rows, [batch.numbers[0], batch.numbers[-1] + 1])
                if low < high:
                    yield item, batch, np.searchsorted(batch.numbers, rows[low:high])


class _Batch(NamedTuple):
    """Rows of an extract that are mapped."""

    file: tuple[Files, str]
    base: int  # the address of the file's first byte
    rows: pa.RecordBatch
    numbers: I64  # of the rows within the item, ascending

    def columns(self, item: int, places: I64, names: Sequence[str]) -> pa.Table:
        found = pa.Table.from_batches([self.rows.select(list(names)).take(pa.array(places))])
        return found.append_column("item", pa.repeat(pa.scalar(item, pa.int64()), len(places)))

    def signatures(self, places: I64) -> tuple[I64, I64]:
        """(first byte in the file, values) of each."""
        column = self.rows["signature"]
        width = column.type.list_size
        return self._start(column) + 4 * width * places, np.full(len(places), width)

    def sets(self, places: I64) -> tuple[I64, I64]:
        """(first byte in the file, values) of each."""
        column = self.rows["shingles"]
        offsets = column.offsets.to_numpy()
        return self._start(column) + 4 * offsets[places], offsets[places + 1] - offsets[places]

    def _start(self, lists: pa.Array) -> int:
        return int(lists.values.buffers()[1].address) - self.base


class _Mapped:
    """The batches of an extract that have rows. Their pages count as this process's memory only in the block."""

    def __init__(self, folder: Files, name: str) -> None:
        self._batches: list[_Batch] = []
        self._maps: list[mmap.mmap] = []
        for path in parts.paths(folder, name):
            with path.open("rb") as file:
                self._maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            buffer = pa.py_buffer(self._maps[-1])
            for batch in pa.ipc.open_file(buffer).read_all().to_batches():
                if batch.num_rows:
                    self._batches.append(_Batch((folder, path.name), buffer.address, batch, batch["row"].to_numpy()))

    def __enter__(self) -> list[_Batch]:
        return self._batches

    def __exit__(self, *error: object) -> None:
        for each in self._maps:
            each.madvise(mmap.MADV_DONTNEED)


@functools.lru_cache(maxsize=MAPPED)
def _mapped(store: WorkStore, key: str, name: str) -> _Mapped:
    return _Mapped(store.folder(key), name)


def flat_sets(table: pa.Table) -> tuple[U32, I64]:
    """(values, offsets) of a `shingles` column."""
    column = table["shingles"].combine_chunks()
    column = column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)
    offsets = column.offsets.to_numpy()
    return column.flatten().to_numpy(), offsets - offsets[0]


def signature_matrix(table: pa.Table) -> U32:
    """(rows, permutations) from the `signature` column."""
    column = table["signature"].combine_chunks()
    column = column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size)
