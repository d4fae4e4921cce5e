"""Sketches of chosen rows: their columns, and their shingle sets in one flat array, copied once from the mapped work files."""

from __future__ import annotations

import functools
import itertools
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.kernels.jaccard import copy_sets
from gristmill.kernels.minhash import band_keys
from gristmill.pipelines import parts
from gristmill.pipelines.extracts import ROW_BITS, ExtractOf
from gristmill.pipelines.work import WorkStore

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
OPENED = 256  # extracts that a process has open: several pieces of a task look into each
Members = Sequence[tuple[ExtractOf, Any]]
"""Extracts, each with the sorted numbers of the rows that are meant."""


def load_rows(store: WorkStore, members: Members, columns: list[str]) -> pa.Table:
    """These columns of the member rows, in the order of the members, with `item`."""
    found = []
    for source, rows in members:
        for batch, places in _chosen(store, source, rows, columns):
            table = pa.Table.from_batches([batch.take(pa.array(places))]).select(columns)
            found.append(table.append_column("item", pa.repeat(pa.scalar(source.item, pa.int64()), table.num_rows)))
    return pa.concat_tables(found)


def by_item(extracts: Mapping[int, ExtractOf], ids: I64) -> Iterator[tuple[tuple[ExtractOf, I64], I64]]:
    """((extract, the sorted numbers of its rows), the places of these among `ids`) of every item of these ids, each of which comes once."""
    order = np.argsort(ids, kind="stable")
    items = ids[order] >> ROW_BITS
    for start, stop in itertools.pairwise(parts.runs(items.astype(np.uint64)).tolist()):
        places = order[start:stop]
        yield (extracts[int(items[start])], ids[places] & ((1 << ROW_BITS) - 1)), places


def load_keys(store: WorkStore, members: Members, count: int, width: int) -> npt.NDArray[np.uint64]:
    """(rows, count): the band keys of the member rows, in the order of the members."""
    found = [
        band_keys(
            signature_matrix(pa.Table.from_batches([batch.select(["signature"]).take(pa.array(places))])), count, width
        )
        for source, rows in members
        for batch, places in _chosen(store, source, rows, ["signature"])
    ]
    return np.concatenate(found)


def load_sets(
    store: WorkStore, members: Members, order: I64 | None = None, spill: Path | None = None
) -> tuple[U32, I64]:
    """(values, offsets): the shingle sets of the member rows, in the order of the members or, given `order`, row order[k] of them k-th.

    spill: a file to map the values from, whose pages the system may take back, instead of memory.
    """
    sizes = np.concatenate([set_sizes(store, source, rows) for source, rows in members] or [np.zeros(0, np.int64)])
    order = np.arange(len(sizes)) if order is None else order
    offsets = np.concatenate([[0], np.cumsum(sizes[order])])
    starts = np.empty(len(sizes), np.int64)
    starts[order] = offsets[:-1]
    if spill is None:
        values = np.empty(offsets[-1], np.uint32)
    else:
        values = np.asarray(np.memmap(spill, np.uint32, "w+", shape=(int(offsets[-1]),)))
    at = 0
    for source, rows in members:
        for batch, places in _chosen(store, source, rows, ["shingles"]):
            sets = batch["shingles"]
            copy_sets(sets.values.to_numpy(), sets.offsets.to_numpy(), places, values, starts[at : at + len(places)])
            at += len(places)
    return values, offsets


def set_sizes(store: WorkStore, source: ExtractOf, rows: I64) -> I64:
    """How many shingles each of these rows of an item has."""
    found = [
        np.diff(batch["shingles"].offsets.to_numpy())[places]
        for batch, places in _chosen(store, source, rows, ["shingles"])
    ]
    return np.concatenate([np.zeros(0, np.int64), *found])


def _chosen(store: WorkStore, source: ExtractOf, rows: I64, columns: list[str]) -> Iterator[tuple[pa.RecordBatch, I64]]:
    """The batches that hold some of the rows, mapped, and the places of those in each; for the caller to copy from."""
    with _mapped(store, source.key, source.name) as batches:
        for batch in batches:
            numbers = batch["row"].to_numpy()
            low, high = np.searchsorted(rows, [numbers[0], numbers[-1] + 1])
            if low < high:
                yield batch.select(columns), np.searchsorted(numbers, rows[low:high])


class _Mapped:
    """The batches of an extract that have rows. Their pages count as this process's memory only in the block."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._maps: list[mmap.mmap] = []
        for path in paths:
            with path.open("rb") as file:
                self._maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            found = pa.ipc.open_file(pa.py_buffer(self._maps[-1])).read_all()
            self._batches += [batch for batch in found.to_batches() if batch.num_rows]

    def __enter__(self) -> list[pa.RecordBatch]:
        return self._batches

    def __exit__(self, *error: object) -> None:
        for each in self._maps:
            each.madvise(mmap.MADV_DONTNEED)


@functools.lru_cache(maxsize=OPENED)
def _mapped(store: WorkStore, key: str, name: str) -> _Mapped:
    return _Mapped(parts.paths(store.folder(key), name))


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
